"""Every row of the table of types in docs/sessions.md is tried through a session."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.manager.type_table import PAGE, TABLE, Row, codec, table
from tribes.errors import AttributeNotEncodableError
from tribes.manager.record import from_wire
from tribes.testing.manager_strategies import make_manager


def through_a_session(value: Any) -> Any:
    """Store a value on one node and read it on another; an error if it was refused."""
    writer, reader = make_manager(actor=1, codec=codec()), make_manager(actor=2, codec=codec())
    session = writer.create()
    session["value"], session["beside"] = value, "kept"
    outcome = writer.commit(session)
    batch = writer.inbox.take()
    assert batch is not None
    for commit in batch.commits:
        reader.table.merge_in(commit.key, from_wire(commit.delta, reader.now_ds()))
    found = reader.find(session.id)
    assert found is not None
    assert found["beside"] == "kept", "what is refused costs only itself"
    if outcome.failed:
        raise outcome.failed["value"]
    return found["value"]


def exactly(a: Any, b: Any) -> bool:
    """Compare values with their types, at every depth."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        while isinstance(a, (list, tuple)) and len(a) == len(b) == 1:
            (a,), (b,) = a, b
            if type(a) is not type(b):
                return False
        if not isinstance(a, (list, tuple)):
            return exactly(a, b)
        return len(a) == len(b) and all(map(exactly, a, b))
    if isinstance(a, dict):
        return exactly([*a.items()], [*b.items()])
    if isinstance(a, (set, frozenset)):
        return bool(a == b)
    if hasattr(a, "tzinfo"):
        return bool(a == b) and (a.fold, repr(a.tzinfo)) == (b.fold, repr(b.tzinfo))
    if isinstance(a, (float, complex, Decimal)):
        # Equal are also 0.0 and -0.0, 1.5 and 1.50; and NaN is not equal to itself.
        return repr(a) == repr(b)
    return bool(a == b)


@pytest.mark.parametrize("row", [row for row in TABLE if not row.is_refused], ids=lambda r: r.types)
def test_what_the_table_says_comes_back_does(row: Row) -> None:
    for sample in row.samples:
        assert exactly(through_a_session(sample), sample)


@pytest.mark.parametrize("row", [row for row in TABLE if row.is_refused], ids=lambda r: r.types)
def test_what_the_table_says_is_refused_is_with_a_reason(row: Row) -> None:
    for sample in row.samples:
        with pytest.raises(AttributeNotEncodableError, match="value"):
            through_a_session(sample)


def test_the_page_has_the_table() -> None:
    assert table() in PAGE.read_text(), "python -m tests.manager.type_table writes it"
