"""The values of one namespace, as one request sees and changes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tribes.errors import (
    AttributeNotEncodableError,
    AttributeUnreadableError,
    LocalProtocolError,
    SessionInvalidError,
    SessionLimitError,
)
from tribes.manager.bag import Bag
from tribes.manager.changes import Built
from tribes.manager.reading import Reading
from tribes.manager.record import Entry, Kind, Life, Parsed, pack
from tribes.manager.values import ValueCodec

if TYPE_CHECKING:
    from tribes.manager.changes import Change


class CountingCodec:
    """A codec that counts; what a test does not touch must not be decoded."""

    is_canonical = True

    def __init__(self) -> None:
        self.real = ValueCodec()
        self.decoded = 0
        self.encoded = 0

    def encode(self, value: object) -> bytes:
        self.encoded += 1
        return self.real.encode(value)

    def decode(self, data: bytes) -> Any:
        self.decoded += 1
        return self.real.decode(data)


STORED = {"n": 1, "text": "x", "cart": ["a"], "none": None}


@pytest.fixture
def codec() -> Any:
    return CountingCodec()


def entry(name: str, raw: bytes, kind: int = 0) -> Entry:
    return Entry(0, kind, name.encode(), raw, 50, 1)


@pytest.fixture
def bag(codec: Any) -> Bag:
    parsed = Parsed(Life.LIVE, 0, 0, 100, 0)
    for name, value in STORED.items():
        parsed.put(entry(name, codec.real.encode(value)))
    parsed.put(entry("gone", b"", Kind.TOMBSTONE))
    parsed.put(entry("bad", b"\xc1"))
    parsed.put(entry("newer", b"\x01", 3))
    parsed.put(Entry(2, 0, b"note", b"\x01", 50, 1))
    return Bag(0, Reading(pack(parsed)), codec)


def seen(change: Change) -> Entry | None:
    assert change.seen_in is not None
    return change.seen_in.entry(change.namespace, change.name)


def changes(bag: Bag) -> dict[str, Change]:
    failed: dict[str, Exception] = {}
    found = bag.changes(failed)
    assert failed == {}
    return {change.name.decode(): change for change in found}


def test_it_reads_like_a_dict_and_decodes_only_what_is_touched(bag: Bag, codec: Any) -> None:
    assert set(bag) == {*STORED, "bad", "newer"}
    assert len(bag) == 6
    assert "n" in bag
    assert "gone" not in bag
    assert "note" not in bag
    assert 5 not in bag  # type: ignore[comparison-overlap]
    assert "\ud800" not in bag
    assert codec.decoded == 0
    assert bag["n"] == 1
    assert bag["n"] == 1
    assert bag["none"] is None
    assert codec.decoded == 2
    for name in ("gone", "never", "note"):
        with pytest.raises(KeyError):
            bag[name]
    assert changes(bag) == {}
    assert codec.encoded == 0, "what cannot change is not encoded to find out"


def test_a_change_in_place_is_seen(bag: Bag, codec: Any) -> None:
    bag["cart"].append("b")
    found = changes(bag)
    assert list(found) == ["cart"]
    assert codec.real.decode(found["cart"].value) == ["a", "b"]
    assert seen(found["cart"]) == entry("cart", codec.real.encode(["a"]))


def test_reading_alone_is_no_change(bag: Bag) -> None:
    assert bag["cart"] == ["a"]
    assert changes(bag) == {}


def test_an_assignment_carries_what_was_there(bag: Bag, codec: Any) -> None:
    bag["n"] = 2
    bag["fresh"] = [1]
    found = changes(bag)
    assert seen(found["n"]) == entry("n", codec.real.encode(1))
    assert seen(found["fresh"]) is None
    assert bag["n"] == 2
    assert "fresh" in bag
    assert set(bag) == {*STORED, "bad", "newer", "fresh"}


def test_a_removal_is_a_tombstone(bag: Bag) -> None:
    del bag["n"]
    assert "n" not in bag
    assert bag.get("n", "default") == "default"
    assert "n" not in set(bag)
    assert len(bag) == 5
    with pytest.raises(KeyError):
        del bag["n"]
    found = changes(bag)
    assert (found["n"].kind, found["n"].value) == (Kind.TOMBSTONE, b"")
    bag["n"] = 7
    assert changes(bag)["n"].kind == Kind.LAST_WRITER


def test_none_is_a_value(bag: Bag) -> None:
    bag["n"] = None
    assert "n" in bag
    assert bag["n"] is None
    assert changes(bag)["n"].kind == Kind.LAST_WRITER


def test_the_other_ways_of_a_dict_work_too(bag: Bag) -> None:
    assert bag.pop("text") == "x"
    assert bag.pop("text", 0) == 0
    assert bag.setdefault("n", 9) == 1
    assert bag.setdefault("fresh", []) == []
    bag["fresh"].append(1)
    bag.update(a=1, b=2)
    assert bag["fresh"] == [1]
    assert set(changes(bag)) == {"text", "fresh", "a", "b"}
    bag.clear()
    assert len(bag) == 0
    assert list(bag) == []


def test_an_unreadable_value_is_there_but_cannot_be_read(bag: Bag) -> None:
    for name in ("bad", "newer"):
        assert name in bag
        assert bag.get(name, "default") == "default"
        with pytest.raises(AttributeUnreadableError, match=name):
            bag[name]
        with pytest.raises(AttributeUnreadableError):
            bag.setdefault(name, 1)
    assert changes(bag) == {}, "its bytes stay"
    bag["bad"] = 1
    del bag["newer"]
    assert {name: change.kind for name, change in changes(bag).items()} == {
        "bad": Kind.LAST_WRITER,
        "newer": Kind.TOMBSTONE,
    }


def test_what_cannot_be_encoded_costs_only_itself(bag: Bag) -> None:
    bag["cart"].append(object())
    bag["lock"] = object()
    bag["n"] = 2
    failed: dict[str, Exception] = {}
    assert [change.name for change in bag.changes(failed)] == [b"n"]
    assert set(failed) == {"cart", "lock"}
    assert all(isinstance(why, AttributeNotEncodableError) for why in failed.values())


@pytest.mark.parametrize("name", ["", 5, None, "\ud800"])
def test_a_name_is_a_text(bag: Bag, name: Any) -> None:
    with pytest.raises(LocalProtocolError):
        bag[name] = 1


def test_a_name_has_a_bounded_length(bag: Bag) -> None:
    bag["ö" * 512] = 1
    with pytest.raises(SessionLimitError):
        bag["ö" * 512 + "x"] = 1


def test_after_a_commit_it_goes_on_from_there(bag: Bag, codec: Any) -> None:
    cart = bag["cart"]
    cart.append("b")
    bag["n"] = 2
    del bag["text"]
    bag["bad"] = {"fixed": True}
    found = list(changes(bag).values())
    writes = [Entry(c.namespace, c.kind, c.name, c.value, 200, 1) for c in found]
    record = pack(Parsed(Life.LIVE, 0, 0, 200, 0, {(e.namespace, e.name): e for e in writes}))
    bag.committed(Reading(record), found, Built(record, b""))
    assert changes(bag) == {}
    assert set(bag) == {"cart", "n", "bad"}
    cart.append("c")
    bag["bad"]["more"] = 1
    again = changes(bag)
    assert set(again) == {"cart", "bad"}
    was = seen(again["cart"])
    assert was is not None
    assert was.hlc == 200
    assert codec.real.decode(again["cart"].value) == ["a", "b", "c"]


def test_what_was_read_before_a_commit_keeps_the_version_that_it_had(bag: Bag, codec: Any) -> None:
    """Another request's write that came between has not been seen by who holds the old value."""
    cart = bag["cart"]
    bag["n"] = 2
    found = list(changes(bag).values())
    theirs = Entry(0, 0, b"cart", codec.real.encode(["theirs"]), 150, 2)
    record = pack(Parsed(Life.LIVE, 0, 0, 200, 0, {(0, b"cart"): theirs}))
    bag.committed(Reading(record), found, Built(record, b""))
    cart.append("mine")
    was = seen(changes(bag)["cart"])
    assert was is not None
    assert was.hlc == 50


def test_what_another_change_was_joined_with_is_read_again(bag: Bag, codec: Any) -> None:
    bag["cart"].append("mine")
    found = list(changes(bag).values())
    joined = Entry(0, 0, b"cart", codec.real.encode(["a", "theirs", "mine"]), 200, 1)
    record = pack(Parsed(Life.LIVE, 0, 0, 200, 0, {(0, b"cart"): joined}))
    bag.committed(Reading(record), found, Built(record, b"", frozenset({(0, b"cart")})))
    assert bag["cart"] == ["a", "theirs", "mine"]
    assert changes(bag) == {}


def test_a_value_written_by_another_version_of_its_class_is_not_rewritten_by_reading() -> None:
    """It lacks a field that has a default here: decoding and encoding it gives other bytes."""

    @dataclass
    class Old:
        x: int

    @dataclass
    class New:
        x: int
        y: int = 0

    older, newer = ValueCodec(), ValueCodec()
    older.register(Old, name="item")
    newer.register(New, name="item")
    raw = older.encode([Old(1)])
    parsed = Parsed(Life.LIVE, 0, 0, 100, 0, {(0, b"a"): entry("a", raw)})
    bag = Bag(0, Reading(pack(parsed)), newer)
    assert bag["a"] == [New(1, 0)]
    assert newer.encode(bag["a"]) != raw
    assert changes(bag) == {}
    bag["a"][0].x = 2
    assert set(changes(bag)) == {"a"}


def test_a_closed_bag_refuses_everything(bag: Bag) -> None:
    bag.is_closed = True
    with pytest.raises(SessionInvalidError):
        bag["n"]
    with pytest.raises(SessionInvalidError):
        bag["n"] = 1
    with pytest.raises(SessionInvalidError):
        del bag["n"]
    with pytest.raises(SessionInvalidError):
        "n" in bag  # noqa: B015
    with pytest.raises(SessionInvalidError):
        list(bag)
    with pytest.raises(SessionInvalidError):
        bag.get("n")
    assert repr(bag) == "<Bag closed>"


def test_an_empty_bag_has_nothing(codec: Any) -> None:
    bag = Bag(0, None, codec)
    assert list(bag) == []
    assert bag.get("n") is None
    bag["n"] = 1
    assert repr(bag) == "<Bag ['n']>"


def test_a_large_value_is_read_from_beside_the_record(codec: Any) -> None:
    big = b"v" * 10_000
    parsed = Parsed(Life.LIVE, 0, 0, 100, 0, {(0, b"big"): entry("big", codec.encode(big))})
    assert Bag(0, Reading(pack(parsed)), codec)["big"] == big
