"""Five nodes with a Backup manager that the tests of one file share, each leaving five."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.chaos.backup.cluster import FIVE, Cluster
from tests.chaos.conftest import Loopback, Nodes


@pytest.fixture(scope="session")
def is_proof() -> bool:
    """Whether claims are shown at their full size: ``make proof``."""
    return os.environ.get("TRIBES_PROOF", "0") not in ("", "0")


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    """The nodes of one file."""
    with closing(Nodes(Loopback())) as nodes, closing(Cluster(nodes)) as cluster:
        cluster.start(*FIVE)
        yield cluster


@pytest.fixture
def five(shared: Cluster) -> Cluster:
    """Five nodes, whole, whatever a test before has left."""
    nodes = shared.nodes
    nodes.kill(*[name for name in nodes.processes if name not in FIVE])
    shared.start(*[name for name in FIVE if name not in nodes.processes])
    nodes.wait_members(FIVE, within=10)
    shared.wait_whole(*FIVE)
    return shared
