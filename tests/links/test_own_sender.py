"""The sending end of an own link: tickets, bounds, refusals, and who does not speak it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.links.own_pair import RECEIVER, SENDER, Frame, Pair, ToyKey, side_of
from tribes.errors import (
    LocalProtocolError,
    MemberUnreachableError,
    RemoteProcessError,
    SendTimeoutError,
)
from tribes.links.base import Need, OutFrame, QueueBounds
from tribes.links.own_acks import PING_FRAME, PONG_FRAME, Ack, encode_ack
from tribes.links.own_receiver import OwnReceiver
from tribes.links.own_sender import SenderState
from tribes.links.own_wire import Refusal, RefuseCode, Welcome, encode_welcome
from tribes.wire.frame import ACK_FRAME, encode_frame
from tribes.wire.outputs import Close, Connect, Write

N, R, P = Need.NOTHING, Need.RECEIVED, Need.PROCESSED


def test_first_frame_connects_and_what_waited_leaves_in_one_write() -> None:
    """HELLO alone, then START, then all frames together."""
    pair = Pair()
    pair.put(N)
    pair.put(P)
    assert len(pair.attempts) == 1
    pair.connect()
    pair.move_up(pair.live)
    pair.sender.received(bytes(pair.live.down), pair.now)
    start, data = pair.outputs
    assert isinstance(start, Write)
    assert isinstance(data, Write)
    assert data.chunks == [frame.data for frame in pair.frames]


def test_each_need_is_met_by_its_own_event() -> None:
    """Taken by the kernel, received, processed: in that order, none earlier."""
    pair = Pair().up()
    pair.auto_done = False
    for need in (P, R, N):
        pair.put(need)
    assert pair.outcomes() == []
    pair.take(pair.live)
    assert pair.outcomes() == [(3, "ok")]
    pair.settle_down()
    assert pair.outcomes() == [(3, "ok"), (2, "ok")]
    pair.done()
    pair.settle_down()
    assert pair.outcomes() == [(3, "ok"), (2, "ok"), (1, "ok")]


def test_outcomes_out_of_order_are_told_one_by_one() -> None:
    """A slow listener delays its own frame only; a failure names its reason."""
    pair = Pair().up()
    pair.auto_done = False
    for _ in range(6):
        pair.put(P)
    pair.settle_down()
    pair.done(4)
    pair.done(2, ValueError("no such session"))
    pair.settle_down()
    assert pair.outcomes() == [(3, "RemoteProcessError"), (5, "ok")]
    assert isinstance(pair.settled[0][1], RemoteProcessError)
    assert str(pair.settled[0][1]).endswith("failed: no such session")
    while pair.open:
        pair.done()
    pair.settle_down()
    assert [n for n, _ in pair.outcomes()] == [3, 5, 1, 2, 4, 6]
    assert pair.inbox.unconfirmed == 0


def test_deadline_ends_the_ticket_and_not_the_connection() -> None:
    """Never written: taken out. Written: still delivered, and told to nobody a second time."""
    pair = Pair().up()
    pair.auto_done = False
    pair.put(P)
    pair.settle_down()
    wire = pair.live
    pair.put(P, size=300_000)
    pair.put(P)  # behind the window
    pair.sleep(3)
    assert pair.outcomes() == [(n, "SendTimeoutError") for n in (1, 2, 3)]
    assert isinstance(pair.settled[0][1], SendTimeoutError)
    assert pair.live is wire
    assert pair.sender.is_idle
    pair.settle_down()
    while pair.open:
        pair.done()
    pair.settle_down()
    assert pair.arrived == [1, 2]
    assert len(pair.settled) == 3
    assert pair.sender.queued_bytes == 0


def test_no_more_than_the_window_is_unacknowledged() -> None:
    """What was written and not received counts, and what was received counts little; a frame larger
    than the window passes when nothing else is there.
    """
    pair = Pair(bounds=QueueBounds(9000, 9000, 1000)).up()
    pair.auto_done = False
    pair.put(P, size=5000)
    pair.put(P, size=600)
    pair.put(P, size=600)
    huge, other = (len(frame.data) for frame in pair.frames[:2])
    assert pair.sender.load == (2 * other, 0, huge)
    pair.settle_down()
    assert pair.arrived == [1, 2]
    assert pair.sender.load == (other, 0, 2 * 256)
    pair.done()
    pair.settle_down()
    assert pair.arrived == [1, 2, 3]
    assert pair.sender.load == (0, 0, 2 * 256)


def test_messages_and_changes_have_a_bound_each() -> None:
    """Neither takes the other's room; a frame that is larger than the bound passes when alone."""
    pair = Pair(bounds=QueueBounds(1000, 2000, 1000))
    for is_live, size in ((False, 900), (True, 1900), (True, 100)):
        assert pair.sender.has_room(size, is_live=is_live)
        frame = OutFrame(bytes(size), needs_ack=False, settle=lambda e, now: None, is_live=is_live)
        pair.sender.enqueue(frame, 0.0)
    assert pair.sender.load == (900, 2000, 0)
    assert pair.sender.has_room(100, is_live=False)
    assert not pair.sender.has_room(101, is_live=False)
    assert not pair.sender.has_room(1, is_live=True)
    assert Pair().sender.has_room(10**9, is_live=True)


def test_window_bounds_what_stands_with_the_driver() -> None:
    """However much waits, little more than the window is handed over at a time."""
    pair = Pair().up()
    wire = pair.live
    before = len(wire.sent)
    for _ in range(40):
        pair.put(N, size=65_536)
    assert len(wire.sent) - before < 5 * 66_000
    pair.settle_down()
    assert pair.arrived == list(range(1, 41))


def test_frame_longer_than_the_member_reads_is_refused_before_it_is_written() -> None:
    """It would break every connection on which it is sent again."""
    pair = Pair(body_max_bytes=1000).up()
    pair.put(P, size=992)
    pair.put(P, size=993)
    pair.put(P)
    pair.settle_down()
    assert sorted(pair.outcomes()) == [(1, "ok"), (2, "LocalProtocolError"), (3, "ok")]


def test_data_that_looks_like_a_control_frame_arrives_as_it_was() -> None:
    """Also with the longest body that the member reads."""
    pair = Pair(body_max_bytes=1000).up()
    pair.put(P, high=0x54505900)
    pair.put(P, high=0x54505900, size=992)
    pair.settle_down()
    assert pair.arrived == [1, 2]
    assert pair.outcomes() == [(1, "ok"), (2, "ok")]


def test_wake_gathers_what_is_enqueued_into_one_write() -> None:
    """One call, however many frames; then one output."""
    pair = Pair(use_wake=True).up()
    for _ in range(5):
        pair.sender.enqueue(Frame(1, N, lambda error, now: None), 0.0)
    assert pair.woken == 1
    assert pair.outputs == []
    pair.sender.flush(0.0)
    (write,) = pair.outputs
    assert isinstance(write, Write)
    assert len(write.chunks) == 5


def test_closing_ends_every_ticket_once() -> None:
    """Waiting, written, received: each with the reason given; later frames at once."""
    pair = Pair().up()
    pair.auto_done = False
    pair.put(P)
    pair.settle_down()
    link = pair.sender.link
    pair.put(R)
    pair.put(P, size=300_000)
    pair.put(N)
    pair.sender.close(MemberUnreachableError("gone"), 1.0, abort=True)
    assert pair.outputs == [Close(link or 0, abort=True)]
    assert pair.outcomes() == [(n, "MemberUnreachableError") for n in (1, 2, 3, 4)]
    pair.put(P)
    assert pair.outcomes()[-1] == (5, "MemberUnreachableError")
    assert pair.sender.queued_bytes == 0
    pair.sleep(10)
    assert len(pair.settled) == 5


def test_callbacks_may_close_the_sender_and_send_again() -> None:
    """An outcome may make the core remove the member while others are being told."""
    pair = Pair().up()
    gone = MemberUnreachableError("gone")
    settled: list[int] = []

    def settle(number: int) -> None:
        settled.append(number)
        pair.sender.close(gone, 0.0, abort=True)
        pair.sender.enqueue(Frame(99, P, lambda error, now: settled.append(99)), 0.0)

    for number in (1, 2, 3):
        pair.sender.enqueue(Frame(number, P, lambda e, now, n=number: settle(n)), 0.0)  # type: ignore[misc]
    pair.settle_down()
    assert sorted(settled) == [1, 2, 3, 99, 99, 99]
    assert pair.sender.state is SenderState.CLOSED


def test_broken_connection_fails_nothing_and_is_made_again_at_once() -> None:
    """What the member had is not sent again, the rest is, in order."""
    pair = Pair().up()
    frames = [pair.put(P).data for _ in range(3)]
    wire = pair.live
    pair.move_up(wire, len(wire.up) - 1)
    assert pair.arrived == [1, 2]
    pair.cut(wire)
    assert len(pair.lost) == 1
    assert pair.settled == []
    pair.settle_down()
    assert pair.arrived == [1, 2, 3]
    assert pair.outcomes() == [(1, "ok"), (2, "ok"), (3, "ok")]
    assert [frame in pair.live.sent for frame in frames] == [False, False, True]


def test_refused_connections_are_tried_ever_more_rarely() -> None:
    """At once, then after 50 ms doubling to 2 s; frames wait until their deadline."""
    pair = Pair()
    pair.sender.connect(0.0)
    pair.put(P)
    waits = []
    pair.perform()
    for _ in range(9):
        pair.connect(works=False)
        waits.append(pair.wait_for_attempt())
    assert waits == [0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert len(pair.lost) == 9
    assert pair.outcomes() == [(1, "SendTimeoutError")]
    pair.connect()
    pair.settle_down()
    assert pair.sender.state is SenderState.OPEN


def test_member_that_accepts_and_closes_is_not_asked_without_pause() -> None:
    """Only an acknowledgement, or a second of life, makes a connection a good one."""
    pair = Pair().up()
    waits = []
    for _ in range(4):
        pair.cut(pair.live)
        waits.append(pair.wait_for_attempt())
        pair.settle_down()
    assert waits == [0.0, 0.05, 0.1, 0.2]
    pair.put(P)
    pair.settle_down()
    pair.cut(pair.live)
    assert pair.attempts


def test_destination_that_is_not_kept_is_left_alone_when_nothing_waits() -> None:
    """A stranger's broken connection is opened again by the next frame only."""
    pair = Pair(keep_connected=False)
    pair.put(P)
    pair.settle_down()
    pair.cut(pair.live)
    assert (pair.sender.state, pair.attempts) == (SenderState.IDLE, [])
    pair.put(P)
    assert pair.attempts
    pair.connect(works=False)
    pair.wait_for_attempt()
    pair.sleep(10)
    pair.connect(works=False)
    assert pair.attempts == []
    assert pair.sender.state is SenderState.IDLE
    assert pair.outcomes() == [(1, "ok"), (2, "SendTimeoutError")]


def answer(pair: Pair, data: bytes) -> None:
    pair.sender.connect(0.0)
    pair.put(P)
    pair.put(N)
    pair.connect()
    pair.sender.received(data, 0.1)
    pair.perform()


def welcome(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "version": 1,
        "features": 0,
        "incarnation": 3,
        "unique_id": RECEIVER.unique_id,
        "nonce": b"n" * 16,
        "key_id": 0,
        "received": 0,
        "body_max_bytes": 1000,
        **changes,
    }
    return encode_frame(encode_welcome(Welcome(**fields)))


@pytest.mark.parametrize(
    "data",
    [
        ACK_FRAME,
        b"HTTP/1.1 400 Bad Request",
        welcome(version=2),
        welcome(unique_id=b"x" * 16),
        welcome(key_id=1),
        welcome(received=1),
    ],
)
def test_strange_answer_means_not_own_and_the_queue_is_handed_over(data: bytes) -> None:
    """In order, nothing settled, nothing kept; the sender is of no more use."""
    pair = Pair(hellos_unanswered_max=None)
    answer(pair, data)
    assert pair.not_own == [RECEIVER]
    assert pair.sender.take_queue() == pair.frames
    assert pair.settled == []
    assert pair.sender.queued_bytes == 0
    assert not pair.wires[1].is_known_to_sender
    pair.sleep(10)
    assert (pair.settled, pair.attempts, len(pair.not_own)) == ([], [], 1)


@pytest.mark.parametrize(
    "data",
    [ACK_FRAME, b"HTTP/1.1 400 Bad Request", encode_frame(b"TPY\x03\x02\x00"), welcome()],
)
def test_with_a_key_no_answer_makes_a_member_plain_or_incompatible(data: bytes) -> None:
    """Whoever can write on its connections could say so: it is tried again, and nothing is sent."""
    pair = Pair(sealed=True, never_plain=True, hellos_unanswered_max=1)
    answer(pair, data)
    assert pair.not_own == []
    assert pair.settled == []
    for _ in range(20):
        pair.settle_down()
        pair.sleep(0.2)
    assert pair.sender.state is SenderState.OPEN
    assert pair.arrived == [frame.number for frame in pair.frames]


@pytest.mark.parametrize("is_silent", [True, False])
def test_no_answer_means_not_own_after_so_many_connections(is_silent: bool) -> None:
    """Silence for a second, or a connection that is closed at once."""
    pair = Pair(hellos_unanswered_max=2)
    pair.put(P)
    for _ in range(2):
        assert pair.not_own == []
        pair.connect()
        if is_silent:
            pair.sleep(0.99)
            assert pair.sender.state is SenderState.HELLO
            pair.sleep(0.02)
        else:
            pair.cut(pair.live)
        assert len(pair.lost) == 1, "the last one ends as a plain member's"
    assert pair.not_own == [RECEIVER]
    assert pair.sender.take_queue() == pair.frames


def test_member_known_to_speak_it_is_never_taken_for_a_plain_one_by_silence() -> None:
    """It may be stopped. The connection is tried again; so it is after it was once welcome."""
    pair = Pair(hellos_unanswered_max=None)
    pair.sender.connect(0.0)
    pair.perform()
    for _ in range(3):
        pair.connect()
        pair.sleep(1.1)
    assert pair.not_own == []
    for _ in range(20):
        pair.settle_down()
        pair.sleep(0.2)
    assert pair.sender.state is SenderState.OPEN
    other = Pair(hellos_unanswered_max=1).up()
    other.cut(other.live)
    other.connect()
    other.sender.received(b"nonsense", 0.0)
    assert other.sender.state is SenderState.WAITING
    assert other.not_own == []


def test_queue_is_handed_over_only_when_there_is_reason_to() -> None:
    """Otherwise a frame could go twice."""
    with pytest.raises(LocalProtocolError):
        Pair().sender.take_queue()


def test_no_common_version_fails_everything_for_good() -> None:
    """The member is told by ``refused``; it isn't tried again."""
    pair = Pair(receiver_side=side_of(RECEIVER, versions=(2, 4)))
    pair.put(P)
    pair.settle_down()
    assert pair.refusals == [Refusal(RefuseCode.VERSION, "versions 2 to 4 are spoken here")]
    assert pair.outcomes() == [(1, "MemberUnreachableError")]
    pair.put(N)
    assert str(pair.settled[1][1]).endswith("speaks no version that we speak")
    pair.sleep(10)
    assert pair.attempts == []


def test_highest_common_version_and_common_features_are_used() -> None:
    """Each side offers a range and bits."""
    pair = Pair(
        sender_side=side_of(SENDER, versions=(1, 3), features=0b1100),
        receiver_side=side_of(RECEIVER, versions=(1, 2), features=0b0110),
    ).up()
    assert pair.sender.features == pair.started[0].features == 0b0100


@pytest.mark.parametrize("code", [RefuseCode.BUSY, RefuseCode.NOT_ME])
def test_refused_sender_goes_on_trying(code: RefuseCode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames wait; it may be taken later."""
    refusal = Refusal(code, "not now")
    monkeypatch.setattr(OwnReceiver, "_refusal", lambda receiver, hello, version: refusal)
    pair = Pair(hellos_unanswered_max=1)
    pair.put(P)
    pair.settle_down()
    assert pair.refusals == [refusal] * 2
    assert pair.not_own == []
    monkeypatch.undo()
    pair.sleep(0.1)
    pair.settle_down()
    assert pair.outcomes() == [(1, "ok")]


@pytest.mark.parametrize(
    ("sender", "receiver"), [(7, b"other"), (8, b"k"), (0, b"k"), (7, b"")], ids=str
)
def test_wrong_or_missing_key_delivers_nothing(sender: int, receiver: bytes) -> None:
    """Another secret, another id, none here, none there: no data, and the reason is KEY."""
    pair = Pair(
        sender_key=(sender, ToyKey(b"k")) if sender else None,
        receiver_keys={7: ToyKey(receiver)} if receiver else {},
    )
    pair.put(P)
    pair.settle_down()
    assert {refusal.code for refusal in pair.refusals} == {RefuseCode.KEY}
    assert pair.arrived == []
    assert len(pair.inboxes) == 0
    pair.sleep(3)
    assert pair.outcomes() == [(1, "SendTimeoutError")]


def test_nothing_readable_travels_sealed() -> None:
    """After START no frame marker is on the wire, in either direction."""
    pair = Pair(sealed=True).up()
    wire = pair.live
    before = len(wire.sent)
    pair.put(P, size=100)
    assert b"FLT2002" not in wire.sent[before:]
    pair.move_up(wire)
    pair.flush()
    assert wire.down
    assert b"FLT2002" not in wire.down
    pair.settle_down()
    assert pair.outcomes() == [(1, "ok")]


def test_changed_record_breaks_the_connection_and_loses_nothing() -> None:
    """The receiver closes it, the sender comes back, the frame arrives once."""
    pair = Pair(sealed=True).up()
    pair.put(P)
    pair.live.up[-1] ^= 1
    pair.settle_down()
    assert [str(error) for error in pair.broken] == ["record was changed"]
    assert pair.arrived == [1]
    assert pair.outcomes() == [(1, "ok")]


@pytest.mark.parametrize(
    "frame",
    [
        encode_frame(encode_ack(Ack(3, 0))),
        encode_frame(encode_ack(Ack(0, 0))),
        encode_frame(b"TPY\x08more"),
        encode_frame(b"TPY\x01"),
        ACK_FRAME,
        b"junk",
    ],
)
def test_wrong_acknowledgement_costs_the_connection_only(frame: bytes) -> None:
    """What was never written, less than before, or no control frame at all."""
    pair = Pair().up()
    pair.put(P)
    pair.settle_down()
    pair.put(P)
    link = pair.sender.link
    pair.sender.received(frame, 0.0)
    assert Close(link or 0, abort=True) in pair.outputs
    pair.settle_down()
    assert pair.outcomes() == [(1, "ok"), (2, "ok")]
    assert pair.arrived == [1, 2]


def test_ping_is_answered_and_every_byte_counts_as_an_answer() -> None:
    """One PING a write at most; without a connection there is nothing to ask on."""
    pair = Pair(use_wake=True)
    assert not pair.sender.idle_ping(0.0)
    pair.up()
    pair.sleep(5)
    written = len(pair.live.sent)
    for _ in range(2):
        assert pair.sender.idle_ping(pair.now)
    assert pair.sender.last_answer == 0.0
    pair.settle_down()
    assert pair.live.sent[written:] == PING_FRAME
    assert pair.sender.last_answer == 5.0


def test_connection_hangs_when_it_was_silent_for_the_time_of_an_unanswered_frame() -> None:
    """One that brings anything does not, nor one that was made a moment ago for an old frame."""
    pair = Pair().up()
    pair.sleep(9)
    assert not pair.sender.hangs(pair.now)
    pair.put(P)
    pair.sleep(2.9)
    assert not pair.sender.hangs(pair.now)
    pair.sleep(0.1)
    assert pair.sender.hangs(pair.now)
    pair.sender.received(PONG_FRAME, pair.now)
    assert not pair.sender.hangs(pair.now)
    pair.sleep(3)
    assert pair.sender.hangs(pair.now)
    pair.cut(pair.live)
    assert not pair.sender.hangs(pair.now)
    pair.connect()
    pair.sleep(0.9)
    assert not pair.sender.hangs(pair.now)


def test_late_connection_of_a_closed_sender_is_closed() -> None:
    """The driver answers an attempt that nobody wants any more."""
    pair = Pair()
    pair.sender.connect(0.0)
    assert isinstance(pair.outputs[0], Connect)
    pair.sender.close(MemberUnreachableError("gone"), 0.0, abort=False)
    pair.sender.link_opened(9, 0.0)
    assert pair.outputs[1:] == [Close(9)]


def test_silent_connection_can_be_given_up_for_another() -> None:
    """What the member has not received goes by the new one; the old one is reset."""
    pair = Pair().up()
    wire = pair.live
    pair.put(P)
    wire.up.clear()  # a cut of the network that nobody noticed
    pair.sender.reset(TimeoutError("silent"), 1.0)
    assert pair.outputs[0] == Close(wire.link, abort=True)
    pair.settle_down()
    assert pair.live is not wire
    assert pair.outcomes() == [(1, "ok")]
    assert len(pair.lost) == 1
    Pair().sender.reset(TimeoutError("silent"), 1.0)


def test_frames_of_one_record_end_with_its_last_byte() -> None:
    """A part of a record is worth nothing to the member."""
    pair = Pair(sealed=True, use_wake=True).up()
    wire = pair.live
    pair.put(N, perform=False)
    pair.put(N)
    pair.take(wire, len(wire.sent) - wire.taken - 1)
    assert pair.outcomes() == []
    pair.take(wire)
    assert pair.outcomes() == [(1, "ok"), (2, "ok")]


def test_sender_closed_by_a_callback_stays_closed_whatever_follows() -> None:
    """The same bytes may hold an acknowledgement, by which it is closed, and nonsense."""
    pair = Pair().up()

    def settle(error: Exception | None, now: float) -> None:
        pair.sender.close(MemberUnreachableError("gone"), now, abort=True)

    pair.sender.enqueue(Frame(1, P, settle), 0.0)
    pair.perform()
    pair.sender.received(encode_frame(encode_ack(Ack(1, 1))) + b"junk", 0.0)
    assert pair.sender.state is SenderState.CLOSED
    assert pair.outputs == [Close(1, abort=True)]
    assert pair.lost == []
