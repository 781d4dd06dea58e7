"""Broken stores, and managers that use them wrongly; each names the test that notices it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.manager import test_persistent as persistent_tests
from tests.manager import test_standard as standard_tests
from tests.mutants import registry
from tests.mutants.registry import Patch, nothing
from tests.stores import test_envelope, test_file, test_protocol, test_snapshot
from tests.web import test_persistent_valve as valve_tests
from tribes.errors import StoreError
from tribes.manager import shelf
from tribes.manager.local import LocalManager
from tribes.manager.persistent import PersistentManager
from tribes.manager.shelf import Shelf
from tribes.manager.standard import StandardManager
from tribes.runtime.session_locks import SessionLocks
from tribes.stores import snapshot
from tribes.stores.envelope import Envelope
from tribes.stores.file import FileStore
from tribes.stores.snapshot import SnapshotFile
from tribes.testing.manager_strategies import FakeTime
from tribes.web.binding import SessionBinding


def add(name: str, text: str, *patches: Patch, test: Callable[[], object]) -> None:
    """Register a mutant that a test must notice."""
    registry.add(f"stores: {name}", text, *patches, test=test)


def with_store(test: Callable[[Any], object]) -> Callable[[], object]:
    """A test of a directory."""

    def run() -> None:
        with tempfile.TemporaryDirectory() as path:
            test(FileStore(Path(path) / "s"))

    return run


def with_nodes(test: Callable[..., object], *, takes_clocks: bool = True) -> Callable[[], object]:
    """A test of processes on one directory."""

    def run() -> None:
        clocks = FakeTime()
        with (
            tempfile.TemporaryDirectory() as path,
            persistent_tests.nodes_on("file", Path(path), clocks) as make,
        ):
            test(make, clocks) if takes_clocks else test(make)

    return run


def with_path(test: Callable[..., object]) -> Callable[[], object]:
    """A test of a file between two runs."""

    def run() -> None:
        with tempfile.TemporaryDirectory() as path:
            test(Path(path) / "sessions", FakeTime())

    return run


def with_snapshot(test: Callable[[Any], object]) -> Callable[[], object]:
    """A test of such a file alone."""

    def run() -> None:
        with tempfile.TemporaryDirectory() as path:
            made = SnapshotFile(Path(path) / "sessions")
            made.save(test_snapshot.VALUES)
            test(made)

    return run


# ---- bytes ---------------------------------------------------------------------------------------

add(
    "version not looked at",
    "Who saves second replaces what he has not seen.",
    (FileStore, "_check_version", nothing),
    test=with_store(test_protocol.test_a_save_replaces_only_the_version_it_has_seen),
)
add(
    "links followed",
    "A link in the directory leads out of it.",
    (os, "O_NOFOLLOW", 0),
    test=lambda: with_store(
        lambda store: test_file.test_t93_links_are_not_followed(store, store.directory.parent)
    )(),
)
add(
    "refused bytes removed",
    "What cannot be read is deleted.",
    (FileStore, "refuse", lambda self, key: self.delete(key)),
    test=lambda: with_store(
        lambda store: test_file.test_foreign_files_are_refused_and_kept(store, b"short")
    )(),
)
add(
    "value bound to nothing",
    "One session's value opens as another's.",
    (Envelope, "_bound", lambda self, key, data: data),
    test=lambda: test_envelope.test_a_value_is_bound_to_its_key_and_application("authenticated"),
)

_checked = Envelope._checked


def _believing(self: Any, key: str, sealed: bytes, *, is_authenticated: bool) -> bytes:
    if not is_authenticated:
        return sealed[10:-4]
    return _checked(self, key, sealed, is_authenticated=is_authenticated)


add(
    "forger believed",
    "With a key set, a value that says it has no authentication is opened.",
    (Envelope, "_checked", _believing),
    test=test_envelope.test_with_a_key_unauthenticated_values_are_refused,
)

_parse = snapshot._parse


def _impatient(data: bytes) -> snapshot.Contents:
    values, damaged = _parse(data)
    return snapshot.Contents([] if damaged else values, damaged)


add(
    "one damage costs all",
    "A file of sessions with one damage is not used.",
    (snapshot, "_parse", _impatient),
    test=with_snapshot(test_snapshot.test_damage_to_a_head_costs_one_session),
)

# ---- managers ------------------------------------------------------------------------------------

add(
    "file kept",
    "The file of the last stop stays after the start.",
    (SnapshotFile, "remove", nothing),
    test=with_path(standard_tests.test_t88_the_file_is_gone_after_the_start),
)
add(
    "expired loaded",
    "Sessions that expired while the process was down come back.",
    (StandardManager, "_is_worth_loading", lambda self, record: True),
    test=with_path(standard_tests.test_idle_time_goes_on_while_the_process_is_down),
)
add(
    "conflict overwrites",
    "Who is told of a conflict saves his own copy all the same.",
    (shelf, "merge", lambda theirs, ours: ours),
    test=with_nodes(persistent_tests.test_two_nodes_that_save_one_session_merge),
)
add(
    "end not stored",
    "A logout changes the memory only.",
    (PersistentManager, "_store_end", nothing),
    test=with_nodes(persistent_tests.test_per_request_a_logout_elsewhere_is_not_undone),
)
add(
    "end forgotten",
    "A logout that the store did not take is not tried again.",
    (PersistentManager, "_finish_ends", nothing),
    test=with_nodes(
        persistent_tests.test_a_logout_whose_save_failed_is_repeated, takes_clocks=False
    ),
)
add(
    "no links",
    "A session is found by its first id only.",
    (Shelf, "_write_links", nothing),
    test=with_nodes(persistent_tests.test_rotated_ids_lead_to_the_session_and_retired_ones_do_not),
)
add(
    "old copy ends it",
    "An idle copy in memory expires what another node uses.",
    (PersistentManager, "_expire", LocalManager._expire),
    test=with_nodes(
        persistent_tests.test_an_idle_copy_in_memory_does_not_end_what_another_node_uses
    ),
)
add(
    "stale copy ends it",
    "A session that is used in memory expires by its copy.",
    (
        PersistentManager,
        "_expire_in_store",
        lambda self: sum(
            self.shelf.delete(each.key, each.record, each.version)
            for each in self.shelf.expired(10)
        ),
    ),
    test=with_nodes(persistent_tests.test_a_live_session_is_not_expired_by_its_stale_copy),
)

_find = PersistentManager.find


def _forgiving(self: Any, session_id: str, *, partial: bool = False) -> Any:
    try:
        return _find(self, session_id, partial=partial)
    except StoreError:
        return None


add(
    "store down, session gone",
    "While the store does not answer, everybody is logged out.",
    (PersistentManager, "find", _forgiving),
    test=with_nodes(
        persistent_tests.test_a_store_that_is_down_is_an_error_not_a_missing_session,
        takes_clocks=False,
    ),
)
add(
    "always written",
    "Per request every use is written.",
    (PersistentManager, "_is_unchanged", lambda self, key, record: False),
    test=with_nodes(
        partial(
            persistent_tests.test_per_request_reading_writes_only_now_and_then,
            limit=80,
            seconds=10,
        )
    ),
)
add(
    "never written",
    "Per request changes are not written.",
    (PersistentManager, "_is_unchanged", lambda self, key, record: key in self._saved),
    test=with_nodes(
        persistent_tests.test_per_request_every_node_sees_what_the_last_request_did,
        takes_clocks=False,
    ),
)

# ---- per request ---------------------------------------------------------------------------------


def per_request(test: Callable[[Any], object]) -> Callable[[], object]:
    """A test of processes that share a store."""

    def run() -> None:
        with tempfile.TemporaryDirectory() as path:
            made = valve_tests.Processes(Path(path))
            try:
                test(made)
            finally:
                for each in made.made:
                    each.stop()

    return run


_enter = SessionLocks._enter


def _patient(self: Any, key: str, make: Any) -> Any:
    """Waits, whatever the setting says."""
    self._may_wait = True
    return _enter(self, key, make)


add(
    "always waits",
    "A request waits for another one though it shall be refused.",
    (SessionLocks, "_enter", _patient),
    test=per_request(valve_tests.test_t96_flask_answers_429_too),
)
add(
    "no filter",
    "Requests that match the filter load and save their session.",
    (SessionBinding, "is_filtered", lambda self, path: False),
    test=per_request(valve_tests.test_t96_requests_that_match_the_filter_have_no_session),
)
add(
    "asynchronous requests wait for nobody",
    "A task runs beside another one of its session.",
    (SessionBinding, "alock", lambda self, held: _no_lock()),
    test=per_request(valve_tests.test_t96_an_asynchronous_request_keeps_it_until_it_is_over),
)


async def _no_lock() -> None:
    """Nothing is waited for."""
