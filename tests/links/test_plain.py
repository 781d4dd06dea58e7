"""The plain link keeps the rules of its module, in every order of events."""

from __future__ import annotations

import pytest

from tribes.channel.core import ChannelCore
from tribes.channel.outputs import TicketDone
from tribes.config.model import ChannelConfig, SenderConfig
from tribes.errors import (
    MemberUnreachableError,
    RemoteProcessError,
    SendTimeoutError,
)
from tribes.links.base import OutFrame
from tribes.links.plain import PlainSender
from tribes.links.plain_receiver import PlainReceiver
from tribes.timers import Timers
from tribes.wire.data import destination_trailer
from tribes.wire.frame import ACK_FRAME, FAIL_ACK_FRAME, FRAME_OVERHEAD, FrameDecoder, encode_frame
from tribes.wire.member import Member, encode_member
from tribes.wire.outputs import Close, Connect, NetworkOutput, Write

MEMBER = Member(host=b"\x7f\x00\x00\x01", port=4001, unique_id=bytes(range(16)))
TRAILER = destination_trailer(MEMBER.unique_id)


class Peer:
    """A sender with everything it says."""

    def __init__(self, **settings: object) -> None:
        self.timers = Timers()
        self.outputs: list[NetworkOutput] = []
        self.settled: list[tuple[str, Exception | None]] = []
        self.lost: list[Exception] = []
        self.attempts = 0
        self.sender = PlainSender(
            MEMBER,
            SenderConfig(**settings),  # type: ignore[arg-type]
            timers=self.timers,
            emit=self.outputs.append,
            connect=self._attempt,
            lost=lambda member, why, now: self.lost.append(why),
        )

    def _attempt(self, member: Member) -> int:
        self.attempts += 1
        return self.attempts

    def put(self, name: str, *, ack: bool = False, size: int = 40, now: float = 0.0) -> None:
        frame = OutFrame(
            encode_frame(name.encode().ljust(size - FRAME_OVERHEAD, b".")),
            needs_ack=ack,
            settle=lambda error, now: self.settled.append((name, error)),
        )
        self.sender.enqueue(frame, now)

    def take(self) -> list[NetworkOutput]:
        outputs = self.outputs[:]
        self.outputs.clear()
        return outputs

    def written(self) -> list[str]:
        return [body.removesuffix(TRAILER).decode().rstrip(".") for body in self.bodies()]

    def bodies(self) -> list[bytes]:
        writes = [output for output in self.take() if isinstance(output, Write)]
        return FrameDecoder(body_max_bytes=100_000).feed(
            b"".join(chunk for write in writes for chunk in write.chunks)
        )

    def names(self) -> list[tuple[str, str]]:
        return [(n, "ok" if e is None else type(e).__name__) for n, e in self.settled]


def connected(**settings: object) -> Peer:
    peer = Peer(**settings)
    peer.sender.connect(0.0)
    peer.take()
    peer.sender.link_opened(1, 0.0)
    return peer


def test_first_frame_asks_for_a_connection_once() -> None:
    """Frames wait for one connection; what waited leaves together when it is there."""
    peer = Peer()
    peer.put("a")
    peer.put("b")
    assert peer.take() == [Connect(1, ("127.0.0.1", 4001), 3.0)]
    peer.sender.link_opened(1, 0.1)
    assert peer.written() == ["a", "b"]


def test_first_frame_of_each_connection_names_its_destination() -> None:
    """Whoever has taken over the member's port sees that it is not meant, and every time anew."""
    peer = connected()
    peer.put("a", ack=True)
    peer.put("b")
    assert [body.endswith(TRAILER) for body in peer.bodies()] == [True]
    peer.sender.received(ACK_FRAME, 0.1)
    assert [body.endswith(TRAILER) for body in peer.bodies()] == [False]
    peer.sender.link_closed(ConnectionResetError("reset"), 0.2)
    peer.sender.link_opened(2, 0.3)
    assert [body.endswith(TRAILER) for body in peer.bodies()] == [True]


def test_unacked_frame_completes_when_the_kernel_has_its_last_byte() -> None:
    """Not before, and never by the bytes of the frame before it."""
    peer = connected()
    peer.put("a", size=40)
    peer.put("b", size=40)
    first = 40 + len(TRAILER)
    peer.sender.writable(first - 1, 0.1)
    assert peer.names() == []
    peer.sender.writable(first + 39, 0.1)
    assert peer.names() == [("a", "ok")]
    peer.sender.writable(first + 40, 0.1)
    assert peer.names() == [("a", "ok"), ("b", "ok")]


def test_one_acknowledged_frame_is_under_way_and_order_holds_across_options() -> None:
    """What is enqueued after an acknowledged frame leaves after its acknowledgement."""
    peer = connected()
    for name, ack in (("a", False), ("b", True), ("c", False), ("d", True)):
        peer.put(name, ack=ack)
    assert peer.written() == ["a", "b"]
    peer.sender.received(ACK_FRAME, 0.1)
    assert peer.written() == ["c", "d"]
    assert peer.names() == [("a", "ok"), ("b", "ok")]
    peer.sender.received(ACK_FRAME[:5], 0.2)
    peer.sender.received(ACK_FRAME[5:], 0.2)
    assert peer.names()[-2:] == [("c", "ok"), ("d", "ok")]
    assert peer.sender.is_idle


def test_fail_ack_is_an_answer_and_not_retried() -> None:
    """The frame fails with RemoteProcessError, on the same connection, after one copy."""
    peer = connected()
    peer.put("a", ack=True)
    peer.take()
    peer.sender.received(FAIL_ACK_FRAME, 0.1)
    assert peer.names() == [("a", "RemoteProcessError")]
    assert isinstance(peer.settled[0][1], RemoteProcessError)
    assert peer.take() == []


def test_fail_ack_counts_as_success_when_told_so() -> None:
    """``throw_on_failed_ack`` off: the frame was received, which is enough."""
    peer = connected(throw_on_failed_ack=False)
    peer.put("a", ack=True)
    peer.sender.received(FAIL_ACK_FRAME, 0.1)
    assert peer.names() == [("a", "ok")]


def test_fail_ack_can_be_retried_as_the_reference_does() -> None:
    """``retry_failed_ack``: the same bytes again on a fresh connection, then the error."""
    peer = connected(retry_failed_ack=True)
    peer.put("a", ack=True)
    peer.take()
    peer.sender.received(FAIL_ACK_FRAME, 0.1)
    assert peer.take() == [Close(1, abort=True), Connect(2, MEMBER.address, 3.0)]
    peer.sender.link_opened(2, 0.2)
    assert peer.written() == ["a"]
    peer.sender.received(FAIL_ACK_FRAME, 0.3)
    assert peer.names() == [("a", "RemoteProcessError")]


def test_broken_connection_costs_what_was_begun_one_attempt() -> None:
    """Begun frames go again first, in order; a second break fails them and keeps the rest."""
    peer = connected()
    peer.put("a", ack=True)
    peer.put("b")
    peer.take()
    peer.sender.link_closed(ConnectionResetError("reset"), 0.1)
    assert len(peer.lost) == 1
    peer.sender.link_opened(2, 0.2)
    assert peer.written() == ["a"]
    peer.sender.link_closed(None, 0.3)
    assert peer.names() == [("a", "MemberUnreachableError")]
    assert isinstance(peer.settled[0][1], MemberUnreachableError)
    peer.sender.link_opened(3, 0.4)
    assert peer.written() == ["b"]


def test_refused_twice_fails_everything_that_waited_at_once() -> None:
    """A dead member is told within two attempts, not after the timeout."""
    peer = Peer()
    peer.put("a", ack=True)
    peer.put("b")
    refused = ConnectionRefusedError("refused")
    peer.sender.connect_failed(refused, 0.01)
    assert peer.names() == []
    peer.sender.connect_failed(refused, 0.02)
    assert peer.names() == [("a", "MemberUnreachableError"), ("b", "MemberUnreachableError")]
    assert peer.settled[0][1].__cause__ is refused  # type: ignore[union-attr]


def test_silent_member_fails_at_the_deadline_and_its_connection_is_closed() -> None:
    """A late acknowledgement can't be taken for the next frame's: that goes elsewhere."""
    peer = connected()
    peer.put("a", ack=True, now=0.0)
    peer.put("b", ack=True, now=1.0)
    peer.take()
    peer.timers.run_due(2.99)
    assert peer.names() == []
    peer.timers.run_due(3.0)
    assert peer.names() == [("a", "SendTimeoutError")]
    assert isinstance(peer.settled[0][1], SendTimeoutError)
    assert peer.take() == [Close(1, abort=True), Connect(2, MEMBER.address, 3.0)]
    peer.sender.link_opened(2, 3.1)
    assert peer.written() == ["b"]
    peer.timers.run_due(4.0)
    assert peer.names()[-1] == ("b", "SendTimeoutError")


def test_frame_that_was_never_begun_fails_at_its_deadline() -> None:
    """Waiting for a connection counts: the deadline runs from being queued."""
    peer = Peer()
    peer.put("a")
    peer.timers.run_due(3.0)
    assert peer.names() == [("a", "SendTimeoutError")]
    assert peer.sender.is_idle


def test_messages_and_changes_have_a_bound_each() -> None:
    """What is begun counts too; a frame that is larger than the bound passes when alone."""
    peer = connected(queue_max_bytes=100, live_queue_max_bytes=50)
    assert peer.sender.has_room(500, is_live=False)
    peer.put("huge", ack=True, size=500)
    assert peer.sender.load == (500, 0, 0)
    assert not peer.sender.has_room(1, is_live=False)
    assert peer.sender.has_room(50, is_live=True)
    peer.sender.received(ACK_FRAME, 0.1)
    assert peer.names() == [("huge", "ok")]
    assert peer.sender.has_room(100, is_live=False)


def test_write_window_bounds_what_stands_with_the_driver() -> None:
    """However much waits, little more than the window is handed over at a time."""
    peer = connected()
    for i in range(40):
        peer.put(f"f{i}", size=65536)
    first = [o for o in peer.take() if isinstance(o, Write)]
    assert sum(len(c) for o in first for c in o.chunks) == 4 * 65536 + len(TRAILER)
    peer.sender.writable(65536 + len(TRAILER), 0.1)
    assert sum(len(c) for o in peer.take() if isinstance(o, Write) for c in o.chunks) == 65536


def test_closing_fails_what_is_left_with_the_given_reason() -> None:
    """Everything queued or under way settles once; later frames settle at once."""
    peer = connected()
    peer.put("a", ack=True)
    peer.put("b")
    peer.sender.close(MemberUnreachableError("gone"), 1.0, abort=True)
    assert peer.names() == [("a", "MemberUnreachableError"), ("b", "MemberUnreachableError")]
    peer.put("c")
    assert peer.names()[-1] == ("c", "MemberUnreachableError")
    assert Close(1, abort=True) in peer.take()


def test_kept_connection_is_opened_again_after_a_pause_that_grows() -> None:
    """A member that refuses is tried again, ever more rarely, without any frame to send."""
    peer = Peer()
    peer.sender.connect(0.0)
    now, waits = 0.0, []
    for _ in range(8):
        assert len(peer.take()) == 1
        peer.sender.connect_failed(ConnectionRefusedError("refused"), now)
        waits.append(round(peer.timers.next_deadline - now, 3))
        now = peer.timers.next_deadline
        peer.timers.run_due(now)
    assert waits == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_junk_instead_of_an_acknowledgement_breaks_the_connection() -> None:
    """A peer that sends no frames is disconnected and the frame tried again."""
    peer = connected()
    peer.put("a", ack=True)
    peer.take()
    peer.sender.received(b"HTTP/1.1 400", 0.1)
    assert peer.take() == [Close(1, abort=True), Connect(2, MEMBER.address, 3.0)]
    assert peer.names() == []
    peer.sender.link_opened(2, 0.2)
    assert peer.written() == ["a"]


@pytest.mark.parametrize("body", [b"\x03\x01\x02", b"", b"hello"])
def test_unknown_answers_are_ignored(body: bytes) -> None:
    """A well-formed frame that is neither ack nor fail-ack changes nothing."""
    peer = connected()
    peer.put("a", ack=True)
    peer.sender.received(encode_frame(body), 0.1)
    assert peer.names() == []
    peer.sender.received(ACK_FRAME, 0.2)
    assert peer.names() == [("a", "ok")]


def test_acknowledgements_leave_in_the_order_of_the_frames() -> None:
    """An answer that is known early waits for those before it; what is due leaves in one write."""
    outputs: list[NetworkOutput] = []
    link = PlainReceiver(7, ("127.0.0.1", 1), body_max_bytes=100, emit=outputs.append)
    first, second, third = link.expect_ack(), link.expect_ack(), link.expect_ack()
    link.answer(second, ok=True)
    link.flush()
    assert outputs == []
    link.answer(first, ok=False)
    link.flush()
    assert outputs == [Write(7, [FAIL_ACK_FRAME, ACK_FRAME])]
    link.answer(third, ok=True)
    link.flush()
    assert outputs[1:] == [Write(7, [ACK_FRAME])]


@pytest.mark.parametrize("ack", [True, False])
def test_a_connection_is_worn_out_after_so_many_messages(ack: bool) -> None:
    """``keepAliveCount`` N lets N + 1 pass; what waits goes by the next connection, in order."""
    peer = connected(keep_alive_count=1)
    for name in "abc":
        peer.put(name, ack=ack)
    for _ in range(2):
        if ack:
            peer.sender.received(ACK_FRAME, 0.1)
        else:
            peer.sender.writable(1000, 0.1)
    outputs = peer.take()
    assert [o for o in outputs if isinstance(o, Close)] == [Close(1)]
    assert len([o for o in outputs if isinstance(o, Connect)]) == 1
    peer.sender.link_opened(2, 0.3)
    assert peer.written() == ["c"]
    peer.sender.writable(1000, 0.4)
    if ack:
        peer.sender.received(ACK_FRAME, 0.4)
    assert peer.names() == [("a", "ok"), ("b", "ok"), ("c", "ok")]


def test_a_connection_is_worn_out_after_so_long() -> None:
    """``keepAliveTime`` is looked at before a message; an unused connection stays."""
    peer = connected(keep_alive_time=1000)
    peer.put("a", now=0.9)
    assert peer.written() == ["a"]
    peer.sender.writable(1000, 1.1)
    assert peer.take() == []
    peer.put("b", now=5.2)
    outputs = peer.take()
    assert Close(1) in outputs
    peer.sender.link_opened(2, 5.3)
    peer.put("c", now=5.4)
    assert peer.written() == ["b", "c"]


def test_with_a_pool_acknowledged_messages_are_under_way_side_by_side() -> None:
    """As many as ``poolSize``; only the first connection is kept while there is nothing to send."""
    numbers = iter(range(1, 1000))
    core = ChannelCore(
        MEMBER.replace(port=4000, unique_id=bytes(16)),
        ChannelConfig(sender=SenderConfig(pool_size=3)),
        wall_ms=lambda: 0,
        entropy=lambda size: next(numbers).to_bytes(size, "big"),
    )
    core.start(0.0)
    core.datagram(encode_member(MEMBER), ("127.0.0.1", 1), 0.0)
    assert len([o for o in core.take_outputs() if isinstance(o, Connect)]) == 1
    for number in range(5):
        core.send((MEMBER,), b"%d" % number, 2, 0.0)
    connects = [o for o in core.take_outputs() if isinstance(o, Connect)]
    assert len(connects) == 2
    for link, attempt in enumerate([1, *(each.attempt for each in connects)], 1):
        core.link_opened(link, 0.1, peer=("127.0.0.1", 4001), attempt=attempt)
    writes = [o for o in core.take_outputs() if isinstance(o, Write)]
    assert sorted(write.link for write in writes) == [1, 2, 3]
    assert sum(core.queued_bytes.values()) > 0
    for link in (3, 1, 2, 1, 2, 3):
        core.link_bytes(link, ACK_FRAME, 0.2)
    done = [o for o in core.take_outputs() if isinstance(o, TicketDone)]
    assert [each.faulty for each in done] == [{}] * 5
    assert core.is_idle


@pytest.mark.parametrize("how", ["broken", "late"])
def test_sender_closed_by_a_callback_keeps_nothing_and_connects_no_more(how: str) -> None:
    """What is told of one frame may end the member; the others are told then, and once."""
    peer = Peer(max_retry_attempts=0 if how == "late" else 1)

    def gone(error: Exception | None, now: float) -> None:
        peer.settled.append(("first", error))
        peer.sender.close(MemberUnreachableError("gone"), now, abort=True)

    first = OutFrame(encode_frame(b"first"), needs_ack=False, settle=gone)
    peer.sender.connect(0.0)
    peer.sender.enqueue(first, 0.0)
    first.attempts = 1
    peer.put("second", now=0.5)
    peer.sender.link_opened(1, 0.5)
    peer.take()
    if how == "broken":
        peer.sender.link_closed(None, 1.0)
    else:
        peer.timers.run_due(3.0)
    assert [name for name, _ in peer.settled] == ["first", "second"]
    assert peer.sender.is_idle
    assert not [output for output in peer.take() if isinstance(output, Connect)]


def test_one_timer_at_a_time_however_often_callbacks_send_again() -> None:
    """Each that is left over would make another one when it runs."""
    peer = Peer()

    def again(error: Exception | None, now: float) -> None:
        peer.put("again", now=now)

    frame = OutFrame(encode_frame(b"first"), needs_ack=False, settle=again)
    peer.sender.enqueue(frame, 0.0)
    peer.put("other", now=1.0)
    peer.timers.run_due(3.0)
    assert sum(timer.is_armed for _, _, timer in peer.timers._heap) == 1
