"""What the plans of this folder have found."""

from __future__ import annotations

import time
from typing import Any

import pytest

NODES = ("n1", "n2", "n3", "n4")
FROZEN_S = 6.0
BACK_S = 5.0

pytestmark = pytest.mark.timeout(120)


def test_node_that_wakes_up_is_complete_within_five_seconds(
    nodes: Any, make_load: Any, figure: Any
) -> None:
    """The others removed it, it never removed them: it still has to ask for what it missed."""
    nodes.start(*NODES)
    nodes.wait_members(NODES, within=5)
    load = make_load(nodes, 40, NODES)
    load.warm_up()
    awake = [n for n in NODES if n != "n4"]
    load.direct(*awake)
    nodes.pause("n4")
    nodes.wait_members(awake, within=FROZEN_S)
    time.sleep(2)
    begin = time.monotonic()
    nodes.resume("n4")
    nodes.wait_members(NODES, within=BACK_S)
    load.direct()
    load.check(*NODES, within=BACK_S)
    figure(f"complete {time.monotonic() - begin:.1f} s after it woke up")
