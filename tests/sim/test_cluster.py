"""The simulated world drives the same core as the real one: members, faults, sessions."""

from __future__ import annotations

from typing import Any

import pytest

from tribes.channel.outputs import MemberRemoved
from tribes.config.model import ChannelConfig, ManagerConfig, NodeConfig, SenderConfig
from tribes.testing.sim import SimNode, SimWaiter, World

QUICK = NodeConfig(
    contexts=("app",),
    channel=ChannelConfig(sender=SenderConfig(timeout=200)),
    manager=ManagerConfig(channel_send_options=6),
)
"""Sends give up long before anybody is suspected."""


def config(options: int = 6, **manager: Any) -> NodeConfig:
    return NodeConfig(
        contexts=("app",), manager=ManagerConfig(channel_send_options=options, **manager)
    )


def start(world: World, names: str, options: int = 6, **manager: Any) -> list[SimNode]:
    nodes = [world.start(name, config(options, **manager)) for name in names]
    world.run(2)
    return nodes


def write(
    node: SimNode, name: str, value: object, session_id: str | None = None
) -> tuple[str, Any]:
    """One request: find or create, change, commit; returns session id and waiter."""
    manager = node.manager()
    session = manager.create() if session_id is None else manager.find(session_id)
    assert session is not None, f"{node.name} does not know the session"
    session[name] = value
    waiter = SimWaiter()
    manager.commit(session, waiter)
    return session.id, waiter


def read(node: SimNode, session_id: str) -> dict[str, object] | None:
    session = node.manager().find(session_id)
    return None if session is None else dict(session)


def digests(nodes: list[SimNode]) -> set[int]:
    return {node.manager().table.root_digest() for node in nodes}


def reasons(node: SimNode) -> list[tuple[str, str]]:
    return [
        (event.member.label, str(event.reason))
        for _, event in node.events
        if isinstance(event, MemberRemoved)
    ]


def test_members_find_each_other() -> None:
    """Everybody sees everybody within two heartbeats."""
    nodes = start(World(1), "abcde")
    assert {tuple(node.names()) for node in nodes} == {tuple("abcde")}
    assert all(node.core.is_joined for node in nodes)


def test_leave_is_told_apart_from_crash_and_silence() -> None:
    """Each way to go has its reason, and its time: at once, ≤ 0.5 s, drop_time and a question."""
    world = World(2)
    a, b, c, d = start(world, "abcd")
    b.stop()
    world.run(0.1)
    assert a.names() == ["a", "c", "d"]
    c.crash()
    world.run(0.5)
    assert a.names() == ["a", "d"]
    begin = world.now
    d.pause()
    assert world.run_until(begin + 5, lambda: a.names() == ["a"])
    assert 3.0 < world.now - begin <= 4.5
    assert reasons(a) == [("b", "left"), ("c", "crashed"), ("d", "silent")]


def test_resumed_member_joins_again_with_what_it_has() -> None:
    """SIGSTOP, removal, SIGCONT: it is back by itself and both sides have all sessions."""
    world = World(3)
    a, b = start(world, "ab", options=8)
    first, _ = write(b, "x", 1)
    world.run(0.1)
    b.pause()
    world.run(6)
    assert a.names() == ["a"]
    second, _ = write(a, "y", 2)
    b.resume()
    world.run(3)
    assert a.names() == b.names() == ["a", "b"]
    assert read(b, second) == {"y": 2}
    assert read(a, first) == {"x": 1}
    assert len(digests([a, b])) == 1


def test_t24_a_session_made_on_one_member_is_on_the_others_after_the_request() -> None:
    """With the same id, creation time and attributes."""
    nodes = start(World(24), "abc", options=6)
    made = nodes[0].manager().create()
    made["user"] = "ann"
    waiter = SimWaiter()
    nodes[0].manager().commit(made, waiter)
    nodes[0].world.run(0.1)
    assert waiter.result is not None
    for node in nodes:
        found = node.manager().find(made.id)
        assert found is not None
        assert (found.id, found.created_ms, dict(found)) == (
            made.id,
            made.created_ms,
            {"user": "ann"},
        )


@pytest.mark.parametrize("announces", [True, False])
def test_t25_a_session_is_announced_when_it_is_made_where_that_is_set(announces: bool) -> None:
    """The request that made it still runs; otherwise the others hear of it with the commit, which
    is before the client knows its id.
    """
    world = World(25)
    a, b = start(world, "ab", options=8, announce_created=announces)
    made = a.manager().create()
    a.pump()
    world.run(0.1)
    assert (b.manager().find(made.id) is not None) == announces
    made["x"] = 1
    assert made.is_new
    a.manager().commit(made)
    a.pump()
    world.run(0.1)
    assert read(b, made.id) == {"x": 1}


def test_t33_invalidating_on_one_member_ends_it_on_all_with_the_last_change() -> None:
    """The request changed it before it ended it: listeners elsewhere see that change."""
    world = World(33)
    a, b, c = start(world, "abc", options=6, notify_session_listeners_on_replication=True)
    seen: list[dict[str, object]] = []

    class Listener:
        def session_destroyed(self, session: Any, reason: str) -> None:
            seen.append(dict(session))

    c.manager().add_listener(Listener())
    session_id, _ = write(a, "x", 1)
    world.run(0.1)
    session = b.manager().find(session_id)
    assert session is not None
    session["x"] = 2
    b.manager().commit(session)
    session.invalidate()
    b.manager().commit(session)
    world.run(0.1)
    c.manager().news.tell()
    assert [read(node, session_id) for node in (a, b, c)] == [None] * 3
    assert seen == [{"x": 2}]


def test_acknowledged_commit_is_on_every_member() -> None:
    """With option 6 the result names the members that processed it, and they have it."""
    world = World(4)
    a, b, c = start(world, "abc")
    session_id, waiter = write(a, "x", [1, 2])
    world.run(0.05)
    assert sorted(waiter.result.acked) == ["b", "c"]
    assert waiter.result.replicated
    assert read(b, session_id) == read(c, session_id) == {"x": [1, 2]}


def test_t56_sequential_writes_over_all_nodes_lose_nothing() -> None:
    """600 increments, each on the next node after the last was acknowledged, end at 600."""
    world = World(5)
    nodes = start(world, "abc")
    session_id, waiter = write(nodes[0], "count", 1)
    for turn in range(1, 600):
        world.run_until(world.now + 1, lambda w=waiter: w.result is not None)  # type: ignore[misc]
        node = nodes[turn % 3]
        seen = read(node, session_id)
        assert seen == {"count": turn}
        session_id, waiter = write(node, "count", turn + 1, session_id)
    world.run(1)
    assert [read(node, session_id) for node in nodes] == [{"count": 600}] * 3


def test_t57_concurrent_writers_of_different_attributes_both_survive() -> None:
    """Two nodes write at the same moments, 200 attributes each; every replica ends with all."""
    world = World(6)
    a, b, c = nodes = start(world, "abc", options=8)
    session_id, _ = write(a, "start", 0)
    world.run(0.1)
    for i in range(200):
        write(a, f"a{i}", i, session_id)
        write(b, f"b{i}", i, session_id)
        if i % 10 == 0:
            world.run(0.001)
    world.run(1)
    expected = {"start": 0, **{f"{n}{i}": i for n in "ab" for i in range(200)}}
    assert [read(node, session_id) for node in (a, b, c)] == [expected] * 3
    assert len(digests(nodes)) == 1


def test_t58_a_thousand_collisions_on_one_attribute_leave_one_value_and_are_counted() -> None:
    """Two nodes write one attribute at the same moment: the later version stays on all three, and
    whoever's write is lost counts it; no collision goes uncounted or is counted twice.
    """
    world = World(12)
    a, b, c = nodes = start(world, "abc", options=8)
    session_id, _ = write(a, "x", "first")
    world.run(0.1)
    for turn in range(1000):
        write(a, "x", f"a{turn}", session_id)
        write(b, "x", f"b{turn}", session_id)
        world.run(0.02)
        winner = "b" if b.manager().clock.actor > a.manager().clock.actor else "a"
        held = [read(node, session_id) for node in (a, b, c)]
        assert held == [held[0]] * 3
        if turn == 0:
            # Both had seen the same: equal times are decided by the actor, on every node.
            assert held[0] == {"x": f"{winner}0"}
    lost = [node.manager().statistics().overwritten for node in nodes]
    assert sum(lost) == 1000
    assert lost[2] == 0
    assert len(digests(nodes)) == 1


def test_t51_joiner_under_write_load_has_every_session() -> None:
    """While others write, a node starts: afterwards it holds exactly what they hold."""
    world = World(7)
    a, b, c = start(world, "abc", options=8)
    ids = [write((a, b, c)[i % 3], "n", i)[0] for i in range(300)]
    world.run(0.1)
    d = world.start("d", config(8))
    for i in range(300):
        ids.append(write((a, b, c)[i % 3], "late", i)[0])
        write((a, b, c)[(i + 1) % 3], "more", i, ids[i])
        world.run(0.01)
    world.run(2)
    assert d.core.is_joined
    assert len(digests([a, b, c, d])) == 1
    assert all(read(d, session_id) is not None for session_id in ids)


@pytest.mark.parametrize("names", ["ab", "abcdef"])
def test_t50_nodes_that_start_together_do_not_wait_for_each_other(names: str) -> None:
    """Fifty times, two and six at once: each is joined within two seconds."""
    for seed in range(50):
        world = World(seed)
        nodes = [world.start(name, config()) for name in names]
        world.run(2)
        assert all(node.core.is_joined for node in nodes), seed


def test_t65_partition_heals_and_both_sides_writes_survive() -> None:
    """Split 2 | 2 with writes on both sides: after the heal one state, with all of them."""
    world = World(9)
    a, b, c, d = nodes = start(world, "abcd", options=8)
    session_id, _ = write(a, "before", 0)
    world.run(0.2)
    world.partition([a, b], [c, d])
    world.run(8)
    assert a.names() == ["a", "b"]
    assert d.names() == ["c", "d"]
    write(a, "left", 1, session_id)
    write(d, "right", 2, session_id)
    new, _ = write(c, "new", 3)
    world.run(1)
    world.heal()
    world.run(6)
    assert {tuple(node.names()) for node in nodes} == {tuple("abcd")}
    assert [read(node, session_id) for node in nodes] == [{"before": 0, "left": 1, "right": 2}] * 4
    assert [read(node, new) for node in nodes] == [{"new": 3}] * 4
    assert len(digests(nodes)) == 1


def test_invalidated_session_never_comes_back() -> None:
    """Logout on one side of a split wins over writes on the other, and over late copies."""
    world = World(10)
    a, b, c = nodes = start(world, "abc", options=8)
    session_id, _ = write(a, "x", 1)
    world.run(0.2)
    world.partition([a], [b, c])
    session = a.manager().find(session_id)
    assert session is not None
    session.invalidate()
    a.manager().commit(session)
    write(b, "y", 2, session_id)
    world.run(8)
    assert read(a, session_id) is None
    assert read(c, session_id) == {"x": 1, "y": 2}
    world.heal()
    world.run(6)
    assert [read(node, session_id) for node in nodes] == [None] * 3
    assert len(digests(nodes)) == 1


def test_t34_idle_session_expires_everywhere_once() -> None:
    """The owner asks, nobody objects, and one node reports it."""
    world = World(11)
    nodes = start(world, "abc", max_inactive_s=5)
    session_id, _ = write(nodes[0], "x", 1)
    world.run(4)
    assert read(nodes[1], session_id) is not None
    world.run(10)
    assert [read(node, session_id) for node in nodes] == [None] * 3
    told = [e for node in nodes for _, e in node.events if e.name == "session expired"]
    assert len(told) == 1


def test_session_in_use_anywhere_does_not_expire() -> None:
    """Reads on one node alone keep it alive on all, although they change nothing."""
    world = World(12)
    nodes = start(world, "abc", max_inactive_s=5)
    session_id, _ = write(nodes[0], "x", 1)
    for _ in range(40):
        world.run(1)
        session = nodes[2].manager().find(session_id)
        assert session is not None
        assert session["x"] == 1
        nodes[2].manager().commit(session)
    assert [read(node, session_id) for node in nodes] == [{"x": 1}] * 3


def test_member_that_hangs_delays_a_commit_by_the_timeout_at_most() -> None:
    """Waiting ends after ``commit_timeout`` and names the member; later everybody is equal."""
    world = World(13)
    a, b, c = nodes = start(world, "abc", commit_timeout=500)
    c.pause()
    session_id, waiter = write(a, "x", 1)
    world.run(0.49)
    assert not waiter.is_done
    world.run(0.02)
    assert waiter.result.acked == ("b",)
    assert list(waiter.result.missing) == ["c"]
    assert read(b, session_id) == {"x": 1}
    world.run(1)
    c.resume()
    world.run(5)
    assert read(c, session_id) == {"x": 1}
    assert len(digests(nodes)) == 1


def test_lost_deltas_are_repaired() -> None:
    """A message that could not be delivered leaves its keys dirty until the member has them."""
    world = World(14)
    a, b = (world.start(name, QUICK) for name in "ab")
    world.run(2)
    b.pause()
    session_id, waiter = write(a, "x", 1)
    world.run(1)
    assert waiter.result.missing
    b.resume()
    world.run(3)
    assert read(b, session_id) == {"x": 1}
    assert a.core.is_drained


def test_nobody_is_drained_while_a_member_must_be_asked_again() -> None:
    """A question that failed is asked again a second later; until then nothing is known."""
    world = World(18)
    a, b = (world.start(name, QUICK) for name in "ab")
    world.run(3)
    b.pause()
    write(a, "x", 1)
    a.drain()
    assert world.run_until(world.now + 0.9, lambda: a.core.channel.is_idle)
    assert not a.core.is_drained
    b.resume()
    assert world.run_until(world.now + 3, lambda: a.core.is_drained)


def test_one_hour_of_clock_skew_loses_nothing() -> None:
    """A node whose clock is behind still overwrites what it has seen."""
    world = World(15)
    a = world.start("a", config(), clock_offset_ms=3_600_000)
    b = world.start("b", config())
    world.run(2)
    session_id, _ = write(a, "x", "ahead")
    world.run(0.1)
    write(b, "x", "behind, later", session_id)
    world.run(0.1)
    assert read(a, session_id) == read(b, session_id) == {"x": "behind, later"}


def test_clock_a_day_ahead_is_refused() -> None:
    """Its writes stay its own; the sender learns that they were not taken."""
    world = World(16)
    a = world.start("a", config(), clock_offset_ms=25 * 3_600_000)
    b = world.start("b", config())
    world.run(2)
    session_id, waiter = write(a, "x", 1)
    world.run(1)
    assert "b" in waiter.result.missing
    assert read(b, session_id) is None


@pytest.mark.parametrize("options", [0, 2, 6, 8])
def test_messages_arrive_in_order_whatever_the_jitter(options: int) -> None:
    """One sender's messages reach a listener as they were sent."""
    world = World(17, jitter=0.02)
    a, b = start(world, "ab")
    for i in range(100):
        a.send(b"%d" % i, [b], options)
    world.run(20)
    assert [m.message for m in b.messages] == [b"%d" % i for i in range(100)]
    assert all(faulty == {} for faulty in a.done.values())


def test_same_seed_gives_the_same_world_byte_for_byte() -> None:
    """Two runs of one seed have one digest; another seed has another."""

    def run(seed: int) -> str:
        world = World(seed)
        world.loss = 0.1
        a, b, c = start(world, "abc", options=8)
        for i in range(20):
            write((a, b, c)[i % 3], "n", i)
            world.run(0.05)
        b.crash()
        world.run(1)
        world.start("b")
        world.partition([a], [b, c])
        world.run(5)
        world.heal()
        world.run(5)
        return world.digest

    assert run(18) == run(18)
    assert run(18) != run(19)
