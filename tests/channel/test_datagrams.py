"""Messages by UDP and by multicast: what is sent, answered, dropped and refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.channel.keyed_net import ONE as ONE_KEY
from tests.channel.keyed_net import ring
from tests.channel.test_core import LOCAL, ONE, Counter, frame, heard
from tribes.channel.core import ChannelCore
from tribes.channel.outputs import Deliver, TicketDone
from tribes.config.model import ChannelConfig, NodeConfig, ReceiverConfig, SenderConfig
from tribes.config.model import check_config as check
from tribes.errors import (
    ConfigError,
    LocalProtocolError,
    QueueFullError,
    RemoteProcessError,
    SendTimeoutError,
)
from tribes.testing.sim import World
from tribes.wire.data import decode_body
from tribes.wire.frame import ACK_FRAME, FAIL_ACK_FRAME, FrameDecoder
from tribes.wire.outputs import Connect, Datagram, UdpDatagram, Write

if TYPE_CHECKING:
    from tribes.security.keys import KeyRing

UDP, MULTICAST = 32, 64
HERE = LOCAL.replace(udp_port=5000)
THERE = ONE.replace(udp_port=5001)
ADDRESS = ("127.0.0.1", 5001)


def make(*, keys: KeyRing | None = None, sender: SenderConfig | None = None) -> ChannelCore:
    config = ChannelConfig(sender=sender or SenderConfig(), receiver=ReceiverConfig(pending_max=3))
    core = ChannelCore(HERE, config, keys=keys, wall_ms=lambda: 1000, entropy=Counter())
    core.start(0.0)
    heard(core, THERE)
    core.take_outputs()
    return core


def sent(core: ChannelCore) -> list[UdpDatagram]:
    return [output for output in core.take_outputs() if isinstance(output, UdpDatagram)]


def faults(core: ChannelCore) -> list[list[type[Exception]]]:
    done = [output for output in core.take_outputs() if isinstance(output, TicketDone)]
    return [[type(error) for error in each.faulty.values()] for each in done]


def message(data: bytes) -> bytes:
    (body,) = FrameDecoder().feed(data)
    return decode_body(body).message


def test_a_message_by_udp_is_one_datagram_and_done_when_handed_over() -> None:
    """Without acknowledgement nothing is known of its arrival."""
    core = make()
    core.send((THERE,), b"hello", UDP, 0.0)
    outputs = core.take_outputs()
    (datagram,) = [output for output in outputs if isinstance(output, UdpDatagram)]
    assert (datagram.address, message(datagram.data)) == (ADDRESS, b"hello")
    assert [o.faulty for o in outputs if isinstance(o, TicketDone)] == [{}]
    assert not [output for output in outputs if isinstance(output, Write | Connect)]


@pytest.mark.parametrize(
    ("answer", "expected"), [(ACK_FRAME, []), (FAIL_ACK_FRAME, [RemoteProcessError])]
)
def test_acknowledged_udp_waits_for_the_answer(
    answer: bytes, expected: list[type[Exception]]
) -> None:
    """It comes from where the message went to."""
    core = make()
    core.send((THERE,), b"hello", UDP | 6, 0.0)
    assert len(sent(core)) == 1
    core.udp_datagram(answer, ("127.0.0.1", 9), 0.1)
    assert faults(core) == []
    assert core.datagrams.statistics.unexpected_acks == 1
    core.udp_datagram(answer, ADDRESS, 0.1)
    assert faults(core) == [expected]
    assert core.is_idle


def test_answers_name_no_message_so_one_is_under_way_at_a_time() -> None:
    """The second leaves when the first is answered, or late."""
    core = make()
    core.send((THERE,), b"one", UDP | 2, 0.0)
    core.send((THERE,), b"two", UDP | 2, 0.5)
    assert [message(each.data) for each in sent(core)] == [b"one"]
    core.udp_datagram(ACK_FRAME, ADDRESS, 0.6)
    assert [message(each.data) for each in sent(core)] == [b"two"]
    assert not core.is_idle
    core.timer(3.4)
    assert faults(core) == []
    core.timer(3.5)
    assert faults(core) == [[SendTimeoutError]]
    assert core.is_idle


def test_an_answered_datagram_is_not_kept_for_the_time_that_it_had() -> None:
    """Fast members would fill the memory with what is long done."""
    core = make()
    before = core.timers.count
    for number in range(50):
        core.send((THERE,), b"x", UDP | 2, 0.0)
        core.udp_datagram(ACK_FRAME, ADDRESS, 0.0)
        assert len(faults(core)) == 1, number
    assert core.timers.count == before + 1
    core.send((THERE,), b"last", UDP | 2, 0.5)
    core.timer(3.4)
    assert not core.is_idle
    core.timer(3.5)
    assert faults(core) == [[SendTimeoutError]]
    assert core.is_idle


def test_what_waits_for_one_member_is_bounded() -> None:
    """As on connections, the message that finds no room fails at once."""
    core = make(sender=SenderConfig(queue_max_bytes=3000))
    for _ in range(4):
        core.send((THERE,), bytes(1000), UDP | 2, 0.0)
    assert faults(core) == [[QueueFullError], [QueueFullError]]


@pytest.mark.parametrize("options", [UDP, MULTICAST])
def test_what_does_not_fit_in_a_datagram_fails(options: int) -> None:
    """Nothing is cut off in silence."""
    core = make()
    core.send((THERE,), bytes(65_507), options, 0.0)
    assert faults(core) == [[LocalProtocolError]]


def test_a_member_without_udp_port_is_faulty() -> None:
    """The error says what to set."""
    core = make()
    core.send((ONE.replace(port=4009),), b"x", UDP, 0.0)
    (done,) = [output for output in core.take_outputs() if isinstance(output, TicketDone)]
    assert "udp_port" in str(next(iter(done.faulty.values())))


@pytest.mark.parametrize(
    ("options", "error", "early", "late"),
    [
        (UDP, None, [], []),
        (UDP | 2, None, [ACK_FRAME], []),
        (UDP | 2, ValueError(), [ACK_FRAME], []),
        (UDP | 6, None, [], [ACK_FRAME]),
        (UDP | 6, ValueError(), [], [FAIL_ACK_FRAME]),
    ],
)
def test_received_datagrams_are_answered_as_frames_are(
    options: int, error: Exception | None, early: list[bytes], late: list[bytes]
) -> None:
    """Before processing, after it, or not at all; to where they came from (tribes-wire §4.2)."""
    core = make()
    core.udp_datagram(frame(THERE, options | 1, b"hi"), ("127.0.0.1", 7), 0.0)
    outputs = core.take_outputs()
    (deliver,) = [output for output in outputs if isinstance(output, Deliver)]
    answers = [output for output in outputs if isinstance(output, UdpDatagram)]
    assert [each.data for each in answers] == early
    core.delivered(deliver.token, error, 0.0)
    answers += (then := sent(core))
    assert [each.data for each in then] == late
    assert {each.address for each in answers} <= {("127.0.0.1", 7)}


def test_a_datagram_that_comes_twice_is_delivered_once_and_answered_twice() -> None:
    """The first answer may have been lost."""
    core = make()
    data = frame(THERE, UDP | 3, b"hi")
    for _ in range(2):
        core.udp_datagram(data, ADDRESS, 0.0)
    outputs = core.take_outputs()
    assert len([o for o in outputs if isinstance(o, Deliver)]) == 1
    assert len([o for o in outputs if isinstance(o, UdpDatagram)]) == 2


def test_a_full_source_costs_messages_and_not_memory() -> None:
    """Nobody can be told to wait, and what is dropped is not acknowledged."""
    core = make()
    for number in range(20):
        core.udp_datagram(frame(THERE, UDP | 3, b"hi", number), ADDRESS, 0.0)
    assert core.deliveries.waiting == 5
    assert core.datagrams.statistics.dropped == 15
    assert len(sent(core)) == 5


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1],
        lambda data: data[:20],
        lambda data: b"FLT2002" + bytes(100),
        lambda data: b"",
        lambda data: bytes(65_507),
        lambda data: data.replace(b"FLT2002", b"FLT2003"),
    ],
)
def test_junk_costs_nothing(spoil: Callable[[bytes], bytes]) -> None:
    """Where Tomcat's receiver would close its socket for good (tribes-wire §8.5)."""
    core = make()
    core.udp_datagram(spoil(frame(THERE, UDP | 3, b"hi")), ADDRESS, 0.0)
    core.datagram(spoil(frame(THERE, MULTICAST | 1, b"hi")), ADDRESS, 0.0)
    assert not [output for output in core.take_outputs() if isinstance(output, Deliver)]
    core.udp_datagram(frame(THERE, UDP | 3, b"hi"), ADDRESS, 0.0)
    assert len([output for output in core.take_outputs() if isinstance(output, Deliver)]) == 1


def test_a_message_to_the_group_is_one_datagram_and_never_acknowledged() -> None:
    """Whoever hears the group gets it; the sender's own copy is ignored."""
    core = make()
    core.send((THERE,), b"all", MULTICAST | 6, 0.0)
    outputs = core.take_outputs()
    (datagram,) = [output for output in outputs if isinstance(output, Datagram)]
    assert message(datagram.data) == b"all"
    assert [o.faulty for o in outputs if isinstance(o, TicketDone)] == [{}]
    core.datagram(datagram.data, ADDRESS, 0.0)
    assert core.take_outputs() == []
    core.datagram(frame(THERE, MULTICAST | 7, b"hi"), ADDRESS, 0.0)
    (deliver,) = [output for output in core.take_outputs() if isinstance(output, Deliver)]
    core.delivered(deliver.token, ValueError(), 0.0)
    assert core.take_outputs() == []


def test_a_group_with_a_key_has_no_messages_by_datagram() -> None:
    """Sending is refused, and what comes is not read: anybody could have sent it."""
    core = make(keys=ring(ONE_KEY))
    with pytest.raises(LocalProtocolError, match="key"):
        core.send((THERE,), b"x", UDP, 0.0)
    core.udp_datagram(frame(THERE, UDP | 3, b"hi"), ADDRESS, 0.0)
    core.datagram(frame(THERE, MULTICAST | 1, b"hi"), ADDRESS, 0.0)
    assert not [o for o in core.take_outputs() if isinstance(o, Deliver | UdpDatagram)]
    config = NodeConfig(
        channel=ChannelConfig(key_file="x.key", receiver=ReceiverConfig(udp_port=4))
    )
    with pytest.raises(ConfigError, match="udp_port"):
        check(config)


def test_in_the_simulator_loss_is_an_error_and_nothing_comes_twice() -> None:
    """Acknowledged messages by UDP over a bad network: each arrived once, or failed."""
    world = World(5)
    config = NodeConfig(
        channel=ChannelConfig(
            sender=SenderConfig(timeout=300), receiver=ReceiverConfig(udp_port=4100)
        )
    )
    a, b = (world.start(name, config) for name in "ab")
    world.run(2)
    link = world.link(a, b)
    link.loss = link.duplicate = 0.3
    tickets = []
    for number in range(200):
        tickets.append(a.send(b"%d" % number, [b], UDP | 6))
        world.run(0.5)
    outcomes = [a.done[ticket] for ticket in tickets]
    arrived = [int(message.message) for message in b.messages]
    assert len(arrived) == len(set(arrived))
    assert {number for number, faulty in enumerate(outcomes) if not faulty} <= set(arrived)
    assert 20 < sum(map(bool, outcomes)) < 180
