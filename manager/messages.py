"""What session managers say to each other: byte messages of one magic, a version and msgpack.

::

    payload = 00 54 50 59 | u8 version (1) | msgpack array [kind, …]

    HELLO          [0, name, [context …], is_first]
    DELTAS         [1, context, [key, record, key, record …], epoch]
    DIGESTS        [2, context, sync, first, last, mode, u16 partition + u64 digest …]
    RECORDS        [3, context, sync, [key, record …], done]
    EXPIRE_ASK     [4, context, ask, [key, access, key, access …]]
    EXPIRE_ANSWER  [5, context, ask, [key, record …]]
    DRAINING       [6]
    CONFIRM        [7, context, sync, u16 partition + u64 digest …]
    RECEIPT        [8, context, sync, u16 partition …]

Those about parts that not all members hold are in :mod:`tribes.manager.placed_messages`.
Records are in the wire form of :mod:`tribes.manager.record`. Every field of a received message is
checked here, so the code behind it sees only what the types say.

A later release may add fields at the end of a message, and kinds: this one does not look at either,
so both can be members of one group while its nodes are replaced one by one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from tribes.errors import RemoteProtocolError
from tribes.wire.codec import pack, unpack

from .magic import MAGIC, PREFIX, VERSION
from .placed_messages import PLACED_READERS, Places, Seek, Sought, Stale
from .session_ids import PARTITIONS

__all__ = [
    "MAGIC",
    "Confirm",
    "Deltas",
    "Digests",
    "Draining",
    "ExpireAnswer",
    "ExpireAsk",
    "Hello",
    "ManagerMessage",
    "Pairs",
    "PlacedMessage",
    "Receipt",
    "Records",
    "decode_message",
    "is_manager_message",
]

_DIGEST = struct.Struct(">HQ")
_PARTITION = struct.Struct(">H")

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
class Digests:
    """What I hold, as one number per partition: send me what differs.

    Attributes:
        context: Name of the application.
        sync: Returned with the answer; 0: answer only where something differs.
        first: First partition that is compared; those not listed are empty here.
        last: Last partition that is compared. Less than ``first``: only the listed ones are.
        offers: Also tell me your digests where ours differ: I have what you lack.
        digests: Partition to digest.
    """

    context: str
    sync: int
    first: int
    last: int
    offers: bool
    digests: dict[int, int]

    def encode(self) -> bytes:
        """The payload of a byte message."""
        packed = _packed(self.digests)
        return PREFIX + pack(
            [2, self.context, self.sync, self.first, self.last, self.offers, packed]
        )


@dataclass(slots=True)
class Records:
    """Whole sessions, as an answer to digests (``sync``) or to repair a lost delta (0)."""

    context: str
    sync: int
    pairs: Pairs
    done: bool

    def encode(self) -> bytes:
        """The payload of a byte message."""
        return PREFIX + pack([3, self.context, self.sync, _flat(self.pairs), self.done])


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


PlacedMessage = Places | Stale | Seek | Sought

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
    return {_int(p, 0, PARTITIONS - 1): digest for p, digest in _DIGEST.iter_unpack(packed)}


def _text(value: Any, limit: int) -> str:
    if not isinstance(value, str) or len(value) > limit:
        raise ValueError(f"expected text of at most {limit} characters")
    return value


def _int(value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"expected an integer from {low} to {high}")
    return value


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("expected true or false")
    return value


def _pairs(value: Any) -> Pairs:
    if not isinstance(value, list) or len(value) % 2:
        raise ValueError("expected keys and records in turn")
    keys, records = value[::2], value[1::2]
    for key in keys:
        _text(key, KEY_MAX_CHARS)
    for record in records:
        if type(record) is not bytes:
            raise ValueError("expected a record as bytes")
    return list(zip(keys, records, strict=True))


def _hello(name: Any, contexts: Any, is_first: Any) -> Hello:
    if not isinstance(contexts, list) or len(contexts) > CONTEXTS_MAX:
        raise ValueError(f"expected at most {CONTEXTS_MAX} contexts")
    names = [_text(context, NAME_MAX_CHARS) for context in contexts]
    return Hello(_text(name, NAME_MAX_CHARS), names, _bool(is_first))


def _deltas(context: Any, pairs: Any, epoch: Any = 0) -> Deltas:
    return Deltas(_text(context, NAME_MAX_CHARS), _pairs(pairs), _int(epoch, 0, 2**32 - 1))


def _digests(context: Any, sync: Any, first: Any, last: Any, offers: Any, packed: Any) -> Digests:
    digests = _unpacked(packed)
    return Digests(
        _text(context, NAME_MAX_CHARS),
        _int(sync, 0, 2**63),
        _int(first, 0, PARTITIONS),
        _int(last, -1, PARTITIONS - 1),
        _bool(offers),
        digests,
    )


def _records(context: Any, sync: Any, pairs: Any, done: Any) -> Records:
    return Records(_text(context, NAME_MAX_CHARS), _int(sync, 0, 2**63), _pairs(pairs), _bool(done))


def _expire_ask(context: Any, ask: Any, keys: Any) -> ExpireAsk:
    if not isinstance(keys, list) or len(keys) % 2:
        raise ValueError("expected keys and versions in turn")
    names = [_text(key, KEY_MAX_CHARS) for key in keys[::2]]
    versions = [_int(version, 0, 2**64 - 1) for version in keys[1::2]]
    return ExpireAsk(
        _text(context, NAME_MAX_CHARS),
        _int(ask, 0, 2**63),
        list(zip(names, versions, strict=True)),
    )


def _expire_answer(context: Any, ask: Any, objections: Any) -> ExpireAnswer:
    return ExpireAnswer(_text(context, NAME_MAX_CHARS), _int(ask, 0, 2**63), _pairs(objections))


def _confirm(context: Any, sync: Any, packed: Any) -> Confirm:
    return Confirm(_text(context, NAME_MAX_CHARS), _int(sync, 0, 2**63), _unpacked(packed))


def _receipt(context: Any, sync: Any, packed: Any) -> Receipt:
    if type(packed) is not bytes or len(packed) % _PARTITION.size:
        raise ValueError("expected partitions of two bytes each")
    differing = [_int(p, 0, PARTITIONS - 1) for (p,) in _PARTITION.iter_unpack(packed)]
    return Receipt(_text(context, NAME_MAX_CHARS), _int(sync, 0, 2**63), differing)


_READERS: dict[int, tuple[Any, int]] = {
    0: (_hello, 3),
    1: (_deltas, 3),
    2: (_digests, 6),
    3: (_records, 4),
    4: (_expire_ask, 3),
    5: (_expire_answer, 3),
    6: (Draining, 0),
    7: (_confirm, 3),
    8: (_receipt, 3),
    **PLACED_READERS,
}
"""By kind: what makes a message of its fields, and how many it has."""
