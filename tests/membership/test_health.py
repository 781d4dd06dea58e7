"""Suspicion: who is waited for, and who is not for now."""

from __future__ import annotations

from tribes.membership.health import LOCAL_HEALTH_MAX, HealthMonitor
from tribes.timers import Timers
from tribes.wire.member import Member

PEER = Member(host=b"\x7f\x00\x00\x01", port=4001, unique_id=bytes(16))


class Watch:
    """A monitor with one member, and everything it says."""

    def __init__(self, *, answers: bool = False) -> None:
        self.timers = Timers()
        self.asked: float | None = None
        self.pings: list[float] = []
        self.hopeless: list[float] = []
        self.hung: list[float] = []
        self.changes: list[tuple[float, bool]] = []
        self.answers = answers
        self.monitor = HealthMonitor(
            1.0,
            timers=self.timers,
            unanswered=lambda member: self.asked,
            ping=self._ping,
            changed=lambda member, silent, now: self.changes.append((now, silent is not None)),
            remove_after=3.0,
            hopeless=lambda member, now: self.hopeless.append(now),
            hung=lambda member, now: self.hung.append(now),
        )
        self.monitor.added(PEER, 0.0)

    def _ping(self, member: Member, now: float) -> None:
        self.pings.append(now)
        if self.answers:
            self.monitor.answered(member, now)

    def owes(self, now: float) -> None:
        """Something is sent, and never answered."""
        self.asked = now
        self.monitor.sent(PEER)

    def run(self, end: float, *, heartbeats: bool = False) -> None:
        """Run the timers on time up to ``end``."""
        while self.timers.next_deadline <= end:
            now = self.timers.next_deadline
            if heartbeats and now % 0.5 == 0:
                self.monitor.heard(PEER, now)
            self.timers.run_due(now)


def test_heartbeats_are_enough_while_nothing_is_unanswered() -> None:
    """A quiet member costs no question and is not suspected."""
    watch = Watch()
    watch.run(60.0, heartbeats=True)
    assert watch.changes == []
    assert len(watch.pings) <= 1


def test_silent_member_is_asked_and_then_suspected() -> None:
    """Asked after half the time, suspected after all of it: within 2 s at any rate."""
    watch = Watch()
    watch.run(2.0)
    assert watch.pings[0] == 0.5
    assert watch.changes == [(1.0, True)]
    assert watch.monitor.suspects == (PEER,)


def test_an_answer_to_the_question_is_enough() -> None:
    """Heartbeats may be lost or blocked; who answers is well."""
    watch = Watch(answers=True)
    watch.run(60.0)
    assert watch.changes == []
    assert len(watch.pings) <= 121


def test_heartbeats_do_not_count_against_an_unanswered_question() -> None:
    """Multicast works and TCP does not: nobody waits for such a member for long."""
    watch = Watch()
    watch.run(10.0, heartbeats=True)
    watch.owes(10.0)
    watch.run(12.0, heartbeats=True)
    assert watch.changes == [(11.0, True)]


def test_member_that_stays_silent_is_reported_as_hopeless() -> None:
    """Not before the time to remove it, and again and again: somebody has to find out."""
    watch = Watch()
    watch.run(10.0)
    assert 3.0 <= watch.hopeless[0] <= 3.5
    assert len(watch.hopeless) > 5


def test_connection_that_hangs_is_told_from_a_member_that_does() -> None:
    """It answers by another connection; the one that we asked on stays silent."""
    watch = Watch(answers=True)
    watch.asked = 0.0
    watch.run(10.0)
    assert watch.changes == []
    assert [round(when) for when in watch.hung] == [3, 6, 9]


def test_suspicion_ends_with_the_first_answer() -> None:
    """And it can come again."""
    watch = Watch()
    watch.run(1.2)
    watch.monitor.answered(PEER, 1.3)
    assert watch.changes == [(1.0, True), (1.3, False)]
    assert not watch.monitor.is_suspected(PEER)
    watch.run(3.0)
    assert watch.changes[-1][1]


def test_suspected_member_is_asked_again_and_again() -> None:
    """Otherwise nobody would learn that it is well."""
    watch = Watch()
    watch.run(10.0)
    assert len(watch.pings) >= 10


def test_time_in_which_this_process_did_not_run_counts_for_nobody() -> None:
    """After a pause of our own the others get their full time to answer."""
    watch = Watch()
    watch.run(0.5)
    watch.timers.run_due(5.0)
    assert watch.changes == []
    watch.run(7.0)
    # 0.75 s of silence before the pause, 0.25 s after it.
    assert watch.changes == [(5.25, True)]
    assert watch.monitor.statistics.late_looks == 1


def test_local_health_is_bounded_and_recovers() -> None:
    """A late or wrong node trusts itself less for a while."""
    watch = Watch()
    now = 0.0
    for _ in range(10):
        now += 5.0
        watch.timers.run_due(now)
    assert watch.monitor.local_health == LOCAL_HEALTH_MAX
    watch.answers = True
    watch.monitor.answered(PEER, now)
    watch.run(now + 60.0)
    assert watch.monitor.local_health == 1


def test_removed_member_is_not_watched() -> None:
    """No question, no suspicion, and a late answer is no error."""
    watch = Watch()
    watch.monitor.removed(PEER)
    watch.run(5.0)
    watch.monitor.answered(PEER, 5.0)
    watch.monitor.heard(PEER, 5.0)
    assert watch.changes == []
    assert watch.pings == []


def peers(count: int) -> list[Member]:
    return [PEER.replace(unique_id=number.to_bytes(16, "big")) for number in range(1, 1 + count)]


def test_quiet_members_cost_a_look_nothing() -> None:
    """A group of two hundred, each heard twice a second, in no particular order."""
    watch = Watch()
    watch.monitor.removed(PEER)
    group = peers(199)
    for member in group:
        watch.monitor.added(member, 0.0)
    watch.run(0.2)
    for step in range(1, 121):
        for offset, member in enumerate(group):
            now = step / 2 - 0.499 + offset / 1000
            watch.run(now)
            watch.monitor.heard(member, now)
        if step == 4:
            watch.monitor.statistics.checks = 0
    # 232 looks; each member by itself would be looked at in each of them.
    assert watch.monitor.statistics.checks <= 232
    assert (watch.pings, watch.changes) == ([], [])


def test_one_silent_member_among_many_is_found_on_time() -> None:
    """And nobody else is asked or suspected."""
    watch = Watch()
    group = peers(50)
    for member in group:
        watch.monitor.added(member, 0.0)
    watch.run(0.2)
    for step in range(1, 20):
        now = step / 2 - 0.1
        watch.run(now)
        for member in [PEER, *group] if step <= 10 else group:
            watch.monitor.heard(member, now)
    # PEER was last heard after 4.9 seconds.
    assert watch.changes == [(6.0, True)]
    assert watch.monitor.suspects == (PEER,)


def test_member_that_owes_an_answer_is_looked_at_whatever_it_says() -> None:
    """Also one that was quiet for long; and not any more once it has answered."""
    watch = Watch()
    watch.run(20.0, heartbeats=True)
    watch.owes(20.1)
    watch.run(21.5, heartbeats=True)
    assert [when for when, is_suspected in watch.changes if is_suspected] == [21.25]
    watch.asked = None
    watch.monitor.answered(PEER, 21.6)
    watch.run(24.0, heartbeats=True)
    checks = watch.monitor.statistics.checks
    watch.run(60.0, heartbeats=True)
    assert watch.monitor.statistics.checks - checks <= 2
    assert len(watch.changes) == 2


def test_silence_counts_from_the_last_answer_or_what_was_heard_before_the_question() -> None:
    """Heartbeats behind an unanswered question keep nobody in the view."""
    watch = Watch()
    watch.run(10.0, heartbeats=True)
    watch.monitor.asked(PEER, 10.0)
    watch.run(12.9, heartbeats=True)
    assert not watch.monitor.is_given_up(PEER, 12.9)
    watch.run(13.0, heartbeats=True)
    assert watch.monitor.is_given_up(PEER, 13.0)
    assert watch.monitor.owes(PEER)
    watch.monitor.answered(PEER, 13.1)
    assert not watch.monitor.owes(PEER)
    assert not watch.monitor.is_given_up(PEER, 16.0)
    watch.monitor.removed(PEER)
    assert watch.monitor.is_given_up(PEER, 16.0)


def test_nobody_is_given_up_for_a_silence_that_was_this_process_s_own() -> None:
    """What came meanwhile is read after the timers; the next look excuses the others."""
    watch = Watch()
    watch.run(0.5)
    assert not watch.monitor.is_given_up(PEER, 20.0)
    watch.timers.run_due(20.0)
    assert not watch.monitor.is_given_up(PEER, 20.0)
    assert watch.monitor.answered_at(PEER) == 0.0


def test_node_with_troubles_of_its_own_gives_up_later() -> None:
    """Four times as late at most, and only where nobody else confirms the silence."""
    watch = Watch()
    watch.run(4.0)
    assert watch.monitor.is_given_up(PEER, 4.0)
    for now in (5.0, 6.0, 7.0):
        watch.monitor.doubted(now)
    watch.run(11.9)
    assert watch.monitor.local_health == LOCAL_HEALTH_MAX
    assert watch.monitor.is_given_up(PEER, 11.9)
    assert not watch.monitor.is_given_up(PEER, 11.9, alone=True)
    assert watch.monitor.is_given_up(PEER, 12.0, alone=True)


def test_being_suspected_by_many_at_once_is_one_trouble() -> None:
    """One cut cable, two hundred complaints."""
    watch = Watch(answers=True)
    for _ in range(200):
        watch.monitor.doubted(5.0)
    assert watch.monitor.statistics.doubted == 200
    assert watch.monitor.local_health == 2
    watch.monitor.doubted(6.0)
    assert watch.monitor.local_health == 3


def test_what_a_member_sends_by_itself_is_no_answer() -> None:
    """It is not suspected while its frames come, but asked; and in the end it may be removed."""
    watch = Watch()
    watch.owes(0.0)
    for step in range(1, 41):
        watch.run(step / 10)
        watch.monitor.came(PEER, step / 10)
    assert watch.changes == []
    assert 2 <= len(watch.pings) <= 4
    assert watch.monitor.is_given_up(PEER, 4.0)
    watch.monitor.answered(PEER, 4.0)
    assert not watch.monitor.is_given_up(PEER, 4.0)


def test_what_is_sent_later_does_not_make_an_earlier_question_younger() -> None:
    """Else a member that stopped is suspected the later, the more is sent to it."""
    watch = Watch()
    watch.run(10.0, heartbeats=True)
    watch.run(10.9)
    assert watch.pings
    watch.owes(10.9)
    watch.run(11.5)
    assert [is_suspected for _, is_suspected in watch.changes] == [True]


def test_a_question_that_was_lost_long_ago_tells_nothing_about_now() -> None:
    """Otherwise the first test that fails an hour later would be the last."""
    watch = Watch()
    watch.run(10.0, heartbeats=True)
    watch.monitor.asked(PEER, 10.0)
    watch.run(100.0, heartbeats=True)
    watch.monitor.asked(PEER, 100.0)
    watch.run(101.0, heartbeats=True)
    assert not watch.monitor.is_given_up(PEER, 101.0)
    assert watch.monitor.owes(PEER)
