"""Requests and replies between simulated nodes: who is waited for, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.wire.vectors import vector
from tribes.config.model import ChannelConfig, NodeConfig
from tribes.errors import LocalProtocolError, QueueFullError
from tribes.rpc import core as rpc_core
from tribes.rpc.calls import RpcBody, RpcMode
from tribes.testing.sim import SimNode, SimRpc, World
from tribes.wire.java import STREAM_HEADER
from tribes.wire.rpc import encode_rpc
from tribes.wire.session_request import encode_request

if TYPE_CHECKING:
    from tribes.wire.member import Member

ID = b"test-rpc"


def echo(body: RpcBody, source: Member) -> RpcBody:
    assert isinstance(body, bytes)
    return b"re:" + body


def start(world: World, names: str, **channel: object) -> list[SimNode]:
    config = NodeConfig(channel=ChannelConfig(**channel))  # type: ignore[arg-type]
    nodes = [world.start(name, config) for name in names]
    world.run(2)
    return nodes


@pytest.mark.parametrize("own_link", [True, False])
def test_all_members_reply(own_link: bool) -> None:
    """The mode ALL gathers every reply, on own links and between plain members."""
    world = World(1)
    a, *others = start(world, "abcd", own_link=own_link)
    for node in others:
        SimRpc(node, ID, echo)
    call = SimRpc(a, ID).ask(others, b"x")
    world.run(1)
    assert call.replies == [("b", b"re:x"), ("c", b"re:x"), ("d", b"re:x")]
    assert call.missing == {}
    assert call.result is not None
    assert call.result.is_complete


def test_the_first_reply_ends_a_call_and_the_others_are_left_over() -> None:
    """FIRST returns one reply; what comes later goes to the left-over callback (Tomcat)."""
    world = World(2)
    a, *others = start(world, "abcd")
    for node in others:
        SimRpc(node, ID, echo)
    asking = SimRpc(a, ID, takes_left_over=True)
    call = asking.ask(others, b"x", mode=RpcMode.FIRST_REPLY)
    world.run(1)
    assert len(call.replies) == 1
    assert len(asking.left_over) == 2
    assert sorted([*call.replies, *asking.left_over]) == [(n, b"re:x") for n in "bcd"]
    assert a.core.rpc.statistics.left_over == 2


def test_half_of_the_members_are_a_majority() -> None:
    """Of four members two replies are enough, although a third never comes."""
    world = World(3)
    a, *others = start(world, "abcde")
    for node in others[:3]:
        SimRpc(node, ID, echo)
    others[3].pause()
    call = SimRpc(a, ID).ask(others, b"x", mode=RpcMode.MAJORITY_REPLY)
    world.run(0.5)
    assert len(call.replies) == 2
    assert call.result is not None
    assert call.result.is_complete


def test_no_reply_returns_when_the_request_was_sent() -> None:
    """NO_REPLY has an empty result; the replies come as left over."""
    world = World(4)
    a, b = start(world, "ab")
    SimRpc(b, ID, echo)
    asking = SimRpc(a, ID, takes_left_over=True)
    call = asking.ask([b], b"x", mode=RpcMode.NO_REPLY)
    world.run(0.1)
    assert (call.replies, call.missing) == ([], {})
    assert asking.left_over == [("b", b"re:x")]


def test_timeout_zero_does_not_wait_and_no_destination_is_an_empty_result() -> None:
    """Both return inside the call."""
    world = World(5)
    a, b = start(world, "ab")
    asking = SimRpc(a, ID)
    nobody = asking.ask([], b"x")
    assert (nobody.replies, nobody.missing) == ([], {})
    call = asking.ask([b], b"x", timeout=0)
    assert call.missing == {"b": "SendTimeoutError"}


def test_a_member_without_the_channel_says_so_at_once() -> None:
    """The caller expects one reply fewer: nothing is waited for (tribes-wire Appendix C)."""
    world = World(6)
    a, b, c = start(world, "abc")
    SimRpc(b, ID, echo)
    began = world.now
    call = SimRpc(a, ID).ask([b, c], b"x", timeout=60)
    world.run(1)
    assert call.replies == [("b", b"re:x")]
    assert call.missing == {"c": "NoRpcChannelError"}
    assert call.when - began < 0.05
    assert call.result is not None
    assert call.result.is_complete


@pytest.mark.parametrize("own_link", [True, False])
def test_a_tomcat_backup_managers_ping_is_answered_at_once(own_link: bool) -> None:
    """A guest of a Tomcat group has no such map, and must not make the others wait (DESIGN §4.3).

    The request holds a MapMessage, which nothing here reads.
    """
    world = World(7)
    a, b = start(world, "ab", own_link=own_link)
    body = bytes.fromhex(vector("map-state-request")["hex"])[len(STREAM_HEADER) :]
    payload = encode_rpc(b"localhost#shop-map", bytes(16), None, is_reply=False)[:-2] + body + b"x"
    a.core.channel.post((b.core.local,), payload, 2, a.clock.monotonic(), is_bytes=False)
    a.pump()
    world.run(0.05)
    assert b.core.rpc.statistics.no_channel_sent == 1
    assert a.core.rpc.statistics.no_channel_received == 1


@pytest.mark.parametrize("own_link", [True, False])
def test_a_tomcat_delta_managers_request_for_sessions_is_answered_at_once(own_link: bool) -> None:
    """Else its context would start a minute later; the answer is answered by nobody."""
    world = World(71)
    a, b = start(world, "ab", own_link=own_link)
    payload = encode_request("localhost#/app", 1)
    a.core.channel.post((b.core.local,), payload, 8, a.clock.monotonic(), is_bytes=False)
    a.pump()
    world.run(0.05)
    assert b.core.rpc.statistics.no_context_sent == 1
    assert a.core.rpc.statistics.no_context_sent == 0
    spoiled = payload + b"x"
    a.core.channel.post((b.core.local,), spoiled, 8, a.clock.monotonic(), is_bytes=False)
    a.pump()
    world.run(0.05)
    assert b.core.rpc.statistics.malformed == 1
    assert b.core.rpc.statistics.no_context_sent == 1


def test_a_body_that_nobody_reads_is_refused_like_a_missing_channel() -> None:
    """A channel of that id that cannot read the request says so, instead of saying nothing."""
    world = World(8)
    a, b = start(world, "ab")
    SimRpc(b, ID, echo)
    body = bytes.fromhex(vector("map-state-request")["hex"])[len(STREAM_HEADER) :]
    payload = encode_rpc(ID, bytes(16), None, is_reply=False)[:-2] + body + b"x"
    a.core.channel.post((b.core.local,), payload, 2, a.clock.monotonic(), is_bytes=False)
    a.pump()
    world.run(0.05)
    assert a.core.rpc.statistics.no_channel_received == 1


def test_a_refusal_and_a_stray_reply_are_never_answered() -> None:
    """Nobody can make two members talk for ever."""
    world = World(9)
    a, b = start(world, "ab")
    reply = encode_rpc(ID, bytes(16), b"x", is_reply=True)
    a.core.channel.post((b.core.local,), reply, 2, a.clock.monotonic(), is_bytes=False)
    a.pump()
    world.run(0.1)
    assert b.core.rpc.statistics.left_over == 1
    assert b.core.rpc.statistics.no_channel_sent == 0


@pytest.mark.parametrize("has_request", [True, False])
def test_a_crash_ends_the_wait_for_that_member(has_request: bool) -> None:
    """ALL with a minute of patience ends when the dead member is gone from the view.

    Whether it took the request before it died, or never did.
    """
    world = World(10)
    a, b, c = start(world, "abc")
    SimRpc(b, ID, echo)
    SimRpc(c, ID, echo, is_mute=True)
    if not has_request:
        c.pause()
    began = world.now
    call = SimRpc(a, ID).ask([b, c], b"x", timeout=60)
    world.run(0.2)
    c.crash()
    world.run(3)
    assert call.result is not None, "the call waits for a dead member"
    assert call.replies == [("b", b"re:x")]
    assert set(call.missing) == {"c"}
    assert call.when - began < 2
    assert not call.result.is_complete


def test_a_leave_ends_the_wait_for_that_member() -> None:
    """A member that leaves while it owes a reply is missing at once."""
    world = World(11)
    a, b = start(world, "ab")
    SimRpc(b, ID, echo, is_mute=True)
    began = world.now
    call = SimRpc(a, ID).ask([b], b"x", timeout=60)
    world.run(0.1)
    b.stop()
    world.run(0.1)
    assert call.missing == {"b": "MemberUnreachableError"}
    assert call.when - began < 0.2


@pytest.mark.parametrize("has_request", [True, False])
def test_nobody_waits_for_a_suspected_member(has_request: bool) -> None:
    """A hung member is left out within suspect_after; its late reply is left over, not lost."""
    world = World(12)
    a, b, c = start(world, "abc")
    SimRpc(b, ID, echo)
    SimRpc(c, ID, echo, is_mute=has_request)
    asking = SimRpc(a, ID, takes_left_over=True)
    if not has_request:
        c.pause()
    began = world.now
    call = asking.ask([b, c], b"x", timeout=60)
    world.run(0.1)
    c.pause()
    world.run(2.2)
    assert call.missing == {"c": "MemberSuspectedError"}
    assert call.when - began <= 2.3
    later = asking.ask([c], b"y", timeout=60)
    assert later.missing == {"c": "MemberSuspectedError"}
    c.resume()
    world.run(0.5)
    assert asking.left_over == ([] if has_request else [("c", b"re:x"), ("c", b"re:y")])


def test_the_timeout_gives_what_arrived() -> None:
    """A partition and a short patience: the replies of one side, the others missing by time."""
    world = World(13)
    a, b, c = start(world, "abc")
    SimRpc(b, ID, echo)
    SimRpc(c, ID, echo)
    world.partition("ab", "c")
    began = world.now
    call = SimRpc(a, ID).ask([b, c], b"x", timeout=0.3)
    world.run(1)
    assert call.replies == [("b", b"re:x")]
    assert call.missing == {"c": "SendTimeoutError"}
    assert 0.299 <= call.when - began < 0.35


def test_after_the_heal_everybody_replies_again() -> None:
    """A split costs calls their replies, and nothing afterwards."""
    world = World(14)
    a, b, c = start(world, "abc")
    world.partition("ab", "c")
    world.run(6)
    assert a.names() == ["a", "b"]
    world.heal()
    world.run(4)
    SimRpc(b, ID, echo)
    SimRpc(c, ID, echo)
    call = SimRpc(a, ID).ask([b, c], b"x")
    world.run(0.5)
    assert call.replies == [("b", b"re:x"), ("c", b"re:x")]


def test_stopping_the_caller_ends_its_calls() -> None:
    """Nobody is left waiting in a process that leaves."""
    world = World(15)
    a, b = start(world, "ab")
    SimRpc(b, ID, echo, is_mute=True)
    call = SimRpc(a, ID).ask([b], b"x", timeout=60)
    world.run(0.1)
    a.stop()
    assert call.missing == {"b": "ChannelClosedError"}


def test_open_calls_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call too many is an error of its caller; ended calls make room."""
    monkeypatch.setattr(rpc_core, "CALLS_MAX", 3)
    world = World(16)
    a, b = start(world, "ab")
    SimRpc(b, ID, echo)
    asking = SimRpc(a, ID)
    for _ in range(3):
        asking.ask([b], b"x")
    with pytest.raises(QueueFullError, match="3 calls"):
        asking.ask([b], b"x")
    world.run(0.5)
    assert a.core.rpc.open_calls == 0
    asking.ask([b], b"x")


def test_a_member_does_not_ask_itself() -> None:
    """As with every message; the refused call is not kept."""
    world = World(17)
    (a,) = start(world, "a")
    asking = SimRpc(a, ID)
    with pytest.raises(LocalProtocolError, match="itself"):
        asking.ask([a], b"x")
    assert a.core.rpc.open_calls == 0


def test_an_id_names_one_channel() -> None:
    """A second one of the same id is refused, at its maker."""
    world = World(18)
    (a,) = start(world, "a")
    SimRpc(a, ID)
    with pytest.raises(LocalProtocolError, match="open already"):
        SimRpc(a, ID)


def test_one_member_counts_once() -> None:
    """A second reply with one correlation id is left over; so is one of a member not asked."""
    world = World(19)
    a, b, c, d = start(world, "abcd")
    d.pause()

    def twice(body: RpcBody, source: Member) -> RpcBody:
        assert isinstance(body, bytes)
        correlation = next(iter(a.core.rpc._calls))
        for node in (b, c):
            reply = encode_rpc(ID, correlation, b"forged", is_reply=True)
            now = node.clock.monotonic()
            node.core.channel.post((source,), reply, 2, now, is_bytes=False)
            node.pump()
        return b"second"

    SimRpc(b, ID, twice)
    call = SimRpc(a, ID).ask([b, d], b"x", timeout=0.5)
    world.run(1)
    assert call.replies == [("b", b"forged")]
    assert a.core.rpc.statistics.left_over == 2


def test_same_seed_same_calls() -> None:
    """RPC draws its ids from the node's own randomness: a run can be repeated."""

    def run() -> str:
        world = World(20)
        a, b = start(world, "ab")
        SimRpc(b, ID, echo)
        SimRpc(a, ID).ask([b], b"x")
        world.run(1)
        return world.digest

    assert run() == run()
