"""Broken listeners, filters and limits of managers; each names the test that notices it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.manager import test_delta_rows as delta_tests
from tests.manager import test_endings as endings_tests
from tests.manager import test_eviction as eviction_tests
from tests.manager import test_idleness as idleness_tests
from tests.manager import test_lives as lives_tests
from tests.manager import test_news as news_tests
from tests.manager import test_size_limits as size_tests
from tests.manager import test_watched as watched_tests
from tests.mutants import registry
from tests.mutants.registry import Patch, nothing
from tribes.manager import eviction, size_limits
from tribes.manager.base import SessionManager
from tribes.manager.container import facts_of
from tribes.manager.endings import Endings
from tribes.manager.eviction import Eviction
from tribes.manager.idleness import Idleness
from tribes.manager.kept_here import KeptHere
from tribes.manager.listeners import SessionListeners
from tribes.manager.lives import Lives
from tribes.manager.news import News
from tribes.manager.rules import Rules
from tribes.manager.session_listeners import OwnListeners
from tribes.manager.traffic import Traffic
from tribes.manager.watched import WatchedBag


def add(name: str, text: str, *patches: Patch, test: Callable[[], object]) -> None:
    """Register a mutant that a test must notice."""
    registry.add(f"watch: {name}", text, *patches, test=test)


def watched(test: Callable[..., object], **arguments: Any) -> Callable[[], object]:
    """A test of watched attributes, which begins with empty logs."""

    def run() -> None:
        watched_tests.Seat.log.clear()
        watched_tests.Seat.on_bound = None
        endings_tests.LOG.clear()
        endings_tests.Replicated.log.clear()
        test(**arguments)

    return run


_RACE = watched(watched_tests.test_t20_each_bound_has_one_unbound_when_the_session_ends_meanwhile)
add("uncommitted values stay bound", "Nobody unbinds what a void commit had.",
    (WatchedBag, "abandoned", nothing), test=_RACE)  # fmt: skip
add("ended values stay bound", "An end does not take attributes out.",
    (Endings, "_take_out", nothing), test=_RACE)  # fmt: skip
add("revived values are not bound again", "A late request brings back values that were unbound.",
    (Endings, "revived", nothing), test=_RACE)  # fmt: skip


def _claim_anyway(self: Any, key: str) -> Any:
    return self._table.get(key)


add(
    "revived sessions are told of",
    "Who came back between expiry and telling is told to have ended.",
    (Endings, "claim", _claim_anyway),
    test=watched(endings_tests.test_a_session_that_a_late_request_brought_back_is_not_told_of),
)
_settled = WatchedBag.settled


def _settled_of_nothing(self: Any, before: Any, hlc: int, failed: Any) -> None:
    _settled(self, None, hlc, failed)


add(
    "replaced values stay bound",
    "A commit does not unbind what it took out.",
    (WatchedBag, "settled", _settled_of_nothing),
    test=watched(watched_tests.test_parallel_requests_unbind_what_each_of_them_replaced),
)


def _destroyed_in_order(self: Any, session: Any, reason: str) -> None:
    self._tell("session_destroyed", session, reason)


add(
    "ends in the order of adding",
    "Destroyed listeners are told the first first.",
    (SessionListeners, "destroyed", _destroyed_in_order),
    test=watched(
        endings_tests.test_t21_an_end_is_told_to_listeners_in_reverse_then_counted_logged_out_and_unbound
    ),
)
add(
    "nobody is logged out",
    "A principal is not told that its session ended.",
    (Endings, "_log_out", nothing),
    test=watched(
        endings_tests.test_t21_an_end_is_told_to_listeners_in_reverse_then_counted_logged_out_and_unbound
    ),
)
add(
    "marked listeners stay",
    "A session's replicated listener does not travel.",
    (OwnListeners, "changes", property(lambda self: [])),
    test=watched(endings_tests.test_t29_only_listeners_of_a_session_with_the_marker_travel),
)


def _by_part(self: Any, name: str, value: object) -> bool:
    return self.name_filter is not None and not self.name_filter.match(name)


add(
    "filters match a part",
    "A name that only begins as the filter says leaves the process.",
    (Rules, "stays_here", _by_part),
    test=watched(watched_tests.test_t22_filters_keep_attributes_here_and_say_so),
)
add(
    "held back is lost",
    "What a filter holds back is not kept either.",
    (KeptHere, "put", lambda self, key, changes, hlc: []),
    test=watched(watched_tests.test_t22_filters_keep_attributes_here_and_say_so),
)
add(
    "what moved out is served elsewhere",
    "The old value stays in the record of an attribute that is kept here now.",
    (WatchedBag, "changes", lambda self, failed: super(WatchedBag, self).changes(failed)),
    test=watched(
        watched_tests.test_a_value_that_moves_out_of_the_record_is_not_served_elsewhere_any_more
    ),
)
_kept_after_end = news_tests.test_what_is_kept_here_is_unbound_when_another_member_ends_the_session
add(
    "kept for ever",
    "What is kept of a session that another member ended is not let go.",
    (Endings, "forget", nothing),
    test=_kept_after_end,
)


def _all_eight() -> None:
    for flags in delta_tests.FLAGS:
        delta_tests.test_t39_listeners_on_replicas_hear_what_their_flag_says(flags)


def _note_all(self: Any, key: str, before: Any, after: Any) -> None:
    self._changes.append((key, before, after))


add("listeners hear of replicas unasked", "The settings are not looked at when news are noted.",
    (News, "note", _note_all), test=_all_eight)  # fmt: skip
add("replicas are silent", "Other members' changes are never told.",
    (News, "note", nothing), test=_all_eight)  # fmt: skip
add(
    "a stop destroys",
    "A stopping node tells that sessions ended that live on.",
    (SessionListeners, "evicted", SessionListeners.destroyed),
    test=partial(delta_tests.test_t40_t41_a_stop_ends_sessions_only_if_that_is_wanted, False),
)
add(
    "a stop never ends",
    "expire_sessions_on_shutdown is not honoured.",
    (SessionManager, "leaving", nothing),
    test=partial(delta_tests.test_t40_t41_a_stop_ends_sessions_only_if_that_is_wanted, True),
)
_EVICTED = eviction_tests.test_the_least_recently_used_go_on_all_members_and_are_told_once
_USED = eviction_tests.test_a_session_that_is_used_after_it_was_chosen_stays
add(
    "the most recently used go",
    "A full manager ends the sessions that were used last.",
    (eviction, "nsmallest", lambda count, ages: sorted(ages)[-count:]),
    test=_EVICTED,
)
add("a full manager keeps all", "Nothing is marked to make room.",
    (Eviction, "_mark", lambda self, key: False), test=_EVICTED)  # fmt: skip


def _marked_for_ever(self: Any) -> Any:
    yield from list(self._table.marked)


_may_go = Idleness.may_go


def _goes_anyway(self: Any, record: Any, now_ds: int, key: str) -> bool:
    return facts_of(record).evict_hlc is not None or _may_go(self, record, now_ds, key)


add(
    "a mark outlives a use",
    "Whoever was chosen to go goes, although somebody used it since.",
    (Idleness, "_marked", _marked_for_ever),
    (Idleness, "may_go", _goes_anyway),
    test=_USED,
)
add(
    "no bound above the limit",
    "A full manager that evicts takes whatever comes.",
    (Eviction, "has_slack", property(lambda self: True)),
    test=eviction_tests.test_evicting_is_bounded_so_a_flood_is_rejected_in_the_end,
)
add(
    "a running request does not count",
    "Sessions in use expire.",
    (Idleness, "begin", nothing),
    test=partial(idleness_tests.test_t18_a_session_whose_request_runs_never_expires, True),
)
add(
    "life without end",
    "max_lifetime_s is not honoured.",
    (Idleness, "is_old", lambda self, created: False),
    test=idleness_tests.test_a_session_lives_no_longer_than_it_may_however_much_it_is_used,
)
add(
    "no limit of an attribute",
    "attribute_max_bytes is not honoured.",
    (size_limits, "_too_large", lambda changes, limit: {}),
    test=size_tests.test_an_attribute_that_is_too_large_is_refused_by_name,
)
_end = Lives.end


def _end_twice(self: Any, life_s: float) -> None:
    _end(self, life_s)
    _end(self, life_s)


add("lives count twice", "Each end is counted twice.",
    (Lives, "end", _end_twice),
    test=lives_tests.test_t15_the_numbers_of_two_hundred_scripted_sessions)  # fmt: skip
add(
    "messages are not reset",
    "Counters of messages keep their numbers.",
    (Traffic, "reset", nothing),
    test=delta_tests.test_t42_messages_are_counted_by_type_sent_and_received_reset_and_switched_off,
)
