"""Attributes that merge: a counter, a set and a list that several nodes may change at once.

::

    session.setdefault("visits", MergedCounter()).add()
    session.setdefault("tags", MergedSet()).add("new")
    session.setdefault("log", MergedList()).append(line)

The type of the value declares how it merges; nothing has to be configured, and any adapter's
session takes it.  Of an ordinary value that two nodes change at the same moment the later write
stays.  Of these nobody's part is lost: additions to a counter add up, members put into a set or
taken out of it stay so, appended values all appear, in one order everywhere.

They are attributes of their own: inside a list or a dict they could not be merged, and are refused.

It is longer than other files because the three types, with all that a number, a set and a list
have, stand beside the one function that writes them all (`write_merged`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableSet, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final, overload

from tribes.errors import AttributeUnreadableError

from .dots import ACTORS_MAX, ELEMENTS_MAX, INDEX_MASK, KIND_SHIFT, Dot, Dots, dots_of, encode_dots
from .layout import Kind

if TYPE_CHECKING:
    from .record import Entry
    from .values import ValueCodec

__all__ = [
    "MERGED_TYPES",
    "MergedCounter",
    "MergedList",
    "MergedSet",
    "content_of",
    "decode_content",
    "encode_content",
    "is_merged",
    "value_or_none",
    "write_merged",
]

OLD_HLC: Final = (2 * 60 * 60 * 1000) << 8
"""What was written so long ago is known everywhere, or never will be: as with tombstones."""
_RECENT_HLC: Final = (60 * 60 * 1000) << 8
"""An own element of a counter is added to for an hour, and taken over by others after two: so
nobody adds to what somebody else has counted already, with clocks up to an hour apart."""

_SET: Final = int(Kind.SET)
_COUNTER: Final = int(Kind.COUNTER)
_APPEND: Final = int(Kind.APPEND)

T = TypeVar("T")


@final
class MergedCounter:
    """A whole number to which every node adds its own part; the parts add up.

    Compares and computes like the number; ``counter += 1`` and ``counter.add(1)`` change it.

    Args:
        value: To begin with.
    """

    __slots__ = ("_value",)
    __hash__ = None  # type: ignore[assignment] # it changes

    def __init__(self, value: int = 0) -> None:
        self._value = int(value)

    @property
    def value(self) -> int:
        """The number as it is known here now."""
        return self._value

    def add(self, amount: int = 1) -> int:
        """Add to the number, or take from it; return what it is now."""
        self._value += int(amount)
        return self._value

    def __iadd__(self, amount: int) -> MergedCounter:
        self.add(amount)
        return self

    def __isub__(self, amount: int) -> MergedCounter:
        self.add(-amount)
        return self

    def __int__(self) -> int:
        return self._value

    __index__ = __int__

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return self._value == (other._value if isinstance(other, MergedCounter) else other)

    def __lt__(self, other: int | MergedCounter) -> bool:
        return self._value < int(other)

    def __le__(self, other: int | MergedCounter) -> bool:
        return self._value <= int(other)

    def __gt__(self, other: int | MergedCounter) -> bool:
        return self._value > int(other)

    def __ge__(self, other: int | MergedCounter) -> bool:
        return self._value >= int(other)

    def __str__(self) -> str:
        return str(self._value)

    def __repr__(self) -> str:
        return f"MergedCounter({self._value})"


@final
class MergedSet(MutableSet[T], Generic[T]):
    """A set into which every node puts members, and from which it takes what it has seen there.

    A member that one node takes out while another puts it in anew is in it afterwards. At most
    1,024 members; the longest there fall out.

    Args:
        members: To begin with; hashable values that a session can store.
    """

    __slots__ = ("_members",)
    __hash__ = None  # type: ignore[assignment] # it changes

    def __init__(self, members: Iterable[T] = ()) -> None:
        self._members = set(members)

    def add(self, value: T) -> None:
        """Put a member in; one that is there already stays as it is."""
        self._members.add(value)

    def discard(self, value: T) -> None:
        """Take a member out, if it is there."""
        self._members.discard(value)

    def update(self, *members: Iterable[T]) -> None:
        """Put all of these in."""
        self._members.update(*members)

    def clear(self) -> None:
        """Take out every member that is there."""
        self._members.clear()

    def __contains__(self, value: object) -> bool:
        return value in self._members

    def __iter__(self) -> Iterator[T]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __repr__(self) -> str:
        return f"MergedSet({self._members or ''})"


@final
class MergedList(Sequence[T], Generic[T]):
    """A list to whose end every node appends; all see the same order in the end.

    What one node appended stays in its order; what several appended at once is ordered by time.
    At most 1,024 values; the oldest fall out.

    Args:
        values: To begin with.
    """

    __slots__ = ("_values",)
    __hash__ = None  # type: ignore[assignment] # it changes

    def __init__(self, values: Iterable[T] = ()) -> None:
        self._values = list(values)

    def append(self, value: T) -> None:
        """Put a value at the end."""
        self._values.append(value)

    def extend(self, values: Iterable[T]) -> None:
        """Put several values at the end."""
        self._values.extend(values)

    def clear(self) -> None:
        """Remove what is there; what another node appends meanwhile stays."""
        self._values.clear()

    def __iadd__(self, values: Iterable[T]) -> MergedList[T]:
        self.extend(values)
        return self

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        return self._values[index]

    def __iter__(self) -> Iterator[T]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, MergedList):
            return self._values == other._values
        return self._values == other if isinstance(other, list) else NotImplemented

    def __repr__(self) -> str:
        return f"MergedList({self._values or ''})"


MERGED_TYPES: Final[dict[type, int]] = {
    MergedSet: _SET,
    MergedCounter: _COUNTER,
    MergedList: _APPEND,
}
_MAKE: Final[dict[int, Callable[[Any], object]]] = {
    kind: merged for merged, kind in MERGED_TYPES.items()
}


def is_merged(kind: int) -> bool:
    """Tell whether values of a merge kind can be read here as one of these types."""
    return kind in _MAKE


# What a session holds and compares is the *content*: a list of payloads, encoded by the codec.


def encode_content(value: object, codec: ValueCodec) -> tuple[int, bytes] | None:
    """Return merge kind and content of a value; None if it is none of these types.

    Raises:
        AttributeNotEncodableError: An element cannot be encoded.
    """
    kind = MERGED_TYPES.get(type(value))
    if kind is None:
        return None
    if isinstance(value, MergedCounter):
        return kind, _number(value.value)
    parts = [codec.encode(part) for part in value]  # type: ignore[attr-defined]
    return kind, codec.encode(sorted(parts) if kind == _SET else parts)


def decode_content(kind: int, content: bytes, codec: ValueCodec) -> Any:
    """Return the value of a content.

    Raises:
        AttributeUnreadableError: An element cannot be decoded here.
    """
    if kind == _COUNTER:
        return MergedCounter(_amount(content))
    try:
        return _MAKE[kind](map(codec.decode, codec.decode(content)))
    except TypeError as error:
        raise AttributeUnreadableError(f"a member of a set is not hashable: {error}") from error


def content_of(entry: Entry, codec: ValueCodec) -> bytes:
    """Return the content that an entry's dot store makes.

    Raises:
        AttributeUnreadableError: A later release wrote it in another form.
    """
    dots = dots_of(entry)
    if dots is None:
        raise AttributeUnreadableError("its form is unknown here")
    return _content(entry.kind, dots.of_kind(entry.kind), codec)


def value_or_none(entry: Entry, codec: ValueCodec) -> Any:
    """Return the value of an attribute's entry; None if it is removed or cannot be read here."""
    try:
        if is_merged(entry.kind):
            return decode_content(entry.kind, content_of(entry, codec), codec)
        return codec.decode(entry.value) if entry.kind == Kind.LAST_WRITER else None
    except AttributeUnreadableError:
        return None


def _content(kind: int, elements: dict[Dot, bytes], codec: ValueCodec) -> bytes:
    if kind == _COUNTER:
        return _number(sum(map(_amount, elements.values())))
    return codec.encode(sorted(set(elements.values())) if kind == _SET else [*elements.values()])


def _number(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _amount(payload: bytes) -> int:
    return int.from_bytes(payload, "big", signed=True)


def write_merged(
    kind: int,
    content: bytes,
    *,
    seen: Entry | None,
    present: Entry | None,
    hlc: int,
    actor: int,
    codec: ValueCodec,
) -> tuple[bytes | None, int]:
    """Do to the present value what a request did to the one that it had seen.

    Args:
        kind: Merge kind.
        content: What the request made of the value.
        seen: The entry as the request had read it.
        present: The entry as it is now.
        hlc: Of this write, greater than those of both entries.
        actor: Who writes.
        codec: Encoded the content.

    Returns:
        The new value of the entry, None if it stays as it is; and how many elements fell out.
    """
    before = None if seen is None or seen.kind != kind else dots_of(seen)
    now = None if present is None or present.kind != kind else dots_of(present)
    is_new = now is None
    if now is None:
        # What stood there is replaced, as by a plain write.
        now = Dots((0, 0) if present is None else (present.hlc, present.actor))
    known = {} if before is None else before.of_kind(kind)
    added: list[bytes]
    if kind == _COUNTER:
        has_changed = _count(now, _amount(content) - _total(known), hlc, actor)
        added = []
    else:
        wanted = codec.decode(content)
        gone, added = _difference(kind, known, wanted, now)
        for dot in gone:
            now.elements.pop(dot, None)
        has_changed = bool(gone or added)
    if not has_changed and not is_new:
        return None, 0
    start = kind << KIND_SHIFT
    for index, payload in enumerate(added[-ELEMENTS_MAX:]):
        now.elements[hlc, actor, start | index & INDEX_MASK] = payload
    dropped = max(0, len(added) - ELEMENTS_MAX) + _trim(now, kind)
    now.seen[actor] = hlc
    _forget_actors(now, hlc)
    return encode_dots(now), dropped


def _difference(
    kind: int, known: dict[Dot, bytes], wanted: list[bytes], now: Dots
) -> tuple[list[Dot], list[bytes]]:
    """Return the elements that the request removed, and the payloads that it added."""
    if kind == _SET:
        members, there = set(wanted), set(known.values())
        gone = [dot for dot, payload in known.items() if payload not in members]
        others = set(now.of_kind(kind).values()) if members - there else set()
        return gone, sorted(members - there - others)
    values = [*known.values()]
    if wanted[: len(values)] == values:
        return [], wanted[len(values) :]
    return [*known], wanted


def _total(elements: dict[Dot, bytes]) -> int:
    return sum(map(_amount, elements.values()))


def _count(now: Dots, amount: int, hlc: int, actor: int) -> bool:
    """Add to the own part of a counter."""
    if not amount:
        return False
    elements = now.of_kind(_COUNTER)
    taken = [dot for dot in elements if dot[1] == actor and hlc - dot[0] <= _RECENT_HLC]
    if len(elements) > ACTORS_MAX:
        taken += [dot for dot in elements if hlc - dot[0] > OLD_HLC]
    total = amount + _total({dot: elements[dot] for dot in taken})
    for dot in taken:
        del now.elements[dot]
    now.elements[hlc, actor, _COUNTER << KIND_SHIFT] = _number(total)
    return True


def _trim(now: Dots, kind: int) -> int:
    """Remove the oldest elements beyond the bound; return how many."""
    excess = len(now.elements) - ELEMENTS_MAX
    if excess <= 0:
        return 0
    oldest = sorted(now.elements)[:excess]
    if kind == _COUNTER:
        # The sum must stay: the newest element, which this write made, takes them over.
        newest = max(now.elements)
        parts = {dot: now.elements[dot] for dot in (*oldest, newest)}
        now.elements[newest] = _number(_total(parts))
    for dot in oldest:
        del now.elements[dot]
    return excess


def _forget_actors(now: Dots, hlc: int) -> None:
    """List at most so many actors; those that wrote lately are listed whatever their number."""
    seen = now.seen
    if len(seen) <= ACTORS_MAX:
        return
    latest = sorted(((time, actor) for actor, time in seen.items()), reverse=True)
    for version in latest[ACTORS_MAX // 2 :]:
        if hlc - version[0] > OLD_HLC or len(seen) > ELEMENTS_MAX:
            now.floor = max(now.floor, version)
            break
    now.seen = {actor: time for actor, time in seen.items() if (time, actor) > now.floor}
