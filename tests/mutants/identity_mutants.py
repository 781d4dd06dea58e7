"""Broken identity on the wire: cookies, signatures, routes, draining, crawlers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tests.manager import test_delta_rows
from tests.mutants import registry
from tests.mutants.registry import Patch, nothing
from tests.web import (
    adapters,
    test_django_requests,
    test_each_adapter,
    test_flask,
    test_neighbours,
    test_valve,
    test_wire_identity,
)
from tribes.manager.unknown import UnknownEntries
from tribes.web import django_node, django_requests, flask, pipeline
from tribes.web.answer_cookies import AnswerCookies
from tribes.web.cookies import CookieSettings
from tribes.web.crawlers import CrawlerSessions
from tribes.web.draining import Draining
from tribes.web.pipeline import Pipeline
from tribes.web.route_binder import JvmRouteBinder
from tribes.web.signing import WireIds
from tribes.web.valve import ReplicationValve


def _add(name: str, text: str, *patches: Patch, test: Callable[[], object]) -> None:
    registry.add(f"identity: {name}", text, *patches, test=test)


_read = WireIds.read
_signature = WireIds._signature
_sent = ReplicationValve.sent
_identity = CrawlerSessions.identity
_sends_away = Draining.sends_away


def _unchecked(self: WireIds, value: str) -> tuple[str, str]:
    session_id, _, route = value.partition(".")
    return session_id.partition("~")[0], route


def _as_it_came(request: Mapping[str, Any], parameter: str) -> str:
    return str(request.get("PATH_INFO") or request.get("path"))


def _only_first(self: WireIds) -> WireIds:
    kept = WireIds("app", self.route, ())
    kept._keys = self._keys[:1]
    return kept


_add(
    "application over context",
    "The application's settings of the cookie go over the context's.",
    (CookieSettings, "under", lambda self, config: self),
    test=partial(
        test_wire_identity.test_t98_what_the_cookie_says,
        {"name": "C"},
        {"name": "SID"},
        "http",
        "C: Path=/; HttpOnly; SameSite=Lax",
    ),
)
_add(
    "signature unread",
    "Any signature is good.",
    (WireIds, "read", _unchecked),
    test=test_wire_identity.test_an_id_that_nobody_signed_is_as_unknown,
)
_add(
    "context not signed",
    "A signature is good for every context's ids.",
    (
        WireIds,
        "_signature",
        lambda self, key, session_id: _signature(WireIds("", "", ()), key, session_id),
    ),
    test=test_wire_identity.test_an_id_that_nobody_signed_is_as_unknown,
)
_add(
    "one key only",
    "What the second key has signed is refused.",
    (
        WireIds,
        "read",
        lambda self, value: _read(_only_first(self), value),
    ),
    test=test_wire_identity.test_keys_are_changed_without_ending_sessions,
)
_add(
    "binding unseen",
    "Sessions that come from another node are neither counted nor told of.",
    (JvmRouteBinder, "begin", nothing),
    test=test_wire_identity.test_t101_a_session_from_another_node_is_bound_to_this_one,
)
_add(
    "binder cannot be off",
    "The cookie gets the answering node's route whatever the switch says.",
    (Pipeline, "keeps_routes", property(lambda self: False)),
    test=test_wire_identity.test_t102_binding_can_be_switched_at_run_time,
)
_add(
    "drained for everybody",
    "A drained node sends away also clients whose session lives.",
    (
        Draining,
        "sends_away",
        lambda self, request, cookies, has_session: _sends_away(
            self, request, cookies, has_session=False
        ),
    ),
    test=partial(
        test_neighbours.test_t114_a_drained_node_serves_only_whose_session_lives,
        adapters.Wsgi,
        "gateway",
        "DIS",
        "known",
    ),
)
_add(
    "redirect as it came",
    "The path of a redirect is the request's, with its id, slashes and line breaks.",
    (pipeline, "location", _as_it_came),
    test=partial(
        test_neighbours.test_t114_the_id_goes_from_the_url_and_nothing_else,
        adapters.Wsgi,
        "//evil.test/a",
        "",
        "/evil.test/a",
    ),
)
_add(
    "robots forgotten",
    "Each request of a robot begins a session.",
    (CrawlerSessions, "find", lambda self, identity: None),
    test=partial(
        test_neighbours.test_t114_a_hundred_requests_of_a_robot_are_one_session,
        adapters.Wsgi,
    ),
)
_add(
    "everybody is a robot",
    "Clients at one address get one session.",
    (CrawlerSessions, "identity", lambda self, request: "robot"),
    test=partial(test_neighbours.test_t114_a_session_for_each_identity, adapters.Wsgi),
)
_add(
    "inclusion uncounted",
    "Commits of requests that another application makes are not told apart.",
    (ReplicationValve, "sent", lambda self, began, at, is_included: _sent(self, began, at)),
    test=test_valve.test_t108_requests_are_counted_and_the_counters_can_be_reset,
)
_add(
    "unknown entries unseen",
    "Nobody is told of what a newer release writes.",
    (UnknownEntries, "look", nothing),
    test=test_delta_rows.test_t29_what_a_newer_version_writes_is_passed_on_and_the_rest_applied,
)
_add(
    "Flask breaks",
    "A store that does not answer is an error of the application.",
    (flask, "StoreError", ZeroDivisionError),
    test=test_flask.test_a_session_that_cannot_be_looked_up_is_answered_by_503,
)
_add(
    "Flask sends nobody away",
    "An answer that is given in place of the application's is not put in the place of a page.",
    (flask, "_replace", nothing),
    test=test_flask.test_a_session_that_cannot_be_looked_up_is_nobody_elses_to_answer,
)
_add(
    "route forced on Flask",
    "The cookie of a permanent session has this node's route although that is switched off.",
    (AnswerCookies, "is_news", lambda self, held, value: value != held.offered),
    test=test_each_adapter.test_t102_binding_can_be_off_where_the_cookie_is_sent_again,
)
_add(
    "Django keeps its route",
    "Under Django a session of another node is not bound to this one.",
    (django_requests.SessionMiddleware, "_write_id", nothing),
    test=partial(
        test_each_adapter.test_t101_a_session_from_another_node_is_bound_to_this_one,
        adapters.Django,
    ),
)
_add(
    "settings silently left out",
    "What only our middleware can do is configured under Django's own, and nobody says so.",
    (django_node, "_refuse_without_middleware", nothing),
    test=partial(
        test_django_requests.test_what_needs_the_middleware_is_refused_without_it,
        {},
        {"route": "web1"},
        "TRIBES_WEB",
    ),
)
