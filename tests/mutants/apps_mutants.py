"""Broken handling of several applications on a node: managers, logins, valves.

Plans of faults have no file of a configuration and no client with cookies, so most of these name
the test that notices them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.config import test_managers as managers
from tests.config import test_tomcat_managers as xml
from tests.mutants import registry
from tests.mutants.registry import Patch, nothing
from tests.ports import free_udp_port
from tests.sim import test_contexts as contexts
from tests.web import test_sso as sso
from tests.web import test_valve as valves
from tribes.config import completing, load, model
from tribes.config.model import NodeConfig
from tribes.config.tomcat import making
from tribes.manager.delta import DeltaManager
from tribes.manager.group import SessionGroup
from tribes.runtime.sso import Login, SingleSignOn
from tribes.web.answer_cookies import AnswerCookies
from tribes.web.binding import SessionBinding
from tribes.web.valve import ReplicationValve

if TYPE_CHECKING:
    from tribes.manager.session import Session


def _add(name: str, text: str, *patches: Patch, test: Callable[[], object]) -> None:
    registry.add(f"apps: {name}", text, *patches, test=test)


def _with_pair(test: Callable[[sso.Pair], None]) -> None:
    """Run a test of two nodes without pytest."""
    port = free_udp_port()
    a, b = sso.make("a", port), sso.make("b", port)
    with sso.running(a, b):
        test((a, b))


def _paired(test: Callable[[sso.Pair], None]) -> Callable[[], object]:
    return partial(_with_pair, test)


_session_ended = SingleSignOn.session_ended


def _always_logout(self: SingleSignOn, session: Session, *, is_logout: bool) -> None:
    _session_ended(self, session, is_logout=True)


# Configuration.

_add(
    "template for all",
    "A context's own manager is ignored.",
    (NodeConfig, "manager_of", lambda self, context: self.manager),
    test=managers.test_t02_an_applications_own_manager_goes_over_the_template,
)
_add(
    "nothing of the template",
    "What a context's manager does not say is the default, not the node's.",
    (completing, "_inherited", lambda template, own: {}),
    test=managers.test_t02_an_applications_own_manager_goes_over_the_template,
)
_add(
    "both stores",
    "A context that names another store keeps the template's, too.",
    (completing, "_STORES", frozenset()),
    test=managers.test_a_context_that_names_another_store_leaves_the_templates,
)
_add(
    "one directory",
    "Two contexts may have one directory.",
    (model, "_check_places", nothing),
    test=managers.test_two_contexts_in_one_directory_are_refused,
)
_add(
    "directory escaped",
    "A context's name is put into a path as it is.",
    (model, "_file_name", lambda context: context),
    test=managers.test_contexts_of_a_template_with_a_file_have_one_each,
)
_add(
    "kinds mixed up in XML",
    "Every manager of a document is a Delta manager.",
    (making, "_KINDS", dict.fromkeys(making._KINDS, "delta")),
    test=xml.test_t01_a_distributable_application_has_the_clusters_manager_and_another_a_local_one,
)
_add(
    "template kept in XML",
    "A context's own manager in XML has what the cluster's template says.",
    (making, "_OF_CLUSTER", making._OF_CLUSTER | {"max_active_sessions"}),
    test=xml.test_t02_a_contexts_own_manager_replaces_the_template,
)
_add(
    "completed too late",
    "Managers are not completed at all.",
    (load, "complete_managers", nothing),
    test=managers.test_t02_an_applications_own_manager_goes_over_the_template,
)

# Contexts of a group.

_add(
    "contexts for everybody",
    "A member that lacks a context is a target of its sessions.",
    (
        SessionGroup,
        "_connect",
        lambda self, member, now: [r.peer_up(member, now) for r in self.replicators.values()],
    ),
    test=contexts.test_a_member_gets_only_the_contexts_that_it_has,
)
_add(
    "local contexts shared",
    "Contexts that are in no group are replicated like the others.",
    (NodeConfig, "replicated", property(lambda self: self.contexts)),
    test=contexts.test_a_member_gets_only_the_contexts_that_it_has,
)

# Single sign-on.

_add(
    "logout of one",
    "A logout ends the entry, and no other session.",
    (SingleSignOn, "end_sessions", nothing),
    test=_paired(sso.test_t109_a_login_on_one_member_and_application_is_one_on_all),
)
_add(
    "time-out of all",
    "The time-out of one session is a logout.",
    (
        SingleSignOn,
        "session_ended",
        _always_logout,
    ),
    test=_paired(sso.test_t109_the_time_out_of_one_session_ends_no_other),
)
_add(
    "ended logins forgotten",
    "A session whose login was ended elsewhere goes on.",
    (SingleSignOn, "was_ended", lambda self, session: False),
    test=sso.test_a_session_that_only_another_member_has_ends_with_its_next_request,
)
_add(
    "late is ended",
    "A login that is not here yet is taken for one that was ended.",
    (SingleSignOn, "was_ended", lambda self, session: self.entry_of(session) is None),
    test=_paired(sso.test_a_session_whose_login_has_not_arrived_yet_is_not_ended),
)
_add(
    "principal not given",
    "A request without a session is not told who is logged in.",
    (Login, "principal", property(nothing)),
    test=_paired(sso.test_t109_a_login_on_one_member_and_application_is_one_on_all),
)
_add(
    "cookie kept",
    "A client keeps the cookie of a login that is over.",
    (AnswerCookies, "login", nothing),
    test=_paired(sso.test_an_unknown_cookie_is_taken_from_the_client),
)

# The valve.

_add(
    "filter finds parts",
    "The filter matches where a part of the path does.",
    (
        ReplicationValve,
        "is_filtered",
        lambda self, path: self._filter is not None and bool(self._filter.search(path)),
    ),
    test=partial(
        valves.test_t105_the_filter_matches_the_whole_decoded_path, "/a.gif", "/shop/a.gif", False
    ),
)
_commit = SessionBinding.commit


def _unless_filtered(binding: SessionBinding, held: Any) -> None:
    if not held.is_filtered:
        _commit(binding, held)


_add(
    "filtered is lost",
    "What a filtered request changed is dropped.",
    (SessionBinding, "commit", lambda self, held, can_refuse=True: _unless_filtered(self, held)),
    test=valves.test_t105_nobody_waits_for_what_a_filtered_request_changed,
)
_add(
    "everybody is first",
    "Each member says that it is a session's first.",
    (DeltaManager, "is_primary", lambda self, session_id: True),
    test=valves.test_t106_the_application_is_told_whether_this_member_is_the_sessions_first,
)
_add(
    "counters kept",
    "A reset of the counters does nothing.",
    (ReplicationValve, "reset", nothing),
    test=valves.test_t108_requests_are_counted_and_the_counters_can_be_reset,
)
