"""What operators are told of a node is wrong.

Plans of faults have no operators, so each of these names the test that notices it.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.admin import test_doctor
from tests.cli import test_reload, test_top_screen
from tests.links import test_round_trip
from tests.mutants import registry
from tests.mutants.registry import Patch, nothing
from tests.sim import test_keys
from tribes.admin.doctor import findings, group
from tribes.cli import reload, top_screen
from tribes.cli.reload import Reload
from tribes.links.pool import SenderPool
from tribes.links.round_trip import RoundTrip
from tribes.membership import admission
from tribes.membership.admission import Admission


def _add(name: str, text: str, *patches: Patch, test: Callable[[], object]) -> None:
    registry.add(f"operations: {name}", text, *patches, test=test)


def _asked_last(self: RoundTrip, question: int, now: float) -> None:
    self._question, self._asked_at = question, now


_add(
    "doctor: nothing fails",
    "All that is wrong is a warning.",
    (group, "fail", findings.warn),
    test=test_doctor.test_a_clock_an_hour_off_is_a_failure_and_less_a_warning,
)
_add(
    "doctor: uncertain clocks",
    "A slow answer counts as a wrong clock.",
    (group, "_SKEW_WARN_MS", 0),
    test=test_doctor.test_a_slow_answer_is_no_wrong_clock,
)
_add(
    "doctor: own node must run",
    "That the own node does not run is a failure.",
    (group, "_is_trouble", lambda answer, own: answer.met is None),
    test=test_doctor.test_the_own_node_need_not_run,
)
_add(
    "doctor: silent multicast",
    "Members that answer and are not heard are not told.",
    (group, "_multicast", lambda config, heard, members: ()),
    test=test_doctor.test_who_answers_and_is_not_heard_is_named,
)
_add(
    "reload: members only added",
    "Static members are told once, and never again.",
    (Reload, "_members", nothing),
    test=test_reload.test_members_are_named_once_and_against_those_of_the_last_time,
)
_add(
    "reload: silent about the rest",
    "Settings that need a restart are not named.",
    (reload, "changed_keys", lambda old, new, path="": ()),
    test=test_reload.test_other_settings_are_named_without_their_values,
)
_add(
    "reload: level not set",
    "A new log level is told and not used.",
    (reload, "set_log_level", nothing),
    test=test_reload.test_the_level_is_that_of_the_file,
)
_add(
    "top: columns as they come",
    "Lines are wider than the terminal.",
    (top_screen, "_cut", lambda part, width: part),
    test=test_top_screen.test_no_line_is_wider_and_no_picture_higher_than_the_terminal,
)
_add(
    "top: names as they come",
    "What a member calls itself acts on the terminal.",
    (top_screen, "printable", str),
    test=test_top_screen.test_names_of_others_are_text,
)
_add(
    "refused heartbeats are silent",
    "A member with another key is nowhere in the log.",
    (Admission, "_tell", nothing),
    test=test_keys.test_heartbeats_that_count_for_nothing_are_told_once_a_minute,
)
_add(
    "refused heartbeats fill the log",
    "Each of them is told.",
    (admission, "TOLD_EVERY_S", 0.0),
    test=test_keys.test_heartbeats_that_count_for_nothing_are_told_once_a_minute,
)
_add(
    "every question is timed",
    "A later question takes the place of the one that is timed.",
    (RoundTrip, "asked", _asked_last),
    test=test_round_trip.test_one_question_is_timed_at_a_time,
)
_add(
    "lost answers are waited for",
    "An acknowledgement on a new connection ends the measurement of the old one.",
    (RoundTrip, "lost", nothing),
    test=test_round_trip.test_what_is_written_again_is_not_timed,
)
_add(
    "nothing lags",
    "Members that have received nothing for long are shown without lag.",
    (SenderPool, "lag", lambda self, member, now: 0.0),
    test=test_round_trip.test_gauges_of_a_group_say_how_long_and_how_late,
)
