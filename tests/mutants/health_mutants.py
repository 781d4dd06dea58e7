"""Broken second observers, broken introductions, and events that nobody can count (DESIGN §4.3)."""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from tests.channel import test_introduction, test_repeats, test_witnesses
from tests.channel.keyed_net import ONE, ring
from tests.links import test_own_opinions
from tests.membership import test_health
from tests.mutants import own_plans, registry
from tests.mutants.registry import CRASH, Patch, nothing
from tests.sim import test_health as test_groups
from tribes.channel import acquaintances, receiving, witnesses
from tribes.channel.repeats import Repeats
from tribes.channel.witnesses import Witnesses
from tribes.interceptors.failure import TcpFailureDetector
from tribes.links.own_receiver import OwnReceiver
from tribes.links.own_sender import OwnSender
from tribes.links.own_wire import Opinion
from tribes.links.pool import SenderPool
from tribes.membership import health
from tribes.membership.admission import Admission
from tribes.membership.health import HealthMonitor
from tribes.security import mark

if TYPE_CHECKING:
    from tribes.channel.outputs import LinkRejected
    from tribes.links.base import OutFrame
    from tribes.links.plain import PlainSender
    from tribes.wire.member import Member


def add(name: str, text: str, *patches: Patch, **settings: Any) -> None:
    """Register a mutant of members that ask each other."""
    registry.add(f"health: {name}", text, *patches, own=True, **settings)


# ---- second observers --------------------------------------------------------------------------

add(
    "no second observer",
    "A member is removed on the word of one.",
    (Witnesses, "_chosen", lambda self, member: []),
    plan=own_plans.unreached_by_one,
)

_told = Witnesses.told


def _told_silent(self: Any, number: int, opinion: Opinion, now: float) -> None:
    _told(self, number, Opinion.SILENT, now)


add(
    "witness not believed",
    "What a second observer says is taken for silence.",
    (Witnesses, "told", _told_silent),
    plan=own_plans.unreached_by_one,
)
add(
    "witness waited for",
    "A removal waits for its second observers for ever.",
    (witnesses, "OPINION_S", inf),
    plan=own_plans.witness_stopped,
)
add(
    "answers of witnesses lost",
    "A second observer that has something to say does not write it.",
    (OwnReceiver, "tell", nothing),
    plan=own_plans.unreached_by_one,
)


def _asked_blindly(self: Any, receiver: OwnReceiver, number: int, about: bytes, now: float) -> None:
    member = self._find(about)
    if member is None or self._health.is_suspected(member):
        _asked(self, receiver, number, about, now)
    else:
        receiver.tell(number, Opinion.ANSWERS)


_asked = Witnesses.asked
add(
    "witness does not look",
    "A second observer says what it believed before it was asked.",
    (Witnesses, "asked", _asked_blindly),
    faults=CRASH,
    changes={"members": 4},
)
add(
    "witness always for the dead",
    "A second observer says that whoever it is asked about answers.",
    (
        Witnesses,
        "asked",
        lambda self, receiver, number, about, now: receiver.tell(number, Opinion.ANSWERS),
    ),
    faults=CRASH,
    changes={"members": 4},
)
add(
    "silent at once",
    "One test that fails is enough: nobody asks for how long a member was silent.",
    (HealthMonitor, "is_given_up", lambda self, member, now, alone=False: True),
    plan=own_plans.reset_while_stopped,
)
add(
    "contradicted for ever",
    "A member that others reach stays, however long it is out of reach.",
    (TcpFailureDetector, "_may_stay", lambda self, member, now: True),
    plan=own_plans.unreached_for_long,
)


def _came_is_answer(self: Any, member: Member, now: float) -> None:
    state = self._states.get(member)
    if state is not None:
        state.replied, state.waiting = now, None
    _came(self, member, now)


_came = HealthMonitor.came
add(
    "frames count as answers",
    "What a member sends by itself keeps it in the view, though nothing reaches it.",
    (HealthMonitor, "came", _came_is_answer),
    plan=own_plans.unreached_for_long,
)
add(
    "own answer not noticed",
    "A member that answers while others are asked about it is removed.",
    (HealthMonitor, "answered_at", lambda self, member: -inf),
    test=test_witnesses.test_member_that_answers_here_meanwhile_stays,
)
add(
    "broken link to a witness not noticed",
    "A question is waited for that went with its connection.",
    (Witnesses, "lost", nothing),
    test=test_witnesses.test_link_to_a_witness_that_breaks_takes_its_question_with_it,
)
add(
    "everybody asks the same",
    "Whom a member asks depends on nothing but the order of its view.",
    (
        Witnesses,
        "_chosen",
        lambda self, member: [other for other in self._others() if other != member][:2],
    ),
    test=test_witnesses.test_whom_is_a_hash_s_choice_for_each_member_and_each_asker,
)
add(
    "each question is a test",
    "A member is tested as often as others ask about it.",
    (witnesses, "ASKERS_MAX", 1),
    test=test_witnesses.test_many_questions_about_one_member_cost_one_test,
)
add(
    "strangers are asked",
    "A member is asked for its opinion that does not know what that is.",
    (OwnSender, "can_witness", property(lambda self: self._connection is not None)),
    test=partial(test_own_opinions.test_who_does_not_know_them_is_never_asked, 0, 0),
)

# ---- suspicion ---------------------------------------------------------------------------------

add(
    "doubt not told",
    "A member does not hear that it is suspected.",
    (SenderPool, "doubt", nothing),
    test=test_groups.test_who_is_suspected_hears_of_it_and_trusts_itself_less,
)
add(
    "doubt ignored",
    "A member that hears that it is suspected trusts itself as before.",
    (HealthMonitor, "doubted", nothing),
    test=test_groups.test_who_is_suspected_hears_of_it_and_trusts_itself_less,
)
add(
    "every doubt counts",
    "One trouble that many tell of is many troubles.",
    (HealthMonitor, "doubted", lambda self, now: self._trouble(now)),
    test=test_health.test_being_suspected_by_many_at_once_is_one_trouble,
)
add(
    "quiet ones not looked at",
    "Who was quiet and falls silent is not noticed by those who ask nothing of it.",
    (HealthMonitor, "_wake_quiet", nothing),
    test=test_health.test_one_silent_member_among_many_is_found_on_time,
)
add(
    "busy ones not looked at",
    "Who was quiet and is sent something is not looked at for it.",
    (HealthMonitor, "sent", nothing),
    plan=own_plans.hung,
)
add(
    "everybody looked at",
    "A look looks at all members.",
    (HealthMonitor, "_rest", nothing),
    test=test_health.test_quiet_members_cost_a_look_nothing,
)
add(
    "old question not forgotten",
    "A question that was lost an hour ago counts against a member that is tested now.",
    (health, "_FORGET_S", inf),
    test=test_health.test_a_question_that_was_lost_long_ago_tells_nothing_about_now,
)

# ---- introductions -----------------------------------------------------------------------------

add(
    "mark of a first frame ignored",
    "Nobody looks for a mark in the first frame of a connection.",
    (receiving, "introduction_of", lambda data, body: None),
    test=test_introduction.test_static_members_speak_the_own_link_from_the_start,
)
add(
    "no mark in first frames",
    "First frames say whom they are meant for, and not by whom.",
    (mark.Marker, "introduce", lambda self, body: b""),
    test=test_introduction.test_static_members_speak_the_own_link_from_the_start,
)


def _order_is_kept() -> None:
    for seed in range(8):
        test_groups.test_link_goes_over_to_the_own_one_in_order(seed)


def _over_at_once(self: Any, member: Member, now: float) -> None:
    known = self._senders.get(member)
    if type(known).__name__ == "PlainSender" and self._speaks_own(member):
        self._to_own(known, known.take_queue(), now)


add(
    "goes over at once",
    "An own link begins while the plain one still has frames on their way.",
    (SenderPool, "upgrade", _over_at_once),
    test=test_groups.test_own_link_does_not_overtake_what_the_plain_one_still_brings,
)


def _to_own_empty(self: Any, plain: PlainSender, frames: list[OutFrame], now: float) -> None:
    frames.clear()
    _to_own(self, plain, frames, now)


_to_own = SenderPool._to_own
add(
    "queue lost when going over",
    "What waited for the plain link does not go by the own one.",
    (SenderPool, "_to_own", _to_own_empty),
    test=_order_is_kept,
)
_mark_of = mark.Marker.introduce
add(
    "mark covers nothing",
    "The mark of a first frame proves its key whatever frame it stands in.",
    (mark.Marker, "introduce", lambda self, body: _mark_of(self, b"")),
    test=test_introduction.test_the_mark_covers_the_whole_frame_and_its_destination,
)


def _introduced_unproved(self: Any, record: Member, covered: bytes, mark: Any, now: float) -> None:
    del covered, mark
    self._admit(record, now)


add(
    "mark believed without a proof",
    "Whoever shows a mark in a first frame is a member.",
    (Admission, "introduced", _introduced_unproved),
    test=partial(
        test_introduction.test_only_a_mark_of_the_group_is_a_reason_to_ask, ring(ONE), True
    ),
)
add(
    "strangers remembered for ever",
    "Every name that a mark was shown in is kept.",
    (acquaintances, "INTRODUCED_MAX", 10**9),
    test=test_introduction.test_what_is_remembered_of_strangers_is_bounded,
)

# ---- events ------------------------------------------------------------------------------------


def _told_always(self: Any, event: LinkRejected, now: float) -> LinkRejected:
    del now
    self.seen += 1
    return event


add(
    "repeats told",
    "Each rejected connection is an event, however often it comes.",
    (Repeats, "told", _told_always),
    test=(
        test_repeats.test_the_same_of_one_host_is_told_once_per_interval_with_the_number_held_back
    ),
)


def _told_once(self: Any, event: LinkRejected, now: float) -> LinkRejected | None:
    return _tells(self, event, 0.0 * now)


_tells = Repeats.told
add(
    "repeats told once",
    "A peer that was told of is never told of again.",
    (Repeats, "told", _told_once),
    test=(
        test_repeats.test_the_same_of_one_host_is_told_once_per_interval_with_the_number_held_back
    ),
)
