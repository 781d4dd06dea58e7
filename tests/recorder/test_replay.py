"""What was recorded of a node is run again, and gives the same; another core does not."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.recorder.conftest import SECRET
from tribes.channel.tickets import Ticket
from tribes.config.secret import Secret
from tribes.manager import table
from tribes.recorder.file import read_recording
from tribes.recorder.replay import SegmentResult, replay
from tribes.security.keys import GroupKey
from tribes.timers import Timers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.recorder.conftest import Recorded

Record = Callable[..., AbstractAsyncContextManager["Recorded"]]


def run(path: Path) -> list[SegmentResult]:
    return list(replay(read_recording(path)))


def files(directory: Path) -> list[Path]:
    return list(directory.glob("n1-*.tribes"))


def events(results: list[SegmentResult]) -> list[str]:
    return [line.event for each in results for line in each.lines]


@pytest.fixture(params=["own", "sealed", "plain"])
def channel(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The own link, the same sealed, and Tomcat's."""
    if request.param == "sealed":
        return {"keys": Secret(GroupKey(1, os.urandom(32)).to_text())}
    return {"own_link": request.param == "own"}


async def test_a_recording_gives_the_same_outputs_again(
    record: Record, channel: dict[str, Any]
) -> None:
    """From the start of the node on, over commits, messages and a member that leaves."""
    async with record(channel) as group:
        await group.work()
        path = await group.write()
    results = run(path)
    assert [each.difference for each in results] == [None, None]
    assert results[0].ran
    assert results[0].run == results[0].steps > 100
    assert results[0].outputs > 100
    assert "member added" in events(results)


async def test_a_recording_begins_wherever_its_ring_does(
    record: Record, channel: dict[str, Any]
) -> None:
    """A state in the middle of the work is as good as the start; old segments are gone."""
    async with record(channel, seconds=1) as group:
        recorder = group.node.sessions.recorder
        assert recorder is not None
        ring = recorder.ring
        first = ring.segments[0]
        with trio.fail_after(30):
            while first in ring.segments or len(ring.segments) < 2:
                await group.work(8)
                await trio.sleep(0.05)
        seen = ring.steps_seen
        path = await group.write()
    results = run(path)
    assert len(results) >= 2
    assert all(each.ran for each in results)
    assert [each.difference for each in results] == [None] * len(results)
    assert sum(each.steps for each in results) < seen
    assert sum(each.outputs for each in results) > 10


@pytest.mark.parametrize(
    ("owner", "name", "instead"),
    [
        pytest.param(Ticket, "settle", lambda *_: None, id="nobody acknowledges"),
        pytest.param(table, "merge", lambda before, _: before, id="nothing is merged"),
        pytest.param(Timers, "run_due", lambda *_: None, id="time stands still"),
    ],
)
async def test_a_core_with_another_rule_is_seen(
    record: Record, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, instead: object
) -> None:
    """It says at which input, and tells the rest of the time as it was recorded."""
    async with record() as group:
        await group.work()
        path = await group.write()
    monkeypatch.setattr(owner, name, instead)
    result, _ = run(path)
    assert result.difference is not None
    assert 0 < result.run <= result.steps
    assert result.difference.why
    assert "member added" in events([result])


async def test_without_contents_nothing_of_a_session_is_in_the_file(record: Record) -> None:
    """No value, no id, no key, no message; but what happened."""
    key = os.urandom(32)
    async with record({"keys": Secret(GroupKey(1, key).to_text())}) as group:
        await group.work()
        ids = group.node.manager("shop").list_ids()
        path = await group.write(contents=False)
        full = await group.write()
    assert ids
    whole = full.read_bytes()
    assert SECRET.encode() in whole
    assert ids[0].encode() in whole
    data = path.read_bytes()
    for secret in (SECRET.encode(), key, b"from the other side", *(i.encode() for i in ids)):
        assert secret not in data
    results = run(path)
    assert not results[0].ran
    assert "member added" in events(results)
    assert path.stat().st_mode & 0o777 == full.stat().st_mode & 0o777 == 0o600


async def test_what_the_core_did_not_expect_leaves_a_recording(
    record: Record, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A crash of the core writes the ring, without contents, before the node ends."""

    class ExpectedError(Exception):
        """Of this test."""

    run_due = Timers.run_due

    def fail(timers: Timers, now: float) -> None:
        if timers is broken:
            raise ExpectedError(SECRET)
        run_due(timers, now)

    broken: Timers | None = None
    monkeypatch.setattr(Timers, "run_due", fail)

    async def meet() -> None:
        nonlocal broken
        async with record() as group:
            await group.work(2)
            broken = group.node.shell.core.channel.timers
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        await meet()
    assert caught.group_contains(ExpectedError)
    [path] = files(tmp_path)
    recording = read_recording(path)
    assert recording.is_redacted
    # What an error says may be a key; where it was raised may not.
    assert SECRET.encode() not in path.read_bytes()
    assert re.fullmatch(r"ExpectedError, test_replay\.py:\d+", recording.head["why"])
    assert recording.segments[-1].steps[-1].raised == "ExpectedError"
