"""What the recorder keeps has bounds, and says what is not in it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from tests.waiting import until
from tribes.config.model import check_config
from tribes.config.recorder import RecorderConfig
from tribes.errors import ConfigError, RecordingError
from tribes.recorder import file
from tribes.recorder.file import read_recording
from tribes.recorder.replay import replay
from tribes.runtime.group_channel import GroupChannel
from tribes.runtime.replicated_map import ReplicatedMap

if TYPE_CHECKING:
    from pathlib import Path

    from tests.recorder.conftest import Recorded
    from tribes.config.model import NodeConfig

Record = Callable[..., AbstractAsyncContextManager["Recorded"]]

MIB = 1 << 20


async def test_inputs_are_kept_up_to_their_bytes(record: Record) -> None:
    """The oldest go, and what is left begins with a state and can be run."""
    async with record(max_bytes=MIB) as group:
        recorder = group.node.sessions.recorder
        assert recorder is not None
        segments = recorder.ring.segments
        first = segments[0]
        for _ in range(60):
            await group.other.send(bytes(50_000), options=6)
            assert sum(each.bytes for each in segments) <= MIB
        assert first not in segments
        assert sum(each.bytes for each in segments) > MIB // 3
        path = await group.write()
    results = list(replay(read_recording(path)))
    assert [each.difference for each in results] == [None] * len(results)
    assert all(each.ran for each in results)


async def test_too_large_a_state_leaves_a_timeline(record: Record) -> None:
    """A node with more sessions than a third of the memory is not held up by noting them."""
    async with record(max_bytes=MIB, seconds=1) as group:
        manager = group.node.manager("shop")
        for _ in range(20):
            session = manager.create()
            session["much"] = bytes(30_000)
            await group.node.acommit(session)
        recorder = group.node.sessions.recorder
        assert recorder is not None
        # A state is noted every half a second, if anything happens then.
        await until(lambda: recorder.ring.too_large > 0)
        await group.work(2)
        path = await group.write()
    last = list(replay(read_recording(path)))[-1]
    assert not last.ran


async def test_a_full_directory_is_not_made_fuller(record: Record) -> None:
    """Further recordings are refused, and it says which key to change."""
    async with record(files_max=2) as group:
        await group.write()
        await group.write(contents=False)
        with pytest.raises(RecordingError, match="files_max"):
            await group.write()


async def test_a_recording_that_cannot_be_written_leaves_nothing(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk half a file would count as one, and nobody could read it."""

    def full(*_: object) -> Iterator[object]:
        yield {}
        raise OSError(errno.ENOSPC, "No space left on device")

    async with record() as group:
        with monkeypatch.context() as patched:
            patched.setattr(file, "_blocks_of", full)
            with pytest.raises(RecordingError, match="No space left"):
                await group.write()
        assert await trio.to_thread.run_sync(os.listdir, tmp_path) == []
        await group.write()


async def test_a_map_that_was_closed_is_not_kept(record: Record) -> None:
    """Neither are its entries, nor do they count for the size of a state."""
    async with record() as group:
        recorder = group.node.sessions.recorder
        assert recorder is not None
        ring = recorder.ring
        kept = len(ring._tables), len(ring._kept), len(ring._known)
        for _ in range(3):
            with ReplicatedMap(group.node, "prices") as prices:
                prices["apple"] = bytes(1000)
        await group.work(2)
        assert (len(ring._tables), len(ring._kept), len(ring._known)) == kept
        assert ring.changes_lost == 0
        path = await group.write()
    results = list(replay(read_recording(path)))
    assert [each.difference for each in results] == [None] * len(results)


async def test_without_a_directory_there_is_an_error(record: Record, tmp_path: Path) -> None:
    """The path, and what the system said."""
    await trio.Path(tmp_path).rmdir()
    async with record() as group:
        with pytest.raises(RecordingError, match="cannot be written: No such file"):
            await group.write()


async def test_without_its_section_nothing_is_recorded(
    make_config: Callable[..., NodeConfig],
) -> None:
    """The core's own calls are where they were: it costs nothing."""
    async with GroupChannel(make_config("n1")) as node:
        core = node.shell.core
        assert node.sessions.recorder is None
        assert core.link_bytes == core.channel.link_bytes
        assert "take_outputs" not in vars(core)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (RecorderConfig(directory=""), "recorder.directory"),
        (RecorderConfig(directory="/r", seconds=0), "recorder.seconds"),
        (RecorderConfig(directory="/r", max_bytes=1), "recorder.max_bytes"),
        (RecorderConfig(directory="/r", files_max=0), "recorder.files_max"),
    ],
)
def test_values_that_cannot_work_are_refused(
    make_config: Callable[..., NodeConfig], config: RecorderConfig, key: str
) -> None:
    """With their key."""
    with pytest.raises(ConfigError) as caught:
        check_config(msgspec.structs.replace(make_config("n1"), recorder=config))
    assert caught.value.key == key
