"""A record while it is being read: every way of finding an entry finds the same."""

from __future__ import annotations

from hypothesis import given

from tribes.manager.layout import walk
from tribes.manager.reading import Reading
from tribes.manager.record import Record, main_of, parse, read_entry
from tribes.testing.manager_strategies import records


@given(records())
def test_entries_are_found_by_place_by_name_and_by_namespace(record: Record) -> None:
    entries = parse(record).entries
    reading = Reading(record)
    assert reading.spans == walk(main_of(record))
    for (namespace, name), entry in entries.items():
        assert reading.entry(namespace, name) == entry
        assert read_entry(record, reading.index(namespace)[name]) == entry
    for namespace in range(16):
        names = [name for place, name in entries if place == namespace]
        assert list(reading.index(namespace)) == names
    assert reading.entry(0, b"never") is None


@given(records())
def test_attributes_end_where_the_next_namespace_begins(record: Record) -> None:
    reading = Reading(record)
    assert reading.attributes == reading.index(0)
    others = [span for span in reading.spans if reading.main[span[0]] >> 4]
    assert reading.attributes_end == (others[0][0] if others else len(reading.main))
