"""A node that leaves has receipts for all that it has; nobody counts on it meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.sim import backup_nodes
from tests.sim.test_cluster import QUICK
from tribes.channel.outputs import Notice
from tribes.config.model import ChannelConfig, ManagerConfig, NodeConfig, SenderConfig
from tribes.testing.sim import SimNode, SimWaiter, World

if TYPE_CHECKING:
    from tribes.wire.member import Member

MANY = 400


def start(world: World, names: str, options: int = 6, **manager: Any) -> list[SimNode]:
    config = NodeConfig(
        contexts=("app",), manager=ManagerConfig(channel_send_options=options, **manager)
    )
    nodes = [world.start(name, config) for name in names]
    world.run(3)
    return nodes


def write(node: SimNode, value: object, session_id: str = "") -> tuple[str, Any]:
    """One request; returns session id and waiter."""
    manager = node.manager()
    session = manager.find(session_id) if session_id else manager.create()
    assert session is not None, f"{node.name} does not know the session"
    session["value"] = value
    waiter = SimWaiter()
    manager.commit(session, waiter)
    return session.id, waiter


def read(node: SimNode, session_id: str) -> object:
    session = node.manager().find(session_id)
    return None if session is None else session.get("value")


def receipts(node: SimNode) -> Any:
    return node.core.sessions.replicators["app"].receipts


def retire(node: SimNode) -> None:
    node.enter(lambda: node.core.retire(node.clock.monotonic()))


def drain(world: World, node: SimNode, within: float = 5.0) -> float:
    """Drain; the seconds until it may be stopped."""
    begin = world.now
    node.drain()
    assert world.run_until(begin + within, lambda: node.core.is_drained)
    return world.now - begin


def notices(node: SimNode, name: str) -> list[dict[str, object]]:
    return [e.fields() for _, e in node.events if isinstance(e, Notice) and e.name == name]


@pytest.mark.parametrize("options", [0, 2, 6, 8])
def test_drain_ends_with_a_receipt_of_every_member_for_every_partition(options: int) -> None:
    """It takes two round trips, whatever the options."""
    world = World(1)
    a, *others = start(world, "abc", options)
    sessions = [write(a, number)[0] for number in range(MANY)]
    world.run(1)
    assert drain(world, a) < 0.1
    assert receipts(a).receipts == 2 * len({key[:3] for key in sessions})
    report = a.core.sessions.drain_report()
    assert report.is_complete
    assert not report.is_last
    assert report.sessions == {"app": MANY}
    a.stop()
    for node in others:
        assert [read(node, each) for each in sessions] == list(range(MANY))


def test_what_only_the_leaving_node_has_is_handed_over_first() -> None:
    """A member that is gone gave its last change to one other only, which leaves at once."""
    world = World(2)
    a, b, c = start(world, "abc", options=8)
    world.cut(b, c, both=True)
    session_id, _ = write(c, "last words")
    world.run(0.05)
    assert (read(a, session_id), read(b, session_id)) == ("last words", None)
    c.crash()
    drain(world, a)
    assert read(b, session_id) == "last words"


def test_drain_ends_while_others_write_on() -> None:
    """Replicas that are never equal at one moment give receipts by merging."""
    world = World(3)
    a, b, c = start(world, "abc", options=8)
    sessions = [write(a, number)[0] for number in range(20)]
    world.run(1)

    def busy(number: int) -> None:
        write((b, c)[number % 2], number, sessions[number % 20])
        world.at(0.0002, lambda: busy(number + 1))

    busy(0)
    assert drain(world, a) < 0.2


def test_hung_member_is_waited_for_until_it_is_removed_and_named() -> None:
    """Its receipt may be the only one that counts; when it is removed there is none to wait for."""
    world = World(4)
    a, _, c = start(world, "abc")
    write(a, 1)
    world.run(1)
    c.pause()
    a.drain()
    world.run(2)
    assert not a.core.is_drained
    [lacking] = a.core.sessions.drain_report().lacking
    assert (lacking.member, lacking.sessions) == ("c", 1)
    assert "does not answer" in lacking.why
    assert not a.core.sessions.drain_report().is_complete
    assert world.run_until(world.now + 4, lambda: a.core.is_drained)
    assert a.core.sessions.drain_report().is_complete


def test_lost_question_is_asked_again() -> None:
    """The network fails for a moment, just then."""
    world = World(5)
    config = NodeConfig(
        contexts=("app",),
        channel=ChannelConfig(own_link=False, sender=SenderConfig(timeout=200)),
        manager=ManagerConfig(channel_send_options=6),
    )
    a, b = (world.start(name, config) for name in "ab")
    world.run(3)
    session_id, _ = write(a, 1)
    world.run(1)
    world.cut(a, b, both=True)
    a.drain()
    world.run(0.8)
    assert not a.core.is_drained
    world.heal()
    assert world.run_until(world.now + 4, lambda: a.core.is_drained)
    assert read(b, session_id) == 1


def test_commit_during_the_drain_needs_its_own_receipt() -> None:
    """A request that ends late: what it wrote is confirmed as well."""
    world = World(6)
    a, b = (world.start(name, QUICK) for name in "ab")
    world.run(3)
    session_id, _ = write(a, 1)
    world.run(1)
    drain(world, a)
    b.pause()
    write(a, 2, session_id)
    world.run(0.01)
    assert world.run_until(world.now + 0.9, lambda: a.core.channel.is_idle)
    assert not a.core.is_drained
    b.resume()
    assert world.run_until(world.now + 3, lambda: a.core.is_drained)
    assert read(b, session_id) == 2


def test_nobody_waits_for_a_draining_member_or_counts_it() -> None:
    """Its acknowledgement is no copy: it will be gone. What it serves until then is up to date."""
    world = World(7)
    a, b, c = start(world, "abc", min_copies=1)
    session_id, _ = write(a, 1)
    world.run(1)
    retire(c)
    world.run(0.1)
    assert notices(a, "member draining") == notices(b, "member draining") == [{"member": "c"}]
    _, waiter = write(a, 2, session_id)
    world.run(0.05)
    assert (waiter.result.acked, waiter.result.missing) == (("b",), {})
    assert read(c, session_id) == 2
    c.pause()
    _, waiter = write(a, 3, session_id)
    world.run(0.05)
    assert (waiter.result.acked, waiter.result.missing) == (("b",), {})


def test_draining_member_leaves_no_commit_without_answer() -> None:
    """It goes in the middle of commits, and none of them reports it as missing."""
    world = World(8)
    a, _, c = start(world, "abc")
    session_id, _ = write(a, 0)
    waiters = []

    def count(number: int) -> None:
        waiters.append(write(a, number, session_id)[1])
        if number < 200:
            world.at(0.001, lambda: count(number + 1))

    count(1)
    world.at(0.08, lambda: c.stop(drain=5))
    world.run(1)
    assert not c.is_alive
    assert len(waiters) == 200
    assert [w.result.missing for w in waiters if w.result.missing] == []


def test_draining_node_commits_like_any_other() -> None:
    """It goes on answering until its requests are done, and waits for those that stay."""
    world = World(9)
    a, b, c = start(world, "abc")
    retire(a)
    retire(c)
    world.run(0.1)
    session_id, waiter = write(a, 1)
    world.run(0.05)
    assert (waiter.result.acked, waiter.result.missing) == (("b",), {})
    assert read(b, session_id) == read(c, session_id) == 1


def test_newcomer_is_told_who_drains_and_gives_its_receipt_too() -> None:
    """It joined while the other was about to leave."""
    world = World(10)
    a, b = start(world, "ab")
    session_id, _ = write(a, 1)
    world.run(1)
    b.pause()
    a.drain()
    world.run(0.3)
    c = world.start("c", a.config)
    assert world.run_until(world.now + 2, lambda: bool(notices(c, "member draining")))
    b.resume()
    assert world.run_until(world.now + 3, lambda: a.core.is_drained)
    assert read(c, session_id) == 1
    world.run(1)
    _, waiter = write(c, 2, session_id)
    world.run(0.05)
    assert waiter.result.acked == ("b",)


def _later(
    node: SimNode,
    call: Callable[..., None],
    seconds: float,
    member: Member,
    now: float,
    **how: Any,
) -> None:
    node.core.channel.timers.at(now + seconds, lambda then: call(member, then, **how))


@pytest.mark.parametrize("start_nodes", [start, backup_nodes.start])
def test_member_that_has_not_said_yet_what_it_runs_may_be_an_heir(
    start_nodes: Callable[[World, str], list[SimNode]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A split has healed, and the node that leaves was alone until then: the other one has taken
    its hello, and cannot connect yet to send its own.
    """
    world = World(14)
    a, b = start_nodes(world, "ab")
    world.partition("a", "b")
    assert world.run_until(world.now + 10, lambda: not (a.core.view.members or b.core.view.members))
    session_id, _ = write(a, 1)
    world.run(0.1)
    monkeypatch.setattr(b.core.sessions, "_hello", partial(_later, b, b.core.sessions._hello, 0.2))
    world.heal()
    assert world.run_until(world.now + 5, lambda: bool(a.core.view.members))
    drain(world, a)
    a.stop()
    world.run(1)
    assert read(b, session_id) == 1


def test_node_has_not_joined_before_the_members_that_it_sees_have_said_what_they_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They could have sessions, also when they are slow to say so: as one that takes what it has
    for all would, a node that has joined answers that there is no such session.
    """
    world = World(16)
    [a] = start(world, "a")
    session_id, _ = write(a, 1)
    monkeypatch.setattr(a.core.sessions, "_hello", partial(_later, a, a.core.sessions._hello, 2.0))
    b = world.start("b", a.config)
    assert world.run_until(world.now + 10, lambda: b.core.is_joined)
    assert read(b, session_id) == 1


def test_plain_member_that_never_says_what_it_runs_holds_no_drain_up() -> None:
    """A Tomcat, or a channel without sessions: after three seconds it is none that could have
    anything.
    """
    world = World(15)
    [a] = start(world, "a")
    write(a, 1)
    world.start("b", NodeConfig())
    assert world.run_until(world.now + 5, lambda: bool(a.core.view.members))
    assert 2.5 < drain(world, a) < 3.5
    assert a.core.sessions.drain_report().is_last


def test_all_drain_together_and_none_waits() -> None:
    """Nobody stays that could give a receipt: each is the last one, and says so."""
    world = World(11)
    nodes = start(world, "abc")
    write(nodes[0], 1)
    world.run(1)
    for node in nodes:
        node.drain()
    world.run(0.1)
    for node in nodes:
        report = node.core.sessions.drain_report()
        assert node.core.is_drained
        assert (report.is_last, report.is_complete, report.sessions) == (True, True, {"app": 1})


def test_node_that_is_alone_is_the_last_one() -> None:
    """There is nobody to wait for."""
    world = World(12)
    [a] = start(world, "a")
    write(a, 1)
    assert drain(world, a) == 0
    assert a.core.sessions.drain_report().is_last


def test_draining_node_expires_nothing_any_more() -> None:
    """The others own its sessions: each expires once, and there."""
    world = World(13)
    a, b = start(world, "ab", max_inactive_s=2)
    sessions = [write(a, number)[0] for number in range(40)]
    world.run(0.5)
    retire(a)
    world.run(5)
    assert [e for _, e in a.events if e.name == "session expired"] == []
    assert len([e for _, e in b.events if e.name == "session expired"]) == len(sessions)


def test_session_that_cannot_travel_does_not_hold_the_drain_up_and_is_named() -> None:
    """It was told to its writer, too; every other session has its receipt."""
    world = World(14)
    a, b = start(world, "ab", inbox_max_bytes=2**26)
    large, _ = write(a, bytes(a.core.channel.message_max_bytes))
    small, _ = write(a, 1)
    world.run(1)
    assert drain(world, a) < 0.2
    [lacking] = a.core.sessions.drain_report().lacking
    assert (lacking.member, lacking.partitions) == ("b", 1)
    assert "too long to travel" in lacking.why
    assert (read(b, large), read(b, small)) == (None, 1)


def test_a_slow_node_is_not_drained_before_it_has_begun() -> None:
    """Seed 812483: it was taken for drained with the drain still among the things it had to do."""
    world = World(21)
    node, _ = (world.start(name) for name in "ab")
    world.run(3)
    node.throttle = 1e6
    node.drain()
    assert node.core.is_drained
    assert not node.is_drained
    node.throttle = 1.0
    assert world.run_until(world.now + 100, lambda: node.is_drained)
