"""Recordings as files: blocks of msgpack behind a head, and a checksum over all.

::

    "TRIBES-RECORDING" | u8 version | blocks | u32 0 | SHA-256 of everything before it
    block: u32 length | one msgpack value

The first block is the head. Each segment is a block that says how many rows and steps follow, then
blocks of rows, then, where the contents are left out, blocks of steps; else the steps are rows.
A row may be cut: its parts follow each other, all but the first beginning with ``"+"``.

A file is somebody else's input: every length is checked against what is left of it before anything
is made of it, a block is at most 16 MiB, and what does not fit the layout is a `RecordingError`.
The checksum finds damage; it proves nothing about who made the file.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import msgspec

from tribes.errors import RecordingError, RemoteProtocolError
from tribes.recorder.freeze import freeze
from tribes.recorder.inputs import event_fields
from tribes.recorder.redact import without_contents
from tribes.wire.codec import pack, unpack

if TYPE_CHECKING:
    from pathlib import Path

    from tribes.recorder.ring import Ring, Segment, Step

__all__ = [
    "FILE_MAX_BYTES",
    "SUFFIX",
    "VERSION",
    "NotedSegment",
    "NotedStep",
    "Recording",
    "read_recording",
    "write_recording",
]

SUFFIX: Final = ".tribes"
VERSION: Final = 1
FILE_MAX_BYTES: Final = 2 << 30
_MAGIC: Final = b"TRIBES-RECORDING"
_LENGTH: Final = struct.Struct(">I")
_BLOCK_BYTES: Final = 1 << 20
"""A block is written when it has so many: one value more may make it longer."""
_BLOCK_MAX_BYTES: Final = 16 << 20
_ROWS_MAX: Final = 50_000_000


class NotedStep(msgspec.Struct):
    """A step as a file has it; see `tribes.recorder.ring.Step`.

    Attributes:
        args: References into the segment's rows, or values.
        events: Name and fields of each.
    """

    op: str
    at: float
    args: Any
    answers: Any
    changes: Any
    clock: int
    raised: str
    events: list[Any]


class NotedSegment(msgspec.Struct):
    """A segment as a file has it.

    Attributes:
        rows: Of its state, and of what its steps refer to.
        roots: References to the core, its clock and its inbox; empty: there is no state.
    """

    at: float
    wall_ms: int
    roots: dict[str, Any]
    rows: list[Any]
    steps: list[NotedStep]


class Recording(msgspec.Struct):
    """A file.

    Attributes:
        head: Who wrote it, when and why.
        segments: In order.
    """

    head: dict[str, Any]
    segments: list[NotedSegment]

    @property
    def is_redacted(self) -> bool:
        """Whether it has no contents, and so cannot be run."""
        return bool(self.head.get("redacted"))


# Writing.


def write_recording(
    path: Path, ring: Ring, *, node: str, release: str, contents: bool, why: str
) -> dict[str, Any]:
    """Write what a ring holds. May be called in any thread while it goes on.

    Args:
        path: A file that does not exist; only its owner may read it.
        ring: What is kept.
        node: Name of the node.
        release: Version of the program.
        contents: With sessions, messages and keys, which takes to run it; else without.
        why: Who wanted it.

    Returns:
        What is in it.

    Raises:
        OSError: It cannot be written.
    """
    segments = [(each, list(each.steps)) for each in list(ring.segments)]
    steps = [step for _, each in segments for step in each]  # the newest segment may have none yet
    seconds = steps[-1].at - segments[0][0].at if steps else 0.0
    salt = None if contents else os.urandom(16)
    head: dict[str, Any] = {
        "node": node,
        "release": release,
        "redacted": not contents,
        "why": why,
        "segments": len(segments),
        "changes_lost": ring.changes_lost,
    }
    made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(made, "wb") as file:
        try:
            _write_all(file, head, segments, salt)
        except BaseException:
            # A part of one is no recording, and would count as one.
            path.unlink(missing_ok=True)
            raise
    return {
        "path": str(path.resolve()),
        "bytes": path.stat().st_size,
        "steps": len(steps),
        "seconds": round(seconds, 3),
        "redacted": not contents,
        "can_replay": contents and any(each.state is not None for each, _ in segments),
    }


def _write_all(
    file: BinaryIO,
    head: dict[str, Any],
    segments: list[tuple[Segment, list[Step]]],
    salt: bytes | None,
) -> None:
    digest = sha256()

    def put(data: bytes) -> None:
        digest.update(data)
        file.write(data)

    put(_MAGIC + bytes((VERSION,)))
    _put_block(put, head)
    for segment, noted in segments:
        for block in _blocks_of(segment, noted, salt):
            _put_block(put, block)
    put(_LENGTH.pack(0))
    file.write(digest.digest())
    file.flush()


def _put_block(put: Any, value: Any) -> None:
    data = pack(value)
    put(_LENGTH.pack(len(data)) + data)


def _blocks_of(segment: Segment, steps: list[Step], salt: bytes | None) -> Iterator[Any]:
    if salt is not None:
        yield _segment_head(segment, {}, 0, len(steps))
        yield from _grouped(without_contents(each, salt) for each in steps)
        return
    state = segment.state
    rows = [] if state is None else list(state.rows)
    plain = [_plain_step(each) for each in steps]
    # One walk for all steps: what they share is there once. Their rows follow the state's.
    noted = freeze({"steps": plain})
    shift = len(rows)
    rows += [_shifted(row, shift) for row in noted.rows]
    roots = {} if state is None else dict(state.roots)
    roots["steps"] = _shifted(noted.roots["steps"], shift)
    parts = list(_cut(rows))
    yield _segment_head(segment, roots, len(parts), 0)
    yield from _grouped(parts)


def _segment_head(segment: Segment, roots: Any, rows: int, steps: int) -> dict[str, Any]:
    return {
        "at": segment.at,
        "wall_ms": segment.wall_ms,
        "roots": roots,
        "rows": rows,
        "steps": steps,
    }


def _plain_step(step: Step) -> list[Any]:
    events = [[each.name, event_fields(each)] for each in step.events]
    return [
        *(step.op, step.at, step.args, step.answers, step.changes, step.clock, step.raised),
        events,
    ]


def _shifted(row: Any, shift: int) -> Any:
    """References of one walk as those of a longer list of rows."""
    if type(row) is list and len(row) == 1 and type(row[0]) is int:
        return [row[0] + shift]
    return [[each[0] + shift] if type(each) is list and len(each) == 1 else each for each in row]


def _cut(rows: Iterable[list[Any]]) -> Iterator[list[Any]]:
    for row in rows:
        start, size = 0, 0
        for at, value in enumerate(row):
            size += 9 if not isinstance(value, str | bytes) else 9 + len(value)
            if size > _BLOCK_BYTES:
                yield row[start : at + 1] if not start else ["+", *row[start : at + 1]]
                start, size = at + 1, 0
        if start < len(row) or not row:
            yield row[start:] if not start else ["+", *row[start:]]


def _grouped(values: Iterable[Any]) -> Iterator[list[Any]]:
    group: list[Any] = []
    size = 0
    for value in values:
        group.append(value)
        size += 9 + _size(value)
        if size > _BLOCK_BYTES or len(group) >= 20_000:
            yield group
            group, size = [], 0
    if group:
        yield group


def _size(value: Any) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, list | tuple):
        return sum(9 + _size(each) for each in value)
    if isinstance(value, dict):
        return sum(18 + _size(name) + _size(each) for name, each in value.items())
    return 9


# Reading.


def read_recording(path: Path, *, max_bytes: int = FILE_MAX_BYTES) -> Recording:
    """Read a file.

    Args:
        path: Of the file.
        max_bytes: Longer ones are refused.

    Raises:
        RecordingError: It is none, damaged, too long, or of a later release.
    """
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise RecordingError(f"{path} has {size} bytes; at most {max_bytes} are read")
        data = path.read_bytes()
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return _parse(data)
    except RecordingError as why:
        raise RecordingError(f"{path}: {why}") from None


def _parse(data: bytes) -> Recording:
    start = len(_MAGIC) + 1
    if data[: len(_MAGIC)] != _MAGIC or len(data) < start:
        raise RecordingError("this is no flight recording")
    if data[len(_MAGIC)] != VERSION:
        raise RecordingError(
            f"it has the version {data[len(_MAGIC)]}; this release reads version {VERSION}"
        )
    blocks = _blocks(data, start)
    try:
        head = next(blocks)
        if not isinstance(head, dict) or type(head.get("segments")) is not int:
            raise RecordingError("its head is damaged")
        found = Recording(head, [])
        for _ in range(head["segments"]):
            found.segments.append(_segment(blocks))
    except StopIteration:
        raise RecordingError("it ends too early") from None
    except RecordingError:
        raise
    except (TypeError, ValueError, LookupError, OverflowError) as why:
        raise RecordingError(f"it is damaged: {why}") from None
    return found


def _blocks(data: bytes, at: int) -> Iterator[Any]:
    # The checksum first: nothing is made of a damaged file.
    if len(data) < at + _LENGTH.size + 32 or data[-36:-32] != _LENGTH.pack(0):
        raise RecordingError("it ends too early")
    if sha256(data[:-32]).digest() != data[-32:]:
        raise RecordingError("its checksum is wrong: it is damaged")
    end = len(data) - 36
    while at < end:
        if end - at < _LENGTH.size:
            raise RecordingError("a block is cut")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if not 0 < length <= min(_BLOCK_MAX_BYTES, end - at):
            raise RecordingError(f"a block claims {length} bytes")
        try:
            yield unpack(data[at : at + length])
        except RemoteProtocolError as why:
            raise RecordingError(str(why)) from None
        at += length


def _segment(blocks: Iterator[Any]) -> NotedSegment:
    known = next(blocks)
    rows: list[Any] = []
    count, steps = known["rows"], known["steps"]
    if not (type(count) is type(steps) is int and 0 <= count <= _ROWS_MAX):
        raise RecordingError("a segment is damaged")
    found = NotedSegment(float(known["at"]), int(known["wall_ms"]), dict(known["roots"]), rows, [])
    parts = 0
    while parts < count:
        block = next(blocks)
        parts += len(block)
        _take_rows(rows, block)
    while len(found.steps) < steps:
        for each in next(blocks):
            found.steps.append(NotedStep(*each))
    return found


def _take_rows(rows: list[Any], block: Any) -> None:
    for row in block:
        if not isinstance(row, list):
            raise RecordingError("a row is none")
        if row and row[0] == "+":
            rows[-1] += row[1:]
        else:
            rows.append(row)
