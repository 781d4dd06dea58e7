"""Sending on a channel from outside its trio run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING

import trio

from tribes.errors import ChannelClosedError

if TYPE_CHECKING:
    from tribes.ids import UniqueId
    from tribes.runtime.group_channel import GroupChannel
    from tribes.wire.member import Member

__all__ = ["call_in_run", "now_or_soon", "send_from_outside", "soon"]


def send_from_outside(
    channel: GroupChannel,
    token: trio.lowlevel.TrioToken | None,
    nursery: Callable[[], trio.Nursery | None],
    message: bytes,
    to: Iterable[Member] | Member | None,
    options: int,
) -> Future[UniqueId]:
    """Send as :meth:`GroupChannel.send` does, from any thread.

    Args:
        channel: The channel.
        token: Of the run that it lives in.
        nursery: Gives, in that run, where the send is to live; None when the channel is being left.
        message: The bytes.
        to: Destinations; None: all members.
        options: The guarantee.

    Returns:
        Has the message's id, or the error that ``send`` raised, when it is over.

    Raises:
        ChannelClosedError: The run has ended.
    """
    future: Future[UniqueId] = Future()
    closed = ChannelClosedError("the node was stopped")

    async def send() -> None:
        try:
            sent = await channel.send(message, to, options=options)
        except Exception as error:  # noqa: BLE001 - the caller's, in its own thread
            future.set_exception(error)
        except BaseException:
            future.set_exception(closed)
            raise
        else:
            future.set_result(sent)

    def begin() -> None:
        home = nursery()
        if home is None:
            future.set_exception(closed)
        else:
            home.start_soon(send)

    soon(token, begin, closed)
    return future


def call_in_run(token: trio.lowlevel.TrioToken | None, call: Callable[[], None]) -> Future[None]:
    """Call a function in the channel's run, from any thread.

    Args:
        token: Of the run.
        call: Must not block.

    Returns:
        Done when it was called; has what it raised.

    Raises:
        ChannelClosedError: The run has ended.
    """
    future: Future[None] = Future()

    def run() -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - the caller's, in its own thread
            future.set_exception(error)
        else:
            future.set_result(None)

    soon(token, run, ChannelClosedError("the node was stopped"))
    return future


def soon(
    token: trio.lowlevel.TrioToken | None, call: Callable[[], None], closed: ChannelClosedError
) -> None:
    """Call a function soon in a run, from any thread.

    Args:
        token: Of the run; None: there is none.
        call: Must neither block nor raise.
        closed: What to raise when the run has ended.

    Raises:
        ChannelClosedError: That one.
    """
    if token is None:
        raise closed
    try:
        token.run_sync_soon(call)
    except trio.RunFinishedError:
        raise closed from None


def now_or_soon(
    token: trio.lowlevel.TrioToken | None, call: Callable[[], None], closed: ChannelClosedError
) -> None:
    """The same, but at once for a caller that is in that run."""
    if trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is token:
        call()
    else:
        soon(token, call, closed)
