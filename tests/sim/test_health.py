"""Who is removed, by whom and when: crashes, splits, links cut one way, bad networks."""

from __future__ import annotations

import pytest

from tribes.config.model import ChannelConfig, NodeConfig
from tribes.interceptors.failure import CONTRADICTED_MAX_S
from tribes.links.own_sender import OwnSender
from tribes.testing.health_run import measure_health
from tribes.testing.sim import SimNode, World
from tribes.wire.member import encode_member

CONFIG = NodeConfig(contexts=())


def group(count: int, seed: int = 1) -> tuple[World, list[SimNode]]:
    world = World(seed)
    nodes = [world.start(f"n{number}", CONFIG) for number in range(count)]
    world.run(3)
    assert all(len(node.names()) == count for node in nodes)
    return world, nodes


def removals(node: SimNode) -> list[tuple[float, str, str]]:
    return [
        (when, event.member.label, str(event.reason))  # type: ignore[attr-defined]
        for when, event in node.events
        if event.name == "member removed"
    ]


def suspicions(node: SimNode) -> set[str]:
    return {e.member.label for _, e in node.events if e.name == "member suspected"}  # type: ignore[attr-defined]


def talk(world: World, nodes: list[SimNode], seconds: float) -> None:
    """Everybody sends to everybody, five times a second."""
    end = world.now + seconds
    while world.now < end:
        for node in nodes:
            if node.is_alive and not node.is_paused:
                node.send(b"x", [n for n in nodes if n is not node and n.is_alive], 6)
        world.run(0.2)


@pytest.mark.parametrize("is_busy", [False, True])
@pytest.mark.parametrize(("count", "dead"), [(2, 1), (3, 1), (5, 1), (5, 2), (5, 4), (12, 6)])
def test_killed_processes_are_removed_within_half_a_second(
    count: int, dead: int, is_busy: bool
) -> None:
    """By every survivor, as crashed, whether or not a second observer is left to be asked."""
    for seed in range(3):
        world, nodes = group(count, seed)
        if is_busy:
            talk(world, nodes, 1.0)
        died = world.now
        for node in nodes[:dead]:
            node.crash()
        world.run(0.5)
        for node in nodes[dead:]:
            assert sorted(node.names()) == sorted(n.name for n in nodes[dead:])
            assert {reason for _, _, reason in removals(node)} == {"crashed"}
            assert max(when for when, _, _ in removals(node)) - died < 0.4


@pytest.mark.parametrize("count", [2, 3, 6])
def test_hung_and_orphaned_processes_are_removed_within_four_and_a_half_seconds(count: int) -> None:
    """Stopped, or dead with their sockets held open: nobody refuses, so silence has to tell."""
    for seed in range(3):
        for keep_sockets in (False, True):
            world, nodes = group(count, seed)
            died = world.now
            if keep_sockets:
                nodes[0].crash(keep_sockets=True)
            else:
                nodes[0].pause()
            world.run(4.5)
            for node in nodes[1:]:
                assert [(who, why) for _, who, why in removals(node)] == [("n0", "silent")]
                assert min(when for when, _, _ in removals(node)) - died >= 2.5


def test_two_that_do_not_reach_each_other_keep_each_other_while_a_third_reaches_both() -> None:
    """They are suspected, so nobody waits; and nothing has to be made good when it is over."""
    world, nodes = group(4)
    a, b = nodes[:2]
    world.tcp_blocked.add(frozenset((a.name, b.name)))
    talk(world, nodes, 8.0)
    assert [m.label for m in a.core.view.suspected] == ["n1"]
    assert [m.label for m in b.core.view.suspected] == ["n0"]
    assert a.core.channel.witnesses.statistics.contradicted > 0
    world.tcp_blocked.clear()
    world.run(3.0)
    for node in nodes:
        assert removals(node) == []
        assert node.core.view.suspected == frozenset()


@pytest.mark.parametrize("seed", range(6))
def test_link_that_is_cut_one_way_ends_in_views_without_it(seed: int) -> None:
    """Both ends give the other up, within some twenty seconds of each other at the latest; who
    reaches both keeps both; and all is whole again soon after.
    """
    world, nodes = group(4, seed)
    a, b, *others = nodes
    world.cut(a, b)
    cut = world.now
    talk(world, nodes, 28.0)
    assert a.names() == ["n0", "n2", "n3"]
    assert b.names() == ["n1", "n2", "n3"]
    for node in others:
        assert removals(node) == []
    for node, other in ((a, "n1"), (b, "n0")):
        ((when, who, why),) = removals(node)
        assert (who, why) == (other, "silent")
        assert when - cut >= CONTRADICTED_MAX_S
    world.uncut(a, b)
    world.run(4.0)
    assert {tuple(node.names()) for node in nodes} == {("n0", "n1", "n2", "n3")}


@pytest.mark.parametrize("period", [0.3, 0.9, 2.5])
def test_flapping_link_removes_nobody_that_is_reached_both_ways(period: float) -> None:
    """The two at its ends may lose each other; nobody else loses anybody."""
    world, nodes = group(4)
    a, b = nodes[:2]
    world.flap(a, b, period, 20.0)
    talk(world, nodes, 20.0)
    world.heal()
    world.run(5.0)
    for node in nodes:
        lost = {who for _, who, _ in removals(node)}
        assert lost <= {"n1"} if node is a else lost <= {"n0"} if node is b else not lost
        assert len(node.names()) == 4
        assert node.core.view.suspected == frozenset()
    doubted = [suspicions(node) for node in nodes]
    assert doubted[2:] == [set(), set()]
    if period > 1.0:
        assert doubted[:2] == [{"n1"}, {"n0"}], "a cut of this length is noticed"


def test_halves_of_a_split_give_each_other_up_and_merge() -> None:
    """Whoever is left has witnesses that are cut off as well."""
    world, nodes = group(8)
    world.partition(nodes[:4], nodes[4:])
    world.run(6.0)
    for half in (nodes[:4], nodes[4:]):
        for node in half:
            assert sorted(node.names()) == sorted(n.name for n in half)
    world.heal()
    world.run(4.0)
    assert {len(node.names()) for node in nodes} == {8}


def test_one_that_is_cut_off_from_all_removes_all() -> None:
    """It has no witness that it would not suspect itself."""
    world, nodes = group(5)
    world.partition(nodes[:1], nodes[1:])
    world.run(6.0)
    assert nodes[0].names() == ["n0"]


def test_who_is_suspected_hears_of_it_and_trusts_itself_less() -> None:
    """One whose answers get lost takes its time before it removes others."""
    world, nodes = group(4)
    for other in nodes[1:]:
        world.tcp_blocked.add((nodes[0].name, other.name))
    talk(world, nodes, 2.5)
    world.tcp_blocked.clear()
    talk(world, nodes, 1.5)
    assert nodes[0].core.channel.health.statistics.doubted >= 3
    assert nodes[0].core.channel.health.local_health >= 2


def test_plain_members_are_neither_asked_nor_told() -> None:
    """In a group with a plain member the others are asked; with plain ones only, nobody."""
    world = World(1)
    plain = NodeConfig(contexts=(), channel=ChannelConfig(own_link=False))
    nodes = [world.start(name, CONFIG if name in "ab" else plain) for name in "abcd"]
    world.run(3)
    died = world.now
    nodes[3].crash()
    world.run(0.5)
    for node in nodes[:3]:
        assert node.names() == ["a", "b", "c"]
        assert removals(node)[0][0] - died < 0.4
    asked = [node.core.channel.witnesses.statistics.asked for node in nodes[:3]]
    assert asked == [1, 1, 0]
    assert [e for n in nodes[:3] for _, e in n.events if e.name == "link rejected"] == []


@pytest.mark.parametrize("seed", [1, 2])
def test_bad_network_with_short_pauses_removes_nobody(seed: int) -> None:
    """A short look at what `tribes.testing.health_run` measures for long."""
    figures = measure_health(seed, members=6, seconds=120.0, pause_every_s=20.0)
    assert figures.suspected > 20
    assert figures.is_well, figures


def test_measurement_sees_what_is_wrong() -> None:
    """Pauses that are longer than a member may be silent end in removals, and it says so."""
    figures = measure_health(1, members=4, seconds=60.0, pause_max_s=9.0, pause_every_s=10.0)
    assert figures.false_removals > 0
    assert not figures.is_well
    assert figures.asked > 0
    assert "removed" in figures.witness[0]


def test_own_link_does_not_overtake_what_the_plain_one_still_brings() -> None:
    """A frame without acknowledgement is with the kernel, which has to send it once more."""
    world = World(1)
    world.loss = 1.0
    a, b = (world.start(name, CONFIG) for name in "ab")
    world.run(0.1)
    world.inject_datagram(encode_member(b.core.local), a)
    world.run(0.5)
    world.tcp_blocked.add(("a", "b"))
    a.send(b"first", [b], 0)
    world.run(0.25)
    world.tcp_blocked.clear()
    b.send(b"it is us", [a], 6)
    world.run(0.02)
    assert [message.message for message in a.messages] == [b"it is us"]
    a.send(b"second", [b], 0)
    world.run(5.0)
    assert [message.message for message in b.messages] == [b"first", b"second"]
    assert isinstance(a.core.channel.senders._senders[b.core.local], OwnSender)


@pytest.mark.parametrize("seed", range(8))
def test_link_goes_over_to_the_own_one_in_order(seed: int) -> None:
    """Also where segments get lost, so that a new connection could overtake the old one."""
    world = World(seed)
    world.loss = 1.0  # no heartbeat arrives: they are told of each other as by a static setting
    a, b = (world.start(name, CONFIG) for name in "ab")
    world.run(0.1)
    world.inject_datagram(encode_member(b.core.local), a)
    world.run(0.5)
    assert a.names() == ["a", "b"]
    for link in world.every_link():
        link.loss = 0.3
    sent = []
    for number in range(60):
        sent.append(b"%d" % number)
        a.send(sent[-1], [b], (0, 0, 0, 8, 2)[number % 5])
        if number == 20:
            b.send(b"it is us", [a], 6)
        world.run(0.05)
    world.run(20.0)
    assert [message.message for message in b.messages] == sent
    assert isinstance(a.core.channel.senders._senders[b.core.local], OwnSender)
