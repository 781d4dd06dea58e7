"""The channel core: what options promise, who is at fault, what a peer may do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.channel.keyed_net import Net, Side, Stranger
from tribes.channel.chain import Interceptor, ReceiveNext, SendNext
from tribes.channel.core import ChannelCore
from tribes.channel.outputs import (
    Deliver,
    LinkRejected,
    MemberAdded,
    MemberRemoved,
    Notice,
    TicketDone,
)
from tribes.config.model import ChannelConfig, MembershipConfig, ReceiverConfig
from tribes.errors import LocalProtocolError, SendTimeoutError
from tribes.links.own_acks import DOUBT_FRAME, decode_ack
from tribes.links.own_opening import Opened, Opening
from tribes.links.own_wire import WITNESSES, OwnSide
from tribes.membership.change import RemovalReason
from tribes.wire.data import ChannelData, decode_body, encode_data_frame
from tribes.wire.frame import ACK_FRAME, FAIL_ACK_FRAME, FrameDecoder
from tribes.wire.member import SHUTDOWN_COMMAND, Member, encode_member
from tribes.wire.outputs import Close, Connect, Pause, Probe, Resume, Write
from tribes.wire.probes import FAILURE_DETECTOR_PAYLOAD, TCP_PING_PAYLOAD

if TYPE_CHECKING:
    from tribes.channel.tickets import Outgoing


def member(port: int, **fields: object) -> Member:
    return Member(
        host=b"\x7f\x00\x00\x01",
        port=port,
        unique_id=bytes([port % 251]) * 16,
        **fields,  # type: ignore[arg-type]
    )


LOCAL, ONE, TWO = member(4000), member(4001), member(4002)


class Counter:
    """Entropy that never repeats."""

    def __init__(self) -> None:
        self.value = 0

    def __call__(self, size: int) -> bytes:
        self.value += 1
        return self.value.to_bytes(size, "big")


def make(**receiver: object) -> ChannelCore:
    config = ChannelConfig(receiver=ReceiverConfig(**receiver))  # type: ignore[arg-type]
    core = ChannelCore(LOCAL, config, wall_ms=lambda: 1000, entropy=Counter())
    core.start(0.0)
    core.take_outputs()
    return core


def heard(core: ChannelCore, *members: Member) -> None:
    for each in members:
        core.datagram(encode_member(each), ("127.0.0.1", 1), 0.0)


def frame(source: Member, options: int, message: bytes, uid: int = 1) -> bytes:
    return encode_data_frame(options, 0, uid.to_bytes(16, "big"), encode_member(source), message)


def written(core: ChannelCore, link: int) -> bytes:
    return b"".join(
        chunk
        for output in core.take_outputs()
        if isinstance(output, Write) and output.link == link
        for chunk in output.chunks
    )


def test_members_are_listed_longest_lived_first_and_views_are_numbered() -> None:
    """Each member that comes or goes makes one event and one view."""
    core = make()
    heard(core, ONE.replace(alive=10), TWO.replace(alive=5000))
    assert core.view.members == (TWO, ONE)
    assert core.view.number == 2
    events = [o for o in core.take_outputs() if isinstance(o, MemberAdded)]
    assert [(e.member, e.view) for e in events] == [(ONE, 1), (TWO, 2)]
    heard(core, ONE.replace(command=SHUTDOWN_COMMAND))
    removed = [o for o in core.take_outputs() if isinstance(o, MemberRemoved)]
    assert [(e.member, e.reason, e.view) for e in removed] == [(ONE, RemovalReason.LEFT, 3)]


def test_a_test_frame_carries_the_record_as_it_was_announced_last() -> None:
    """What members learn of this one must not depend on how they hear of it."""
    core = make()
    core.announce(0.0, payload=b"new")
    core.take_outputs()
    heard(core, ONE)
    core._roster.probe(
        ONE,
        FAILURE_DETECTOR_PAYLOAD,
        options=3,
        expect_reply=True,
        connect_timeout=1.0,
        reply_timeout=1.0,
        answer=lambda error, now: None,
    )
    [probe] = [output for output in core.take_outputs() if isinstance(output, Probe)]
    [body] = FrameDecoder(body_max_bytes=1024).feed(probe.data)
    assert decode_body(body).source.payload == b"new"


def test_send_is_done_when_every_destination_acknowledged() -> None:
    """One ticket, two members: done after the second acknowledgement, nobody at fault."""
    core = make()
    heard(core, ONE, TWO)
    connects = [o for o in core.take_outputs() if isinstance(o, Connect)]
    for link, connect in enumerate(connects, 10):
        core.link_opened(link, 0.0, peer=connect.address, attempt=connect.attempt)
    ticket, _ = core.send((ONE, TWO), b"hello", 6, 0.0)
    core.take_outputs()
    core.link_bytes(10, ACK_FRAME, 0.1)
    assert not [o for o in core.take_outputs() if isinstance(o, TicketDone)]
    core.link_bytes(11, ACK_FRAME, 0.2)
    assert core.released(ticket) == {}
    done = TicketDone(ticket, {})
    assert [o for o in core.take_outputs() if isinstance(o, TicketDone)] == [done]


def test_whether_a_send_may_go_on_is_known_before_anything_is_written() -> None:
    """Of each send by itself, with the members that it has failed for, until it was told."""
    core = make()
    heard(core, ONE, TWO)
    connects = [o for o in core.take_outputs() if isinstance(o, Connect)]
    for link, connect in enumerate(connects, 10):
        core.link_opened(link, 0.0, peer=connect.address, attempt=connect.attempt)
    waiting, _ = core.send((ONE,), b"", 6, 0.0)
    core.stop(0.0)
    core.take_outputs()
    failed, _ = core.send((ONE,), b"", 6, 0.0)
    assert core.released(waiting) is None
    assert list(core.released(failed) or {}) == [ONE]
    core.take_outputs()
    assert core.released(failed) is None


def test_faulty_members_are_exact() -> None:
    """The member whose listener failed is named; the healthy one is not."""
    core = make()
    heard(core, ONE, TWO)
    for link, connect in enumerate([o for o in core.take_outputs() if isinstance(o, Connect)], 10):
        core.link_opened(link, 0.0, peer=connect.address, attempt=connect.attempt)
    core.send((ONE, TWO), b"hello", 6, 0.0)
    core.link_bytes(10, FAIL_ACK_FRAME, 0.1)
    core.link_bytes(11, ACK_FRAME, 0.1)
    done = [o for o in core.take_outputs() if isinstance(o, TicketDone)]
    assert {m: type(e).__name__ for m, e in done[0].faulty.items()} == {ONE: "RemoteProcessError"}


def test_destination_listed_twice_gets_one_copy() -> None:
    """The reference would time out; here duplicates are one destination."""
    core = make()
    core.send((ONE, ONE), b"x", 0, 0.0)
    assert core.statistics.frames_sent == 1


@pytest.mark.parametrize(
    ("destinations", "message"),
    [((), "no destination"), ((LOCAL,), "to itself"), ((ONE, LOCAL), "to itself")],
)
def test_impossible_sends_are_refused(destinations: tuple[Member, ...], message: str) -> None:
    """Misuse is told at once, before anything is sent."""
    core = make()
    with pytest.raises(LocalProtocolError, match=message):
        core.send(destinations, b"x", 0, 0.0)
    assert core.take_outputs() == []


@pytest.mark.parametrize("options", [0, 1, 4, 5, 8])
def test_no_acknowledgement_without_use_ack(options: int) -> None:
    """Synchronized-ack alone asks for nothing."""
    core = make()
    core.link_opened(5, 0.0, peer=("127.0.0.1", 9))
    core.link_bytes(5, frame(ONE, options, b"x"), 0.0)
    deliver = [o for o in core.take_outputs() if isinstance(o, Deliver)]
    core.delivered(deliver[0].token, None, 0.1)
    assert written(core, 5) == b""


def test_use_ack_answers_before_processing_and_hides_later_failures() -> None:
    """Option 2: received is enough."""
    core = make()
    core.link_opened(5, 0.0, peer=("127.0.0.1", 9))
    core.link_bytes(5, frame(ONE, 2, b"x"), 0.0)
    token = next(o.token for o in core.take_outputs() if isinstance(o, Deliver))
    # Nothing has been done with the delivery yet.
    assert core.take_outputs() == [Write(5, [ACK_FRAME])]
    core.delivered(token, RuntimeError("no"), 0.1)
    assert written(core, 5) == b""


def test_receipt_and_processing_are_acknowledged_in_one() -> None:
    """On an own link, where a listener is done at once: one frame of acknowledgement, not two."""
    net = Net()
    sender, receiver = net.add(4001, None), net.add(4002, None)
    net.run(2.0)
    sender.send(receiver, b"the link is open")
    net.pump()
    sender.answers.clear()
    sender.send(receiver, b"one")
    net.pump()
    assert receiver.delivered[-1] == b"one"
    [ack] = FrameDecoder(body_max_bytes=1000).feed(b"".join(sender.answers))
    assert decode_ack(ack).received == decode_ack(ack).floor


def test_synchronized_ack_answers_with_the_outcome() -> None:
    """Option 6: ack when all listeners returned, fail-ack when one raised."""
    core = make()
    core.link_opened(5, 0.0, peer=("127.0.0.1", 9))
    for uid, error, answer in ((1, None, ACK_FRAME), (2, RuntimeError("no"), FAIL_ACK_FRAME)):
        core.link_bytes(5, frame(ONE, 6, b"x", uid), 0.0)
        outputs = core.take_outputs()
        assert not [o for o in outputs if isinstance(o, Write)]
        token = next(o.token for o in outputs if isinstance(o, Deliver))
        core.delivered(token, error, 0.1)
        assert written(core, 5) == answer


def test_repeated_frame_is_answered_with_the_first_outcome_and_not_processed_again() -> None:
    """A retry after a lost acknowledgement runs no listener twice."""
    core = make()
    core.link_opened(5, 0.0, peer=("127.0.0.1", 9))
    core.link_bytes(5, frame(ONE, 6, b"x"), 0.0)
    token = next(o.token for o in core.take_outputs() if isinstance(o, Deliver))
    core.link_closed(5, None, 0.1)
    core.link_opened(6, 0.1, peer=("127.0.0.1", 9))
    core.link_bytes(6, frame(ONE, 6, b"x"), 0.1)
    assert not [o for o in core.take_outputs() if isinstance(o, Deliver)]
    core.delivered(token, RuntimeError("no"), 0.2)
    assert written(core, 6) == FAIL_ACK_FRAME
    core.link_bytes(6, frame(ONE, 6, b"x"), 0.3)
    assert written(core, 6) == FAIL_ACK_FRAME
    assert core.duplicates == 2


def test_one_delivery_per_source_and_max_threads_in_all() -> None:
    """Messages of one member are processed one by one; others go on beside them."""
    core = make(max_threads=2)
    for link, source in enumerate((ONE, TWO, member(4003)), 5):
        core.link_opened(link, 0.0, peer=("127.0.0.1", 9))
        data = b"".join(frame(source, 0, b"%d" % i, 100 * link + i) for i in range(2))
        core.link_bytes(link, data, 0.0)
    first = [o for o in core.take_outputs() if isinstance(o, Deliver)]
    assert [(o.source, o.message.message) for o in first] == [(ONE, b"0"), (TWO, b"0")]
    core.delivered(first[0].token, None, 0.1)
    third = [o for o in core.take_outputs() if isinstance(o, Deliver)]
    assert [(o.source.port, o.message.message) for o in third] == [(4003, b"0")]
    core.delivered(first[1].token, None, 0.1)
    fourth = [o for o in core.take_outputs() if isinstance(o, Deliver)]
    assert [(o.source, o.message.message) for o in fourth] == [(ONE, b"1")]


def test_connection_of_a_source_with_too_many_waiting_is_not_read() -> None:
    """Beyond the bound the link is paused, and resumed at half of it."""
    core = make(pending_max=10)
    core.link_opened(5, 0.0, peer=("127.0.0.1", 9))
    core.link_bytes(5, b"".join(frame(ONE, 0, b"x", i) for i in range(1, 13)), 0.0)
    outputs = core.take_outputs()
    assert [o for o in outputs if isinstance(o, Pause)] == [Pause(5)]
    deliveries = [o for o in outputs if isinstance(o, Deliver)]
    resumed_after = 0
    for count in range(1, 13):
        core.delivered(deliveries[-1].token, None, 0.1)
        outputs = core.take_outputs()
        deliveries += [o for o in outputs if isinstance(o, Deliver)]
        if Resume(5) in outputs:
            resumed_after = count
    assert resumed_after == 7
    assert len(deliveries) == 12


def test_protocol_error_costs_the_peer_its_connection_only() -> None:
    """Good frames before the junk are processed; the counter moves; others go on."""
    core = make()
    core.link_opened(5, 0.0, peer=("127.0.0.1", 9))
    core.link_opened(6, 0.0, peer=("127.0.0.1", 9))
    core.link_bytes(5, frame(ONE, 0, b"good") + b"junk", 0.0)
    outputs = core.take_outputs()
    assert [o.message.message for o in outputs if isinstance(o, Deliver)] == [b"good"]
    assert [o for o in outputs if isinstance(o, LinkRejected)]
    assert Close(5) in outputs
    assert core.statistics.links_rejected == 1
    core.link_bytes(6, frame(TWO, 0, b"fine"), 0.0)
    assert [o for o in core.take_outputs() if isinstance(o, Deliver)]


def test_connections_are_limited() -> None:
    """One more than ``max_connections`` is closed at once and counted."""
    core = make(max_connections=1)
    core.link_opened(5, 0.0, peer=("127.0.0.1", 9))
    core.link_opened(6, 0.0, peer=("127.0.0.1", 9))
    assert core.take_outputs() == [Close(6)]
    assert core.statistics.connections_refused == 1


@pytest.mark.parametrize("payload", [FAILURE_DETECTOR_PAYLOAD, TCP_PING_PAYLOAD])
def test_probe_payloads_never_reach_a_listener(payload: bytes) -> None:
    """Also without a failure detector in the chain; the acknowledgement is positive."""
    core = make()
    core.link_opened(5, 0.0, peer=("127.0.0.1", 9))
    core.link_bytes(5, frame(ONE, 7, payload), 0.0)
    assert core.take_outputs() == [Write(5, [ACK_FRAME])]


def test_stranger_is_served_and_its_connection_given_back() -> None:
    """A destination need not be a member; its idle connection is closed after a while."""
    core = make()
    core.send((ONE,), b"x", 0, 0.0)
    connect = next(o for o in core.take_outputs() if isinstance(o, Connect))
    core.link_opened(5, 0.0, peer=connect.address, attempt=connect.attempt)
    size = len(written(core, 5))
    core.writable(5, size, 0.0)
    while core.next_deadline <= 5.0:
        core.timer(core.next_deadline)
    assert Close(5, flush=True) in core.take_outputs()


def test_stopping_fails_what_is_under_way_and_says_goodbye() -> None:
    """Callers get an answer; the group hears the farewell; later sends fail."""
    core = make()
    heard(core, ONE)
    ticket, _ = core.send((ONE,), b"x", 6, 0.0)
    core.take_outputs()
    core.stop(1.0)
    done = [o for o in core.take_outputs() if isinstance(o, TicketDone)]
    assert [d.ticket for d in done] == [ticket]
    assert [type(e).__name__ for e in done[0].faulty.values()] == ["ChannelClosedError"]
    late, _ = core.send((ONE,), b"x", 6, 2.0)
    done = [o for o in core.take_outputs() if isinstance(o, TicketDone)]
    assert [d.ticket for d in done] == [late]


class Troubles(Interceptor):
    """Notes what the channel holds against members."""

    def __init__(self) -> None:
        self.members: list[Member] = []

    def on_trouble(self, member: Member, why: Exception, now: float) -> None:
        self.members.append(member)


def test_end_of_a_connection_that_only_tested_us_is_no_trouble() -> None:
    """Two failure detectors would otherwise ask each other back for ever."""
    troubles = Troubles()
    core = ChannelCore(LOCAL, ChannelConfig(), [troubles], wall_ms=lambda: 1000, entropy=Counter())
    core.start(0.0)
    heard(core, ONE)
    core.link_opened(5, 0.0, peer=("127.0.0.1", 9))
    core.link_bytes(5, frame(ONE, 3, FAILURE_DETECTOR_PAYLOAD), 0.0)
    core.link_closed(5, None, 0.1)
    assert troubles.members == []
    core.link_opened(6, 0.2, peer=("127.0.0.1", 9))
    core.link_bytes(6, frame(ONE, 0, b"data"), 0.2)
    core.link_closed(6, None, 0.3)
    assert troubles.members == [ONE]


class Broken(Interceptor):
    """A user's interceptor with a bug in each direction."""

    def send(self, message: Outgoing, now: float, next: SendNext) -> None:  # noqa: A002
        raise ZeroDivisionError("down")

    def receive(self, message: ChannelData, now: float, next: ReceiveNext) -> None:  # noqa: A002
        raise ZeroDivisionError("up")


def test_bug_in_an_interceptor_costs_one_message() -> None:
    """Its sender is told, the event says where it happened, and the channel goes on."""
    core = ChannelCore(LOCAL, ChannelConfig(), [Broken()], wall_ms=lambda: 0, entropy=Counter())
    core.start(0.0)
    core.link_opened(5, 0.0, peer=("127.0.0.1", 9))
    core.take_outputs()
    core.link_bytes(5, frame(ONE, 6, b"x"), 0.0)
    notice, answer = core.take_outputs()
    assert isinstance(notice, Notice)
    assert "test_core.py" in str(notice.details["at"])
    assert answer == Write(5, [FAIL_ACK_FRAME])
    core.send((ONE,), b"x", 0, 0.0)
    _, done = core.take_outputs()
    assert isinstance(done, TicketDone)
    assert isinstance(done.faulty[ONE], ZeroDivisionError)


def _unsuspicious_pair(net: Net) -> tuple[Side, Side]:
    config = ChannelConfig(membership=MembershipConfig(suspect_after=0))
    a, b = net.add(4000, None, config=config), net.add(4001, None, config=config)
    net.run(2)
    return a, b


def test_a_hanging_connection_is_made_anew_also_where_nobody_is_suspected() -> None:
    """A send without answer makes the failure detector ask, and the member answers it elsewhere."""
    net = Net()
    a, b = _unsuspicious_pair(net)
    link = net.hang(a)
    late = a.send(b, b"one")
    net.run(3.1)
    assert [type(error) for error in a.done[late].values()] == [SendTimeoutError]
    assert not net.is_open(a, link)
    assert b.delivered == [b"one"]
    ticket = a.send(b, b"two")
    net.pump()
    assert a.done[ticket] == {}


def _say_hello(net: Net, side: Side, source: Member) -> tuple[Stranger, Opening]:
    """Begin a link for a member that sends no heartbeats and answers nowhere."""
    opening = Opening(
        OwnSide(encode_member(source), source.unique_id, features=WITNESSES),
        side.core.local.unique_id,
        key=None,
        incarnation=5,
        attempt=1,
        entropy=net.random.randbytes,
    )
    stranger = net.connect("10.0.0.9", side, opening.hello)
    net.pump()
    return stranger, opening


def test_only_members_can_doubt() -> None:
    """A stranger's word would be kept for ever, and make this member trust itself less."""
    net = Net()
    side = net.add(4000, None)
    stranger, opening = _say_hello(net, side, TWO)
    opened = opening.feed(stranger.answer)
    assert isinstance(opened, Opened)
    stranger.write(opened.start + DOUBT_FRAME)
    net.pump()
    assert stranger.is_open
    assert side.core.doubted_by == {}
    assert side.core.health.local_health == 1


def test_a_link_that_is_being_opened_when_the_channel_stops_is_forgotten() -> None:
    """Its time runs out later, when there is nothing left to close and nobody to tell."""
    net = Net()
    side = net.add(4000, None)
    _say_hello(net, side, TWO)
    side.core.stop(net.now)
    side.core.take_outputs()
    side.core.timer(net.now + 2)
    assert side.core.take_outputs() == []


class _Dismiss(Interceptor):
    """The first message of a member is the end of its connections."""

    core: ChannelCore

    def receive(self, message: ChannelData, now: float, next: ReceiveNext) -> None:  # noqa: A002
        self.core.accepted.forget(message.source)
        next(message, now)


def test_a_connection_that_was_closed_in_the_middle_of_a_read_is_not_paused() -> None:
    """What else it brought may wait for the listeners; its driver has forgotten it."""
    dismiss = _Dismiss()
    config = ChannelConfig(receiver=ReceiverConfig(pending_max=1))
    core = ChannelCore(LOCAL, config, [dismiss], wall_ms=lambda: 1000, entropy=Counter())
    dismiss.core = core
    core.start(0.0)
    core.link_opened(5, 0.0, peer=("127.0.0.1", 9))
    core.take_outputs()
    core.link_bytes(5, b"".join(frame(ONE, 2, b"x", uid) for uid in range(4)), 0.0)
    outputs = core.take_outputs()
    assert [o for o in outputs if isinstance(o, Close | Pause | Resume)] == [Close(5, flush=True)]


def test_where_a_rejected_connection_came_from_can_be_told_from_its_port() -> None:
    """An IPv6 address has colons of its own."""
    assert LinkRejected(("127.0.0.1", 9), "why").fields()["peer"] == "127.0.0.1:9"
    assert LinkRejected(("fe80::1", 9), "why").fields()["peer"] == "[fe80::1]:9"
