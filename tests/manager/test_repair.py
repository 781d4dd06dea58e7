"""What a member is owed: step by step, bounded, and paid when it can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tribes.config.model import ChannelConfig
from tribes.errors import (
    MemberBehindError,
    MemberSuspectedError,
    RemoteProcessError,
    SendTimeoutError,
)
from tribes.manager.messages import Records, decode_message
from tribes.manager.repair import DebtState, Repair
from tribes.testing.manager_strategies import make_manager
from tribes.timers import Timers
from tribes.wire.member import Member

PEER = Member(host=b"\x7f\x00\x00\x01", port=4001, unique_id=b"p" * 16)
COMPARISON = "everything is compared"
FULL = MemberBehindError("full")


class Channel:
    """Notes what is posted; the test says what became of it."""

    message_max_bytes = 1 << 20
    config = ChannelConfig()

    def __init__(self) -> None:
        self.timers = Timers()
        self.suspected: frozenset[Member] = frozenset()
        self.events: list[Any] = []
        self.posts: list[tuple[Any, Callable[[dict[Member, Exception], float], None]]] = []
        self.answers: list[Exception | None] = []

    def event(self, event: Any) -> None:
        self.events.append(event.name)

    def post(
        self, to: tuple[Member, ...], payload: bytes, options: int, now: float, *, settled: Any
    ) -> None:
        assert (to, options) == ((PEER,), 6)
        self.posts.append((decode_message(payload), settled))
        if self.answers:
            self.answer(self.answers.pop(0), now)

    def compare(self, member: Member, now: float, ended: Any) -> None:
        assert member == PEER
        self.posts.append((COMPARISON, lambda faulty, then: ended(faulty.get(PEER), then)))

    def answer(self, why: Exception | None, now: float) -> None:
        self.posts[-1][1]({} if why is None else {PEER: why}, now)


class Debts:
    """A repair with one member, and the sessions ``s0`` to ``s9``."""

    def __init__(self, dirty_max: int = 5) -> None:
        self.channel = Channel()
        self.manager = make_manager()
        self.keys = []
        for number in range(10):
            session = self.manager.create()
            session["n"] = number
            self.manager.commit(session)
            self.keys.append(session.key)
        self.repair = Repair(
            self.manager,
            self.channel,  # type: ignore[arg-type]
            dirty_max=dirty_max,
            compare=self.channel.compare,
        )
        self.repair.peer_up(PEER)

    def at(self, now: float) -> list[Any]:
        """Let time pass; return what was posted."""
        before = len(self.channel.posts)
        self.channel.timers.run_due(now)
        return [message for message, _ in self.channel.posts[before:]]

    def suspect(self, is_suspected: bool) -> None:
        self.channel.suspected = frozenset({PEER} if is_suspected else ())

    @property
    def state(self) -> DebtState:
        return self.repair.state(PEER)


def sent(messages: list[Any]) -> list[str]:
    assert all(isinstance(message, Records) for message in messages)
    return [key for message in messages for key, _ in message.pairs]


def test_lost_change_is_sent_as_a_record_and_holds_nothing_off() -> None:
    """After half a second, once however often it was lost; the next changes go as ever."""
    debts = Debts()
    for _ in range(3):
        debts.repair.mark(PEER, debts.keys[:2], 0.0, SendTimeoutError("late"))
    assert not debts.repair.held_off()
    assert debts.at(0.49) == []
    assert sent(debts.at(0.5)) == debts.keys[:2]
    debts.channel.answer(None, 0.6)
    assert debts.repair.is_quiet
    assert debts.state == DebtState(0, False, False, 0, 0, 2)


def test_member_whose_queue_was_full_is_held_off_until_there_is_room() -> None:
    """Changes only mark keys meanwhile; then the newest state goes, and changes directly again."""
    debts = Debts()
    debts.repair.mark(PEER, debts.keys[:1], 0.0, FULL)
    assert PEER in debts.repair.held_off()
    assert isinstance(debts.repair.why_held_off(PEER), MemberBehindError)
    debts.repair.mark(PEER, debts.keys[:3], 1.0)
    assert debts.at(100.0) == []
    assert debts.state == DebtState(3, False, True, 1, 0, 0)
    assert not debts.repair.is_quiet
    debts.repair.go_on(PEER, 100.0)
    assert sent(debts.at(100.0)) == debts.keys[:3]
    assert not debts.repair.held_off(), "what follows stands behind these records"
    debts.channel.answer(None, 100.1)
    assert debts.repair.is_quiet
    assert debts.channel.events == ["member behind"]


def test_payment_that_finds_no_room_waits_for_it() -> None:
    """Without a timer: the channel says when."""
    debts = Debts()
    debts.repair.mark(PEER, debts.keys[:1], 0.0, FULL)
    debts.repair.go_on(PEER, 1.0)
    debts.channel.answers.append(FULL)
    debts.at(1.0)
    assert debts.at(1000.0) == []
    assert PEER in debts.repair.held_off()
    debts.repair.go_on(PEER, 1000.0)
    debts.channel.answers.append(None)
    assert sent(debts.at(1000.0)) == debts.keys[:1]
    assert debts.repair.is_quiet


def test_beyond_the_bound_nothing_is_remembered_per_session() -> None:
    """Everything is compared instead, when there is room; changes follow the digests directly."""
    debts = Debts(dirty_max=5)
    debts.repair.mark(PEER, debts.keys[:5], 0.0, FULL)
    assert debts.state.dirty == 5
    debts.repair.mark(PEER, debts.keys[5:6], 0.0)
    debts.repair.mark(PEER, debts.keys[6:], 0.0)
    assert debts.state == DebtState(0, True, True, 1, 1, 0)
    assert "too many" in str(debts.repair.why_held_off(PEER))
    debts.repair.go_on(PEER, 1.0)
    [digests] = debts.at(1.0)
    assert digests == COMPARISON
    assert not debts.repair.held_off()
    debts.channel.answer(None, 1.1)
    assert debts.repair.is_quiet


def test_what_is_missed_while_digests_are_on_their_way_is_not_forgotten() -> None:
    """They do not cover it: its keys are kept, and if they are too many all is compared again."""
    for missed in (2, 6):
        debts = Debts(dirty_max=5)
        debts.repair.compare(PEER, 0.0)
        assert len(debts.at(0.5)) == 1
        debts.repair.mark(PEER, debts.keys[:missed], 0.6)
        debts.channel.answer(None, 0.7)
        [then] = debts.at(0.7)
        assert isinstance(then, Records) if missed == 2 else then == COMPARISON
        debts.channel.answer(None, 0.8)
        assert debts.repair.is_quiet


def test_comparison_that_fails_is_repeated_and_replaces_the_keys() -> None:
    """Also when the member was found full, then as soon as there is room."""
    for why in (SendTimeoutError("late"), FULL):
        debts = Debts()
        debts.repair.compare(PEER, 0.0)
        debts.at(0.5)
        debts.repair.mark(PEER, debts.keys[:2], 0.6)
        debts.channel.answer(why, 3.5)
        assert debts.state.needs_sync
        assert debts.state.dirty == 0
        if why is FULL:
            assert debts.at(4.5) == []
            debts.repair.go_on(PEER, 4.5)
        [again] = debts.at(4.5)
        assert again == COMPARISON


def test_suspected_member_is_paid_when_it_answers() -> None:
    """The same debt, and another sign that it can be paid."""
    debts = Debts()
    debts.suspect(True)
    debts.repair.mark(PEER, debts.keys[:2], 0.0)
    assert debts.at(100.0) == []
    assert isinstance(debts.repair.why_held_off(PEER), MemberSuspectedError)
    debts.suspect(False)
    debts.repair.go_on(PEER, 100.0)
    assert sent(debts.at(100.0)) == debts.keys[:2]


def test_room_at_a_suspected_member_pays_nothing_and_loses_nothing() -> None:
    """It was behind, and is suspected too: paid once it answers."""
    debts = Debts()
    debts.repair.mark(PEER, debts.keys[:1], 0.0, FULL)
    debts.suspect(True)
    debts.repair.go_on(PEER, 1.0)
    assert debts.at(1.0) == []
    debts.suspect(False)
    debts.repair.go_on(PEER, 2.0)
    assert sent(debts.at(2.0)) == debts.keys[:1]


def test_record_that_is_refused_is_not_sent_again() -> None:
    """It would be refused again; the digests know of it."""
    debts = Debts()
    debts.repair.mark(PEER, debts.keys[:1], 0.0, SendTimeoutError("late"))
    debts.at(0.5)
    debts.channel.answer(RemoteProcessError("refused"), 0.6)
    assert debts.repair.is_quiet


def test_member_that_goes_takes_its_debt_with_it() -> None:
    """When it comes back everything is compared anyway."""
    debts = Debts()
    debts.repair.mark(PEER, debts.keys[:1], 0.0, FULL)
    debts.repair.peer_down(PEER)
    assert not debts.repair.held_off()
    assert debts.repair.is_quiet
    debts.repair.go_on(PEER, 1.0)
    assert debts.at(1.0) == []
    assert (debts.repair.fell_behind, debts.repair.needed_sync) == (1, 0)
