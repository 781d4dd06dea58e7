"""What every store promises, checked with each of them: files, SQLite, PostgreSQL, MariaDB."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tribes.errors import StoreConflictError, StoreError, StoreLimitError
from tribes.stores import sql
from tribes.stores.file import FileStore
from tribes.stores.protocol import Store
from tribes.stores.sql import SQLStore

if TYPE_CHECKING:
    from pathlib import Path

KINDS = ("file", "sqlite", "postgresql", "mariadb")
ODD_KEYS = ("", "..", "../outside", "/etc/passwd", "a/b", "a\\b", "A\0B", "ä", "A" * 129, "A.B")

Make = Callable[..., Store]
_numbers = itertools.count()


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Open the same store again and again, as a new process would."""
    kind = request.param
    url = f"sqlite:///{tmp_path}/sessions.db" if kind == "sqlite" else ""
    if kind in ("postgresql", "mariadb"):
        url = request.getfixturevalue(kind)
    table = f"sessions_{next(_numbers)}"
    made: list[Store] = []

    def open_it(**settings: Any) -> Store:
        if kind == "file":
            settings.pop("app", None)
            store: Store = FileStore(tmp_path / "sessions", **settings)
        else:
            store = SQLStore(url, table=table, **({"app": "shop"} | settings))
        made.append(store)
        return store

    yield open_it
    for store in made:
        store.close()


@pytest.fixture
def store(make: Make) -> Store:
    return make()


def save(store: Store, key: str, data: bytes, expected: int = 0, **settings: int) -> int:
    settings = {"last_access_ms": 1_000_000, "max_inactive_s": 60} | settings
    return store.save(key, data, expected=expected, **settings)


def test_what_was_saved_is_loaded_by_every_opener(store: Store, make: Make) -> None:
    data = bytes(range(256)) * 300
    version = save(store, "A1", data)
    assert version > 0
    assert store.load("A1") == make().load("A1") == (data, version)
    assert store.load("A2") is None


def test_empty_and_odd_bytes_come_back_as_they_are(store: Store) -> None:
    for number, data in enumerate((b"", b"\0", b"'; DROP TABLE x; --", b"\xff" * 70_000)):
        save(store, f"A{number}", data)
        found = store.load(f"A{number}")
        assert found is not None
        assert found.data == data


def test_a_save_replaces_only_the_version_it_has_seen(store: Store) -> None:
    first = save(store, "A1", b"one")
    second = save(store, "A1", b"two", first)
    assert second != first
    for seen in (0, first):
        with pytest.raises(StoreConflictError):
            save(store, "A1", b"three", seen)
    assert store.load("A1") == (b"two", second)


def test_a_deleted_value_cannot_be_replaced(store: Store) -> None:
    version = save(store, "A1", b"one")
    assert store.delete("A1")
    with pytest.raises(StoreConflictError):
        save(store, "A1", b"two", version)
    assert store.load("A1") is None


def test_versions_never_come_back(store: Store) -> None:
    """A writer that slept through a deletion and a new creation is told so."""
    old = save(store, "A1", b"one")
    store.delete("A1")
    new = save(store, "A1", b"two")
    assert new != old
    with pytest.raises(StoreConflictError):
        save(store, "A1", b"three", old)


def test_deleting_a_version_leaves_a_newer_one(store: Store) -> None:
    old = save(store, "A1", b"one")
    new = save(store, "A1", b"two", old)
    with pytest.raises(StoreConflictError):
        store.delete("A1", expected=old)
    assert store.load("A1") == (b"two", new)
    assert store.delete("A1", expected=new)
    assert not store.delete("A1", expected=new)
    assert not store.delete("A1")


def test_t94_expired_are_found_by_last_use_and_limit(store: Store) -> None:
    version = save(store, "A1", b"x", last_access_ms=5_000, max_inactive_s=10)
    save(store, "A2", b"x", last_access_ms=5_001, max_inactive_s=10)
    save(store, "A3", b"x", last_access_ms=0, max_inactive_s=0)
    save(store, "A4", b"x", last_access_ms=0, max_inactive_s=-1)
    save(store, "A5", b"x", last_access_ms=1, max_inactive_s=2**31 - 1)
    assert store.expired(14_999, 10) == []
    assert store.expired(15_000, 10) == [("A1", version)]
    assert {key for key, _ in store.expired(10**9, 10)} == {"A1", "A2"}
    assert len(store.expired(10**9, 1)) == 1


@pytest.mark.parametrize("limit_s", [2**31, 10**15, -(10**15)])
def test_a_session_of_any_idle_time_is_stored(store: Store, limit_s: int) -> None:
    """Applications may say "for ever" by any number; the session must not be lost for that."""
    save(store, "A1", b"x", last_access_ms=10**12, max_inactive_s=limit_s)
    assert store.load("A1") is not None
    assert store.expired(10**12 + 1, 10) == []


def test_keys_lists_each_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a database is asked for page after page."""
    monkeypatch.setattr(sql, "_PAGE", 7)
    wanted = {f"A{number:04d}" for number in range(30)}
    for key in wanted:
        save(store, key, b"x")
    found = list(store.keys())
    assert len(found) == 30
    assert set(found) == wanted


def test_clear_removes_everything(store: Store) -> None:
    save(store, "A1", b"x")
    store.clear()
    assert list(store.keys()) == []
    assert store.load("A1") is None


@pytest.mark.parametrize("key", ODD_KEYS)
def test_t93_odd_keys_find_nothing_and_are_not_saved(store: Store, key: str) -> None:
    """Traversal among them: nothing outside the store is touched."""
    assert store.load(key) is None
    assert not store.delete(key)
    store.refuse(key)
    with pytest.raises(StoreError, match="cannot be"):
        save(store, key, b"x")
    assert list(store.keys()) == []


def test_keys_differ_by_case(store: Store) -> None:
    save(store, "abc", b"small")
    save(store, "ABC", b"large")
    assert store.load("abc") != store.load("ABC")


def test_too_large_is_refused_and_the_old_value_stays(make: Make) -> None:
    store = make(value_max_bytes=1000)
    version = save(store, "A1", b"x" * 1000)
    with pytest.raises(StoreLimitError, match="1001 bytes is more than the 1000"):
        save(store, "A1", b"y" * 1001, version)
    assert store.load("A1") == (b"x" * 1000, version)


def test_refused_values_are_gone_from_view_and_room_is_made(store: Store) -> None:
    for data in (b"one", b"two", b"three"):
        save(store, "A1", data)
        store.refuse("A1")
        assert store.load("A1") is None
        assert list(store.keys()) == []
        assert store.expired(10**15, 10) == []
    store.refuse("A1")
    store.clear()
    save(store, "A1", b"four")


def test_t93_t95_threads_saving_one_key_take_turns_by_conflict(store: Store) -> None:
    """No increment is lost: each loads, adds one, and starts over when told of a conflict."""
    save(store, "A1", b"0")

    def add(_: int) -> None:
        for _ in range(10_000):
            found = store.load("A1")
            assert found is not None
            try:
                save(store, "A1", b"%d" % (int(found.data) + 1), found.version)
                return
            except StoreConflictError:
                continue
        raise AssertionError

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(40)))
    found = store.load("A1")
    assert found is not None
    assert found.data == b"40"


ADDER = """
import sys
from tests.stores.test_protocol import save
from tribes.errors import StoreConflictError
from tribes.stores.file import FileStore
from tribes.stores.sql import SQLStore
kind, place, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = FileStore(place) if kind == "file" else SQLStore(place, app="shop", table=kind)
done = tries = 0
while done < count:
    tries += 1
    assert tries < 200 * count
    found = store.load("A1")
    try:
        save(store, "A1", b"%d" % (int(found.data) + 1), found.version)
        done += 1
    except StoreConflictError:
        pass
store.close()
"""


@pytest.mark.parametrize("kind", KINDS)
def test_f67_t95_two_processes_lose_nothing(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Each of them saves 1,000 times; where a disk is waited for, fewer."""
    count, table = 1000 if kind in ("postgresql", "mariadb") else 150, f"adders_{kind}"
    place = str(tmp_path / "s") if kind == "file" else f"sqlite:///{tmp_path}/s.db"
    if kind in ("postgresql", "mariadb"):
        place = request.getfixturevalue(kind)
    store: Store = FileStore(place) if kind == "file" else SQLStore(place, app="shop", table=table)
    save(store, "A1", b"0")
    command = [sys.executable, "-c", ADDER, "file" if kind == "file" else table, place, str(count)]
    adders = [subprocess.Popen(command) for _ in range(2)]
    try:
        assert [adder.wait(50) for adder in adders] == [0, 0]
    finally:
        for adder in adders:
            adder.kill()
            adder.wait()
    found = store.load("A1")
    store.close()
    assert found is not None
    assert int(found.data) == 2 * count
