"""Broken sessions: merging, expiry, clocks, commits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tests.mutants import plans
from tests.mutants.registry import (
    BUSY,
    SHORT_IDLE,
    SPLIT,
    STALL,
    Patch,
    add,
    nothing,
)
from tribes.manager import base, digests, idleness, merge, record, table
from tribes.manager.clock import Clock
from tribes.manager.expiry import Expiry
from tribes.manager.inbox import Inbox
from tribes.manager.record import HAS_CONTAINER, Life, main_of
from tribes.manager.replication import Replicator
from tribes.manager.table import SessionTable

if TYPE_CHECKING:
    from tribes.wire.member import Member

# ---- merging -----------------------------------------------------------------------------------

_SLOW_MERGE: Final[Patch] = (merge, "patches_of", lambda main, delta: None)
_is_newer = merge._is_newer
add(
    "last arrival wins",
    "A merge takes the entry that comes, whatever its version.",
    _SLOW_MERGE,
    (merge, "_is_newer", lambda entry, known: entry != known),
    faults=SPLIT,
    changes=BUSY,
)
add(
    "older version wins",
    "A merge keeps the lesser version.",
    _SLOW_MERGE,
    (merge, "_is_newer", lambda entry, known: not _is_newer(entry, known)),
)
add(
    "first arrival wins",
    "A merge never replaces an entry.",
    _SLOW_MERGE,
    (merge, "_is_newer", lambda entry, known: False),
)
add(
    "equal times not decided",
    "Of two entries with one time, each node keeps its own.",
    _SLOW_MERGE,
    (merge, "_is_newer", lambda entry, known: entry.hlc > known.hlc),
    plan=plans.double_clicks,
)


def _merge_ending(a: Any, *others: Any) -> Any:
    # Destroyed does not absorb: what comes later lives.
    for other in others:
        if a is not None and main_of(a)[1] == Life.DESTROYED and main_of(other)[1] == Life.LIVE:
            a = other
        else:
            a = _merge(a, other)
    return a


_merge = merge.merge
add(
    "logged out comes back",
    "A live record that arrives later revives a destroyed session.",
    (table, "merge", _merge_ending),
    faults=SPLIT,
    changes=BUSY,
)


def _merge_incoming(a: Any, *others: Any) -> Any:
    for other in others:
        a = other if a is None or main_of(other)[2] & HAS_CONTAINER else _merge(a, other)
    return a


add(
    "whole record replaced",
    "A delta with an id replaces the record instead of joining it.",
    (table, "merge", _merge_incoming),
    changes=BUSY,
)


def _merge_expired(a: Any, *others: Any) -> Any:
    for other in others:
        expired = a is not None and main_of(a)[1] == Life.EXPIRED
        a = a if expired else _merge(a, other)
    return a


add(
    "expired for ever",
    "A later use does not revive a session that another node has expired.",
    (table, "merge", _merge_expired),
    plan=plans.idle_split,
)


def _skip_end(self: Any, key: str, incoming: Any, now_ds: Any = None) -> Any:
    if main_of(incoming)[1] == Life.DESTROYED:
        return self.get(key), incoming, False
    return _merge_in(self, key, incoming, now_ds)


_merge_in = SessionTable.merge_in
add(
    "tombstone skipped",
    "That a session was logged out elsewhere is not taken in.",
    (SessionTable, "merge_in", _skip_end),
    changes=BUSY,
)


def _skip_id(self: Any, key: str, incoming: Any, now_ds: Any = None) -> Any:
    known = self.get(key)
    if known is not None and main_of(incoming)[2] & HAS_CONTAINER:
        return known, known, False
    return _merge_in(self, key, incoming, now_ds)


add(
    "new id not taken in",
    "Changes of a session's id do not reach the other nodes.",
    (SessionTable, "merge_in", _skip_id),
    changes={**BUSY, "routing": "random"},
)
add(
    "digest without versions",
    "A digest covers which sessions there are, and not what is in them.",
    (digests, "digest", lambda key, record: hash_of(key, main_of(record)[1])),
    faults=SPLIT,
    changes=BUSY,
)


def hash_of(key: str, life: int) -> int:
    """A digest of a key and a life, the same in every process."""
    return int(key[:15].encode().hex()[:15], 16) * 4 + life


add(
    "digest out of date",
    "A change does not make its partition's digest anew.",
    (digests.PartitionDigests, "changed", nothing),
    faults=SPLIT,
    changes=BUSY,
)


# ---- expiry ------------------------------------------------------------------------------------

_LONG_SETTLE: Final = {**SHORT_IDLE, "seconds": 4.0, "settle": 24.0}


def _expire_unasked(self: Any, now: float) -> None:
    peers, self._peers = self._peers, {}
    try:
        _look_once(self, now)
    finally:
        self._peers = peers


_look_once = Expiry._look_once
add(
    "owner does not ask",
    "The owner expires an idle session without asking anybody.",
    (Expiry, "_look_once", _expire_unasked),
    plan=plans.used_just_before,
)


def _accept_all(self: Any, source: Member, message: Any, now: float) -> None:
    ask = self._asks.get(message.ask)
    if ask is not None and source in ask.waiting:
        self._answered(message.ask, ask, source, now)


add(
    "objections ignored",
    "The owner expires sessions that others have just seen used.",
    (Expiry, "on_answer", _accept_all),
    plan=plans.used_just_before,
)
add(
    "idle too early",
    "A session counts as idle long before its limit.",
    (idleness, "is_over", lambda idle_ds, limit_s: limit_s > 0 and idle_ds >= limit_s // 2),
    changes={**SHORT_IDLE, "think": 0.5},
)
add(
    "never expired",
    "Nobody looks for idle sessions.",
    (Expiry, "_look_once", nothing),
    changes=_LONG_SETTLE,
)
add(
    "nobody owns",
    "No node takes itself for a session's owner.",
    (Expiry, "is_owner", lambda self, key: False),
    changes=_LONG_SETTLE,
)
add(
    "everybody owns",
    "Every node takes itself for the owner of every session.",
    (Expiry, "is_owner", lambda self, key: True),
    changes={**_LONG_SETTLE, "seconds": 8.0},
)
add(
    "expired at once",
    "The owner expires every session that it looks at.",
    (idleness, "is_over", lambda idle_ds, limit_s: idle_ds >= 2),
    changes={**BUSY, "think": 0.5},
)


# ---- clock -------------------------------------------------------------------------------------

_life_and_access = record.life_and_access
_NO_GUARD: Final[Patch] = (base, "life_and_access", lambda each: (_life_and_access(each)[0], 0))
_CLOCKS: Final = ("clock_step",) * 6
add(
    "peers' clocks not observed",
    "A write may be older than what its writer saw.",
    (Clock, "observe", nothing),
    _NO_GUARD,
    faults=_CLOCKS,
    changes={**BUSY, "routing": "random"},
)


def _wall_only(self: Any) -> int:
    self._last = self._wall_ms() << 8
    return int(self._last)


add(
    "clock jumps back",
    "Versions follow the wall clock when it is set back.",
    (Clock, "next", _wall_only),
    _NO_GUARD,
    faults=_CLOCKS,
    changes=BUSY,
)


# ---- commits and the inbox ---------------------------------------------------------------------


def _resolve_early(self: Any, commits: Any, now: float) -> None:
    self._resolve(commits, tuple(member.label for member in self._targets), {})
    _send(self, commits, now)


_send = Replicator._send
add(
    "waiter told early",
    "A commit counts as acknowledged by all before anybody has it.",
    (Replicator, "_send", _resolve_early),
    faults=STALL,
    changes={**BUSY, "routing": "random"},
)
_resolve = Replicator._resolve
add(
    "missing list empty",
    "Members that did not answer are reported as having the commit.",
    (
        Replicator,
        "_resolve",
        lambda self, commits, acked, missing: _resolve(self, commits, (*acked, *missing), {}),
    ),
    faults=STALL,
    options=(6,),
    changes={**BUSY, "routing": "random"},
)
add(
    "commit waits for ever",
    "A waiter is never told.",
    (Replicator, "_resolve", nothing),
    options=(6,),
)


def _leave_out(self: Any, commits: Any, now: float) -> None:
    targets = self._targets
    self._targets = targets[:1]
    try:
        _send(self, commits, now)
    finally:
        self._targets = targets


add(
    "one copy only",
    "Changes go to the first member, not to all.",
    (Replicator, "_send", _leave_out),
    changes={"members": 4, **BUSY},
)


def _lose_commit(self: Any, limit_entries: int) -> Any:
    return _drain(self, limit_entries)[1:]


_drain = Inbox.drain
add(
    "first commit lost",
    "The first commit of a batch does not leave the inbox.",
    (Inbox, "drain", _lose_commit),
)

_inbox_init = Inbox.__init__


def _small_inbox(self: Any, lock: Any, **settings: Any) -> None:
    _inbox_init(self, lock, **{**settings, "max_bytes": 500})


_SMALL_INBOX: Final = ((Inbox, "__init__", _small_inbox),)


def _lose_overflow(self: Any, keys: Any, now: float) -> None:
    del self, keys, now


add(
    "inbox overflow lost",
    "Changes that found no room in the inbox are never sent.",
    (Replicator, "mark_dirty", _lose_overflow),
    faults=("throttle",) * 6,
    changes=BUSY,
    stress=_SMALL_INBOX,
)


def _put_anyway(self: Any, commit: Any) -> bool:
    bound, self.max_bytes = self.max_bytes, 1 << 40
    try:
        return _put(self, commit)
    finally:
        self.max_bytes = bound


_put = Inbox.put
add(
    "inbox bound forgotten",
    "The inbox takes whatever comes.",
    (Inbox, "put", _put_anyway),
    faults=("throttle",) * 6,
    changes=BUSY,
    stress=_SMALL_INBOX,
)
add(
    "core not woken",
    "The core is not told that there are commits.",
    (Inbox, "call_wake", nothing),
)
