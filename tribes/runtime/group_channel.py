"""The group channel as users meet it: join, see the members, send, listen, leave.

Longer than others and kept whole: it is one class, which users read as one page. Each method hands
on to the part that does the work; most lines are what users are told.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Self
from weakref import WeakSet

import structlog
import trio

from tribes.config.model import NodeConfig
from tribes.errors import ChannelClosedError, GroupSendError, LocalProtocolError
from tribes.ids import UniqueId
from tribes.runtime.assembly import make_shell
from tribes.runtime.discovery import static_names
from tribes.runtime.key_files import read_keys, read_tls
from tribes.runtime.leaving import leave_in_order, load_saved
from tribes.runtime.lifecycle import LifecycleEvent, LifecycleKind
from tribes.runtime.listeners import (
    ListenerRegistry,
    MembershipListener,
    MessageListener,
    handled_source,
)
from tribes.runtime.parts import Sessions
from tribes.runtime.rpc_dispatch import RpcDispatcher
from tribes.wire.member import Member
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from types import TracebackType

    from tribes.channel.chain import Interceptor
    from tribes.channel.outputs import Event
    from tribes.config.model import StaticMemberConfig
    from tribes.gauges import NodeGauges
    from tribes.manager.base import SessionManager
    from tribes.manager.conflicts import SessionConflict
    from tribes.manager.drain import DrainReport
    from tribes.manager.expiry import SessionExpired
    from tribes.manager.inbox import CommitResult
    from tribes.manager.policy import OnUnreplicated
    from tribes.manager.session import Session
    from tribes.membership.view import View
    from tribes.runtime.lifecycle import LifecycleListener
    from tribes.runtime.shell import Shell
    from tribes.runtime.tls import Tls
    from tribes.security.keys import KeyRing
    from tribes.wire.data import ChannelData

__all__ = ["GroupChannel"]

log = structlog.get_logger("tribes")

_FORKED = (
    "this process was forked from the one that runs this channel; make and enter a channel of its "
    "own here, or start a BackgroundNode"
)

_SYNC = int(SendOptions.USE_ACK | SendOptions.SYNCHRONIZED_ACK)


class GroupChannel:
    """One member of a group, inside a trio program.

    ::

        async with GroupChannel(NodeConfig(name="n1")) as channel:
            channel.add_message_listener(print, inline=True)
            await channel.send(b"hello")

    Entering joins the group; leaving waits for the members' receipts (``drain_timeout``), tells the
    group and closes every socket. Cancelling the body leaves the group as well.

    A process that is forked while it runs has none of it: its copies of the sockets are closed, and
    every use raises, until it enters a channel of its own.

    Args:
        config: Who this member is and where it listens.
        interceptors: The chain between the messages and the wire; None: asynchronous dispatch and
            failure detector, as Tomcat's default.
        sessions: Session managers that live on this channel.
        drain_timeout: Seconds that leaving may wait until every member has confirmed that it has
            what is here; None: as the configuration says.
        watch: Sees every event at once, in the channel's loop; must not block.
    """

    def __init__(
        self,
        config: NodeConfig | None = None,
        *,
        interceptors: Sequence[Interceptor] | None = None,
        sessions: Sessions | None = None,
        drain_timeout: float | None = None,
        watch: Callable[[Event], None] | None = None,
    ) -> None:
        self.config = config or NodeConfig()
        self.sessions = sessions or Sessions(self.config)
        self._interceptors = interceptors
        limit = self.config.drain_timeout_s if drain_timeout is None else drain_timeout
        self._drain_timeout = limit
        self.drain_report: DrainReport | None = None
        """How leaving went; None before, and where the body ended with an exception."""
        self._is_retired = False
        self._listeners = ListenerRegistry(
            max_threads=self.config.channel.receiver.max_threads,
            watch=watch,
            expired=self._session_expired,
            notify_on_failure=self.config.notify_on_failure,
            conflict=self._session_conflict,
        )
        self._stack: AsyncExitStack | None = None
        self._shell: Shell | None = None
        self._is_running = False
        self._is_forked = False
        self._token: trio.lowlevel.TrioToken | None = None
        self._listeners.find_more = RpcDispatcher(self, self._listeners.limiter).find
        _channels.add(self)

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            raise LocalProtocolError("a channel is entered once")
        self._stack = AsyncExitStack()
        await self._stack.enter_async_context(self._local_sessions())
        try:
            await self._tell_managers(LifecycleKind.BEFORE_MANAGER_REGISTER)
            await self._stack.enter_async_context(self._run())
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        assert self._stack is not None
        return await self._stack.__aexit__(kind, value, traceback)

    @asynccontextmanager
    async def _local_sessions(self) -> AsyncIterator[None]:
        if not self.sessions.local:
            yield
            return
        try:
            await trio.to_thread.run_sync(self.sessions.start_local)
            yield
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self.sessions.stop_local)

    @asynccontextmanager
    async def _run(self) -> AsyncIterator[None]:
        self._token = trio.lowlevel.current_trio_token()
        found = await trio.to_thread.run_sync(load_saved, self.config, self.sessions)

        self._shell = make_shell(
            self.config,
            sessions=self.sessions,
            listeners=self._listeners,
            interceptors=self._interceptors,
        )
        self._shell.core.hold(found)
        if self.sessions.revive is _refuse:
            self.sessions.revive = None
        async with trio.open_nursery() as nursery:
            await nursery.start(self._shell.run)
            nursery.start_soon(self._listeners.run)
            nursery.start_soon(self.sessions.map_listeners.run, self._listeners.limiter)
            nursery.start_soon(self.sessions.news.run, self._listeners.limiter)
            self._is_running = True
            await self._tell_managers(LifecycleKind.AFTER_MANAGER_REGISTER)
            try:
                yield
                await self._tell_managers(LifecycleKind.BEFORE_MANAGER_UNREGISTER)
                self._is_retired = True
                for manager in self.sessions.managers.values():
                    await trio.to_thread.run_sync(manager.leaving)
                self.drain_report = await leave_in_order(
                    self._shell, self.sessions, self.config, self._drain_timeout
                )
                await self._tell_managers(LifecycleKind.AFTER_MANAGER_UNREGISTER)
            finally:
                self._is_running = False
                nursery.cancel_scope.cancel()

    async def _tell_managers(self, kind: LifecycleKind) -> None:
        for context in self.config.contexts:
            await self._listeners.tell_lifecycle(LifecycleEvent(kind, context=context))

    def _session_conflict(self, event: SessionConflict) -> None:
        manager = self.sessions.manager(event.context)
        manager.notify_conflict(event.key, event.lost, event.won)

    def _session_expired(self, event: SessionExpired) -> None:
        self.sessions.manager(event.context).notify_destroyed(event.key, "expired")

    @property
    def shell(self) -> Shell:
        """The running driver.

        Raises:
            ChannelClosedError: The channel has not been entered.
        """
        if self._shell is None:
            raise ChannelClosedError(
                _FORKED if self._is_forked else "the channel has not been entered"
            )
        return self._shell

    @property
    def token(self) -> trio.lowlevel.TrioToken | None:
        """Of the trio run that the channel was entered in; None before."""
        return self._token

    @property
    def is_running(self) -> bool:
        """Whether the channel has been entered and not been left."""
        return self._is_running

    @property
    def is_ready(self) -> bool:
        """Whether a balancer should send requests here: it has joined, and is not to leave."""
        return self._is_running and not self._is_retired and self.shell.core.is_joined

    def retire(self) -> None:
        """Tell everybody that this node is about to leave, some time before it does.

        From now on `is_ready` is false, no member waits for this node's acknowledgements, and none
        counts its copies. It goes on answering requests. A second call does nothing.

        Raises:
            ChannelClosedError: The channel is not running.
        """
        self.shell.retire()
        if not self._is_retired:
            self._is_retired = True
            log.info("draining", node=self.config.name)

    def _after_fork(self) -> None:
        """In a forked child: the channel runs in the parent, and nothing of it here."""
        if self._shell is None:
            return
        self._shell.abandon()
        self._shell = None
        self._is_forked = True
        if self._is_running:
            self._is_running = False
            self.sessions.revive = _refuse

    # Sessions.

    def manager(self, context: str) -> SessionManager:
        """The session manager of a context.

        Raises:
            LocalProtocolError: The context is not in ``config.contexts``.
        """
        return self.sessions.listed_manager(context)

    async def acommit(
        self, session: Session, *, on_unreplicated: OnUnreplicated | None = None
    ) -> CommitResult:
        """Commit a session and wait for the members, as the send options say.

        Cancelling is safe: the commit stands and goes out, its result is dropped.

        Args:
            session: From a manager of this channel.
            on_unreplicated: What to do when too few members have it, instead of what the
                configuration says; see `OnUnreplicated`.

        Raises:
            SessionNotReplicatedError: Too few members have it, and that is to be an error.
            ConfigError: ``on_unreplicated`` cannot be used.
        """
        return await self.sessions.committer_of(session, on_unreplicated).acommit(session)

    async def await_joined(self, timeout: float | None = None) -> bool:
        """Wait until this node has the others' sessions; False when that took too long.

        Args:
            timeout: Seconds; None: as long as the state transfer may take.
        """
        limit = self.config.transfer_timeout_s + 5 if timeout is None else timeout
        return await self.shell.joined(limit)

    def resync(self, context: str) -> int:
        """Compare the sessions of a context with every member now, and get what is not here; newer
        state here stays (Tomcat's management operation of that name).

        It returns at once; ``await_joined`` does not wait for it, the log tells what comes of it.

        Args:
            context: Of this node.

        Returns:
            How many members are asked.

        Raises:
            LocalProtocolError: The context is not in ``config.contexts``.
            ChannelClosedError: The channel has not been entered.
        """
        self.sessions.listed_manager(context)
        shell = self.shell
        asked = shell.core.resync(context, shell.now())
        shell.pump()
        return asked

    def gauges(self) -> NodeGauges:
        """What this node keeps for its members at this moment, and how often each bound was met.

        May be called in any thread: each number is right, and they are not of one moment.

        Raises:
            ChannelClosedError: The channel has not been entered.
        """
        return self.shell.core.gauges(self.sessions.inbox, self.shell.now())

    # The own record.

    def announce(
        self,
        *,
        payload: bytes | None = None,
        domain: str | None = None,
        command: bytes | None = None,
    ) -> None:
        """Change what this member tells of itself; the others are told at once, and get a
        `MemberUpdated` (Tomcat: ``setPayload``, ``setDomain``).

        Members of Tomcat follow the payload and the command, and keep the domain that they heard
        first.

        Args:
            payload: Bytes of the application; None leaves it as it is, like the others.
            domain: Text that the record carries.
            command: Any but that of the farewell.

        Raises:
            LocalProtocolError: The record would be too long, the domain has characters beyond
                ISO-8859-1, or the command is the farewell's.
            ChannelClosedError: The channel is not running.
        """
        try:
            text = None if domain is None else domain.encode("latin-1")
        except UnicodeEncodeError:
            raise LocalProtocolError(
                f"the domain {domain!r} has characters that are not in ISO-8859-1"
            ) from None
        self.shell.announce(payload=payload, domain=text, command=command)

    # Keys.

    def set_keys(self, keys: KeyRing) -> None:
        """Replace the group's keys, without losing a message.

        The first key signs and seals, all of them are accepted. To replace a key, do each step on
        every member before the next: add the new key behind the old one, make it the first, take
        the old one away. Connections that were opened with a key that is taken away are opened
        anew.

        Args:
            keys: ``KeyRing.parse`` makes them from the lines of a key file.

        Raises:
            LocalProtocolError: The channel was started without a key.
            ChannelClosedError: The channel is not running.
        """
        self.shell.set_keys(keys)

    def reload_keys(self) -> tuple[int, ...]:
        """Read the key file again and use what it says now; see :meth:`set_keys`.

        Returns:
            The ids of the keys, the one in use first.

        Raises:
            ConfigError: The file cannot be read or used; the keys stay as they were.
            LocalProtocolError: The configuration names no key file.
            ChannelClosedError: The channel is not running.
        """
        keys = self.read_keys()
        self.set_keys(keys)
        return keys.ids

    def read_keys(self) -> KeyRing:
        """Read what :meth:`reload_keys` would use; may be called in any thread."""
        keys = read_keys(self.config.channel) if self.config.channel.key_file else None
        if keys is None:
            raise LocalProtocolError(
                "the configuration names no key file to read again (channel.key_file); set_keys "
                "takes keys from elsewhere"
            )
        return keys

    # Certificates.

    def set_certificates(self, tls: Tls) -> None:
        """Use other certificates, as :meth:`read_certificates` gives them, for the connections from
        now on. Those that are open stay.

        Raises:
            LocalProtocolError: The channel was started without TLS.
            ChannelClosedError: The channel is not running.
        """
        self.shell.links.set_tls(tls)

    def reload_certificates(self) -> None:
        """Read certificate, private key and authorities again and use them for the connections from
        now on. Those that are open stay.

        Raises:
            ConfigError: A file cannot be read or used; all stays as it was.
            LocalProtocolError: The configuration has no ``channel.tls``.
            ChannelClosedError: The channel is not running.
        """
        self.set_certificates(self.read_certificates())

    def read_certificates(self) -> Tls:
        """Read what :meth:`reload_certificates` would use; may be called in any thread."""
        tls = read_tls(self.config.channel)
        if tls is None:
            raise LocalProtocolError("the configuration has no certificates (channel.tls)")
        return tls

    # Membership.

    def set_static_members(self, members: Sequence[StaticMemberConfig]) -> None:
        """Look for these static members from now on instead of those before. One that is not named
        any more is not looked for; while it answers it stays a member.

        Raises:
            ChannelClosedError: The channel is not running.
        """
        refresh = self.config.channel.membership.refresh
        self.shell.set_static_members(members, static_names(members, refresh))

    @property
    def local(self) -> Member:
        """This member's own record."""
        return self.shell.core.local

    @property
    def view(self) -> View:
        """The other members with the view's number, as an immutable snapshot."""
        return self.shell.core.view

    @property
    def members(self) -> tuple[Member, ...]:
        """The other members, the longest-lived first."""
        return self.view.members

    # Messages.

    async def send(
        self,
        message: bytes,
        to: Iterable[Member] | Member | None = None,
        *,
        options: int = SendOptions.DEFAULT,
    ) -> UniqueId:
        """Send a message to some members, or to all.

        Args:
            message: The bytes; they arrive as they are.
            to: Destinations; None: all members of the view. Without members nothing is sent.
            options: The guarantee, see :class:`SendOptions`: 0 handed to the kernel, 2 received,
                6 processed, 8 queued.

        Returns:
            The message's unique id.

        Raises:
            GroupSendError: Some destinations failed; ``faulty`` names them and why. All others
                have the message.
            LocalProtocolError: A synchronously acknowledged send to the member whose message is
                being handled: it would wait for this very handler. Or this member is a
                destination.
            ChannelClosedError: The channel is not running.

        Cancelling is safe: the message may still arrive, and its outcome is dropped. A send with
        option 8 goes out in the loop's next pass, with others; only some of them let other tasks
        run: each sixteenth, and each that fills 64 KiB.
        """
        shell = self.shell
        if to is None:
            targets = shell.core.view.members
        elif isinstance(to, Member):
            targets = (to,)
        else:
            targets = tuple(to)
        if not targets and to is None:
            await trio.lowlevel.checkpoint()
            return UniqueId(bytes(16))
        if to is not None and self.local in targets:
            raise LocalProtocolError("a member sends no message to itself; call your own function")
        flags = int(options)  # each operator of the enum costs seven times as much as this
        source = handled_source.get() if flags & _SYNC == _SYNC else None
        if source is not None and source in targets:
            raise LocalProtocolError(
                f"a listener that handles a message of {source.name} cannot wait until "
                f"{source.name} has processed an answer: use option 2 or 8"
            )
        unique_id, faulty = await shell.send(targets, bytes(message), flags)
        if faulty:
            raise GroupSendError(faulty)
        return UniqueId(unique_id)

    def add_message_listener(
        self,
        listener: MessageListener,
        *,
        accept: Callable[[ChannelData], bool] | None = None,
        inline: bool = False,
        java: bool = False,
    ) -> None:
        """Call ``listener(message)`` for every message that ``accept`` says yes to.

        One message per source at a time, in the order sent. Coroutine functions are awaited,
        others run in a worker thread, or in the channel's own loop with ``inline``.

        A message that is a Java object, from a Tomcat member, is acknowledged and dropped, unless
        a listener was added with ``java``: it gets the bytes, which nothing here decodes.

        Raises:
            LocalProtocolError: It is registered already, or is a coroutine function and inline.
        """
        self._listeners.add_message_listener(listener, accept=accept, inline=inline, java=java)

    def remove_message_listener(self, listener: MessageListener) -> None:
        """Stop calling ``listener``; unknown ones are ignored."""
        self._listeners.remove_message_listener(listener)

    def add_membership_listener(self, listener: MembershipListener) -> None:
        """Call ``listener(event)`` with every ``MemberAdded``, ``MemberUpdated``,
        ``MemberSuspected``, ``MemberRefuted`` and ``MemberRemoved``, in order.
        """
        self._listeners.add_membership_listener(listener)

    def remove_membership_listener(self, listener: MembershipListener) -> None:
        """Stop calling ``listener``; unknown ones are ignored."""
        self._listeners.remove_membership_listener(listener)

    def add_lifecycle_listener(self, listener: LifecycleListener) -> None:
        """Call ``listener(event)`` for every step of this node's life: members and managers that
        come and go, each before and after, and with ``notify_on_failure`` messages that nobody
        accepts. To hear of the managers' registration, add it before entering.
        """
        self._listeners.add_lifecycle_listener(listener)

    def remove_lifecycle_listener(self, listener: LifecycleListener) -> None:
        """Stop calling ``listener``; unknown ones are ignored."""
        self._listeners.remove_lifecycle_listener(listener)


_channels: WeakSet[GroupChannel] = WeakSet()


def _refuse() -> None:
    raise LocalProtocolError(_FORKED)


def _after_fork_in_child() -> None:
    for channel in list(_channels):
        channel._after_fork()


if hasattr(os, "register_at_fork"):
    # Registered after the sockets' and the sessions', so called after them.
    os.register_at_fork(after_in_child=_after_fork_in_child)
