"""A port for operators that lets in whom it must not, or tells what it must not.

Plans of faults have no operators, so each of these names the test that notices it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

from tests.admin import test_gate, test_status
from tests.admin.conftest import TOKEN
from tests.mutants import registry
from tests.mutants.registry import Patch, nothing
from tribes.admin import gate, metrics, recorder
from tribes.admin.gate import Gate
from tribes.admin.recorder import Failures


def _add(name: str, text: str, *patches: Patch, test: Callable[[], object]) -> None:
    registry.add(f"operators: {name}", text, *patches, test=test)


_SHORT = SimpleNamespace(compare_digest=lambda a, b: b.startswith(a))

_add(
    "token begun is token enough",
    "The beginning of the token opens the port.",
    (gate, "hmac", _SHORT),
    test=partial(
        test_gate.test_whoever_does_not_show_the_token_is_refused, "Bearer 0123456789abcdef"
    ),
)
_add(
    "any scheme",
    "A token is taken under any scheme.",
    (Gate, "check_token", lambda self, request: None),
    test=partial(test_gate.test_whoever_does_not_show_the_token_is_refused, f"Basic {TOKEN}"),
)
_add(
    "power without a token",
    "Without a token sessions are shown and ended for anybody.",
    (Gate, "check_power", Gate.check_token),
    test=test_gate.test_without_a_token_single_sessions_are_nobodys_business,
)
_add(
    "every name is loopback",
    "A foreign name that points to this machine is answered.",
    (gate, "_is_loopback", lambda host: True),
    test=partial(
        test_gate.test_without_a_token_a_name_that_points_to_loopback_is_refused, "evil.test"
    ),
)
_add(
    "pages of any origin",
    "A page of another origin is answered.",
    (Gate, "check_origin", nothing),
    test=partial(test_gate.test_a_page_of_another_origin_is_refused, None),
)
_add(
    "labels as they come",
    "A member's name is written into the metrics as it is.",
    (metrics, "_label", lambda text: text),
    test=test_status.test_labels_of_others_cannot_break_the_text,
)
_add(
    "all is failure",
    "Every notice counts as a failure.",
    (recorder, "_FINE", frozenset()),
    test=test_status.test_failures_are_kept_up_to_a_bound,
)
_add(
    "failures not counted",
    "Failures are not noted.",
    (Failures, "watch", nothing),
    test=test_status.test_failures_are_kept_up_to_a_bound,
)
