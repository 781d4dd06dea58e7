"""Orders that lose or damage messages are refused before anything starts."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tribes.channel.chain import Interceptor
from tribes.config.model import ChannelConfig, NodeConfig
from tribes.errors import ConfigError
from tribes.interceptors import (
    EncryptInterceptor,
    FragmentationInterceptor,
    GzipInterceptor,
    MessageDispatchInterceptor,
    OrderInterceptor,
    StaticMembershipInterceptor,
    TcpFailureDetector,
    TcpPingInterceptor,
    ThroughputInterceptor,
    TwoPhaseCommitInterceptor,
)
from tribes.interceptors.registry import INTERCEPTORS, attributes_of
from tribes.interceptors.rules import _ONCE, ADVICE, RULES, Rule, advice, check_stack
from tribes.testing.sim import World
from tribes.testing.stage import Stage, stage_member

DOCS = Path(__file__).parents[2] / "docs" / "channel.md"
LOCAL = stage_member(0)


def make(kind: type[Interceptor]) -> Interceptor:
    return EncryptInterceptor(encryption_key="ab" * 16) if kind is EncryptInterceptor else kind()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.above.__name__}-{rule.below}")
def test_wrong_order_is_refused_with_both_names_and_what_to_write(rule: Rule) -> None:
    """Also with others between them; the other way round it starts."""
    upper, lower = rule.above.__name__, rule.below.__name__
    stack = [make(rule.above), ThroughputInterceptor(), make(rule.below)]
    with pytest.raises(ConfigError) as error:
        check_stack(stack, local=LOCAL)
    assert f"{upper} stands above {lower}: {rule.why}; write {lower} before {upper}" in str(
        error.value
    )
    assert error.value.key == "channel.interceptors"
    check_stack(stack[::-1], local=LOCAL)


@pytest.mark.parametrize("rule", ADVICE, ids=lambda rule: f"{rule.above.__name__}-{rule.below}")
def test_order_that_harms_others_only_is_told(rule: Rule) -> None:
    """It starts, and an event says what an operator should know."""
    stack = [make(rule.above), make(rule.below)]
    check_stack(stack, local=LOCAL)
    assert any(rule.why in text for text in advice(stack))
    assert not any(rule.why in text for text in advice(stack[::-1]))


def test_static_members_without_a_detector_and_weak_ciphers_are_told() -> None:
    """As Tomcat warns of both."""
    assert "without a TcpFailureDetector" in advice([StaticMembershipInterceptor()])[0]
    weak = EncryptInterceptor(encryption_key="ab" * 16, encryption_algorithm="AES/CBC/PKCS5Padding")
    assert "does not notice changed messages" in advice([weak])[0]
    assert advice([make(EncryptInterceptor), TcpFailureDetector()]) == []


@pytest.mark.parametrize("kind", [kind for kind, _ in _ONCE if kind in INTERCEPTORS.values()])
def test_the_same_twice_is_refused(kind: type[Interceptor]) -> None:
    """But a counter may measure in several places."""
    with pytest.raises(ConfigError, match="take one away"):
        check_stack([make(kind), make(kind)], local=LOCAL)
    check_stack([ThroughputInterceptor(), ThroughputInterceptor()], local=LOCAL)


class Flagged(Interceptor):
    def __init__(self, flag: int) -> None:
        self.option_flag = flag


def test_option_flags_that_cover_each_other_are_refused_on_request() -> None:
    """Upstream TestGroupChannelOptionFlag: 128 and 128 conflict; 128, 64 and 256 do not. The
    channel itself counts with 7. Tomcat's text ends with "No faulty members identified."; ours
    names both and the remedy.
    """
    with pytest.raises(ConfigError, match="Flagged has 128, Flagged has 128") as error:
        check_stack([Flagged(128), Flagged(128)], local=LOCAL, option_check=True)
    assert error.value.key == "channel.option_check"
    check_stack([Flagged(128), Flagged(64), Flagged(256)], local=LOCAL, option_check=True)
    check_stack([Flagged(128), Flagged(128)], local=LOCAL)
    with pytest.raises(ConfigError, match="the channel itself has 7"):
        check_stack([Flagged(2)], local=LOCAL, option_check=True)
    with pytest.raises(ConfigError):
        check_stack([Flagged(192), Flagged(64)], local=LOCAL, option_check=True)


def test_node_refuses_a_wrong_order_and_tells_advice() -> None:
    """Both are applied where a node is made, so by the runtime and the simulator alike."""
    bad = ({"class": "TcpFailureDetector"}, {"class": "OrderInterceptor"})
    with pytest.raises(ConfigError, match="stands above"):
        World(seed=1).start("a", NodeConfig(channel=ChannelConfig(interceptors=bad)))
    flagged = ({"class": "OrderInterceptor", "optionFlag": 2},)
    checked = NodeConfig(channel=ChannelConfig(interceptors=flagged, option_check=True))
    with pytest.raises(ConfigError, match="conflict"):
        World(seed=1).start("b", checked)
    world = World(seed=1)
    advised = ({"class": "OrderInterceptor"}, {"class": "GzipInterceptor"})
    node = world.start("c", NodeConfig(channel=ChannelConfig(interceptors=advised)))
    world.run(0.1)
    told = [event.fields()["advice"] for _, event in node.events if event.name == "interceptors"]
    assert told == advice([OrderInterceptor(), GzipInterceptor()])


SHAPERS = (
    lambda: EncryptInterceptor(encryption_key="ab" * 16),
    lambda: GzipInterceptor(compression_min_size=30),
    lambda: FragmentationInterceptor(max_size=37),
    OrderInterceptor,
    TwoPhaseCommitInterceptor,
    ThroughputInterceptor,
    MessageDispatchInterceptor,
)


def is_allowed(picked: tuple[int, ...]) -> bool:
    try:
        check_stack([SHAPERS[index]() for index in picked], local=LOCAL)
    except ConfigError:
        return False
    return True


ORDERS = list(filter(is_allowed, itertools.permutations(range(len(SHAPERS)), 3)))


@pytest.mark.parametrize("picked", ORDERS)
def test_every_order_that_is_allowed_carries_every_message(picked: tuple[int, ...]) -> None:
    """Three stacked, to two destinations: what one sends the other gets, once and in order, and
    nothing is left held. So no rule is missing among these.
    """
    kinds = [SHAPERS[index] for index in picked]
    members = stage_member(1), stage_member(2)
    sender = Stage(*(kind() for kind in kinds))
    receivers = {m: Stage(*(kind() for kind in kinds), local=m) for m in members}
    messages = [b"", b"x", bytes(200), bytes(range(256)) * 2, b"y" * 37]
    tickets = [sender.send(message, *members, options=1 | 8) for message in messages]
    for each in sender.sent:
        for member in each.destinations:
            receivers[member].receive(each.data)
    for receiver in receivers.values():
        assert receiver.messages == messages
    assert all(ticket.is_settled and not ticket.faulty for ticket in tickets)


def test_documentation_has_both_tables() -> None:
    """Each rule with its reason, word for word."""
    text = " ".join(DOCS.read_text().replace("`", "").split())
    for rule in (*RULES, *ADVICE):
        assert f"{rule.above.__name__} above {rule.below.__name__}" in text
        assert rule.why in text


def test_documentation_names_every_interceptor_and_attribute() -> None:
    """With Tomcat's name, in the interceptor's own section."""
    text = DOCS.read_text()
    for name, kind in INTERCEPTORS.items():
        if name == "MessageDispatch15Interceptor":
            continue
        section = text.partition(f"### {name}\n")[2].partition("\n### ")[0]
        assert section, name
        for attribute in attributes_of(kind):
            if attribute != "option_flag":
                assert f"`{attribute}`" in section, f"{name}.{attribute}"


def test_ping_and_static_have_their_places() -> None:
    """Tomcat's stack for static members starts."""
    stack = [TcpPingInterceptor(), TcpFailureDetector(), StaticMembershipInterceptor()]
    check_stack(stack, local=LOCAL)
    assert advice(stack) == []
