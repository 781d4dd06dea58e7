"""The trio driver of a :class:`NodeCore`: sockets, tasks and time, and no rule.

Connections have tasks of their own (:mod:`tribes.runtime.links`), and the timer has one. Everything
else happens in the task that had the input: the core is called, then its outputs are performed,
then theirs, until there are none. What one input puts on a connection is handed to the kernel in
one call, and so is what several sends of one pass put there (:mod:`tribes.runtime.cork`).

Longer than others and kept whole: what is left here is one loop, and a further object between an
input and the core, or between the core's outputs and the connections, would cost every message a
call.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Final, Protocol

import trio

from tribes.channel.discovery import static_hosts
from tribes.channel.outputs import Deliver, Event, TicketDone
from tribes.runtime.bell import Bell
from tribes.runtime.cork import Cork
from tribes.runtime.dialing import probe_member
from tribes.runtime.links import Links
from tribes.runtime.look_ups import LookUps
from tribes.runtime.udp import UdpPort
from tribes.wire.options import SendOptions
from tribes.wire.outputs import (
    Close,
    Connect,
    Datagram,
    Pause,
    Probe,
    Resume,
    UdpDatagram,
    Write,
)

if TYPE_CHECKING:
    import socket

    from tribes.channel.core import Output
    from tribes.config.model import StaticMemberConfig
    from tribes.manager.drain import DrainReport
    from tribes.manager.inbox import Inbox
    from tribes.membership.seeker import NamedHost
    from tribes.node import NodeCore
    from tribes.runtime.discovery import DiscoveryService, HostNames
    from tribes.runtime.multicast import Multicast
    from tribes.runtime.otel import OtelTracing
    from tribes.runtime.tls import Tls
    from tribes.security.keys import KeyRing
    from tribes.wire.member import Member

__all__ = ["Listeners", "Shell"]

_ASYNC: Final = int(SendOptions.ASYNCHRONOUS)


class Listeners(Protocol):
    """The users' side of a node: who gets messages and events."""

    def deliver(self, message: Deliver) -> Awaitable[None] | None:
        """Hand a message to the listeners: None when they are done, else what to wait for.

        Raises:
            Exception: A listener failed; the sender is told so if it asked.
        """

    def event(self, event: Event) -> None:
        """An event of the core, in order. Must not block."""


class _Waiter:
    """A task that waits for its send."""

    __slots__ = ("faulty", "task")

    def __init__(self) -> None:
        self.task: trio.lowlevel.Task | None = None
        self.faulty: dict[Member, Exception] | None = None


class Shell:
    """Runs one node core on real sockets.

    Args:
        core: The node.
        inbox: Where request threads leave their commits.
        listener: A listening TCP socket.
        multicast: The group's datagrams; None: there is no multicast.
        services: What finds members otherwise.
        udp: The UDP socket for messages with the option UDP; None: none are received, and one to
            send them from is opened when it is needed.
        listeners: Who gets deliveries and events.
        tls: Certificates for all connections; None: they are plain.
        tracing: Knows the span of the task that sends; None: there are no spans.
        now: Monotonic seconds; the core's only time.

    Attributes:
        links: The connections.
        bell: Rung when the inbox has something.
    """

    def __init__(
        self,
        core: NodeCore,
        *,
        inbox: Inbox,
        listener: socket.socket,
        multicast: Multicast | None,
        services: Sequence[DiscoveryService] = (),
        udp: socket.socket | None = None,
        listeners: Listeners,
        tls: Tls | None = None,
        tracing: OtelTracing | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.core = core
        self._inbox = inbox
        self._tracing = tracing
        self.now = now
        self._multicast = multicast
        self._udp: Final = UdpPort(core, udp, now=now, pump=self.pump)
        self._look_ups: Final = LookUps(
            services, discovered=self._discovered, event=listeners.event
        )
        self._listeners = listeners
        self.links: Final = Links(
            core,
            listener,
            tls=tls,
            now=now,
            pump=self.pump,
            event=listeners.event,
            before_loss=self._before_loss,
        )
        self._tickets: dict[int, _Waiter] = {}
        self._timer_scope: trio.CancelScope | None = None
        self._timer_at = inf
        self._nursery: trio.Nursery | None = None
        self._is_pumping = False
        self._cork = Cork(self.pump)
        self.bell: Final = Bell()
        self._is_abandoned = False
        self._changed: trio.Event | None = None  # made when somebody waits: hardly ever

    # Life.

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the node until cancelled; it then leaves the group and closes its sockets.

        Leaving in good order, with everything sent first, is :meth:`drain` before the cancelling.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self.links.start(nursery)
                if self._multicast is not None:
                    nursery.start_soon(self._multicast.hear, self._datagram, self.pump)
                self._udp.start(nursery)
                nursery.start_soon(self._keep_time)
                nursery.start_soon(self.bell.answer, self._take_commits)
                nursery.start_soon(self._cork.run)
                self.core.start(self.now())
                self.pump()
                self._take_batch()
                self._look_ups.start(nursery)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._leave()

    def set_static_members(
        self, members: Sequence[StaticMemberConfig], names: HostNames | None
    ) -> None:
        """Look for other static members from now on: ``members`` that are given by address, and
        those that ``names`` finds.
        """
        self.core.discovered("static", static_hosts(members), self.now())
        self._look_ups.replace_names(names)
        self.pump()

    def abandon(self) -> None:
        """In a forked child: do nothing any more. The node goes on in the parent.

        Its sockets here are closed by :mod:`tribes.runtime.sockets`. Should the fork have been made
        inside the node's own loop, the child's copy of it must not take leave of the group.
        """
        self._is_abandoned = True
        self._start_no_more()
        self.links.abandon()

    def _leave(self) -> None:
        if self._is_abandoned:
            return
        self._start_no_more()
        self.links.stop()
        self.core.stop(self.now())
        self.pump()
        self.links.close()
        if self._multicast is not None:
            self._multicast.close()
        self._udp.close()

    def _start_no_more(self) -> None:
        # No more tasks: what the core still asks for that would need one is not done.
        self._nursery = None
        self._look_ups.stop()
        self._udp.stop()

    async def drain(self, timeout: float) -> bool:
        """Wait until every member has confirmed what is here; False when that took too long."""
        self.core.drain(self.now())
        self.pump()
        with trio.move_on_after(timeout):
            while len(self._inbox) or not self.core.is_drained:
                await self.changed()
            return True
        return False

    def drain_report(self) -> DrainReport:
        """How the drain stands."""
        return self.core.sessions.drain_report()._replace(unsent=len(self._inbox))

    def retire(self) -> None:
        """Tell the members that this node is about to leave; it goes on answering requests."""
        self.core.retire(self.now())
        self.pump()

    async def joined(self, timeout: float) -> bool:
        """Wait until this node has the sessions of the others; False when that took too long.

        Raises:
            ChannelError: It cannot have them, and a manager's settings say that it must then not
                start (``terminate_on_start_failure``).
        """
        with trio.move_on_after(timeout):
            while not self.core.is_joined:
                await self.changed()
            self.core.check_start()
            return True
        return False

    async def changed(self) -> None:
        """Wait for the next input."""
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()

    # Inputs from this process.

    def _take_batch(self) -> None:
        if self._nursery is None:
            return
        batch = self._inbox.take()
        if batch is None:
            return
        self.core.commits(batch, self.now())
        self.pump()

    async def _take_commits(self) -> None:
        self._take_batch()
        while len(self._inbox):
            # The network has its turn before the next batch.
            await trio.lowlevel.checkpoint()
            self._take_batch()

    def set_keys(self, keys: KeyRing) -> None:
        """Replace the group's keys; see :meth:`ChannelCore.set_keys`."""
        self.core.set_keys(keys, self.now())
        self.pump()

    async def send(
        self, destinations: tuple[Member, ...], payload: bytes, options: int
    ) -> tuple[bytes, dict[Member, Exception]]:
        """Send and wait for what the options promise; returns id and faulty members.

        Of asynchronous sends only some let other tasks run, see :mod:`tribes.runtime.cork`.
        Cancelling is safe: the message may still arrive, and its outcome is dropped.
        """
        if self._tracing is None:
            number, unique_id = self.core.send(destinations, payload, options, self.now())
        else:
            number, unique_id = self.core.send(
                destinations, payload, options, self.now(), trace=self._tracing.present()
            )
        if options & _ASYNC and (faulty := self.core.released(number)) is not None:
            if self._cork.queued(len(payload)):
                await trio.lowlevel.checkpoint_if_cancelled()
            else:
                self.pump()
                await trio.lowlevel.checkpoint()
            return unique_id, faulty
        waiter = self._tickets[number] = _Waiter()
        if not self._cork.holds():
            self.pump()
        if waiter.faulty is None:
            waiter.task = trio.lowlevel.current_task()

            def abort(_: object) -> trio.lowlevel.Abort:
                self._tickets.pop(number, None)
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
        else:
            await trio.lowlevel.checkpoint()
        return unique_id, waiter.faulty or {}

    # The pump: outputs until there are none.

    def pump(self) -> None:
        """Perform the core's outputs, and the outputs of what that causes."""
        if self._is_pumping or self._is_abandoned:
            return
        try:
            self._pump_out()
        except BaseException:
            self.core.wake_waiters()
            raise
        # Once for all commits that have ended, in whatever came of this input.
        self.core.wake_waiters()
        self._arm()
        if self._changed is not None:
            changed, self._changed = self._changed, None
            changed.set()

    def _pump_out(self) -> None:
        core, channel, links = self.core, self.core.channel, self.links
        self._is_pumping = True
        try:
            while True:
                for output in core.take_outputs():
                    self._perform(output)
                # Asked first: to take nothing costs the core several times as much as to say so.
                # And a flush reports bytes as taken, so that more may be written.
                if not channel.has_outputs and not (links.flush() and self._has_more()):
                    return
        finally:
            self._is_pumping = False

    def _has_more(self) -> bool:
        return self.core.channel.has_outputs or self.links.has_to_flush

    def _perform(self, output: Output) -> None:
        match output:
            case Write():
                self.links.write(output)
            case Deliver():
                self._deliver(output)
            case TicketDone():
                self._ticket_done(output)
            case Datagram():
                if self._multicast is not None:
                    self._multicast.send(output.data)
            case Connect():
                self._start(self.links.connect, output)
            case UdpDatagram():
                self._udp.send(output)
            case Probe():
                self._start(self._probe, output)
            case Close():
                self.links.close_one(output)
            case Pause():
                self.links.pause(output.link)
            case Resume():
                self.links.resume(output.link)
            case _:
                self._listeners.event(output)

    def _start(self, task: Callable[..., Awaitable[None]], output: Connect | Probe) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(task, output)

    def _ticket_done(self, done: TicketDone) -> None:
        waiter = self._tickets.pop(done.ticket, None)
        if waiter is not None:
            waiter.faulty = done.faulty
            if waiter.task is not None:
                trio.lowlevel.reschedule(waiter.task)
                self._cork.released()

    # Time.

    def _arm(self) -> None:
        deadline = self.core.channel.timers.next_deadline
        if deadline != self._timer_at:
            self._timer_at = deadline
            if self._timer_scope is not None:
                self._timer_scope.deadline = self._in_trio_time(deadline)

    def _in_trio_time(self, deadline: float) -> float:
        # trio's clock has an origin of its own.
        return inf if deadline == inf else trio.current_time() + deadline - self.now()

    async def _keep_time(self) -> None:
        while True:
            deadline = self._in_trio_time(self._timer_at)
            with trio.CancelScope(deadline=deadline) as self._timer_scope:
                await trio.sleep_forever()
            now = self.now()
            if now >= self.core.next_deadline:
                self.core.timer(now)
                self.pump()
            else:
                self._timer_at = self.core.next_deadline

    # Members.

    def _datagram(self, data: bytes, addr: tuple[str, int]) -> None:
        self.core.datagram(data, addr, self.now())

    def _before_loss(self) -> None:
        # A leaving member says so before it closes: what was sent first is heard first.
        if self._multicast is not None:
            self._multicast.hear_waiting(self._datagram)
            self.pump()

    def _discovered(self, service: str, hosts: Sequence[NamedHost]) -> None:
        self.core.discovered(service, hosts, self.now())
        self.pump()

    def announce(
        self,
        *,
        payload: bytes | None = None,
        domain: bytes | None = None,
        command: bytes | None = None,
    ) -> None:
        """Change what the own record carries; see :meth:`ChannelCore.announce`."""
        self.core.announce(self.now(), payload=payload, domain=domain, command=command)
        self.pump()

    async def _probe(self, output: Probe) -> None:
        # With TLS members are asked on connections of the core's own; a test frame would be plain.
        assert self.links.tls is None
        error = await probe_member(output)
        if self._nursery is not None:
            self.core.probe_result(output.probe, error, self.now())
            self.pump()

    # Deliveries.

    def _deliver(self, output: Deliver) -> None:
        try:
            pending = self._listeners.deliver(output)
        except Exception as error:  # noqa: BLE001 - users' code: the sender is told
            self.core.delivered(output.token, error, self.now())
            return
        if pending is None:
            self.core.delivered(output.token, None, self.now())
        elif self._nursery is not None:
            self._nursery.start_soon(self._await_delivery, output.token, pending)

    async def _await_delivery(self, token: int, pending: Awaitable[None]) -> None:
        error: Exception | None = None
        try:
            await pending
        except Exception as why:  # noqa: BLE001 - users' code: the sender is told
            error = why
        self.core.delivered(token, error, self.now())
        self.pump()
