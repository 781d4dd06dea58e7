"""The guard counts the same instructions each time, accepts what is there, and sees a loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.guard import LIMIT, accepted, count, losses
from bench.hot_paths import COUNTS

if TYPE_CHECKING:
    from tests.conftest import Needs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(700)]

PATHS = set(COUNTS) - {"reference"}


def test_five_hottest_paths_take_no_more_than_is_accepted(needs: Needs) -> None:
    """Encode and send, decode and dispatch, session commit, apply of a batch, read of a session."""
    found = count(needs("valgrind"))
    assert set(found) == set(accepted()) == PATHS
    assert not losses(found, accepted()), "python -m bench.guard --write accepts it; say why"


def test_guard_sees_each_path_that_does_half_as_much_again(needs: Needs) -> None:
    """Each of them does its work three times where it did it twice."""
    found = losses(count(needs("valgrind"), slower="all"), accepted())
    assert set(found) == PATHS
    assert min(found.values()) > LIMIT
