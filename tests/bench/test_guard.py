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


def test_guard_accepts_the_hottest_paths_and_sees_each_that_does_half_as_much_again(
    needs: Needs,
) -> None:
    """Encode and send, decode and dispatch, session commit, apply of a batch, read of a session;
    then each of them does its work three times where it did it twice.
    """
    found, slower = count(needs("valgrind"), "", "all")
    assert set(found) == set(accepted()) == PATHS
    assert not losses(found, accepted()), "python -m bench.guard --write accepts it; say why"
    lost = losses(slower, accepted())
    assert set(lost) == PATHS
    assert min(lost.values()) > LIMIT
