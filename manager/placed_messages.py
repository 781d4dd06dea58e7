"""What members say to each other about parts that not all of them hold.

::

    PLACES   [20, context, number, weight, zone, asks, 64 times (u8 state, u32 epoch, u32 entries)]
    STALE    [21, context, part, epoch, [unique id …], [key …]]
    SEEK     [22, context, ask, id, key, u64 digest]
    SOUGHT   [23, context, ask, answer, key, record]
    LOST     [24, context, [[key, record, record] …]]

They go to the context itself. What is said about one part, in the messages of
:mod:`tribes.manager.messages`, goes to a context of the part, see `part_context`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NamedTuple

from tribes.errors import RemoteProtocolError
from tribes.wire.codec import pack

from .magic import PREFIX
from .message_fields import as_int, as_text
from .placement import PARTS, WEIGHT_MAX

__all__ = [
    "HOLDS",
    "PLACED_READERS",
    "Answer",
    "Loss",
    "Lost",
    "PlaceState",
    "Places",
    "Seek",
    "Sought",
    "Stale",
    "part_context",
    "split_context",
]

ZONE_MAX_CHARS: Final = 64
KEYS_MAX: Final = 1024
"""Keys that one STALE names: more than a message of changes has sessions."""
HOLDERS_MAX: Final = 64
LOSSES_MAX: Final = 1024
"""Writes that one LOST names."""

_PLACE = struct.Struct(">BII")
_MARK: Final = "\x1f"
"""Between a context and the number of a part: nothing that anybody types."""
_U32_MAX: Final = 2**32 - 1
EPOCH_MAX: Final = _U32_MAX
"""No owner comes to it in a lifetime; who hears of it all the same stays there."""


def part_context(context: str, part: int) -> str:
    """Return the context of one part."""
    return f"{context}{_MARK}{part}"


def split_context(context: str) -> tuple[str, int] | None:
    """Return what `part_context` was told; None for any other text."""
    base, mark, number = context.rpartition(_MARK)
    if not mark or not number.isdecimal() or len(number) > 2 or int(number) >= PARTS:
        return None
    return base, int(number)


class PlaceState(IntEnum):
    """What a part is on one member.

    ``NONE → PULL → HOLD → KEEP → NONE``: who should hold a part is told of every change from PULL
    on, and has all of it from HOLD on. Who should hold it no longer keeps it until all have it that
    should.
    """

    NONE = 0
    PULL = 1
    HOLD = 2
    KEEP = 3


HOLDS: Final = (PlaceState.HOLD, PlaceState.KEEP)
"""Who is one of these has all of a part."""


@dataclass(slots=True)
class Places:
    """What I hold.

    Attributes:
        context: Of what.
        number: Ascends with each; what was overtaken by a later one is void.
        weight: How much I want; 0: nothing more, I am about to go.
        zone: Where I am.
        asks: Tell me the same.
        states: By part.
        epochs: By part: the one in which I own it; 0: I don't.
        entries: By part that I own: how many there are.
    """

    context: str
    number: int
    weight: int
    zone: str
    asks: bool
    states: list[PlaceState]
    epochs: list[int]
    entries: list[int]

    def encode(self) -> bytes:
        """The payload of a byte message."""
        rows = zip(self.states, self.epochs, self.entries, strict=True)
        packed = b"".join(_PLACE.pack(s, e, min(n, _U32_MAX)) for s, e, n in rows)
        return PREFIX + pack(
            [20, self.context, self.number, self.weight, self.zone, self.asks, packed]
        )


@dataclass(slots=True)
class Stale:
    """What you sent me about these keys is for others, too: somebody has owned the part since.

    Attributes:
        context: Of what.
        part: Which part.
        epoch: The latest that I know.
        holders: Unique ids of who holds it now.
        keys: What your message was about.
    """

    context: str
    part: int
    epoch: int
    holders: list[bytes]
    keys: list[str]

    def encode(self) -> bytes:
        """The payload of a byte message."""
        return PREFIX + pack([21, self.context, self.part, self.epoch, self.holders, self.keys])


@dataclass(slots=True)
class Seek:
    """Have you this session? I have a copy with this digest, or none (0)."""

    context: str
    ask: int
    session_id: str
    key: str
    digest: int

    def encode(self) -> bytes:
        """The payload of a byte message."""
        return PREFIX + pack([22, self.context, self.ask, self.session_id, self.key, self.digest])


class Answer(IntEnum):
    """What a member says that was asked for a session."""

    NOT_HERE = 0
    """I don't hold its part, or not all of it yet."""
    NONE = 1
    """There is none."""
    FOUND = 2


@dataclass(slots=True)
class Sought:
    """The answer: the record, bare where the asker has the same."""

    context: str
    ask: int
    answer: Answer
    key: str = ""
    record: bytes = b""

    def encode(self) -> bytes:
        """The payload of a byte message."""
        return PREFIX + pack([23, self.context, self.ask, self.answer, self.key, self.record])


class Loss(NamedTuple):
    """A write that another one replaced unseen.

    Attributes:
        key: Of the session.
        lost: A record with that write only.
        won: A record with the one that took its place.
    """

    key: str
    lost: bytes
    won: bytes


@dataclass(slots=True)
class Lost:
    """Is one of these writes yours? It was replaced by one whose writer had not seen it."""

    context: str
    losses: list[Loss]

    def encode(self) -> bytes:
        """The payload of a byte message."""
        return PREFIX + pack([24, self.context, [list(each) for each in self.losses]])


def _places(context: Any, number: Any, weight: Any, zone: Any, asks: Any, packed: Any) -> Places:
    if type(packed) is not bytes or len(packed) != PARTS * _PLACE.size or type(asks) is not bool:
        raise ValueError(f"expected {PARTS} places")
    rows = list(_PLACE.iter_unpack(packed))
    return Places(
        as_text(context),
        as_int(number, 0, 2**63),
        as_int(weight, 0, WEIGHT_MAX),
        as_text(zone, ZONE_MAX_CHARS),
        asks,
        [PlaceState(state) for state, _, _ in rows],
        [epoch for _, epoch, _ in rows],
        [entries for _, _, entries in rows],
    )


def _stale(context: Any, part: Any, epoch: Any, holders: Any, keys: Any) -> Stale:
    if not isinstance(holders, list) or len(holders) > HOLDERS_MAX:
        raise ValueError(f"expected at most {HOLDERS_MAX} holders")
    if not isinstance(keys, list) or len(keys) > KEYS_MAX:
        raise ValueError(f"expected at most {KEYS_MAX} keys")
    if any(type(each) is not bytes or len(each) != 16 for each in holders):
        raise ValueError("expected unique ids of sixteen bytes")
    return Stale(
        as_text(context),
        as_int(part, 0, PARTS - 1),
        as_int(epoch, 0, EPOCH_MAX),
        holders,
        [as_text(key) for key in keys],
    )


def _seek(context: Any, ask: Any, session_id: Any, key: Any, digest: Any) -> Seek:
    return Seek(
        as_text(context),
        as_int(ask, 0, 2**63),
        as_text(session_id),
        as_text(key),
        as_int(digest, 0, 2**64 - 1),
    )


def _sought(context: Any, ask: Any, answer: Any, key: Any, record: Any) -> Sought:
    if type(record) is not bytes:
        raise ValueError("expected a record as bytes")
    found = Sought(as_text(context), as_int(ask, 0, 2**63), Answer(answer), as_text(key), record)
    if (found.answer == Answer.FOUND) != bool(record):
        raise RemoteProtocolError("a session that was found has a record, no other")
    return found


def _lost(context: Any, losses: Any) -> Lost:
    if not isinstance(losses, list) or len(losses) > LOSSES_MAX:
        raise ValueError(f"expected at most {LOSSES_MAX} writes")
    if any(not isinstance(each, list) or len(each) != 3 for each in losses):
        raise ValueError("expected key, write, and what replaced it")
    if any(type(data) is not bytes for _, *both in losses for data in both):
        raise ValueError("expected writes as bytes")
    return Lost(as_text(context), [Loss(as_text(key), lost, won) for key, lost, won in losses])


PLACED_READERS: Final[dict[int, tuple[Any, int]]] = {
    20: (_places, 6),
    21: (_stale, 5),
    22: (_seek, 5),
    23: (_sought, 5),
    24: (_lost, 2),
}
"""By kind: what makes a message of its fields, and how many it has."""
