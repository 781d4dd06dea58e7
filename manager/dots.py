"""Values that merge per element: a set, a counter or a list of which no side loses its part.

An attribute with one of the merge kinds 1 to 7 has as its value a *dot store*: elements, each named
by the write that made it (its *dot*), and the *context*, everything that the writer had seen.  Two
of them are joined without asking anybody: an element stays if both have it, or if the other has
never seen it; what the other has seen and does not have was removed there.  So nothing must be
remembered of what was removed, and the join is commutative, associative and idempotent (an
observed-remove set without tombstones; Bieniusa et al., 2012)::

    value     u8 form (1) | u64 floor hlc | u32 floor actor | u16 actors | u16 elements
    actors    u32 actor, u64 hlc: of this actor everything up to that time was seen; ascending
    elements  u64 hlc, u32 actor, u16 index, u32 length; ascending
    payloads  of the elements, one after the other

``floor`` is a version: every write up to it was seen, whoever made it.  The high four bits of
``index`` are the merge kind that the element is for, the others tell elements of one write apart.
The form is canonical, so equal stores are equal bytes.  Kinds 4 to 7 are for later releases: as
long as they are dot stores too, this one merges them without knowing what they mean.

What an element is:

======= === ================================================================
set      1  a member, encoded
counter  2  what one process has added in some stretch of time, signed
append   3  one appended value, encoded; ascending dots are the list's order
======= === ================================================================

**A plain write or a removal** is a store that has seen everything up to its version and has no
elements.  Whatever was added later, by the clock, is on top of that.

**Bounds** are kept by who writes, as a write like any other; a join that dropped something would
depend on its order.  Of more than `ELEMENTS_MAX` elements the oldest are removed and counted; a
counter instead takes old elements into its own.  Of more than `ACTORS_MAX` actors those that wrote
nothing for two hours are forgotten, by raising the floor: what such an actor wrote before, and is
seen nowhere yet, would be dropped on arrival.
"""

from __future__ import annotations

from struct import Struct, error
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from .layout import Kind

if TYPE_CHECKING:
    from .record import Entry

__all__ = [
    "ACTORS_MAX",
    "ELEMENTS_MAX",
    "Dot",
    "Dots",
    "dots_of",
    "encode_dots",
    "has_dots",
    "join_entries",
    "parse_dots",
]

ELEMENTS_MAX: Final = 1024
"""Members of a set, values of a list: the newest are kept."""
ACTORS_MAX: Final = 64
"""Processes that a value remembers one by one."""

FORM: Final = 1
KIND_SHIFT: Final = 12
INDEX_MASK: Final = (1 << KIND_SHIFT) - 1
_U16_MAX: Final = 0xFFFF

_HEAD: Final = Struct(">BQIHH")
_ACTOR: Final = Struct(">IQ")
_ELEMENT: Final = Struct(">QIHI")

Dot: TypeAlias = tuple[int, int, int]
"""hlc, actor and index of the write that made an element."""

_HAS_DOTS: Final = tuple(Kind.SET <= kind <= 7 for kind in range(16))


class Dots(msgspec.Struct):
    """A dot store taken apart.

    Attributes:
        floor: Version up to which everything was seen.
        seen: By actor, the time up to which everything of it was seen.
        elements: Payloads by dot.
    """

    floor: tuple[int, int] = (0, 0)
    seen: dict[int, int] = {}
    elements: dict[Dot, bytes] = {}

    def covers(self, dot: Dot) -> bool:
        """Tell whether the write that made an element was seen."""
        hlc, actor, _ = dot
        return hlc <= self.seen.get(actor, 0) or (hlc, actor) <= self.floor

    def of_kind(self, kind: int) -> dict[Dot, bytes]:
        """Return the elements that are for this kind, oldest first."""
        elements = self.elements
        return {dot: elements[dot] for dot in sorted(elements) if dot[2] >> KIND_SHIFT == kind}


def has_dots(kind: int) -> bool:
    """Tell whether a merge kind's values are dot stores."""
    return _HAS_DOTS[kind]


def encode_dots(dots: Dots) -> bytes:
    """Return the bytes of a dot store; what the floor covers is not listed."""
    floor = dots.floor
    actors = [(a, hlc) for a, hlc in sorted(dots.seen.items()) if (hlc, a) > floor]
    elements = sorted(dots.elements)
    pieces = [_HEAD.pack(FORM, *floor, len(actors), len(elements))]
    pieces += [_ACTOR.pack(*actor) for actor in actors]
    pieces += [_ELEMENT.pack(*dot, len(dots.elements[dot])) for dot in elements]
    pieces += [dots.elements[dot] for dot in elements]
    return b"".join(pieces)


def parse_dots(value: bytes) -> Dots | None:
    """Take a dot store apart; None if the bytes are none, or of a later form.

    Believes nothing: also for what a peer sent. The work is linear in the length.
    """
    try:
        form, hlc, actor, actors, count = _HEAD.unpack_from(value)
        if form != FORM:
            return None
        begin = _HEAD.size
        middle = begin + actors * _ACTOR.size
        end = middle + count * _ELEMENT.size
        if end > len(value):
            return None
        dots = Dots((hlc, actor), dict(_ACTOR.iter_unpack(value[begin:middle])))
        for hlc, actor, index, length in _ELEMENT.iter_unpack(value[middle:end]):
            dots.elements[hlc, actor, index] = value[end : end + length]
            end += length
    except error:
        return None
    is_whole = all(map(dots.covers, dots.elements)) and encode_dots(dots) == value
    return dots if is_whole else None


def dots_of(entry: Entry) -> Dots | None:
    """Return an entry's dot store, or None if it has none that can be read.

    One that claims to have seen more than its version is none: only a broken writer makes it.
    """
    if not _HAS_DOTS[entry.kind]:
        return None
    dots = parse_dots(entry.value)
    if dots is None:
        return None
    latest = max([dots.floor, *((hlc, actor) for actor, hlc in dots.seen.items())])
    return dots if latest <= (entry.hlc, entry.actor) else None


def join_entries(known: Entry, other: Entry) -> Entry:
    """Join two entries of one name, at least one of which has dots; ``known`` if that adds nothing.

    Of two plain ones, or of what cannot be read, the greater (version, kind, value, base) stays.
    """
    ours, theirs = dots_of(known), dots_of(other)
    if ours is None and theirs is None:
        return max(known, other, key=_rank)
    if ours is None or theirs is None:
        plain, merged, dots = (known, other, theirs) if ours is None else (other, known, ours)
        if _version(merged) <= _version(plain):
            return plain
        assert dots is not None
        return _with_dots(merged, _join(dots, Dots(_version(plain))))
    # Both are versions of one value: what is told of it comes from the later write.
    later = max(known, other, key=_origin)
    joined = _with_dots(later, _join(ours, theirs))
    return known if joined == known else joined


def _join(a: Dots, b: Dots) -> Dots:
    floor = max(a.floor, b.floor)
    elements = {}
    for one, another in ((a, b), (b, a)):
        for dot, payload in one.elements.items():
            twin = another.elements.get(dot)
            if twin is not None:
                # One write with two contents has a broken writer; all replicas choose alike.
                elements[dot] = max(payload, twin)
            elif not another.covers(dot):
                elements[dot] = payload
    seen = dict(a.seen)
    for actor, hlc in b.seen.items():
        seen[actor] = max(hlc, seen.get(actor, 0))
    while len(seen) > _U16_MAX:
        del seen[min(seen, key=seen.__getitem__)]
    return Dots(floor, seen, dict(sorted(elements.items())[-_U16_MAX:]))


def _with_dots(entry: Entry, dots: Dots) -> Entry:
    value = encode_dots(dots)
    return entry if value == entry.value else msgspec.structs.replace(entry, value=value)


def _version(entry: Entry) -> tuple[int, int]:
    return entry.hlc, entry.actor


def _rank(entry: Entry) -> tuple[int, int, int, bytes, int]:
    return entry.hlc, entry.actor, entry.kind, entry.value, entry.base


def _origin(entry: Entry) -> tuple[int, int, int, int]:
    return entry.hlc, entry.actor, entry.kind, entry.base
