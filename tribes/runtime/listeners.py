"""The users' functions that get messages and events, and how each kind is called.

* ``inline=True``: called in the channel's own loop. For quick functions that never block.
* ``async def``: awaited in a task of its own; one per source at a time.
* any other function: called in a worker thread; one per source at a time.

A listener that raises makes a synchronously acknowledged message fail at its sender, and the
listeners after it are skipped (tribes-wire §8.3).
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import structlog
import trio

from tribes.channel.outputs import Deliver, Event, MemberAdded, MemberRemoved, MembershipEvent
from tribes.errors import LocalProtocolError
from tribes.manager.conflicts import SessionConflict
from tribes.manager.expiry import SessionExpired
from tribes.runtime.lifecycle import LifecycleEvent, LifecycleKind
from tribes.wire.data import ChannelData
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from tribes.runtime.lifecycle import LifecycleListener
    from tribes.wire.member import Member

__all__ = [
    "ListenerRegistry",
    "MembershipListener",
    "MessageHandler",
    "MessageListener",
    "handled_source",
]

log = structlog.get_logger("tribes")

MessageListener = Callable[[ChannelData], Any]
"""Gets one message. Its result is awaited when it is awaitable, else ignored."""

MembershipListener = Callable[[MembershipEvent], Any]
"""Gets one change of the membership, in order."""

EVENTS_MAX = 1024
"""Events that wait for slow listeners; beyond, the oldest are dropped and counted."""

_PAIRS: Final[dict[type[Event], tuple[LifecycleKind, LifecycleKind]]] = {
    MemberAdded: (LifecycleKind.BEFORE_MEMBER_REGISTER, LifecycleKind.AFTER_MEMBER_REGISTER),
    MemberRemoved: (LifecycleKind.BEFORE_MEMBER_UNREGISTER, LifecycleKind.AFTER_MEMBER_UNREGISTER),
}
"""What is told around an event of the membership."""

_BYTE_MESSAGE = int(SendOptions.BYTE_MESSAGE)

handled_source: ContextVar[Member | None] = ContextVar("handled_source", default=None)
"""The member whose message the current code is processing."""


class MessageHandler:
    """One function that takes messages, and how it is called."""

    __slots__ = ("accept", "call", "inline", "is_async", "java")

    def __init__(
        self,
        call: MessageListener,
        accept: Callable[[ChannelData], bool] | None,
        *,
        inline: bool,
        java: bool,
    ) -> None:
        self.call = call
        self.accept = accept
        self.inline = inline
        self.java = java
        self.is_async = inspect.iscoroutinefunction(call)


class ListenerRegistry:
    """The listeners of one channel.

    Args:
        max_threads: Worker threads that synchronous listeners may use at once.
        watch: Sees every event of the core at once, before any listener.
        expired: Called in a worker thread for every session that this node has expired.
        notify_on_failure: Tell life-cycle listeners of messages that nobody accepts.
        conflict: Called in a worker thread for the writes of this node that others replaced without
            knowing them; as with changes of the membership, the oldest are dropped when too many
            wait.

    Attributes:
        find_more: Finds one more function for a message in Java's serialisation, besides those
            that were added: the RPC channel that it is for.
    """

    def __init__(
        self,
        *,
        max_threads: int,
        watch: Callable[[Event], None] | None = None,
        expired: Callable[[SessionExpired], None] | None = None,
        notify_on_failure: bool = False,
        conflict: Callable[[SessionConflict], None] | None = None,
    ) -> None:
        self.find_more: Callable[[ChannelData], MessageHandler | None] | None = None
        self._messages: list[MessageHandler] = []
        self._members: list[MembershipListener] = []
        self._limiter = trio.CapacityLimiter(max_threads)
        self._watch = watch
        self._expired = expired
        self._conflict = conflict
        self._lifecycle: list[LifecycleListener] = []
        self._notify_on_failure = notify_on_failure
        self._events: deque[Event | LifecycleEvent] = deque()
        # As many as there are sessions at most: destroyed events are never dropped (DESIGN §5.5).
        self._expiries: deque[SessionExpired] = deque()
        self._wake = trio.Event()
        self.dropped_events = 0

    def add_message_listener(
        self,
        listener: MessageListener,
        *,
        accept: Callable[[ChannelData], bool] | None = None,
        inline: bool = False,
        java: bool = False,
    ) -> None:
        """Call ``listener`` for every message that ``accept`` says yes to.

        Args:
            listener: Gets the message.
            accept: Whether it wants a message; None: every one.
            inline: Call it in the channel's own loop.
            java: Also give it messages that are Java objects. Others do not see them: nothing here
                decodes them.

        Raises:
            LocalProtocolError: It is registered already, or is a coroutine function and inline.
        """
        if any(known.call == listener for known in self._messages):
            raise LocalProtocolError(f"{listener!r} is registered already")
        if inline and inspect.iscoroutinefunction(listener):
            raise LocalProtocolError("an inline listener cannot be a coroutine function")
        self._messages.append(MessageHandler(listener, accept, inline=inline, java=java))

    def remove_message_listener(self, listener: MessageListener) -> None:
        """Stop calling ``listener``; unknown ones are ignored."""
        self._messages = [known for known in self._messages if known.call != listener]

    def add_membership_listener(self, listener: MembershipListener) -> None:
        """Call ``listener`` for every change of the membership; a second time is ignored."""
        if listener not in self._members:
            self._members.append(listener)

    def remove_membership_listener(self, listener: MembershipListener) -> None:
        """Stop calling ``listener``; unknown ones are ignored."""
        if listener in self._members:
            self._members.remove(listener)

    @property
    def limiter(self) -> trio.CapacityLimiter:
        """Bounds the worker threads of users' functions."""
        return self._limiter

    def add_lifecycle_listener(self, listener: LifecycleListener) -> None:
        """Call ``listener`` for every step of the node's life; a second time is ignored."""
        if listener not in self._lifecycle:
            self._lifecycle.append(listener)

    def remove_lifecycle_listener(self, listener: LifecycleListener) -> None:
        """Stop calling ``listener``; unknown ones are ignored."""
        if listener in self._lifecycle:
            self._lifecycle.remove(listener)

    async def tell_lifecycle(self, event: LifecycleEvent) -> None:
        """Call the life-cycle listeners now."""
        for listener in tuple(self._lifecycle):
            await self._tell(listener, event)

    # What the shell calls.

    def deliver(self, message: Deliver) -> Awaitable[None] | None:
        """Hand a message over; see :class:`tribes.runtime.shell.Listeners`."""
        data = message.message
        chosen = [known for known in self._messages if known.accept is None or known.accept(data)]
        if not data.options & _BYTE_MESSAGE:
            # A Java object: acknowledged, and dropped unless somebody asked for such messages.
            chosen = [known for known in chosen if known.java]
            more = None if self.find_more is None else self.find_more(data)
            if more is not None:
                chosen.append(more)
        if not chosen:
            if self._notify_on_failure and self._lifecycle:
                failure = LifecycleKind.RECEIVE_FAILURE
                self._put(LifecycleEvent(failure, member=data.source, message=data))
            return None
        if all(known.inline for known in chosen):
            token = handled_source.set(data.source)
            try:
                for known in chosen:
                    known.call(data)
            finally:
                handled_source.reset(token)
            return None
        return self._call(chosen, data)

    async def _call(self, chosen: list[MessageHandler], data: ChannelData) -> None:
        handled_source.set(data.source)
        for known in chosen:
            if known.inline:
                known.call(data)
            elif known.is_async:
                await known.call(data)
            else:
                result = await trio.to_thread.run_sync(known.call, data, limiter=self._limiter)
                if inspect.isawaitable(result):
                    await result

    def event(self, event: Event) -> None:
        """Note an event; listeners are called by :meth:`run`."""
        log.info(event.name, **event.fields())
        if self._watch is not None:
            # A boundary to the users' code: what it raises costs that call, not the channel.
            try:
                self._watch(event)
            except Exception:
                log.exception("listener failed", listener=repr(self._watch))
        is_change = (isinstance(event, MembershipEvent) and (self._members or self._lifecycle)) or (
            isinstance(event, SessionConflict) and self._conflict
        )
        if isinstance(event, SessionExpired):
            if self._expired is not None:
                self._expiries.append(event)
                self._wake.set()
        elif is_change:
            self._put(event)

    def _put(self, event: Event | LifecycleEvent) -> None:
        self._events.append(event)
        if len(self._events) > EVENTS_MAX:
            self._events.popleft()
            self.dropped_events += 1
        self._wake.set()

    async def run(self) -> None:
        """Call the listeners of events, one event after the other, until cancelled."""
        while True:
            while self._events or self._expiries:
                if self._events:
                    await self._tell_all(self._events.popleft())
                if self._expiries and self._expired is not None:
                    await self._tell(self._expired, self._expiries.popleft())
            self._wake = trio.Event()
            await self._wake.wait()

    async def _tell_all(self, event: Event | LifecycleEvent) -> None:
        if isinstance(event, LifecycleEvent):
            await self.tell_lifecycle(event)
            return
        if isinstance(event, SessionConflict):
            if self._conflict is not None:
                await self._tell(self._conflict, event)
            return
        before, after = _PAIRS.get(type(event), (None, None))
        member = getattr(event, "member", None)
        if before is not None:
            await self.tell_lifecycle(LifecycleEvent(before, member=member))
        for listener in tuple(self._members):
            await self._tell(listener, event)
        if after is not None:
            await self.tell_lifecycle(LifecycleEvent(after, member=member))

    async def _tell(self, listener: Callable[[Any], Any], event: Event | LifecycleEvent) -> None:
        # Another one, like that of `event`.
        try:
            if inspect.iscoroutinefunction(listener):
                await listener(event)
            else:
                await trio.to_thread.run_sync(listener, event, limiter=self._limiter)
        except Exception:
            log.exception("listener failed", listener=repr(listener))
