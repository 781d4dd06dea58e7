"""The configurations in examples/balancers, each with the real balancer and three processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.balancers.stand import EXAMPLES, NAMES, Load, Stand, User

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Needs

pytestmark = pytest.mark.slow

ALL = sorted(
    path.relative_to(EXAMPLES).as_posix()
    for kind in ("nginx", "httpd", "haproxy")
    for path in (EXAMPLES / kind).iterdir()
)
STICKY = [name for name in ALL if "/sticky." in name]
BY_ADDRESS = ["nginx/ip-hash.conf", "haproxy/source.cfg"]
SPREADING = [name for name in ALL if name not in (*STICKY, *BY_ADDRESS)]

Start = Callable[[str], Stand]


@pytest.fixture
def start(tmp_path: Path, needs: Needs) -> Iterator[Start]:
    """Starts a balancer with one configuration."""
    os.chmod(tmp_path, 0o755)  # the balancers' own accounts look into it
    stand = Stand(tmp_path, needs)

    def begin(configuration: str) -> Stand:
        stand.start(configuration)
        return stand

    try:
        yield begin
    finally:
        stand.close()


@pytest.mark.parametrize("configuration", SPREADING)
def test_t115_every_process_serves_every_session(start: Start, configuration: str) -> None:
    """Requests go from one to the next; the count goes on, and there is one session."""
    stand = start(configuration)
    user = User()
    for count in range(1, 31):
        assert user.visit(stand.http, stand.port).status_code == 200
        assert user.visits == count
    assert set(user.nodes) == set(NAMES)
    kill_one_under_load(stand, configuration)


@pytest.mark.parametrize("configuration", BY_ADDRESS)
def test_t115_a_client_stays_by_its_address(start: Start, configuration: str) -> None:
    stand = start(configuration)
    user = User()
    for _ in range(10):
        assert user.visit(stand.http, stand.port).status_code == 200
    assert len(set(user.nodes)) == 1
    kill_one_under_load(stand, configuration, user.nodes[0])


@pytest.mark.parametrize("configuration", STICKY)
def test_t101_t115_a_client_stays_by_its_route_and_gets_another(
    start: Start, configuration: str
) -> None:
    """When its process is killed, its session goes on at another, whose name is in the cookie."""
    stand = start(configuration)
    users = [User() for _ in range(6)]
    for _ in range(5):
        for user in users:
            assert user.visit(stand.http, stand.port).status_code == 200
    assert all(set(user.nodes) == {user.route} for user in users)
    assert {user.route for user in users} == set(NAMES)
    ids = [user.session_id for user in users]
    kill_one_under_load(stand, configuration)
    for user in users:
        before = user.route
        for _ in range(6):
            assert user.visit(stand.http, stand.port).status_code == 200
        assert user.route != "web2"
        assert before == "web2" or user.route == before
        assert set(user.nodes[-5:]) == {user.route}, "it stays at its new process"
    assert [user.session_id for user in users] == ids


def kill_one_under_load(stand: Stand, configuration: str, name: str = "web2") -> None:
    """No counter goes back. Where the balancer repeats a request, no request fails either."""
    with Load(stand.port) as load:
        load.go_on()
        stand.kill(name)
        load.go_on(200)
    assert load.lost == []
    # An answer whose head was on its way to the client already can be repeated by nobody.
    failures = [each for each in load.failures if "without sending complete" not in each]
    assert len(load.failures) <= load.clients, load.failures
    if not configuration.startswith("httpd"):
        assert failures == []
    # httpd repeats what could not be sent, not what was sent and got no answer.
    assert all(user.visits for user in load.users)


@pytest.mark.timeout(120)
def test_a_rolling_restart_is_not_noticed(start: Start) -> None:
    """Each process leaves on SIGTERM and comes back, one after another: nothing lost or failed,
    whichever of three balancers a user comes by.

    httpd does not repeat what it has sent, so it must have seen ``/ready`` say no before the port
    is closed.
    """
    stand = start("nginx/round-robin.conf")
    ports = [stand.port, stand.add("httpd/byrequests.conf"), stand.add("haproxy/sticky.cfg")]
    with ExitStack() as stack:
        loads = [stack.enter_context(Load(port, threads=2)) for port in ports]
        for name in (*NAMES, ""):
            for load in loads:
                load.go_on(50)
            if name:
                stand.restart(name)
    assert [load.lost for load in loads] == [[]] * 3
    assert [load.failures for load in loads] == [[]] * 3
