"""The clocks of a machine, and a manager alone with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tribes.testing.manager_strategies import FakeTime, make_manager

if TYPE_CHECKING:
    from tribes.manager.base import SessionManager


@pytest.fixture
def clocks() -> FakeTime:
    return FakeTime()


@pytest.fixture
def manager(clocks: FakeTime) -> SessionManager:
    return make_manager(clocks=clocks)
