"""What the checks of the channel see: each broken history, and no good one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sim.histories import Fill, facts_of, healthy, judge, name_of, say

if TYPE_CHECKING:
    from tribes.testing.history import History


def not_processed(history: History) -> None:
    say(history, 6)


def processed_late(history: History) -> None:
    say(history, 6)
    history.deliver("a#1", 1, "b#1", 10.9)


def not_received(history: History) -> None:
    history.fault(9, "resume", "c#1")
    say(history, 2)


def failure_not_told(history: History) -> None:
    say(history, 6, failing=("b",))
    history.deliver("a#1", 1, "b#1", 10.2, failed=True)


def failure_invented(history: History) -> None:
    say(history, 6)
    history.sends[0].faulty = {"b#1": "RemoteProcessError"}
    history.deliver("a#1", 1, "b#1", 10.2)


def failure_told_to_nobody(history: History) -> None:
    say(history, 2)
    history.sends[0].faulty = {"b#1": "RemoteProcessError"}
    history.deliver("a#1", 1, "b#1", 10.2, failed=True)


def faulty_for_nothing(history: History) -> None:
    say(history, 2)
    history.sends[0].faulty = {"b#1": "SendTimeoutError"}


def lost_message(history: History) -> None:
    say(history, 8)


def reset_not_retried(history: History) -> None:
    history.fault(10.1, "reset", "a#1", "b#1")
    say(history, 2)
    history.sends[0].faulty = {"b#1": "MemberUnreachableError"}


def lost_silently(history: History) -> None:
    history.fault(9, "partition")
    say(history, 10)


def late_failure_not_told(history: History) -> None:
    say(history, 14, failing=("b",))
    history.deliver("a#1", 1, "b#1", 10.2, failed=True)


def late_failure_invented(history: History) -> None:
    say(history, 14)
    history.sends[0].late = {"b#1": "RemoteProcessError"}
    history.deliver("a#1", 1, "b#1", 10.2)


def late_failure_told_to_nobody(history: History) -> None:
    say(history, 10, failing=("b",))
    history.sends[0].late = {"b#1": "RemoteProcessError"}
    history.deliver("a#1", 1, "b#1", 10.2, failed=True)


def blocked_send(history: History) -> None:
    say(history, 6, end=None)


def twice(history: History) -> None:
    say(history, 0)
    history.deliver("a#1", 1, "b#1", 10.2)
    history.deliver("a#1", 1, "b#1", 10.3)


def swapped(history: History) -> None:
    say(history, 0)
    say(history, 0)
    history.deliver("a#1", 2, "b#1", 10.2)
    history.deliver("a#1", 1, "b#1", 10.3)


def to_another(history: History) -> None:
    say(history, 0)
    history.deliver("a#1", 1, "b#1", 10.2)
    history.deliver("a#1", 1, "c#1", 10.2)


def never_sent(history: History) -> None:
    history.deliver("a#1", 9, "b#1", 10.2)


SENDS = [
    (not_processed, "acknowledged", ("send 0", "b#1")),
    (processed_late, "acknowledged", ("send 0", "b#1")),
    (not_received, "acknowledged", ("send 0", "b#1")),
    (failure_not_told, "faulty list", ("send 0", "b#1")),
    (failure_invented, "faulty list", ("send 0", "b#1")),
    (failure_told_to_nobody, "faulty list", ("send 0", "b#1")),
    (faulty_for_nothing, "faulty without cause", ("send 0", "b#1")),
    (reset_not_retried, "faulty without cause", ("send 0", "b#1")),
    (lost_message, "lost in calm", ("send 0", "b#1")),
    (lost_silently, "lost silently", ("send 0", "b#1")),
    (late_failure_not_told, "faulty list", ("send 0", "b#1")),
    (late_failure_invented, "faulty list", ("send 0", "b#1")),
    (late_failure_told_to_nobody, "faulty list", ("send 0", "b#1")),
    (blocked_send, "late send", ("send 0",)),
    (twice, "no duplicate", ("send 0", "b#1")),
    (swapped, "order", ("send 0", "send 1", "b#1")),
    (to_another, "nothing invented", ("message 1 of a#1", "c#1")),
    (never_sent, "nothing invented", ("message 9 of a#1", "b#1")),
]


@pytest.mark.parametrize(("fill", "invariant", "witness"), SENDS, ids=name_of)
def test_what_the_channel_must_not_do(fill: Fill, invariant: str, witness: tuple[str, ...]) -> None:
    """One violation each, with the message that shows it."""
    history = healthy()
    fill(history)
    assert facts_of(judge(history)) == [(invariant, witness)]


@pytest.mark.parametrize("option", [0, 2, 6, 8, 10, 14])
def test_good_messages_are_good(option: int) -> None:
    """Delivered in order, the failed one named where the option says so."""
    history = healthy()
    say(history, option)
    say(history, option, failing=("b",))
    history.deliver("a#1", 1, "b#1", 10.2)
    history.deliver("a#1", 2, "b#1", 10.3, failed=True)
    if option == 6:
        history.sends[1].faulty = {"b#1": "RemoteProcessError"}
    elif option == 14:
        history.sends[1].late = {"b#1": "RemoteProcessError"}
    assert judge(history) == []


@pytest.mark.parametrize("option", [0, 8])
def test_a_fault_may_cost_unacknowledged_messages(option: int) -> None:
    """Nothing beyond the queue was promised."""
    history = healthy()
    say(history, option)
    history.fault(10.1, "crash", "b#1")
    assert judge(history) == []


@pytest.mark.parametrize("kinds", [("reset", "reset"), ("reset", "crash"), ("partition",)])
def test_more_than_one_reset_excuses_a_failed_send(kinds: tuple[str, ...]) -> None:
    """A message is sent again once, and only to a member that is there."""
    history = healthy()
    for kind in kinds:
        history.fault(10.1, kind, "b#1")
    say(history, 2)
    history.sends[0].faulty = {"b#1": "MemberUnreachableError"}
    assert judge(history) == []


def test_an_asynchronous_failure_that_was_told_is_none() -> None:
    """It did not arrive, and its sender knows."""
    history = healthy()
    history.fault(9, "partition")
    say(history, 10)
    history.sends[0].late = {"b#1": "SendTimeoutError"}
    assert judge(history) == []
