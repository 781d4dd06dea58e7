"""A channel that lives in its host's own trio run, started and stopped by calls.

``async with GroupChannel(...)`` is the way in a trio program. A server that calls an application
has no such block around it, only a moment at which it starts and one at which it ends: for it the
channel is a task of the run itself, beside the server's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from tribes.errors import LocalProtocolError

if TYPE_CHECKING:
    from types import TracebackType

    from tribes.runtime.group_channel import GroupChannel

__all__ = ["ChannelTask"]

log = structlog.get_logger("tribes")


class ChannelTask:
    """Runs one channel in a system task of this trio run. For one run only.

    Args:
        channel: Not entered yet.
    """

    def __init__(self, channel: GroupChannel) -> None:
        self._channel = channel
        self._is_begun = False
        self._started = trio.Event()
        self._stopping = trio.Event()
        self._ended = trio.Event()
        self._error: Exception | None = None
        self._trace: TracebackType | None = None

    async def start(self) -> None:
        """Enter the channel, unless that was done; returns when it is a member of the group.

        Raises:
            LocalProtocolError: The channel was entered before, or has been left.
            ConfigError: A value cannot work, or an address or port cannot be had.
        """
        if not self._is_begun:
            self._is_begun = True
            trio.lowlevel.spawn_system_task(self._run, name="tribes channel")
        await self._started.wait()
        if self._error is not None:
            # From where it was raised first: not with the frames of every call of this.
            raise self._error.with_traceback(self._trace)
        if self._ended.is_set():
            raise LocalProtocolError("the channel of this application has been left")

    async def stop(self) -> None:
        """Leave the channel, in good order; a second call does nothing."""
        self._stopping.set()
        if self._is_begun:
            await self._ended.wait()

    async def _run(self) -> None:
        # A boundary: an exception out of a system task would end the host's whole run.
        try:
            async with self._channel:
                self._started.set()
                await self._stopping.wait()
        except Exception as error:
            while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            if self._started.is_set():
                log.critical("channel died", exc_info=error)
            self._error, self._trace = error, error.__traceback__
        finally:
            self._started.set()
            self._ended.set()
