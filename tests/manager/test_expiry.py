"""Idle sessions: who expires them, who is told, how often, and what keeps them alive."""

from __future__ import annotations

from typing import Any

import pytest

from tests.manager.cluster import are_equal, read, replicator, start, write
from tribes.manager.expiry import SessionExpired, owner_of
from tribes.manager.marks import destroyed_event_id, is_fired
from tribes.manager.messages import Deltas, decode_message, is_manager_message
from tribes.manager.record import Life, header
from tribes.manager.session_ids import partition_of
from tribes.testing.sim import SimNode, World


class Heard:
    """The destroyed events of one session on all nodes: who heard it."""

    def __init__(self, nodes: list[SimNode]) -> None:
        self.by: list[str] = []
        for node in nodes:
            node.manager().add_listener(_Listener(node.name, self.by))


class _Listener:
    def __init__(self, name: str, heard: list[str]) -> None:
        self.name, self.heard = name, heard

    def session_created(self, session: Any) -> None:
        pass

    def session_destroyed(self, session: Any, reason: str) -> None:
        self.heard.append(self.name)

    def session_id_changed(self, session: Any, old_id: str) -> None:
        pass


def lives(nodes: list[SimNode], key: str) -> list[int | None]:
    records = [node.manager().table.get(key) for node in nodes]
    return [None if record is None else header(record).life for record in records]


def split(nodes: list[SimNode], key: str) -> tuple[SimNode, list[SimNode]]:
    """The owner of a session, and the others."""
    ids = tuple(node.core.local.unique_id for node in nodes)
    owner = nodes[ids.index(owner_of(partition_of(key), ids))]
    return owner, [node for node in nodes if node is not owner]


def test_t34_timeout_removes_the_session_everywhere_within_one_sweep() -> None:
    """Idle for two seconds: a look later, one second by default, no member has it."""
    world = World(1)
    nodes = start(world, "abc", max_inactive_s=2)
    key = write(nodes[0], "x", 1)
    world.run(1.9)
    assert lives(nodes, key) == [Life.LIVE] * 3
    world.run(1.4)
    assert lives(nodes, key) == [Life.EXPIRED] * 3
    assert [node.manager().find(key) for node in nodes] == [None] * 3


def test_t35_t36_sessions_of_a_crashed_member_expire_by_themselves_with_one_event() -> None:
    """Killed right after the write: gone on the others between the limit and twice that, once."""
    for seed in range(5):
        world = World(seed)
        a, *others = start(world, "abc", max_inactive_s=4)
        heard = Heard(others)
        key = write(a, "x", 1)
        world.run(0.2)
        a.crash()
        world.run(3.6)
        assert lives(others, key) == [Life.LIVE] * 2
        world.run(5.2)
        assert lives(others, key) == [Life.EXPIRED] * 2
        assert len(heard.by) == 1


def test_t36_one_destroyed_event_in_the_cluster_for_a_timeout() -> None:
    """And every member knows that it was told, so nobody tells it again when the teller goes."""
    world = World(2)
    nodes = start(world, "abcd", max_inactive_s=2)
    heard = Heard(nodes)
    key = write(nodes[0], "x", 1)
    world.run(5)
    assert len(heard.by) == 1
    for node in nodes:
        record = node.manager().table.get(key)
        assert record is not None
        assert is_fired(record)
    owner, others = split(nodes, key)
    owner.crash()
    world.run(20)
    assert len(heard.by) == 1
    assert are_equal(*others)


def test_t36_the_event_comes_although_its_owner_dies_before_telling() -> None:
    """It has expired the session on all members, and is killed before its listeners are called: the
    next owner tells, once, under the id that the event had.
    """
    world = World(3)
    nodes = start(world, "abc", max_inactive_s=2)
    heard = Heard(nodes)
    key = write(nodes[0], "x", 1)
    world.run(0.5)
    owner, others = split(nodes, key)
    owner.delivery_s = 1.0  # its listeners are slow
    assert world.run_until(
        world.now + 4, lambda: lives(others, key) == [Life.EXPIRED] * 2 and any(events(owner))
    )
    owner.crash()
    assert heard.by == []
    world.run(10)
    assert len(heard.by) == 1
    [told] = [each for node in others for each in events(node)]
    assert told.event_id == events(owner)[0].event_id == destroyed_event_id("app", key)


def events(node: SimNode) -> list[SessionExpired]:
    return [event for _, event in node.events if isinstance(event, SessionExpired)]


def test_listeners_hear_of_an_expiry_when_all_copies_have_it() -> None:
    """A member that answers late delays the event, and nothing else."""
    world = World(4)
    nodes = start(world, "abc", max_inactive_s=2)
    key = write(nodes[0], "x", 1)
    world.run(0.5)
    owner, [near, far] = split(nodes, key)
    del near
    world.link(owner, far).delay = world.link(far, owner).delay = 0.1
    heard = Heard(nodes)
    assert world.run_until(world.now + 4, lambda: lives([owner], key) == [Life.EXPIRED])
    assert heard.by == []
    assert world.run_until(world.now + 0.5, lambda: bool(heard.by))
    assert lives(nodes, key) == [Life.EXPIRED] * 3


def test_t37_primary_is_the_node_that_completed_the_last_request() -> None:
    """On A, then on B, then a read on C that changed nothing, and a write on A again."""
    world = World(5)
    nodes = a, b, c = start(world, "abc")
    key = write(a, "x", 1)
    flags = [(True, False, False), (False, True, False), (True, False, False)]
    found = []
    for node in (a, b, a):
        write(node, "x", node.name, key)
        world.run(0.1)
        found.append(tuple(each.manager().is_primary(key) for each in nodes))
    assert found == flags
    assert read(c, key) == {"x": "a"}
    assert c.manager().is_primary(key)
    assert not c.manager().is_primary("nothing")


def test_t30_reads_cause_no_data_message_and_one_small_batch_of_uses() -> None:
    """A thousand reads of ten sessions, spread over three intervals of 7.5 s: no delta with an
    entry, and each session at most once per interval, all of an interval in few messages.
    """
    world = World(6)
    a, b = start(world, "ab", max_inactive_s=60)
    keys = [write(a, "x", number) for number in range(10)]
    world.run(1)
    sent: list[Deltas] = []
    channel: Any = a.core.channel
    post = channel.post

    def noting(to: Any, payload: bytes, *args: Any, **more: Any) -> Any:
        message = decode_message(payload) if is_manager_message(payload) else None
        if isinstance(message, Deltas):
            sent.append(message)
        return post(to, payload, *args, **more)

    channel.post = noting
    for turn in range(1000):
        assert read(a, keys[turn % 10]) is not None
        world.run(0.0225)
    assert len(sent) <= 4
    pairs = [pair for message in sent for pair in message.pairs]
    assert 20 <= len(pairs) <= 30
    assert all(len(data) < 40 for _, data in pairs), "a header and no entries"
    world.run(45)
    assert b.manager().find(keys[0]) is not None, "its limit has passed since it was written"


def test_t38_an_active_user_is_never_expired_by_another_node() -> None:
    """Limit three seconds; a request that changes nothing, as a filtered one, on B every second for
    fifteen: alive on all, whoever owns the session.
    """
    world = World(7)
    nodes = start(world, "abc", max_inactive_s=3)
    keys = [write(nodes[0], "x", number) for number in range(20)]
    owners = {split(nodes, key)[0].name for key in keys}
    assert owners == set("abc")
    for _ in range(15):
        world.run(1)
        assert all(read(nodes[1], key) is not None for key in keys)
    assert all(lives(nodes, key) == [Life.LIVE] * 3 for key in keys)
    world.run(5)
    assert all(lives(nodes, key) == [Life.EXPIRED] * 3 for key in keys)


@pytest.mark.parametrize("used_by", ["the owner", "another member"])
def test_a_use_while_members_are_asked_takes_the_expiry_back(used_by: str) -> None:
    """And no event fires; when it expires in earnest, one does."""
    world = World(8, latency=0.05)
    nodes = start(world, "ab", max_inactive_s=2)
    heard = Heard(nodes)
    key = write(nodes[0], "x", 1)
    world.run(0.5)
    owner, [other] = split(nodes, key)
    asks = replicator(owner).expiry
    assert world.run_until(world.now + 3, lambda: bool(asks._asks))
    # A request that found it just before its limit.
    session = (owner if used_by == "the owner" else other).manager()
    record = session.table.get(key)
    assert record is not None
    assert session.table.touch(key, session.clock.next(), session.now_ds())
    world.run(1)
    assert heard.by == []
    assert Life.LIVE in lives(nodes, key)
    world.run(6)
    assert len(heard.by) == 1


def test_who_is_no_owner_any_more_expires_nothing_that_it_had_asked_for() -> None:
    """One member answers the old owner and the new one late, and in the same moment."""
    world = World(9)
    nodes = start(world, "abc", max_inactive_s=2, expiry_interval=100)
    heard = Heard(nodes)
    key = write(nodes[0], "x", 1)
    world.run(1.9)
    owner, others = split(nodes, key)
    follower, (slow,) = split(others, key)
    for node in (owner, follower):
        world.clog(slow, node)
    asks = [replicator(node).expiry._asks for node in (owner, follower)]
    assert world.run_until(world.now + 0.5, lambda: bool(asks[0]))
    owner.core.retire(owner.clock.monotonic())
    owner.pump()
    assert world.run_until(world.now + 0.5, lambda: all(asks))
    for node in (owner, follower):
        world.unclog(slow, node)
    world.run(5)
    assert lives(nodes, key) == [Life.EXPIRED] * 3
    assert heard.by == [follower.name]
