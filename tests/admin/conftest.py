"""Two members on real loopback sockets; the first answers operators."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from tests.ports import free_udp_port
from tribes.admin import desk as desk_module
from tribes.admin.desk import Desk
from tribes.admin.gate import Gate, read_token
from tribes.admin.recorder import Failures
from tribes.admin.server import HttpServer
from tribes.config.http import HttpConfig
from tribes.config.model import (
    ChannelConfig,
    ManagerConfig,
    MembershipConfig,
    NodeConfig,
    ReceiverConfig,
)
from tribes.runtime.group_channel import GroupChannel

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "0123456789abcdef-secret"


@dataclass
class Operated:
    """A node with its port for operators.

    Attributes:
        channel: The node.
        other: A second member.
        port: Where it answers.
        http: A client that shows the token, if there is one.
        left: How often it was told to leave.
    """

    channel: GroupChannel
    other: GroupChannel
    port: int
    http: httpx.AsyncClient
    failures: Failures
    left: list[bool] = field(default_factory=list)

    async def post(self, path: str, **body: Any) -> httpx.Response:
        return await self.http.post(path, json=body)

    async def raw(self, data: bytes) -> bytes:
        """What comes back for some bytes, up to the end of the connection."""
        with trio.fail_after(20):
            stream = await trio.open_tcp_stream("127.0.0.1", self.port)
            async with stream:
                try:
                    await stream.send_all(data)
                    await stream.send_eof()
                except trio.BrokenResourceError:
                    pass
                answer = b""
                try:
                    async for chunk in stream:
                        answer += chunk
                except trio.BrokenResourceError:
                    pass
                return answer


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """A file with the token."""
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def operate(token_file: Path) -> Callable[..., Any]:
    """Makes an `Operated`; ``token=False``: without one."""
    group = free_udp_port()

    def config(name: str) -> NodeConfig:
        return NodeConfig(
            name=name,
            contexts=("shop",),
            channel=ChannelConfig(
                membership=MembershipConfig(port=group, frequency=50, drop_time=1000),
                receiver=ReceiverConfig(port=0),
            ),
            manager=ManagerConfig(channel_send_options=6),
        )

    @asynccontextmanager
    async def made(*, token: bool = True) -> AsyncIterator[Operated]:
        failures = Failures()
        gate = Gate(read_token(str(token_file)) if token else None)
        channel = GroupChannel(config("n1"), watch=failures.watch)
        left: list[bool] = []
        desk = Desk(channel, gate, failures, source="shop.toml", leave=lambda: left.append(True))
        headers = {"Authorization": f"Bearer {TOKEN}"} if token else {}
        async with trio.open_nursery() as nursery:
            server = HttpServer(HttpConfig(port=0), desk.answer)
            _, port = await nursery.start(server.serve)
            url = f"http://127.0.0.1:{port}"
            async with (
                httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as http,
                GroupChannel(config("n2")) as other,
                channel,
            ):
                nursery.start_soon(desk.sample)
                with trio.fail_after(20):
                    while not (channel.members and other.members and channel.is_ready):  # noqa: ASYNC110 - nothing tells
                        await trio.sleep(0.01)
                yield Operated(channel, other, port, http, failures, left)
            nursery.cancel_scope.cancel()

    return made


@pytest.fixture
def no_kept_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look sees the present."""
    monkeypatch.setattr(desk_module, "KEPT_S", 0.0)
