"""Sessions for tests: hypothesis strategies for records and values, and a manager with fake clocks.

Times, actors and names come from small ranges on purpose: what two writers do at the same moment to
the same name is where merging is hard.
"""

from __future__ import annotations

import random
import threading
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from tribes.manager.base import SessionManager
from tribes.manager.clock import Clock, ms_to_hlc
from tribes.manager.dots import Dots, encode_dots, has_dots
from tribes.manager.inbox import Inbox
from tribes.manager.record import (
    LARGE_VALUE_BYTES,
    WHOLE,
    Entry,
    Kind,
    Life,
    Namespace,
    Parsed,
    Record,
    pack,
)
from tribes.manager.table import SessionTable
from tribes.manager.values import ValueCodec

__all__ = ["FakeTime", "dot_stores", "entries", "make_manager", "records", "session_values"]

START_MS = 1_700_000_000_000
START_HLC = ms_to_hlc(START_MS)


class FakeTime:
    """The clocks of one machine; time passes when a test says so."""

    def __init__(self, *, wall_ms: int = START_MS, monotonic_s: float = 1000.0) -> None:
        self.wall = wall_ms
        self.monotonic_s = monotonic_s

    def wall_ms(self) -> int:
        """Read the wall clock."""
        return self.wall

    def monotonic(self) -> float:
        """Read the monotonic clock."""
        return self.monotonic_s

    def sleep(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self.wall += int(seconds * 1000)
        self.monotonic_s += seconds


def make_manager(
    *,
    actor: int = 1,
    clocks: FakeTime | None = None,
    seed: int = 0,
    inbox_bytes: int = 2**30,
    codec: ValueCodec | None = None,
    context: str = "shop",
    **settings: Any,
) -> SessionManager:
    """Make a manager with a table, an inbox and clocks of its own.

    Args:
        actor: Of its clock.
        clocks: Its clocks; by default ones that stand still.
        seed: Of its session ids.
        inbox_bytes: Bound of its inbox.
        codec: For its values.
        context: Its name.
        settings: Passed on to `SessionManager`.
    """
    clocks = clocks or FakeTime()
    inbox = Inbox(threading.Lock(), max_bytes=inbox_bytes)
    return SessionManager(
        context,
        SessionTable(threading.Lock(), inbox),
        Clock(clocks.wall_ms, actor, threading.Lock()),
        inbox=inbox,
        codec=codec or ValueCodec(),
        entropy=random.Random(seed).randbytes,
        monotonic=clocks.monotonic,
        **settings,
    )


_offsets = st.integers(0, 20) | st.integers(0, 2**40)
_namespaces = st.sampled_from([*Namespace, Namespace.ATTRIBUTE, Namespace.CONTAINER, 9])
_kinds = st.sampled_from(
    [Kind.LAST_WRITER, Kind.LAST_WRITER, Kind.TOMBSTONE, Kind.SET, Kind.SET, Kind.APPEND, 5, 9]
)
_names = st.sampled_from([b"a", b"b", b"cart", "größe".encode(), b"n" * 130]) | st.text(
    min_size=1, max_size=40
).map(str.encode)
_actors = st.sampled_from([1, 2, 0x01010101, 0x01000000, 2**32 - 1]) | st.integers(0, 2**32 - 1)
_contents = (
    st.binary(max_size=6)
    | st.binary(min_size=127, max_size=130)
    | st.sampled_from([b"v" * LARGE_VALUE_BYTES, b"v" * (LARGE_VALUE_BYTES + 1)])
)


@st.composite
def dot_stores(draw: st.DrawFn, *, hlc: int, actor: int) -> bytes:
    """Values that merge by element, of writers who had seen writes up to a version."""
    latest = (hlc, actor)
    times = st.integers(max(hlc - 4, 1), hlc)
    versions = st.tuples(times, st.integers(1, 3)).filter(lambda version: version <= latest)
    seen = dict(draw(st.lists(versions.map(lambda v: (v[1], v[0])), max_size=3)))
    floor = draw(st.just((0, 0)) | versions) if hlc > 4 else (0, 0)
    dots = Dots(floor, {a: h for a, h in seen.items() if (h, a) > floor})
    for version in draw(st.lists(versions, max_size=5)):
        dot = (*version, draw(st.integers(0, 1)) | 1 << 12)
        if dots.covers(dot):
            # A writer gives each element one content; two test broken writers.
            dots.elements[dot] = bytes((dot[0] & 255, dot[1], draw(st.sampled_from([0, 0, 0, 1]))))
    return encode_dots(dots)


@st.composite
def entries(draw: st.DrawFn, *, created: int, access: int) -> Entry:
    """Entries written between two moments."""
    hlc = created + min(draw(_offsets), access - created)
    base = draw(st.sampled_from([0, 0, 1, max(hlc - 3, 1)]))
    kind, actor = int(draw(_kinds)), draw(_actors)
    contents = _contents
    if has_dots(kind) and hlc and draw(st.integers(0, 9)):
        contents = dot_stores(hlc=hlc, actor=actor)
    return Entry(
        int(draw(_namespaces)),
        kind,
        draw(_names),
        draw(contents),
        hlc,
        actor,
        base if base < hlc else 0,
    )


@st.composite
def records(
    draw: st.DrawFn,
    *,
    created: int | None = None,
    lives: tuple[Life, ...] = (Life.LIVE, Life.LIVE, Life.LIVE, Life.EXPIRED, Life.DESTROYED),
    max_entries: int = 6,
) -> Record:
    """Records, whole or delta, in every life.

    Args:
        draw: Given by hypothesis.
        created: hlc of the creation; by default one of a few.
        lives: To choose from.
        max_entries: Bound of the entries.
    """
    life = draw(st.sampled_from(lives))
    if created is None:
        created = START_HLC + draw(st.integers(0, 2))
    access = created + draw(_offsets)
    last_seen = draw(st.integers(-(2**20), 2**20))
    flags = draw(st.sampled_from([0, 0, WHOLE, 0x40]))
    if life is Life.DESTROYED:
        return pack(Parsed(life, flags & ~WHOLE, access, access, last_seen))
    parsed = Parsed(life, flags, created, access, last_seen)
    drawn = st.lists(entries(created=created, access=access), max_size=max_entries)
    for entry in draw(drawn):
        parsed.put(entry)
    return pack(parsed)


_zones = st.sampled_from(
    [
        None,
        UTC,
        timezone(timedelta(hours=-3, minutes=-30)),
        timezone(timedelta(microseconds=1), "odd"),
        ZoneInfo("Europe/Berlin"),
    ]
)
_folds = st.integers(0, 1)
_hashable = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**200), 2**200)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.complex_numbers()
    | st.decimals()
    | st.uuids()
    | st.dates()
    | st.timedeltas()
    | st.builds(datetime.replace, st.datetimes(timezones=_zones), fold=_folds)
    | st.builds(time.replace, st.times(timezones=_zones), fold=_folds)
)
# A signalling NaN can be stored, but has no hash.
_keys = _hashable.filter(lambda value: not (isinstance(value, Decimal) and value.is_snan()))
_nested_keys = _keys | st.tuples(_keys, _keys) | st.frozensets(_keys, max_size=3)


def session_values() -> st.SearchStrategy[Any]:
    """Return values that a session can hold, of every built-in type, nested."""
    return st.recursive(
        _hashable,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.lists(inner, max_size=4).map(tuple)
            | st.dictionaries(_nested_keys, inner, max_size=4)
            | st.sets(_nested_keys, max_size=4)
            | st.frozensets(_nested_keys, max_size=4)
        ),
        max_leaves=12,
    )
