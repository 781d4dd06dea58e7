"""The page of features says what the tests say."""

from __future__ import annotations

import pytest

from tests.features.rows import PAGE, claims, page, ran_not, rows, rows_of
from tests.upstream.assertions import ASSERTIONS


def test_the_page_is_as_generated() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.features.write"


def test_every_claimed_row_exists() -> None:
    unknown = {row: tests for row, tests in claims().items() if row not in rows()}
    assert not unknown


@pytest.mark.parametrize(
    ("name", "claimed"),
    [
        ("test_t24_a_session_is_everywhere", ["T24"]),
        ("test_t4_t45_t120_many", ["T4", "T45", "T120"]),
        ("TestLocks::test_f07_f44_locks", ["F07", "F44"]),
        ("test_w93_membership", ["W9.3"]),
        ("test_w10_is_no_row", []),
        ("test_the_table", []),
        ("test_f", []),
        ("test_t2x_is_no_row", []),
        ("test_tcp", []),
    ],
)
def test_a_name_claims_its_rows(name: str, claimed: list[str]) -> None:
    assert rows_of(name) == claimed


def test_a_claimed_test_that_did_not_run_is_found() -> None:
    claimed = sorted({f"{each.path}::{each.test}" for tests in claims().values() for each in tests})
    assert ran_not(f"{each}[a-parameter]" for each in claimed) == []
    assert ran_not(claimed[1:]) == claimed[:1]


def test_each_assertion_of_tribes_own_tests_is_a_row_that_is_shown() -> None:
    """W10.n, with its tests; `tests/upstream` checks that they exist."""
    shown = claims()
    asserted = [name for name in rows() if name.startswith("W10.")]
    assert len(asserted) == len(ASSERTIONS)
    assert all(shown[name] for name in asserted)
    assert all(rows()[f"W9.{number}"].part and shown[f"W9.{number}"] for number in range(1, 9))
