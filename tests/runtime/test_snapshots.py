"""The files between a stop of all members and the next start: merged, shared, refused, locked."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tribes.config.model import ManagerConfig, NodeConfig
from tribes.errors import ConfigError, StoreError
from tribes.runtime.leaving import load_saved
from tribes.runtime.parts import Sessions
from tribes.runtime.snapshots import Snapshots
from tribes.security.keys import GroupKey, KeyRing
from tribes.stores.snapshot import SnapshotFile


def make(*contexts: str, pathname: str = "") -> tuple[NodeConfig, Sessions]:
    """The sessions of a process that has just been started."""
    config = NodeConfig(
        contexts=contexts or ("app",),
        manager=ManagerConfig(pathname=pathname),
    )
    return config, Sessions(config)


def manager(context: str = "app") -> Any:
    return make(context)[1].manager(context)


def write(at: Any, value: object, session_id: str = "", name: str = "value") -> str:
    session = at.find(session_id) if session_id else at.create()
    assert session is not None
    session[name] = value
    at.commit(session)
    return str(session.id)


def read(at: Any, session_id: str) -> Any:
    session = at.find(session_id)
    return None if session is None else dict(session)


@pytest.fixture
def files(tmp_path: Path) -> Snapshots:
    return Snapshots(str(tmp_path / "{context}.sessions"))


def test_sessions_survive_a_stop_of_all_members(files: Snapshots) -> None:
    """Saved, loaded, and the file is gone: after a crash it would bring ended sessions back."""
    before, after = manager(), manager()
    session_id = write(before, [1, 2])
    path = files.save(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert files.load(after) == (1, 0)
    assert read(after, session_id) == {"value": [1, 2]}
    assert not path.exists()
    assert files.load(after) == (0, 0)


def test_newer_data_of_a_live_member_survives_an_old_snapshot(files: Snapshots) -> None:
    """The file is merged: what was written since stays, what was ended since stays ended."""
    old, live = manager(), manager()
    changed, ended, other = (write(old, "old") for _ in range(3))
    files.save(old)
    Snapshots(str(files.path("app"))).load(live)
    files.save(old)
    write(live, "new", changed)
    write(live, 1, other, name="more")
    gone = live.find(ended)
    gone.invalidate()
    live.commit(gone)
    files.load(live)
    assert read(live, changed) == {"value": "new"}
    assert read(live, other) == {"value": "old", "more": 1}
    assert read(live, ended) is None


def test_same_snapshot_on_several_members_does_no_harm(files: Snapshots) -> None:
    """Equal digests afterwards, and a session is there once."""
    old = manager()
    sessions = [write(old, number) for number in range(20)]
    nodes = [manager() for _ in range(3)]
    for node in nodes:
        files.save(old)
        assert files.load(node) == (20, 0)
    assert {node.table.root_digest() for node in nodes} == {old.table.root_digest()}
    assert [read(nodes[2], each)["value"] for each in sessions] == list(range(20))


def test_logout_in_one_snapshot_beats_the_session_in_another(
    files: Snapshots, tmp_path: Path
) -> None:
    """Ended sessions are saved as well."""
    stale, fresh, after = manager(), manager(), manager()
    session_id = write(stale, 1)
    other = Snapshots(str(tmp_path / "other"))
    other.save(stale)
    other.load(fresh)
    ended = fresh.find(session_id)
    ended.invalidate()
    fresh.commit(ended)
    for member, where in ((stale, other), (fresh, files)):
        where.save(member)
        where.load(after)
    assert read(after, session_id) is None


def test_workers_of_one_host_share_a_file(files: Snapshots) -> None:
    """Each adds what the others did not have, all at the same moment."""
    workers = [manager() for _ in range(4)]
    sessions = [write(each, number) for number, each in enumerate(workers)]
    threads = [threading.Thread(target=files.save, args=(each,)) for each in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = manager()
    assert files.load(after) == (4, 0)
    assert [read(after, each)["value"] for each in sessions] == [0, 1, 2, 3]


def test_corrupt_snapshot_is_refused_kept_and_named(files: Snapshots, tmp_path: Path) -> None:
    """What can be read of it is there; the start goes on."""
    before = manager()
    sessions = [write(before, "x" * 50) for _ in range(5)]
    path = files.save(before)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    config, after = make(pathname=str(path))
    with capture_logs() as logs:
        load_saved(config, after)
    [said] = [each for each in logs if each["log_level"] == "error"]
    assert said["event"] == "saved sessions were damaged"
    assert (said["context"], said["sessions"], said["damaged"]) == ("app", 4, 1)
    kept = Path(said["file"])
    assert kept.name.startswith("app.sessions.")
    assert kept.name.endswith(".refused")
    assert kept.read_bytes() == damaged
    assert list(tmp_path.iterdir()) == [kept]
    assert sum(read(after.manager("app"), each) is not None for each in sessions) == 4


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"not ours at all" * 100])
def test_file_that_is_no_snapshot_is_refused(files: Snapshots, content: bytes) -> None:
    """It is kept, under another name."""
    path = files.path("app")
    path.write_bytes(content)
    assert files.load(manager()).damaged
    [kept] = path.parent.iterdir()
    assert kept != path
    assert kept.read_bytes() == content


def test_saving_over_a_corrupt_snapshot_keeps_it(files: Snapshots) -> None:
    """Nobody has looked at it yet."""
    path = files.path("app")
    path.write_bytes(b"damaged")
    node = manager()
    session_id = write(node, 1)
    files.save(node)
    after = manager()
    assert files.load(after) == (1, 0)
    assert read(after, session_id) == {"value": 1}
    [kept] = path.parent.iterdir()
    assert kept.read_bytes() == b"damaged"


def test_with_a_group_key_the_sessions_are_encrypted(tmp_path: Path) -> None:
    """By a key made from it; a key that was replaced meanwhile still opens, a stranger's not."""
    old, new, strange = (GroupKey(number, bytes([number]) * 32) for number in (1, 2, 3))
    where = str(tmp_path / "s")
    node = manager()
    session_id = write(node, "very secret text")
    path = Snapshots(where, KeyRing([old])).save(node)
    content = path.read_bytes()
    assert b"very secret" not in content
    after = manager()
    assert Snapshots(where, KeyRing([strange])).load(after).damaged == 1
    path.write_bytes(content)
    assert Snapshots(where).load(after).damaged == 1
    path.write_bytes(content)
    assert Snapshots(where, KeyRing([new, old])).load(after) == (1, 0)
    assert read(after, session_id) == {"value": "very secret text"}


def test_time_in_the_file_counts_as_idle(files: Snapshots, monkeypatch: Any) -> None:
    """A weekend in a file: the session expires like any other."""
    node, after = manager(), manager()
    session_id = write(node, 1)
    files.save(node)
    later = time.time_ns() + 3600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: later)
    assert files.load(after) == (1, 0)
    assert read(after, session_id) is None


def test_each_context_has_its_file(tmp_path: Path) -> None:
    """Whatever the contexts are called."""
    pathname = str(tmp_path / "a-{context}.sessions")
    files = Snapshots(pathname)
    names = ("shop", "localhost#/shop", "%", "../up", "{context}")
    config, sessions = make(*names, pathname=pathname)
    ids = {name: write(sessions.manager(name), name) for name in names}
    for name in names:
        assert files.save(sessions.manager(name)).parent == tmp_path
    assert sorted(files.contexts()) == sorted(names)
    config, after = make(*names, pathname=pathname)
    load_saved(config, after)
    assert {n: read(after.manager(n), i) for n, i in ids.items()} == {
        name: {"value": name} for name in names
    }


def test_unreadable_file_costs_no_start(tmp_path: Path) -> None:
    """The other members may have all of it."""
    config, sessions = make(pathname=str(tmp_path))
    with capture_logs() as logs:
        assert load_saved(config, sessions) == []
    assert [each["event"] for each in logs] == ["saved sessions not loaded"]
    assert str(tmp_path) in logs[0]["error"]


def test_directory_that_is_missing_is_named_at_the_start(tmp_path: Path) -> None:
    """Not only when the last member stops, and its sessions are lost."""
    config, sessions = make("shop", "blog", pathname=str(tmp_path / "gone" / "{context}.s"))
    with capture_logs() as logs:
        assert load_saved(config, sessions) == []
    [line] = logs
    assert line["log_level"] == "error"
    assert f"{tmp_path / 'gone'} is no directory that can be written" in line["error"]


def test_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    """A node that cannot save says where it wanted to."""
    with pytest.raises(StoreError, match="missing"):
        Snapshots(str(tmp_path / "missing" / "s")).save(manager())


def test_lock_that_is_never_released_is_not_waited_for_for_ever(
    files: Snapshots, tmp_path: Path, monkeypatch: Any
) -> None:
    """Another process hangs while it saves."""
    monkeypatch.setattr("tribes.runtime.snapshots._LOCK_S", 0.05)
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="locked"):
            files.save(manager())
    finally:
        os.close(directory)


@pytest.mark.parametrize(
    ("pathname", "contexts", "hold_all"),
    [("/x/{context}/s", ("a",), False), ("/x/s", ("a", "b"), False), ("/x/s", ("a",), True)],
)
def test_one_file_for_several_contexts_is_refused(
    pathname: str, contexts: tuple[str, ...], hold_all: bool
) -> None:
    """The second would replace the first."""
    config = NodeConfig(
        contexts=contexts, hold_all=hold_all, manager=ManagerConfig(pathname=pathname)
    )
    with pytest.raises(ConfigError, match="context") as caught:
        load_saved(config, Sessions(config))
    assert caught.value.key == "manager.pathname"


def test_snapshot_file_has_the_form_of_the_standard_managers(files: Snapshots) -> None:
    """One format for both."""
    node = manager()
    key = write(node, 1)
    path = files.save(node)
    assert [each[0] for each in SnapshotFile(path).load().values] == [key]
