"""A node in a thread of its own, for programs that do not run trio: uvicorn, gunicorn, scripts.

Reads never cross the threads; a commit leaves its delta in the inbox and wakes the thread once for
however many gather (DESIGN §2.10, 5.4).

**Fork.** A forked child has nothing of the parent's node: no thread, no socket (its copies are
closed at once, so that they keep no connection of a killed parent up), no session, no lock, another
actor. If the node ran in the parent, the child gets a member of its own as soon as it uses a
manager, or by :meth:`BackgroundNode.start`; until it has joined, a look-up waits instead of finding
nothing, which would log the user out. A child that never uses a session never becomes a member.

It is one file, and a long one, because it is one object's two sides: each call for other threads,
and its few lines in the thread of the node.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING
from weakref import WeakSet

import structlog
import trio

from tribes.errors import ChannelClosedError, ChannelError, ConfigError, LocalProtocolError
from tribes.runtime.crossing import call_in_run, send_from_outside
from tribes.runtime.group_channel import GroupChannel
from tribes.runtime.hosts import refuse_uwsgi_without, successor_wait_s
from tribes.runtime.parts import Sessions
from tribes.runtime.waiters import in_thread, refuse_in_event_loop, result_of, running_loop
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from tribes.channel.chain import Interceptor
    from tribes.channel.outputs import Event
    from tribes.config.model import NodeConfig
    from tribes.gauges import NodeGauges
    from tribes.ids import UniqueId
    from tribes.manager.base import SessionManager
    from tribes.manager.drain import DrainReport
    from tribes.manager.inbox import CommitResult
    from tribes.manager.policy import OnUnreplicated
    from tribes.manager.session import Session
    from tribes.manager.values import ValueCodec
    from tribes.membership.view import View
    from tribes.security.keys import KeyRing
    from tribes.wire.member import Member

__all__ = ["BackgroundNode"]

log = structlog.get_logger("tribes")

_START_TIMEOUT_S = 30.0
_SAVE_S = 15.0
"""After the drain, to write what nobody else has, and to close what is open."""


class _Run:
    """One thread of a node, from its start to its end."""

    def __init__(self, joined: Future[bool]) -> None:
        self.started: Future[None] = Future()
        self.joined = joined
        self.is_over = False
        """It was told to stop, or has ended."""
        self.has_ended = False
        """Its trio run is over. The thread's own word comes too late at the end, for who is told of
        a failure may look at once, and at the start: it is not alive before it runs.
        """
        self.is_retired = False
        self.thread: threading.Thread | None = None
        self.token: trio.lowlevel.TrioToken | None = None
        self.nursery: trio.Nursery | None = None
        self.stopping: trio.Event | None = None
        self.channel: GroupChannel | None = None


class BackgroundNode:
    """One member of the group with its session managers, in a background thread.

    ::

        node = BackgroundNode(NodeConfig(name="n1", contexts=("shop",)))
        node.start()
        manager = node.manager("shop")
        session = manager.create()
        session["cart"] = ["book"]
        node.commit(session)                # in a thread
        await node.acommit(session)         # in a task of asyncio or trio
        node.stop()

    ``start`` and ``stop`` may be called from any thread; ``stop`` also runs at interpreter exit.

    Args:
        config: The node. Contexts must be listed.
        interceptors: The chain, or a function that makes one; None: the default one. Only with a
            function can a forked child have a node of its own.
        codec: Encodes attribute values.
        drain_timeout: Seconds that ``stop`` may wait until every member has confirmed that it has
            everything; None: as the configuration says.
        watch: Sees every event, in the background thread; must not block.

    Raises:
        ConfigError: The configuration says ``attach``, or has a value that cannot work.
    """

    def __init__(
        self,
        config: NodeConfig,
        *,
        interceptors: Sequence[Interceptor] | Callable[[], Sequence[Interceptor]] | None = None,
        codec: ValueCodec | None = None,
        drain_timeout: float | None = None,
        watch: Callable[[Event], None] | None = None,
    ) -> None:
        if config.attach:
            raise ConfigError(
                "is set, and a BackgroundNode is a member of its own; write "
                "tribes.open_node(config) in its place, or tribes.AttachedNode(config)",
                key="attach",
            )
        self.config = config
        self.sessions = Sessions(config, codec=codec)
        self.joined: Future[bool] = Future()
        """Done when this node has the sessions of the others: True, or False when time ran out."""
        self._interceptors = interceptors
        limit = config.drain_timeout_s if drain_timeout is None else drain_timeout
        self._drain_timeout = limit
        self._watch = watch
        self._lock = threading.Lock()
        self._run: _Run | None = None
        self._is_forked = False
        _nodes.add(self)

    # Life.

    def start(self) -> None:
        """Open the sockets, join the group, and return; :attr:`joined` tells the rest.

        Raises:
            ConfigError: A value cannot work, or an address or port cannot be had.
            LocalProtocolError: It was started before, in this process.
        """
        with self._lock:
            if self._run is not None:
                raise LocalProtocolError("a background node is started once")
            run = self._launch()
        if self.config.http is not None:
            log.warning("http is served by the command tribes node only", key="http")
        self._await_started(run)

    def _launch(self) -> _Run:
        if self._is_forked and not (self._interceptors is None or callable(self._interceptors)):
            raise LocalProtocolError(
                "the interceptors of this node are in use in the process that this one was forked "
                "from; give BackgroundNode a function that makes them"
            )
        refuse_uwsgi_without()
        run = _Run(self.joined)
        name = f"tribes-{self.config.name or 'node'}"
        run.thread = threading.Thread(target=self._thread_main, args=(run,), name=name, daemon=True)
        # Before it runs: who stops the node from now on is heard.
        self._run = run
        try:
            run.thread.start()
        except BaseException:
            self._run = None
            raise
        return run

    def _await_started(self, run: _Run) -> None:
        try:
            run.started.result(_START_TIMEOUT_S)
        except Exception:
            # Its thread is at its end unless it took too long, and nothing of it is left when the
            # caller goes on.
            if run.started.done():
                assert run.thread is not None
                run.thread.join(_START_TIMEOUT_S)
            raise
        atexit.register(self.stop)
        util = sys.modules.get("multiprocessing.util")
        if self._is_forked and util is not None:
            # Its processes end without what atexit runs; what is queued would be lost.
            util.Finalize(None, self.stop, exitpriority=100)

    def stop(self) -> None:
        """Get the members' receipts, leave the group, end the thread; `drain_report` says how that
        went. A second call does nothing.
        """
        atexit.unregister(self.stop)
        run = self._run
        if run is None or run.has_ended:
            return
        run.is_over = run.is_retired = True
        if run.token is not None and run.stopping is not None:
            try:
                run.token.run_sync_soon(run.stopping.set)
            except trio.RunFinishedError:
                pass
        assert run.thread is not None
        if run.thread.is_alive():
            run.thread.join(successor_wait_s() + 2 * self._drain_timeout + _SAVE_S)

    def retire(self) -> None:
        """Tell everybody that this node is about to leave, some time before `stop`; see
        :meth:`GroupChannel.retire`. Returns when the members have been told, or cannot be.
        """
        run = self._run
        if run is None or run.is_over or run.channel is None:
            return
        run.is_retired = True
        with suppress(ChannelClosedError, TimeoutError):
            call_in_run(run.token, run.channel.retire).result(_START_TIMEOUT_S)

    @property
    def is_ready(self) -> bool:
        """Whether a balancer should send requests here: it has joined, and is not to leave."""
        run = self._run
        return self.is_running and run is not None and not run.is_retired and self.joined.done()

    @property
    def drain_report(self) -> DrainReport | None:
        """How `stop` went; None before, in another process, and where it took too long."""
        run = self._run
        return None if run is None or run.channel is None else run.channel.drain_report

    def wait_joined(self, timeout: float | None = None) -> bool:
        """Block until this node has the others' sessions; False when that took too long.

        In a forked child whose node does not run yet it starts that.

        Args:
            timeout: Seconds; None: as long as the state transfer may take.

        Raises:
            ChannelError: It cannot have them, and a manager's settings say that the node must then
                not run (``terminate_on_start_failure``): it has ended.
            LocalProtocolError: It would block an event loop.
        """
        if not self.joined.done():
            refuse_in_event_loop("await node.await_joined()")
        if self.sessions.revive is not None:
            self._await_started(self._launched())
        try:
            limit = self._join_limit_s if timeout is None else timeout
            return self.joined.result(None if limit == inf else limit)
        except TimeoutError:
            return False

    async def await_joined(self, timeout: float | None = None) -> bool:
        """The same in a task of asyncio or trio; cancelling is safe."""
        if self.sessions.revive is not None:
            await in_thread(lambda: self._await_started(self._launched()))
        try:
            limit = self._join_limit_s if timeout is None else timeout
            return await result_of(self.joined, limit)
        except TimeoutError:
            return False

    @property
    def _join_limit_s(self) -> float:
        return self.config.transfer_timeout_s + 10

    @property
    def was_started(self) -> bool:
        """Whether :meth:`start` was called in this process, whatever has happened since."""
        return self._run is not None

    @property
    def is_running(self) -> bool:
        """Whether it was started in this process, and has not ended."""
        run = self._run
        return run is not None and not run.has_ended

    # Use, from any thread.

    def manager(self, context: str) -> SessionManager:
        """The session manager of a context.

        Raises:
            LocalProtocolError: The context is not in ``config.contexts``.
        """
        return self.sessions.listed_manager(context)

    def commit(
        self, session: Session, *, on_unreplicated: OnUnreplicated | None = None
    ) -> CommitResult:
        """Commit a session; block this thread until the members have it, as the options say.

        Args:
            session: From a manager of this node.
            on_unreplicated: What to do when too few members have it, instead of what the
                configuration says; see `OnUnreplicated`.

        Raises:
            LocalProtocolError: It would block an event loop: use :meth:`acommit`. With options that
                do not wait it may be called there.
            SessionNotReplicatedError: Too few members have it, and that is to be an error.
            ConfigError: ``on_unreplicated`` cannot be used.
        """
        return self.sessions.committer_of(session, on_unreplicated).commit(session)

    async def acommit(
        self, session: Session, *, on_unreplicated: OnUnreplicated | None = None
    ) -> CommitResult:
        """The same in a task of asyncio or trio.

        Cancelling is safe: the commit stands and goes out, its result is dropped.
        """
        committer = self.sessions.committer_of(session, on_unreplicated)
        if self.sessions.revive is not None:
            await self.await_joined()
        return await committer.acommit(session)

    def send(
        self,
        message: bytes,
        to: Iterable[Member] | Member | None = None,
        *,
        options: int = SendOptions.DEFAULT,
    ) -> UniqueId:
        """Send a message as :meth:`GroupChannel.send` does; block this thread until it returns.

        Raises:
            LocalProtocolError: It would block an event loop: use :meth:`asend`.
            GroupSendError: Some destinations failed; all others have the message.
            ChannelClosedError: The node does not run.
        """
        refuse_in_event_loop("await node.asend(message)")
        return self._submit(message, to, options).result()

    async def asend(
        self,
        message: bytes,
        to: Iterable[Member] | Member | None = None,
        *,
        options: int = SendOptions.DEFAULT,
    ) -> UniqueId:
        """The same in a task of asyncio or trio.

        Cancelling is safe: the message may still arrive, and its outcome is dropped.
        """
        return await result_of(self._submit(message, to, options))

    def _submit(
        self, message: bytes, to: Iterable[Member] | Member | None, options: int
    ) -> Future[UniqueId]:
        channel, run = self.channel, self._run
        assert run is not None
        return send_from_outside(channel, run.token, lambda: run.nursery, message, to, options)

    def announce(
        self,
        *,
        payload: bytes | None = None,
        domain: str | None = None,
        command: bytes | None = None,
    ) -> None:
        """Change what the member tells of itself, see :meth:`GroupChannel.announce`; returns when
        it is done.

        Raises:
            LocalProtocolError: The record would be too long, or the command is the farewell's.
            ChannelClosedError: The node does not run.
        """
        channel, run = self.channel, self._run
        assert run is not None

        def announce() -> None:
            channel.announce(payload=payload, domain=domain, command=command)

        call_in_run(run.token, announce).result(_START_TIMEOUT_S)

    def resync(self, context: str) -> int:
        """Get what other members have and this one does not, see :meth:`GroupChannel.resync`.

        Raises:
            LocalProtocolError: The context is not in ``config.contexts``.
            ChannelClosedError: The node does not run.
        """
        channel, run = self.channel, self._run
        assert run is not None
        return call_in_run(run.token, lambda: channel.resync(context)).result(_START_TIMEOUT_S)

    def set_keys(self, keys: KeyRing) -> None:
        """Replace the group's keys, see :meth:`GroupChannel.set_keys`; returns when it is done.

        A child that is forked later begins with those of the configuration.

        Raises:
            LocalProtocolError: The node was started without a key.
            ChannelClosedError: The node does not run.
        """
        channel, run = self.channel, self._run
        assert run is not None
        call_in_run(run.token, lambda: channel.set_keys(keys)).result(_START_TIMEOUT_S)

    def reload_keys(self) -> tuple[int, ...]:
        """Read the key file again, see :meth:`GroupChannel.reload_keys`, and return the ids.

        Raises:
            ConfigError: The file cannot be read or used; the keys stay as they were.
            LocalProtocolError: The configuration names no key file.
            ChannelClosedError: The node does not run.
        """
        keys = self.channel.read_keys()
        self.set_keys(keys)
        return keys.ids

    def reload_certificates(self) -> None:
        """Read the files of ``channel.tls`` again, see :meth:`GroupChannel.reload_certificates`.

        Raises:
            ConfigError: A file cannot be read or used; all stays as it was.
            LocalProtocolError: The configuration has no ``channel.tls``.
            ChannelClosedError: The node does not run.
        """
        channel, run = self.channel, self._run
        assert run is not None
        tls = channel.read_certificates()
        call_in_run(run.token, lambda: channel.set_certificates(tls)).result(_START_TIMEOUT_S)

    @property
    def channel(self) -> GroupChannel:
        """The channel. Only its ``local`` and ``view`` may be read from other threads.

        Raises:
            ChannelClosedError: The node has not been started in this process.
        """
        if self._run is None or self._run.channel is None:
            where = "in this process, which was forked from the one where it was"
            raise ChannelClosedError(
                f"the node has not been started {where if self._is_forked else ''}".rstrip()
            )
        return self._run.channel

    @property
    def local(self) -> Member:
        """This member's own record."""
        return self.channel.local

    @property
    def view(self) -> View:
        """The other members, as an immutable snapshot; safe from any thread."""
        return self.channel.view

    def gauges(self) -> NodeGauges:
        """What this node keeps for its members, see :meth:`GroupChannel.gauges`; from any thread.

        Raises:
            ChannelClosedError: The node has not been started in this process.
        """
        return self.channel.gauges()

    @property
    def member_names(self) -> list[str]:
        """Names of all live members that this node sees, itself first."""
        return [self.local.label, *(member.label for member in self.view.members)]

    # The thread.

    def _thread_main(self, run: _Run) -> None:
        # The boundary of the thread: whatever ends it is told to who waits, and logged.
        try:
            trio.run(self._main, run)
        except BaseException as error:
            why = _single(error)
            run.is_over = run.has_ended = True
            has_started = run.started.done()
            if not has_started:
                run.started.set_exception(why)
            else:
                log.critical("background node died", exc_info=error)
            if run.joined.done():
                return
            if has_started and isinstance(why, ChannelError):
                # It is not to run without the others' sessions (terminate_on_start_failure).
                run.joined.set_exception(why)
            else:
                run.joined.set_result(False)
        finally:
            run.is_over = run.has_ended = True

    async def _main(self, run: _Run) -> None:
        run.token = trio.lowlevel.current_trio_token()
        run.stopping = trio.Event()
        if run.is_over:
            # Told before there was anything to tell.
            run.stopping.set()
        made = self._interceptors() if callable(self._interceptors) else self._interceptors
        channel = GroupChannel(
            self.config,
            interceptors=made,
            sessions=self.sessions,
            drain_timeout=self._drain_timeout,
            watch=self._watch,
        )
        async with channel:
            run.channel = channel
            async with trio.open_nursery() as nursery:
                run.nursery = nursery
                run.started.set_result(None)
                nursery.start_soon(self._tell_joined, run, channel)
                try:
                    await run.stopping.wait()
                finally:
                    run.nursery = None  # before it is closed: no more sends
                nursery.cancel_scope.cancel()
        if not run.joined.done():
            run.joined.set_result(False)

    async def _tell_joined(self, run: _Run, channel: GroupChannel) -> None:
        joined = await channel.await_joined()
        self.sessions.revive = None
        run.joined.set_result(joined)

    # Fork.

    def _after_fork(self) -> None:
        """In a forked child: forget the parent's thread."""
        run, self._run = self._run, None
        self._lock = threading.Lock()
        self.joined = Future()
        atexit.unregister(self.stop)
        if run is not None:
            self._is_forked = True
            self.sessions.revive = None if run.is_over else self._revive

    def _revive(self) -> None:
        """Start this forked process's own node if nobody has, and wait until it has joined.

        Raises:
            LocalProtocolError: It would block an event loop.
            ConfigError: The node cannot start, see :meth:`start`.
        """
        library = running_loop()
        if library is not None:
            raise LocalProtocolError(
                "this process was forked from the one whose node ran, and its own has not joined "
                f"yet; in this {library} event loop write first: await node.await_joined()"
            )
        self.wait_joined()

    def _launched(self) -> _Run:
        with self._lock:
            return self._run or self._launch()


def _single(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


_nodes: WeakSet[BackgroundNode] = WeakSet()


def _after_fork_in_child() -> None:
    for node in list(_nodes):
        node._after_fork()


if hasattr(os, "register_at_fork"):
    # Registered after the channels', so called after them.
    os.register_at_fork(after_in_child=_after_fork_in_child)
