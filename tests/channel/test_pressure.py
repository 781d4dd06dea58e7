"""A member whose queue is full: who waits, for how long, and who does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.channel.test_core import LOCAL, ONE, TWO, Counter, heard
from tribes.channel.core import ChannelCore
from tribes.channel.outputs import SendFailed, TicketDone
from tribes.config.model import ChannelConfig, SenderConfig
from tribes.errors import MemberBehindError, MemberUnreachableError, QueueFullError
from tribes.interceptors import MessageDispatchInterceptor
from tribes.links import blocked as blocked_module
from tribes.wire.data import decode_body
from tribes.wire.frame import ACK_FRAME, FrameDecoder
from tribes.wire.member import SHUTDOWN_COMMAND, Member
from tribes.wire.outputs import Connect, Write

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tribes.channel.core import Output

KIB = 1024


class Group:
    """A core with plain members whose queues hold 4 KiB of each kind. None of them answers by
    itself, and ``hung`` never takes a byte.
    """

    def __init__(self, *hung: Member) -> None:
        self.rooms: list[tuple[Member, float]] = []
        sender = SenderConfig(queue_max_bytes=4 * KIB, live_queue_max_bytes=4 * KIB)
        self.core = ChannelCore(
            LOCAL,
            ChannelConfig(sender=sender),
            [MessageDispatchInterceptor()],
            wall_ms=lambda: 1000,
            entropy=Counter(),
            room=lambda member, now: self.rooms.append((member, now)),
        )
        self.core.start(0.0)
        heard(self.core, ONE, TWO)
        self.hung = {member.address for member in hung}
        self.links: dict[Member, int] = {}
        self.arrived: dict[Member, list[bytes]] = {ONE: [], TWO: []}
        self.done: dict[int, dict[Member, str]] = {}
        self.late: list[dict[Member, str]] = []
        self.decoders = {m: FrameDecoder(body_max_bytes=1 << 20) for m in (ONE, TWO)}
        self.totals = {ONE: 0, TWO: 0}
        self.perform(0.0)

    def perform(self, now: float) -> None:
        while outputs := self.core.take_outputs():
            for output in outputs:
                self.one(output, now)

    def one(self, output: Output, now: float) -> None:
        if isinstance(output, Connect) and output.address not in self.hung:
            member = ONE if output.address == ONE.address else TWO
            self.connected(member, output, now)
        elif isinstance(output, Write):
            member = next(m for m, link in self.links.items() if link == output.link)
            data = b"".join(output.chunks)
            bodies = self.decoders[member].feed(data)
            found = [decode_body(body) for body in bodies]
            self.arrived[member] += [each.message for each in found]
            self.totals[member] += len(data)
            self.core.writable(output.link, self.totals[member], now)
            for each in found:
                if each.options & 2:
                    self.core.link_bytes(output.link, ACK_FRAME, now)
        elif isinstance(output, TicketDone):
            self.done[output.ticket] = names(output.faulty)
        elif isinstance(output, SendFailed):
            self.late.append(names(output.faulty))

    def connected(self, member: Member, connect: Connect, now: float) -> None:
        link = self.links[member] = 10 + connect.attempt
        self.core.link_opened(link, now, peer=connect.address, attempt=connect.attempt)

    def wakes_up(self, member: Member, now: float) -> None:
        """A hung member's connection is there at last."""
        self.hung.discard(member.address)
        attempt = next(a for a, s in self.core.senders._by_attempt.items() if s.member == member)
        self.connected(member, Connect(attempt, member.address, 1.0), now)
        self.perform(now)

    def send(self, to: Iterable[Member], size: int, options: int, now: float = 0.0) -> int:
        ticket, _ = self.core.send(to, bytes([len(self.done)]) * size, options, now)
        self.perform(now)
        return ticket

    def post(self, to: Iterable[Member], size: int, now: float = 0.0) -> dict[Member, str]:
        told: dict[Member, str] = {}

        def each(member: Member, error: Exception | None, then: float) -> None:
            told[member] = "ok" if error is None else type(error).__name__
            if isinstance(error, MemberBehindError):
                assert "live_queue_max_bytes" in str(error)

        self.core.post(to, bytes(size), 6, now, each=each)
        self.perform(now)
        return told

    def at(self, now: float) -> None:
        self.core.timer(now)
        self.perform(now)


def names(faulty: dict[Member, Exception]) -> dict[Member, str]:
    return {member: type(error).__name__ for member, error in faulty.items()}


@pytest.mark.parametrize("options", [0, 2, 6, 8, 10])
def test_send_to_a_full_queue_is_blocked_and_fails_for_that_member_alone(options: int) -> None:
    """Whatever the option: the healthy member has the message at once, and after ``queue_timeout``
    the send fails and names the other one.
    """
    group = Group(ONE)
    group.send([ONE], 3 * KIB, 8)
    ticket = group.send([ONE, TWO], 2 * KIB, options)
    assert [len(m) for m in group.arrived[TWO]] == [2 * KIB]
    assert ticket not in group.done
    group.at(2.99)
    assert ticket not in group.done
    group.at(3.0)
    assert group.done[ticket] == {ONE: "QueueFullError"}
    assert not [late for late in group.late if TWO in late]
    counts = group.core.senders.counts_of(ONE)
    assert (counts.blocked, counts.timed_out, counts.live_refused) == (1, 1, 0)
    assert group.core.statistics.sends_blocked == group.core.statistics.sends_timed_out == 1


@pytest.mark.parametrize("options", [0, 2, 6, 8, 10])
def test_others_are_not_delayed_by_a_member_whose_queue_is_full(options: int) -> None:
    """A send to the healthy member alone is done at once, however many wait for the hung one."""
    group = Group(ONE)
    for _ in range(50):
        group.send([ONE, TWO], 3 * KIB, 8)
    ticket = group.send([TWO], 10, options)
    assert group.done[ticket] == {}
    assert len(group.arrived[TWO]) == 51
    [dispatch] = group.core.interceptors
    assert isinstance(dispatch, MessageDispatchInterceptor)
    assert dispatch.queued_bytes < 2 * 4 * KIB, "what waits takes nobody's room"


def test_blocked_messages_go_out_in_order_when_there_is_room() -> None:
    """And none overtakes them that would have fitted; their callers go on without a fault."""
    group = Group(ONE)
    first = group.send([ONE], 3 * KIB, 8)
    tickets = [group.send([ONE], size, 8) for size in (2 * KIB, 10, 3 * KIB)]
    assert list(group.done) == [first]
    group.wakes_up(ONE, 1.0)
    assert [len(m) for m in group.arrived[ONE]] == [3 * KIB, 2 * KIB, 10, 3 * KIB]
    assert [group.done[ticket] for ticket in tickets] == [{}, {}, {}]
    assert group.core.is_idle
    [dispatch] = group.core.interceptors
    assert isinstance(dispatch, MessageDispatchInterceptor)
    assert dispatch.queued_bytes == 0


def test_managers_messages_do_not_wait() -> None:
    """They fail at once for the member that is behind, and go to the others."""
    group = Group(ONE)
    assert group.post([ONE, TWO], 3 * KIB) == {TWO: "ok"}
    assert group.post([ONE, TWO], 2 * KIB) == {ONE: "MemberBehindError", TWO: "ok"}
    assert group.core.statistics.live_refused == 1
    assert group.core.statistics.sends_blocked == 0


def test_messages_and_changes_do_not_take_each_others_room() -> None:
    """A flood of messages leaves the sessions' queue empty, and the reverse."""
    group = Group(ONE)
    group.send([ONE], 4 * KIB, 8)
    group.send([ONE], 4 * KIB, 8)
    assert group.post([ONE], 3 * KIB) == {}
    load = group.core.senders.loads[ONE]
    assert load.live > 3 * KIB
    assert load.raw > 4 * KIB
    assert group.core.senders.blocked_on(ONE) == 1
    assert group.core.senders.busy_loads == {ONE: load}
    assert group.core.senders.blocked == {ONE: 1}


def test_managers_are_told_when_there_is_room_again() -> None:
    """Once, when the live queue is half empty; not while it is full."""
    group = Group(ONE)
    group.post([ONE], 3 * KIB)
    group.post([ONE], 2 * KIB)
    group.at(0.5)
    assert group.rooms == []
    group.wakes_up(ONE, 1.0)
    assert group.rooms == [(ONE, 1.0)]
    group.at(2.0)
    assert group.rooms == [(ONE, 1.0)]


def test_room_means_that_what_was_refused_fits() -> None:
    """Who is told too early would try again, be refused and be told again, without an end."""
    group = Group(ONE)
    group.post([ONE], 2 * KIB - 500)
    assert group.post([ONE], 3 * KIB) == {ONE: "MemberBehindError"}
    assert group.rooms == []
    group.wakes_up(ONE, 1.0)
    assert group.rooms == [(ONE, 1.0)]


def test_room_also_comes_when_what_waits_is_too_late() -> None:
    """Three seconds after being queued, at the latest."""
    group = Group(ONE)
    assert group.post([ONE], 3 * KIB) == {}
    group.post([ONE], 2 * KIB, 0.5)
    group.at(3.0)
    assert group.rooms == [(ONE, 3.0)]


@pytest.mark.parametrize("options", [0, 6, 8])
def test_blocked_send_ends_when_its_member_goes(options: int) -> None:
    """At once, and it says why."""
    group = Group(ONE)
    group.send([ONE], 3 * KIB, 8)
    ticket = group.send([ONE], 2 * KIB, options)
    heard(group.core, ONE.replace(command=SHUTDOWN_COMMAND))
    group.perform(0.0)
    assert group.done[ticket] == {ONE: MemberUnreachableError.__name__}


def test_blocked_send_ends_when_the_channel_stops() -> None:
    group = Group(ONE)
    group.send([ONE], 3 * KIB, 8)
    ticket = group.send([ONE], 2 * KIB, 8)
    group.core.stop(1.0)
    group.perform(1.0)
    assert group.done[ticket] == {ONE: "ChannelClosedError"}


def test_number_of_blocked_sends_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it a send fails at once."""
    monkeypatch.setattr(blocked_module, "BLOCKED_MAX", 2)
    group = Group(ONE)
    group.send([ONE], 4 * KIB, 8)
    tickets = [group.send([ONE], KIB, 6) for _ in range(3)]
    assert group.done[tickets[2]] == {ONE: QueueFullError.__name__}
    assert group.core.senders.blocked_on(ONE) == 2


def test_a_send_that_is_late_in_the_queue_makes_room_for_those_that_wait() -> None:
    """What nobody took within ``timeout`` leaves the queue; the next one is let in."""
    group = Group(ONE)
    group.send([ONE], 4 * KIB, 8)
    ticket = group.send([ONE], 3 * KIB, 8, 1.0)
    group.at(3.0)
    assert group.done[ticket] == {}
    assert group.core.senders.blocked_on(ONE) == 0
