"""Broken discovery: members that are named, met and told of on connections.

Each names the test of the suite that notices it: plans of faults with multicast find everybody
anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from tests.channel import test_discovery as channel
from tests.links import test_news
from tests.membership import test_recovery, test_seeker, test_table
from tests.mutants import registry
from tests.mutants.registry import Patch, nothing
from tests.sim import test_named as sim
from tribes.channel import exchange
from tribes.channel.discovery import Discovery
from tribes.channel.exchange import PeerExchange
from tribes.links import challenge, news, own_receiver
from tribes.links.own_receiver import OwnReceiver
from tribes.links.own_sender import OwnSender
from tribes.membership import multicast, seeker
from tribes.membership.admission import Admission
from tribes.membership.multicast import MulticastMembership
from tribes.membership.recovery import MulticastHealth
from tribes.membership.seeker import Seeker
from tribes.membership.table import MembershipTable

Test = Callable[[], object]


def add(name: str, text: str, *patches: Patch, test: Test) -> None:
    """Register a mutant that a test must notice."""
    registry.add(f"discovery: {name}", text, *patches, test=test)


# ---- the search ----------------------------------------------------------------------------------

add(
    "lost members not looked for",
    "The address of a member that was lost is forgotten.",
    (Seeker, "lost", lambda self, address, now, *, has_left: self._members.pop(address, None)),
    test=sim.test_lost_members_are_looked_for_though_nobody_names_them,
)
add(
    "leavers looked for",
    "The address of a member that left in good order is tried for ten minutes.",
    (
        Discovery,
        "gone",
        lambda self, member, reason, now: (
            self.seeker.lost(member.address, now, has_left=False),
            self.exchange.gone(member),
        ),
    ),
    test=partial(channel.test_a_farewell_travels_on_the_links, None),
)
add(
    "no back-off",
    "A named address is tried again every half second.",
    (seeker, "_BACKOFF_MAX_S", 0.5),
    test=test_seeker.test_a_named_address_is_tried_for_ever_and_ever_more_rarely,
)
add(
    "names given up",
    "A named address is forgotten like a hint.",
    (Seeker, "_after", lambda self, place, now, *, pause=None: self._forget(place)),
    test=sim.test_the_seed_comes_back,
)
add(
    "no bound of meetings",
    "All addresses of a range are tried at once.",
    (seeker, "MEETINGS_MAX", 10_000),
    test=test_seeker.test_no_more_than_the_bound_are_asked_at_once,
)
_hint = Seeker.hint


def _hint_for_ever(
    self: Any, address: Any, now: float, *, delay: float = 0, keep: float = 0
) -> None:
    del keep
    _hint(self, address, now, delay=delay, keep=10.0**9)


add(
    "hints kept for ever",
    "An address that somebody told is tried until the end.",
    (Seeker, "hint", _hint_for_ever),
    test=channel.test_hints_make_nobody_a_member,
)
add(
    "one port of a range",
    "Only the first port of a host is tried.",
    (seeker.NamedHost, "addresses", lambda self: [(self.host, self.port)]),
    test=sim.test_a_range_of_ports_is_searched,
)


# ---- whom to believe -----------------------------------------------------------------------------


add(
    "callers ignored",
    "Who opens a link is never asked in turn.",
    (Discovery, "came", nothing),
    test=partial(sim.test_one_seed_is_enough, ""),
)
add(
    "elsewhere believed",
    "A record is believed that names another address than the one that was asked.",
    (
        Seeker,
        "_answered",
        lambda self, place, record, now: self._after(place, now, pause=1.0),
    ),
    test=test_seeker.test_who_says_it_is_elsewhere_is_asked_there,
)
add(
    "proof not counted",
    "An introduction makes a member of one whom the replay guard refuses, and of none else.",
    (Admission, "met", lambda self, record, incarnation, counter, now: False),
    test=partial(sim.test_one_seed_is_enough, sim.KEYS),
)
add(
    "farewell for another",
    "A farewell of somebody who is no member counts for the first of the view.",
    (
        Discovery,
        "news",
        lambda self, source, kind, body, now: [
            self._membership.said_farewell(each, now) for each in self._view().members[:1]
        ],
    ),
    test=channel.test_nobody_speaks_for_another,
)
add(
    "record of another",
    "A record on a link counts for whomever it names.",
    (
        Discovery,
        "news",
        lambda self, source, kind, body, now: (
            kind == 18 and self._membership.met(news.decode_record(body), now)
        ),
    ),
    test=channel.test_nobody_speaks_for_another,
)
add(
    "no farewell on links",
    "A member that leaves says so by multicast only.",
    (OwnSender, "leave", lambda self, why, now: self.close(why, now, abort=False)),
    test=partial(sim.test_crash_restart_pause_and_leave, ""),
)
_on_start = OwnReceiver._on_start


def _start_for_anybody(self: Any, body: bytes, now: float) -> None:
    hello, hello_body = self._hello
    self._hello = replace(hello, target=self._side.unique_id), hello_body
    _on_start(self, body, now)


add(
    "start after a question",
    "A connection that only asked who is there may go on.",
    (OwnReceiver, "_on_start", _start_for_anybody),
    test=channel.test_news_that_break_the_rules_cost_the_connection,
)
add(
    "any number of news",
    "A piece of a stream may hold as many news as fit.",
    (own_receiver, "NEWS_PER_READ_MAX", 10**6),
    test=channel.test_news_that_break_the_rules_cost_the_connection,
)
add(
    "any number of peers",
    "A frame may tell as many addresses as fit.",
    (news, "PEERS_MAX", 10**6),
    test=test_news.test_as_many_as_allowed_are_taken_and_no_more,
)
add(
    "introduction cut",
    "An introduction may be cut short.",
    (challenge, "decode_member", lambda record: channel.member(4001)),
    (challenge, "decode_life", lambda tail: challenge.Life(5, 6, b"?")),
    test=channel.test_an_introduction_is_read_whole_or_not_at_all,
)

# ---- the exchange --------------------------------------------------------------------------------

add(
    "nothing told",
    "Members tell each other no addresses.",
    (PeerExchange, "_tell_due", nothing),
    test=partial(sim.test_one_seed_is_enough, ""),
)
add(
    "told once",
    "A member is told when it joins and never again.",
    (PeerExchange, "_take_turns", nothing),
    test=channel.test_all_are_told_again_in_turn,
)
add(
    "everybody told everything",
    "Members that multicast reaches are told what they hear.",
    (
        PeerExchange,
        "_addresses_for",
        lambda self, member, members, unheard: [each.address for each in members if each != member],
    ),
    test=channel.test_members_that_hear_multicast_are_told_of_the_others_only,
)
add(
    "rate not kept",
    "A member may tell addresses as often as it likes.",
    (exchange, "TAKEN_EVERY_S", 0.0),
    test=channel.test_who_tells_too_often_is_not_read,
)

# ---- the one table -------------------------------------------------------------------------------

add(
    "answers do not count",
    "A member that was met becomes silent for want of heartbeats.",
    (MembershipTable, "is_kept", lambda self, member: False),
    (MembershipTable, "met", MembershipTable.heard),
    test=test_table.test_a_member_that_was_met_is_kept_by_its_answers,
)
add(
    "guests are the oldest",
    "Alive times stay positive with a plain member in the group.",
    (multicast, "GUEST_BEHIND_MS", 0),
    test=sim.test_guests_of_a_plain_member_are_the_youngest,
)
add(
    "guests for ever",
    "A plain member that is gone is still counted.",
    (MembershipTable, "forget", lambda self, member: self._entries.pop(member, None)),
    test=test_table.test_plain_members_are_counted_while_they_are_there,
)
add(
    "payload not announced",
    "Members that multicast does not reach are not told of a new payload.",
    (Discovery, "announce", nothing),
    test=sim.test_payload_and_domain_change_while_the_node_runs,
)
_heartbeat = MulticastMembership._heartbeat


def _heartbeat_at_its_time(self: Any, now: float) -> None:
    self._last_alive = None
    _heartbeat(self, now)


add(
    "same alive time",
    "Two heartbeats in one millisecond carry the same alive time.",
    (
        MulticastMembership,
        "_heartbeat",
        _heartbeat_at_its_time,
    ),
    test=sim.test_payload_and_domain_change_while_the_node_runs,
)
add(
    "deafness not noticed",
    "Only errors of the sockets count.",
    (MulticastHealth, "sent", lambda self, now: None),
    test=test_recovery.test_who_sends_and_hears_nothing_is_deaf,
)
