"""Leaving a group on real sockets: receipts, files, and what the log says for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
import trio.lowlevel
from structlog.testing import capture_logs

from tests.runtime.test_group_channel import together
from tribes.config.model import NodeConfig
from tribes.runtime.group_channel import GroupChannel

if TYPE_CHECKING:
    from pathlib import Path

MakeConfig = Callable[..., NodeConfig]


def keeping(config: NodeConfig, pathname: Path) -> NodeConfig:
    manager = msgspec.structs.replace(config.manager, pathname=str(pathname))
    return msgspec.structs.replace(config, manager=manager)


async def write(channel: GroupChannel, value: object) -> str:
    session = channel.manager("app").create()
    session["value"] = value
    await channel.acommit(session)
    return str(session.id)


def read(channel: GroupChannel, session_id: str) -> Any:
    session = channel.manager("app").find(session_id)
    return None if session is None else session.get("value")


@pytest.mark.parametrize("retires", [True, False])
async def test_member_that_leaves_has_receipts_and_saves_nothing(
    make_config: MakeConfig, tmp_path: Path, *, retires: bool
) -> None:
    """Another one has it all, whether it was said before that this one will leave or not."""
    config = keeping(make_config("a", contexts=("app",)), tmp_path / "a")
    with capture_logs() as logs:
        async with GroupChannel(make_config("b", contexts=("app",))) as b:
            async with GroupChannel(config) as a:
                await together(a, b)
                assert await a.await_joined()
                assert a.is_ready
                session_id = await write(a, 1)
                if retires:
                    a.retire()
                    assert not a.is_ready
            assert not a.is_ready
            assert read(b, session_id) == 1
            assert a.drain_report is not None
            assert a.drain_report.is_complete
            assert not a.drain_report.is_last
            assert not (tmp_path / "a").exists()
    told = [each["event"] for each in logs]
    assert told.count("draining") == retires
    assert told.count("member draining") == 1
    assert told.count("drained") == 1


async def test_last_member_saves_and_the_next_start_goes_on(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    """Also what was written before the channel's body ended."""
    config = keeping(make_config("a", contexts=("app",)), tmp_path / "a")
    with capture_logs() as logs:
        async with GroupChannel(config) as a:
            session_id = await write(a, 1)
        assert a.drain_report is not None
        assert a.drain_report.saved == {"app": str(tmp_path / "a")}
        async with GroupChannel(config) as a:
            assert read(a, session_id) == 1
            assert not (tmp_path / "a").exists()
    assert [x["event"] for x in logs if x["event"].startswith("saved")] == ["saved sessions loaded"]
    assert len([each for each in logs if each["event"] == "sessions saved"]) == 2


async def test_body_that_fails_leaves_at_once(make_config: MakeConfig, tmp_path: Path) -> None:
    """No drain, no file: what went wrong may have been the sessions."""
    config = keeping(make_config("a", contexts=("app",)), tmp_path / "a")
    try:
        async with GroupChannel(config) as a:
            await write(a, 1)
            raise KeyError
    except* KeyError:
        pass
    assert a.drain_report is None
    assert not (tmp_path / "a").exists()


async def test_node_without_sessions_says_nothing(make_config: MakeConfig) -> None:
    """There is nothing that could end."""
    with capture_logs() as logs:
        async with GroupChannel(make_config("a", contexts=("app",))):
            await trio.lowlevel.checkpoint()
    assert logs == []
