"""The bytes of this release: samples of everything that travels or is kept, and their file.

``python -m tests.manager.golden`` writes the file anew. That is right until the release is out, and
for samples that are added; bytes that others have stored or still send never change afterwards.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from tribes.manager.dots import Dots, encode_dots
from tribes.manager.messages import (
    Confirm,
    Deltas,
    Digests,
    Draining,
    ExpireAnswer,
    ExpireAsk,
    Fetch,
    Fetched,
    Hello,
    Lack,
    Lock,
    LockVerb,
    ManagerMessage,
    Receipt,
    Records,
    Summary,
    Want,
)
from tribes.manager.placed_messages import (
    Answer,
    Loss,
    Lost,
    Places,
    PlaceState,
    Seek,
    Sought,
    Stale,
)
from tribes.manager.placement import PARTS
from tribes.manager.record import (
    WHOLE,
    Entry,
    Kind,
    Life,
    Namespace,
    Parsed,
    Record,
    pack,
    pack_delta,
    to_wire,
)

__all__ = ["FILE", "MESSAGES", "NOW_DS", "RECORDS", "VALUES", "encoded"]

FILE: Final = Path(__file__).parent.parent / "data" / "manager-0.1.0.json"
NOW_DS: Final = 5000
_HLC: Final = 0x018BCFE568000000


def _entry(
    namespace: int, kind: int, name: str, value: bytes, after: int, actor: int, base: int = 0
) -> Entry:
    return Entry(namespace, kind, name.encode(), value, _HLC + after, actor, base and _HLC + base)


def _record(life: Life, *entries: Entry, flags: int = WHOLE) -> Record:
    places = {(entry.namespace, entry.name): entry for entry in entries}
    return pack(Parsed(life, flags, _HLC, _HLC + 99, NOW_DS - 7, places))


def _dots(kind: int, *payloads: bytes) -> bytes:
    elements = {(_HLC + 9 + n, 1 + n, kind << 12 | n): p for n, p in enumerate(payloads)}
    return encode_dots(Dots((_HLC, 3), {1: _HLC + 9, 2: _HLC + 10}, elements))


_CONTAINER, _ATTRIBUTE = Namespace.CONTAINER, Namespace.ATTRIBUTE

RECORDS: Final[dict[str, Record]] = {
    "empty": _record(Life.LIVE),
    "attributes of two writers": _record(
        Life.LIVE,
        _entry(_ATTRIBUTE, Kind.LAST_WRITER, "cart", b"\x92\x01\x02", 5, 7),
        _entry(_ATTRIBUTE, Kind.LAST_WRITER, "größe", b"\xa1x", 300 - 230, 0xFFFFFFFF, 5),
    ),
    "removed attribute": _record(
        Life.LIVE, _entry(_ATTRIBUTE, Kind.TOMBSTONE, "cart", b"", 20, 7, 5)
    ),
    "set": _record(
        Life.LIVE, _entry(_ATTRIBUTE, Kind.SET, "s", _dots(1, b"\xa1a", b"\xa1b"), 11, 2)
    ),
    "counter": _record(
        Life.LIVE, _entry(_ATTRIBUTE, Kind.COUNTER, "n", _dots(2, b"\x07", b"\xff"), 11, 2)
    ),
    "list": _record(
        Life.LIVE, _entry(_ATTRIBUTE, Kind.APPEND, "l", _dots(3, b"\x01", b"\x02"), 11, 2)
    ),
    "large value": _record(
        Life.LIVE, _entry(_ATTRIBUTE, Kind.LAST_WRITER, "big", b"v" * 8193, 1, 1)
    ),
    "container, note, listener, mark": _record(
        Life.LIVE,
        _entry(_CONTAINER, Kind.LAST_WRITER, "idle", b"\x00\x00\x07\x08", 1, 1),
        _entry(_CONTAINER, Kind.LAST_WRITER, "id:ABC", b"A", 2, 1),
        _entry(_CONTAINER, Kind.TOMBSTONE, "id:ABD", b"R\x00\x1e", 2, 1),
        _entry(Namespace.NOTE, Kind.LAST_WRITER, "n", b"\xc0", 3, 1),
        _entry(Namespace.LISTENER, Kind.LAST_WRITER, "l", b"", 3, 1),
        _entry(Namespace.MARK, Kind.LAST_WRITER, "fired", b"", 3, 1),
    ),
    "of a later release": _record(
        Life.LIVE,
        _entry(_ATTRIBUTE, 6, "kind with elements", _dots(6, b"?"), 11, 2),
        _entry(_ATTRIBUTE, 9, "kind without", b"?", 11, 2),
        _entry(11, Kind.LAST_WRITER, "namespace", b"?", 11, 2),
        flags=WHOLE | 0x40,
    ),
    "300 writers": _record(
        Life.LIVE,
        *(_entry(_ATTRIBUTE, Kind.LAST_WRITER, f"a{n:03}", b"\x01", 1, n) for n in range(300)),
    ),
    "expired": _record(Life.EXPIRED, _entry(_ATTRIBUTE, Kind.LAST_WRITER, "a", b"\x01", 1, 1)),
    "destroyed": pack(Parsed(Life.DESTROYED, 0, _HLC + 9, _HLC + 9, NOW_DS)),
    "delta": pack_delta(
        _HLC,
        _HLC + 50,
        7,
        NOW_DS,
        0,
        [_entry(_ATTRIBUTE, Kind.LAST_WRITER, "a", b"\x2a", 50, 7, 9)],
    ),
    "touch": pack_delta(_HLC, _HLC + 50, 7, NOW_DS - 30, 0, []),
}

_DELTA: Final = to_wire(RECORDS["delta"], NOW_DS)
_KEY: Final = "0123456789ABCDEF" * 2

MESSAGES: Final[dict[str, ManagerMessage]] = {
    "hello": Hello("n1", ["app", "shop"], True),
    "deltas": Deltas("app", [(_KEY, _DELTA), ("k", b"")]),
    "summary": Summary("app", 3, list(range(2**64 - 64, 2**64))),
    "digests": Digests("app", 3, 9, [0, 63], {0: 1, 4095: 2**64 - 1}),
    "want": Want("app", 4, True, {0: [1, 2**64 - 1], 4095: []}),
    "lack": Lack("app", 4, [1, 2**64 - 1]),
    "fetch": Fetch("app", 5, "0123456789ABCDEF", 2**64 - 1, 2**32 - 1),
    "fetched": Fetched("app", 5, [], False),
    "records": Records("app", 3, [(_KEY, _DELTA)], False),
    "last records": Records("app", 2**63, [], True),
    "last records, some lost": Records("app", 3, [], True, True),
    "expire ask": ExpireAsk("app", 1, [(_KEY, _HLC)]),
    "lock": Lock("app", LockVerb.ASK, 7, 2, _KEY),
    "expire answer": ExpireAnswer("app", 1, [(_KEY, to_wire(RECORDS["touch"], NOW_DS))]),
    "draining": Draining(),
    "confirm": Confirm("app", 4, {0: 1, 4095: 2**64 - 1}),
    "receipt": Receipt("app", 4, [0, 4095]),
    "deltas of a part": Deltas("app\x1f7", [(_KEY, _DELTA)], 3),
    "places": Places(
        "app",
        5,
        1,
        "east",
        True,
        [PlaceState(part % 4) for part in range(PARTS)],
        [part % 3 for part in range(PARTS)],
        list(range(PARTS)),
    ),
    "stale": Stale("app", 63, 2**32 - 1, [b"0123456789abcdef"], [_KEY]),
    "seek": Seek("app", 1, _KEY, "", 2**64 - 1),
    "sought": Sought("app", 1, Answer.FOUND, _KEY, _DELTA),
    "lost": Lost("app", [Loss(_KEY, _DELTA, _DELTA)]),
    "sought in vain": Sought("app", 2, Answer.NONE),
}

VALUES: Final[dict[str, Any]] = {
    "None": None,
    "bool": [True, False],
    "int": [0, -1, 2**63, -(2**63), 2**200],
    "float": [0.0, -0.0, 1.5, float("inf")],
    "complex": 1 - 2j,
    "str": "größe",
    "bytes": b"\x00\xff",
    "list": [1, [2, []]],
    "dict": {"a": 1, 2: b"b", (3, 4): None},
    "tuple": (1, (2, ())),
    "set": {1, "a", (2,)},
    "frozenset": frozenset({1}),
    "datetime": datetime(2026, 11, 21, 6, 0, 0, 123, UTC),
    "datetime of a zone": datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    "naive datetime": datetime(2026, 11, 21),
    "date": date(2026, 11, 21),
    "time": time(6, 0, 0, 1),
    "timedelta": timedelta(-1, 2, 3),
    "Decimal": Decimal("-1.50E+3"),
    "UUID": UUID(int=5),
}


def encoded() -> dict[str, dict[str, str]]:
    """Everything as this release writes it, in hex; long runs of one byte are cut short."""
    from tribes.manager.values import ValueCodec

    codec = ValueCodec()
    return {
        "records": {name: to_wire(record, NOW_DS).hex() for name, record in RECORDS.items()},
        "messages": {name: message.encode().hex() for name, message in MESSAGES.items()},
        "values": {name: codec.encode(value).hex() for name, value in VALUES.items()},
    }


def shorten(text: str) -> str:
    """Write 8,193 times 76 in a line that people can read."""
    return re.sub(r"(..)\1{99,}", lambda run: f"<{run[1]}*{len(run[0]) // 2}>", text)


def restore(text: str) -> bytes:
    """The bytes of a shortened line."""
    return bytes.fromhex(re.sub(r"<(..)\*(\d+)>", lambda run: run[1] * int(run[2]), text))


def main() -> None:
    """Write the file."""
    lines = {
        kind: {name: shorten(text) for name, text in samples.items()}
        for kind, samples in encoded().items()
    }
    FILE.write_text(json.dumps(lines, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
