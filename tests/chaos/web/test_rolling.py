"""Every node is restarted, one after another, under load: no session is lost, no request fails.

CI does one round of four nodes. ``make rolling`` does twenty of ten; ROUNDS and MEMBERS say others.
"""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

MEMBERS = int(os.environ.get("TRIBES_ROLLING_MEMBERS", "4"))
ROUNDS = int(os.environ.get("TRIBES_ROLLING_ROUNDS", "1"))
USERS = 10 * MEMBERS
NOTICE_S = 2.0
"""From the signal to the closed port. The balancer asks ten times a second; the rest is for a
machine on which everybody is late."""

pytestmark = pytest.mark.slow


@pytest.mark.timeout(60 + 12 * MEMBERS * ROUNDS)
def test_w01_rolling_restart_loses_no_session_and_fails_no_request(
    web: Any, make_clients: Any, figure: Any
) -> None:
    """Non-sticky load, option 6, no request tried again.

    A node stops being offered before it stops accepting: SIGTERM turns ``/ready`` off, and the port
    is closed two seconds later, when the balancer has asked again.
    """
    names = [f"n{number}" for number in range(1, MEMBERS + 1)]
    web.start(*names, notice=NOTICE_S)
    web.wait_equal(*names, within=30)
    clients = make_clients(*names, users=USERS)
    begin = time.monotonic()
    slowest_stop = 0.0
    for _ in range(ROUNDS):
        for name in names:
            stopping = time.monotonic()
            assert web.stop(name) == [0]
            slowest_stop = max(slowest_stop, time.monotonic() - stopping)
            web.start(name, notice=NOTICE_S)
        assert clients.failures == []
    seconds = time.monotonic() - begin
    clients.end()
    web.wait_equal(*names, within=30)
    assert clients.failures == []
    assert clients.lost(*names) == []
    assert all(user.count for user in clients.users)
    assert web.complaints() == []
    assert all(web.logs(name, "drained") for name in names)
    restarts = ROUNDS * MEMBERS
    figure(
        f"{MEMBERS} nodes, {ROUNDS} rounds, {restarts} restarts in {seconds:.0f} s: "
        f"{USERS} sessions, 0 lost; {clients.requests} requests, 0 failed, "
        f"slowest {clients.slowest * 1e3:.0f} ms; "
        f"slowest stop {slowest_stop:.1f} s with {NOTICE_S:g} s of notice"
    )
