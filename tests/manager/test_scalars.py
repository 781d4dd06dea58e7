"""The immutable types beyond msgpack's come back exactly, in a stored form that does not change."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from tribes.manager.scalars import SCALARS

BERLIN = ZoneInfo("Europe/Berlin")


class Lunar(tzinfo):
    """A time zone of a class that no other node knows."""

    def utcoffset(self, _: datetime | None) -> timedelta:
        return timedelta(hours=1, seconds=7)

    def dst(self, _: datetime | None) -> timedelta:
        return timedelta(0)

    def tzname(self, _: datetime | None) -> str:
        return "lunar"


def round_trip(value: Any) -> Any:
    scalar = SCALARS[type(value)]
    return scalar.decode(scalar.encode(value))


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (2**64, "01 00 00 00 00 00 00 00 00"),
        (-(2**63) - 1, "ff 7f ff ff ff ff ff ff ff"),
        (1.5 - 2j, "3f f8 00 00 00 00 00 00 c0 00 00 00 00 00 00 00"),
        (date(2026, 11, 20), "07 ea 0b 14"),
        (time(1, 2, 3, 4, fold=1), "01 02 03 00 00 00 04 01"),
        (datetime(2026, 11, 20, 1, 2, 3, 4), "07 ea 0b 14 01 02 03 00 00 00 04 00"),
        (
            datetime(2026, 11, 20, tzinfo=UTC),
            "07 ea 0b 14 00 00 00 00 00 00 00 00 6f 00 00 00 00 00 00 00 00",
        ),
        (timedelta(-1, 2, 3), "ff ff ff ff 00 00 00 02 00 00 00 03"),
        (Decimal("-1.50"), "2d 31 2e 35 30"),
        (UUID(int=5), "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 05"),
    ],
)
def test_the_stored_form_is_this(value: Any, stored: str) -> None:
    assert SCALARS[type(value)].encode(value).hex(" ") == stored
    assert round_trip(value) == value


def test_every_type_has_its_own_code() -> None:
    codes = [scalar.code for scalar in SCALARS.values()]
    assert sorted(codes) == list(range(1, len(SCALARS) + 1))


@pytest.mark.parametrize(
    "zone",
    [
        None,
        UTC,
        timezone(timedelta(hours=5, minutes=30)),
        timezone(timedelta(hours=-1), "Azores"),
        timezone(-timedelta(microseconds=1)),
        BERLIN,
    ],
)
def test_a_time_zone_comes_back_as_it_was(zone: tzinfo | None) -> None:
    value = datetime(2026, 10, 25, 2, 30, tzinfo=zone, fold=1)
    back = round_trip(value)
    assert back == value
    assert back.fold == 1
    assert back.tzinfo == zone
    assert str(back.tzinfo) == str(zone)
    clock = round_trip(time(2, 30, tzinfo=zone))
    assert clock.tzinfo == zone


def test_a_zone_of_another_class_becomes_its_offset() -> None:
    back = round_trip(datetime(2026, 1, 1, tzinfo=Lunar()))
    assert back == datetime(2026, 1, 1, tzinfo=Lunar())
    assert back.tzinfo == timezone(timedelta(hours=1, seconds=7))


def test_a_zone_without_an_offset_is_refused() -> None:
    class Nowhere(Lunar):
        def utcoffset(self, _: datetime | None) -> None:  # type: ignore[override]
            return None

    with pytest.raises(TypeError, match="offset"):
        round_trip(time(1, tzinfo=Nowhere()))


@pytest.mark.parametrize("text", ["NaN", "sNaN123", "-0", "1E+999999", "Infinity", "0.10"])
def test_decimals_keep_their_digits(text: str) -> None:
    assert str(round_trip(Decimal(text))) == str(Decimal(text))
