"""Asynchronous sends: callers go on at once, order stays, and the queue is bounded."""

from __future__ import annotations

from math import inf
from traceback import walk_stack
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from tribes.channel.tickets import Outgoing, Ticket
from tribes.errors import MemberUnreachableError, QueueFullError, SendTimeoutError
from tribes.interceptors import MessageDispatch15Interceptor, MessageDispatchInterceptor
from tribes.interceptors.dispatch import MESSAGE_OVERHEAD_BYTES
from tribes.timers import Timers
from tribes.wire.data import ChannelData
from tribes.wire.member import Member

if TYPE_CHECKING:
    import pytest

    from tribes.channel.chain import ChainContext, SendNext

MEMBERS = tuple(
    Member(host=b"\x7f\x00\x00\x01", port=4000 + i, unique_id=bytes([i]) * 16) for i in (1, 2)
)


class Dispatch:
    """A dispatcher above a wire that completes messages when told to."""

    def __init__(self, **settings: Any) -> None:
        self.timers = Timers()
        self.below: list[Outgoing] = []
        self.released: list[str] = []
        self.settled: list[tuple[str, dict[Member, Exception]]] = []
        self.it = MessageDispatchInterceptor(**settings)
        self.it.attach(cast("ChainContext", SimpleNamespace(timers=self.timers)))

    def send(
        self,
        name: str,
        *,
        options: int = 9,
        size: int = 10,
        now: float = 0.0,
        following: SendNext | None = None,
    ) -> None:
        ticket = Ticket(
            MEMBERS,
            released=lambda faulty, now: self.released.append(name),
            settled=lambda faulty, now: self.settled.append((name, faulty)),
        )
        message = name.encode().ljust(size, b".")
        data = ChannelData(options, 0, bytes(16), MEMBERS[0], message)
        outgoing = Outgoing(data, MEMBERS, ticket)
        self.it.send(outgoing, now, following or (lambda m, now: self.below.append(m)))

    def complete(self, index: int, error: Exception | None = None) -> None:
        self.below[index].ticket.settle(MEMBERS[0], error, 1.0)
        self.below[index].ticket.settle(MEMBERS[1], None, 1.0)

    def names(self) -> list[str]:
        return [m.data.message.rstrip(b".").decode() for m in self.below]


def test_caller_goes_on_before_any_member_has_the_message() -> None:
    """Released at once; settled when the last member is done."""
    dispatch = Dispatch()
    dispatch.send("a")
    assert dispatch.released == ["a"]
    assert dispatch.settled == []
    assert dispatch.it.queued_bytes == 10 + MESSAGE_OVERHEAD_BYTES
    dispatch.complete(0)
    assert dispatch.settled == [("a", {})]
    assert dispatch.it.queued_bytes == 0


def test_other_messages_pass_through_untouched() -> None:
    """Without the flag neither release nor queue accounting happens here."""
    dispatch = Dispatch()
    dispatch.send("a", options=3)
    assert dispatch.released == []
    assert dispatch.it.queued_bytes == 0
    assert dispatch.names() == ["a"]


def test_failures_after_release_reach_the_settled_outcome() -> None:
    """The faulty member is named when all is known."""
    dispatch = Dispatch()
    dispatch.send("a")
    error = SendTimeoutError("late")
    dispatch.complete(0, error)
    assert dispatch.settled == [("a", {MEMBERS[0]: error})]


def test_full_queue_makes_callers_wait_in_order() -> None:
    """Who finds no room is released when there is some, first come first served."""
    dispatch = Dispatch(max_queue_size=2 * (10 + MESSAGE_OVERHEAD_BYTES))
    for name in "abcd":
        dispatch.send(name)
    assert dispatch.released == ["a", "b"]
    assert dispatch.names() == ["a", "b"]
    dispatch.complete(0)
    assert dispatch.released == ["a", "b", "c"]
    dispatch.complete(1)
    assert dispatch.names() == ["a", "b", "c", "d"]


def test_waiting_for_room_ends_with_an_error() -> None:
    """After ``queue_timeout`` the send fails for every destination, and room stays as it was."""
    dispatch = Dispatch(max_queue_size=10, queue_timeout=500)
    dispatch.send("a")
    dispatch.send("b")
    dispatch.timers.run_due(0.49)
    assert dispatch.released == ["a"]
    dispatch.timers.run_due(0.5)
    name, faulty = dispatch.settled[0]
    assert name == "b"
    assert {type(error) for error in faulty.values()} == {QueueFullError}
    assert dispatch.it.rejected == 1
    dispatch.complete(0)
    assert dispatch.names() == ["a"]


def test_message_larger_than_the_queue_passes_when_alone() -> None:
    """It could never find room otherwise."""
    dispatch = Dispatch(max_queue_size=10)
    dispatch.send("huge", size=100)
    assert dispatch.released == ["huge"]


def test_stopping_fails_what_waits_for_room() -> None:
    """Nobody waits for a channel that is gone."""
    dispatch = Dispatch(max_queue_size=10)
    dispatch.send("a")
    dispatch.send("b")
    dispatch.it.stop(1.0)
    assert [name for name, _ in dispatch.settled] == ["b"]


def test_those_behind_one_that_found_no_room_go_on_without_it() -> None:
    """There may be room for them, and nothing else would let them through."""
    dispatch = Dispatch(max_queue_size=2 * (10 + MESSAGE_OVERHEAD_BYTES), queue_timeout=500)
    dispatch.send("a")
    dispatch.send("huge", size=2 * MESSAGE_OVERHEAD_BYTES)
    dispatch.send("b", now=0.1)
    assert dispatch.names() == ["a"]
    dispatch.timers.run_due(0.5)
    assert dispatch.names() == ["a", "b"]
    assert [name for name, _ in dispatch.settled] == ["huge"]


def test_failure_below_is_that_of_the_message_that_waited() -> None:
    """Not of the one whose end made room for it."""

    def fail(message: Outgoing, now: float) -> None:
        raise ZeroDivisionError

    dispatch = Dispatch(max_queue_size=10)
    dispatch.send("a")
    dispatch.send("b", following=fail)
    dispatch.complete(0)
    assert dispatch.settled[0] == ("a", {})
    name, faulty = dispatch.settled[1]
    assert name == "b"
    assert {type(error) for error in faulty.values()} == {ZeroDivisionError}
    assert dispatch.it.queued_bytes == 0


def test_how_many_may_wait_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a caller that waits, or a message that is kept; one more fails at once."""
    monkeypatch.setattr("tribes.interceptors.dispatch.WAITING_MAX", 2)
    dispatch = Dispatch(max_queue_size=10)
    for name in "abcd":
        dispatch.send(name)
    assert [name for name, _ in dispatch.settled] == ["d"]
    assert {type(error) for error in dispatch.settled[0][1].values()} == {QueueFullError}
    assert (dispatch.it.waiting, dispatch.it.waited, dispatch.it.rejected) == (2, 2, 1)


def test_old_name_is_the_same_interceptor() -> None:
    """Configurations for older Tomcats find it under the name with 15."""
    assert MessageDispatch15Interceptor is MessageDispatchInterceptor


def test_synchronous_message_does_not_overtake_those_that_wait_for_room() -> None:
    """It waits behind them and is not released before its time."""
    dispatch = Dispatch(max_queue_size=10 + MESSAGE_OVERHEAD_BYTES)
    dispatch.send("a")
    dispatch.send("b")
    dispatch.send("c", options=7)
    assert dispatch.names() == ["a"]
    dispatch.complete(0)
    assert dispatch.names() == ["a", "b", "c"]
    assert dispatch.released == ["a", "b"]


def test_message_that_found_room_is_not_kept_for_the_rest_of_its_time() -> None:
    """Its timer goes with it, and with the timer the message: else a busy queue would hold the
    bytes of ``queue_timeout`` that nobody counts.
    """
    dispatch = Dispatch(max_queue_size=10, queue_timeout=3000)
    dispatch.send("a")
    dispatch.send("b")
    dispatch.complete(0)
    assert dispatch.names() == ["a", "b"]
    assert dispatch.timers.next_deadline == inf


def test_stopping_leaves_no_timer() -> None:
    """What waited has failed, and is kept by nothing."""
    dispatch = Dispatch(max_queue_size=10)
    dispatch.send("a")
    dispatch.send("b")
    dispatch.it.stop(1.0)
    assert dispatch.timers.next_deadline == inf


def test_all_that_waited_for_a_member_that_is_gone_fail_with_what_is_wrong() -> None:
    """Each that is let through fails at once and makes room for the next one, in a loop: one inside
    the other, thousands would be too deep for the stack.
    """
    depths = set()

    def fail(message: Outgoing, now: float) -> None:
        depths.add(sum(1 for _ in walk_stack(None)))
        message.ticket.fail(gone, now)

    dispatch = Dispatch(max_queue_size=10)
    dispatch.send("first")
    gone = MemberUnreachableError("gone")
    for number in range(300):
        dispatch.send(str(number), following=fail)
    dispatch.complete(0)
    assert [name for name, _ in dispatch.settled] == ["first", *map(str, range(300))]
    assert {error for _, faulty in dispatch.settled for error in faulty.values()} == {gone}
    assert max(depths) - min(depths) < 10
    assert (dispatch.it.waiting, dispatch.it.queued_bytes) == (0, 0)
