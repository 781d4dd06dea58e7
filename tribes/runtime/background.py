"""A node in a thread of its own, for programs that do not run trio: uvicorn, gunicorn, scripts.

Reads never cross the threads; a commit leaves its delta in the inbox and wakes the thread once for
however many gather (DESIGN §2.10, 5.4).
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

import structlog
import trio

from tribes.errors import ChannelClosedError, ConfigError, LocalProtocolError
from tribes.runtime.group_channel import GroupChannel
from tribes.runtime.parts import Sessions

if TYPE_CHECKING:
    from tribes.channel.chain import Interceptor
    from tribes.channel.outputs import Event
    from tribes.config.model import NodeConfig
    from tribes.manager.delta import DeltaManager
    from tribes.manager.values import ValueCodec
    from tribes.membership.view import View
    from tribes.wire.member import Member

__all__ = ["BackgroundNode"]

log = structlog.get_logger("tribes")

_START_TIMEOUT_S = 30.0


class BackgroundNode:
    """One member of the group with its session managers, in a background thread.

    ::

        node = BackgroundNode(NodeConfig(name="n1", contexts=("shop",)))
        node.start()
        manager = node.manager("shop")
        ...
        node.stop()

    ``start`` and ``stop`` may be called from any thread; ``stop`` also runs at interpreter exit.

    Args:
        config: The node. Contexts must be listed.
        interceptors: The chain; None: the default one.
        codec: Encodes attribute values.
        drain_timeout: Seconds that ``stop`` may wait until every member has everything.
        watch: Sees every event, in the background thread; must not block.
    """

    def __init__(
        self,
        config: NodeConfig,
        *,
        interceptors: Sequence[Interceptor] | None = None,
        codec: ValueCodec | None = None,
        drain_timeout: float = 5.0,
        watch: Callable[[Event], None] | None = None,
    ) -> None:
        self.config = config
        self.sessions = Sessions(config, codec=codec)
        self.joined: Future[bool] = Future()
        """Done when this node has the sessions of the others: True, or False when time ran out."""
        self._interceptors = interceptors
        self._drain_timeout = drain_timeout
        self._watch = watch
        self._thread: threading.Thread | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._stopping: trio.Event | None = None
        self._channel: GroupChannel | None = None
        self._started: Future[None] = Future()

    def start(self) -> None:
        """Open the sockets, join the group, and return; :attr:`joined` tells the rest.

        Raises:
            ConfigError: A value cannot work, or an address or port cannot be had.
            LocalProtocolError: It was started before.
        """
        if self._thread is not None:
            raise LocalProtocolError("a background node is started once")
        self._thread = threading.Thread(
            target=self._thread_main, name=f"tribes-{self.config.name or 'node'}", daemon=True
        )
        self._thread.start()
        try:
            self._started.result(_START_TIMEOUT_S)
        except ConfigError:
            # Its thread is at its end; nothing of it is left when the caller goes on.
            self._thread.join(_START_TIMEOUT_S)
            raise
        atexit.register(self.stop)

    def stop(self) -> None:
        """Send what is queued, leave the group, end the thread. A second call does nothing."""
        atexit.unregister(self.stop)
        thread, token, stopping = self._thread, self._token, self._stopping
        if thread is None or not thread.is_alive():
            return
        if token is not None and stopping is not None:
            try:
                token.run_sync_soon(stopping.set)
            except trio.RunFinishedError:
                pass
        thread.join(self._drain_timeout + 5)

    def manager(self, context: str) -> DeltaManager:
        """The session manager of a context.

        Raises:
            LocalProtocolError: The context is not in ``config.contexts``.
        """
        if context not in self.config.contexts:
            raise LocalProtocolError(
                f"context {context!r} is not in the node's contexts {self.config.contexts!r}"
            )
        return self.sessions.manager(context)

    @property
    def channel(self) -> GroupChannel:
        """The channel. Only its ``local`` and ``view`` may be read from other threads.

        Raises:
            ChannelClosedError: The node has not been started.
        """
        if self._channel is None:
            raise ChannelClosedError("the node has not been started")
        return self._channel

    @property
    def local(self) -> Member:
        """This member's own record."""
        return self.channel.local

    @property
    def view(self) -> View:
        """The other members, as an immutable snapshot; safe from any thread."""
        return self.channel.view

    @property
    def member_names(self) -> list[str]:
        """Names of all live members that this node sees, itself first."""
        return [self.local.label, *(member.label for member in self.view.members)]

    def wait_joined(self, timeout: float | None = None) -> bool:
        """Block until this node has the others' sessions; False when that took too long.

        Args:
            timeout: Seconds; None: as long as the state transfer may take.
        """
        limit = self.config.manager.state_transfer_timeout_s + 10 if timeout is None else timeout
        try:
            return self.joined.result(limit)
        except TimeoutError:
            return False

    @property
    def was_started(self) -> bool:
        """Whether :meth:`start` was called, whatever has happened since."""
        return self._thread is not None

    @property
    def is_running(self) -> bool:
        """Whether the background thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def _thread_main(self) -> None:
        # The boundary of the thread: whatever ends it is told to who waits, and logged.
        try:
            trio.run(self._main)
        except BaseException as error:
            if not self._started.done():
                self._started.set_exception(_single(error))
            else:
                log.critical("background node died", exc_info=error)
            if not self.joined.done():
                self.joined.set_result(False)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._stopping = trio.Event()
        channel = GroupChannel(
            self.config,
            interceptors=self._interceptors,
            sessions=self.sessions,
            drain_timeout=self._drain_timeout,
            watch=self._watch,
        )
        async with channel:
            self._channel = channel
            self._started.set_result(None)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell_joined, channel)
                await self._stopping.wait()
                nursery.cancel_scope.cancel()
        if not self.joined.done():
            self.joined.set_result(False)

    async def _tell_joined(self, channel: GroupChannel) -> None:
        timeout = self.config.manager.state_transfer_timeout_s + 5
        self.joined.set_result(await channel.shell.joined(timeout))


def _single(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
