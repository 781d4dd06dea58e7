"""What a member tells another between the frames of an own link (DESIGN §4.3).

Control frames from the side that opened the link, with the feature ``FEATURE_NEWS`` only; a peer
without it is told nothing. They have no position and no acknowledgement: what is lost is told again
with the next link, or by the next round::

    10 PEERS   u16 count | for each: u8 length and host octets | u16 port
    11 LEAVE
    12 RECORD  the sender's member record

PEERS are addresses to try and nothing more: who is there is asked there. LEAVE and RECORD speak for
the member that opened the link, and for nobody else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from tribes.errors import RemoteProtocolError
from tribes.links.own_wire import CONTROL_MARK, Control
from tribes.wire.limits import MEMBER_RECORD_MAX_BYTES
from tribes.wire.member import decode_member, host_octets

if TYPE_CHECKING:
    from tribes.wire.member import Member

__all__ = [
    "LEAVE_BODY",
    "NEWS",
    "NEWS_PER_READ_MAX",
    "PEERS_MAX",
    "decode_peers",
    "decode_record",
    "encode_peers",
    "encode_record",
]

PEERS_MAX: Final = 256
"""Addresses in one frame: at most 4.9 KB."""

NEWS_PER_READ_MAX: Final = 16
"""News in one piece of a stream; a sender has at most a few to tell in a second."""

NEWS: Final = frozenset((Control.PEERS, Control.LEAVE, Control.RECORD))

_COUNT: Final = struct.Struct(">H")
_HEAD: Final = len(CONTROL_MARK) + 1


def _body(kind: Control, content: bytes = b"") -> bytes:
    return CONTROL_MARK + bytes((kind,)) + content


LEAVE_BODY: Final = _body(Control.LEAVE)
"""The sender leaves in good order."""


def encode_peers(addresses: Iterable[tuple[str, int]]) -> bytes:
    """Return the body that tells addresses (IP literal and port), `PEERS_MAX` at most."""
    parts = []
    for host, port in addresses:
        octets = host_octets(host)
        parts.append(bytes((len(octets),)) + octets + _COUNT.pack(port))
    assert len(parts) <= PEERS_MAX
    return _body(Control.PEERS, _COUNT.pack(len(parts)) + b"".join(parts))


def decode_peers(body: bytes) -> list[tuple[bytes, int]]:
    """Return the addresses, as octets and port.

    Raises:
        RemoteProtocolError: They are malformed, or more than `PEERS_MAX`.
    """
    at = _HEAD + _COUNT.size
    if len(body) < at:
        raise RemoteProtocolError("peers without a count")
    (count,) = _COUNT.unpack_from(body, _HEAD)
    if count > PEERS_MAX:
        raise RemoteProtocolError(f"{count} peers at once, at most {PEERS_MAX} are taken")
    found = []
    for _ in range(count):
        end = at + 1 + (body[at] if at < len(body) else 0)
        if end + _COUNT.size > len(body):
            raise RemoteProtocolError("peers are cut short")
        octets = body[at + 1 : end]
        (port,) = _COUNT.unpack_from(body, end)
        if len(octets) not in (4, 16) or not port:
            raise RemoteProtocolError("a peer with an address where nobody can be")
        found.append((octets, port))
        at = end + _COUNT.size
    if at != len(body):
        raise RemoteProtocolError("something behind the peers")
    return found


def encode_record(record: bytes) -> bytes:
    """Return the body that tells the sender's own record."""
    return _body(Control.RECORD, record)


def decode_record(body: bytes) -> Member:
    """Return the record.

    Raises:
        RemoteProtocolError: It is none.
    """
    if len(body) > _HEAD + MEMBER_RECORD_MAX_BYTES:
        raise RemoteProtocolError(f"a member record of {len(body)} bytes")
    return decode_member(body, _HEAD)
