"""Three real nodes keep sessions alive: what the README promises, on real processes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.standstill import Stopwatch
from tests.waiting import wait_until

NODES = ("n1", "n2", "n3")

pytestmark = pytest.mark.timeout(120)


def test_t56_600_increments_round_robin_end_at_600(cluster: Any, make_user: Any) -> None:
    """Non-sticky over three nodes: one session id, one birthday, no increment lost."""
    cluster.start(*NODES)
    user = make_user()
    for turn in range(600):
        answer = user.visit(cluster.http, cluster.url(NODES[turn % 3]))
        assert answer["node"] == NODES[turn % 3]
        assert answer["count"] == turn + 1
    assert user.count == 600
    assert len(user.session_ids) == 1
    assert len(user.created) == 1
    assert sorted(answer["members"]) == list(NODES)


def test_t63_kill_of_the_node_that_answered_last_loses_nothing(
    cluster: Any, make_user: Any
) -> None:
    """``kill -9`` right after an answer: the next node goes on from that answer."""
    cluster.start(*NODES)
    user = make_user()
    for victim, heir in (("n1", "n2"), ("n2", "n3")):
        for turn in range(20):
            user.visit(cluster.http, cluster.url((victim, "n3")[turn % 2]))
        last = user.visit(cluster.http, cluster.url(victim))["count"]
        cluster.kill(victim)
        assert user.visit(cluster.http, cluster.url(heir))["count"] == last + 1
    assert len(user.session_ids) == 1
    assert len(user.created) == 1


def test_crash_is_noticed_within_half_a_second(cluster: Any) -> None:
    """A killed process refuses connections, and that is enough."""
    cluster.start(*NODES)
    for name in NODES:
        cluster.wait_members(name, list(NODES), within=5)
    watch = Stopwatch()
    cluster.kill("n2")
    cluster.wait_members("n1", ["n1", "n3"], within=0.5)
    cluster.wait_members("n3", ["n1", "n3"], within=0.5)
    assert watch.seconds < 0.5


def test_killed_node_comes_back_and_has_the_session(cluster: Any, make_user: Any) -> None:
    """Start it again: it asks the others, and its first answer goes on from theirs."""
    cluster.start(*NODES)
    user = make_user()
    for turn in range(9):
        user.visit(cluster.http, cluster.url(NODES[turn % 3]))
    cluster.kill("n2")
    user.visit(cluster.http, cluster.url("n1"))
    cluster.start("n2")
    answer = user.visit(cluster.http, cluster.url("n2"))
    assert answer["count"] == 11
    assert len(user.session_ids) == 1
    cluster.wait_members("n1", list(NODES), within=5)


def test_node_that_joins_under_write_load_has_every_session(cluster: Any, make_load: Any) -> None:
    """A fourth node starts while users write to the other three: it knows each of them, and all."""
    cluster.start(*NODES)
    load = make_load(users=60)
    load.begin(*NODES)
    wait_until(lambda: all(user.count > 2 for user in load.users), 30)
    cluster.start("n4")
    load.direct(*NODES, "n4")
    begin = load.requests
    wait_until(lambda: load.requests > begin + 400, 30)
    load.end()
    assert load.failures == []
    for user in load.users:
        expected = user.count + 1
        assert user.visit(cluster.http, cluster.url("n4"))["count"] == expected
        assert len(user.session_ids) == 1
        assert len(user.created) == 1


def test_node_that_is_asked_to_leave_under_load_costs_nothing(cluster: Any, make_load: Any) -> None:
    """SIGTERM of one node: no request to the others fails and no answered write is lost."""
    cluster.start(*NODES)
    load = make_load(users=40)
    load.begin(*NODES)
    wait_until(lambda: all(user.count > 2 for user in load.users), 30)
    # The balancer takes the node out first; what is under way there ends.
    load.direct("n1", "n3")
    begin = load.requests
    assert cluster.terminate("n2") == 0
    wait_until(lambda: load.requests > begin + 400, 30)
    load.end()
    assert load.failures == []
    for user in load.users:
        expected = user.count + 1
        assert user.visit(cluster.http, cluster.url("n3"))["count"] == expected
        assert len(user.session_ids) == 1
    assert cluster.members("n1") == ["n1", "n3"]


def test_junk_cookies_are_not_adopted_and_do_no_harm(cluster: Any, make_user: Any) -> None:
    """Junk, oversized and foreign ids get a fresh session each; nothing answers with 500."""
    cluster.start("n1")
    own = make_user()
    own.visit(cluster.http, cluster.url("n1"))
    offered = [
        "",
        "junk",
        "A" * 32,
        "0123456789ABCDEF" * 2 + ".n9",
        own.cookie.partition(".")[0][:-1],
        own.cookie.partition(".")[0].lower(),
        "../../etc/passwd",
        "%00%0d%0aSet-Cookie:x=y",
        "9" * 7000,
        "\u00e4\u00f6\u00fc\u20ac",
    ]
    url = cluster.url("n1") + "/session"
    seen = set(own.session_ids)
    for value in offered:
        headers = {"cookie": b"JSESSIONID=" + value.encode()}
        response = cluster.http.get(url, headers=headers)
        cluster.http.cookies.clear()
        assert response.status_code == 200
        session_id = response.json()["session_id"]
        assert response.json()["count"] == 1
        assert session_id not in offered
        assert session_id not in seen
        seen.add(session_id)
    together = "; ".join(f"JSESSIONID={value[:100]}" for value in offered[:8])
    headers = {"cookie": f"foo[bar]=1; {together}; JSESSIONID={own.cookie}; x".encode()}
    response = cluster.http.get(url, headers=headers)
    assert response.json()["session_id"] in own.session_ids
    assert response.json()["count"] == 2


def test_t67_response_head_leaves_after_the_commit(cluster: Any, make_user: Any) -> None:
    """Whoever sees an answer finds its session on every other node at once."""
    cluster.start(*NODES)
    for _ in range(50):
        user = make_user()
        user.visit(cluster.http, cluster.url("n1"))
        assert user.visit(cluster.http, cluster.url("n2"))["count"] == 2
        assert user.visit(cluster.http, cluster.url("n3"))["count"] == 3


def test_nodes_end_when_their_parent_is_gone(cluster: Any) -> None:
    """The end of stdin ends a node of the demo, so none outlives a killed parent."""
    cluster.start("n1")
    process = cluster.processes["n1"]
    process.stdin.close()
    assert process.wait(10) == 0
