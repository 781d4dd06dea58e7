"""When a web application's node starts, joins and leaves: by the server's hooks, or by requests.

Under a server that tells of its start-up that is the moment. Elsewhere, and in a forked worker, the
first request of a process starts the node, and waits with those that come meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, cast, final

import structlog

from tribes.errors import ChannelError, ConfigError, LocalProtocolError
from tribes.runtime.group_channel import GroupChannel
from tribes.runtime.native import ChannelTask
from tribes.runtime.waiters import in_thread, refuse_in_event_loop
from tribes.web.early import start_with_worker

if TYPE_CHECKING:
    from tribes.manager.base import SessionManager
    from tribes.runtime.handle import NodeHandle
    from tribes.runtime.local import LocalSessions

__all__ = ["NodeLife"]

log = structlog.get_logger("tribes")


@final
class NodeLife:
    """Starts and stops one application's node, and waits for what it needs. Used from any thread.

    Args:
        node: The member of the group in this process.
        manager: Of the application's sessions.
    """

    def __init__(
        self, node: NodeHandle | GroupChannel | LocalSessions, manager: SessionManager
    ) -> None:
        self.node = node
        self.manager = manager
        self._started_in = 0
        """The process in which the adapter started the node."""
        self._joined_in = 0
        """The process in which it has waited for the others' sessions."""
        self._refusal: Exception | None = None
        """Why the node could not start."""
        self._native: ChannelTask | None = None
        if not isinstance(node, GroupChannel):
            start_with_worker(self)

    @property
    def must_join(self) -> bool:
        """Whether a request must call `join` first.

        So under a server that tells no start-up, in a forked worker, and while another request
        waits for that.
        """
        return (
            self._joined_in != os.getpid()
            or self.manager.revive is not None
            or not self.node.is_running
        )

    def join(self) -> None:
        """Start the node unless that was done, and wait until it has the others' sessions.

        Raises:
            ConfigError: The node cannot start; like any other error of its start raised for every
                request.
            ChannelError: It has ended, see ``wait_joined``; raised for every request.
            LocalProtocolError: It would block an event loop.
        """
        node = self._blocking_node
        if self._has_ended(node):
            return
        refuse_in_event_loop("await node.await_joined()")
        self._start(node)
        with self._noting_refusal():
            is_complete = node.wait_joined()
        self._joined(is_complete=is_complete)

    def is_ready(self) -> bool:
        """What a balancer is told: start the node unless that was done, and wait for nobody.

        Raises: As `join`.
        """
        node = self._blocking_node
        if not node.is_running:
            self._begin(node)
        return node.is_ready

    async def ajoin(self) -> None:
        """The same in a task of asyncio or trio."""
        node = self.node
        if isinstance(node, GroupChannel):
            await self._start_native(node)
        elif self._has_ended(node):
            return
        else:
            await in_thread(partial(self._start, node))
        with self._noting_refusal():
            is_complete = await node.await_joined()
        self._joined(is_complete=is_complete)

    async def ais_ready(self) -> bool:
        """The same as `is_ready` in a task of asyncio or trio."""
        node = self.node
        if isinstance(node, GroupChannel):
            await self._start_native(node)
        elif not node.is_running:
            await in_thread(partial(self._begin, node))
        return node.is_ready

    async def aleave(self) -> None:
        """Stop the node if the adapter has started it."""
        if self._native is not None:
            await self._native.stop()
        elif not isinstance(self.node, GroupChannel) and (
            self._started_in == os.getpid() and self.node.is_running
        ):
            # Not a second time: when the server has its answer it may cancel whoever still waits.
            await in_thread(self.node.stop)

    @property
    def _blocking_node(self) -> NodeHandle | LocalSessions:
        # A channel has no call that blocks.
        return cast("NodeHandle | LocalSessions", self.node)

    async def _start_native(self, channel: GroupChannel) -> None:
        if not channel.is_running:
            self._native = self._native or ChannelTask(channel)
            await self._native.start()

    def _begin(self, node: NodeHandle | LocalSessions) -> None:
        """Start the node unless that was done, also in a forked child."""
        if self._has_ended(node):
            return
        refuse_in_event_loop("await node.await_joined()")
        self._start(node)
        if self.manager.revive is not None:
            with self._noting_refusal():
                node.wait_joined(0)

    def _has_ended(self, node: NodeHandle | LocalSessions) -> bool:
        """Whether the node has ended: what is in this process's memory can still be served."""
        if self._refusal is not None:
            # Without the frames of the requests that it was raised for before.
            raise self._refusal.with_traceback(None)
        return self.manager.revive is None and node.was_started and not node.is_running

    @contextmanager
    def _noting_refusal(self) -> Iterator[None]:
        """A node that ended because it has not the others' sessions serves no later request."""
        try:
            yield
        except ChannelError as why:
            self._refusal = why
            raise

    def _start(self, node: NodeHandle | LocalSessions) -> None:
        if node.was_started or self.manager.revive is not None:
            return
        try:
            node.start()
        except LocalProtocolError:
            # Another request has just started it.
            if not node.was_started:
                raise
        except Exception as error:
            # One that has not begun may be started again, unless its settings cannot work.
            if isinstance(error, ConfigError) or self._has_ended(node):
                self._refusal = error
            raise
        else:
            self._started_in = os.getpid()

    def _joined(self, *, is_complete: bool) -> None:
        self._joined_in = os.getpid()
        if not is_complete:
            log.warning("serving before all sessions have arrived")
