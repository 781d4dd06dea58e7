"""Broken attached workers: commits lost or doubled when a wire breaks, and sessions that are old.

The worlds of these tests are small and theirs alone, so each mutant names the test that notices it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.manager import test_attach_wire, test_attached
from tests.manager.attached_worker import Host, Worker
from tests.manager.cluster import start
from tests.mutants import registry
from tests.mutants.registry import Patch, nothing
from tribes.errors import SessionUnreachableError
from tribes.manager import attach_service, attached
from tribes.manager.attach_calls import Calls
from tribes.manager.attach_service import AttachService
from tribes.manager.attach_wire import FrameReader
from tribes.manager.attached import AttachedManager
from tribes.testing.sim import World


def _add(name: str, text: str, *patches: Patch, test: Callable[..., Any], **given: Any) -> None:
    registry.add(f"attached: {name}", text, *patches, test=partial(_run, test, given))


def _run(test: Callable[..., Any], given: dict[str, Any]) -> None:
    """Call a test with what its fixtures make."""
    nodes = start(World(seed=3), "ab")
    host = Host(nodes[0])
    made = {"nodes": nodes, "host": host, "worker": Worker(host), **given}
    names = inspect.signature(test).parameters
    test(**{name: made[name] for name in names})


_begin = Calls.begin
_connected = Calls.connected
_find = AttachedManager.find
_prepare = AttachedManager.prepare
_give_back = AttachService.give_back
_read = FrameReader.next


class _Anything:
    """Equal to whatever a worker has seen."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


def _as_it_was(self: Calls) -> list[bytes]:
    _connected(self)
    return [call.frame for call in self._open.values()]


def _delta_only(self: Calls, kind: int, fields: Any, *, again: Any = None, **more: Any) -> bytes:
    if again is not None:
        again = (*again[:3], fields[3], *again[4:])
    return _begin(self, kind, fields, again=again, **more)


def _while_gone(self: Calls, *args: Any, **more: Any) -> bytes:
    gone, self.gone = self.gone, None
    try:
        return _begin(self, *args, **more)
    finally:
        self.gone = gone


def _none_if_lost(self: AttachedManager, session_id: str, **more: Any) -> Any:
    try:
        return _find(self, session_id, **more)
    except SessionUnreachableError:
        return None


def _stale(self: AttachedManager, session_id: str) -> Any:
    return (attached._brought.get() or {}).get((id(self), session_id))


def _forgetful(self: AttachedManager, session: Any) -> Any:
    self._unknown.clear()
    return _prepare(self, session)


def _unbounded(self: FrameReader) -> bytes | None:
    self.max_bytes = 2**32
    return _read(self)


_add(
    "sent again as it was",
    "A commit whose answer was lost is sent again as a swap, found stale, and built anew.",
    (Calls, "connected", _as_it_was),
    test=test_attached.test_commit_without_an_answer_is_sent_again_and_applied_once,
    lost="answer",
)
_add(
    "only the delta again",
    "To a node that has forgotten all, only what was changed is sent again.",
    (Calls, "begin", _delta_only),
    test=test_attached.test_commit_to_a_node_that_has_forgotten_all_brings_the_session,
)
_add(
    "swap without a look",
    "The node merges a commit whatever has become of the session that its worker saw.",
    (attach_service, "_seen", lambda key, record: _Anything()),
    test=test_attached.test_parallel_requests_of_two_workers_are_joined,
)
_add(
    "unknown outcome forgotten",
    "A commit of which nobody knows what became of it is built anew by the next one.",
    (AttachedManager, "prepare", _forgetful),
    test=test_attached.test_outcome_that_nobody_knows_is_reported_and_settled_by_the_next_commit,
)
_add(
    "later change dropped",
    "What a request assigned while its commit's outcome was unknown is taken for committed.",
    (attached, "newer_values", lambda session, work: {}),
    test=test_attached.test_change_after_an_unknown_outcome_is_not_lost,
)
_add(
    "actor lent at once",
    "The actor of a worker that has vanished is given to the next one.",
    (AttachService, "give_back", lambda self, *args, **how: _give_back(self, *args, is_clean=True)),
    test=test_attached.test_actor_is_lent_again_when_its_worker_has_ended,
)
_add(
    "no answer is no session",
    "A node that does not answer logs everybody out.",
    (AttachedManager, "find", _none_if_lost),
    test=test_attached.test_question_that_is_not_answered_is_no_missing_session,
)
_add(
    "brought once for all",
    "What was brought for one request serves the next one.",
    (AttachedManager, "_take", _stale),
    test=test_attached.test_what_was_brought_serves_one_request_only,
)
_add(
    "uses unsaid",
    "The node does not hear of requests that only read.",
    (AttachedManager, "_used", nothing),
    test=test_attached.test_use_without_a_change_keeps_a_session,
)
_add(
    "loss untold",
    "A worker does not hear that its write was overwritten before it arrived.",
    (attach_service, "_overwritten", lambda delta, new: None),
    test=test_attached.test_write_that_was_overwritten_before_it_arrived_is_told,
)
_add(
    "kept for ever",
    "What filters keep in a worker is never let go.",
    (AttachedManager, "_look", nothing),
    test=test_attached.test_filtered_attributes_stay_in_their_worker_and_go_with_their_session,
)
_add(
    "waits for who is gone",
    "Requests wait although the node is known to be gone.",
    (Calls, "begin", _while_gone),
    test=test_attached.test_worker_whose_node_is_gone_says_so,
)
_add(
    "frames of any size",
    "A frame's length is believed.",
    (FrameReader, "next", _unbounded),
    test=test_attach_wire.test_frame_of_a_wrong_length_is_refused_before_it_has_come,
    length=65,
)
