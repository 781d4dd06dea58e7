"""The mark: a trailer after the member record that says "this is us", and proves it with a key.

Plain Tribes reads a member record by its length and ignores what follows (tribes-wire §2.2), so a
mark does no harm there. Layout, integers unsigned and big endian (DESIGN §4.2)::

    offset  size  field
         0     3  "TPY"
         3     1  version of the mark, 1 or above
         4     4  features: one bit each, given a meaning elsewhere
         8     8  incarnation: a random number per start of a member
        16     8  counter: begins at 1, one more with every marked record of this incarnation
        24     1  id of the key, 0 = none
        25    16  tag: HMAC-SHA256 cut to 16 bytes, all zero without a key

The tag covers a label, the whole record before the mark (also its alive time, command and payload)
and the mark's own 25 bytes before the tag. The label says where the mark stands, so that a mark
from one place proves nothing in another. The record's length is in its head and the mark's is
fixed, so no two inputs make the same bytes. Later versions may add fields after the tag; these 41
bytes stay as they are. What follows them is neither read nor covered.

A mark proves that a holder of the key made these bytes at some time. That it was just now is for
`tribes.security.replay` to find out.
"""

from __future__ import annotations

import enum
import hmac
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from tribes.errors import LocalProtocolError, RemoteProtocolError
from tribes.security.keys import TAG_BYTES
from tribes.wire.limits import DATAGRAM_MAX_BYTES
from tribes.wire.member import MEMBER_BEGIN, MEMBER_END

if TYPE_CHECKING:
    from tribes.security.keys import GroupKey, KeyRing

__all__ = [
    "IN_FIRST_FRAME",
    "IN_HEARTBEAT",
    "MARK_BYTES",
    "Mark",
    "Marker",
    "Verdict",
    "decode_mark",
    "encode_mark",
    "split",
    "verify",
]

IN_HEARTBEAT: Final = b"tribes v1 mark of a heartbeat\0"
"""Label of marks after the record of a heartbeat or farewell."""

IN_FIRST_FRAME: Final = b"tribes v1 mark of a first frame\0"
"""Label of marks in the first frame of a connection."""

_FIELDS: Final = struct.Struct(">3sBIQQB")
_MAGIC: Final = b"TPY"
_VERSION: Final = 1
_NO_KEY: Final = 0
_NO_TAG: Final = bytes(TAG_BYTES)

MARK_BYTES: Final = _FIELDS.size + TAG_BYTES

_BODY_LENGTH: Final = struct.Struct(">i")
_BODY_LENGTH_AT: Final = len(MEMBER_BEGIN)
_RECORD_OVERHEAD: Final = len(MEMBER_BEGIN) + _BODY_LENGTH.size + len(MEMBER_END)


@final
@dataclass(frozen=True, slots=True)
class Mark:
    """What a mark says; see the module for the fields. Nothing of it is true before `verify`."""

    features: int
    incarnation: int
    counter: int
    key_id: int = _NO_KEY
    tag: bytes = _NO_TAG
    version: int = _VERSION

    def fields(self) -> bytes:
        """Return the bytes before the tag.

        Raises:
            LocalProtocolError: A number does not fit its field.
        """
        try:
            return _FIELDS.pack(
                _MAGIC,
                self.version,
                self.features,
                self.incarnation,
                self.counter,
                self.key_id,
            )
        except struct.error as why:
            raise LocalProtocolError(f"a number of {self} does not fit its field: {why}") from why


class Verdict(enum.Enum):
    """What a mark is worth."""

    VALID = "valid"
    """A holder of one of our keys made record and mark."""

    UNSIGNED = "unsigned"
    """There is no mark, or one without a key."""

    UNKNOWN_KEY = "unknown key"
    """It is signed with a key that we don't have: another group's, or a rotation left us out."""

    FORGED = "forged"
    """It names a key of ours and its tag is wrong."""


def encode_mark(
    record: bytes,
    *,
    features: int,
    incarnation: int,
    counter: int,
    key: GroupKey | None,
    place: bytes = IN_HEARTBEAT,
) -> bytes:
    """Return the 41 bytes that go after ``record``.

    Args:
        record: All bytes that the tag shall cover.
        features: Bits, 32 of them.
        incarnation: The same for all marks between start and stop of a member, never again later.
        counter: Greater than that of every mark before.
        key: Signs; None makes a mark that proves nothing.
        place: Label of where the mark stands.

    Raises:
        LocalProtocolError: A number does not fit its field.
    """
    fields = Mark(features, incarnation, counter, _NO_KEY if key is None else key.id).fields()
    return fields + (_NO_TAG if key is None else key.heartbeat_tag(place + record + fields))


def decode_mark(data: bytes, offset: int = 0) -> Mark | None:
    """Return the mark at ``offset``, or None where none is: that is no error."""
    if len(data) - offset < MARK_BYTES or not data.startswith(_MAGIC, offset):
        return None
    _, version, features, incarnation, counter, key_id = _FIELDS.unpack_from(data, offset)
    if version == 0:
        return None
    tag = data[offset + _FIELDS.size : offset + MARK_BYTES]
    return Mark(features, incarnation, counter, key_id, tag, version)


def split(datagram: bytes) -> tuple[bytes, Mark | None]:
    """Cut a heartbeat into its record and its mark.

    Only the record's envelope is looked at, so that a forgery can be refused before it is parsed.

    Raises:
        RemoteProtocolError: The datagram does not begin with a whole member record.
    """
    if len(datagram) < _RECORD_OVERHEAD or not datagram.startswith(MEMBER_BEGIN):
        raise RemoteProtocolError(f"no member record in {len(datagram)} bytes")
    (body_size,) = _BODY_LENGTH.unpack_from(datagram, _BODY_LENGTH_AT)
    size = body_size + _RECORD_OVERHEAD
    if body_size < 0 or size > len(datagram):
        raise RemoteProtocolError(
            f"member record claims a body of {body_size} bytes in {len(datagram)}"
        )
    if not datagram.startswith(MEMBER_END, size - len(MEMBER_END)):
        raise RemoteProtocolError("member record does not end where its length says")
    return datagram[:size], decode_mark(datagram, size)


def verify(
    record: bytes, mark: Mark | None, keys: KeyRing, *, place: bytes = IN_HEARTBEAT
) -> Verdict:
    """Tell what the mark of ``record`` is worth; takes the same time for every wrong tag."""
    if mark is None or mark.key_id == _NO_KEY:
        return Verdict.UNSIGNED
    key = keys.get(mark.key_id)
    if key is None:
        return Verdict.UNKNOWN_KEY
    expected = key.heartbeat_tag(place + record + mark.fields())
    return Verdict.VALID if hmac.compare_digest(expected, mark.tag) else Verdict.FORGED


@final
class Marker:
    """Marks the records of one incarnation and counts them.

    Heartbeats, the farewell and first frames go through the same marker: a farewell counts like a
    heartbeat, or it could be recorded and sent again.

    Args:
        incarnation: A random number of 64 bits, new at every start. Not 0, which stands for
            members without a mark.
        features: What every mark says.
        keys: Signs with the current one of these; None makes marks that prove nothing. May be
            replaced at any time: so a key is rotated without a restart.
    """

    __slots__ = ("counter", "features", "incarnation", "keys")

    def __init__(self, incarnation: int, *, features: int = 0, keys: KeyRing | None = None) -> None:
        if not 0 < incarnation < 1 << 64:
            raise LocalProtocolError(f"an incarnation is 1 to 2^64 - 1, not {incarnation}")
        self.incarnation: Final = incarnation
        self.features = features
        self.keys = keys
        self.counter = 0
        """Of the last mark made."""

    def mark(self, record: bytes) -> bytes:
        """Return the datagram: ``record`` and its mark.

        Raises:
            LocalProtocolError: The two don't fit into a datagram.
        """
        if len(record) + MARK_BYTES > DATAGRAM_MAX_BYTES:
            raise LocalProtocolError(
                f"a member record that is marked has at most {DATAGRAM_MAX_BYTES - MARK_BYTES} "
                f"bytes, this one has {len(record)}: shorten the payload"
            )
        return record + self._next(record, IN_HEARTBEAT)

    def introduce(self, body: bytes) -> bytes:
        """Return the mark that goes behind ``body`` in the first frame of a connection."""
        return self._next(body, IN_FIRST_FRAME)

    def _next(self, covered: bytes, place: bytes) -> bytes:
        self.counter += 1
        return encode_mark(
            covered,
            features=self.features,
            incarnation=self.incarnation,
            counter=self.counter,
            key=None if self.keys is None else self.keys.current,
            place=place,
        )
