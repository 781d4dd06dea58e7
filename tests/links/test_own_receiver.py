"""The receiving end of an own link: openings, connections that compete, bounds, what it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.links.own_pair import RECEIVER, SENDER, Pair, ToyKey, Wire, side_of
from tribes.errors import LocalProtocolError, RemoteProcessError
from tribes.links.base import Need
from tribes.links.own_acks import decode_ack, encode_seen
from tribes.links.own_inbox import FAILURES_MAX, INBOXES_MAX, OPEN_MAX, OwnInbox, OwnInboxes
from tribes.links.own_receiver import OwnReceiver, ReceiverState
from tribes.links.own_sender import SenderState
from tribes.links.own_wire import NO_PROOF, RefuseCode, Start, encode_hello, encode_start
from tribes.links.read_gate import ACKS_WAITING_MAX_BYTES
from tribes.timers import Timers
from tribes.wire.frame import FrameDecoder, encode_frame
from tribes.wire.outputs import Close, NetworkOutput, Write

if TYPE_CHECKING:
    from tribes.links.link_keys import SealerFactory

P = Need.PROCESSED
BODY = b"\0\0\0\x07"


def raw(
    outputs: list[NetworkOutput],
    inboxes: OwnInboxes,
    timers: Timers,
    link: int = 1,
    *,
    keys: dict[int, SealerFactory] | None = None,
) -> OwnReceiver:
    """A receiver without a sender."""
    return OwnReceiver(
        link,
        ("127.0.0.1", 1),
        0.0,
        side=side_of(RECEIVER),
        inboxes=inboxes,
        keys=keys or {},
        body_max_bytes=1000,
        timers=timers,
        entropy=bytes,
        emit=outputs.append,
        started=lambda receiver, now: None,
        ended=lambda receiver, why, now: None,
    )


def hello(
    *,
    attempt: int = 1,
    incarnation: int = 5,
    target: bytes = RECEIVER.unique_id,
    key_id: int = 0,
) -> bytes:
    return encode_frame(
        encode_hello(
            side_of(SENDER),
            incarnation=incarnation,
            attempt=attempt,
            target=target,
            nonce=b"n" * 16,
            key_id=key_id,
        )
    )


def start(first: int = 1) -> bytes:
    return encode_frame(encode_start(Start(first)))


class Alone:
    """Receivers driven by hand."""

    def __init__(self) -> None:
        self.outputs: list[NetworkOutput] = []
        self.timers = Timers()
        self.inboxes = OwnInboxes(lambda size: bytes(range(size)))
        self.links = 0

    def receiver(self) -> OwnReceiver:
        self.links += 1
        return raw(self.outputs, self.inboxes, self.timers, self.links)

    def opened(self, *, attempt: int = 1, incarnation: int = 5) -> OwnReceiver:
        receiver = self.receiver()
        receiver.feed(hello(attempt=attempt, incarnation=incarnation), 0.0)
        inbox = self.inboxes.find(SENDER.unique_id, incarnation)
        receiver.feed(start(inbox.received + 1), 0.0)
        assert receiver.broken is None
        return receiver


def test_opening_that_takes_too_long_is_ended() -> None:
    """Also between HELLO and START; an open connection may be silent for ever."""
    alone = Alone()
    silent, half = alone.receiver(), alone.receiver()
    half.feed(hello(), 0.0)
    opened = alone.opened(incarnation=6)
    alone.outputs.clear()
    alone.timers.run_due(1.0)
    assert alone.outputs == [Close(1), Close(2)]
    assert [r.state for r in (silent, half)] == [ReceiverState.CLOSED] * 2
    alone.timers.run_due(100.0)
    assert opened.state is ReceiverState.OPEN


def test_successor_on_the_same_port_refuses() -> None:
    """It has another unique id, so nothing meant for its predecessor reaches it."""
    pair = Pair(receiver_side=side_of(RECEIVER.replace(unique_id=b"R" * 16)))
    pair.put(P)
    pair.settle_down()
    assert {refusal.code for refusal in pair.refusals} == {RefuseCode.NOT_ME}
    assert (pair.arrived, len(pair.inboxes)) == ([], 0)


def test_own_hello_is_refused() -> None:
    """A member that reaches itself by a wrong address."""
    alone = Alone()
    receiver = raw(alone.outputs, alone.inboxes, alone.timers)
    receiver._side = side_of(RECEIVER.replace(unique_id=SENDER.unique_id))
    receiver.feed(hello(target=SENDER.unique_id), 0.0)
    assert "own name" in str(receiver.broken)


def test_new_incarnation_begins_at_one_and_the_old_one_cannot_come_back() -> None:
    """A sender that was given up and made again, while the old one's connection is half open."""
    pair = Pair().up()
    for _ in range(3):
        pair.put(P)
    pair.settle_down()
    pair.put(P)  # on its way by the old connection
    old, pair.sender = pair.sender, pair.make_sender()
    pair.put(P)
    pair.settle_down()
    assert pair.arrived == [1, 2, 3, 4, 5]
    assert pair.inbox.received == 1
    assert [str(why) for why in pair.ended] == ["displaced by a newer connection"]
    # The old sender has connected again: it must not displace the new one's connection.
    assert "replaced" in str(pair.broken[0])
    assert old.state is SenderState.WAITING
    assert pair.sender.state is SenderState.OPEN


def test_newest_connection_of_a_sender_wins() -> None:
    """The half-open old one is closed, what it still brings is ignored, nothing comes twice."""
    pair = Pair().up()
    first = pair.live
    for _ in range(3):
        pair.put(P)
    pair.cut(first, receiver=False)
    pair.connect()
    second = pair.live
    pair.move_up(second)
    pair.move_up(first, 30)  # one frame more by the old connection, after WELCOME on the new one
    pair.move_down(second)
    pair.settle_down()
    assert pair.arrived == [1, 2, 3]
    assert pair.outcomes() == [(1, "ok"), (2, "ok"), (3, "ok")]
    assert first.receiver is not None
    assert first.receiver.state is ReceiverState.CLOSED
    assert first.receiver.feed(b"more", 0.0) == []
    assert pair.inbox.receiver is second.receiver


def test_older_connection_that_starts_late_is_refused() -> None:
    """By the sender's own count of its connections, not by the order in which they start."""
    alone = Alone()
    old, new = alone.receiver(), alone.receiver()
    old.feed(hello(attempt=1), 0.0)
    new.feed(hello(attempt=2), 0.0)
    new.feed(start(), 0.0)
    old.feed(start(), 0.0)
    assert "newer connection" in str(old.broken)
    assert new.state is ReceiverState.OPEN


def test_start_beyond_what_was_received_is_refused() -> None:
    """A gap would never be filled."""
    alone = Alone()
    receiver = alone.receiver()
    receiver.feed(hello(), 0.0)
    receiver.feed(start(2), 0.0)
    assert "starts at position 2" in str(receiver.broken)
    assert len(alone.inboxes) == 0


@pytest.mark.parametrize("proof", [NO_PROOF, ToyKey(b"another").hello_tag(b"")])
def test_start_that_does_not_prove_the_key_displaces_nobody(proof: bytes) -> None:
    """Whoever knows a member's name and the number of the key can say HELLO for it."""
    pair = Pair(sealed=True).up()
    wire = pair.live
    liar = raw(pair.receiver_outputs, pair.inboxes, pair.timers, 99, keys={7: ToyKey(b"k")})
    liar.feed(hello(key_id=7), 0.0)
    assert liar.state is ReceiverState.START
    assert liar.feed(encode_frame(encode_start(Start(1, proof))), 0.0) == []
    assert "does not prove the key" in str(liar.broken)
    assert pair.inbox.receiver is wire.receiver
    assert pair.ended == []


@pytest.mark.parametrize(
    "data",
    [
        b"junk",
        encode_frame(b"TPY\x05"),
        encode_frame(b"TPY\x07more"),
        encode_frame(b"TPY"),
        encode_frame(encode_seen(1)),
        encode_frame(bytes(1005)),
        hello(),
    ],
)
def test_wrong_bytes_cost_the_connection_and_what_came_before_counts(data: bytes) -> None:
    """The good frame is returned with the call that finds the bad one."""
    alone = Alone()
    receiver = alone.opened()
    assert receiver.feed(encode_frame(BODY) + data, 0.0) == [(1, BODY)]
    assert receiver.broken is not None
    assert receiver.feed(encode_frame(BODY), 0.0) == []
    receiver.closed()
    assert receiver.inbox.receiver is None


def test_one_acknowledgement_per_wake_up_and_none_without_news() -> None:
    """However many frames arrived."""
    alone = Alone()
    receiver = alone.opened()
    receiver.flush()
    alone.outputs.clear()
    for position, _ in receiver.feed(encode_frame(BODY) * 50, 0.0):
        receiver.inbox.done(position, None)
    receiver.flush()
    receiver.flush()
    (write,) = alone.outputs
    assert isinstance(write, Write)
    (body,) = FrameDecoder().feed(b"".join(write.chunks))
    ack = decode_ack(body)
    assert (ack.received, ack.floor, ack.early) == (50, 50, ())


def test_outcome_is_given_once_for_a_position_that_is_open() -> None:
    """Anything else is our own mistake."""
    alone = Alone()
    receiver = alone.opened()
    receiver.feed(encode_frame(BODY), 0.0)
    receiver.inbox.done(1, None)
    for position in (1, 2):
        with pytest.raises(LocalProtocolError):
            receiver.inbox.done(position, None)


def test_outcome_after_the_connection_broke_is_told_by_the_next_one() -> None:
    """Success, failure, early or late: the inbox outlives its connections."""
    pair = Pair().up()
    pair.auto_done = False
    for _ in range(5):
        pair.put(P)
    pair.settle_down()
    wire = pair.live
    pair.done(3, "late failure")
    pair.cut(wire)
    pair.done(1)
    pair.settle_down()
    assert sorted(pair.outcomes()) == [(2, "ok"), (4, "RemoteProcessError")]
    while pair.open:
        pair.done()
    pair.settle_down()
    assert len(pair.settled) == 5
    assert pair.inbox.unconfirmed == 0


def test_failures_whose_acknowledgement_was_lost_are_told_again_in_full() -> None:
    """More than one frame of them, and some already told: none ends as success."""
    pair = Pair().up()
    pair.auto_done = False
    for _ in range(1500):
        pair.put(P)
    pair.settle_down()
    for _ in range(600):
        pair.done(0, "first")
    pair.flush()
    pair.cut(pair.live)  # with the acknowledgement
    while pair.open:
        pair.done(0, "x" * 500)
    pair.settle_down()
    assert len(pair.settled) == 1500
    assert all(isinstance(error, RemoteProcessError) for _, error in pair.settled)
    reasons = [str(error).rpartition(": ")[2] for _, error in pair.settled]
    assert reasons[:600] == ["first"] * 600
    assert reasons[600:1024] == ["x" * 200] * 424
    assert all(reason.startswith("failed; too many") for reason in reasons[1024:])
    assert pair.inbox.reasons_dropped == 476
    assert pair.inbox.unconfirmed == 0


def test_failures_nobody_waits_for_are_not_kept() -> None:
    """The options of the frame say whether its sender waits for the outcome."""
    pair = Pair().up()
    pair.auto_done = False
    pair.put(Need.NOTHING)
    pair.put(Need.RECEIVED)
    pair.settle_down()
    pair.done(0, "failed")
    pair.done(0, "failed")
    assert pair.inbox.unconfirmed == 0
    pair.settle_down()
    assert pair.outcomes() == [(1, "ok"), (2, "ok")]


def test_many_open_positions_stop_the_reading_until_half_are_done() -> None:
    """And a new connection is bounded just the same."""
    pair = Pair().up()
    pair.auto_done = False
    for _ in range(OPEN_MAX + 1):
        pair.put(Need.NOTHING)
    pair.settle_down()
    wire = pair.live
    assert wire.is_paused
    pair.put(P)
    pair.settle_down()
    assert len(pair.arrived) == OPEN_MAX + 1
    while len(pair.open) > OPEN_MAX // 2:
        assert wire.is_paused
        pair.done()
    assert not wire.is_paused
    pair.settle_down()
    assert len(pair.arrived) == OPEN_MAX + 2


def test_peer_that_does_not_read_its_acknowledgements_is_not_read() -> None:
    """Until it has taken half of what waits."""
    alone = Alone()
    receiver = alone.opened()
    written = 0
    while not any(type(output).__name__ == "Pause" for output in alone.outputs):
        receiver.feed(encode_frame(BODY), 0.0)
        receiver.flush()
        written += 1
    assert written < ACKS_WAITING_MAX_BYTES // 30
    total = sum(len(c) for o in alone.outputs if isinstance(o, Write) for c in o.chunks)
    receiver.writable(total - ACKS_WAITING_MAX_BYTES // 2 - 1)
    assert type(alone.outputs[-1]).__name__ == "Pause"
    receiver.writable(total)
    assert type(alone.outputs[-1]).__name__ == "Resume"


def test_holds_are_counted() -> None:
    """Two reasons not to read need both to end."""
    alone = Alone()
    receiver = alone.opened()
    alone.outputs.clear()
    receiver.hold()
    receiver.hold()
    receiver.release()
    receiver.release()
    assert [type(output).__name__ for output in alone.outputs] == ["Pause", "Resume"]


def test_forgotten_sender_learns_that_outcomes_are_unknown_and_begins_anew() -> None:
    """What was written may have arrived, so it fails; what was not is delivered, once."""
    pair = Pair().up()
    pair.auto_done = False
    for _ in range(3):
        pair.put(P)
    pair.settle_down()
    pair.put(Need.NOTHING)
    wire = pair.live
    receiver = pair.inboxes.forget(SENDER.unique_id)
    assert receiver is wire.receiver
    pair.cut(wire)
    pair.put(P)
    pair.settle_down()
    assert pair.outcomes() == [(n, "MemberUnreachableError") for n in (1, 2, 3, 4)]
    assert pair.sender.outbox.lost == 1
    pair.done(0)  # of the forgotten inbox: harmless
    assert pair.arrived == [1, 2, 3, 5]
    assert pair.inbox.received == 1
    pair.done(-1)
    pair.settle_down()
    assert pair.outcomes()[-1] == (5, "ok")
    assert pair.inboxes.forget(b"nobody") is None


def test_start_that_never_arrived_does_not_count_as_forgotten() -> None:
    """The first connection may break between WELCOME and START; the frames are still good."""
    pair = Pair()
    pair.put(P)
    pair.connect()
    wire = pair.live
    pair.move_up(wire)
    pair.move_down(wire)
    pair.cut(wire)
    assert len(pair.inboxes) == 0
    pair.settle_down()
    assert pair.outcomes() == [(1, "ok")]


def test_least_recently_used_sender_is_forgotten_but_never_a_connected_one() -> None:
    """The bound is on those without a connection."""
    alone = Alone()
    connected = alone.opened()
    inboxes = alone.inboxes
    for number in range(INBOXES_MAX + 3):
        inbox = inboxes.find(number.to_bytes(16, "big"), 1)
        receiver = alone.receiver()
        inboxes.adopt(inbox, receiver, 1)
        inboxes.rest(inbox, receiver)
    assert len(inboxes) == INBOXES_MAX + 1
    assert inboxes.forgotten == 3
    assert inboxes.get((2).to_bytes(16, "big")) is None
    assert inboxes.get((3).to_bytes(16, "big")) is not None
    assert inboxes.get(SENDER.unique_id) is connected.inbox


def test_whoever_only_says_hello_is_not_remembered() -> None:
    """What was offered is bounded too."""
    alone = Alone()
    for number in range(INBOXES_MAX + 10):
        alone.inboxes.find(b"x" * 16, number)
    assert len(alone.inboxes) == 0
    assert len(alone.inboxes._offered) == INBOXES_MAX


def test_acknowledgement_after_a_long_while_behind_one_open_position_is_short() -> None:
    """Runs, not positions, are what it costs to tell everything again."""
    inbox = OwnInbox(b"x" * 16, 1, 2)
    for _ in range(10_000):
        inbox.take(BODY)
    for position in range(2, 10_000):
        if position != 5_000:
            inbox.done(position, None)
    inbox.restart()
    (ack,) = inbox.acks()
    assert (ack.received, ack.floor) == (10_000, 0)
    assert ack.early == ((2, 4_999), (5_001, 9_999))
    assert list(inbox.acks()) == []


def test_many_runs_are_cut_into_several_acknowledgements() -> None:
    """Each within its bound, together complete."""
    inbox = OwnInbox(b"x" * 16, 1, 2)
    for _ in range(5_000):
        inbox.take(BODY)
    for position in range(2, 5_001, 2):
        inbox.done(position, None)
    inbox.restart()
    acks = list(inbox.acks())
    assert len(acks) == 3
    told = [p for ack in acks for first, last in ack.early for p in range(first, last + 1)]
    assert told == list(range(2, 5_001, 2))


def test_wires_tell_themselves_apart() -> None:
    """Objects show their state in one line, for logs and failing tests."""
    pair = Pair().up()
    wire: Wire = pair.live
    assert repr(wire.receiver) == (
        "<OwnReceiver link=1 open inbox=<OwnInbox received=0 floor=0 open=0 unconfirmed=0>>"
    )
    assert "open <Outbox bytes=0 waiting=0 sent=0 open=0 position=0>" in repr(pair.sender)


def test_sender_that_never_confirms_failures_loses_its_connection() -> None:
    """After far more than one that keeps to the protocol can leave open."""
    alone = Alone()
    receiver = alone.opened()
    for _ in range(FAILURES_MAX // 1024 + 2):
        for position, _ in receiver.feed(encode_frame(BODY) * 1024, 0.0):
            receiver.inbox.done(position, "failed")
    assert "never confirmed" in str(receiver.broken)
    assert receiver.inbox.unconfirmed <= FAILURES_MAX + 2 * 1024
