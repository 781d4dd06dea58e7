"""Messages of a member come out in the order sent, and nobody waits for ever."""

from __future__ import annotations

import struct
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.channel.chain import Interceptor, ReceiveNext, SendNext
from tribes.errors import ConfigError, RemoteProtocolError
from tribes.interceptors import OrderInterceptor
from tribes.interceptors import order as order_module
from tribes.testing.stage import Stage, stage_member

if TYPE_CHECKING:
    from tribes.channel.tickets import Outgoing
    from tribes.wire.data import ChannelData

A, B = stage_member(1), stage_member(2)


def numbered(number: int, text: bytes = b"") -> bytes:
    return (text or str(number).encode()) + struct.pack(">i", number)


def arrivals(stage: Stage, *numbers: int) -> list[bytes]:
    before = len(stage.got)
    for number in numbers:
        stage.arrive(numbered(number))
    return stage.messages[before:]


class SwapPairs(Interceptor):
    """Lets the second of two messages pass before the first."""

    def __init__(self) -> None:
        self._first: Outgoing | None = None

    def send(self, message: Outgoing, now: float, next: SendNext) -> None:  # noqa: A002
        if self._first is None:
            self._first = message
            return
        first, self._first = self._first, None
        next(message, now)
        next(first, now)


def test_swapped_pairs_come_out_in_order() -> None:
    """Upstream TestOrderInterceptor: an interceptor below Order swaps each pair of messages, no
    expiry; 100 messages of one sender arrive in order.
    """
    sender = Stage(OrderInterceptor(expire=2**40), SwapPairs())
    for number in range(100):
        sender.send(str(number).encode())
    assert sender.wire[0][:-4] == b"1"
    receiver = Stage(OrderInterceptor(expire=2**40))
    assert sender.carry_to(receiver) == [str(number).encode() for number in range(100)]


def test_five_senders_are_ordered_each() -> None:
    """Upstream TestOrderInterceptor, 5 threads of 100 messages under a lock: no listener sees a
    number before its predecessor, whichever of the senders' messages the network swaps.
    """
    receiver = Stage(OrderInterceptor(expire=2**40))
    frames: list[ChannelData] = []
    for sender_number in range(1, 6):
        source = stage_member(sender_number)
        sender = Stage(OrderInterceptor(), SwapPairs(), local=source)
        for number in range(100):
            sender.send(str(number).encode(), stage_member(9))
        frames.append(sender.sent[0].data)
        frames += [each.data for each in sender.sent[1:]]
    Random(5).shuffle(frames)
    for frame in frames:
        receiver.receive(frame)
    for sender_number in range(1, 6):
        source = stage_member(sender_number)
        got = [m.message for m in receiver.got if m.source == source]
        assert got == [str(number).encode() for number in range(100)]


@given(st.permutations(range(1, 30)))
def test_any_order_of_arrival_comes_out_sorted(numbers: list[int]) -> None:
    """Whatever the network does to the order, nothing is lost, repeated or out of order."""
    stage = Stage(OrderInterceptor())
    assert arrivals(stage, *numbers) == [str(n).encode() for n in range(1, 30)]
    assert not stage.chain.interceptors[0].held  # type: ignore[attr-defined]


def test_numbers_belong_to_a_destination_and_bytes_too() -> None:
    """Each destination gets its own number in its own bytes, so a longer message for the second
    does not grow by the first one's number.
    """
    stage = Stage(OrderInterceptor())
    stage.send(b"x", A)
    stage.send(b"y", A, B)
    assert [(s.destinations, s.data.message) for s in stage.sent] == [
        ((A,), numbered(1, b"x")),
        ((A,), numbered(2, b"y")),
        ((B,), numbered(1, b"y")),
    ]


def test_outcome_of_each_destination_reaches_the_sender_exactly() -> None:
    """One of two destinations fails: the ticket names that one."""
    stage = Stage(OrderInterceptor())
    why = ConnectionRefusedError()
    stage.refuse[B] = why
    ticket = stage.send(b"x", A, B)
    assert ticket.is_settled
    assert ticket.faulty == {B: why}


def test_last_messages_before_a_silence_come_out_by_the_timer() -> None:
    """Nothing more arrives, and after ``expire`` what is held is handed on, in order."""
    stage = Stage(OrderInterceptor(expire=3000))
    assert arrivals(stage, 3, 2) == []
    stage.pass_time(2.9)
    assert stage.messages == []
    stage.pass_time(0.1)
    assert stage.messages == [b"2", b"3"]
    assert arrivals(stage, 4) == [b"4"]
    assert stage.told("messages out of order") == [{"member": A.label, "messages": 2}]


def test_expired_messages_are_dropped_when_asked() -> None:
    """``forward_expired=False``: they are gone, and what follows them without a gap is not."""
    stage = Stage(OrderInterceptor(expire=100, forward_expired=False))
    interceptor = stage.chain.interceptors[0]
    assert isinstance(interceptor, OrderInterceptor)
    arrivals(stage, 2)
    stage.pass_time(0.05)
    arrivals(stage, 3)
    stage.pass_time(0.05)
    assert stage.messages == [b"3"]
    assert interceptor.expired == 1
    assert arrivals(stage, 4) == [b"4"]


def test_one_timer_serves_a_member() -> None:
    """A thousand held messages do not put a thousand timers on the heap."""
    stage = Stage(OrderInterceptor())
    arrivals(stage, *range(2, 1002))
    assert len(stage.timers._heap) == 1


def test_queue_is_bounded_by_count_and_by_bytes() -> None:
    """A full queue is handed on at once; nothing is held beyond either bound."""
    stage = Stage(OrderInterceptor(max_queue=3))
    assert arrivals(stage, 2, 3) == []
    assert arrivals(stage, 5) == [b"2", b"3", b"5"]
    small = OrderInterceptor(max_queue_bytes=2 * order_module.MESSAGE_OVERHEAD_BYTES + 2)
    stage = Stage(small)
    assert arrivals(stage, 2) == []
    assert arrivals(stage, 3) == [b"2", b"3"]
    assert small.overflows == 1


def test_member_that_disappears_gets_its_messages_out_and_counts_anew() -> None:
    """What it sent comes before the news that it is gone; both counts start at 1 again."""
    stage = Stage(OrderInterceptor())
    stage.add(A)
    stage.send(b"x", A)
    arrivals(stage, 4, 2)
    stage.remove(A)
    assert stage.messages == [b"2", b"4"]
    stage.pass_time(10)
    stage.add(A)
    stage.send(b"y", A)
    assert stage.wire[-1] == numbered(1, b"y")
    assert arrivals(stage, 1) == [b"1"]


def test_numbers_wrap() -> None:
    """After 2^31 - 1 comes -2^31 (undefined in the reference), and order goes on."""
    stage = Stage(OrderInterceptor())
    interceptor = stage.chain.interceptors[0]
    assert isinstance(interceptor, OrderInterceptor)
    interceptor._sent[A] = 2**31 - 2
    for _ in range(2):
        stage.send(b"x", A)
    assert [struct.unpack(">i", m[-4:])[0] for m in stage.wire] == [2**31 - 1, -(2**31)]
    source = interceptor._source(A)
    source.due = 2**31 - 1
    assert arrivals(stage, -(2**31), 2**31 - 1) == [b"2147483647", b"-2147483648"]


def test_option_flag_chooses_messages() -> None:
    """Others pass as they are, in both directions."""
    stage = Stage(OrderInterceptor(option_flag=512))
    stage.send(b"x", options=1)
    stage.send(b"y", options=513)
    assert stage.wire == [b"x", numbered(1, b"y")]
    assert stage.arrive(b"plain", options=1) == [b"plain"]


@pytest.mark.parametrize("message", [b"", b"abc"])
def test_message_without_a_number_is_refused(message: bytes) -> None:
    """It costs its sender this message, and nothing else."""
    with pytest.raises(RemoteProtocolError):
        Stage(OrderInterceptor()).arrive(message)


def test_number_used_twice_is_refused() -> None:
    """A second message of the same number, while the first waits, is an error (tribes-wire
    §7.2).
    """
    stage = Stage(OrderInterceptor())
    arrivals(stage, 2)
    with pytest.raises(RemoteProtocolError):
        arrivals(stage, 2)
    assert arrivals(stage, 1) == [b"1", b"2"]


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=8)), max_size=40))
def test_any_bytes_are_messages_or_refused(frames: list[tuple[int, bytes]]) -> None:
    """Random bytes never raise anything but RemoteProtocolError, and timers neither."""
    stage = Stage(OrderInterceptor(expire=10, max_queue=5))
    for number, message in frames:
        try:
            stage.arrive(message, stage_member(number))
        except RemoteProtocolError:
            continue
        stage.pass_time(0.004)
    stage.pass_time(1)


class Picky(Interceptor):
    """Refuses some messages."""

    def receive(self, message: ChannelData, now: float, next: ReceiveNext) -> None:  # noqa: A002
        if message.message == b"2":
            raise RemoteProtocolError("not this one")
        next(message, now)


def test_sender_learns_the_outcome_when_its_message_was_handed_on() -> None:
    """Not when it is held, as in the reference: option 6 promises that it was processed."""
    stage = Stage(Picky(), OrderInterceptor(expire=100))
    arrivals(stage, 3, 2)
    assert [held.outcome for held in stage.holds_taken] == [None, None]
    assert arrivals(stage, 1) == [b"1", b"3"]
    assert [held.outcome for held in stage.holds_taken] == ["processed", "not this one"]


def test_dropped_message_counts_as_not_processed() -> None:
    """``forward_expired=False`` tells its sender."""
    stage = Stage(OrderInterceptor(expire=100, forward_expired=False))
    arrivals(stage, 2)
    stage.pass_time(1)
    assert [held.outcome for held in stage.holds_taken] == ["given up"]


def test_refused_message_keeps_none_that_waited_for_it() -> None:
    """What is above refuses the one that was due: those behind it come out all the same."""
    stage = Stage(Picky(), OrderInterceptor(expire=100))
    arrivals(stage, 1, 3)
    with pytest.raises(RemoteProtocolError):
        arrivals(stage, 2)
    assert stage.messages == [b"1", b"3"]


def test_refused_message_that_the_timer_released_harms_nobody() -> None:
    """The core goes on, and the rest comes out."""
    stage = Stage(Picky(), OrderInterceptor(expire=100))
    arrivals(stage, 2, 3)
    stage.pass_time(1)
    assert stage.messages == [b"3"]


def test_strangers_are_forgotten_and_members_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is in no view has a count for a while only, so made-up sources cost no memory."""
    monkeypatch.setattr(order_module, "STRANGERS_MAX", 3)
    stage = Stage(OrderInterceptor())
    interceptor = stage.chain.interceptors[0]
    assert isinstance(interceptor, OrderInterceptor)
    stage.add(A)
    arrivals(stage, 1)
    stage.send(b"x", A)
    for number in range(10, 30):
        stage.arrive(numbered(2), stage_member(number))
        stage.send(b"x", stage_member(number))
    assert len(interceptor._sources) == 4
    assert len(interceptor._sent) == 4
    assert arrivals(stage, 2) == [b"2"]
    stage.send(b"y", A)
    assert stage.wire[-1] == numbered(2, b"y")


def test_forgotten_stranger_s_messages_count_as_not_processed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is held of it goes with its count, and its sender learns that instead of waiting."""
    monkeypatch.setattr(order_module, "STRANGERS_MAX", 2)
    stage = Stage(OrderInterceptor())
    for number in range(10, 13):
        stage.arrive(numbered(2), stage_member(number))
    assert [held.outcome for held in stage.holds_taken] == ["given up", None, None]
    assert stage.told("messages out of order dropped") == [
        {"member": stage_member(10).label, "messages": 1}
    ]


def test_made_up_sources_cost_no_memory() -> None:
    """However many send something, the counts that are kept are bounded."""
    stage = Stage(interceptor := OrderInterceptor())
    for number in range(order_module.STRANGERS_MAX + 50):
        stage.arrive(numbered(1), A.replace(port=number))
    assert len(interceptor._sources) == order_module.STRANGERS_MAX


@pytest.mark.parametrize("setting", ["expire", "max_queue", "max_queue_bytes"])
def test_settings_that_cannot_work_are_refused(setting: str) -> None:
    """The error names the setting."""
    with pytest.raises(ConfigError) as error:
        OrderInterceptor(**{setting: 0})  # type: ignore[arg-type]
    assert error.value.key == setting
