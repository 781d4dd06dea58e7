"""The member record: how a member describes itself on the wire (tribes-wire §2).

It is the whole heartbeat datagram, and the source address inside every frame::

    offset  size  field
         0    10  begin marker
        10     4  body length: from the alive field up to, not including, the end marker
        14     8  alive time, ms since the member's membership service started
        22     4  TCP port
        26     4  secure port, -1 = none
        30     4  UDP port, -1 = none
        34     1  host length, 0..127
        35     n  host octets, network order
        ..     .  command, domain: each an i32 length and that many bytes
        ..    16  unique id
        ..     .  payload: an i32 length and that many bytes
        ..    10  end marker

All integers are signed and big endian. Neither the alive time nor the record as a whole identifies
a member: peers send old copies of their records. Host, port and unique id do.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, final

from tribes.errors import LocalProtocolError, RemoteProtocolError
from tribes.ids import UNIQUE_ID_BYTES
from tribes.wire.limits import HOST_MAX_BYTES, MEMBER_LABEL_MAX_BYTES, MEMBER_RECORD_MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "MEMBER_BEGIN",
    "MEMBER_END",
    "SHUTDOWN_COMMAND",
    "Member",
    "decode_member",
    "decode_member_with_length",
    "encode_member",
    "host_octets",
    "listing_order",
    "patch_alive",
]

MEMBER_BEGIN: Final = bytes.fromhex("5452494245532d420100")
MEMBER_END: Final = bytes.fromhex("5452494245532d450100")

SHUTDOWN_COMMAND: Final = b"BABY-ALEX"
"""The command of a member that leaves in order (tribes-wire §2.4). No other one has a meaning."""

_HEAD = struct.Struct(
    ">10siqiiib"
)  # begin, body length, alive, port, secure port, udp port, host length
_LENGTH = struct.Struct(">i")
_ALIVE = struct.Struct(">q")
_ALIVE_OFFSET: Final = 14
_ENVELOPE_BYTES: Final = 24  # begin marker, body length, end marker
_BODY_MIN_BYTES: Final = _HEAD.size - _ALIVE_OFFSET + 2 * _LENGTH.size + UNIQUE_ID_BYTES + 4


@final
@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One node of a group, as its record describes it.

    Two members are equal when host, port and unique id are (tribes-wire §2.3). Everything else may
    differ between two descriptions of the same member.

    Args:
        host: Address octets in network order: 4, 16, or none at all.
        port: TCP port of its receiver.
        unique_id: 16 bytes that name this incarnation; a restart makes new ones.
        alive: How long it has been up, in ms. Its own claim; negative after a clock step.
        secure_port: -1 = none. Nothing uses it.
        udp_port: Port of its UDP receiver, -1 = none.
        command: Normally empty; see `SHUTDOWN_COMMAND`.
        domain: The group within the group that it belongs to, or empty.
        payload: Bytes of the application.
    """

    host: bytes
    port: int
    unique_id: bytes
    alive: int = 0
    secure_port: int = -1
    udp_port: int = -1
    command: bytes = b""
    domain: bytes = b""
    payload: bytes = b""
    # Members are dictionary keys on the path of every message, so what they are compared by is made
    # once.
    key: bytes = field(init=False, repr=False)
    """What makes two members equal, as one value: a dictionary that is looked into for every
    heartbeat finds bytes several times faster than members."""

    def __post_init__(self) -> None:
        key = b"%d %d " % (self.port, len(self.host)) + self.host + self.unique_id
        object.__setattr__(self, "key", key)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Member):
            return NotImplemented
        return self.key == other.key

    @property
    def name(self) -> str:
        """How Tomcat shows a member that it decoded: ``tcp://{127, 0, 0, 1}:4000``."""
        return f"tcp://{{{', '.join(map(str, self.host))}}}:{self.port}"

    @property
    def host_text(self) -> str:
        """The host as an IP literal; empty when the octets are not an address."""
        match len(self.host):
            case 4:
                return ".".join(map(str, self.host))
            case 16:
                return str(ipaddress.IPv6Address(self.host))
            case _:
                return ""

    @property
    def address(self) -> tuple[str, int]:
        """Where its receiver listens: IP literal and TCP port."""
        return self.host_text, self.port

    @property
    def is_shutdown(self) -> bool:
        """Whether this record announces that the member leaves."""
        return self.command == SHUTDOWN_COMMAND

    @property
    def sort_key(self) -> tuple[int, bytes, int, bytes]:
        """Absolute order: the same on every member, whatever each has seen (tribes-wire §2.3)."""
        return len(self.host), self.host, self.port, self.unique_id

    @property
    def label(self) -> str:
        """What to call the member in logs: its payload where that is short text, else its name."""
        if 0 < len(self.payload) <= MEMBER_LABEL_MAX_BYTES:
            try:
                text = self.payload.decode()
            except UnicodeDecodeError:
                return self.name
            if text.isprintable() and not text.isspace():
                return text
        return self.name

    def replace(self, **changes: Any) -> Member:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def listing_order(members: Iterable[Member]) -> list[Member]:
    """Sort as a membership lists its members: longest alive first, ties in the order given."""
    return sorted(members, key=lambda member: member.alive, reverse=True)


def host_octets(text: str) -> bytes:
    """Return the octets of an IP literal, as a member record holds them.

    An IPv4-mapped IPv6 literal gives 4 octets, and a scope id is lost, as in Tomcat. Names are not
    resolved here: that is I/O.

    Raises:
        ValueError: ``text`` is not an IP literal.
    """
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.packed
    return address.packed


def encode_member(member: Member) -> bytes:
    """Return the member's record.

    Raises:
        LocalProtocolError: A field does not fit its place, or the record is above
            `MEMBER_RECORD_MAX_BYTES`.
    """
    host, command, domain, payload = member.host, member.command, member.domain, member.payload
    if len(member.unique_id) != UNIQUE_ID_BYTES:
        raise LocalProtocolError(
            f"a member's unique id has {UNIQUE_ID_BYTES} bytes, got {len(member.unique_id)}"
        )
    if len(host) > HOST_MAX_BYTES:
        raise LocalProtocolError(f"a host has at most {HOST_MAX_BYTES} octets, got {len(host)}")
    body_size = _BODY_MIN_BYTES + len(host) + len(command) + len(domain) + len(payload)
    if body_size + _ENVELOPE_BYTES > MEMBER_RECORD_MAX_BYTES:
        raise LocalProtocolError(
            f"a member record has at most {MEMBER_RECORD_MAX_BYTES} bytes, this one would have "
            f"{body_size + _ENVELOPE_BYTES}: shorten the payload"
        )
    try:
        head = _HEAD.pack(
            MEMBER_BEGIN,
            body_size,
            member.alive,
            member.port,
            member.secure_port,
            member.udp_port,
            len(host),
        )
    except struct.error as why:
        raise LocalProtocolError(f"a number of {member} does not fit its field: {why}") from why
    parts = (
        head,
        host,
        _LENGTH.pack(len(command)),
        command,
        _LENGTH.pack(len(domain)),
        domain,
        member.unique_id,
        _LENGTH.pack(len(payload)),
        payload,
        MEMBER_END,
    )
    return b"".join(parts)


def decode_member(data: bytes, offset: int = 0, end: int | None = None) -> Member:
    """Return the member whose record starts at ``offset``.

    Bytes after the record, and slack in its body after the payload, are ignored (tribes-wire §2.2).

    Args:
        data: Bytes that hold the record.
        offset: Where the record starts.
        end: Where it must have ended; the end of ``data`` by default.

    Raises:
        RemoteProtocolError: There is no well-formed record at ``offset``.
        LocalProtocolError: ``offset`` and ``end`` are not positions within ``data``.
    """
    member, _ = decode_member_with_length(data, offset, end)
    return member


def decode_member_with_length(
    data: bytes, offset: int = 0, end: int | None = None
) -> tuple[Member, int]:
    """Return a member and how many bytes its record took: what follows may be a trailer.

    Arguments and errors are those of `decode_member`.
    """
    if end is None:
        end = len(data)
    if not 0 <= offset <= end <= len(data):
        raise LocalProtocolError(f"no range {offset}..{end} in {len(data)} bytes")
    if end - offset < _BODY_MIN_BYTES + _ENVELOPE_BYTES:
        raise RemoteProtocolError(f"member record cut short: {end - offset} bytes")
    begin, body_size, alive, port, secure_port, udp_port, host_size = _HEAD.unpack_from(
        data, offset
    )
    if begin != MEMBER_BEGIN:
        raise RemoteProtocolError(f"no member record: it begins with {begin.hex()}")
    record_size = body_size + _ENVELOPE_BYTES
    if body_size < _BODY_MIN_BYTES or record_size > min(end - offset, MEMBER_RECORD_MAX_BYTES):
        raise RemoteProtocolError(
            f"member record claims a body of {body_size} bytes in {end - offset}"
        )
    body_end = offset + record_size - len(MEMBER_END)
    if not data.startswith(MEMBER_END, body_end):
        raise RemoteProtocolError("member record does not end where its length says")
    if host_size < 0:
        raise RemoteProtocolError(f"member record claims {host_size} host octets")

    host, at = _take(data, offset + _HEAD.size, host_size, body_end)
    command, at = _take_counted(data, at, body_end)
    domain, at = _take_counted(data, at, body_end)
    unique_id, at = _take(data, at, UNIQUE_ID_BYTES, body_end)
    payload, _ = _take_counted(data, at, body_end)
    member = Member(host, port, unique_id, alive, secure_port, udp_port, command, domain, payload)
    return member, record_size


def patch_alive(record: bytes, alive: int) -> bytes:
    """Return ``record`` with another alive time: a heartbeat changes nothing else.

    Args:
        record: What `encode_member` returned.
        alive: ms since the membership service started.

    Raises:
        LocalProtocolError: ``record`` is not a member record, or ``alive`` needs over 64 bits.
    """
    if not record.startswith(MEMBER_BEGIN) or len(record) < _BODY_MIN_BYTES + _ENVELOPE_BYTES:
        raise LocalProtocolError("only a whole member record can get another alive time")
    try:
        packed = _ALIVE.pack(alive)
    except struct.error as why:
        raise LocalProtocolError(f"alive time {alive} does not fit its field") from why
    return record[:_ALIVE_OFFSET] + packed + record[_ALIVE_OFFSET + _ALIVE.size :]


def _take(data: bytes, at: int, size: int, end: int) -> tuple[bytes, int]:
    """Return ``size`` bytes at ``at`` and the position after them, which may not exceed ``end``."""
    after = at + size
    if size < 0 or after > end:
        raise RemoteProtocolError(f"member record claims {size} bytes where {end - at} are left")
    return data[at:after], after


def _take_counted(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    """Return the bytes of an i32 length and its bytes at ``at``, and the position after them."""
    start = at + _LENGTH.size
    if start > end:
        raise RemoteProtocolError("member record ends where a length should be")
    (size,) = _LENGTH.unpack_from(data, at)
    return _take(data, start, size, end)
