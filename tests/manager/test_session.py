"""What a request holds: a mapping, the container's values, an id, an end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.manager.requests import again, stored
from tribes.errors import SessionInvalidError
from tribes.manager.container import facts_of
from tribes.manager.session_ids import partition_of
from tribes.testing.manager_strategies import START_MS, FakeTime

if TYPE_CHECKING:
    from tribes.manager.base import SessionManager


def test_it_is_a_mapping_of_its_attributes(manager: SessionManager) -> None:
    session = stored(manager, a=1, b=[2])
    assert dict(session) == {"a": 1, "b": [2]}
    assert len(session) == 2
    assert "a" in session
    assert session.get("c") is None
    del session["a"]
    session["c"] = None
    assert session.pop("b") == [2]
    assert session.setdefault("d", 4) == 4
    assert dict(session) == {"c": None, "d": 4}
    session.clear()
    assert not session
    manager.commit(session)
    assert dict(again(manager, session)) == {}


def test_tomcats_words_work_and_none_removes(manager: SessionManager) -> None:
    session = stored(manager, a=1)
    session.set_attribute("b", 2)
    session.set_attribute("a", None)
    session.set_attribute("never", None)
    session.remove_attribute("never")
    assert session.attribute_names() == ["b"]
    assert session.get_attribute("b") == 2
    assert session.get_attribute("a") is None


def test_times_are_of_the_creation_and_of_the_request_before(
    manager: SessionManager, clocks: FakeTime
) -> None:
    session = manager.create()
    assert (session.created_ms, session.last_accessed_ms) == (START_MS, START_MS)
    manager.commit(session)
    clocks.sleep(10)
    second = again(manager, session)
    assert (second.created_ms, second.last_accessed_ms) == (START_MS, START_MS)
    second["x"] = 1
    manager.commit(second)
    clocks.sleep(5)
    third = again(manager, session)
    assert (third.created_ms, third.last_accessed_ms) == (START_MS, START_MS + 10_000)


def test_it_is_new_until_the_client_comes_back_with_the_id(manager: SessionManager) -> None:
    session = manager.create()
    assert session.is_new
    assert not session.is_stored
    manager.commit(session)
    assert session.is_stored
    assert not again(manager, session).is_new


def test_the_idle_limit_is_the_managers_until_it_is_set(manager: SessionManager) -> None:
    session = stored(manager)
    assert session.max_inactive == 1800
    session.max_inactive = 60
    assert session.max_inactive == 60
    manager.commit(session)
    assert again(manager, session).max_inactive == 60
    assert manager.limit_of(session.key) == 60
    fresh = manager.create()
    fresh.max_inactive = -1
    manager.commit(fresh)
    assert again(manager, fresh).max_inactive == -1


def test_setting_the_idle_limit_that_it_has_is_no_change(manager: SessionManager) -> None:
    session = stored(manager)
    session.max_inactive = 1800
    assert manager.commit(session).version is None


def test_the_container_keeps_principal_auth_type_and_notes(manager: SessionManager) -> None:
    session = stored(manager, note="attribute")
    assert (session.principal, session.auth_type, dict(session.notes)) == (None, None, {})
    session.principal = {"name": "anna", "roles": ("admin",)}
    session.auth_type = "FORM"
    session.notes["note"] = 1
    manager.commit(session)
    second = again(manager, session)
    assert second.principal == {"name": "anna", "roles": ("admin",)}
    assert second.auth_type == "FORM"
    assert dict(second.notes) == {"note": 1}
    assert dict(second) == {"note": "attribute"}
    second.principal = None
    second.auth_type = None
    second.auth_type = None
    manager.commit(second)
    third = again(manager, session)
    assert (third.principal, third.auth_type) == (None, None)


def test_a_principal_changed_in_place_is_committed(manager: SessionManager) -> None:
    session = stored(manager)
    session.principal = {"roles": ["user"]}
    manager.commit(session)
    second = again(manager, session)
    second.principal["roles"].append("admin")
    manager.commit(second)
    assert again(manager, session).principal == {"roles": ["user", "admin"]}


def test_rotation_gives_a_new_id_and_keeps_key_data_and_partition(
    manager: SessionManager, clocks: FakeTime
) -> None:
    session = stored(manager, a=1)
    key, old = session.key, str(session.id)
    new = session.rotate_id()
    assert session.id == new != old == str(key)
    assert session.key == key
    assert partition_of(new) == partition_of(key)
    assert manager.find(new) is None, "valid from the commit on"
    manager.commit(session)
    for session_id in (old, new):
        found = manager.find(session_id)
        assert found is not None
        assert (found.key, found.id, found["a"]) == (key, new, 1)
    clocks.sleep(30)
    assert manager.find(old) is None
    assert again(manager, session)["a"] == 1


def test_at_a_login_the_old_id_is_invalid_at_once(manager: SessionManager) -> None:
    session = stored(manager)
    session.rotate_id(0)
    manager.commit(session)
    assert manager.find(session.key) is None
    assert again(manager, session).key == session.key


def test_rotating_twice_in_one_request_leaves_one_new_id(manager: SessionManager) -> None:
    session = stored(manager)
    first = session.rotate_id()
    second = session.rotate_id()
    manager.commit(session)
    assert manager.find(first) is None
    assert manager.find(second) is not None
    record = manager.table.get(session.key)
    assert record is not None
    assert facts_of(record).ids == {session.key: 30, second: None}


def test_every_rotation_retires_the_id_before(manager: SessionManager, clocks: FakeTime) -> None:
    session = stored(manager)
    ids = [session.id]
    for _ in range(3):
        ids.append(session.rotate_id())
        manager.commit(session)
        session = again(manager, session)
        clocks.sleep(20)
    assert [manager.find(session_id) is not None for session_id in ids] == [
        False,
        False,
        True,
        True,
    ]
    assert manager.find(ids[2]).id == ids[3]  # type: ignore[union-attr]


def test_a_new_session_may_be_rotated_before_it_is_stored(manager: SessionManager) -> None:
    session = manager.create()
    new = session.rotate_id(0)
    manager.commit(session)
    assert manager.find(new) is not None
    assert manager.find(session.key) is None


def test_two_rotations_at_once_leave_both_new_ids_valid(manager: SessionManager) -> None:
    session = stored(manager)
    parallel = again(manager, session)
    ids = {session.rotate_id(), parallel.rotate_id()}
    manager.commit(session)
    manager.commit(parallel)
    found = [manager.find(session_id) for session_id in ids]
    assert {one.id for one in found if one is not None} == ids, "each client keeps its own"


def test_after_its_end_only_the_identity_can_be_read(manager: SessionManager) -> None:
    session = stored(manager, a=1)
    notes = session.notes
    session.invalidate()
    assert not session.is_valid
    assert session.id == str(session.key)
    for use in (
        lambda: session["a"],
        lambda: session.get("a"),
        lambda: session.update(a=1),
        lambda: len(session),
        lambda: session.created_ms,
        lambda: session.last_accessed_ms,
        lambda: session.max_inactive,
        lambda: setattr(session, "max_inactive", 5),
        lambda: session.principal,
        lambda: setattr(session, "auth_type", "x"),
        lambda: session.notes.get("a"),
        lambda: notes.get("a"),
        lambda: session.rotate_id(),
        lambda: session.invalidate(),
    ):
        with pytest.raises(SessionInvalidError):
            use()


def test_two_objects_of_one_session_are_not_equal(manager: SessionManager) -> None:
    session = stored(manager)
    other = again(manager, session)
    assert session != other
    assert len({session, other}) == 2


def test_its_repr_does_not_tell_the_secret(manager: SessionManager) -> None:
    session = manager.create()
    assert session.key not in repr(session)
    assert "new" in repr(session)
