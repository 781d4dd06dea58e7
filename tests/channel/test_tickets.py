"""One message in several parts has one outcome."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tribes.channel.tickets import Ticket, divide
from tribes.testing.stage import stage_member

MEMBERS = tuple(stage_member(number) for number in (1, 2, 3))
A, B, C = MEMBERS


def test_caller_goes_on_when_every_part_lets_it() -> None:
    """One part that is queued is not the message queued."""
    released: list[float] = []
    ticket = Ticket(MEMBERS[:2], released=lambda faulty, now: released.append(now))
    first, second = divide(ticket, [(A, B), (A, B)])
    first.release(1.0)
    assert released == []
    second.release(2.0)
    assert released == [2.0]
    assert not ticket.is_settled


def test_failure_of_a_part_fails_the_destination_at_once() -> None:
    """And no other one, and the first failure is the one that is told."""
    ticket = Ticket(MEMBERS)
    parts = divide(ticket, [MEMBERS, MEMBERS])
    why = OSError()
    parts[1].settle(B, why, 0.0)
    assert ticket.faulty == {B: why}
    assert ticket.waiting == {A, C}
    parts[0].settle(B, TimeoutError(), 0.0)
    assert ticket.faulty == {B: why}


@given(
    st.lists(st.sets(st.sampled_from(MEMBERS), min_size=1), min_size=1, max_size=5),
    st.randoms(),
    st.integers(0, 3),
)
def test_outcome_is_exact(parts: list[set[Any]], chance: Any, failures: int) -> None:
    """Whatever the parts and the order of their answers: settled once, with exactly those faulty
    of which a part failed.
    """
    everybody = set().union(*parts)
    settled: list[dict[Any, Exception]] = []
    ticket = Ticket(everybody, settled=lambda faulty, now: settled.append(dict(faulty)))
    answers = [
        (part, member)
        for part, members in zip(divide(ticket, parts), parts, strict=True)
        for member in members
    ]
    chance.shuffle(answers)
    bad = answers[:failures]
    chance.shuffle(answers)
    for part, member in answers:
        part.settle(member, OSError() if (part, member) in bad else None, 0.0)
    assert [set(faulty) for faulty in settled] == [{member for _, member in bad}]
