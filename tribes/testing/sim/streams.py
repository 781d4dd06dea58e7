"""TCP as a node sees it: connections, bounded buffers, acknowledgements, resets.

A connection has two ends, and each end has a queue towards the other of what is on its way there.
A segment is one event. The sender's kernel takes bytes up to its buffer's size and counts them
until they are acknowledged; the receiver's takes them until its process reads. What can't arrive
(a cut, a full window) stays in the queue and is sent again after a timeout that doubles up to
``RETRY_MAX_S``, or at once when a cut is taken back through the world.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tribes.testing.sim.ends import RETRY_FIRST_S, End, Listener, Mark, Request

if TYPE_CHECKING:
    from collections import deque

    from tribes.testing.sim.world import World

__all__ = ["RECEIVE_BUFFER", "SEND_BUFFER", "Streams"]

SEND_BUFFER = 256 * 1024
"""Bytes that a kernel takes for one connection before they are acknowledged."""

RECEIVE_BUFFER = 256 * 1024
"""Bytes that a kernel keeps for a process that doesn't read."""

SEGMENT_MAX = 64 * 1024
"""Bytes that travel together."""

RETRY_MAX_S = 1.0
"""Longest time between two tries to send a segment again, in seconds."""


class Streams:
    """All connections of a world.

    Args:
        world: Its time, randomness and network.
    """

    def __init__(self, world: World) -> None:
        self.listeners: dict[int, Listener] = {}
        """Who listens, by port."""
        self.machines: dict[int, str] = {}
        """Which machine has a port, whether or not somebody listens there."""
        self.clogged: dict[tuple[str, str], None] = {}
        self.corruptions: dict[tuple[str, str], deque[Callable[[bytes], bytes]]] = {}
        """What happens to the next pieces between two machines."""
        self.cutters: dict[tuple[str, str], None] = {}
        """Between whom the next piece is cut in two and followed by a reset."""
        self._world = world
        self._network = world.network
        self._ends: dict[End, None] = {}

    # Making connections.

    def connect(
        self,
        end: End,
        port: int,
        timeout: float,
        done: Callable[[End | None, Exception | None], None],
        is_wanted: Callable[[], bool],
    ) -> None:
        """Connect an end to whoever listens on a port.

        Args:
            end: The connecting end.
            port: Names the machine and the listener.
            timeout: Seconds until it fails.
            done: Gets the end, or the reason, when the machine knows it.
            is_wanted: False once the process that asks has died.
        """
        deadline = self._world.now + timeout
        self._syn(Request(end, port, deadline, timeout, done, is_wanted))

    def _syn(self, request: Request) -> None:
        if not request.is_wanted():
            return
        world, source = self._world, request.end.machine
        target = self.machines.get(request.port)
        if target is None or not self._network.reaches_by_tcp(source, target):
            self._syn_lost(request)
            return
        delay = self._network.delay(source, target)
        if world.now + delay > request.deadline:
            self._too_late(request)
        else:
            world.schedule(delay, self._syn_arrives, request, target)

    def _syn_lost(self, request: Request) -> None:
        world = self._world
        if world.now + request.retry >= request.deadline:
            self._too_late(request)
        else:
            world.schedule(request.retry, self._syn, request)
            request.retry *= 2

    def _too_late(self, request: Request) -> None:
        error = TimeoutError(f"no connection within {request.timeout:g} s")
        left = max(0.0, request.deadline - self._world.now)
        self._world.schedule(left, request.done, None, error)

    def _syn_arrives(self, request: Request, target: str) -> None:
        world, source = self._world, request.end.machine
        if not self._network.reaches_by_tcp(target, source):
            # The answer gets lost, and with it what the answerer believes.
            self._syn_lost(request)
            return
        delay = self._network.delay(target, source)
        listener = self.listeners.get(request.port)
        if listener is None:
            if world.now + delay > request.deadline:
                self._too_late(request)
            else:
                refused = ConnectionRefusedError("connection refused")
                world.schedule(delay, request.done, None, refused)
            return
        theirs = listener.admit(request.port)
        if theirs is None:
            self._syn_lost(request)
            return
        mine = request.end
        mine.other, theirs.other = theirs, mine
        mine.way = self._network.way(mine.machine, theirs.machine)
        theirs.way = self._network.way(theirs.machine, mine.machine)
        theirs.peer = ("127.0.0.1", 32768 + world.next_link())
        self._ends[mine] = self._ends[theirs] = None
        listener.accept(theirs)
        if world.now + delay > request.deadline:
            self._too_late(request)
            left = max(0.0, request.deadline - world.now)
            world.schedule(left, self.close, mine)
        else:
            world.schedule(delay, self._established, request)

    def _established(self, request: Request) -> None:
        if request.is_wanted():
            request.done(request.end, None)
        else:
            self.close(request.end)

    # Sending.

    def write(self, end: End) -> int:
        """Let the kernel take what it can of ``pending``; returns the bytes taken."""
        pending = end.pending
        if not pending:
            return 0
        if end.is_reset or not end.is_open:
            pending.clear()
            return 0
        if self.clogged and (end.machine, end.other.machine) in self.clogged:
            return 0
        room = SEND_BUFFER - end.unacked
        if room <= 0:
            return 0
        data = pending[0] if len(pending) == 1 else b"".join(pending)
        size = len(data)
        if size > room:
            pending[:] = [data[room:]]
            data, size = data[:room], room
        else:
            pending.clear()
        end.sent += size
        end.unacked += size
        if size <= SEGMENT_MAX:
            self.transmit(end, data)
        else:
            for at in range(0, size, SEGMENT_MAX):
                self.transmit(end, data[at : at + SEGMENT_MAX])
        return size

    def transmit(self, end: End, item: bytes | Mark) -> None:
        """Put a piece or a mark on its way; it stays behind what went before."""
        if (self.corruptions or self.cutters) and isinstance(item, bytes):
            between = (end.machine, end.other.machine)
            if self.corruptions and (changes := self.corruptions.get(between)):
                item = changes.popleft()(item)
            if self.cutters and between in self.cutters:
                del self.cutters[between]
                end.flight.append(item[: (len(item) + 1) // 2])
                self._launch(end)
                self._world.schedule(0.0, self._reset_mid_frame, end)
                return
        end.flight.append(item)
        if not end.is_stalled:
            self._launch(end)

    def _launch(self, end: End) -> None:
        world = self._world
        when = world.now + self._network.transit(end.way)
        if self._network.loses(end.way):
            when += RETRY_FIRST_S
            end.lost_until = max(end.lost_until, when)
        if when < end.last_arrival:
            when = end.last_arrival
        end.last_arrival = when
        world.schedule_at(when, self._arrive, end, end.epoch)

    # Arriving.

    def _arrive(self, end: End, epoch: int) -> None:
        if epoch != end.epoch or not end.flight:
            return
        other = end.other
        way = end.way
        is_open = way is None or not (way.is_cut or self._network.tcp_blocked)
        if (other.inbox_bytes or not is_open) and not self._is_admitted(end):
            self._stall(end)
            return
        item = end.flight.pop(0)
        if isinstance(item, bytes):
            self._acknowledge(end, len(item))
            if other.is_reset or not other.is_open:
                self._answer_with_reset(end)
            else:
                other.inbox.append(item)
                other.inbox_bytes += len(item)
                other.owner.readable(other)
        elif item is Mark.RST:
            self._reset(other)
        elif other.is_open and not other.is_reset:
            other.inbox.append(item)
            other.owner.readable(other)
        if end.pending and end.is_open:
            end.owner.writable(end)

    def _is_admitted(self, end: End) -> bool:
        if not self._network.carries_segments(end.way):
            return False
        other = end.other
        if not other.inbox_bytes:
            return True
        item = end.flight[0]
        return not (
            isinstance(item, bytes)
            and other.is_open
            and other.inbox_bytes + len(item) > RECEIVE_BUFFER
        )

    def _acknowledge(self, end: End, size: int) -> None:
        # A corrupted piece may have another length than what was counted; never go below none.
        back = end.other.way
        if (
            back is None
            or not (back.is_cut or self._network.tcp_blocked)
            or (self._network.carries_segments(back))
        ):
            end.unacked = max(0, end.unacked - size - end.deferred) if end.flight else 0
            end.deferred = 0
            return
        end.deferred += size
        if not end.is_acking:
            end.is_acking = True
            self._world.schedule(RETRY_MAX_S, self._acknowledge_late, end)

    def _acknowledge_late(self, end: End) -> None:
        end.is_acking = False
        if end.deferred:
            self._acknowledge(end, 0)
            if not end.deferred and end.pending and end.is_open:
                end.owner.writable(end)

    def _stall(self, end: End) -> None:
        end.is_stalled = True
        end.epoch += 1
        end.retry = RETRY_FIRST_S
        self._world.schedule(end.retry, self._retry, end, end.epoch)

    def _retry(self, end: End, epoch: int) -> None:
        if epoch != end.epoch or not end.flight:
            return
        if self._is_admitted(end):
            self._go_on(end)
        else:
            end.retry = min(2 * end.retry, RETRY_MAX_S)
            self._world.schedule(end.retry, self._retry, end, epoch)

    def _go_on(self, end: End) -> None:
        end.is_stalled = False
        end.epoch += 1
        for _ in end.flight:
            self._launch(end)

    def window_opened(self, end: End) -> None:
        """The process has read: what the other end could not deliver comes now."""
        other = end.other
        if other.is_stalled and other.flight and self._is_admitted(other):
            self._go_on(other)

    def kick(self) -> None:
        """Faults were taken back: try at once what waits for a retransmission."""
        for end in list(self._ends):
            if end.is_stalled and end.flight and self._is_admitted(end):
                self._go_on(end)
            if end.deferred:
                self._acknowledge(end, 0)
            if end.pending and end.is_open:
                end.owner.writable(end)

    # Ending.

    def close(self, end: End, *, abort: bool = False) -> None:
        """Close a socket: what the kernel has taken still goes out, then the end of the stream; a
        reset instead if something was not read, or to ``abort``.
        """
        if not end.is_open:
            return
        end.is_open = False
        end.pending.clear()
        if abort and (end.is_stalled or self._world.now < end.lost_until):
            # It never left this machine, or got lost: nobody sends it again.
            end.flight.clear()
            end.epoch += 1
            end.is_stalled = False
        mark = Mark.RST if abort or end.inbox_bytes else Mark.FIN
        end.inbox.clear()
        end.inbox_bytes = 0
        if not end.is_reset and end.other.is_open and not end.other.is_reset:
            self.transmit(end, mark)
        self._forget(end)

    def _forget(self, end: End) -> None:
        if not end.is_open and not end.other.is_open:
            self._ends.pop(end, None)
            self._ends.pop(end.other, None)

    def _answer_with_reset(self, end: End) -> None:
        # Bytes for a socket that is gone.
        other = end.other
        if other.flight and other.flight[-1] is Mark.RST:
            return
        self.transmit(other, Mark.RST)

    def _reset(self, end: End) -> None:
        end.flight.clear()
        end.epoch += 1
        end.is_stalled = False
        if end.is_open and not end.is_reset:
            end.is_reset = True
            end.pending.clear()
            end.inbox.append(Mark.RST)
            end.owner.readable(end)

    def between(self, a: str, b: str) -> list[End]:
        """The open ends of ``b`` on connections with ``a``, whoever made them."""
        return [e for e in self._ends if e.is_open and e.machine == b and e.other.machine == a]

    def reset_between(self, a: str, b: str) -> None:
        """Reset all connections between two machines; what is on its way is lost."""
        for end in self.between(a, b) + self.between(b, a):
            self._reset(end.other)
            self._reset(end)

    def _reset_mid_frame(self, end: End) -> None:
        other = end.other
        if other.is_open and not other.is_reset:
            for item in end.flight:
                if isinstance(item, bytes):
                    other.inbox.append(item)
                    other.inbox_bytes += len(item)
        self.reset_between(end.machine, other.machine)

    def vanish(self, end: End) -> None:
        """The machine forgets a connection without telling the other one."""
        end.is_reset = True
        end.pending.clear()
        end.flight.clear()
        end.epoch += 1
        end.is_stalled = False  # else the reset that answers the other one never leaves
        end.inbox.clear()
        end.inbox_bytes = 0
        end.inbox.append(Mark.RST)
        end.owner.readable(end)
