"""A node that records, on real loopback sockets, with another member."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from tests.runtime.conftest import make_config
from tests.waiting import until
from tribes.config.recorder import RecorderConfig
from tribes.runtime.group_channel import GroupChannel

if TYPE_CHECKING:
    from tribes.config.model import NodeConfig

__all__ = ["Recorded", "make_config"]

SECRET = "what-only-the-session-knows"


class Recorded:
    """The two members.

    Attributes:
        node: Records.
        other: The other one.
    """

    def __init__(self, node: GroupChannel, other: GroupChannel) -> None:
        self.node = node
        self.other = other

    async def work(self, rounds: int = 20) -> None:
        """Sessions of both, used on both, and messages."""
        for member in (self.node, self.other):
            member.add_message_listener(lambda _: None, inline=True)
        here, there = self.node.manager("shop"), self.other.manager("shop")
        for number in range(rounds):
            session = here.create()
            session["secret"] = SECRET
            await self.node.acommit(session)
            found = there.find(session.id)
            assert found is not None
            found["count"] = number
            await self.other.acommit(found)
            if number % 5 == 0:
                again = here.find(session.id)
                assert again is not None
                again.invalidate()
                await self.node.acommit(again)
            await self.node.send(SECRET.encode(), options=6)
            await self.other.send(b"from the other side", options=8)

    async def write(self, *, contents: bool = True) -> Path:
        """The recording so far."""
        recorder = self.node.sessions.recorder
        assert recorder is not None
        recorder.ring.mark()
        said = await trio.to_thread.run_sync(
            lambda: recorder.write(contents=contents, why="a test")
        )
        return Path(said["path"])


@pytest.fixture
def record(make_config: Callable[..., NodeConfig], tmp_path: Path) -> Callable[..., Any]:
    """Enters a `Recorded`; keywords are the recorder's settings, ``channel`` the channel's."""

    @asynccontextmanager
    async def entered(
        channel: dict[str, Any] | None = None, **settings: Any
    ) -> AsyncIterator[Recorded]:
        def config(name: str, **more: Any) -> NodeConfig:
            made = make_config(name, contexts=("shop",), send_options=6)
            changed = msgspec.structs.replace(made.channel, **(channel or {}))
            return msgspec.structs.replace(made, channel=changed, **more)

        recorder = RecorderConfig(directory=str(tmp_path), **settings)
        async with (
            GroupChannel(config("n1", recorder=recorder)) as node,
            GroupChannel(config("n2")) as other,
        ):
            await until(lambda: node.members and node.is_ready and other.is_ready)
            yield Recorded(node, other)

    return entered
