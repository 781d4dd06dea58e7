"""What session managers say to each other: byte messages of one magic, a version and msgpack.

::

    payload = 00 54 50 59 | u8 version (1) | msgpack array [kind, …]

    HELLO          [0, name, [context …], is_first]
    DELTAS         [1, context, [key, record, key, record …], epoch]
    DIGESTS        [2, context, sync, sessions, u8 group …, u16 partition + u64 digest …]
    RECORDS        [3, context, sync, [key, record …], done, is_lossy]
    EXPIRE_ASK     [4, context, ask, [key, access, key, access …]]
    EXPIRE_ANSWER  [5, context, ask, [key, record …]]
    DRAINING       [6]
    CONFIRM        [7, context, sync, u16 partition + u64 digest …]
    RECEIPT        [8, context, sync, u16 partition …]
    SUMMARY        [9, context, sync, 64 u64 digests]
    WANT          [10, context, sync, offers, u16 partition + u32 count + u64 digests …]
    LACK          [11, context, sync, u64 digest …]
    FETCH         [12, context, ask, id, hlc, actor]
    FETCHED       [13, context, ask, [key, record], is_sure]
    LOCK          [32, context, verb, ask, turn, key]

Two members compare what they hold by SUMMARY, DIGESTS, WANT, LACK and RECORDS, see
:mod:`tribes.manager.transfer`; FETCH brings one session at once, see :mod:`tribes.manager.fetch`.
Those about parts that not all members hold are in :mod:`tribes.manager.placed_messages`.
Records are in the wire form of :mod:`tribes.manager.record`. Every field of a received message is
checked here, so the code behind it sees only what the types say.

A later release may add fields at the end of a message, and kinds: this one does not look at either,
so both can be members of one group while its nodes are replaced one by one.

It is longer than other files because the wire is to be read in one place: a class and a reader for
each kind, most of them a few lines.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Any

from tribes.errors import RemoteProtocolError
from tribes.wire.codec import pack, unpack

from .magic import MAGIC, PREFIX, VERSION
from .message_fields import as_bool, as_int, as_text
from .placed_messages import PLACED_READERS, Lost, Places, Seek, Sought, Stale
from .session_ids import GROUPS, PARTITIONS

__all__ = [
    "MAGIC",
    "Confirm",
    "Deltas",
    "Digests",
    "Draining",
    "ExpireAnswer",
    "ExpireAsk",
    "Fetch",
    "Fetched",
    "Hello",
    "Lack",
    "Lock",
    "LockVerb",
    "ManagerMessage",
    "Pairs",
    "PlacedMessage",
    "Receipt",
    "Records",
    "Summary",
    "Want",
    "decode_message",
    "is_manager_message",
]

_DIGEST = struct.Struct(">HQ")
_PARTITION = struct.Struct(">H")
_LISTED = struct.Struct(">HI")
_U64 = struct.Struct(">Q")
_SUMMARY = struct.Struct(f">{GROUPS}Q")

NAME_MAX_CHARS = 256
CONTEXTS_MAX = 1024
KEY_MAX_CHARS = 256

Pairs = list[tuple[str, bytes]]
"""Session keys, each with a record in wire form."""


@dataclass(slots=True)
class Hello:
    """Who I am and which contexts I run.

    Attributes:
        name: The node's name.
        contexts: The applications whose sessions it holds.
        is_first: The receiver has just become a member here, perhaps again: it answers, and if it
            had the sender as a member all the time, it asks for what it missed.
    """

    name: str
    contexts: list[str]
    is_first: bool

    def encode(self) -> bytes:
        """The payload of a byte message."""
        return PREFIX + pack([0, self.name, self.contexts, self.is_first])


@dataclass(slots=True)
class Deltas:
    """What changed in some sessions.

    Attributes:
        context: Name of the application.
        pairs: The changes.
        epoch: Of a placed part: the latest that the sender knows.
    """

    context: str
    pairs: Pairs
    epoch: int = 0

    def encode(self) -> bytes:
        """The payload of a byte message."""
        return PREFIX + pack([1, self.context, _flat(self.pairs), self.epoch])


@dataclass(slots=True)
class Summary:
    """What I hold, as one number per group of partitions: tell me yours where they differ.

    Attributes:
        context: Name of the application.
        sync: Returned with the answer.
        sums: One digest per group.
    """

    context: str
    sync: int
    sums: list[int]

    def encode(self) -> bytes:
        """The payload of a byte message."""
        return PREFIX + pack([9, self.context, self.sync, _SUMMARY.pack(*self.sums)])


@dataclass(slots=True)
class Digests:
    """The answer to a summary: my digests in the groups that differ; empty partitions are left out.

    Attributes:
        context: Name of the application.
        sync: Of the summary.
        sessions: How many I hold, the dead ones included.
        groups: The groups that differ.
        digests: Partition to digest.
    """

    context: str
    sync: int
    sessions: int
    groups: list[int]
    digests: dict[int, int]

    def encode(self) -> bytes:
        """The payload of a byte message."""
        packed = _packed(self.digests)
        return PREFIX + pack(
            [2, self.context, self.sync, self.sessions, bytes(self.groups), packed]
        )


@dataclass(slots=True)
class Want:
    """Send me the sessions of these partitions that are not among those that I list.

    Attributes:
        context: Name of the application.
        sync: Returned with the records, and unique among the sender's.
        offers: Also tell me which of the listed ones you lack.
        have: Partition to the digests of its sessions here.
    """

    context: str
    sync: int
    offers: bool
    have: dict[int, list[int]]

    def encode(self) -> bytes:
        """The payload of a byte message."""
        packed = b"".join(
            _LISTED.pack(p, len(digests)) + struct.pack(f">{len(digests)}Q", *digests)
            for p, digests in self.have.items()
        )
        return PREFIX + pack([10, self.context, self.sync, self.offers, packed])


@dataclass(slots=True)
class Lack:
    """Of the sessions that you listed I do not have those with these digests."""

    context: str
    sync: int
    digests: list[int]

    def encode(self) -> bytes:
        """The payload of a byte message."""
        packed = struct.pack(f">{len(self.digests)}Q", *self.digests)
        return PREFIX + pack([11, self.context, self.sync, packed])


@dataclass(slots=True)
class Records:
    """Whole sessions: wanted (``sync``), or what the receiver is known to lack (0).

    Attributes:
        context: The application.
        sync: Of the request.
        pairs: The sessions.
        done: These are the last ones.
        is_lossy: Some before it may not have arrived: ask again.
    """

    context: str
    sync: int
    pairs: Pairs
    done: bool
    is_lossy: bool = False

    def encode(self) -> bytes:
        """The payload of a byte message."""
        pairs = _flat(self.pairs)
        return PREFIX + pack([3, self.context, self.sync, pairs, self.done, self.is_lossy])


@dataclass(slots=True)
class ExpireAsk:
    """These sessions look idle to me, last used at these versions: did you see a later use?"""

    context: str
    ask: int
    keys: list[tuple[str, int]]

    def encode(self) -> bytes:
        """The payload of a byte message."""
        flat = [item for pair in self.keys for item in pair]
        return PREFIX + pack([4, self.context, self.ask, flat])


@dataclass(slots=True)
class ExpireAnswer:
    """The sessions among those asked for that were used later, with records without entries."""

    context: str
    ask: int
    objections: Pairs

    def encode(self) -> bytes:
        """The payload of a byte message."""
        return PREFIX + pack([5, self.context, self.ask, _flat(self.objections)])


@dataclass(slots=True)
class Draining:
    """I am about to leave: do not wait for me, and do not count me as a copy."""

    def encode(self) -> bytes:
        """The payload of a byte message."""
        return PREFIX + pack([6])


@dataclass(slots=True)
class Confirm:
    """Before I leave: which of these partitions are not equal at yours?"""

    context: str
    sync: int
    digests: dict[int, int]

    def encode(self) -> bytes:
        """The payload of a byte message."""
        return PREFIX + pack([7, self.context, self.sync, _packed(self.digests)])


@dataclass(slots=True)
class Receipt:
    """The partitions that differ here; of all others that were asked for I have what you have."""

    context: str
    sync: int
    differing: list[int]

    def encode(self) -> bytes:
        """The payload of a byte message."""
        packed = b"".join(map(_PARTITION.pack, self.differing))
        return PREFIX + pack([8, self.context, self.sync, packed])


@dataclass(slots=True)
class Fetch:
    """A request asks for this session, which is not here, or not with what its client has written.

    Attributes:
        context: Name of the application.
        ask: Returned with the answer.
        session_id: Any of the session's ids.
        hlc: The write that the answer must have, 0: any state will do.
        actor: Who made that write.
    """

    context: str
    ask: int
    session_id: str
    hlc: int
    actor: int

    def encode(self) -> bytes:
        """The payload of a byte message."""
        return PREFIX + pack([12, self.context, self.ask, self.session_id, self.hlc, self.actor])


@dataclass(slots=True)
class Fetched:
    """The session that was asked for, if it is here.

    Attributes:
        context: Name of the application.
        ask: Of the question.
        pairs: The session, or nothing.
        is_sure: It has the write that was asked for.
    """

    context: str
    ask: int
    pairs: Pairs
    is_sure: bool

    def encode(self) -> bytes:
        """The payload of a byte message."""
        return PREFIX + pack([13, self.context, self.ask, _flat(self.pairs), self.is_sure])


class LockVerb(enum.IntEnum):
    """What is said of a lock: see :mod:`tribes.manager.locks`."""

    ASK = 0
    CLAIM = 1
    GRANT = 2
    END = 3


@dataclass(slots=True)
class Lock:
    """A session's lock is wanted, claimed after a change of members, granted, or not wanted.

    Attributes:
        context: Name of the application.
        verb: One of `LockVerb`; others are of a later release.
        ask: Number of the request in the process that wants it.
        turn: How often that has asked; a grant returns the one that it answers.
        key: The session.
    """

    context: str
    verb: int
    ask: int
    turn: int
    key: str

    def encode(self) -> bytes:
        """The payload of a byte message."""
        return PREFIX + pack([32, self.context, int(self.verb), self.ask, self.turn, self.key])


PlacedMessage = Places | Stale | Seek | Sought | Lost

ManagerMessage = (
    Hello
    | Deltas
    | Digests
    | Records
    | ExpireAsk
    | ExpireAnswer
    | Draining
    | Confirm
    | Receipt
    | Summary
    | Want
    | Lack
    | Fetch
    | Fetched
    | Lock
    | PlacedMessage
)


def is_manager_message(payload: bytes) -> bool:
    """Whether a byte message is meant for session managers."""
    return payload.startswith(MAGIC)


def decode_message(payload: bytes) -> ManagerMessage | None:
    """Read a manager's message; None if it is of a kind that only a later release knows.

    Raises:
        RemoteProtocolError: It is malformed, or of a version that is not spoken here.
    """
    if not payload.startswith(PREFIX):
        raise RemoteProtocolError(
            f"manager message of version {payload[len(MAGIC) : len(PREFIX)].hex() or 'none'}, "
            f"spoken here: {VERSION}"
        )
    fields = unpack(payload[len(PREFIX) :])
    if not isinstance(fields, list) or not fields or type(fields[0]) is not int:
        raise RemoteProtocolError("a manager message is an array that begins with its kind")
    reader, count = _READERS.get(fields[0], (None, 0))
    if reader is None:
        return None
    try:
        message: ManagerMessage = reader(*fields[1 : count + 1])
    except (TypeError, ValueError) as error:
        # Which reader it was, and which field, says the message of the error itself.
        raise RemoteProtocolError(f"malformed manager message: {error}") from error
    return message


def _flat(pairs: Pairs) -> list[str | bytes]:
    return [item for pair in pairs for item in pair]


def _packed(digests: dict[int, int]) -> bytes:
    return b"".join(_DIGEST.pack(p, d) for p, d in digests.items())


def _unpacked(packed: Any) -> dict[int, int]:
    if type(packed) is not bytes or len(packed) % _DIGEST.size:
        raise ValueError("expected digests of ten bytes each")
    return {as_int(p, 0, PARTITIONS - 1): digest for p, digest in _DIGEST.iter_unpack(packed)}


def _pairs(value: Any) -> Pairs:
    if not isinstance(value, list) or len(value) % 2:
        raise ValueError("expected keys and records in turn")
    keys, records = value[::2], value[1::2]
    for key in keys:
        as_text(key, KEY_MAX_CHARS)
    for record in records:
        if type(record) is not bytes:
            raise ValueError("expected a record as bytes")
    return list(zip(keys, records, strict=True))


def _hello(name: Any, contexts: Any, is_first: Any) -> Hello:
    if not isinstance(contexts, list) or len(contexts) > CONTEXTS_MAX:
        raise ValueError(f"expected at most {CONTEXTS_MAX} contexts")
    names = [as_text(context, NAME_MAX_CHARS) for context in contexts]
    return Hello(as_text(name, NAME_MAX_CHARS), names, as_bool(is_first))


def _deltas(context: Any, pairs: Any, epoch: Any = 0) -> Deltas:
    return Deltas(as_text(context, NAME_MAX_CHARS), _pairs(pairs), as_int(epoch, 0, 2**32 - 1))


def _bytes(value: Any, unit: int) -> bytes:
    if type(value) is not bytes or len(value) % unit:
        raise ValueError(f"expected bytes, a multiple of {unit}")
    return value


def _u64s(packed: bytes) -> list[int]:
    return [number for (number,) in _U64.iter_unpack(packed)]


def _sync(value: Any) -> int:
    return as_int(value, 0, 2**63)


def _summary(context: Any, sync: Any, packed: Any) -> Summary:
    if len(_bytes(packed, 1)) != _SUMMARY.size:
        raise ValueError(f"expected {GROUPS} digests of eight bytes")
    return Summary(as_text(context, NAME_MAX_CHARS), _sync(sync), list(_SUMMARY.unpack(packed)))


def _digests(context: Any, sync: Any, sessions: Any, groups: Any, packed: Any) -> Digests:
    digests = _unpacked(packed)
    listed = [as_int(group, 0, GROUPS - 1) for group in _bytes(groups, 1)]
    if len(listed) > GROUPS:
        raise ValueError(f"expected at most {GROUPS} groups")
    return Digests(
        as_text(context, NAME_MAX_CHARS), _sync(sync), as_int(sessions, 0, 2**63), listed, digests
    )


def _want(context: Any, sync: Any, offers: Any, packed: Any) -> Want:
    have: dict[int, list[int]] = {}
    data, at = _bytes(packed, 1), 0
    while at < len(data):
        if len(data) - at < _LISTED.size:
            raise ValueError("expected a partition and a count")
        partition, count = _LISTED.unpack_from(data, at)
        at += _LISTED.size
        if count * _U64.size > len(data) - at:
            raise ValueError("expected more digests")
        have[as_int(partition, 0, PARTITIONS - 1)] = _u64s(data[at : at + count * _U64.size])
        at += count * _U64.size
    return Want(as_text(context, NAME_MAX_CHARS), _sync(sync), as_bool(offers), have)


def _lack(context: Any, sync: Any, packed: Any) -> Lack:
    return Lack(as_text(context, NAME_MAX_CHARS), _sync(sync), _u64s(_bytes(packed, _U64.size)))


def _fetch(context: Any, ask: Any, session_id: Any, hlc: Any, actor: Any) -> Fetch:
    return Fetch(
        as_text(context, NAME_MAX_CHARS),
        _sync(ask),
        as_text(session_id, KEY_MAX_CHARS),
        as_int(hlc, 0, 2**64 - 1),
        as_int(actor, 0, 2**32 - 1),
    )


def _fetched(context: Any, ask: Any, pairs: Any, is_sure: Any) -> Fetched:
    found = _pairs(pairs)
    if len(found) > 1:
        raise ValueError("expected one session at most")
    return Fetched(as_text(context, NAME_MAX_CHARS), _sync(ask), found, as_bool(is_sure))


def _records(context: Any, sync: Any, pairs: Any, done: Any, is_lossy: Any) -> Records:
    name, number = as_text(context, NAME_MAX_CHARS), as_int(sync, 0, 2**63)
    return Records(name, number, _pairs(pairs), as_bool(done), as_bool(is_lossy))


def _expire_ask(context: Any, ask: Any, keys: Any) -> ExpireAsk:
    if not isinstance(keys, list) or len(keys) % 2:
        raise ValueError("expected keys and versions in turn")
    names = [as_text(key, KEY_MAX_CHARS) for key in keys[::2]]
    versions = [as_int(version, 0, 2**64 - 1) for version in keys[1::2]]
    return ExpireAsk(
        as_text(context, NAME_MAX_CHARS),
        as_int(ask, 0, 2**63),
        list(zip(names, versions, strict=True)),
    )


def _expire_answer(context: Any, ask: Any, objections: Any) -> ExpireAnswer:
    return ExpireAnswer(as_text(context, NAME_MAX_CHARS), as_int(ask, 0, 2**63), _pairs(objections))


def _confirm(context: Any, sync: Any, packed: Any) -> Confirm:
    return Confirm(as_text(context, NAME_MAX_CHARS), as_int(sync, 0, 2**63), _unpacked(packed))


def _receipt(context: Any, sync: Any, packed: Any) -> Receipt:
    if type(packed) is not bytes or len(packed) % _PARTITION.size:
        raise ValueError("expected partitions of two bytes each")
    differing = [as_int(p, 0, PARTITIONS - 1) for (p,) in _PARTITION.iter_unpack(packed)]
    return Receipt(as_text(context, NAME_MAX_CHARS), as_int(sync, 0, 2**63), differing)


def _lock(context: Any, verb: Any, ask: Any, turn: Any, key: Any) -> Lock:
    return Lock(
        as_text(context, NAME_MAX_CHARS),
        as_int(verb, 0, 255),
        as_int(ask, 0, 2**63),
        as_int(turn, 0, 2**63),
        as_text(key, KEY_MAX_CHARS),
    )


_READERS: dict[int, tuple[Any, int]] = {
    0: (_hello, 3),
    1: (_deltas, 3),
    2: (_digests, 5),
    3: (_records, 5),
    4: (_expire_ask, 3),
    5: (_expire_answer, 3),
    6: (Draining, 0),
    7: (_confirm, 3),
    8: (_receipt, 3),
    9: (_summary, 3),
    10: (_want, 4),
    11: (_lack, 3),
    12: (_fetch, 5),
    13: (_fetched, 4),
    32: (_lock, 5),
    **PLACED_READERS,
}
"""By kind: what makes a message of its fields, and how many it has."""
