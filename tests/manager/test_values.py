"""The value codec: exact, deterministic, bounded, and never a way to run code."""

from __future__ import annotations

import contextlib
import enum
import math
import tracemalloc
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import InitVar, dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.errors import AttributeNotEncodableError, AttributeUnreadableError, LocalProtocolError
from tribes.manager.values import EXTENSIONS_DEPTH_MAX, ValueCodec, is_immutable
from tribes.testing.manager_strategies import session_values

codec = ValueCodec()


class Colour(enum.Enum):
    RED = "red"
    ALSO_RED = "red"
    BLUE = 2


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Level(enum.IntEnum):
    LOW = 1


@dataclass
class Item:
    name: str
    tags: list[str] = field(default_factory=list)
    total: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.total = len(self.tags)


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: Any = None


class Pair(NamedTuple):
    a: int
    b: int


for registered in (Colour, Rights, Level, Item, Point):
    codec.register(registered)


def exactly(a: Any, b: Any) -> bool:
    """Compare with types, at every depth, with NaN equal to NaN and the order of dicts."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(exactly, a, b))
    if isinstance(a, dict):
        return exactly(list(a.items()), list(b.items()))
    if isinstance(a, (set, frozenset)):
        return codec.encode(a) == codec.encode(b) and len(a) == len(b)
    if isinstance(a, float):
        return repr(a) == repr(b)
    if hasattr(a, "tzinfo") and (a.fold != b.fold or str(a.tzinfo) != str(b.tzinfo)):
        return False
    return repr(a) == repr(b)


@given(session_values())
def test_values_come_back_exactly(value: Any) -> None:
    data = codec.encode(value)
    assert exactly(codec.decode(data), value)
    assert codec.encode(codec.decode(data)) == data


@pytest.mark.parametrize(
    "value",
    [
        [True, 1, 1.0, False, 0, -0.0],
        {1: "int", "1": "str", (1, "1"): "tuple", frozenset({1}): "set", None: 0},
        [(1, [2, (3,)]), [], (), {}, set(), frozenset()],
        {True: 1},
        [2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1],
        math.nan,
        "größe \U0001f600",
        [b"", b"\xff"],
        {"z": 1, "a": 2},
        [Colour.RED, Colour.BLUE, Rights.READ | Rights.WRITE, Level.LOW],
        {Colour.RED: {Rights(0)}},
        [Point(1, [Point(2)]), Item("n", ["t"])],
    ],
)
def test_types_that_look_alike_stay_apart(value: Any) -> None:
    assert exactly(codec.decode(codec.encode(value)), value)


def test_equal_sets_have_equal_bytes() -> None:
    """A set's order depends on its history; its bytes must not."""
    numbers = [8 * n for n in range(100)]
    backwards = numbers[::-1]
    assert codec.encode(set(numbers)) == codec.encode(set(backwards))
    texts = [f"{n}" for n in range(20)]
    assert codec.encode(frozenset(texts)) == codec.encode(frozenset(texts[::-1]))


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (object(), "value has the type builtins.object"),
        (Text("x"), "Text, which has no codec"),
        (OrderedDict(a=1), "OrderedDict"),
        (Pair(1, 2), "Pair"),
        (bytearray(b"x"), "bytearray"),
        ([memoryview(b"x")], r"value\[0\] has the type builtins.memoryview"),
        ({"a": [{"b": bytearray()}]}, r"value\['a'\]\[0\]\['b'\] has the type"),
        ((bytearray(),), r"value\[0\]"),
        ({Text("k"): 1}, r"key 'k' of value has the type"),
        ({Pair(1, 2)}, r"an element of value has the type"),
        (Point(1, [object()]), r"value\.y\[0\] has the type"),
        (msgpack.ExtType(5, b""), "ExtType"),
        ("\ud800", "surrogates not allowed"),
        (["\ud800"], r"value\[0\]"),
        (Item, "type"),
        (lambda: 0, "function"),
    ],
)
def test_what_has_no_codec_is_refused_with_its_place(value: Any, where: str) -> None:
    with pytest.raises(AttributeNotEncodableError, match=where):
        codec.encode(value)


def test_a_value_in_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(AttributeNotEncodableError, match="contains itself"):
        codec.encode(loop)
    pair = ([],)  # type: ignore[var-annotated]
    pair[0].append(pair)
    with pytest.raises(AttributeNotEncodableError):
        codec.encode(pair)
    assert codec.decode(codec.encode([1])) == [1]


def test_nesting_is_bounded_in_both_directions() -> None:
    value: Any = ()
    for _ in range(EXTENSIONS_DEPTH_MAX - 1):
        value = (value,)
    assert codec.decode(codec.encode(value)) == value
    with pytest.raises(AttributeNotEncodableError):
        codec.encode(((value,),))
    data = codec.encode(value)
    for _ in range(2):
        inner = b"\x91" + data
        data = b"\xc8" + len(inner).to_bytes(2, "big") + b"\x10" + inner
    with pytest.raises(AttributeUnreadableError):
        codec.decode(data)


@given(st.binary(max_size=80))
def test_random_bytes_give_a_value_or_the_error(data: bytes) -> None:
    with contextlib.suppress(AttributeUnreadableError):
        codec.decode(data)


@given(st.data(), session_values())
def test_damaged_values_give_a_value_or_the_error(data: st.DataObject, value: Any) -> None:
    damaged = bytearray(codec.encode(value))
    at = data.draw(st.integers(0, len(damaged) - 1))
    damaged[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(AttributeUnreadableError):
        codec.decode(bytes(damaged))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x01\x02",
        b"\xd4\x63\x00",
        b"\xd4\x10\x01",
        b"\xc7\x02\x11\x91\x90",
        b"\x81\x90\x01",
        b"\xd4\x07x",
        b"\xa1\xff",
        b"\xc7\x04\x03zXXX",
        b"\x91" * 5000 + b"\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xc7\x02\x13\x91\x01",
        b"\xc7\x03\x13\x92\x90\x01",
    ],
)
def test_malformed_values_are_unreadable(data: bytes) -> None:
    with pytest.raises(AttributeUnreadableError):
        codec.decode(data)


@pytest.mark.parametrize("header", [b"\xdc\xff\xff", b"\xdd\x00\x01\x00\x00", b"\x9f"])
def test_a_short_input_cannot_reserve_much_memory(header: bytes) -> None:
    """Nested arrays that claim many elements are found out before they are allocated."""
    data = header * 500 + bytes(70_000 if header != b"\x9f" else 10)
    tracemalloc.start()
    try:
        with pytest.raises(AttributeUnreadableError):
            codec.decode(data)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_an_unknown_class_makes_the_value_unreadable_but_keeps_its_name() -> None:
    with pytest.raises(AttributeUnreadableError, match="Point"):
        ValueCodec().decode(codec.encode([Point(1)]))
    with pytest.raises(KeyError):
        ValueCodec().decode(codec.encode(Colour.RED))


def test_a_newer_class_reads_what_an_older_one_wrote() -> None:
    @dataclass
    class Newer:
        x: int
        y: Any = None
        z: int = 7

    newer = ValueCodec()
    newer.register(Newer, name=f"{__name__}.Point")
    assert newer.decode(codec.encode(Point(1, 2))) == Newer(1, 2, 7)
    with pytest.raises(AttributeUnreadableError, match="no field 'z'"):
        codec.decode(newer.encode(Newer(1, 2, 3)))


def test_stored_fields_win_over_what_the_constructor_computes() -> None:
    item = Item("n", ["a", "b"])
    item.total = 99
    assert codec.decode(codec.encode(item)) == item


def test_a_class_that_raises_costs_its_value_only() -> None:
    @dataclass
    class Picky:
        x: int

        def __post_init__(self) -> None:
            if self.x > 3:
                raise RuntimeError("too great")

    picky = ValueCodec()
    picky.register(Picky, name="picky")
    value = Picky(1)
    value.x = 4
    with pytest.raises(AttributeUnreadableError, match="too great"):
        picky.decode(picky.encode(value))


def test_an_encoding_is_the_only_one_until_a_class_may_grow() -> None:
    fresh = ValueCodec()
    fresh.register(Colour)
    assert fresh.is_canonical
    fresh.register(Point)
    assert not fresh.is_canonical


def test_registering_is_a_decorator_and_names_are_unique() -> None:
    fresh = ValueCodec()

    @fresh.register
    class Size(enum.Enum):
        S = 1

    assert fresh.decode(fresh.encode(Size.S)) is Size.S
    assert fresh.register(Size) is Size
    with pytest.raises(LocalProtocolError, match="stands for"):
        fresh.register(Colour, name=f"{Size.__module__}.{Size.__qualname__}")


def test_any_class_is_stored_by_two_functions() -> None:
    """At every depth, with its type; whatever the functions do wrong costs the value only."""
    fresh = ValueCodec()
    fresh.register(Text, name="text", encode=str, decode=Text)
    value = {"a": [Text("x"), "x", (Text("y"),)]}
    assert exactly(fresh.decode(fresh.encode(value)), value)
    assert fresh.is_canonical
    with pytest.raises(AttributeUnreadableError, match="'text'"):
        codec.decode(fresh.encode(value))
    fresh.register(Money, encode=lambda money: money.missing, decode=Money)
    with pytest.raises(AttributeNotEncodableError, match=r"value\[1\].*encode raised Attribute"):
        fresh.encode([1, Money(1)])
    fresh.register(Money, encode=lambda money: [object()], decode=Money)
    with pytest.raises(AttributeNotEncodableError, match=r"encode makes of value\[0\]\[0\] has"):
        fresh.encode([Money(1)])
    fresh.register(Money, encode=lambda money: bytearray(b"looks like bytes"), decode=Money)
    with pytest.raises(AttributeNotEncodableError, match="bytearray"):
        fresh.encode(Money(1))
    fresh.register(Money, encode=lambda money: money, decode=Money)
    with pytest.raises(AttributeNotEncodableError, match="nests too deeply"):
        fresh.encode(Money(1))
    halves: list[dict[str, Any]] = [{"encode": str}, {"decode": str}, {}]
    for wrong in halves:
        with pytest.raises(LocalProtocolError, match="encode and decode"):
            fresh.register(Money, **wrong)
    with pytest.raises(LocalProtocolError, match="cannot be changed"):
        fresh.register(int, encode=str, decode=int)


class Money:
    def __init__(self, amount: Any) -> None:
        self.amount = amount


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (Money(1), r"manager.codec.register\(Money, encode=..., decode=...\)"),
        (Point(1), r"manager.codec.register\(Point\)"),
        (Colour.RED, r"manager.codec.register\(Colour\)"),
    ],
)
def test_refusal_says_the_line_that_registers_the_class(value: Any, line: str) -> None:
    with pytest.raises(AttributeNotEncodableError, match=f"register it once.*{line}$"):
        ValueCodec().encode(value)


def test_classes_that_cannot_be_rebuilt_are_refused_at_once() -> None:
    @dataclass
    class Needs:
        secret: InitVar[int]

    @dataclass(init=False)
    class Own:
        x: int

        def __init__(self) -> None:
            self.x = 1

    @dataclass
    class Listed(list[int]):
        x: int

    for cls in (Needs, Own, Listed, int, Pair):
        with pytest.raises(LocalProtocolError):
            ValueCodec().register(cls)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x", True),
        (None, True),
        (datetime(2026, 1, 1), True),
        (UUID(int=1), True),
        (Colour.RED, True),
        ((1, ("a", frozenset({2}))), True),
        (([],), False),
        ([], False),
        ({}, False),
        (set(), False),
        (Point(1), False),
        (bytearray(), False),
    ],
)
def test_only_what_can_never_change_is_called_immutable(value: Any, expected: bool) -> None:
    assert is_immutable(value) is expected


def test_threads_share_a_codec() -> None:
    values = [[(n, {n}), {"k": (n, [n] * n)}, Point(n)] for n in range(40)]

    def work(_: int) -> bool:
        return all(codec.decode(codec.encode(value)) == value for value in values * 10)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
