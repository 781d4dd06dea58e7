"""Nobody handles a message before every destination has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.channel.chain import Interceptor, SendNext
from tribes.errors import ChannelError, ConfigError, LocalProtocolError
from tribes.interceptors import MessageDispatchInterceptor, TwoPhaseCommitInterceptor
from tribes.interceptors import two_phase as module
from tribes.interceptors.two_phase import CONFIRMATION_END, CONFIRMATION_START
from tribes.testing.stage import Stage, stage_member

if TYPE_CHECKING:
    from tribes.channel.tickets import Outgoing

A, B, C = (stage_member(number) for number in (1, 2, 3))


def make(*others: Interceptor, **settings: Any) -> tuple[Stage, TwoPhaseCommitInterceptor]:
    interceptor = TwoPhaseCommitInterceptor(**settings)
    return Stage(interceptor, *others), interceptor


def test_confirmation_follows_when_all_have_it() -> None:
    """Same destinations, options and time, a new id; the send ends with it."""
    stage, _ = make()
    stage.holds = True
    ticket = stage.send(b"m", A, B, options=7)
    stage.sent[0].ticket.settle(A, None, 0.0)
    assert len(stage.sent) == 1
    stage.sent[0].ticket.settle(B, None, 0.0)
    original, confirmation = (each.data for each in stage.sent)
    assert confirmation.message == CONFIRMATION_START + original.unique_id + CONFIRMATION_END
    assert (confirmation.options, confirmation.timestamp) == (7, original.timestamp)
    assert confirmation.unique_id != original.unique_id
    assert stage.sent[1].destinations == (A, B)
    assert not ticket.is_released
    stage.sent[1].ticket.settle(A, None, 0.0)
    stage.sent[1].ticket.settle(B, None, 0.0)
    assert ticket.is_settled
    assert ticket.faulty == {}


def test_one_failure_confirms_nothing_and_fails_all() -> None:
    """Who has the message will never handle it, so nobody counts as having it."""
    stage, _ = make()
    why = TimeoutError()
    stage.refuse[B] = why
    ticket = stage.send(b"m", A, B)
    assert len(stage.sent) == 1
    assert ticket.faulty[B] is why
    assert isinstance(ticket.faulty[A], ChannelError)


def test_message_is_handed_on_once_when_confirmed() -> None:
    """Before that nobody sees it; a second confirmation, or one of nothing, does nothing."""
    sender, _ = make()
    receiver, interceptor = make()
    sender.send(b"m")
    assert sender.carry_to(receiver, [1]) == []
    assert sender.carry_to(receiver, [0]) == []
    assert interceptor.held == 1
    assert sender.carry_to(receiver, [1]) == [b"m"]
    assert sender.carry_to(receiver, [1]) == []
    assert interceptor.held_bytes == 0


def test_nobody_confirms_for_another() -> None:
    """A confirmation counts from the member only that sent the message."""
    sender, _ = make()
    receiver, _ = make()
    sender.send(b"m")
    original, confirmation = (each.data for each in sender.sent)
    receiver.receive(original)
    receiver.arrive(confirmation.message, C)
    assert receiver.got == []


def test_messages_to_one_member_are_confirmed_in_order() -> None:
    """The second is done first, and waits for the first; one to somebody else does not."""
    stage, _ = make()
    stage.holds = True
    stage.send(b"1", A, B)
    stage.send(b"2", A)
    stage.send(b"3", C)
    stage.sent[1].ticket.settle(A, None, 0.0)
    stage.sent[2].ticket.settle(C, None, 0.0)
    assert [each.destinations for each in stage.sent[3:]] == [(C,)]
    stage.sent[0].ticket.settle(A, None, 0.0)
    stage.sent[0].ticket.settle(B, None, 0.0)
    ids = [each.data.message[16:32] for each in stage.sent[4:]]
    assert ids == [stage.sent[0].data.unique_id, stage.sent[1].data.unique_id]


@given(st.lists(st.sets(st.sampled_from([A, B, C]), min_size=1), max_size=12), st.randoms())
def test_every_member_gets_its_confirmations_in_the_order_sent(
    groups: list[set[Any]], chance: Any
) -> None:
    """Whatever the order in which acknowledgements come, and none is left over."""
    stage, interceptor = make()
    stage.holds = True
    for group in groups:
        stage.send(b"m", *sorted(group, key=lambda member: member.port))
    originals = list(stage.sent)
    acks = [(sent, member) for sent in originals for member in sent.destinations]
    chance.shuffle(acks)
    for sent, member in acks:
        sent.ticket.settle(member, None, 0.0)
    confirmations = stage.sent[len(originals) :]
    assert len(confirmations) == len(originals)
    for member in (A, B, C):
        sent_ids = [s.data.unique_id for s in originals if member in s.destinations]
        confirmed = [s.data.message[16:32] for s in confirmations if member in s.destinations]
        assert confirmed == sent_ids
    assert interceptor._sending == {}


def test_asynchronous_caller_goes_on_when_the_message_is_queued() -> None:
    """With a dispatcher below: released at once, confirmed later."""
    stage, _ = make(MessageDispatchInterceptor())
    stage.holds = True
    ticket = stage.send(b"m", options=9)
    assert ticket.is_released
    assert not ticket.is_settled
    stage.sent[0].ticket.settle(A, None, 0.0)
    stage.sent[1].ticket.settle(A, None, 0.0)
    assert ticket.is_settled


def test_unconfirmed_message_expires() -> None:
    """By the timer, in the order of arrival; it is counted and told."""
    stage, interceptor = make(expire=1000)
    stage.arrive(b"1")
    stage.pass_time(0.5)
    stage.arrive(b"2")
    stage.pass_time(0.6)
    assert interceptor.held == 1
    stage.pass_time(1)
    assert (interceptor.held, interceptor.held_bytes, interceptor.dropped) == (0, 0, 2)
    assert stage.got == []
    assert len(stage.told("message not confirmed")) == 2


def test_what_is_held_is_bounded() -> None:
    """The oldest goes; the newest is kept whatever its size."""
    room = 2 * (10 + module.MESSAGE_OVERHEAD_BYTES)
    stage, interceptor = make(max_held_size=room)
    for _ in range(5):
        stage.arrive(bytes(10))
    assert interceptor.held == 2
    assert interceptor.dropped == 3
    stage.arrive(bytes(room))
    assert interceptor.held == 1


def test_same_message_again_takes_the_place_of_the_first() -> None:
    """A repeated frame must not be counted twice."""
    stage, interceptor = make()
    for _ in range(3):
        stage.arrive(b"m", unique_id=bytes(16))
    assert (interceptor.held, interceptor.held_bytes) == (1, 1 + module.MESSAGE_OVERHEAD_BYTES)


def test_option_flag_chooses_messages() -> None:
    """Others pass at once, in both directions."""
    stage, _ = make(option_flag=512)
    stage.send(b"m", options=1)
    assert stage.wire == [b"m"]
    assert stage.arrive(b"m", options=1) == [b"m"]
    assert stage.arrive(b"m", options=513) == []


class Broken(Interceptor):
    """Cannot send at all."""

    def send(self, message: Outgoing, now: float, next: SendNext) -> None:  # noqa: A002
        raise LocalProtocolError("too long")


def test_failure_below_leaves_nothing_behind() -> None:
    """What cannot be sent fails, and the next message does not wait for it."""
    stage, interceptor = make(Broken())
    with pytest.raises(LocalProtocolError):
        stage.send(b"m")
    assert interceptor._sending == {}


def test_stopping_drops_what_is_held() -> None:
    """Nothing is kept of a channel that is gone."""
    stage, interceptor = make()
    stage.arrive(b"m")
    stage.stop()
    assert interceptor.held_bytes == 0


@pytest.mark.parametrize("setting", ["expire", "max_held_size"])
def test_settings_that_cannot_work_are_refused(setting: str) -> None:
    """The error names the setting."""
    with pytest.raises(ConfigError) as error:
        TwoPhaseCommitInterceptor(**{setting: 0})
    assert error.value.key == setting
