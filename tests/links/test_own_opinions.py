"""Questions about other members travel beside the data, between members that know them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.links.own_pair import RECEIVER, SENDER, Pair, side_of
from tribes.errors import RemoteProtocolError
from tribes.links.base import Need
from tribes.links.own_acks import (
    DOUBT_FRAME,
    decode_ask,
    decode_told,
    encode_ask,
    encode_told,
)
from tribes.links.own_receiver import OPINIONS_WAITING_MAX, OwnReceiver
from tribes.links.own_wire import WITNESSES, Opinion
from tribes.testing.strategies import mutations
from tribes.wire.frame import encode_frame

if TYPE_CHECKING:
    from tribes.wire.member import Member

X = b"X" * 16


class Told:
    """A pair whose receiver may be asked, and everything that it hears."""

    def __init__(self, *, sender: int = WITNESSES, receiver: int = WITNESSES) -> None:
        self.opinions: list[tuple[int, Opinion]] = []
        self.asked: list[tuple[int, bytes]] = []
        self.doubts: list[Member] = []
        self.receivers: list[OwnReceiver] = []
        self.pair = Pair(
            told=lambda number, opinion, now: self.opinions.append((number, opinion)),
            sender_side=side_of(SENDER, features=sender),
            receiver_side=side_of(RECEIVER, features=receiver),
        )
        self.pair.asked = self._asked
        self.pair.doubted = lambda member, now: self.doubts.append(member)
        self.pair.up()

    def _asked(self, receiver: OwnReceiver, number: int, about: bytes, now: float) -> None:
        del now
        self.receivers.append(receiver)
        self.asked.append((number, about))


def test_question_and_answer_pass_the_data_by() -> None:
    """They take no position, and nothing waits for them."""
    told = Told()
    told.pair.put(Need.PROCESSED)
    assert told.pair.sender.ask(7, X, 0.0)
    told.pair.settle_down()
    assert told.asked == [(7, X)]
    assert told.pair.outcomes() == [(1, "ok")]
    told.receivers[0].tell(7, Opinion.ANSWERS)
    told.receivers[0].tell(8, Opinion.SILENT)
    told.pair.flush()
    told.pair.settle_down()
    assert told.opinions == [(7, Opinion.ANSWERS), (8, Opinion.SILENT)]
    assert not told.pair.broken


def test_who_is_told_that_it_is_suspected_answers() -> None:
    """The answer is the refutation; the word is for its own clockwork."""
    told = Told()
    answers = told.pair.sender.last_answer
    told.pair.now = 3.0
    assert told.pair.sender.doubt(3.0)
    told.pair.settle_down()
    assert told.doubts == [SENDER]
    assert answers != told.pair.sender.last_answer == 3.0


@pytest.mark.parametrize(("sender", "receiver"), [(0, WITNESSES), (WITNESSES, 0), (0, 0)])
def test_who_does_not_know_them_is_never_asked(sender: int, receiver: int) -> None:
    """A version without them would close the connection."""
    told = Told(sender=sender, receiver=receiver)
    assert not told.pair.sender.can_witness
    assert not told.pair.sender.ask(1, X, 0.0)
    assert not told.pair.sender.doubt(0.0)
    told.pair.live.up += DOUBT_FRAME
    told.pair.settle_down()
    assert len(told.pair.broken) == 1
    assert told.doubts == []


def test_nobody_is_asked_without_an_open_link() -> None:
    """Nor later, when there is one: by then the question is over."""
    told = Told()
    told.pair.cut(told.pair.live)
    assert not told.pair.sender.ask(1, X, 0.0)
    assert not told.pair.sender.doubt(0.0)
    told.pair.settle_down()
    assert told.pair.sender.can_witness
    assert told.asked == []
    assert told.doubts == []
    stranger = Pair(sender_side=side_of(SENDER, features=WITNESSES))
    assert not stranger.sender.ask(1, X, 0.0)
    assert stranger.attempts == []


def test_opinions_that_wait_are_bounded() -> None:
    """A peer that asks and never reads."""
    told = Told()
    told.pair.sender.ask(0, X, 0.0)
    told.pair.settle_down()
    for number in range(OPINIONS_WAITING_MAX + 10):
        told.receivers[0].tell(number, Opinion.SILENT)
    told.pair.flush()
    told.pair.settle_down()
    assert len(told.opinions) == OPINIONS_WAITING_MAX


@given(st.integers(0, 2**32 - 1), st.binary(min_size=16, max_size=16), st.sampled_from(Opinion))
def test_they_come_back_as_they_were(number: int, about: bytes, opinion: Opinion) -> None:
    """Any number, anybody."""
    assert decode_ask(encode_ask(number, about)) == (number, about)
    assert decode_told(encode_told(number, opinion)) == (number, opinion)


def test_opinion_of_a_later_version_is_none() -> None:
    """It must not keep or remove anybody."""
    body = encode_told(1, Opinion.ANSWERS)[:-1] + b"\x63"
    assert decode_told(body) == (1, Opinion.UNKNOWN)


@given(
    st.one_of(
        st.binary(max_size=40),
        mutations(encode_ask(1, X)),
        mutations(encode_told(1, Opinion.SILENT)),
    )
)
def test_what_is_none_is_refused(data: bytes) -> None:
    """Only as a protocol error; what is taken would be written the same way again, but for an
    opinion of a later version.
    """
    try:
        number, about = decode_ask(data)
    except RemoteProtocolError:
        pass
    else:
        assert encode_ask(number, about) == data
    try:
        number, opinion = decode_told(data)
    except RemoteProtocolError:
        pass
    else:
        assert encode_told(number, opinion)[:-1] == data[:-1]


def test_answer_that_nobody_can_have_asked_for_costs_the_connection() -> None:
    """Without the feature it is one more frame that has no place there."""
    told = Told(sender=0)
    told.pair.live.down += encode_frame(encode_told(1, Opinion.SILENT))
    told.pair.settle_down()
    assert told.opinions == []
    assert told.pair.lost
