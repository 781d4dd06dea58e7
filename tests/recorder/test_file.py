"""A recording is somebody else's input: whatever is in it, there is a result or an error."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from hashlib import sha256
from math import inf
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio
from click.testing import CliRunner

from tribes.errors import RecordingError
from tribes.recorder.file import Recording, read_recording
from tribes.recorder.names import named
from tribes.recorder.replay import replay
from tribes.recorder.ring import Segment
from tribes.recorder.thaw import thaw
from tribes.testing.command import sim
from tribes.wire.codec import pack

if TYPE_CHECKING:
    from pathlib import Path

    from tests.recorder.conftest import Recorded

Record = Callable[..., AbstractAsyncContextManager["Recorded"]]

HEAD = b"TRIBES-RECORDING\x01"
ENDLESS = {"at": 0.0, "wall_ms": inf, "roots": {}, "rows": 0, "steps": 0}


def sealed(data: bytes) -> bytes:
    """With the end that a reader wants."""
    data += struct.pack(">I", 0)
    return data + sha256(data).digest()


def blocks(*values: Any) -> bytes:
    packed = [pack(value) for value in values]
    return b"".join(struct.pack(">I", len(each)) + each for each in packed)


def written(recording: Recording) -> bytes:
    """A file with these rows, whatever they are."""
    made = HEAD + blocks({**recording.head, "segments": len(recording.segments)})
    for each in recording.segments:
        known = {"at": each.at, "wall_ms": each.wall_ms, "roots": each.roots, "steps": 0}
        made += blocks({**known, "rows": len(each.rows)}, each.rows)
    return sealed(made)


def read(path: Path, data: bytes) -> Recording:
    path.write_bytes(data)
    return read_recording(path)


@pytest.fixture
async def recorded(record: Record) -> Path:
    """A file with contents."""
    async with record() as group:
        await group.work(4)
        return await group.write()


async def test_the_seconds_of_a_recording_reach_to_its_newest_input(record: Record) -> None:
    """Also right after the state was noted, when the newest segment has none."""
    async with record() as group:
        await group.work(4)
    recorder = group.node.sessions.recorder
    assert recorder is not None
    recorder.ring.segments.append(Segment(None, recorder.ring.segments[-1].at + 60, 0))
    assert 0 < recorder.write(contents=False, why="a test")["seconds"] < 60


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no flight recording"),
        (b"TRIBES-RECORDING", "no flight recording"),
        (b"TRIBES-RECORDING\x02" + bytes(60), "version 2"),
        (HEAD, "ends too early"),
        (sealed(HEAD), "ends too early"),
        (sealed(HEAD + b"\xff\xff\xff\xff"), "claims 4294967295 bytes"),
        (sealed(HEAD + b"\x00\x00\x00"), "cut"),
        (sealed(HEAD + blocks([1])), "head is damaged"),
        (sealed(HEAD + blocks({"segments": 1})), "ends too early"),
        (sealed(HEAD + blocks({"segments": 1}, {"rows": 1})), "damaged"),
        (sealed(HEAD + blocks({"segments": 1}, ENDLESS)), "damaged"),
        (sealed(HEAD + struct.pack(">I", 5) + b"\xdd\xff\xff\xff\xff"), "malformed"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    """Before anything is made of it, and it says what is wrong."""
    with pytest.raises(RecordingError, match=says):
        read(tmp_path / "r.tribes", data)


async def test_a_damaged_file_is_refused(recorded: Path, tmp_path: Path) -> None:
    """Any byte that is another one, and any end."""
    data = await trio.Path(recorded).read_bytes()
    random = Random(4)
    for _ in range(60):
        at = random.randrange(len(data))
        changed = bytearray(data)
        changed[at] ^= 1 << random.randrange(8)
        with pytest.raises(RecordingError):
            read(tmp_path / "r.tribes", bytes(changed))
        with pytest.raises(RecordingError):
            read(tmp_path / "r.tribes", data[:at])
    with pytest.raises(RecordingError, match="at most 1000 are read"):
        read_recording(recorded, max_bytes=1000)


@pytest.mark.slow
async def test_a_made_up_state_ends_in_an_error_or_a_difference(
    recorded: Path, tmp_path: Path
) -> None:
    """Rows that refer elsewhere, are of other kinds, hold other values: no other exception."""
    random = Random(7)
    outcomes = {"error": 0, "different": 0, "equal": 0}
    for _ in range(150):
        recording = read_recording(recorded)
        change(recording.segments[0].rows, random)
        try:
            results = list(replay(read(tmp_path / "r.tribes", written(recording))))
        except RecordingError:
            outcomes["error"] += 1
        else:
            outcomes["different" if results[0].difference else "equal"] += 1
    assert outcomes["error"] > 10
    assert outcomes["different"] + outcomes["equal"] > 3


def change(rows: list[Any], random: Random) -> None:
    row = rows[random.randrange(len(rows))]
    if not row:
        return
    at = random.randrange(len(row))
    others: list[Any] = [
        *(None, True, -1, 2**62, 0.5, "", "x" * 50, b"", [random.randrange(len(rows))], [-1]),
        *([2**40], "object", "closure", "tuple", "enum", "tribes.node", "NodeCore"),
    ]
    match random.randrange(3):
        case 0:
            row[at] = random.choice(others)
        case 1:
            del row[at]
        case _:
            row.insert(at, random.choice(others))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("tribes.runtime.shell", "Shell"),
        ("tribes.cli.app", "main"),
        ("tribes.config.load", "read_config"),
        ("tribes.wire.codec", "msgpack"),
        ("tribes.manager.table", "partition_of.__globals__"),
        ("builtins", "eval"),
        ("builtins", "type"),
        ("tribes.stores.file", "FileStore"),
    ],
)
def test_only_the_core_has_names(module: str, name: str) -> None:
    """Nothing that reads, writes, starts or reaches anything can be named in a file."""
    with pytest.raises(RecordingError):
        named(module, name)
    for kind in ("object", "class", "function", "constant", "closure", "enum", "struct", "record"):
        row = [kind, module, name, *([0, None, None, None] if kind == "closure" else [])]
        with pytest.raises(RecordingError):
            thaw([row], {})


async def test_the_command_shows_a_timeline_and_whether_it_is_equal(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit status 0 for equal, 1 for different, 3 for nothing to run, 1 and a text for no file."""
    shown = CliRunner().invoke(sim, ["--replay", str(recorded)])
    assert shown.exit_code == 0, shown.output
    assert "member added" in shown.output
    assert '"equal": true' in shown.output.splitlines()[-1]
    monkeypatch.setattr("tribes.timers.Timers.run_due", lambda *_: None)
    shown = CliRunner().invoke(sim, ["--replay", str(recorded)])
    assert shown.exit_code == 1
    assert "DIFFERENT at step" in shown.output
    shown = CliRunner().invoke(sim, ["--replay", str(tmp_path / "none")])
    assert shown.exit_code == 1
    assert "cannot be read" in shown.output
