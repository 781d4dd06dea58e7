"""Sessions that lie on some of the members, on running nodes, through each adapter."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from tests.ports import free_udp_port
from tests.waiting import wait_until
from tests.web.nodes import make_node
from tests.web.test_freshness import _asgi, _flask, _wsgi
from tests.web.test_valve import ask, page, with_replication
from tribes.config.managers import BackupConfig
from tribes.config.valves import PRIMARY_INDICATOR
from tribes.errors import SessionUnreachableError
from tribes.manager.backup import BackupManager
from tribes.manager.backup_core import BackupReplicator
from tribes.runtime.background import BackgroundNode
from tribes.web.freshness import bring
from tribes.web.wsgi import SessionMiddleware

Nodes = list[BackgroundNode]


def _manager(node: BackgroundNode) -> BackupManager:
    manager = node.manager("app")
    assert isinstance(manager, BackupManager)
    return manager


def _core(node: BackgroundNode) -> BackupReplicator:
    core = _manager(node).replicator
    assert isinstance(core, BackupReplicator)
    return core


def _start(count: int, **settings: object) -> Nodes:
    port = free_udp_port()
    backup = BackupConfig(**{"map_send_options": 6, **settings})  # type: ignore[arg-type]
    nodes = []
    for number in range(count):
        config = msgspec.structs.replace(make_node(f"n{number}", port).config, manager=backup)
        nodes.append(BackgroundNode(with_replication(config, primary_indicator=True)))
    for node in nodes:
        node.start()
    wait_until(lambda: all(len(_core(node).targets) == count - 1 for node in nodes))
    wait_until(lambda: all(_core(node).placed.is_settled for node in nodes))
    return nodes


@pytest.fixture(scope="module")
def three() -> Iterator[Nodes]:
    """Three nodes, of which two have each session."""
    nodes = _start(3)
    yield nodes
    for node in nodes:
        node.stop()


@pytest.mark.parametrize("adapter", [_asgi, _wsgi, _flask])
def test_t73_each_adapter_serves_every_session_on_every_node(adapter: object, three: Nodes) -> None:
    """Thirty requests, each on another node than the one before, count to thirty; nothing moves."""
    apps = [adapter(node) for node in three]  # type: ignore[operator]
    cookies = dict(apps[0]("/", cookies={}).cookies)
    key = cookies["JSESSIONID"]
    held = [node for node in three if _manager(node).is_held(key)]
    assert len(held) == 2
    for turn in range(2, 31):
        answer = apps[turn % 3]("/", cookies=cookies)
        assert answer.text == str(turn)
        cookies.update(answer.cookies)
    assert cookies["JSESSIONID"] == key
    assert [node for node in three if _manager(node).is_held(key)] == held


def test_t106_one_node_is_told_to_be_the_sessions_first(three: Nodes) -> None:
    """Its owner, wherever the request was before."""
    apps = [SessionMiddleware(page, node) for node in three]
    for number in range(9):
        _, cookie, _ = ask(apps[number % 3])
        for _ in range(2):
            told = [ask(app, "/", cookie)[2][PRIMARY_INDICATOR] for app in apps]
            assert sorted(told) == [False, False, True]


def test_t76_first_requests_on_all_nodes_at_once_find_the_same_session(three: Nodes) -> None:
    """Each adds one to what it has read: no write is lost silently, and one node owns it."""
    apps = [_wsgi(node) for node in three]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(20):
            cookies = dict(apps[0]("/", cookies={}).cookies)
            key = cookies["JSESSIONID"]
            answers = list(pool.map(lambda app: app("/", cookies=cookies), apps))  # noqa: B023
            assert {answer.text for answer in answers} <= {"2", "3", "4"}
            assert all("JSESSIONID" not in answer.cookies for answer in answers), "a new session"
            assert [_manager(node).is_primary(key) for node in three].count(True) == 1


def test_an_id_that_nobody_has_gets_a_new_session(three: Nodes) -> None:
    """Who holds its part says that there is none."""
    for node in three:
        answer = _wsgi(node)("/", cookies={"JSESSIONID": "0123456789ABCDEF0123456789ABCDEF"})
        assert answer.text == "1"
        assert "JSESSIONID" in answer.cookies


def test_a_session_whose_holders_do_not_answer_is_an_error_and_not_a_new_session() -> None:
    """They have it and are silent: the request is answered 503, and finds it afterwards."""
    nodes = _start(3, rpc_timeout=300)
    try:
        apps = [_wsgi(node) for node in nodes]
        cookies = dict(apps[0]("/", cookies={}).cookies)
        key = cookies["JSESSIONID"]
        away = next(node for node in nodes if not _manager(node).is_held(key))
        held = [_core(node).seeks for node in nodes if node is not away]
        for seeks in held:
            seeks.on_seek = lambda source, message, now: None  # type: ignore[method-assign]
        with pytest.raises(SessionUnreachableError):
            bring(_manager(away), (key,), None)
        status, cookie, _ = ask(SessionMiddleware(page, away), "/", f"JSESSIONID={key}")
        assert status.startswith("503")
        assert not cookie
        for seeks in held:
            del seeks.on_seek
        answers: list[str] = []

        def is_served() -> bool:
            """A busy machine may let the short time-out pass once more."""
            answers.append(apps[nodes.index(away)]("/", cookies=cookies).text)
            return "try again" not in answers[-1]

        wait_until(is_served)
        assert answers[-1] == "2"
    finally:
        for node in nodes:
            node.stop()
