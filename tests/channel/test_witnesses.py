"""Second observers: who is asked, what they say, and that nobody is waited for for ever."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from tribes.channel.chain import Verdict
from tribes.channel.witnesses import (
    ASKERS_MAX,
    OBSERVE_S,
    OBSERVED_MAX,
    OPINION_S,
    WITNESSES_MAX,
    Witnesses,
)
from tribes.links.own_wire import Opinion
from tribes.membership.health import HealthMonitor
from tribes.timers import Timers
from tribes.wire.member import Member

DROP_S = 3.0


def member(number: int) -> Member:
    return Member(host=b"\x7f\0\0\1", port=4000 + number, unique_id=bytes([number]) * 16)


X, *OTHERS = (member(number) for number in range(1, 8))


class Link:
    """The connection of one that asks."""

    def __init__(self) -> None:
        self.told: list[tuple[int, Opinion]] = []

    def tell(self, number: int, opinion: Opinion) -> None:
        self.told.append((number, opinion))


class Case:
    """One member's questions, with the others played by the test."""

    def __init__(self, *others: Member, local: bytes = bytes(16)) -> None:
        self.timers = Timers()
        self.others = list(others)
        self.asked: list[tuple[Member, int, bytes]] = []
        self.verdicts: list[tuple[Verdict, float]] = []
        self.probes: list[Callable[[Exception | None, float], None]] = []
        self.written: list[Link] = []
        self.can_ask = True
        self.health = HealthMonitor(
            1.0,
            timers=self.timers,
            unanswered=lambda member: None,
            ping=lambda member, now: None,
            changed=lambda member, silent, now: None,
            remove_after=DROP_S,
            hopeless=lambda member, now: None,
            hung=lambda member, now: None,
        )
        self.health.added(X, 0.0)
        self.witnesses = Witnesses(
            local,
            timers=self.timers,
            health=self.health,
            others=lambda: iter(self.others),
            ask=self._ask,
            find=lambda unique_id: X if unique_id == X.unique_id else None,
            probe=lambda member, timeout, answer, now: self.probes.append(answer),
            respond=self.written.append,  # type: ignore[arg-type]
        )

    def _ask(self, other: Member, number: int, about: bytes, now: float) -> bool:
        del now
        self.asked.append((other, number, about))
        return self.can_ask

    def run(self, end: float) -> None:
        """Run the timers on time."""
        while self.timers.next_deadline <= end:
            self.timers.run_due(self.timers.next_deadline)

    def confirm(self, now: float = 10.0, *, is_refused: bool = True) -> None:
        self.run(now)
        self.witnesses.confirm(
            X,
            is_refused=is_refused,
            answer=lambda verdict, then: self.verdicts.append((verdict, then)),
            now=now,
        )

    def tell(self, index: int, opinion: Opinion, now: float = 10.1) -> None:
        self.witnesses.told(self.asked[index][1], opinion, now)

    def ask(self, link: Link, number: int = 1, now: float = 0.1) -> None:
        self.witnesses.asked(link, number, X.unique_id, now)  # type: ignore[arg-type]


def test_two_others_are_asked_and_their_silence_confirms() -> None:
    """Not the member itself, and no more than two however large the group is."""
    case = Case(X, *OTHERS)
    case.confirm()
    assert len(case.asked) == WITNESSES_MAX
    assert {about for _, _, about in case.asked} == {X.unique_id}
    assert X not in [other for other, _, _ in case.asked]
    case.tell(0, Opinion.SILENT)
    assert case.verdicts == []
    case.tell(1, Opinion.SILENT)
    assert case.verdicts == [(Verdict.GONE, 10.1)]
    assert case.witnesses.statistics.confirmed == 1
    assert case.witnesses.open_questions == 0


def test_whom_is_a_hash_s_choice_for_each_member_and_each_asker() -> None:
    """The same again for the same; over many members everybody is asked about equally often."""
    group = [member(number) for number in range(10, 110)]
    counts = dict.fromkeys(group, 0)
    for silent in group:
        case = Case(*group)
        first, second = (case.witnesses._chosen(silent) for _ in range(2))
        assert first == second
        assert silent not in first
        for other in first:
            counts[other] += 1
    assert sum(counts.values()) == 200
    assert max(counts.values()) <= 8
    # All of the group ask about one that falls silent.
    askers = dict.fromkeys(group, 0)
    for asker in group:
        for other in Case(*group, local=asker.unique_id).witnesses._chosen(X):
            askers[other] += 1
    assert max(askers.values()) <= 8


def test_one_answer_for_the_member_stops_the_removal() -> None:
    """At once, and what the other one says does not matter any more."""
    case = Case(*OTHERS)
    case.confirm()
    case.tell(1, Opinion.ANSWERS)
    assert case.verdicts == [(Verdict.CONTRADICTED, 10.1)]
    case.tell(0, Opinion.SILENT)
    case.run(20.0)
    assert len(case.verdicts) == 1
    assert case.witnesses.open_questions == 0


@pytest.mark.parametrize("opinion", [None, Opinion.UNKNOWN, Opinion.SILENT])
def test_no_witness_is_waited_for_for_ever(opinion: Opinion | None) -> None:
    """One that says nothing, or knows nothing, keeps nobody in the view."""
    case = Case(*OTHERS)
    case.confirm()
    if opinion is not None:
        case.tell(0, opinion)
    case.run(10.0 + OPINION_S - 0.01)
    assert case.verdicts == []
    case.run(10.0 + OPINION_S)
    assert case.verdicts == [(Verdict.GONE, 10.0 + OPINION_S)]
    assert case.witnesses.statistics.unheard == (opinion is not Opinion.SILENT)
    case.tell(1, Opinion.ANSWERS)
    assert len(case.verdicts) == 1


def test_who_did_not_run_meanwhile_waits_once_more() -> None:
    """The opinions have come, and are read after the timers; but it does so once only."""
    case = Case(*OTHERS)
    case.confirm()
    case.timers.run_due(15.0)
    assert case.verdicts == []
    case.timers.run_due(20.0)
    assert case.verdicts == [(Verdict.GONE, 20.0)]


def test_where_nobody_can_be_asked_nothing_is_waited_for() -> None:
    """A group of two, or of plain members."""
    for case in (Case(), Case(X), Case(*OTHERS)):
        case.can_ask = False
        case.confirm()
        assert case.verdicts == [(Verdict.GONE, 10.0)]


def test_link_to_a_witness_that_breaks_takes_its_question_with_it() -> None:
    """Two that die in one moment: neither waits for the other's word."""
    case = Case(*OTHERS[:1])
    case.confirm()
    case.witnesses.lost(OTHERS[1], 10.05)
    assert case.verdicts == []
    case.witnesses.lost(OTHERS[0], 10.05)
    assert case.verdicts == [(Verdict.GONE, 10.05)]


def test_member_that_answers_here_meanwhile_stays() -> None:
    """Its own word counts more than anybody's."""
    case = Case(*OTHERS)
    case.confirm()
    case.health.answered(X, 10.05)
    case.tell(0, Opinion.SILENT)
    case.tell(1, Opinion.SILENT)
    assert case.verdicts == [(Verdict.ANSWERED, 10.1)]


def test_silence_must_last_before_anybody_is_asked_and_a_refusal_must_not() -> None:
    """A test that fails tells of its own second only."""
    case = Case(*OTHERS)
    case.health.asked(X, 0.5)
    case.confirm(DROP_S - 0.1, is_refused=False)
    assert case.verdicts == [(Verdict.EARLY, DROP_S - 0.1)]
    assert case.asked == []
    case.confirm(DROP_S, is_refused=False)
    assert len(case.asked) == 2
    case.confirm(0.6)
    assert len(case.asked) == 4


@pytest.mark.parametrize("opinion", [None, Opinion.UNKNOWN, Opinion.SILENT])
def test_who_is_not_well_itself_needs_more_than_its_own_word(opinion: Opinion | None) -> None:
    """Silence that another member confirms is silence; else it must have lasted longer."""
    case = Case(*OTHERS)
    case.health.asked(X, 0.5)
    case.health.doubted(1.0)
    case.confirm(DROP_S + 0.6, is_refused=False)
    if opinion is not None:
        case.tell(0, opinion)
    case.run(DROP_S + 1.0)
    expected = Verdict.GONE if opinion is Opinion.SILENT else Verdict.EARLY
    assert [verdict for verdict, _ in case.verdicts] == [expected]
    case.confirm(2 * DROP_S + 0.6, is_refused=False)
    case.run(2 * DROP_S + 1.0)
    assert case.verdicts[1][0] is Verdict.GONE


def test_after_the_end_nothing_is_decided() -> None:
    """The channel stops."""
    case = Case(*OTHERS)
    case.confirm()
    case.witnesses.stop()
    case.run(20.0)
    assert case.verdicts == []


# ---- as a witness ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "opinion"),
    [
        (None, Opinion.ANSWERS),
        (ConnectionRefusedError(), Opinion.SILENT),
        (ConnectionResetError(), Opinion.SILENT),
        (TimeoutError(), Opinion.SILENT),
        (OSError(errno.EMFILE, "too many open files"), Opinion.UNKNOWN),
    ],
)
def test_a_witness_looks_before_it_speaks(error: Exception | None, opinion: Opinion) -> None:
    """What it says is what its own test gave, not what it knew before."""
    case, link = Case(), Link()
    case.health.answered(X, 0.1)
    case.ask(link)
    assert link.told == []
    case.probes[0](error, 0.2)
    assert link.told == [(1, opinion)]
    assert case.written == [link]
    case.run(5.0)
    assert len(link.told) == 1


def test_a_witness_says_within_a_quarter_second_what_it_has() -> None:
    """An answer on the open link is one too."""
    for has_answered, opinion in ((False, Opinion.SILENT), (True, Opinion.ANSWERS)):
        case, link = Case(), Link()
        case.ask(link, now=0.0)
        if has_answered:
            case.health.answered(X, 0.1)
        case.run(OBSERVE_S)
        assert link.told == [(1, opinion)]
    assert OBSERVE_S < OPINION_S


def test_who_is_suspected_here_is_silent_at_once() -> None:
    """It was asked before, and has not answered."""
    case, link = Case(), Link()
    case.run(2.9)
    assert case.health.is_suspected(X)
    case.ask(link, now=3.0)
    assert link.told == [(1, Opinion.SILENT)]
    assert case.probes == []


def test_who_is_no_member_here_gets_no_opinion() -> None:
    """Nobody is connected to because a peer names it."""
    case, link = Case(), Link()
    case.witnesses.asked(link, 7, bytes(16), 0.1)  # type: ignore[arg-type]
    assert link.told == [(7, Opinion.UNKNOWN)]
    assert case.probes == []


def test_many_questions_about_one_member_cost_one_test() -> None:
    """A group of two hundred loses one: it is not asked two hundred times at once."""
    case, links = Case(), [Link() for _ in range(200)]
    for number, link in enumerate(links):
        case.ask(link, number)
    assert len(case.probes) == 1
    case.probes[0](None, 0.2)
    assert [link.told for link in links] == [[(n, Opinion.ANSWERS)] for n in range(200)]


def test_questions_that_wait_for_one_test_are_bounded() -> None:
    """Whoever asks beyond them is told at once that there is no opinion."""
    case, link = Case(), Link()
    for number in range(ASKERS_MAX + 10):
        case.ask(link, number)
    assert link.told == [(ASKERS_MAX + n, Opinion.UNKNOWN) for n in range(10)]
    case.probes[0](None, 0.2)
    assert link.told[10:] == [(n, Opinion.ANSWERS) for n in range(ASKERS_MAX)]


def test_members_under_observation_are_bounded() -> None:
    """A peer that asks about everybody gets no opinion of the rest."""
    case, link = Case(), Link()
    group = {number.to_bytes(16, "big"): member(number) for number in range(10, 110)}
    case.witnesses._find = group.get
    for number, unique_id in enumerate(group):
        case.witnesses.asked(link, number, unique_id, 0.1)  # type: ignore[arg-type]
    assert len(case.probes) == OBSERVED_MAX
    assert [number for number, _ in link.told] == list(range(OBSERVED_MAX, len(group)))
