"""A map's entries: written, removed, merged in any order to one state, bounded, told of."""

from __future__ import annotations

from contextlib import nullcontext
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.errors import (
    AttributeNotEncodableError,
    AttributeUnreadableError,
    LocalProtocolError,
    MapFullError,
)
from tribes.manager.clock import Clock
from tribes.manager.inbox import Commit, Inbox
from tribes.manager.record import Life, deciseconds, from_wire, header
from tribes.manager.table import SessionTable
from tribes.manager.values import ValueCodec
from tribes.maps.changes import ChangeKind, EntryChange, MapChange
from tribes.maps.manager import REMOVED_KEPT_S, VALUE_MAX_BYTES, MapManager, map_context


class Side:
    """One member's map, without a node: what it would send is in ``sent``."""

    def __init__(self, actor: int, now: list[float]) -> None:
        self.now = now
        self.inbox = Inbox(nullcontext())
        self.clock = Clock(lambda: int(now[0] * 1000), actor, nullcontext())
        self.map = MapManager(
            map_context("m"),
            SessionTable(nullcontext(), self.inbox, max_inactive_s=0),
            self.clock,
            inbox=self.inbox,
            codec=ValueCodec(),
            entropy=Random(actor).randbytes,
            monotonic=lambda: now[0],
            max_inactive_s=0,
        )
        self.sent: list[Commit] = []

    def gather(self) -> list[Commit]:
        while (batch := self.inbox.take()) is not None:
            self.sent.extend(batch.commits)
        return self.sent

    def take(self, commit: Commit) -> None:
        record = from_wire(commit.delta, deciseconds(self.now[0]))
        self.clock.observe(header(record).access)
        before, after, has_changed = self.map.table.merge_in(commit.key, record)
        if has_changed:
            self.map.merged(commit.key, before, after)

    def state(self) -> dict[Any, Any]:
        return {key: self.map.value_of(key) for key in self.map.entry_keys()}


def sides(count: int = 1) -> list[Side]:
    now = [1000.0]
    return [Side(number + 1, now) for number in range(count)]


def test_a_map_is_written_and_read() -> None:
    """Values come back as copies; a removed key is gone; a key may come again."""
    (a,) = sides()
    a.map.put("k", {"list": [1]})
    a.map.put(b"k", None)
    a.map.put(1, "one")
    a.map.value_of("k")["list"].append(2)
    assert a.state() == {"k": {"list": [1]}, b"k": None, 1: "one"}
    a.map.remove("k")
    assert not a.map.has("k")
    with pytest.raises(KeyError):
        a.map.value_of("k")
    with pytest.raises(KeyError):
        a.map.remove("k")
    assert a.map.entry_count() == 2
    a.map.put("k", 3)
    assert a.map.value_of("k") == 3


OPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["x", "y"]),
        st.one_of(st.none(), st.integers(0, 9)),
        st.booleans(),
    ),
    max_size=14,
)


@given(OPS, st.randoms(use_true_random=False))
def test_all_members_end_alike_whatever_the_order(
    ops: list[tuple[int, str, int | None, bool]], random: Any
) -> None:
    """Merging is commutative, associative and idempotent, with removals and equal clocks."""
    members = sides(3)
    log: list[Commit] = []
    for who, key, value, exchanges in ops:
        side = members[who]
        if value is not None:
            side.map.put(key, value)
        elif side.map.has(key):
            side.map.remove(key)
        log = [commit for member in members for commit in member.gather()]
        if exchanges and log:
            members[random.randrange(3)].take(random.choice(log))
        members[0].now[0] += random.choice((0, 0, 0.001, 1))
    for side in members:
        mixed = log * 2
        random.shuffle(mixed)
        for commit in mixed:
            side.take(commit)
    states = [side.state() for side in members]
    assert states[0] == states[1] == states[2]
    assert len({side.map.table.root_digest() for side in members}) == 1


@given(st.permutations(range(4)))
def test_the_last_write_wins_and_a_removal_is_a_write(order: list[int]) -> None:
    """Set, removed, set again, removed: whatever arrives last, what was done last counts."""
    a, b = sides(2)
    a.map.put("k", 1)
    a.map.remove("k")
    a.map.put("k", 2)
    a.map.remove("k")
    commits = a.gather()
    for index in order:
        b.take(commits[index])
    assert b.state() == {}
    b.map.put("k", 3)
    a.take(b.gather()[-1])
    assert a.state() == b.state() == {"k": 3}


def test_a_late_older_write_does_not_bring_an_entry_back() -> None:
    """A removal that had not seen a concurrent older write wins over it nevertheless."""
    a, b = sides(2)
    a.map.put("k", 1)
    b.take(a.gather()[0])
    b.map.put("k", 2)
    a.now[0] += 1
    a.map.remove("k")
    a.take(b.gather()[0])
    b.take(a.gather()[1])
    assert a.state() == b.state() == {}


def test_one_later_delta_is_enough() -> None:
    """A member that lost the first write of a key has all of it by the second."""
    a, b = sides(2)
    a.map.put("k", 1)
    a.map.put("k", 2)
    b.take(a.gather()[1])
    assert b.state() == {"k": 2}
    assert b.map.limit_of("s:k") == 0


def test_entries_never_expire_and_removals_are_forgotten() -> None:
    """A year without a use is nothing; a removal is remembered 40 minutes, and then not."""
    (a,) = sides()
    a.map.put("kept", 1)
    a.map.put("gone", 2)
    a.now[0] += 365 * 86400
    now_ds = deciseconds(a.now[0])
    assert list(a.map.expired_candidates(now_ds)) == []
    a.map.remove("gone")
    a.now[0] += REMOVED_KEPT_S - 1
    a.map.sweep(int(a.now[0] * 1000), deciseconds(a.now[0]))
    assert a.map.table.count(Life.EXPIRED) == 1
    a.now[0] += 2
    a.map.sweep(int(a.now[0] * 1000), deciseconds(a.now[0]))
    assert a.map.table.count(Life.EXPIRED) == 0
    assert a.state() == {"kept": 1}


def test_bounds_are_told_where_they_are_broken() -> None:
    """Too many entries, too long a value, no codec: errors of the writer; nothing is changed."""
    (a,) = sides()
    a.map.max_entries = 2
    a.map.put("x", 1)
    a.map.put("y", 1)
    with pytest.raises(MapFullError, match="2 entries"):
        a.map.put("z", 1)
    a.map.put("x", 2)
    a.map.remove("y")
    a.map.put("z", 1)
    with pytest.raises(LocalProtocolError, match="at most"):
        a.map.put("x", bytes(VALUE_MAX_BYTES))
    with pytest.raises(AttributeNotEncodableError):
        a.map.put("x", object())
    assert a.state() == {"x": 2, "z": 1}
    with pytest.raises(LocalProtocolError, match="name of a map"):
        map_context("")


def test_changes_are_told_once_with_both_values() -> None:
    """Added, updated, removed, here and by others; what changes nothing is not told."""
    a, b = sides(2)
    told: list[MapChange] = []

    def note(change: object) -> None:
        assert isinstance(change, EntryChange)
        told.append(change.read(b.map.codec))

    b.map.on_change = note
    a.map.put("k", 1)
    a.map.put("k", 2)
    for commit in a.gather() * 2:
        b.take(commit)
    b.map.remove("k")
    b.take(a.gather()[1])
    assert told == [
        MapChange(ChangeKind.ADDED, "k", 1, None, is_local=False),
        MapChange(ChangeKind.UPDATED, "k", 2, 1, is_local=False),
        MapChange(ChangeKind.REMOVED, "k", None, 2, is_local=True),
    ]


def test_an_unreadable_value_costs_itself_only() -> None:
    """A class that is not registered here: the entry is there, unreadable, and replicates."""
    a, b = sides(2)
    a.map.codec.register(Life, name="life")
    a.map.put("k", Life.LIVE)
    told: list[Any] = []
    b.map.on_change = lambda change: told.append(change)
    b.take(a.gather()[0])
    assert b.map.has("k")
    with pytest.raises(AttributeUnreadableError):
        b.map.value_of("k")
    assert isinstance(told[0].read(b.map.codec).value, AttributeUnreadableError)
