"""Tickets: released once, settled once, with exactly the members that failed."""

from __future__ import annotations

from tribes.channel.tickets import Ticket
from tribes.wire.member import Member

ONE, TWO = (
    Member(host=b"\x7f\x00\x00\x01", port=4000 + i, unique_id=bytes([i]) * 16) for i in (1, 2)
)


def test_caller_is_released_when_the_last_destination_is_settled() -> None:
    """Not before, and with the faulty ones known."""
    told: list[tuple[str, dict[Member, Exception]]] = []
    ticket = Ticket(
        (ONE, TWO),
        released=lambda faulty, now: told.append(("released", dict(faulty))),
        settled=lambda faulty, now: told.append(("settled", dict(faulty))),
    )
    error = RuntimeError("no")
    ticket.settle(ONE, error, 1.0)
    assert told == []
    assert ticket.waiting == {TWO}
    ticket.settle(TWO, None, 2.0)
    assert told == [("released", {ONE: error}), ("settled", {ONE: error})]
    assert ticket.is_settled


def test_early_release_happens_once() -> None:
    """An asynchronous send's caller goes on first; the outcome follows."""
    told: list[str] = []
    ticket = Ticket(
        (ONE,),
        released=lambda faulty, now: told.append("released"),
        settled=lambda faulty, now: told.append("settled"),
    )
    ticket.release(0.0)
    ticket.release(0.0)
    assert told == ["released"]
    ticket.settle(ONE, None, 1.0)
    ticket.settle(ONE, RuntimeError("again"), 1.0)
    assert told == ["released", "settled"]
    assert ticket.faulty == {}


def test_failing_a_ticket_fails_who_has_not_answered() -> None:
    """Members that had answered keep their outcome."""
    ticket = Ticket((ONE, TWO))
    ticket.settle(ONE, None, 0.0)
    error = RuntimeError("stopped")
    ticket.fail(error, 1.0)
    assert ticket.faulty == {TWO: error}
