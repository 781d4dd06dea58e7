"""Broken maps are noticed: each mutant breaks one rule, and the named test of the rule fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.maps import test_manager as entries
from tests.mutants.registry import nothing
from tests.sim import test_lazy_maps as lazy
from tests.sim import test_maps as maps
from tribes.manager.base import SessionManager
from tribes.manager.container import MAX_INACTIVE, encode_idle
from tribes.manager.group import SessionGroup
from tribes.manager.placed import PlacedCore
from tribes.manager.record import WHOLE, Entry, Kind, Record, pack_delta
from tribes.maps import manager as manager_module
from tribes.maps import questions
from tribes.maps.lazy import LazyCore
from tribes.maps.manager import MapManager
from tribes.rpc.endpoints import RpcEndpoints

pytestmark = pytest.mark.slow


def _removed_alive(self: Any, created: int, hlc: int, base: int, data: bytes | None) -> Record:
    """Make a live record with a tombstone of a removal."""
    kind = Kind.LAST_WRITER if data is not None else Kind.TOMBSTONE
    limit = Entry(1, 0, MAX_INACTIVE, encode_idle(0), hlc, self.clock.actor, base)
    value = Entry(0, int(kind), b"v", data or b"", hlc, self.clock.actor, base)
    return pack_delta(created, hlc, self.clock.actor, self.now_ds(), WHOLE, [value, limit])


def _give_at_once(self: Any, number: int, part: Any, now: float) -> None:
    """Forget a part as soon as it is not to lie here."""
    if self.book.local not in self.book.placed(number):
        self._closing[number] = 0, now
        self._release(number, part, now)
        self._review(now)


MUTANTS: list[tuple[str, Any, str, Any, Callable[[], None]]] = [
    (
        "entries expire like sessions",
        manager_module,
        "_FOR_EVER",
        encode_idle(1800),
        maps.test_a_node_that_holds_all_keeps_a_map_alive,
    ),
    (
        "removals are remembered for ever",
        MapManager,
        "_delta",
        _removed_alive,
        entries.test_entries_never_expire_and_removals_are_forgotten,
    ),
    (
        "changes of others are not told",
        MapManager,
        "merged",
        SessionManager.merged,
        entries.test_changes_are_told_once_with_both_values,
    ),
    (
        "who has the map is not told",
        MapManager,
        "member_changed",
        nothing,
        maps.test_who_has_the_map_is_told,
    ),
    (
        "a partition is given away at once",
        PlacedCore,
        "_give",
        _give_at_once,
        lazy.test_nothing_is_given_to_a_member_that_hangs,
    ),
    (
        "a partition is never given away",
        PlacedCore,
        "_is_given",
        lambda self, number, part, placed, now: False,
        lazy.test_a_join_moves_partitions_and_loses_nothing,
    ),
    (
        "a leaving member keeps what it has",
        LazyCore,
        "drain",
        nothing,
        lazy.test_a_member_that_leaves_gives_everything_away_first,
    ),
    (
        "lost copies are not made anew",
        PlacedCore,
        "_to_take",
        lambda self, real=PlacedCore._to_take: real(self) if not self.held else [],
        lazy.test_a_crash_promotes_backups_and_copies_are_made_anew,
    ),
    (
        "the first holder is asked for ever",
        questions,
        "TRY_S",
        60.0,
        lazy.test_a_hung_holder_costs_a_read_little,
    ),
]


@pytest.mark.parametrize(
    ("owner", "name", "broken", "check"),
    [mutant[1:] for mutant in MUTANTS],
    ids=[mutant[0] for mutant in MUTANTS],
)
def test_a_broken_build_is_noticed(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, broken: Any, check: Callable[[], None]
) -> None:
    """The check, which passes with the sound build in its own file, fails with the broken one."""
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(AssertionError):
        check()


def test_introducing_after_asking_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a map while others write, between plain members: changes would be missed."""
    hello = SessionGroup._hello
    late: list[Any] = []

    def delayed(self: Any, member: Any, now: float, *, is_first: bool) -> None:
        if is_first:
            hello(self, member, now, is_first=is_first)
        else:
            late.append(member)
            self._channel.timers.at(
                now + 0.005, lambda then: hello(self, member, then, is_first=False)
            )

    monkeypatch.setattr(SessionGroup, "_hello", delayed)
    with pytest.raises(AssertionError):
        maps.test_a_write_while_the_map_is_being_opened_is_not_missed()
    assert late


def test_requests_to_maps_do_not_reach_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the core did not handle them, nobody would: every read through a proxy fails."""

    def as_users(self: Any, rpc_id: bytes, endpoint: Any) -> None:
        self._by_id[rpc_id] = endpoint

    monkeypatch.setattr(RpcEndpoints, "put_in_core", as_users)
    with pytest.raises(AssertionError):
        lazy.test_every_member_reads_and_writes_every_entry()
