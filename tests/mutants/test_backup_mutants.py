"""Broken Backup managers are noticed: each mutant breaks one rule, and the rule's test fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.manager import test_placed as placed
from tests.mutants.registry import nothing
from tests.sim import test_backup as backup
from tests.sim import test_backup_moves as moves
from tests.sim import test_backup_reads as reads
from tests.sim import test_lazy_maps as lazy
from tribes.manager import backup as backup_module
from tribes.manager import part as part_module
from tribes.manager import seeks
from tribes.manager.backup import BackupManager
from tribes.manager.backup_core import BackupReplicator
from tribes.manager.base import SessionManager
from tribes.manager.losers import Losers
from tribes.manager.part import PartReplicator, PartTransfer
from tribes.manager.placed import PlacedCore
from tribes.manager.placed_messages import PlaceState
from tribes.manager.places import PlaceBook
from tribes.manager.record import WHOLE
from tribes.manager.transfer import Transfer
from tribes.testing.execute import run_plan
from tribes.testing.generator import draw_plan

pytestmark = pytest.mark.slow


def _release_early(self: Any, number: int, part: Any, now: float) -> None:
    """Forget a part as soon as it is not to lie here."""
    if self.book.local not in self.book.placed(number):
        self._closing[number] = 0, now
        self._release(number, part, now)
        self._review(now)


def _take_all(self: Any, real: Any = PlacedCore._to_take) -> Any:
    self._pulls_max = 64
    return real(self)


def _from_memory(self: Any, session_id: str, real: Any = BackupManager.is_elsewhere) -> Any:
    return session_id not in self.table and real(self, session_id)


def _until_equal(
    self: Any, number: int, part: Any, placed: Any, now: float, real: Any = PlacedCore._is_given
) -> Any:
    """Only a comparison that finds nothing to send will do."""
    sent = part.transfer.statistics.records_sent
    if getattr(part, "sent_before", -1) != sent:
        self._rounds.pop(number, None)
    part.sent_before = sent
    return real(self, number, part, placed, now)


def _released_as_it_is(self: Any) -> None:
    self.is_held = False
    self.transfer.stop()


def _stopped_silently(self: Any) -> None:
    Transfer.stop(self)
    self._pulls.clear()


def _to_all(self: Any, part: int) -> Any:
    return list(self.peers)


def _forgets_what_was_got(
    self: Any, number: int, now: float, real: Any = BackupReplicator.part_released
) -> None:
    got, self._cached = self._cached, {}
    real(self, number, now)
    self._cached = got


def _run_the_seed_that_showed_it() -> None:
    violations = run_plan(draw_plan(900512, managers="backup")).violations
    assert "forgotten session" not in {each.invariant for each in violations}


MUTANTS: list[tuple[str, Any, str, Any, Callable[[], None]]] = [
    (
        "who has missed an epoch is not told",
        PlacedCore,
        "_redirect",
        nothing,
        backup.test_a_change_of_who_has_missed_an_epoch_is_merged_and_redirected,
    ),
    (
        "a part is released before others have it",
        PlacedCore,
        "_give",
        _release_early,
        lazy.test_nothing_is_given_to_a_member_that_hangs,
    ),
    (
        "a part that was on its way to others is held at once",
        PlacedCore,
        "_reopen",
        lambda self, number, part: self._closing.pop(number, None),
        moves.test_a_member_that_holds_a_part_again_serves_nothing_old,
    ),
    (
        "who owned an empty part first does not count what was lost",
        PlaceBook,
        "has_followed",
        lambda self, part: False,
        lambda: moves.test_lost_sessions_are_counted_once_whoever_finds_it_first(200),
    ),
    (
        "who owned an empty part first and who follows count what was lost",
        PlaceBook,
        "is_claimed",
        lambda self, part: False,
        lambda: moves.test_lost_sessions_are_counted_once_whoever_finds_it_first(201),
    ),
    (
        "lost writes of visitors are not counted",
        Losers,
        "look",
        nothing,
        moves.test_a_write_of_a_visitor_that_is_replaced_unseen_is_counted,
    ),
    (
        "every holder's word on a lost write is counted",
        backup_module,
        "LOST_MAX",
        0,
        moves.test_a_write_of_a_visitor_that_is_replaced_unseen_is_counted,
    ),
    (
        "what changed on a visit is forgotten at once",
        PartReplicator,
        "_note",
        lambda self, keys: not self.is_held and not self._targets,
        moves.test_a_holder_that_a_visitor_hears_of_late_gets_what_it_changed,
    ),
    (
        "a part is given when its copies are equal",
        PlacedCore,
        "_is_given",
        _until_equal,
        reads.test_a_part_is_given_away_while_its_sessions_are_written,
    ),
    (
        "the owner's copy is taken for the latest",
        seeks.Seeks,
        "_is_fresh",
        lambda self, fetch: True,
        reads.test_a_write_that_an_owner_lacks_is_had_from_the_next_holder,
    ),
    (
        "a write that nobody has is looked for again and again",
        seeks.Seeks,
        "_settle",
        lambda self, fetch, until: self._finish(fetch, None),
        reads.test_a_write_that_nobody_has_is_looked_for_once,
    ),
    (
        "a node says that it is drained at once",
        PlacedCore,
        "is_drained",
        True,
        backup.test_t81_a_node_that_leaves_hands_over_everything,
    ),
    (
        "two owners fire: every holder expires sessions",
        PlaceBook,
        "is_owner",
        lambda self, part: self.states[part] == PlaceState.HOLD,
        backup.test_an_idle_session_expires_once_by_its_owner,
    ),
    (
        "nobody owns anything",
        PlaceBook,
        "is_owner",
        lambda self, part: False,
        backup.test_t69_one_member_has_a_copy_and_all_others_know_where,
    ),
    (
        "a fetched copy is not asked about again",
        BackupManager,
        "is_elsewhere",
        _from_memory,
        backup.test_a_copy_that_was_fetched_is_never_stale,
    ),
    (
        "all parts are taken at once",
        PlacedCore,
        "_to_take",
        _take_all,
        backup.test_taking_copies_is_limited,
    ),
    (
        "lost sessions are not counted",
        PlacedCore,
        "_count_lost",
        nothing,
        backup.test_t78_sessions_whose_holders_all_die_are_reported_once,
    ),
    (
        "every holder counts lost sessions",
        PlaceBook,
        "is_owner",
        lambda self, part: True,
        backup.test_t78_sessions_whose_holders_all_die_are_reported_once,
    ),
    (
        "a change without a base is kept as it is",
        BackupManager,
        "merged",
        SessionManager.merged,
        backup.test_t79_a_copy_without_a_base_asks_for_the_whole,
    ),
    (
        "what is not whole is served",
        BackupManager,
        "is_whole",
        lambda self, key: bool(WHOLE),
        backup.test_t79_a_copy_without_a_base_asks_for_the_whole,
    ),
    (
        "uses are not told to the copies",
        BackupReplicator,
        "_send_touches",
        nothing,
        backup.test_t82_a_session_that_is_only_read_is_live_after_a_crash,
    ),
    (
        "changes go to all members",
        PlaceBook,
        "holders",
        _to_all,
        backup.test_t72_a_change_goes_to_the_holders_only,
    ),
    (
        "the next holder is asked late",
        seeks,
        "HEDGE_S",
        60.0,
        backup.test_a_hung_holder_costs_a_request_little,
    ),
    (
        "copies of others are kept for ever",
        BackupReplicator,
        "_forget",
        nothing,
        backup.test_copies_that_are_not_used_are_forgotten,
    ),
    (
        "a part is forgotten with what a request has just got of it",
        BackupReplicator,
        "_note",
        nothing,
        placed.test_a_session_that_a_request_has_just_got_is_there_when_it_looks,
    ),
    (
        "simulated requests notice that, too",
        BackupReplicator,
        "part_released",
        _forgets_what_was_got,
        _run_the_seed_that_showed_it,
    ),
    (
        "what was given away counts as here when it is to be taken back",
        PartReplicator,
        "release",
        _released_as_it_is,
        placed.test_a_part_that_was_given_away_and_visited_is_not_served_before_it_is_here_again,
    ),
    (
        "who visits owes a comparison",
        part_module,
        "maxsize",
        1,
        placed.test_a_visitor_pays_a_holder_whatever_it_owes,
    ),
    (
        "who waits for a comparison that is dropped is not told",
        PartTransfer,
        "stop",
        _stopped_silently,
        placed.test_a_part_that_is_taken_back_owes_nobody_a_comparison_for_ever,
    ),
    (
        "a silent manager is given copies",
        PlaceBook,
        "look_for_silence",
        nothing,
        backup.test_who_says_nothing_for_access_timeout_gets_no_copies,
    ),
    (
        "a crash makes no new copies",
        PlacedCore,
        "_to_take",
        lambda self, real=PlacedCore._to_take: [] if self.held else real(self),
        backup.test_t77_a_crash_of_an_owner_or_of_a_copy_costs_nothing,
    ),
    (
        "sessions that began under another owner are not counted",
        BackupManager,
        "commit",
        SessionManager.commit,
        backup.test_t75_a_long_request_on_a_former_owner_loses_nothing,
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
    with pytest.raises((AssertionError, LookupError)):
        check()
