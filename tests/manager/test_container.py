"""What the container keeps in a session, as entries."""

from __future__ import annotations

import pytest

from tribes.manager.container import (
    GRACE_MAX_S,
    ID_ACTIVE,
    MAX_INACTIVE,
    Facts,
    active_ids,
    decode_idle,
    encode_idle,
    facts_of,
    id_entry_name,
    retired_value,
)
from tribes.manager.record import Entry, Kind, Life, Namespace, Parsed, Record, pack


def record_of(*entries: tuple[bytes, bytes, int]) -> Record:
    parsed = Parsed(Life.LIVE, 0, 0, 100, 0)
    parsed.put(Entry(Namespace.ATTRIBUTE, 0, b"id:x", b"A", 1, 1))
    for number, (name, value, kind) in enumerate(entries):
        parsed.put(Entry(Namespace.CONTAINER, kind, name, value, number, 1))
    return pack(parsed)


ACTIVE = (id_entry_name("B2"), ID_ACTIVE, Kind.LAST_WRITER)
RETIRED_KEY = (id_entry_name("A1"), retired_value(30), Kind.LAST_WRITER)


def test_facts_are_ids_and_the_idle_limit() -> None:
    record = record_of(
        RETIRED_KEY,
        ACTIVE,
        (id_entry_name("C3"), retired_value(0), Kind.TOMBSTONE),
        (MAX_INACTIVE, encode_idle(60), Kind.LAST_WRITER),
    )
    assert facts_of(record) == Facts({"A1": 30, "B2": None, "C3": 0}, 60)
    assert facts_of(record_of()) == Facts({}, None)


def test_what_a_newer_version_wrote_is_not_believed() -> None:
    """An id that is not plainly active is not accepted."""
    record = record_of(
        (id_entry_name("B2"), b"Z", Kind.LAST_WRITER),
        (id_entry_name("C3"), b"A", Kind.TOMBSTONE),
        (MAX_INACTIVE, b"soon", 3),
        (b"idle2", b"", 3),
    )
    assert facts_of(record).ids == {"B2": 0, "C3": 0}
    assert decode_idle(b"soon!") is None


@pytest.mark.parametrize(("seconds", "kept"), [(0, 0), (1800, 1800), (-1, -1), (2**40, 2**31 - 1)])
def test_idle_limits_are_kept(seconds: int, kept: int) -> None:
    assert decode_idle(encode_idle(seconds)) == kept


@pytest.mark.parametrize(("grace", "kept"), [(0, 0), (30, 30), (-5, 0), (10**6, GRACE_MAX_S)])
def test_a_grace_lasts_no_longer_than_tombstones(grace: int, kept: int) -> None:
    value = retired_value(grace)
    assert value[:1] == b"R"
    assert int.from_bytes(value[1:], "big") == kept


def test_the_newest_active_id_comes_first_and_the_key_last() -> None:
    assert active_ids("A1", record_of()) == ["A1"]
    assert active_ids("A1", record_of(ACTIVE)) == ["B2", "A1"]
    newer = (id_entry_name("D4"), ID_ACTIVE, Kind.LAST_WRITER)
    assert active_ids("A1", record_of(RETIRED_KEY, ACTIVE, newer)) == ["D4", "B2"]
