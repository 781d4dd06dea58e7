"""Broken drains and snapshots are noticed: each mutant breaks one rule, and its test fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.mutants.registry import nothing
from tests.runtime import test_snapshots as snapshots
from tests.sim import test_cluster as cluster
from tests.sim import test_drain as drain
from tribes.manager import replication
from tribes.manager.drain import Drain
from tribes.manager.expiry import Expiry
from tribes.manager.group import SessionGroup
from tribes.manager.replication import Replicator
from tribes.manager.table import SessionTable
from tribes.runtime.snapshots import Snapshots
from tribes.stores.snapshot import SnapshotFile

if TYPE_CHECKING:
    from pathlib import Path

_on_receipt = Drain.on_receipt


def _take_any_receipt(self: Drain, source: Any, message: Any, now: float) -> None:
    for asked in self._asked.values():
        asked.open.clear()


def _overwrite(self: SessionTable, key: str, incoming: Any, now_ds: Any = None) -> Any:
    before = self.get(key)
    self._records[key] = incoming
    return before, incoming, True


def _not_served(self: Drain, source: Any, message: Any, now: float) -> None:
    message.differing.clear()
    _on_receipt(self, source, message, now)


_DRAIN: list[tuple[str, Any, str, Any, Callable[[], None]]] = [
    (
        "leaves without a receipt",
        Drain,
        "is_over",
        property(lambda self: True),
        cluster.test_nobody_is_drained_while_a_member_must_be_asked_again,
    ),
    (
        "one receipt stands for all members",
        Drain,
        "on_receipt",
        _take_any_receipt,
        drain.test_what_only_the_leaving_node_has_is_handed_over_first,
    ),
    (
        "what differs is not sent",
        Drain,
        "on_receipt",
        _not_served,
        drain.test_what_only_the_leaving_node_has_is_handed_over_first,
    ),
    (
        "every question is answered by a receipt",
        replication,
        "differing_partitions",
        lambda manager, message: [],
        drain.test_what_only_the_leaving_node_has_is_handed_over_first,
    ),
    (
        "a lost question is not asked again",
        Drain,
        "_watch",
        nothing,
        drain.test_lost_question_is_asked_again,
    ),
    (
        "a late commit needs no receipt",
        Drain,
        "changed",
        nothing,
        drain.test_commit_during_the_drain_needs_its_own_receipt,
    ),
    (
        "nobody is told of the drain",
        SessionGroup,
        "_tell_draining",
        nothing,
        drain.test_nobody_waits_for_a_draining_member_or_counts_it,
    ),
    (
        "draining members are waited for",
        Replicator,
        "peer_draining",
        nothing,
        drain.test_draining_node_commits_like_any_other,
    ),
    (
        "draining members get no changes",
        Replicator,
        "_send_to_draining",
        lambda self, targets, *_: tuple(m for m in targets if m not in self._draining),
        drain.test_nobody_waits_for_a_draining_member_or_counts_it,
    ),
    (
        "a draining node expires sessions",
        Expiry,
        "retire",
        nothing,
        drain.test_draining_node_expires_nothing_any_more,
    ),
    (
        "all wait for all when everybody drains",
        SessionGroup,
        "is_last",
        property(lambda self: False),
        drain.test_all_drain_together_and_none_waits,
    ),
]


@pytest.mark.parametrize(
    ("owner", "name", "broken", "check"), [m[1:] for m in _DRAIN], ids=[m[0] for m in _DRAIN]
)
def test_a_broken_drain_is_noticed(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, broken: Any, check: Callable[[], None]
) -> None:
    """The check passes with the sound build and fails with the broken one."""
    check()
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(AssertionError):
        check()


def _save_alone(self: Snapshots, manager: Any, form: Any, known: Any) -> Any:
    return ((key, form.pack(key, manager.table.get(key))) for key in manager.table.keys())  # noqa: SIM118


def _save_live(self: Snapshots, manager: Any, form: Any, known: Any) -> Any:
    return (
        (key, form.pack(key, manager.table.get(key)))
        for key in manager.table.keys()  # noqa: SIM118
        if manager.find(key) is not None
    )


_SNAPSHOTS: list[tuple[str, Any, str, Any, Callable[[Snapshots, Path], None]]] = [
    (
        "a snapshot overwrites newer data",
        SessionTable,
        "merge_in",
        _overwrite,
        lambda files, _: snapshots.test_newer_data_of_a_live_member_survives_an_old_snapshot(files),
    ),
    (
        "the last worker's file replaces the others'",
        Snapshots,
        "_merged",
        _save_alone,
        lambda files, _: snapshots.test_workers_of_one_host_share_a_file(files),
    ),
    (
        "ended sessions are not saved",
        Snapshots,
        "_merged",
        _save_live,
        snapshots.test_logout_in_one_snapshot_beats_the_session_in_another,
    ),
    (
        "the file stays when it is loaded",
        SnapshotFile,
        "remove",
        nothing,
        lambda files, _: snapshots.test_sessions_survive_a_stop_of_all_members(files),
    ),
    (
        "a corrupt file is removed",
        SnapshotFile,
        "refuse",
        lambda self: self.path.unlink() or self.path,
        lambda files, path: snapshots.test_corrupt_snapshot_is_refused_kept_and_named(files, path),
    ),
]


@pytest.mark.parametrize(
    ("owner", "name", "broken", "check"),
    [m[1:] for m in _SNAPSHOTS],
    ids=[m[0] for m in _SNAPSHOTS],
)
def test_a_broken_snapshot_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    owner: Any,
    name: str,
    broken: Any,
    check: Callable[[Snapshots, Path], None],
) -> None:
    """The check passes with the sound build and fails with the broken one."""

    def run(directory: Path) -> None:
        directory.mkdir()
        check(Snapshots(str(directory / "{context}.sessions")), directory)

    run(tmp_path / "sound")
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises((AssertionError, FileNotFoundError)):
        run(tmp_path / "broken")
