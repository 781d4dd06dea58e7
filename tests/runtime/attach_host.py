"""A node that serves workers, in a thread of the test's process."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import trio

from tests.ports import free_udp_port
from tribes.config.model import (
    ChannelConfig,
    ManagerConfig,
    MembershipConfig,
    NodeConfig,
    ReceiverConfig,
)
from tribes.runtime.attach_server import open_attach
from tribes.runtime.group_channel import GroupChannel

if TYPE_CHECKING:
    from tribes.manager.attach_service import AttachService


def settings(path: str, **manager: Any) -> NodeConfig:
    """Of a node and of its workers alike."""
    return NodeConfig(
        name="host",
        contexts=("app",),
        attach=path,
        channel=ChannelConfig(
            membership=MembershipConfig(port=free_udp_port(), frequency=50, drop_time=1000),
            receiver=ReceiverConfig(port=0),
        ),
        manager=ManagerConfig(**{"channel_send_options": 6, **manager}),
    )


class Host:
    """See the module; running when it is made."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.service: AttachService
        self.channel: GroupChannel
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._main)
        self._thread.start()
        self._started.result(20)

    def _main(self) -> None:
        try:
            trio.run(self._run)
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._stopping = trio.Event()
        async with GroupChannel(self.config, drain_timeout=0.5) as self.channel:
            await self.channel.await_joined()
            async with open_attach(self.channel, self.config.attach) as self.service:
                self._started.set_result(None)
                await self._stopping.wait()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._token.run_sync_soon(self._stopping.set)
            self._thread.join(20)
