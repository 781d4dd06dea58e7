"""Broken web adapters: sessions that are found, committed or told to the client wrongly.

Plans of faults have no client with cookies, so each of these names the test that notices it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.manager import test_values
from tests.mutants import registry
from tests.mutants.registry import Patch, nothing
from tests.web import (
    adapters,
    test_each_adapter,
    test_flask,
    test_long_requests,
    test_ready,
    test_urls,
    test_wsgi,
)
from tribes.manager import values
from tribes.manager.policy import CommitPolicy
from tribes.web import flask, signing, urls
from tribes.web.binding import SessionBinding
from tribes.web.cookies import CookieSettings, cookie_values
from tribes.web.flask import FlaskSession
from tribes.web.lookup import SessionLookup
from tribes.web.node_life import NodeLife
from tribes.web.request_session import RequestSession
from tribes.web.wsgi import _Answer

if TYPE_CHECKING:
    from tribes.manager.inbox import CommitResult


def _add(name: str, text: str, *patches: Patch, test: Callable[[], object]) -> None:
    registry.add(f"web: {name}", text, *patches, test=test)


_find = SessionLookup.find
_open = SessionBinding.open
_commit = SessionBinding.commit
_acommit = SessionBinding.acommit
_start = _Answer.start
_header = CookieSettings.header


def _first_only(
    self: SessionLookup, headers: Iterable[bytes], name: str, request: Any = None
) -> Any:
    value = cookie_values(headers, name)[:1]
    return _find(self, [f"{name}={value[0]}".encode()] if value else [], name, request)


def _ready_when_joined(self: NodeLife) -> bool:
    self.join()
    return self.node.is_ready


def _tell_of_missing(self: SessionBinding, result: CommitResult) -> bool:
    return bool(result.version) and (bool(result.missing) or not self._acks_all)


def _start_at_once(self: _Answer, *head: Any) -> Any:
    write = _start(self, *head)
    if not self.is_sent:
        self.send_head()
    return write


def _unguarded(custom: Any, value: object) -> object:
    try:
        return custom.encode(value)
    except AttributeError as error:
        raise LookupError("as it came") from error


_add(
    "first cookie only",
    "Of several cookies of one name only the first is looked at.",
    (SessionLookup, "find", _first_only),
    test=test_wsgi.test_t99_of_several_cookies_the_one_that_names_a_session_counts,
)
_add(
    "route is part of the id",
    "The route is not taken off the cookie's value.",
    (signing, "split_route", lambda value: (value, "")),
    test=test_wsgi.test_cookie_follows_scheme_route_and_settings,
)
_add(
    "head leaves at once",
    "WSGI's head goes to the server when the application gives it.",
    (_Answer, "start", _start_at_once),
    test=test_wsgi.test_head_waits_for_the_first_bytes,
)
_add(
    "commit after the head",
    "What a request changed is committed when all is over.",
    (
        SessionBinding,
        "commit",
        lambda self, held, can_refuse=True: None if can_refuse else _commit(self, held),
    ),
    test=test_wsgi.test_change_stands_before_the_server_gets_the_head,
)
_add(
    "late changes lost",
    "What the body changes is not committed.",
    (_Answer, "end", nothing),
    test=test_wsgi.test_changes_of_the_body_are_committed_at_its_end,
)
_add(
    "never refused",
    "A commit on too few members is served although that is to be an error.",
    (
        SessionBinding,
        "commit",
        lambda self, held, can_refuse=True: _commit(self, held, can_refuse=False),
    ),
    test=partial(
        test_wsgi.test_refused_commit_is_answered_by_503, respond=test_wsgi.write, method="GET"
    ),
)
_add(
    "session without a client",
    "A request that fails before its head leaves a new session that nobody can use.",
    (RequestSession, "keeps_changes", property(lambda self: True)),
    test=partial(
        test_wsgi.test_handler_that_raises_keeps_its_changes_but_begins_no_session, in_body=True
    ),
)
_add(
    "failed start forgotten",
    "A node that cannot start fails the first request only.",
    (NodeLife, "_has_ended", lambda self, node: node.was_started and not node.is_running),
    test=test_wsgi.test_node_that_cannot_start_fails_every_request,
)
_add(
    "clear keeps the id",
    "flask.session.clear() empties the session under its old id.",
    (FlaskSession, "end_id_if_cleared", nothing),
    test=test_flask.test_clear_logs_out_and_at_a_login_changes_the_id,
)
_add(
    "refusal keeps the body",
    "A Flask answer that is refused has the view's body.",
    (
        flask,
        "_replace",
        lambda response, status, fields, body: setattr(response, "status", status),
    ),
    test=test_flask.test_refused_commit_is_answered_by_503,
)
_add(
    "cookie lives until the browser is closed",
    "A permanent session has a cookie that is not.",
    (CookieSettings, "header", lambda self, value, **how: _header(self, value, is_secure=False)),
    test=test_flask.test_permanent_sessions_outlive_the_browser,
)
_add(
    "bad encode costs the commit",
    "What the application's encode raises is not turned into a refusal of the value.",
    (values, "_stored", _unguarded),
    test=test_values.test_any_class_is_stored_by_two_functions,
)
_add(
    "ids for everybody",
    "Links to other sites get the session's id.",
    (urls, "_is_mine", lambda here, scheme, host, path: True),
    test=partial(
        test_urls.test_t99_id_goes_to_links_of_this_application_only,
        ask=test_urls.wsgi,
        url="http://evil.test/shop/a",
        encoded="http://evil.test/shop/a",
    ),
)
_add(
    "cookie hides the URL",
    "A stale cookie makes the id in the URL unread.",
    (
        SessionBinding,
        "open",
        lambda self, headers, url=None, request=None: _open(
            self, headers, None if any(headers) else url, request
        ),
    ),
    test=partial(
        test_urls.test_t99_cookie_counts_before_the_url_and_makes_links_plain, ask=test_urls.wsgi
    ),
)
_add(
    "asked commit is silent",
    "A refused commit that the application asked for raises nothing.",
    (
        SessionBinding,
        "acommit",
        lambda self, held, can_refuse=True: _acommit(self, held, can_refuse=False),
    ),
    test=test_long_requests.test_commit_that_a_socket_asks_for_can_be_refused,
)
_add(
    "content of the beginning",
    "After a commit in a stream the session shows what it was when the request began.",
    (RequestSession, "_renew", nothing),
    test=test_flask.test_stream_commits_when_it_says_so,
)
_add(
    "late commit goes unsaid",
    "A late commit on too few members is not judged, so neither counted nor logged.",
    (CommitPolicy, "judge", nothing),
    test=test_long_requests.test_background_task_that_is_refused_is_reported,
)
_add(
    "leaving members forgotten",
    "Clients get no token although a member that is about to leave still serves them.",
    (SessionBinding, "must_tell", _tell_of_missing),
    test=test_ready.test_client_reads_its_writes_on_a_node_that_is_to_leave,
)
_add(
    "balancer waits",
    "A balancer's question is answered when the node has joined.",
    (NodeLife, "is_ready", _ready_when_joined),
    test=partial(
        test_each_adapter.test_ready_is_answered_at_once_by_a_node_that_joins, adapters.Wsgi
    ),
)
