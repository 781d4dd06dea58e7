"""Workers on a real socket: threads, event loops and forks, and whoever else connects."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from tests.runtime.attach_host import Host, settings
from tests.standstill import Stopwatch
from tests.waiting import wait_until
from tests.web.nodes import make_node
from tribes import AttachedNode, BackgroundNode, MergedCounter, NodeConfig, open_node
from tribes.config.valves import SingleSignOnConfig
from tribes.errors import (
    ConfigError,
    LocalProtocolError,
    SessionLockTimeoutError,
    SessionNotReplicatedError,
    SessionUnreachableError,
)
from tribes.manager.attach_wire import FIND, HELLO, REFUSED, VERSION, FrameReader, decode, encode
from tribes.manager.attached import AttachedManager
from tribes.runtime import attach_server
from tribes.runtime.attach_socket import listen_unix
from tribes.web.binding import SessionBinding

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="not here: no unix sockets")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "node.sock")


@pytest.fixture
def host(path: str) -> Iterator[Host]:
    made = Host(settings(path))
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def attach() -> Iterator[Callable[..., AttachedNode]]:
    made: list[AttachedNode] = []

    def start(config: NodeConfig) -> AttachedNode:
        node = AttachedNode(config)
        made.append(node)
        node.start()
        node.wait_joined()
        return node

    try:
        yield start
    finally:
        for node in made:
            node.stop()


def make(node: AttachedNode, **values: Any) -> str:
    session = node.manager("app").create()
    session.update(values)
    node.commit(session)
    return session.id


def value(node: AttachedNode, session_id: str, name: str) -> Any:
    session = node.manager("app").find(session_id)
    assert session is not None
    return session[name]


def test_workers_of_a_host_share_its_sessions(host: Host, attach: Any) -> None:
    """One makes it, the other reads it at once; neither is a member."""
    one, two = attach(host.config), attach(host.config)
    assert one.is_ready
    session_id = make(one, a=1)
    assert value(two, session_id, "a") == 1
    assert host.channel.view.members == ()
    assert len(host.service.lines) == 2


def test_threads_of_two_workers_lose_no_count(host: Host, attach: Any) -> None:
    """Eight threads count in one session, each commit built again where another was faster."""
    workers = [attach(host.config), attach(host.config)]
    session_id = make(workers[0], hits=MergedCounter(), log=[])

    def count(worker: AttachedNode, name: int) -> None:
        for turn in range(25):
            session = worker.manager("app").find(session_id)
            assert session is not None
            session["hits"].add(1)
            session["log"].append((name, turn))
            worker.commit(session)

    threads = [threading.Thread(target=count, args=(workers[each % 2], each)) for each in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(workers[0], session_id, "hits").value == 200
    assert sorted(value(workers[0], session_id, "log")) == [
        (name, turn) for name in range(8) for turn in range(25)
    ]


@pytest.mark.parametrize("run", [lambda call: asyncio.run(call()), lambda call: trio.run(call)])
def test_event_loops_wait_without_blocking(host: Host, attach: Any, run: Any) -> None:
    """Under asyncio and trio alike; what would block is refused with what to write."""
    node = attach(host.config)
    binding = SessionBinding(node)

    async def serve() -> list[int]:
        held = await binding.aopen(())
        held["n"] = 0
        await binding.acommit(held)
        cookie = b"JSESSIONID=" + held.id.encode()
        for _ in range(3):
            held = await binding.aopen((cookie,))
            held["n"] += 1
            await binding.acommit(held)
        with pytest.raises(LocalProtocolError, match="abring"):
            node.manager("app").find(held.id)
        held["n"] += 1
        with pytest.raises(LocalProtocolError, match="acommit"):
            node.commit(held.session)
        return [held["n"]]

    assert run(serve) == [4]


def test_asking_again_in_a_stream_shows_what_others_wrote(host: Host, attach: Any) -> None:
    """`acommit` of a request that goes on for long."""
    node = attach(host.config)
    binding = SessionBinding(node)
    session_id = make(node, a=1)

    async def stream() -> tuple[int, int]:
        held = await binding.aopen((b"JSESSIONID=" + session_id.encode(),))
        held.committer = binding
        held.is_sealed = True
        before = held["a"]
        other = await binding.aopen((b"JSESSIONID=" + session_id.encode(),))
        other["a"] = 2
        await binding.acommit(other)
        await held.acommit()
        return before, held["a"]

    assert asyncio.run(stream()) == (1, 2)


@pytest.mark.parametrize("mode", ["local", "cluster"])
def test_requests_of_two_workers_wait_for_each_other(host: Host, attach: Any, mode: str) -> None:
    """With a lock, and the one that waits too long is refused."""
    manager = msgspec.structs.replace(host.config.manager, lock=mode, lock_timeout=3000)
    config = msgspec.structs.replace(host.config, manager=manager)
    one, two = (SessionBinding(attach(config)) for _ in range(2))
    session_id = make(one.node, a=1)  # type: ignore[arg-type]
    cookies = (b"JSESSIONID=" + session_id.encode(),)
    held = one.open(cookies)
    with pytest.raises(SessionLockTimeoutError, match="within 3 s"):
        two.open(cookies)
    one.close(held)
    two.close(two.open(cookies))


def test_process_with_many_descriptors_attaches(host: Host, attach: Any) -> None:
    """More than `select` can look at, as under a server with many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        node = attach(host.config)
        assert value(node, make(node, a=1), "a") == 1
        node.stop()
    finally:
        for each in taken:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_lock_of_a_worker_that_dies_is_given_back(host: Host, attach: Any) -> None:
    """Its connection is what holds it."""
    manager = msgspec.structs.replace(host.config.manager, lock="local")
    config = msgspec.structs.replace(host.config, manager=manager)
    one, two = attach(config), attach(config)
    session_id = make(one, a=1)
    cookies = (b"JSESSIONID=" + session_id.encode(),)
    held = SessionBinding(one).open(cookies)
    one.stop()
    binding = SessionBinding(two)
    binding.close(binding.open(cookies))
    held.release_lock()


def test_forgotten_lock_may_be_collected_while_the_client_is_at_work(
    host: Host, attach: Any
) -> None:
    """The collector runs wherever it likes, also in the middle of a question."""
    worker = attach(host.config)
    locks = worker.sessions.locks("app", "local", 20.0, lambda: host.channel)
    key = "A" * 32
    forgotten = [locks.acquire(key)]
    calls = worker.client._calls
    begin = calls.begin

    def collected_in_between(*args: Any, **keywords: Any) -> bytes:
        forgotten.clear()
        return begin(*args, **keywords)  # type: ignore[no-any-return]

    calls.begin = collected_in_between
    done = threading.Event()

    def request() -> None:
        make(worker, a=1)
        done.set()

    threading.Thread(target=request, daemon=True).start()
    assert done.wait(20)
    assert forgotten == []
    locks.acquire(key).release()


def test_forked_process_makes_a_connection_of_its_own(host: Host, attach: Any) -> None:
    """Parent and child go on; the node sees two workers with an actor each."""
    node = attach(host.config)
    session_id = make(node, hits=MergedCounter())
    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            session = node.manager("app").find(session_id)
            session["hits"].add(1)
            node.commit(session)
            os.write(write_end, b"done")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(write_end)
    assert os.read(read_end, 4) == b"done"
    os.close(read_end)
    session = node.manager("app").find(session_id)
    session["hits"].add(1)
    node.commit(session)
    assert value(node, session_id, "hits").value == 2
    assert len(host.channel.sessions.manager("app").lent_actors) == 2


def test_forked_process_holds_no_connection_that_its_parent_was_opening(path: str) -> None:
    """The node sees the end of it when the parent closes it, while the child lives on."""
    listener = listen_unix(path)
    listener.settimeout(10)
    node = AttachedNode(settings(path))
    node.start()
    made, _ = listener.accept()
    listener.close()
    with made:
        made.settimeout(10)
        assert made.recv(4096)  # HELLO: the parent waits for what this says
        read_end, write_end = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.close(write_end)
                os.read(read_end, 1)
            finally:
                os._exit(0)
        try:
            made.sendall(encode(REFUSED, 0, "by the test"))
            assert made.recv(4096) == b""
        finally:
            os.close(read_end)
            os.close(write_end)
            os.waitpid(pid, 0)
            node.stop()


def test_worker_says_that_its_node_is_gone_and_comes_back_by_itself(
    host: Host, attach: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is stored meanwhile, and every request is told."""
    node = attach(host.config)
    session_id = make(node, a=1)
    session = node.manager("app").find(session_id)
    host.stop()
    wait_until(lambda: not node.is_ready)
    with pytest.raises(SessionUnreachableError, match=r"node\.sock"):
        wait_until(lambda: node.manager("app").find(session_id) is None)
    session["a"] = 2
    with pytest.raises(SessionNotReplicatedError, match="nobody serves it"):
        node.commit(session)
    again = Host(host.config)
    try:
        wait_until(lambda: node.is_ready)
        assert node.manager("app").find(session_id) is None  # it was the only member
        make(node, b=1)
    finally:
        again.stop()
    out = capfd.readouterr().out
    assert "node is gone: requests that need a session get 503" in out
    assert out.count("attached  ") == 2


def test_commit_that_can_be_refused_no_more_is_logged(
    host: Host, attach: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """What a stream changes after its head is lost with an error in the log, and names."""
    node = attach(host.config)
    binding = SessionBinding(node)
    held = binding.open(())
    held["cart"] = 1
    host.stop()
    wait_until(lambda: not node.is_ready)
    wait_until(lambda: "node is gone" in capfd.readouterr().out)
    binding.commit(held, can_refuse=False)
    out = capfd.readouterr().out
    assert "session changes not stored" in out
    assert "cart" in out


# The socket.


def test_socket_is_its_users_only(host: Host, path: str) -> None:
    """Mode 0600, and gone with the node."""
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_ISSOCK(os.stat(path).st_mode)
    host.stop()
    assert not os.path.exists(path)


@pytest.mark.usefixtures("patient")
def test_process_of_another_user_is_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the file's mode says."""
    monkeypatch.setattr(attach_server, "is_trusted", lambda sock: False)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(10)
        stranger.connect(host.config.attach)
        assert stranger.recv(1) == b""


def test_socket_that_nobody_serves_is_replaced(path: str, attach: Any) -> None:
    """A killed node leaves its file."""
    left = listen_unix(path)
    left.close()
    assert os.path.exists(path)
    host = Host(settings(path))
    try:
        assert make(attach(host.config), a=1)
    finally:
        host.stop()


def test_second_node_is_refused(host: Host, path: str, attach: Any) -> None:
    """The first one goes on."""
    with pytest.raises(ConfigError, match=r"serves .*already"):
        listen_unix(path)
    assert make(attach(host.config), a=1)


def test_file_that_is_no_socket_is_left_alone(path: str) -> None:
    """It is not ours to remove."""
    Path(path).write_text("precious")
    with pytest.raises(ConfigError, match="no socket"):
        listen_unix(path)
    assert Path(path).read_text() == "precious"


@pytest.mark.parametrize("bad", ["/" + 100 * "x", "/no/such/folder/node.sock"])
def test_path_that_cannot_be_is_refused(bad: str) -> None:
    """With the key to change."""
    with pytest.raises(ConfigError, match="attach: "):
        listen_unix(bad)


class Stranger:
    """Whoever connects."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.reader = FrameReader()

    def say(self, data: bytes) -> None:
        # Who refuses the first bytes may have closed before the last are sent.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.sock.sendall(data)

    def hear(self) -> Any:
        """The next message; None when the connection has ended."""
        while (body := self.reader.next()) is None:
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self.reader.feed(data)
        return decode(body)


@pytest.fixture
def stranger(host: Host) -> Iterator[Stranger]:
    made = Stranger()
    with made.sock:
        made.sock.connect(host.config.attach)
        yield made


WELCOME = encode(HELLO, 0, VERSION, VERSION, ["app"])


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is sent away is so for what it said, and not because it has said nothing in time."""
    monkeypatch.setattr(attach_server, "HELLO_S", 60.0)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\xff\xff\xff\xff",
        bytes(64),
        struct.pack(">I", 65537) + bytes(65537),
        struct.pack(">I", 4) + b"\xc1\xc1\xc1\xc1",
        encode(VERSION + 10, 0, "app", "AB", 0, 0),
        WELCOME + struct.pack(">I", 2**31),
        WELCOME + struct.pack(">I", 5) + b"\x93\x01\x01\xdd\xff",
        WELCOME + WELCOME,
    ],
)
def test_hostile_client_costs_itself_its_connection(
    host: Host, attach: Any, stranger: Stranger, data: bytes
) -> None:
    """Garbage, frames that are too large, messages out of place; the others do not notice."""
    node = attach(host.config)
    session_id = make(node, a=1)
    stranger.say(data)
    while stranger.hear() is not None:
        pass
    assert value(node, session_id, "a") == 1
    assert node.client.connections == 1
    wait_until(lambda: len(host.service.lines) == 1)


def test_a_fault_of_ours_costs_one_worker_its_connection(
    host: Host, stranger: Stranger, attach: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And neither the node nor the other workers anything."""

    def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    worker = attach(host.config)
    with monkeypatch.context() as patched:
        patched.setattr(host.service, "lookup", broken)
        stranger.say(WELCOME)
        assert stranger.hear() is None
    assert value(worker, make(worker, a=1), "a") == 1


def test_other_version_is_told_what_is_wrong(stranger: Stranger) -> None:
    """By a message that every version understands."""
    stranger.say(encode(HELLO, 0, VERSION + 1, VERSION + 5, ["app"]))
    message = stranger.hear()
    assert message.kind == REFUSED
    assert "install the same release" in message.fields[0]
    assert stranger.hear() is None


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach_server, "HELLO_S", 0.1)


@pytest.mark.usefixtures("impatient")
def test_client_that_says_nothing_is_sent_away(stranger: Stranger) -> None:
    """It must not keep a connection."""
    assert stranger.hear() is None


def test_client_that_does_not_read_is_not_read_either(
    host: Host, attach: Any, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers that the node keeps for it are bounded, and nobody else waits."""
    monkeypatch.setattr(attach_server, "UNSENT_MAX_BYTES", 100_000)
    node = attach(host.config)
    session_id = make(node, a=bytes(50_000))
    stranger.say(WELCOME)
    stranger.sock.settimeout(0.5)
    questions = 100_000 * encode(FIND, 1, "app", session_id, 0, 0)
    with pytest.raises(TimeoutError):
        stranger.sock.sendall(questions)
    assert value(node, session_id, "a") == bytes(50_000)


def test_worker_of_a_context_that_the_node_does_not_have_is_told(
    host: Host, attach: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """In its log, and for each request."""
    config = msgspec.structs.replace(host.config, contexts=("other",))
    node = attach(config)
    assert not node.is_ready
    with pytest.raises(SessionUnreachableError, match="--context other"):
        node.manager("other").find("AB12CD34")
    assert "--context other" in capfd.readouterr().out


# Settings.


def test_one_setting_decides_whether_a_process_is_attached(path: str) -> None:
    """In the configuration, or in the environment over it."""
    config = NodeConfig(contexts=("app",))
    assert isinstance(open_node(config, environ={}), BackgroundNode)
    attached = open_node(config, environ={"TRIBES_ATTACH": path})
    assert isinstance(attached, AttachedNode)
    assert attached.config.attach == path
    assert isinstance(attached.manager("app"), AttachedManager)
    with pytest.raises(ConfigError, match="open_node"):
        BackgroundNode(attached.config)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"attach": ""}, "attach"),
        ({"sso": SingleSignOnConfig()}, "sso"),
        ({"valves": ("CrawlerSessionManagerValve",)}, "valves"),
        ({"manager": {"session_activity_check": True}}, "manager.session_activity_check"),
        ({"manager": {"session_last_access_at_start": True}}, "manager.session_last_access"),
        ({"manager": {"announce_created": True}}, "manager.announce_created"),
        ({"manager": {"expire_sessions_on_shutdown": True}}, "manager.expire_sessions_on"),
        ({"manager": {"notify_listeners_on_replication": True}}, "manager.notify_listeners"),
    ],
)
def test_setting_that_cannot_work_attached_is_refused(
    path: str, changes: dict[str, Any], key: str
) -> None:
    """By its key, and why."""
    config = settings(path)
    manager = msgspec.structs.replace(config.manager, **changes.get("manager", {}))
    config = msgspec.structs.replace(config, **{**changes, "manager": manager})
    with pytest.raises(ConfigError, match=key):
        AttachedNode(config)


def test_what_only_a_member_has_is_refused(path: str) -> None:
    """With where it is to be had."""
    node = AttachedNode(settings(path))
    with pytest.raises(LocalProtocolError, match="this process is none"):
        node.send(b"hello")
    assert not hasattr(AttachedNode, "send")
    with pytest.raises(AttributeError):
        node.nonsense  # noqa: B018 - the look-up is what is tested


def test_sessions_of_two_hosts_are_one_group(path: str, attach: Any) -> None:
    """What a worker commits with 6 is on the other member when it is answered."""
    config = settings(path)
    host = Host(config)
    other = make_node("other", config.channel.membership.port)
    other.start()
    try:
        node = attach(config)
        wait_until(lambda: len(host.channel.view.members) == 1)
        wait_until(lambda: host.channel.sessions.manager("app").copies_on == ("other",))
        session = node.manager("app").create()
        session["a"] = 1
        assert node.commit(session).acked == ("other",)
        found = other.manager("app").find(session.id)
        assert found is not None
        assert found["a"] == 1
        watch = Stopwatch()
        node.stop()
        assert watch.seconds < 2
        assert len(other.view.members) == 1
    finally:
        other.stop()
        host.stop()
