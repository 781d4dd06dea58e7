"""Members that are found by name, on connections, without multicast or beside it."""

from __future__ import annotations

import os

import msgspec
import pytest

from tests.sim.test_keys import names, value, write
from tribes.channel.discovery import static_hosts
from tribes.config.model import (
    ChannelConfig,
    ManagerConfig,
    MembershipConfig,
    NodeConfig,
    StaticMemberConfig,
)
from tribes.errors import LocalProtocolError
from tribes.membership.change import RemovalReason
from tribes.security.keys import GroupKey
from tribes.testing.execute import run_plan
from tribes.testing.generator import draw_plan
from tribes.testing.invariants import check_converged
from tribes.testing.sim import SimNode, World
from tribes.wire.member import decode_member, listing_order

KEYS = GroupKey(1, bytes([1]) * 32).to_text()


def config(*ports: int, keys: str = "", multicast: bool = False, auto_bind: int = 1) -> NodeConfig:
    """A node that is told these ports, and no more."""
    static = tuple(
        StaticMemberConfig(host="127.0.0.1", port=port, auto_bind=auto_bind) for port in ports
    )
    membership = MembershipConfig(multicast=multicast, static=static)
    return NodeConfig(
        contexts=("app",),
        channel=ChannelConfig(keys=keys, membership=membership),
        manager=ManagerConfig(channel_send_options=6),
    )


def reasons(node: SimNode) -> list[RemovalReason]:
    return [event.reason for _, event in node.events if event.name == "member removed"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("keys", ["", KEYS], ids=["open", "keyed"])
def test_one_seed_is_enough(keys: str) -> None:
    """All name the first one only, and the first one nobody; within a second all know all, and a
    session that was there before is on all of them.
    """
    world = World(1)
    first = world.start("a", config(keys=keys))
    world.run(1)
    key = write(first, 1)
    others = [world.start(name, config(4000, keys=keys)) for name in "bcdefgh"]
    world.run(1)
    nodes = [first, *others]
    assert [names(node) for node in nodes] == ["abcdefgh"] * 8
    world.run(4)
    assert [value(node, key) for node in nodes] == [1] * 8
    assert all(node.core.is_joined for node in nodes)
    assert check_converged(world, nodes, world.now - 4, 2.0) == []


@pytest.mark.parametrize("keys", ["", KEYS], ids=["open", "keyed"])
def test_nobody_is_suspected_for_want_of_heartbeats(keys: str) -> None:
    """A minute of quiet changes no view."""
    world = World(2)
    nodes = [world.start(name, config(4000, keys=keys)) for name in "abcd"]
    world.run(2)
    before = [node.core.view.number for node in nodes]
    probes: list[object] = []
    world.watch(["probe"], lambda now, node, kind, detail: probes.append(detail))
    world.run(60)
    assert [node.core.view.number for node in nodes] == before
    assert [node.core.view.suspected for node in nodes] == [frozenset()] * 4
    assert {event.name for node in nodes for _, event in node.events} == {"member added", "joined"}
    assert probes == [], "answers on the links are enough"


@pytest.mark.parametrize("keys", ["", KEYS], ids=["open", "keyed"])
def test_crash_restart_pause_and_leave(keys: str) -> None:
    """A crash is noticed at once, a pause is a suspicion and then a removal, who comes back is a
    member again, and who leaves is gone at once, for that reason.
    """
    world = World(3)
    a, b, c = nodes = [world.start(name, config(4000, keys=keys)) for name in "abc"]
    world.run(2)
    key = write(a, 1)
    c.crash()
    world.run(0.5)
    assert names(a) == names(b) == "ab"
    c.start()
    world.run(1.5)
    assert [names(node) for node in nodes] == ["abc"] * 3
    c.pause()
    world.run(2.0)
    assert [m.label for m in a.core.view.suspected] == ["c"]
    c.resume()
    world.run(1.0)
    assert a.core.view.suspected == frozenset()
    c.pause()
    world.run(10)
    assert names(a) == names(b) == "ab"
    c.resume()
    world.run(15)
    assert [names(node) for node in nodes] == ["abc"] * 3
    assert value(c, key) == 1
    b.stop()
    world.run(0.1)
    assert names(a) == names(c) == "ac"
    assert reasons(a)[-1] == reasons(c)[-1] == RemovalReason.LEFT
    world.run(60)
    assert b.port not in [port for _, port in a.core.channel.discovery.seeker.addresses]


def test_the_seed_comes_back() -> None:
    """Who names an address goes on trying it, so the others find a seed that was restarted; and
    those that stayed keep each other meanwhile.
    """
    world = World(4)
    a, b, c = nodes = [world.start(name, config(4000)) for name in "abc"]
    world.run(2)
    a.crash()
    world.run(120)
    assert names(b) == names(c) == "bc"
    a.start()
    world.run(31)
    assert [names(node) for node in nodes] == ["abc"] * 3


@pytest.mark.parametrize("keys", ["", KEYS], ids=["open", "keyed"])
@pytest.mark.parametrize("seconds", [8.0, 100.0])
def test_a_split_heals(keys: str, seconds: float) -> None:
    """Also between nodes of which neither names the other: lost members are looked for."""
    world = World(5)
    nodes = [world.start(name, config(4000, keys=keys)) for name in "abcd"]
    a, b = nodes[:2]
    world.run(2)
    key = write(a, 1)
    world.partition("ab", "cd")
    world.run(seconds)
    assert [names(node) for node in nodes] == ["ab", "ab", "cd", "cd"]
    write(b, 2, key)
    world.heal()
    world.run(35)
    assert [names(node) for node in nodes] == ["abcd"] * 4
    world.run(6)
    assert [value(node, key) for node in nodes] == [2] * 4


def test_a_range_of_ports_is_searched() -> None:
    """The members of one host are found by the first port alone, whichever of them are there."""
    world = World(6)
    for name in "abcdef":
        world.start(name, config(4000, auto_bind=10))
    for name in "abc":
        world.nodes[name].crash()
    world.run(3)
    assert [names(world.nodes[name]) for name in "def"] == ["def"] * 3
    late = world.start("g", config(4000, auto_bind=10))
    world.run(1)
    assert names(late) == "defg"


def test_multicast_and_names_make_one_view() -> None:
    """Of two multicast segments each hears its own; a name joins them, and each member is one."""
    world = World(7)
    left = [world.start(name, config(4000, multicast=True)) for name in "abc"]
    world.run(2)
    right = [world.start(name, config(multicast=True)) for name in "de"]
    # Only the first of the other side is told of anybody.
    bridge = world.start("f", config(4000, multicast=True))
    nodes = [*left, *right, bridge]
    side = dict.fromkeys("abc", 0) | dict.fromkeys("def", 1)
    real = world.network.multicast

    def segmented(source: SimNode, data: bytes) -> None:
        others = {name for name in side if side[name] != side[source.name]}
        blocked = set(world.network.multicast_blocked)
        world.network.multicast_blocked.update(others)
        real(source, data)
        world.network.multicast_blocked.clear()
        world.network.multicast_blocked.update(blocked)

    world.network.multicast = segmented  # type: ignore[method-assign,assignment]
    for node in nodes:
        node.restart()
    world.run(15)
    assert [names(node) for node in nodes] == ["abcdef"] * 6
    table = bridge.core.channel.membership.table
    heard = {m.label for m in bridge.core.view.members if table.is_heard(m, world.now)}
    assert heard == {"d", "e"}
    world.run(30)
    assert [names(node) for node in nodes] == ["abcdef"] * 6


def test_a_group_that_multicast_reaches_tells_no_addresses() -> None:
    """The exchange costs nothing where nobody needs it."""
    world = World(8)
    nodes = [world.start(name, config(multicast=True)) for name in "abcde"]
    world.run(60)
    assert [names(node) for node in nodes] == ["abcde"] * 5
    assert [node.core.channel.discovery.exchange.told for node in nodes] == [0] * 5
    assert [node.core.channel.discovery.seeker.statistics.tried for node in nodes] == [0] * 5


def test_multicast_may_fail_where_members_were_met() -> None:
    """A member that is heard and was met stays one without a test when the heartbeats end."""
    world = World(9)
    nodes = [world.start(name, config(4000, multicast=True)) for name in "abc"]
    world.run(5)
    world.multicast_blocked.update("abc")
    probed: set[tuple[str, object]] = set()
    world.watch(["probe"], lambda now, node, kind, detail: probed.add((node, detail[0])))  # type: ignore[index]
    world.run(30)
    met = {(n.name, member.address) for n in nodes for member in n.core.channel.discovery._met}
    assert met
    assert not probed & met
    assert [names(node) for node in nodes] == ["abc"] * 3
    assert [node.core.view.suspected for node in nodes] == [frozenset()] * 3


def test_a_stranger_to_the_key_is_nobody() -> None:
    """Of two groups with other keys, and one without, none finds the others by a name."""
    other = GroupKey(1, bytes([2]) * 32).to_text()
    world = World(10)
    nodes = [
        world.start("a", config(keys=KEYS)),
        world.start("b", config(4000, keys=KEYS)),
        world.start("x", config(4000, 4001, keys=other)),
        world.start("y", config(4000, 4001)),
    ]
    world.run(70)
    assert [names(node) for node in nodes] == ["ab", "ab", "x", "y"]
    assert nodes[2].core.channel.discovery.seeker.statistics.met == 0
    assert nodes[0].core.channel.discovery.seeker.addresses == []


def test_a_name_that_is_taken_away_is_not_tried_any_more() -> None:
    """And the members that were found by it stay."""
    world = World(11)
    a, b = world.start("a", config()), world.start("b", config(4000))
    world.run(2)
    b.enter(lambda: b.core.discovered("static", [], b.clock.monotonic()))
    world.run(10)
    assert names(a) == names(b) == "ab"
    assert b.core.channel.discovery.seeker.addresses == []
    b.enter(
        lambda: b.core.discovered(
            "dns",
            static_hosts([StaticMemberConfig(host="127.0.0.1", port=4000)]),
            b.clock.monotonic(),
        )
    )
    assert b.core.channel.discovery.seeker.has_names


def test_payload_and_domain_change_while_the_node_runs() -> None:
    """Members are told at once, whether multicast reaches them or not."""
    for multicast in (False, True):
        world = World(12)
        a = world.start("a", config(multicast=multicast))
        b = world.start("b", config(4000, multicast=multicast))
        world.run(2)
        a.core.announce(a.clock.monotonic(), payload=b"new", domain=b"d", command=b"c")
        a.pump()
        world.run(0.1)
        (known,) = b.core.view.members
        assert (known.payload, known.domain, known.command) == (b"new", b"d", b"c")
        assert "member updated" in [event.name for _, event in b.events]
        b.restart()
        world.run(2)
        (known,) = b.core.view.members
        assert (known.payload, known.domain) == (b"new", b"d")


# ---- plain members ------------------------------------------------------------------------------


def plain(*members: SimNode) -> NodeConfig:
    """A node that speaks as Tomcat does, with these for its static members."""
    return _with_static(_known(*members), own_link=False)


def host_of(*members: SimNode) -> NodeConfig:
    """One of ours, with plain members that are configured as Tomcat's are."""
    return _with_static(_known(*members), own_link=True)


def _known(*members: SimNode) -> tuple[StaticMemberConfig, ...]:
    return tuple(
        StaticMemberConfig(
            host="127.0.0.1",
            port=node.port,
            unique_id=node.core.local.unique_id.hex(),
            domain="static",
        )
        for node in members
    )


def _with_static(static: tuple[StaticMemberConfig, ...], *, own_link: bool) -> NodeConfig:
    membership = MembershipConfig(multicast=False, static=static)
    return NodeConfig(
        contexts=("app",), channel=ChannelConfig(own_link=own_link, membership=membership)
    )


def test_a_configured_member_of_tomcat_is_one_while_it_answers() -> None:
    """It is taken at its record, tested, removed when it crashes, and a member again when it is
    back; nobody who merely took its port is taken for it.
    """
    world = World(20)
    tomcat = world.start("t", plain())
    ours = world.start("a", host_of(tomcat))
    world.run(2)
    assert len(ours.core.view.members) == 1
    (member,) = ours.core.view.members
    assert member.domain == b"static"
    world.run(20)
    assert len(ours.core.view.members) == 1
    assert ours.core.view.suspected == frozenset()
    tomcat.crash()
    world.run(1)
    assert len(ours.core.view.members) == 0
    tomcat.start(same_id=True)
    world.run(31)
    assert len(ours.core.view.members) == 1
    tomcat.crash()
    tomcat.start()
    world.run(40)
    assert len(ours.core.view.members) == 0


def test_messages_reach_a_configured_member() -> None:
    """By the plain link: it has no mark, so it is no one of ours."""
    world = World(21)
    tomcat = world.start("t", plain())
    ours = world.start("a", host_of(tomcat))
    world.run(2)
    ticket = ours.send(b"hello", [tomcat], 6)
    world.run(1)
    assert ours.done[ticket] == {}
    assert [message.message for message in tomcat.messages] == [b"hello"]


def test_a_paused_configured_member_is_suspected_and_then_removed() -> None:
    """As any other; and it is found again when it goes on."""
    world = World(22)
    tomcat = world.start("t", plain())
    ours = world.start("a", host_of(tomcat))
    world.run(2)
    tomcat.pause()
    world.run(2)
    assert [m.unique_id for m in ours.core.view.suspected] == [tomcat.core.local.unique_id]
    world.run(10)
    assert len(ours.core.view.members) == 0
    tomcat.resume()
    world.run(31)
    assert len(ours.core.view.members) == 1


def test_guests_of_a_plain_member_are_the_youngest() -> None:
    """While a plain member is there our heartbeats carry a negative alive time that grows; before
    and after, the real one.
    """
    world = World(23)
    heard: dict[str, list[int]] = {"a": [], "t": []}

    def datagram(now: float, node: str, kind: str, data: object) -> None:
        assert isinstance(data, bytes)
        record = decode_member(data)
        label = record.payload.decode()
        if node == "b" and not record.is_shutdown:
            heard[label].append(record.alive)

    world.watch(["datagram"], datagram)
    heard["b"] = []
    world.start("a", config(multicast=True))
    world.start("b", config(multicast=True))
    world.run(3)
    assert heard["a"][-1] > 2000
    tomcat = world.start("t", NodeConfig(contexts=("app",), channel=ChannelConfig(own_link=False)))
    world.run(3)
    guests = heard["a"][-4:]
    assert all(alive < 0 for alive in guests)
    assert guests == sorted(set(guests))
    assert all(alive >= 0 for alive in heard["t"])
    listed = listing_order([m.replace() for m in tomcat.core.view.members] + [tomcat.core.local])
    assert listed[0] == tomcat.core.local
    tomcat.stop()
    world.run(2)
    assert heard["a"][-1] > 7000


def test_lost_members_are_looked_for_though_nobody_names_them() -> None:
    """The one that all had named has left; the others find each other again after a split."""
    world = World(13)
    a, b, c = (world.start(name, config(4000)) for name in "abc")
    world.run(2)
    a.stop()
    world.run(1)
    for node in (b, c):
        node.core.discovered("static", [], node.clock.monotonic())
    world.cut(b, c, both=True)
    world.run(30)
    assert (names(b), names(c)) == ("b", "c")
    world.heal()
    world.run(31)
    assert names(b) == names(c) == "bc"


def test_a_message_from_a_member_unknown_here_makes_it_known() -> None:
    """Also one that was sent before its sender knew what we speak."""
    world = World(14)
    a, b = world.start("a", config()), world.start("b", config())
    world.run(1)
    b.send(b"hello", [a], 6)
    world.run(2)
    assert [message.message for message in a.messages] == [b"hello"]
    assert names(a) == names(b) == "ab"


# ---- plans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", range(0, 15, 5))
def test_the_promises_hold_without_multicast(first: int) -> None:
    """Random faults, load and all invariants. Only a node whose port is held by a child of its dead
    process is left out: it moves to another one, and the name leads nowhere.
    """
    base = 3000 + int(os.environ.get("TRIBES_SIM_FIRST_SEED", "0"))
    for seed in range(base + first, base + first + 5):
        plan = draw_plan(seed)
        plan = msgspec.structs.replace(
            plan,
            links="own",
            multicast=False,
            settle=60.0,
            soon_s=70.0,
            steps=tuple(step for step in plan.steps if step.action != "crash_keep_sockets"),
        )
        plan.check()
        assert run_plan(plan).violations == [], f"seed {seed}"


def test_messages_to_the_whole_group_need_multicast() -> None:
    """Otherwise they would be lost in silence."""
    world = World(15)
    a, b = world.start("a", config()), world.start("b", config(4000))
    world.run(1)
    with pytest.raises(LocalProtocolError, match="no multicast"):
        a.send(b"all", [b], 64)
