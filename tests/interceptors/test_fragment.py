"""Long messages travel in pieces and arrive whole, within bounds."""

from __future__ import annotations

import struct
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.errors import ConfigError, RemoteProtocolError
from tribes.interceptors import FragmentationInterceptor
from tribes.interceptors.fragment import PIECE_OVERHEAD_BYTES
from tribes.testing.stage import Stage, stage_member

if TYPE_CHECKING:
    from random import Random

A, B = stage_member(1), stage_member(2)
ONE, TWO, THREE = (bytes([number]) * 16 for number in (1, 2, 3))


def piece(data: bytes, index: int, count: int, mark: int = 1) -> bytes:
    return data + struct.pack(">iib", index, count, mark)


@given(st.binary(max_size=400), st.integers(1, 60), st.randoms())
def test_any_message_arrives_whole_whatever_the_order_of_its_pieces(
    message: bytes, max_size: int, chance: Random
) -> None:
    """Cutting and putting together are inverse, also with pieces repeated."""
    sender = Stage(FragmentationInterceptor(max_size=max_size))
    sender.send(message)
    numbers = list(range(len(sender.sent)))
    chance.shuffle(numbers)
    receiver = Stage(FragmentationInterceptor())
    assert sender.carry_to(receiver, numbers[:1] + numbers if len(numbers) > 1 else numbers) == [
        message
    ]


def test_pieces_are_the_wholes_in_everything_but_the_message() -> None:
    """Id, time and options are the same; ceil(length / max_size) pieces, none empty."""
    stage = Stage(FragmentationInterceptor(max_size=10))
    stage.send(b"x" * 20, options=3)
    assert len(stage.sent) == 2
    assert len({(s.data.unique_id, s.data.timestamp, s.data.options) for s in stage.sent}) == 1


def test_send_ends_when_every_piece_has() -> None:
    """A destination succeeds with its last piece, and fails with the first that fails."""
    stage = Stage(FragmentationInterceptor(max_size=1))
    stage.holds = True
    ticket = stage.send(b"abc", A, B)
    for sent in stage.sent:
        assert A in ticket.waiting
        sent.ticket.settle(A, None, 0.0)
    assert ticket.waiting == {B}
    why = TimeoutError()
    stage.sent[1].ticket.settle(B, why, 0.0)
    assert ticket.faulty == {B: why}
    assert ticket.is_settled


def test_pieces_of_two_members_with_one_id_are_not_mixed() -> None:
    """The reference collects by id alone; here a set belongs to its source."""
    stage = Stage(FragmentationInterceptor())
    assert stage.arrive(piece(b"a", 0, 2), A, unique_id=ONE) == []
    assert stage.arrive(piece(b"b", 1, 2), B, unique_id=ONE) == []
    assert stage.arrive(piece(b"A", 1, 2), A, unique_id=ONE) == [b"aA"]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x01",
        piece(b"", 0, 2),
        piece(b"x", 2, 2),
        piece(b"x", -1, 2),
        piece(b"x", 0, 0),
        piece(b"x", 0, -1),
        piece(b"x", 0, 2, mark=2),
    ],
)
def test_bytes_that_are_no_piece_are_refused(message: bytes) -> None:
    """Too short, an index out of its count, an unknown mark: nothing of it is kept."""
    stage = Stage(interceptor := FragmentationInterceptor())
    with pytest.raises(RemoteProtocolError):
        stage.arrive(message)
    assert (interceptor.pending, interceptor.pending_bytes) == (0, 0)


def test_pieces_that_disagree_about_their_count_are_refused() -> None:
    """The set is given up: one of them lied."""
    stage = Stage(interceptor := FragmentationInterceptor())
    stage.arrive(piece(b"a", 0, 2), unique_id=ONE)
    with pytest.raises(RemoteProtocolError):
        stage.arrive(piece(b"b", 1, 3), unique_id=ONE)
    assert (interceptor.pending, interceptor.pending_bytes) == (0, 0)


def test_huge_count_costs_nothing() -> None:
    """The reference allocates what a piece claims; here only what arrives is kept."""
    stage = Stage(interceptor := FragmentationInterceptor())
    stage.arrive(piece(b"a", 0, 2**31 - 1))
    assert interceptor.pending_bytes == 1 + PIECE_OVERHEAD_BYTES


def test_piece_that_comes_again_is_counted_once() -> None:
    """Else a member whose network repeats frames would lose messages for want of room."""
    stage = Stage(interceptor := FragmentationInterceptor())
    for _ in range(3):
        stage.arrive(piece(b"a", 0, 2), unique_id=ONE)
    assert interceptor.pending_bytes == 1 + PIECE_OVERHEAD_BYTES


def test_message_above_the_bound_is_refused_while_it_arrives() -> None:
    """Not when it is complete: the memory would be taken by then."""
    interceptor = FragmentationInterceptor(max_size=10, max_message_size=100)
    stage = Stage(interceptor)
    for index in range(10):
        stage.arrive(piece(b"x" * 10, index, 1000), unique_id=ONE)
    with pytest.raises(RemoteProtocolError):
        stage.arrive(piece(b"x" * 10, 10, 1000), unique_id=ONE)
    assert interceptor.pending_bytes == 0


def test_what_is_kept_in_all_is_bounded_and_the_oldest_goes_first() -> None:
    """The newest message always has room; which were given up is told and counted."""
    room = 2 * (10 + PIECE_OVERHEAD_BYTES)
    interceptor = FragmentationInterceptor(max_size=10, max_message_size=20, max_pending_size=room)
    stage = Stage(interceptor)
    for unique_id in (ONE, TWO, THREE):
        stage.arrive(piece(b"x" * 10, 0, 2), unique_id=unique_id)
    assert interceptor.pending_bytes <= room
    assert interceptor.given_up == 1
    assert stage.arrive(piece(b"y", 1, 2), unique_id=THREE) == [b"x" * 10 + b"y"]
    with pytest.raises(RemoteProtocolError, match="given up"):
        # All its pieces would be acknowledged, and its sender take it for delivered.
        stage.arrive(piece(b"y", 1, 2), unique_id=ONE)
    assert stage.told("message in pieces given up")[0]["pieces"] == "1 of 2"


def test_what_is_kept_is_what_is_counted() -> None:
    """Of the first piece of a message too: its bytes are kept once, not beside the frame's."""
    stage = Stage(interceptor := FragmentationInterceptor())
    tracemalloc.start()
    try:
        for number in range(50):
            stage.arrive(piece(bytes(100_000), 0, 2), unique_id=bytes([number]) * 16)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert interceptor.pending == 50
    assert kept < 1.2 * interceptor.pending_bytes


@pytest.mark.parametrize(
    "refused", [piece(b"x" * 10, 2, 1000), piece(b"x", 1, 7)], ids=["too long", "another count"]
)
def test_further_pieces_of_a_message_that_was_refused_are_refused_too(refused: bytes) -> None:
    """They would be collected anew, acknowledged, kept until ``expire`` and then told as lost."""
    interceptor = FragmentationInterceptor(max_size=10, max_message_size=20)
    stage = Stage(interceptor)
    for index in range(2):
        stage.arrive(piece(b"x" * 10, index, 1000), unique_id=ONE)
    with pytest.raises(RemoteProtocolError):
        stage.arrive(refused, unique_id=ONE)
    with pytest.raises(RemoteProtocolError, match="given up"):
        stage.arrive(piece(b"x" * 10, 3, 1000), unique_id=ONE)
    stage.pass_time(100)
    assert (interceptor.pending, interceptor.pending_bytes, interceptor.given_up) == (0, 0, 0)


def test_incomplete_message_expires_by_the_timer() -> None:
    """After ``expire`` from its first piece it is given up, others stay."""
    stage = Stage(interceptor := FragmentationInterceptor(expire=1000))
    stage.arrive(piece(b"a", 0, 2), unique_id=ONE)
    stage.pass_time(0.5)
    stage.arrive(piece(b"a", 0, 2), unique_id=TWO)
    stage.pass_time(0.6)
    assert interceptor.pending == 1
    assert stage.arrive(piece(b"b", 1, 2), unique_id=TWO) == [b"ab"]
    stage.pass_time(5)
    assert interceptor.given_up == 1


def test_longest_message_is_not_bounded_by_the_frame() -> None:
    """A frame holds one piece, so the channel may take messages of ``max_message_size``."""
    interceptor = FragmentationInterceptor(max_size=1000)
    assert interceptor.message_max_bytes(2000) == 64 * 1024 * 1024
    assert FragmentationInterceptor(option_flag=512).message_max_bytes(2**20) == 2**20 - 1
    with pytest.raises(ConfigError) as error:
        interceptor.message_max_bytes(1000)
    assert error.value.key == "max_size"


def test_small_pieces_lower_the_longest_message() -> None:
    """So that a member with the same settings has room for all pieces of one."""
    assert FragmentationInterceptor(max_size=20).max_message_size < 64 * 1024 * 1024


# Random bytes alone hardly ever end like a piece, so nothing would be kept or put together.
PIECES = st.builds(piece, st.binary(max_size=12), st.integers(-1, 4), st.integers(-1, 4))


@given(st.lists(st.tuples(st.integers(1, 6), st.binary(max_size=12) | PIECES), max_size=30))
def test_any_bytes_are_messages_or_refused(frames: list[tuple[int, bytes]]) -> None:
    """Random bytes and pieces never raise anything but RemoteProtocolError, and accounts stay
    right.
    """
    interceptor = FragmentationInterceptor(max_size=10, max_message_size=50, max_pending_size=500)
    stage = Stage(interceptor)
    for number, message in frames:
        try:
            stage.arrive(message, unique_id=bytes([number]) * 16)
        except RemoteProtocolError:
            pass
        assert 0 <= interceptor.pending_bytes <= 500
    stage.pass_time(100)
    assert (interceptor.pending, interceptor.pending_bytes) == (0, 0)


def test_stopping_gives_up_what_is_incomplete() -> None:
    """Nothing is kept of a channel that is gone."""
    stage = Stage(interceptor := FragmentationInterceptor())
    stage.arrive(piece(b"a", 0, 2))
    stage.stop()
    assert interceptor.pending_bytes == 0


@pytest.mark.parametrize(
    "settings",
    [{"max_size": 0}, {"expire": 0}, {"max_message_size": 10}, {"max_pending_size": 100}],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, int]) -> None:
    """The error names the setting."""
    with pytest.raises(ConfigError) as error:
        FragmentationInterceptor(**settings)
    assert error.value.key in settings
