"""The immutable values beyond msgpack's: how each is written as a few bytes, exactly (DESIGN §2.6).

One row of `SCALARS` per type: its extension code, how it is encoded, how it is decoded.  The codes
are part of the stored format and never change their meaning.  All numbers are big-endian.

A time zone is one of::

    (empty)                            naive
    "z" key                            a ``zoneinfo.ZoneInfo``, by its IANA key
    "o" i64 offset | name              a fixed offset in microseconds; the name only if it has one

A zone of any other class (``dateutil``, ``pytz``) is stored as its offset at that moment: the point
in time is exact, the rules of the zone are not kept.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from struct import Struct
from typing import Any, Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

__all__ = ["SCALARS", "Scalar"]

_MICROSECOND: Final = timedelta(microseconds=1)
_DATE = Struct(">HBB")
_TIME = Struct(">BBBIB")
_DELTA = Struct(">iIi")
_OFFSET = Struct(">q")
_COMPLEX = Struct(">dd")


class Scalar(NamedTuple):
    """How values of one type, exactly that type, are stored."""

    code: int
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def _encode_int(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _decode_int(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def _encode_complex(value: complex) -> bytes:
    return _COMPLEX.pack(value.real, value.imag)


def _decode_complex(data: bytes) -> complex:
    return complex(*_COMPLEX.unpack(data))


def _encode_zone(zone: tzinfo | None, offset: timedelta | None) -> bytes:
    if zone is None:
        return b""
    if isinstance(zone, ZoneInfo) and zone.key is not None:
        return b"z" + zone.key.encode()
    if offset is None:
        raise TypeError(f"the time zone {zone!r} has no offset without a date")
    name = ""
    if type(zone) is timezone and zone.tzname(None) != timezone(offset).tzname(None):
        name = zone.tzname(None)
    return b"o" + _OFFSET.pack(offset // _MICROSECOND) + name.encode()


def _decode_zone(data: bytes) -> tzinfo | None:
    if not data:
        return None
    if data[0] == ord("z"):
        return ZoneInfo(data[1:].decode())
    if data[0] != ord("o"):
        raise ValueError("unknown kind of time zone")
    offset = timedelta(microseconds=_OFFSET.unpack_from(data, 1)[0])
    name = data[1 + _OFFSET.size :].decode()
    return timezone(offset, name) if name else timezone(offset)


def _encode_date(value: date) -> bytes:
    return _DATE.pack(value.year, value.month, value.day)


def _decode_date(data: bytes) -> date:
    return date(*_DATE.unpack(data))


def _encode_clock(value: datetime | time) -> bytes:
    return _TIME.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)


def _encode_datetime(value: datetime) -> bytes:
    zone = _encode_zone(value.tzinfo, value.utcoffset())
    return _DATE.pack(value.year, value.month, value.day) + _encode_clock(value) + zone


def _decode_datetime(data: bytes) -> datetime:
    year, month, day = _DATE.unpack_from(data)
    hour, minute, second, microsecond, fold = _TIME.unpack_from(data, _DATE.size)
    zone = _decode_zone(data[_DATE.size + _TIME.size :])
    return datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _encode_time(value: time) -> bytes:
    return _encode_clock(value) + _encode_zone(value.tzinfo, value.utcoffset())


def _decode_time(data: bytes) -> time:
    hour, minute, second, microsecond, fold = _TIME.unpack_from(data)
    return time(hour, minute, second, microsecond, _decode_zone(data[_TIME.size :]), fold=fold)


def _encode_timedelta(value: timedelta) -> bytes:
    return _DELTA.pack(value.days, value.seconds, value.microseconds)


def _decode_timedelta(data: bytes) -> timedelta:
    days, seconds, microseconds = _DELTA.unpack(data)
    return timedelta(days, seconds, microseconds)


def _encode_decimal(value: Decimal) -> bytes:
    return str(value).encode()


def _decode_decimal(data: bytes) -> Decimal:
    return Decimal(data.decode())


def _encode_uuid(value: UUID) -> bytes:
    return value.bytes


def _decode_uuid(data: bytes) -> UUID:
    return UUID(bytes=data)


SCALARS: Final[dict[type, Scalar]] = {
    int: Scalar(1, _encode_int, _decode_int),  # beyond 64 bits; the others are msgpack's
    complex: Scalar(2, _encode_complex, _decode_complex),
    datetime: Scalar(3, _encode_datetime, _decode_datetime),
    date: Scalar(4, _encode_date, _decode_date),
    time: Scalar(5, _encode_time, _decode_time),
    timedelta: Scalar(6, _encode_timedelta, _decode_timedelta),
    Decimal: Scalar(7, _encode_decimal, _decode_decimal),
    UUID: Scalar(8, _encode_uuid, _decode_uuid),
}
