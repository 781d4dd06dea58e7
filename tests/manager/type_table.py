"""The table of types in docs/sessions.md: what comes back as what, each row with its samples.

``python -m tests.manager.type_table`` writes it; a test compares it and tries every row.
"""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs

from tribes import MergedCounter, MergedList, MergedSet
from tribes.manager.values import ValueCodec

__all__ = ["BEGIN", "END", "PAGE", "TABLE", "Row", "codec", "table"]

PAGE: Final = Path(__file__).parent.parent.parent / "docs" / "sessions.md"
BEGIN: Final = "<!-- types: written by python -m tests.manager.type_table -->"
END: Final = "<!-- end of types -->"


class Colour(enum.Enum):
    """An enum as an application has them."""

    RED = "r"
    BLUE = "b"


class Rights(enum.Flag):
    """Flags."""

    READ = 1
    WRITE = 2


@dataclass(frozen=True)
class Item:
    """A dataclass."""

    name: str
    tags: list[str] = field(default_factory=list)


class Money:
    """A class that is neither."""

    def __init__(self, amount: Decimal, currency: str) -> None:
        self.amount, self.currency = amount, currency

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment] # nobody needs it


class Point(NamedTuple):
    """A named tuple."""

    x: int
    y: int


@attrs.frozen
class Address:
    """A class of attrs."""

    street: str


Pair = namedtuple("Pair", "a b")


class Unknown(enum.Enum):
    """Registered nowhere."""

    A = 1


def codec() -> ValueCodec:
    """A codec that knows the classes which the table says are registered."""
    made = ValueCodec()
    for plain in (Colour, Rights, Item):
        made.register(plain)
    made.register(Money, encode=lambda m: [m.amount, m.currency], decode=lambda p: Money(*p))
    made.register(Point, encode=list, decode=lambda parts: Point(*parts))
    made.register(Address, encode=attrs.asdict, decode=lambda fields: Address(**fields))
    return made


class Row(NamedTuple):
    """One row.

    Attributes:
        types: What the page says.
        samples: Values; each must come back exactly, or be refused.
        note: What else the page says.
        is_refused: Whether they are refused.
    """

    types: str
    samples: tuple[Any, ...]
    note: str = ""
    is_refused: bool = False


def _deep(depth: int, wrap: Any) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


_NOW: Final = datetime(2026, 11, 21, 6, 30, 0, 123456)

TABLE: Final = (
    Row(
        "`None`, `bool`",
        (None, True, False),
        "`None` is a value; `set_attribute(name, None)` removes",
    ),
    Row("`int`", (0, -1, 2**63, -(2**63) - 1, 2**4000), "of any size"),
    Row(
        "`float`, `complex`",
        (0.0, -0.0, 1e308, 5e-324, float("inf"), float("-inf"), float("nan"), 1 - 2j),
        "with infinities, NaN and the sign of zero",
    ),
    Row("`str`", ("", "größe \U0001f600", "\0"), "what UTF-8 can encode"),
    Row("`str` with a lone surrogate", ("\ud800",), "no text: encode it as `bytes`", True),
    Row("`bytes`", (b"", b"\x00\xff")),
    Row(
        "`bytearray`, `memoryview`",
        (bytearray(b"x"), memoryview(b"x")),
        "would come back as `bytes`: write `bytes(value)`",
        True,
    ),
    Row(
        "`list`, `tuple`",
        ([], [1, [2]], (), (1, (2, [3]))),
        "each stays what it is, at every depth",
    ),
    Row(
        "`dict`",
        ({}, {"z": 1, "a": 2}, {1: "int", "1": "str", (1, 2): "tuple", None: 0, b"k": 1}),
        "keys of every hashable type in this table; the order is kept",
    ),
    Row(
        "`OrderedDict`, `defaultdict`, `collections.Counter`, `deque`",
        (OrderedDict(a=1), defaultdict(list, a=[1]), Counter("aab"), deque([1])),
        "subclasses of `dict` would come back as `dict`: convert, or register them",
        True,
    ),
    Row("`set`, `frozenset`", (set(), {1, "a", (2,)}, frozenset(), frozenset({1}))),
    Row(
        "`datetime`, `time`",
        (
            _NOW,
            _NOW.replace(tzinfo=UTC),
            _NOW.replace(tzinfo=timezone(timedelta(hours=-3, minutes=-30), "odd")),
            datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
            time(6, 30, 0, 1, tzinfo=UTC),
            time(6, 30),
        ),
        "naive ones too; `fold` is kept; zones of `zoneinfo` and fixed offsets. Of a zone of "
        "another library the offset at that moment is kept, and not its rules",
    ),
    Row("`date`, `timedelta`", (date(2026, 11, 21), date.min, timedelta(-1, 2, 3), timedelta.max)),
    Row("`timezone`, `ZoneInfo` alone", (UTC, ZoneInfo("Europe/Berlin")), "store the name", True),
    Row(
        "`Decimal`",
        (Decimal("-1.50E+3"), Decimal("NaN"), Decimal("-Infinity")),
        "with its exponent",
    ),
    Row("`UUID`", (UUID(int=5),)),
    Row(
        "`Enum`, `Flag`",
        (Colour.RED, Rights.READ | Rights.WRITE),
        "registered; by name, flags by value",
    ),
    Row(
        "`dataclass`",
        (Item("n", ["t"]),),
        "registered; a field that a stored value lacks gets its default",
    ),
    Row(
        "`namedtuple`, `attrs` and every other class",
        (Money(Decimal("1.50"), "EUR"), Point(1, 2), Address("Main St")),
        "registered with `encode` and `decode`",
    ),
    Row(
        "classes that are not registered",
        (Unknown.A, Pair(1, 2), Fraction(1, 2), PurePosixPath("a"), range(3), object(), len),
        "the error says the line that registers them",
        True,
    ),
    Row(
        "`MergedCounter`, `MergedSet`, `MergedList`",
        (MergedCounter(-3), MergedSet({1, "a"}), MergedList([1, [2]])),
        "as the attribute itself",
    ),
    Row(
        "the same inside another value",
        ([MergedCounter()], {"a": MergedSet()}),
        "could not be merged there",
        True,
    ),
    Row(
        "nested values",
        (_deep(500, lambda value: [value]), _deep(30, lambda value: (value,))),
        "lists and dicts 500 deep; of tuples, sets and registered classes 32 in each other",
    ),
    Row("deeper ones", (_deep(40, lambda value: (value,)),), "", True),
)


def table() -> str:
    """The table as the page has it."""
    lines = ["| type | comes back | |", "| --- | --- | --- |"]
    lines += [
        f"| {row.types} | {'refused' if row.is_refused else 'exactly'} | {row.note} |"
        for row in TABLE
    ]
    return "\n".join([BEGIN, "", *lines, "", END])


def main() -> None:
    """Write it."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + table() + after)


if __name__ == "__main__":
    main()
