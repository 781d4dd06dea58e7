"""Broken merging by element, conflicts that are told wrongly, and locks that are given twice."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tests.manager import test_golden, test_merged, test_messages
from tests.mutants import registry
from tests.mutants.plans import counted, locked
from tests.mutants.registry import Patch, nothing
from tests.runtime import test_session_locks
from tests.sim import test_locks
from tests.web import test_locks as test_web_locks
from tribes.errors import RemoteProtocolError
from tribes.manager import base, dots, locks, merge, merged, messages, splice
from tribes.manager.base import SessionManager
from tribes.manager.dots import Dots
from tribes.manager.locks import ClusterLocks
from tribes.manager.messages import Hello
from tribes.manager.record import parse
from tribes.runtime import session_locks
from tribes.web import turns
from tribes.wire.codec import pack

if TYPE_CHECKING:
    from collections.abc import Callable

    from tribes.manager.record import Entry


def _add(name: str, text: str, *patches: Patch, **settings: Any) -> None:
    registry.add(f"merge: {name}", text, *patches, **{"plan": counted, **settings})


# ---- elements ----------------------------------------------------------------------------------

_join = dots._join
_count = merged._count
_difference = merged._difference


def _keep_own(a: Dots, b: Dots) -> Dots:
    return max(a, b, key=lambda d: max(d.elements, default=(0, 0, 0)))


def _union(a: Dots, b: Dots) -> Dots:
    joined = _join(a, b)
    return Dots(joined.floor, joined.seen, {**a.elements, **b.elements})


def _count_twice(now: Dots, amount: int, hlc: int, actor: int) -> bool:
    done = _count(now, amount, hlc, actor)
    # The own part goes on, and the one that it replaces stays beside it.
    for dot in list(now.elements):
        if dot[1] == actor and dot[0] == hlc:
            now.elements[hlc, actor, dot[2] | 1] = now.elements[dot]
    return done


def _count_alone(now: Dots, amount: int, hlc: int, actor: int) -> bool:
    others = {dot: payload for dot, payload in now.elements.items() if dot[1] != actor}
    done = _count(now, amount, hlc, actor)
    if done and len(others) > 1:
        now.elements.pop(min(others))
    return done


def _never_removed(kind: int, known: Any, wanted: Any, now: Dots) -> Any:
    gone, added = _difference(kind, known, wanted, now)
    return [], added if kind == 1 else (added if not gone else [])


def _last_writer(known: Entry, other: Entry) -> Entry:
    return max(known, other, key=dots._rank)


_add("last writer wins", "Of two sets the later one stays.", (merge, "join_entries", _last_writer))
_add("one side kept", "A join takes the elements of one side.", (dots, "_join", _keep_own))
_add("removals forgotten", "A join keeps what either side has.", (dots, "_join", _union))
_add("counts twice", "A counter adds its own part twice.", (merged, "_count", _count_twice))
_add("counts alone", "A counter drops a part of another.", (merged, "_count", _count_alone))
_add(
    "nothing removed",
    "A member that is taken out of a set stays in.",
    (merged, "_difference", _never_removed),
    test=test_merged.test_members_put_in_at_once_are_all_in_and_removed_ones_stay_out,
    plan=None,
)
_add(
    "spliced",
    "The short way of merging replaces what is to be joined.",
    (splice, "has_dots", lambda kind: False),
)
_add(
    "overflow not dropped",
    "A list grows without end.",
    (merged, "_trim", lambda now, kind: 0),
    test=test_merged.test_the_oldest_beyond_1024_fall_out_and_are_counted,
    plan=None,
)
_add(
    "actors kept",
    "Every process that ever wrote is listed for ever.",
    (merged, "_forget_actors", nothing),
    test=(
        test_merged
    ).test_processes_that_wrote_nothing_for_hours_are_forgotten_and_their_sums_are_not,
    plan=None,
)

# ---- conflicts ---------------------------------------------------------------------------------


def _all_lost(before: Any, incoming: Any, actor: int) -> Any:
    ours, theirs = parse(before).entries, parse(incoming).entries
    for key, won in theirs.items():
        lost = ours.get(key)
        if lost is not None and lost.actor == actor != won.actor and key[0] == 0:
            yield lost, won


_add("conflict not counted", "Lost writes are not counted.", (base, "lost_updates", lambda *_: ()))
_add(
    "everything is a conflict",
    "A write that had seen the other is counted as a conflict.",
    (base, "lost_updates", _all_lost),
)
_add(
    "own writes not told",
    "The application is not told of a lost write.",
    (SessionManager, "notify_conflict", nothing),
    test=test_merged.test_who_loses_a_write_counts_it_once_and_its_application_is_told,
    plan=None,
)

# ---- messages ----------------------------------------------------------------------------------

_decode = messages.decode_message


def _strict(payload: bytes) -> Any:
    message = _decode(payload)
    if message is None:
        raise RemoteProtocolError("unknown kind")
    return message


_add(
    "later kinds refused",
    "A message of a later release is an error.",
    (test_messages, "decode_message", _strict),
    test=test_messages.test_a_kind_of_a_later_release_is_no_error,
    plan=None,
)


def _hello_without_first(self: Hello) -> bytes:
    return messages.MAGIC + b"\x01" + pack([0, self.name, self.contexts])


_add(
    "bytes changed",
    "A message loses a field that this release has always sent.",
    (Hello, "encode", _hello_without_first),
    test=partial(
        test_golden.test_what_is_written_now_is_what_this_release_has_always_written,
        "messages",
        "hello",
    ),
    plan=None,
)

# ---- locks -------------------------------------------------------------------------------------

_on_ask = ClusterLocks._on_ask
_grant = ClusterLocks._on_grant


def _yes_to_all(self: ClusterLocks, who: Any, message: Any, now: float) -> None:
    lock = self._locks.setdefault(message.key, locks._Lock())
    self._grant(message.key, lock, who, message.turn, now)


def _never_frees(self: ClusterLocks, lock: Any, now: float) -> None:
    return


def _claims_without_waiting(self: ClusterLocks, key: str) -> float:
    return 0.0


def _no_end(self: ClusterLocks, who: Any, key: str, now: float) -> None:
    return


def _for_ever(self: ClusterLocks, source: bytes, message: Any, now: float) -> None:
    _grant(self, source, message, now)
    ask = self._asks.get(message.ask)
    if ask is not None and ask.is_granted:
        ask.until = now + 60.0


def _lock(name: str, text: str, *patches: Patch, test: Callable[[], object] | None = None) -> None:
    registry.add(f"lock: {name}", text, *patches, test=test, plan=None if test else locked)


_lock("given to all", "A keeper says yes to everybody.", (ClusterLocks, "_on_ask", _yes_to_all))
_lock(
    "end ignored",
    "A lock that is given back stays taken until its lease is over.",
    (ClusterLocks, "_on_end", _no_end),
    test=test_locks.test_each_gets_it_in_turn_wherever_it_asks,
)
_lock(
    "never freed",
    "The lock of a holder that is gone stays taken.",
    (ClusterLocks, "_expire", _never_frees),
    test=test_locks.test_a_holder_that_hangs_loses_it_by_the_lease_and_knows_it_afterwards,
)
_lock(
    "lease for ever",
    "A holder counts on its lock although its lease is over.",
    (ClusterLocks, "_on_grant", _for_ever),
    test=test_locks.test_a_holder_that_hangs_loses_it_by_the_lease_and_knows_it_afterwards,
)
_lock(
    "no pause at a new keeper",
    "A new keeper gives away what another has granted.",
    (ClusterLocks, "_may_grant_at", _claims_without_waiting),
    (ClusterLocks, "_again", nothing),
    test=test_locks.test_a_joiner_that_becomes_the_keeper_gives_nothing_away_that_is_held,
)
_lock(
    "dead holder kept",
    "A holder that is known to be dead keeps its lock for the whole lease.",
    (ClusterLocks, "gone", nothing),
    test=test_locks.test_a_holder_that_crashes_is_freed_as_soon_as_that_is_known,
)
_lock(
    "cancelled turn kept",
    "Who gives up keeps its place in the queue of its process.",
    (session_locks._Queues, "give_up", lambda self, key, turn: True),
    test=test_session_locks.test_who_gave_up_waiting_is_passed_over,
)
_lock(
    "not given back",
    "A lock in this process stays taken.",
    (session_locks.SessionLock, "release", nothing),
    test=test_session_locks.test_other_sessions_do_not_wait,
)
_lock(
    "old session served",
    "Who waited for the lock sees the session as it was before.",
    (turns, "look_again", nothing),
    test=test_web_locks.test_who_waited_sees_what_the_request_before_did_also_its_logout,
)
