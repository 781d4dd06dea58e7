"""What becomes of a worker's questions when connections break; time is the test's."""

from __future__ import annotations

from math import inf

import pytest

from tribes.errors import SessionUnreachableError
from tribes.manager import attach_calls
from tribes.manager.attach_calls import Calls, Ended
from tribes.manager.attach_wire import COMMIT, FIND, FOUND, Message, encode

COMMIT_ONE = ("app", "AB12", 5, b"delta", 0, True)
AGAIN = ("app", "AB12", None, b"whole", 1, True)
FIND_ONE = ("app", "AB12", 0, 0)


class Asked:
    """One question, and how it ended."""

    def __init__(self, calls: Calls, kind: int = FIND, deadline: float = 10.0) -> None:
        self.ended: list[Ended] = []
        self.sent = calls.begin(
            kind,
            FIND_ONE if kind == FIND else COMMIT_ONE,
            deadline=deadline,
            done=self.ended.append,
            again=AGAIN if kind == COMMIT else None,
        )


@pytest.fixture
def calls() -> Calls:
    made = Calls("the node")
    made.connected()
    return made


def perform(*groups: object) -> None:
    for calls in groups:
        assert isinstance(calls, list)
        for call in calls:
            call()


def test_answer_ends_its_question_once(calls: Calls) -> None:
    """A second one, or one to nobody, is not looked at."""
    asked = Asked(calls)
    answer = Message(FOUND, 1, (0, "", b""))
    perform(calls.received(answer), calls.received(answer), calls.received(Message(FOUND, 9, ())))
    assert asked.ended == [Ended(answer)]
    assert asked.sent == encode(FIND, 1, *FIND_ONE)


def test_question_before_the_first_connection_waits_for_it() -> None:
    """While nobody knows whether the node is there."""
    calls = Calls("the node")
    asked = Asked(calls)
    assert asked.sent == b""
    assert calls.connected() == [encode(FIND, 1, *FIND_ONE)]
    assert calls.resent == 0


def test_commit_that_was_sent_is_sent_again_and_as_a_merge(calls: Calls) -> None:
    """With the same number; one that waited for its first connection is sent as it is."""
    first = Asked(calls, COMMIT)
    perform(calls.disconnected("it broke", is_gone=False))
    second = Asked(calls, COMMIT)
    assert calls.connected() == [encode(COMMIT, 1, *AGAIN), encode(COMMIT, 2, *COMMIT_ONE)]
    perform(calls.disconnected("it broke", is_gone=False))
    assert calls.connected() == [encode(COMMIT, 1, *AGAIN), encode(COMMIT, 2, *AGAIN)]
    assert calls.resent == 3
    assert first.ended == second.ended == []


def test_other_questions_end_with_their_connection(calls: Calls) -> None:
    """At once, so that requests are answered and can be tried elsewhere."""
    asked = Asked(calls)
    perform(calls.disconnected("it broke", is_gone=False))
    assert asked.ended == [Ended(None, "the node: it broke")]


def test_nothing_new_is_begun_while_the_node_is_known_to_be_gone(calls: Calls) -> None:
    """Requests are refused at once; the next connection ends that."""
    perform(calls.disconnected("nobody serves it", is_gone=True))
    with pytest.raises(SessionUnreachableError, match="the node: nobody serves it"):
        Asked(calls)
    assert calls.connected() == []
    assert Asked(calls).sent


def test_commit_that_never_left_ends_when_the_node_is_found_to_be_gone() -> None:
    """And its outcome is known: nobody has it."""
    calls = Calls("the node")
    asked = Asked(calls, COMMIT)
    perform(calls.disconnected("nobody serves it", is_gone=True))
    assert asked.ended == [Ended(None, "the node: nobody serves it", is_unknown=False)]


def test_outcome_of_a_commit_is_unknown_when_its_time_is_over(calls: Calls) -> None:
    """Whether the connection is there or not; that of a question is of no interest."""
    commit, asked = Asked(calls, COMMIT, deadline=3.0), Asked(calls, deadline=2.0)
    assert calls.next_deadline == 2.0
    perform(calls.tick(2.0))
    assert asked.ended == [Ended(None, "the node: no answer in time")]
    perform(calls.disconnected("nobody serves it", is_gone=True), calls.tick(2.9))
    assert not commit.ended
    perform(calls.tick(3.0))
    assert commit.ended == [Ended(None, "the node: nobody serves it", is_unknown=True)]
    assert calls.unknown == 1
    assert calls.next_deadline == inf


def test_end_of_the_process_ends_all(calls: Calls) -> None:
    """Nobody waits for an answer that cannot come."""
    commit, asked = Asked(calls, COMMIT), Asked(calls)
    perform(calls.close("this process ends"))
    assert commit.ended == [Ended(None, "the node: this process ends", is_unknown=True)]
    assert asked.ended == [Ended(None, "the node: this process ends")]
    with pytest.raises(SessionUnreachableError):
        Asked(calls)


def test_open_questions_are_bounded(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    """In number and in bytes; one that ends makes room."""
    monkeypatch.setattr(attach_calls, "CALLS_MAX", 2)
    Asked(calls)
    Asked(calls)
    with pytest.raises(SessionUnreachableError, match="does not keep up, 2 questions"):
        Asked(calls)
    perform(calls.received(Message(FOUND, 1, (0, "", b""))))
    Asked(calls)
    monkeypatch.setattr(attach_calls, "CALLS_MAX", 100)
    monkeypatch.setattr(attach_calls, "OPEN_MAX_BYTES", 3 * len(Asked(calls).sent) + 1)
    with pytest.raises(SessionUnreachableError, match="does not keep up, 3 questions"):
        Asked(calls)
    perform(calls.received(Message(FOUND, 2, (0, "", b""))))
    Asked(calls)
