"""The Backup manager on simulated nodes: the rows of tomcat-sessions §19 that are about it."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest

from tests.sim.backup_nodes import (
    bystanders,
    commit,
    config,
    copies,
    core,
    find,
    holders,
    manager,
    owners,
    put,
    start,
    write,
)
from tribes.channel.outputs import Notice
from tribes.config.managers import BackupConfig
from tribes.config.model import ContextConfig, NodeConfig
from tribes.errors import SessionLimitError, SessionUnreachableError
from tribes.manager.expiry import SessionExpired
from tribes.manager.placed_messages import PlaceState
from tribes.manager.placement import PARTS, part_of
from tribes.testing.sim import SimNode, World


def everything(nodes: list[SimNode]) -> list[list[PlaceState]]:
    return [core(node).placed.book.states[:] for node in nodes if node.is_alive]


def test_t69_one_member_has_a_copy_and_all_others_know_where() -> None:
    """Made on one node: one full copy elsewhere, none on the others, who name the same owner."""
    nodes = start(World(1), "abcd")
    for _ in range(20):
        key = put(nodes[0], x=1)
        assert copies(nodes, [key]) == {2: 1}
        held = holders(nodes, key)
        assert nodes[0] in held
        assert len(held) == 2
        named = {core(node).placed.book.owner(part_of(key)) for node in nodes}
        assert named == {nodes[0].core.local}
        assert owners(nodes, key) == [nodes[0]]


def test_t70_sessions_are_shared_evenly() -> None:
    """300 sessions of 3 nodes: each owns a third, more or less, and holds two thirds.

    Here placement decides, so the keys are drawn by somebody who owns nothing.
    """
    world = World(5)
    nodes = start(world, "abc")
    ids = [manager(nodes[0]).ids.new() for _ in range(300)]
    shares = Counter(owners(nodes, each)[0].name for each in ids)
    assert all(67 <= shares[node.name] <= 133 for node in nodes)
    backups = Counter(node.name for each in ids for node in holders(nodes, each))
    assert sum(backups.values()) == 600
    assert all(133 <= backups[node.name] <= 267 for node in nodes)


def test_t71_where_a_member_cannot_be_reached_the_next_one_has_the_copy() -> None:
    """One is cut off: soon all sessions have a copy again, old ones and new ones."""
    world = World(3)
    nodes = start(world, "abcd")
    ids = [put(nodes[i % 4], n=i) for i in range(60)]
    world.partition("abc", "d")
    world.run(16)
    ids += [put(nodes[i % 3], n=i) for i in range(60)]
    assert all(len(holders(nodes[:3], key)) == 2 for key in ids)
    assert copies(nodes[:3], ids) == {2: 120}


def test_t72_a_change_goes_to_the_holders_only() -> None:
    """Nobody else gets a message."""
    world = World(2)
    nodes = start(world, "abcdef", backup_count=2)
    key = put(nodes[0], x=0)
    part = part_of(key)

    def received() -> dict[str, int]:
        return {
            node.name: 0
            if (found := core(node).placed.parts.get(part)) is None
            else found.statistics.deltas_received
            for node in nodes
        }

    before = received()
    for i in range(50):
        assert len(write(nodes[0], key, x=i + 1).acked) == 2
    gained = {name: count - before[name] for name, count in received().items()}
    held = {node.name for node in holders(nodes, key)} - {"a"}
    assert gained == {name: 50 if name in held else 0 for name in "abcdef"}


def test_t73_any_node_serves_any_session_and_nothing_moves() -> None:
    """On a copy it is in memory; elsewhere it is fetched. Its copies stay one and k."""
    world = World(4)
    nodes = start(world, "abcde")
    for i in range(20):
        key = put(nodes[i % 5], value=i)
        before = everything(nodes)
        held = holders(nodes, key)
        for node in held:
            assert not manager(node).is_elsewhere(key)
        for node in nodes:
            session = find(node, key)
            assert session is not None
            assert session["value"] == i
        for number, node in enumerate(nodes):
            assert not write(node, key, **{f"by {node.name}": number}).missing
        for node in nodes:
            session = find(node, key)
            assert session is not None
            assert len(session) == 6
        assert everything(nodes) == before
        assert holders(nodes, key) == held
        assert len(held) == 2


def test_a_copy_that_was_fetched_is_never_stale() -> None:
    """It is asked about at each request; what is the same does not travel again."""
    nodes = start(World(6), "abcd")
    key = put(nodes[0], value=0, large="x" * 5000)
    away = bystanders(nodes, key)[0]
    for i in range(1, 11):
        write(nodes[0], key, value=i)
        session = find(away, key)
        assert session is not None
        assert session["value"] == i
        find(away, key)
    statistics = core(away).seeks.statistics
    assert (statistics.fetched, statistics.same) == (10, 10)


def test_a_hung_holder_costs_a_request_little() -> None:
    """The next one is asked too after a twentieth of a second."""
    world = World(30)
    nodes = start(world, "abcd")
    ids = [put(nodes[i % 4], n=i) for i in range(40)]
    nodes[3].pause()
    for key in ids:
        away = bystanders(nodes[:3], key)
        if away:
            began = world.now
            assert find(away[0], key) is not None
            assert world.now - began < 0.06


def test_who_asks_for_what_does_not_exist_is_told_so() -> None:
    """By the holders of where it would lie; an id that cannot be one asks nobody."""
    world = World(31)
    nodes = start(world, "abcd")
    for _ in range(20):
        key = manager(nodes[0]).ids.new()
        for node in nodes:
            assert find(node, key) is None
    before = core(nodes[0]).seeks.statistics.started
    assert find(nodes[0], "no id at all") is None
    assert core(nodes[0]).seeks.statistics.started == before


def test_a_logout_and_a_new_id_are_known_on_every_node() -> None:
    """Also where a copy lies that was fetched before."""
    nodes = start(World(7), "abcd")
    key = put(nodes[0], value=0)
    for node in nodes:
        assert find(node, key) is not None
    session = find(nodes[1], key)
    assert session is not None
    fresh = session.rotate_id(0)
    commit(nodes[1], session)
    for node in nodes:
        assert find(node, fresh) is not None
        assert find(node, key) is None
    session = find(nodes[2], fresh)
    assert session is not None
    session.invalidate()
    commit(nodes[2], session)
    for node in nodes:
        assert find(node, fresh) is None


def test_copies_that_are_not_used_are_forgotten() -> None:
    """A minute after their last use, and the least used when there are too many."""
    world = World(8)
    nodes = start(world, "abcd", cache_max=10)
    away = nodes[3]
    ids = [key for i in range(60) if away in bystanders(nodes, key := put(nodes[i % 3], n=i))]
    for key in ids:
        assert find(away, key) is not None
    world.run(2)
    assert manager(away).backup_statistics().cached <= 10
    world.run(65)
    assert manager(away).backup_statistics().cached == 0
    assert all(find(away, key) is not None for key in ids)


def test_t74_looking_at_sessions_moves_nothing() -> None:
    """Lists, counts and reads, on every node; the owner stays the owner."""
    world = World(9)
    nodes = start(world, "abcd")
    ids = [put(nodes[i % 4], n=i) for i in range(40)]
    before, owned = everything(nodes), [owners(nodes, key) for key in ids]
    for node in nodes:
        manager(node).list_ids()
        manager(node).statistics()
        manager(node).backup_statistics()
        for key in ids:
            assert find(node, key) is not None
    world.run(5)
    assert everything(nodes) == before
    assert [owners(nodes, key) for key in ids] == owned


def test_t75_a_long_request_on_a_former_owner_loses_nothing() -> None:
    """It ends when another node owns the session: both writes are there, and it is counted."""
    world = World(10)
    nodes = start(world, "abc")
    key = put(nodes[0], a=1)
    long = find(nodes[0], key)
    assert long is not None
    # As if it had been given less to do.
    core(nodes[0]).placed.book.set_weight(0)
    world.run(6)
    assert owners(nodes, key) != [nodes[0]]
    assert len(owners(nodes, key)) == 1
    assert not write(nodes[1], key, b=2).missing
    long["a"] = 3
    assert not commit(nodes[0], long).missing
    for node in nodes:
        session = find(node, key)
        assert session is not None
        assert dict(session) == {"a": 3, "b": 2}
    assert manager(nodes[0]).backup_statistics().stale_commits == 1


def test_a_change_of_who_has_missed_an_epoch_is_merged_and_redirected() -> None:
    """Cut off from the others' news, but not from one holder: its write reaches all of them."""
    world = World(11)
    nodes = start(world, "abcd")
    key = put(nodes[0], a=1)
    part = part_of(key)
    away = bystanders(nodes, key)[0]
    assert find(away, key) is not None
    first, second = holders(nodes, key)
    # It has not heard of the second holder, nor of the last epoch.
    book = core(away).placed.book
    book.peers[second.core.local].places.states[part] = PlaceState.NONE
    for node in (first, second):
        core(node).placed.book.epochs[part] += 1
    for found in core(away).placed.parts.values():
        core(away).placed._aim(found, world.now)
    assert write(away, key, b=2).acked == (first.name,)
    world.run(0.5)
    session = manager(second).find(key)
    assert session is not None
    assert session["b"] == 2
    assert core(first).placed.statistics.stale_received == 1
    assert core(away).placed.statistics.stale_told == 1
    assert core(away).placed.statistics.redirected == 1


def test_t76_two_first_accesses_at_once_leave_one_owner() -> None:
    """200 sessions, each used on two nodes at the same moment: one owner each, none without."""
    world = World(12)
    nodes = start(world, "abcd")
    for i in range(200):
        key = put(nodes[i % 4], n=i)
        done: list[Exception | None] = []
        for node in (nodes[(i + 1) % 4], nodes[(i + 2) % 4]):
            core(node).fetch(key, done.append, node.clock.monotonic())
            node.pump()
        world.run(0.01)
        assert done == [None, None]
        assert len(owners(nodes, key)) == 1
        assert len(holders(nodes, key)) == 2
    world.run(3)
    assert all(len(owners(nodes, each)) == 1 for each in manager(nodes[0]).list_ids())


def test_t77_a_crash_of_an_owner_or_of_a_copy_costs_nothing() -> None:
    """Served at once by who is left, and soon there are two copies again."""
    world = World(13)
    nodes = start(world, "abcde")
    ids = [put(nodes[i % 5], n=i) for i in range(100)]
    for victim in (0, 1):
        nodes[victim].crash()
        rest = [node for node in nodes if node.is_alive]
        for i, key in enumerate(ids):
            session = find(rest[i % len(rest)], key, wait=6)
            assert session is not None
            assert session["n"] == i
        world.run(6)
        assert all(len(holders(nodes, key)) == 2 for key in ids)
        assert all(len(owners(nodes, key)) == 1 for key in ids)


def test_taking_copies_is_limited() -> None:
    """After a crash a node takes few parts at a time, and says how many sessions lack a copy."""
    world = World(14)
    nodes = start(world, "abc")
    for i in range(150):
        put(nodes[i % 3], value="x" * 3000)
    short = most = 0

    def look() -> None:
        nonlocal short, most
        for node in nodes[:2]:
            book = core(node).placed.book
            most = max(most, sum(state == PlaceState.PULL for state in book.states))
            short = max(short, manager(node).backup_statistics().under_replicated)
        world.at(0.0002, look)

    nodes[2].crash()
    world.at(0.0, look)
    world.run(5)
    assert 0 < most <= 4
    assert short > 0
    assert all(manager(node).backup_statistics().under_replicated == 0 for node in nodes[:2])


def test_t78_sessions_whose_holders_all_die_are_reported_once() -> None:
    """By part: nobody has a rest of them, and one node tells how many are lost."""
    world = World(15)
    nodes = start(world, "abcd")
    ids = [put(nodes[i % 4], n=i) for i in range(200)]
    world.run(3)
    gone = [key for key in ids if set(holders(nodes, key)) == {nodes[0], nodes[1]}]
    assert gone
    told: list[int] = []

    def note(now: float, node: str, kind: str, detail: object) -> None:
        if kind == "event" and getattr(detail, "text", "") == "sessions lost":
            told.append(detail.details["sessions"])  # type: ignore[attr-defined]

    world.observers.append(note)
    for node in nodes[:2]:
        node.crash()
    world.run(12)
    rest = nodes[2:]
    assert sum(told) == len(gone)
    assert sum(manager(node).backup_statistics().sessions_lost for node in rest) == len(gone)
    assert copies(rest, gone) == {0: len(gone)}
    assert copies(rest, set(ids) - set(gone)) == {2: len(ids) - len(gone)}
    world.run(10)
    assert sum(told) == len(gone)


def test_t79_a_copy_without_a_base_asks_for_the_whole() -> None:
    """The record is gone on the backup; the next change brings all of it back."""
    world = World(16)
    nodes = start(world, "abcd")
    # The first comparison after the start is over, and the next one is 16 s later.
    world.run(6)
    key = put(nodes[0], a=1, b=2)
    backup = next(node for node in holders(nodes, key) if node is not nodes[0])
    table = manager(backup).table
    record = table.get(key)
    assert record is not None
    assert table.drop(key, record)
    write(nodes[0], key, a=5)
    assert manager(backup).find(key) is None
    world.run(0.5)
    session = manager(backup).find(key)
    assert session is not None
    assert dict(session) == {"a": 5, "b": 2}


def test_t80_a_joiner_serves_every_session_from_its_first_moment() -> None:
    """Old ones, and those that are made while it joins: none is unknown there."""
    world = World(17)
    nodes = start(world, "abc")
    ids = [put(nodes[i % 3], n=i) for i in range(200)]
    joiner = world.start("d", config())
    while not joiner.core.is_joined:
        ids.append(put(nodes[len(ids) % 3], n=len(ids)))
        world.run(0.01)
    for step in range(300):
        if step % 5 == 0:
            ids.append(put(nodes[step % 3], n=len(ids)))
        i = step * 7 % len(ids)
        session = find(joiner, ids[i])
        assert session is not None
        assert session["n"] == i
    world.run(5)
    everybody = [*nodes, joiner]
    assert copies(everybody, ids).keys() <= {2, 3}
    assert all(len(holders(everybody, key)) == 2 for key in ids)


def test_t81_a_node_that_leaves_hands_over_everything() -> None:
    """Under load: nothing is lost, nothing expires, and it goes with receipts of all parts."""
    world = World(18)
    nodes = start(world, "abcd")
    ids = [put(nodes[i % 4], n=i) for i in range(150)]
    ended: list[object] = []

    def note(now: float, node: str, kind: str, detail: object) -> None:
        if isinstance(detail, SessionExpired):
            ended.append(detail)

    world.observers.append(note)
    nodes[0].stop(drain=20)
    part_count = len(core(nodes[0]).placed.held)
    while nodes[0].is_alive:
        ids.append(put(nodes[1 + len(ids) % 3], n=len(ids)))
        world.run(0.02)
        assert world.now < 40
    assert core(nodes[0]).placed.statistics.released == part_count
    world.run(4)
    for i, key in enumerate(ids):
        session = find(nodes[1 + i % 3], key)
        assert session is not None
        assert session["n"] == i
    assert all(len(holders(nodes, key)) == 2 for key in ids)
    assert not ended


def test_t82_a_session_that_is_only_read_is_live_after_a_crash() -> None:
    """Its uses are told to the copy, although nothing changes."""
    world = World(19)
    nodes = start(world, "abc", max_inactive_s=3)
    key = put(nodes[0], a=1)
    away = bystanders(nodes, key)[0]
    for reader in (nodes[0], away):
        for _ in range(15):
            session = find(reader, key)
            assert session is not None
            manager(reader).commit(session)
            world.run(1)
    # What the visitor has seen lately it would bring back; it has seen nothing of these uses.
    for _ in range(8):
        session = find(nodes[0], key)
        assert session is not None
        manager(nodes[0]).commit(session)
        world.run(1)
    nodes[0].crash()
    rest = nodes[1:]
    world.run(0.6)
    assert find(rest[0], key, wait=6) is not None
    world.run(12)
    assert all(manager(node).find(key) is None for node in rest)


def test_an_idle_session_expires_once_by_its_owner() -> None:
    """On all holders, with one event, wherever copies lie."""
    world = World(20)
    nodes = start(world, "abcd", max_inactive_s=2)
    ids = [put(nodes[i % 4], n=i) for i in range(40)]
    for key in ids[::2]:
        assert find(bystanders(nodes, key)[0], key) is not None
    owner = {key: owners(nodes, key)[0].name for key in ids}
    told: list[tuple[str, str]] = []

    def note(now: float, node: str, kind: str, detail: object) -> None:
        if isinstance(detail, SessionExpired):
            told.append((detail.key, node))

    world.observers.append(note)
    world.run(10)
    assert sorted(told) == sorted(owner.items())
    assert all(manager(node).backup_statistics().with_replicas == 0 for node in nodes)


def test_t83_settings_are_honoured() -> None:
    """``map_send_options``, ``access_timeout`` and ``rpc_timeout``."""
    world = World(21)
    nodes = start(world, "abc", map_send_options=8)
    session = manager(nodes[0]).create()
    assert commit(nodes[0], session).acked == ()

    world = World(22)
    nodes = start(world, "abc", access_timeout=3000, rpc_timeout=1000)
    key = put(nodes[0], a=1)
    away = bystanders(nodes, key)[0]
    for node in holders(nodes, key):
        node.pause()
    began = world.now
    with pytest.raises(SessionUnreachableError):
        find(away, key, wait=3)
    assert world.now - began == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("terminate", [False, True])
def test_t83_a_silent_manager_is_not_waited_for_at_the_start(terminate: bool) -> None:
    """Its channel answers, its manager does not: the start fails, or goes on and joins later."""
    world = World(23)
    nodes = start(world, "ab")
    silent = core(nodes[0]).placed._teller
    silent.tell = lambda *args, **settings: None  # type: ignore[method-assign]
    late = world.start("c", config(rpc_timeout=2000, terminate_on_start_failure=terminate))
    assert not world.run_until(world.now + 1.9, lambda: late.core.is_joined)
    assert world.run_until(world.now + 0.3, lambda: late.core.is_joined)
    assert core(late).has_failed is terminate
    assert not core(late).transfer.is_complete
    del silent.tell
    world.run(6)
    assert core(late).placed.knows_all
    assert all(core(node).placed.is_settled for node in (*nodes, late))


def test_who_says_nothing_for_access_timeout_gets_no_copies() -> None:
    """Its channel lives. The others go on with one copy each among themselves."""
    world = World(24)
    nodes = start(world, "abc", access_timeout=4000)
    ids = [put(nodes[i % 3], n=i) for i in range(60)]
    silent = core(nodes[2]).placed._teller
    silent.tell = lambda *args, **settings: None  # type: ignore[method-assign]
    world.run(8)
    assert all(set(holders(nodes[:2], key)) == set(nodes[:2]) for key in ids)
    del silent.tell
    world.run(8)
    assert all(len(holders(nodes, key)) == 2 for key in ids)


def test_t84_nodes_without_the_application_receive_nothing() -> None:
    """Not a message of the context, and no place is offered to them."""
    world = World(25)
    stranger = world.start("x", NodeConfig(contexts=("other",)))
    nodes = start(world, "abc")
    seen: list[bytes] = []
    consume = stranger.core.sessions.consume

    def watch(data, now):  # type: ignore[no-untyped-def]
        seen.append(data.message)
        return consume(data, now)

    stranger.core.sessions.consume = watch  # type: ignore[method-assign]
    ids = [put(nodes[i % 3], n=i) for i in range(30)]
    nodes[0].crash()
    world.run(6)
    assert len(ids) == 30
    assert not [message for message in seen if b"app" in message]
    assert all(stranger.core.local not in core(n).placed.book.peers for n in nodes[1:])


def test_t85_counts_by_part() -> None:
    """Owned, with copies, and all that there are; the limit is about the owned ones."""
    world = World(26)
    nodes = start(world, "abc", max_active_sessions=12)
    for i in range(30):
        put(nodes[i % 3], n=i)
    world.run(3)
    counts = [manager(node).backup_statistics() for node in nodes]
    assert [count.owned for count in counts] == [10, 10, 10]
    assert sum(count.with_replicas for count in counts) == 60
    assert [count.all_known for count in counts] == [30, 30, 30]
    for _ in range(2):
        put(nodes[0])
    with pytest.raises(SessionLimitError):
        manager(nodes[0]).create()
    put(nodes[1])


def test_t86_any_two_crashes_at_once_cost_nothing_with_two_copies() -> None:
    """Of five nodes, whichever two; and no acknowledged write is older afterwards."""
    for victims in combinations(range(5), 2):
        world = World(sum(victims))
        nodes = start(world, "abcde", backup_count=2)
        ids = [put(nodes[i % 5], n=0) for i in range(30)]
        for i, key in enumerate(ids):
            assert not write(nodes[(i + 1) % 5], key, n=i).missing
        for victim in victims:
            nodes[victim].crash()
        world.run(6)
        rest = [node for node in nodes if node.is_alive]
        for i, key in enumerate(ids):
            session = find(rest[i % 3], key)
            assert session is not None
            assert session["n"] == i
            assert len(holders(nodes, key)) == 3
            assert len(owners(nodes, key)) == 1


def test_t86_a_join_moves_less_than_two_nths_of_the_sessions() -> None:
    """Of all copies; the others stay where they are."""
    world = World(27)
    nodes = start(world, "abcde")
    ids = [put(nodes[i % 5], n=i) for i in range(200)]
    before = {key: set(holders(nodes, key)) for key in ids}
    joiner = world.start("f", config())
    world.run(8)
    everybody = [*nodes, joiner]
    moved = sum(len(set(holders(everybody, key)) - before[key]) for key in ids)
    assert 0 < moved < 2 * len(ids) * 2 / 6
    assert all(set(holders(everybody, key)) - before[key] <= {joiner} for key in ids)


def test_a_split_with_writes_on_both_sides_heals_to_one_state() -> None:
    """Three and two of five: every write of either side is there afterwards."""
    world = World(28)
    nodes = start(world, "abcde")
    ids = [put(nodes[i % 5], start=i) for i in range(40)]
    world.partition("abc", "de")
    world.run(16)
    written: dict[str, dict[str, int]] = {key: {} for key in ids}
    for side, members in (("left", nodes[:3]), ("right", nodes[3:])):
        for i, key in enumerate(ids):
            if find(members[i % len(members)], key) is not None:
                assert not write(members[i % len(members)], key, **{side: i}).missing
                written[key][side] = i
    assert any(len(sides) == 2 for sides in written.values())
    world.heal()
    world.run(25)
    for i, key in enumerate(ids):
        for node in nodes:
            session = find(node, key)
            assert session is not None
            assert dict(session) == {"start": i, **written[key]}
        assert len(holders(nodes, key)) == 2
        assert len(owners(nodes, key)) == 1


def test_both_managers_live_in_one_group() -> None:
    """Each context has its own; a full copy and a placed one do not touch each other."""
    world = World(29)
    settings = NodeConfig(
        contexts=("app", "all"), context={"app": ContextConfig(manager=BackupConfig())}
    )
    nodes = [world.start(name, settings) for name in "abcd"]
    world.run(4)
    placed = put(nodes[0], x=1)
    everywhere = nodes[0].manager("all")
    session = everywhere.create()
    session["y"] = 1
    everywhere.commit(session)
    nodes[0].pump()
    world.run(1)
    assert copies(nodes, [placed]) == {2: 1}
    assert all(node.manager("all").find(session.id) is not None for node in nodes)
    assert sum(len(core(node).placed.held) for node in nodes) == 2 * PARTS


def test_events_of_parts_name_the_application() -> None:
    """Nobody knows a context for each of 64 parts; and of equal lines a log shows a few."""
    world = World(32)
    nodes = start(world, "abc")
    told: list[Notice] = []

    def note(now: float, node: str, kind: str, detail: object) -> None:
        if isinstance(detail, Notice):
            told.append(detail)

    world.observers.append(note)
    nodes[2].pause()
    assert core(nodes[0]).resync(nodes[0].clock.monotonic()) == 2
    nodes[0].pump()
    world.run(8)
    given_up = [each for each in told if each.text == "state transfer given up"]
    assert given_up
    assert {each.details["context"] for each in told if "context" in each.details} == {"app"}
