"""The failure detector believes nobody before it has asked the member itself."""

from __future__ import annotations

import errno
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, cast

import pytest

from tribes.channel.chain import Verdict
from tribes.interceptors import TcpFailureDetector
from tribes.interceptors import failure as failure_module
from tribes.interceptors.failure import CONTRADICTED_MAX_S
from tribes.membership.change import ChangeKind, MemberChange, RemovalReason
from tribes.timers import Timers
from tribes.wire.data import ChannelData
from tribes.wire.member import Member
from tribes.wire.probes import FAILURE_DETECTOR_PAYLOAD

if TYPE_CHECKING:
    from tribes.channel.chain import ChainContext
    from tribes.channel.outputs import Event

LOCAL = Member(host=b"\x7f\x00\x00\x01", port=4000, unique_id=bytes(16))
OTHER = Member(host=b"\x7f\x00\x00\x01", port=4001, unique_id=bytes([1]) * 16)

THIRD = OTHER.replace(port=4002, unique_id=bytes([2]) * 16)

ADDED = MemberChange(ChangeKind.ADDED, OTHER)
SILENT = MemberChange(ChangeKind.REMOVED, OTHER, RemovalReason.SILENT)
LEFT = MemberChange(ChangeKind.REMOVED, OTHER, RemovalReason.LEFT)

REFUSED = ConnectionRefusedError("refused")
NO_ANSWER = TimeoutError("no answer")


class Channel:
    """A detector in a channel that only notes what it asks."""

    local = LOCAL

    def __init__(self, **settings: object) -> None:
        self.timers = Timers()
        self.probes: list[dict[str, object]] = []
        self.answers: list[Callable[[Exception | None, float], None]] = []
        self.forgotten: list[Member] = []
        self.reported: list[MemberChange] = []
        self.verdict: Verdict | None = Verdict.GONE
        self.confirmed: list[tuple[Member, bool]] = []
        self.decide: list[Callable[[Verdict, float], None]] = []
        self.detector = TcpFailureDetector(**settings)  # type: ignore[arg-type]
        self.detector.attach(cast("ChainContext", self))

    def event(self, event: Event) -> None:
        raise AssertionError(event)

    def forget(self, member: Member) -> None:
        self.forgotten.append(member)

    def is_shut_down(self) -> bool:
        return False

    def probe(
        self,
        member: Member,
        message: bytes,
        *,
        answer: Callable[[Exception | None, float], None],
        **details: object,
    ) -> None:
        self.probes.append({"member": member, "message": message, **details})
        self.answers.append(answer)

    def confirm(
        self, member: Member, *, is_refused: bool, answer: Callable[[Verdict, float], None]
    ) -> None:
        self.confirmed.append((member, is_refused))
        if self.verdict is None:
            self.decide.append(answer)
        else:
            answer(self.verdict, self.now)

    def change(self, change: MemberChange, now: float = 0.0) -> None:
        self.detector.on_members(change, now, lambda c, n: self.reported.append(c))

    def answer(self, error: Exception | None, now: float = 0.1) -> None:
        self.now = now
        self.answers.pop(0)(error, now)


def with_member() -> Channel:
    channel = Channel()
    channel.change(ADDED)
    channel.answer(None)
    assert channel.reported == [ADDED]
    channel.reported.clear()
    channel.probes.clear()
    return channel


def with_member_that_leaves_during_its_test() -> Channel:
    channel = with_member()
    channel.change(SILENT, 3.1)
    channel.answer(None, 3.2)
    channel.timers.run_due(4.3)
    channel.change(LEFT, 4.4)
    return channel


def assert_empty(channel: Channel) -> None:
    tables = {name: it for name, it in vars(channel.detector).items() if isinstance(it, dict | set)}
    assert not any(tables.values()), tables


def test_announced_member_counts_once_it_answered() -> None:
    """A heartbeat alone adds nobody; the answer to the test does."""
    channel = Channel()
    channel.change(ADDED)
    assert channel.reported == []
    assert channel.probes == [
        {
            "member": OTHER,
            "message": FAILURE_DETECTOR_PAYLOAD,
            "options": 3,
            "expect_reply": True,
            "connect_timeout": 1.5,
            "reply_timeout": 1.0,
        }
    ]
    channel.answer(None)
    assert channel.reported == [ADDED]


def test_announced_member_that_refuses_never_counts_and_may_come_again() -> None:
    """It is forgotten below, so that its next heartbeat is looked at afresh."""
    channel = Channel()
    channel.change(ADDED)
    channel.answer(REFUSED)
    assert channel.reported == []
    assert channel.forgotten == [OTHER]
    channel.change(ADDED)
    channel.answer(None)
    assert channel.reported == [ADDED]


def test_farewell_needs_no_test() -> None:
    """A member that says goodbye is removed at once, as left."""
    channel = with_member()
    channel.change(LEFT)
    assert channel.reported == [LEFT]
    assert channel.probes == []


def test_crash_is_told_by_the_refused_connection() -> None:
    """Trouble on a connection asks at once; a refusal removes the member as crashed."""
    channel = with_member()
    channel.detector.on_trouble(OTHER, ConnectionResetError("reset"), 1.0)
    channel.detector.on_trouble(OTHER, ConnectionResetError("reset"), 1.0)
    assert len(channel.probes) == 1
    channel.answer(REFUSED)
    assert channel.reported == [MemberChange(ChangeKind.REMOVED, OTHER, RemovalReason.CRASHED)]
    assert channel.forgotten == [OTHER]


def test_trouble_with_a_member_that_answers_changes_nothing() -> None:
    """A broken connection is not a broken member."""
    channel = with_member()
    channel.detector.on_trouble(OTHER, ConnectionResetError("reset"), 1.0)
    channel.answer(None)
    assert channel.reported == []


def test_silent_member_that_does_not_answer_is_removed() -> None:
    """A hung process accepts connections for ever; only its answer counts."""
    channel = with_member()
    channel.change(SILENT, 3.1)
    channel.answer(NO_ANSWER, 4.1)
    assert channel.reported == [SILENT]


def test_silent_member_that_answers_is_kept_and_asked_again() -> None:
    """Multicast is lost, TCP works: the member stays and is tested every second."""
    channel = with_member()
    channel.change(SILENT, 3.1)
    channel.answer(None, 3.2)
    assert channel.reported == []
    assert channel.detector.suspects == (OTHER,)
    channel.timers.run_due(4.3)
    assert len(channel.probes) == 2
    channel.answer(NO_ANSWER, 5.3)
    assert channel.reported == [SILENT]
    assert len(channel.detector.suspects) == 0


def test_heartbeat_of_a_suspect_clears_it() -> None:
    """A member that is heard again is no suspect any more and is not tested again."""
    channel = with_member()
    channel.change(SILENT, 3.1)
    channel.answer(None, 3.2)
    channel.change(ADDED, 3.5)
    assert len(channel.detector.suspects) == 0
    channel.timers.run_due(100.0)
    assert len(channel.probes) == 1
    assert channel.reported == []


def test_replaced_incarnation_is_removed_without_asking_its_successor() -> None:
    """The port answers, but it is somebody else's now."""
    channel = with_member()
    replaced = MemberChange(ChangeKind.REMOVED, OTHER, RemovalReason.REPLACED)
    channel.change(replaced)
    assert channel.reported == [replaced]
    assert channel.probes == []


def test_nobody_is_removed_before_the_channel_agrees() -> None:
    """While it asks around, further trouble starts no second test."""
    channel = with_member()
    channel.verdict = None
    channel.detector.on_trouble(OTHER, ConnectionResetError("reset"), 1.0)
    channel.answer(REFUSED, 1.1)
    assert channel.confirmed == [(OTHER, True)]
    channel.detector.on_trouble(OTHER, ConnectionResetError("reset"), 1.2)
    channel.change(SILENT, 1.2)
    assert len(channel.probes) == 1
    assert channel.reported == []
    channel.decide.pop()(Verdict.GONE, 1.3)
    assert channel.reported == [MemberChange(ChangeKind.REMOVED, OTHER, RemovalReason.CRASHED)]


def test_a_stranger_that_does_not_answer_is_nobody_s_business() -> None:
    """It was no member: others are not asked about it."""
    channel = Channel()
    channel.change(ADDED)
    channel.answer(NO_ANSWER)
    assert channel.confirmed == []
    assert channel.forgotten == [OTHER]


def test_member_that_leaves_while_others_are_asked_has_left() -> None:
    """What they say comes too late, and does not hit whoever is announced there now."""
    channel = with_member()
    channel.verdict = None
    channel.detector.on_trouble(OTHER, ConnectionResetError("reset"), 1.0)
    channel.answer(REFUSED, 1.1)
    channel.change(LEFT, 1.2)
    assert channel.reported == [LEFT]
    channel.decide.pop()(Verdict.GONE, 1.3)
    assert channel.reported == [LEFT]
    assert channel.forgotten == []


@pytest.mark.parametrize(
    ("verdict", "pause"),
    [(Verdict.EARLY, 0.2), (Verdict.ANSWERED, 1.0), (Verdict.CONTRADICTED, 1.0)],
)
def test_member_that_may_not_be_removed_is_tested_again(verdict: Verdict, pause: float) -> None:
    """Soon where it was only too early."""
    channel = with_member()
    channel.verdict = verdict
    channel.change(SILENT, 3.1)
    channel.answer(NO_ANSWER, 4.1)
    assert channel.confirmed == [(OTHER, False)]
    assert channel.reported == []
    channel.timers.run_due(4.1 + pause - 0.01)
    assert len(channel.probes) == 1
    channel.timers.run_due(4.1 + pause)
    assert len(channel.probes) == 2
    channel.verdict = Verdict.GONE
    channel.answer(NO_ANSWER, 6.1)
    assert channel.reported == [SILENT]


def contradict(channel: Channel, begin: float, seconds: float) -> float:
    """Let it be tested in vain, and others contradict, until it is removed or time is up."""
    channel.verdict = Verdict.CONTRADICTED
    channel.detector.on_trouble(OTHER, TimeoutError("late"), begin)
    now = begin
    while not channel.reported and now < begin + seconds:
        now += 1.0
        channel.answer(NO_ANSWER, now)
        if not channel.reported:
            now = max(now, channel.timers.next_deadline)
            channel.timers.run_due(now)
    return now


def test_member_that_only_others_reach_is_removed_in_the_end() -> None:
    """A link that is cut one way: nothing can be sent to it, so it is no member here."""
    channel = with_member()
    end = contradict(channel, 10.0, 60.0)
    assert channel.reported == [SILENT]
    assert CONTRADICTED_MAX_S <= end - 10.0 <= CONTRADICTED_MAX_S + 3.0


@pytest.mark.parametrize("quiet", [False, True])
def test_the_time_begins_anew_with_an_answer_and_with_a_new_trouble(quiet: bool) -> None:
    """Two short troubles an hour apart are not one of an hour."""
    channel = with_member()
    end = contradict(channel, 10.0, 5.0)
    assert channel.reported == []
    if not quiet:
        channel.answer(None, end)
    else:
        channel.answer(NO_ANSWER, end)
        channel.change(ADDED, end)
    begin = end + (1.0 if not quiet else 3600.0)
    assert contradict(channel, begin, 8.0) >= begin + 8.0
    assert channel.reported == []


def test_update_waits_for_the_first_answer() -> None:
    """A changed payload is passed on for members that count, and kept for those that will."""
    channel = Channel()
    channel.change(ADDED)
    newer = OTHER.replace(payload=b"new", alive=5)
    channel.change(MemberChange(ChangeKind.UPDATED, newer))
    assert channel.reported == []
    channel.answer(None)
    assert channel.reported[0].member.payload == b"new"
    newest = OTHER.replace(payload=b"newest", alive=9)
    channel.change(MemberChange(ChangeKind.UPDATED, newest))
    assert channel.reported[1].member.payload == b"newest"


@pytest.mark.parametrize(
    ("settings", "message", "options", "expect_reply"),
    [
        ({"perform_read_test": False}, FAILURE_DETECTOR_PAYLOAD, 1, False),
        ({"perform_send_test": False}, b"", 1, False),
        ({"option_flag": 256}, FAILURE_DETECTOR_PAYLOAD, 259, True),
    ],
)
def test_settings_choose_the_test(
    settings: dict[str, object], message: bytes, options: int, expect_reply: bool
) -> None:
    """Tomcat's attributes choose between connection, message and answer as the test."""
    channel = Channel(**settings)
    channel.change(ADDED)
    probe = channel.probes[0]
    assert (probe["message"], probe["options"], probe["expect_reply"]) == (
        message,
        options,
        expect_reply,
    )


def test_test_messages_of_others_are_dropped() -> None:
    """The 64 bytes never reach a listener; every other message passes."""
    channel = Channel()
    passed: list[bytes] = []
    for message in (FAILURE_DETECTOR_PAYLOAD, b"hello"):
        data = ChannelData(1, 0, bytes(16), OTHER, message)
        channel.detector.receive(data, 0.0, lambda m, now: passed.append(m.message))
    assert passed == [b"hello"]


def test_reset_connection_is_tried_again_before_the_member_counts_as_dead() -> None:
    """A dying process resets, and so does one with too many connections: ask again, quickly."""
    channel = with_member()
    reset = ConnectionResetError("reset")
    channel.detector.on_trouble(OTHER, reset, 1.0)
    now = 1.0
    for pause in (0.05, 0.1, 0.2):
        channel.answer(reset, now)
        assert channel.reported == []
        now += pause
        channel.timers.run_due(now)
    channel.answer(reset, now)
    assert channel.reported == [MemberChange(ChangeKind.REMOVED, OTHER, RemovalReason.CRASHED)]


def test_member_that_answers_after_a_reset_is_kept() -> None:
    """One reset is no verdict, and it is forgotten with the next answer."""
    channel = with_member()
    for _ in range(5):
        channel.detector.on_trouble(OTHER, ConnectionResetError("reset"), 1.0)
        channel.answer(ConnectionResetError("reset"), 1.0)
        channel.timers.run_due(1.05)
        channel.answer(None, 1.1)
    assert channel.reported == []


@pytest.mark.parametrize("last", [None, REFUSED, NO_ANSWER], ids=["answer", "refused", "silent"])
@pytest.mark.parametrize(
    "first",
    [None, ConnectionResetError("reset"), OSError(errno.EMFILE, "too many open files")],
    ids=["answer", "reset", "no test"],
)
def test_nothing_is_kept_of_a_member_that_left_while_it_was_tested(
    first: Exception | None, last: Exception | None
) -> None:
    """Whatever comes of its tests: a group whose members come and go for years keeps nothing."""
    channel = with_member_that_leaves_during_its_test()
    channel.answer(first, 4.5)
    channel.timers.run_due(6.0)
    while channel.answers:
        channel.answer(last, 6.0)
    assert channel.timers.next_deadline == inf
    assert_empty(channel)


def test_nothing_is_kept_of_a_stranger_that_falls_silent_before_it_answered() -> None:
    """Its test was to be repeated after a reset; the answer counts for nobody."""
    channel = Channel()
    channel.change(ADDED)
    channel.answer(ConnectionResetError("reset"))
    channel.change(SILENT, 0.12)
    channel.timers.run_due(1.0)
    channel.answer(None)
    assert channel.reported == []
    assert_empty(channel)


def test_nothing_is_kept_of_a_member_that_left_while_its_test_waited_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its turn comes, and it is not asked any more."""
    channel = with_member_that_leaves_during_its_test()
    channel.answer(ConnectionResetError("reset"), 4.5)
    monkeypatch.setattr(failure_module, "TESTS_MAX", 0)
    channel.timers.run_due(6.0)
    monkeypatch.undo()
    channel.change(MemberChange(ChangeKind.ADDED, THIRD), 6.1)
    channel.answer(REFUSED, 6.2)
    assert_empty(channel)


def test_silent_member_whose_successor_answers_in_its_place_is_removed() -> None:
    """A restart on the same port while heartbeats were lost leaves no ghost behind."""
    channel = with_member()
    channel.change(SILENT, 3.1)
    channel.answer(None, 3.2)
    successor = OTHER.replace(unique_id=bytes([9]) * 16)
    channel.change(MemberChange(ChangeKind.ADDED, successor), 4.0)
    channel.answer(None, 4.1)
    assert channel.reported == [
        MemberChange(ChangeKind.REMOVED, OTHER, RemovalReason.REPLACED),
        MemberChange(ChangeKind.ADDED, successor),
    ]


SUCCESSOR = OTHER.replace(unique_id=bytes([3]) * 16)
SUCCESSOR_ADDED = MemberChange(ChangeKind.ADDED, SUCCESSOR)


def test_a_late_answer_of_a_process_that_has_a_successor_takes_nothing_from_it() -> None:
    """It answered, died, and its answer was sent again and again (seed 863789): whose test began
    last was there last.
    """
    channel = Channel()
    channel.change(ADDED, 0.0)
    channel.change(SUCCESSOR_ADDED, 0.1)
    late, soon = channel.answers
    soon(None, 0.2)
    late(None, 0.3)
    assert channel.reported == [SUCCESSOR_ADDED]
    assert channel.forgotten == [OTHER], "should it be there after all, it is asked again"
    channel.change(MemberChange(ChangeKind.REMOVED, SUCCESSOR, RemovalReason.LEFT), 1.0)
    assert_empty(channel)


def test_a_member_that_was_taken_for_replaced_comes_back_with_its_next_heartbeat() -> None:
    """Nobody is gone for good because somebody else answered at its address once."""
    channel = with_member()
    channel.change(SUCCESSOR_ADDED, 0.2)
    channel.answers.pop()(None, 0.3)
    assert channel.reported == [
        MemberChange(ChangeKind.REMOVED, OTHER, RemovalReason.REPLACED),
        SUCCESSOR_ADDED,
    ]
    assert channel.forgotten == [OTHER]
    channel.change(ADDED, 0.5)
    channel.answers.pop()(None, 0.6)
    assert channel.reported[-1] == ADDED


def test_a_member_that_has_answered_again_is_the_one_that_was_there_last() -> None:
    """Also when its first test began before that of the other."""
    channel = with_member()
    channel.change(SUCCESSOR_ADDED, 0.2)
    late = channel.answers.pop()
    channel.detector.on_trouble(OTHER, REFUSED, 0.3)
    channel.answers.pop()(None, 0.4)
    late(None, 0.5)
    assert channel.reported == []
    assert channel.forgotten == [SUCCESSOR]
