"""Broken joins, comparisons, expiries and tokens; each names the test that notices it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.manager import test_expiry, test_slow_transfer, test_transfer
from tests.mutants import registry
from tests.mutants.registry import Patch, nothing
from tests.sim import test_freshness
from tribes.manager import delta, donor, fetch, progress, transfer
from tribes.manager.delta import DeltaManager
from tribes.manager.donor import Donor
from tribes.manager.expiry import Expiry
from tribes.manager.fetch import Fetches
from tribes.manager.messages import Records, Want
from tribes.manager.replication import Replicator
from tribes.manager.serving_budget import ServingBudget
from tribes.manager.touches import Touches
from tribes.manager.transfer import Transfer


def _add(
    name: str, text: str, *patches: Patch, test: Callable[[], object], reason: str = ""
) -> None:
    registry.add(f"transfer: {name}", text, *patches, test=test, reason=reason)


_next = Transfer._next
_look = Transfer._look
_send = Donor._send
_spread = Replicator._spread
_add_touch = Touches.add
_on_ask = Expiry.on_ask


def _hangs() -> None:
    with pytest.MonkeyPatch.context() as patch:
        test_transfer.test_t49_a_donor_that_fails_in_the_middle_is_replaced("hangs", patch)


def _changes_first() -> None:
    with pytest.MonkeyPatch.context() as patch:
        test_transfer.test_changes_go_before_records(patch)


def _progress_once_a_second() -> None:
    with pytest.MonkeyPatch.context() as patch:
        test_transfer.test_progress_is_told_once_a_second(patch)


_add(
    "silent donor kept",
    "What a silent donor owes is asked of nobody else before the donor is given up.",
    (Transfer, "_replace", lambda self, pull, now: setattr(pull, "is_silent", True)),
    test=_hangs,
)


def _in_small_messages(
    test: Callable[..., None], *args: Any, messages: bool = False
) -> Callable[[], None]:
    def run() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(donor, "RECORDS_MAX_BYTES", 20_000)
            patch.setattr(donor, "OUTSTANDING_MAX_BYTES", 80_000)
            test(*args, *([patch] if messages else []))

    return run


_slow_joiner = _in_small_messages(
    test_slow_transfer.test_a_joiner_that_is_merely_slow_gets_the_rest_when_it_listens, 3.2, 0.2
)
_asks_again = _in_small_messages(
    test_slow_transfer.test_who_asks_again_gets_what_is_missing_once, messages=True
)

_add(
    "loss not told",
    "A donor whose message was not acknowledged in time drops the request and says nothing.",
    (donor, "UNANSWERED_MAX", 0),
    test=_slow_joiner,
)
_add(
    "loss not heard",
    "A joiner takes for complete what its donor calls incomplete.",
    (Transfer, "on_records", lambda self, *each: _on_records_whole(self, *each)),
    test=_slow_joiner,
)


def _on_records_whole(self: Transfer, source: Any, message: Records, now: float) -> None:
    whole = Records(message.context, message.sync, message.pairs, message.done, False)
    _on_records(self, source, whole, now)


_on_records = Transfer.on_records
_add(
    "no patience",
    "A member that was silent is waited for no longer the second time.",
    (transfer, "PULL_SILENCE_MAX_S", transfer.PULL_SILENCE_S),
    test=_asks_again,
)
_add(
    "both questions answered",
    "A donor goes on with what its asker has given up.",
    (Donor, "on_want", lambda self, source, message, now: _on_want(self, source, message, now)),
    test=_asks_again,
)


def _on_want(self: Donor, source: Any, message: Want, now: float) -> None:
    self.serve(source, message.sync, self._wanted(dict(message.have), now), now)


_add(
    "no overtime",
    "A join is over when its time is, although sessions come.",
    (transfer, "PROGRESS_S", 0.0),
    test=_in_small_messages(
        test_slow_transfer.test_t48_a_join_whose_time_is_over_goes_on_while_sessions_come
    ),
)
_add(
    "overtime without end",
    "A join goes on as long as a session comes now and then.",
    (transfer, "OVERTIME_MAX", 10**6),
    test=_in_small_messages(
        test_slow_transfer.test_t48_a_join_ends_after_ten_times_its_time_whatever_comes,
        messages=True,
    ),
)
_add(
    "one donor for all",
    "Of several donors one is asked for everything.",
    (
        Transfer,
        "_next",
        lambda self, pull, left: (
            {}
            if any(each.left for each in self._pulls.values() if each is not pull)
            and next(iter(self._pulls.values())) is not pull
            else _next(self, pull, left)
        ),
    ),
    test=test_transfer.test_t46_any_member_donates_and_several_share_the_work,
)
_add(
    "equal partitions asked for",
    "A partition that came from another donor meanwhile is asked for all the same.",
    (Transfer, "_next", lambda self, pull, left: _blindly(self, pull, left)),
    test=test_transfer.test_t46_any_member_donates_and_several_share_the_work,
)


def _blindly(self: Transfer, pull: Any, left: dict[int, int]) -> dict[int, list[int]]:
    have: dict[int, list[int]] = {p: [] for p in list(left)[: pull.partitions_max]}
    for partition in have:
        del left[partition]
    return have


_add(
    "timeout ignored",
    "A joining node waits for a silent donor for ever.",
    (Transfer, "_look", lambda self, now: _patiently(self, now)),
    test=test_transfer.test_t48_a_joiner_goes_on_after_the_timeout_says_so_and_counts_it,
)


def _patiently(self: Transfer, now: float) -> None:
    if not self._pulls and not self._owed:
        _look(self, now)


_add(
    "joined while owed",
    "A node says that it has joined while a member is to be asked again.",
    (Transfer, "_again", nothing),
    test=test_transfer.test_t48_minus_one_waits_until_all_is_here,
)
_add(
    "batch size ignored",
    "Messages of records are as long as bytes allow.",
    (Donor, "_send", lambda self, serving, now: _unbatched(self, serving, now)),
    test=test_transfer.test_t47_sessions_travel_in_messages_of_the_configured_number,
)


def _unbatched(self: Donor, serving: Any, now: float) -> None:
    self._batch_max = 10**9
    _send(self, serving, now)


_add(
    "records before changes",
    "A donor does not look whether changes wait.",
    (Donor, "_may_send", lambda self, target: True),
    test=_changes_first,
)
_add(
    "no bound of what is encoded",
    "A donor encodes all that is wanted at once.",
    (donor, "OUTSTANDING_MAX_BYTES", 10**12),
    (ServingBudget, "is_spent", False),
    (Donor, "_may_send", lambda self, target: True),
    test=(test_transfer.test_t55_a_donor_sends_large_sessions_in_bounded_memory_and_stays_a_member),
    reason="a member's queue refuses what is beyond its bound, and the donor waits for room",
)
_add(
    "lack ignored",
    "What the other lacks is not given.",
    (Transfer, "on_lack", nothing),
    test=test_transfer.test_what_the_other_lacks_is_given_in_the_same_comparison,
)
_add(
    "everything wanted is sent",
    "A donor sends also what the asker has listed.",
    (donor, "digest", lambda key, record: -1),
    test=test_transfer.test_equal_members_exchange_about_half_a_kilobyte,
)
_add(
    "resync replaces nothing",
    "The operation asks nobody.",
    (Transfer, "resync", lambda self, now: len(self._peers)),
    test=test_transfer.test_t53_resync_brings_what_is_missing_and_keeps_what_is_newer,
)
_add(
    "progress at every message",
    "Progress is told as often as records come.",
    (
        progress,
        "TELL_S",
        0.0,
    ),
    test=_progress_once_a_second,
)
_add(
    "fetch not hedged",
    "A holder that does not answer is waited for.",
    (Fetches, "_hedge", nothing),
    test=test_transfer.test_a_session_that_is_not_here_yet_is_fetched_when_a_request_asks,
)


def _reads() -> None:
    test_freshness.test_t56_client_over_all_nodes_reads_its_own_writes_without_waiting_for_members(
        8
    )


_add(
    "token not looked at",
    "A node shows what it has, whatever its client has written.",
    (DeltaManager, "lacks", lambda self, session_id, written=None: False),
    test=_reads,
)
_add(
    "any write will do",
    "A session counts as up to date whatever writes it has.",
    (delta, "has_write", lambda record, hlc, actor: True),
    test=_reads,
)
_add(
    "waited for and not fetched",
    "A node that is behind waits a moment, and asks nobody.",
    (Fetches, "_begin", lambda self, ask, now: self._in_vain(ask, now)),
    test=_reads,
)
_add(
    "in vain every time",
    "A write that nobody has is asked for by every request.",
    (fetch, "UNKNOWN_S", -1.0),
    test=test_freshness.test_a_forged_token_costs_its_sender_a_bounded_wait_once,
)
_add(
    "questions without bound",
    "Any number of requests may wait.",
    (fetch, "QUESTIONS_MAX", 10**9),
    test=test_freshness.test_questions_are_bounded_and_end_with_the_node,
)
_add(
    "event not taken over",
    "The destroyed event of a member that died is nobody's.",
    (Expiry, "_take_over", nothing),
    test=test_expiry.test_t36_the_event_comes_although_its_owner_dies_before_telling,
)
_add(
    "fired not marked",
    "Nobody is told that the listeners were.",
    (delta, "is_fired", lambda record: True),
    test=test_expiry.test_t36_one_destroyed_event_in_the_cluster_for_a_timeout,
)
_add(
    "told before all copies have it",
    "Listeners hear of an expiry that other members do not know yet.",
    (
        Replicator,
        "_spread",
        lambda self, pairs, now, then: (then(now), _spread(self, pairs, now, nothing)),
    ),
    test=test_expiry.test_listeners_hear_of_an_expiry_when_all_copies_have_it,
)
_add(
    "every use told",
    "Uses are told to the others every second.",
    (Touches, "add", lambda self, key, now_ds, limit: _add_touch(self, key, now_ds, 1)),
    test=test_expiry.test_t30_reads_cause_no_data_message_and_one_small_batch_of_uses,
)
_add(
    "uses not told",
    "Nobody hears of uses that change nothing, and nobody objects.",
    (Touches, "add", nothing),
    (Expiry, "on_ask", lambda self, source, message, now: _agree(self, source, message, now)),
    test=test_expiry.test_t38_an_active_user_is_never_expired_by_another_node,
)


def _agree(self: Expiry, source: Any, message: Any, now: float) -> None:
    message.keys.clear()
    _on_ask(self, source, message, now)
