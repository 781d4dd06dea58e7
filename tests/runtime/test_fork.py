"""Forked processes: a child has nothing of its parent's node, and gets a member of its own.

Each test starts a program in a process of its own, whose node the test's own node watches. The
program forks, and prints what it found as JSON lines.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.ports import free_udp_port
from tests.waiting import wait_until
from tribes.channel.outputs import Event, MemberAdded, MemberRemoved
from tribes.config.model import (
    ChannelConfig,
    ManagerConfig,
    MembershipConfig,
    NodeConfig,
    ReceiverConfig,
)
from tribes.runtime.background import BackgroundNode

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="not here: no fork")

needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="not here: no /proc")

PRELUDE = """
import asyncio, json, os, signal, sys, threading, time
import structlog, trio
from tribes import *
signal.alarm(30)  # a hang ends by itself
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

def config():
    return NodeConfig(
        name="web", contexts=("app",),
        channel=ChannelConfig(
            membership=MembershipConfig(port=int(sys.argv[1]), frequency=50, drop_time=10_000),
            receiver=ReceiverConfig(port=0)),
        manager=ManagerConfig(channel_send_options=6, commit_timeout=5000))

def say(**found):
    # In one call, since children write to the same pipe.
    os.write(1, (json.dumps(found) + "\\n").encode())

def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)

def inet_sockets(pid="self"):
    inodes = set()
    for kind in ("tcp", "udp"):
        with open(f"/proc/{pid}/net/{kind}") as lines:
            inodes |= {line.split()[9] for line in lines}
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
        if target.startswith("socket:[") and target[8:-1] in inodes:
            found.append(target)
    return found

def forked(work):
    # What work() raises is printed; the child ends without cleaning up.
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            say(error=f"{type(error).__name__}: {error}")
        finally:
            os._exit(0)
    return pid

def wait(*pids):
    for pid in pids:
        _, status = os.waitpid(pid, 0)
        assert status == 0, status

def started():
    node = BackgroundNode(config())
    node.start()
    assert node.wait_joined()
    until(lambda: node.manager("app").copies_on)
    return node

def write(node, session_id=None, **values):
    manager = node.manager("app")
    session = manager.create() if session_id is None else manager.find(session_id)
    session.update(values)
    return session.id, node.commit(session)
"""


class Watcher:
    """The test's own node, and the program that forks."""

    def __init__(self) -> None:
        self.group_port = free_udp_port()
        self.events: list[Event] = []
        self.node = BackgroundNode(
            NodeConfig(
                name="watcher",
                contexts=("app",),
                channel=ChannelConfig(
                    membership=MembershipConfig(
                        port=self.group_port, frequency=50, drop_time=10_000
                    ),
                    receiver=ReceiverConfig(port=0),
                ),
                manager=ManagerConfig(channel_send_options=6),
            ),
            watch=self.events.append,
        )
        self.node.start()
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, program: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + program, str(self.group_port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.processes.append(process)
        return process

    def run(self, program: str) -> list[dict[str, Any]]:
        """Run a program to its end; returns what it and its children said."""
        output, _ = self.start(program).communicate(timeout=45)
        assert self.processes[-1].returncode == 0
        said = [json.loads(line) for line in output.splitlines()]
        assert not [each for each in said if "error" in each], said
        return said

    @property
    def additions(self) -> int:
        return sum(isinstance(event, MemberAdded) for event in self.events)

    @property
    def removals(self) -> list[str]:
        return [str(event.reason) for event in self.events if isinstance(event, MemberRemoved)]

    def wait_removed(self, *reasons: str) -> None:
        """Members have been removed for these reasons, by now or in a moment: the node has a thread
        of its own.
        """
        wait_until(lambda: len(self.removals) >= len(reasons), what=lambda: self.removals)
        assert self.removals == list(reasons)

    def stop(self) -> None:
        for process in self.processes:
            with process:
                process.kill()
        self.node.stop()


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    made = Watcher()
    try:
        yield made
    finally:
        made.stop()


def test_children_that_end_do_not_disturb_the_parent(watcher: Watcher) -> None:
    """At once, by an exception, or with everything that runs at exit: no connection is touched."""
    [said] = watcher.run("""
node = started()
links = node.channel.shell.links.opened
for way in (lambda: os._exit(0), lambda: sys.exit(0), lambda: 1 / 0) * 3:
    pid = os.fork()
    if pid == 0:
        sys.stderr = open(os.devnull, "w")
        way()
    os.waitpid(pid, 0)
_, result = write(node, x=1)
say(acked=result.acked, missing=dict(result.missing), names=node.member_names,
    links=node.channel.shell.links.opened - links)
node.stop()
""")
    assert said == {"acked": ["watcher"], "missing": {}, "names": ["web", "watcher"], "links": 0}
    watcher.wait_removed("left")


def test_child_becomes_a_member_beside_its_parent(watcher: Watcher) -> None:
    """By using a manager: with ids, port, actor and sessions of its own; both serve everything."""
    said = watcher.run("""
node = started()
manager = node.manager("app")
session_id, _ = write(node, by="parent")
ready, go = os.pipe()

def child():
    assert not node.is_running and not node.was_started and len(manager.table) == 0
    os.read(ready, 1)
    session = manager.find(session_id)      # starts the node and waits for the sessions
    say(who="child", found=dict(session), id=node.local.unique_id.hex(), port=node.local.port,
        actor=node.sessions.clock.actor, members=sorted(node.member_names))
    say(acked=sorted(write(node, session_id, also="child")[1].acked))
    node.stop()

pid = forked(child)
write(node, session_id, later="after the fork")
os.write(go, b"x")
wait(pid)
say(who="parent", found=dict(manager.find(session_id)), id=node.local.unique_id.hex(),
    port=node.local.port, actor=node.sessions.clock.actor)
node.stop()
""")
    child, acked, parent = said
    assert child["found"] == {"by": "parent", "later": "after the fork"}
    assert child["members"] == ["watcher", "web", "web"]
    assert acked == {"acked": ["watcher", "web"]}
    assert parent["found"] == {**child["found"], "also": "child"}
    for name in ("id", "port", "actor"):
        assert child[name] != parent[name], name
    watcher.wait_removed("left", "left")


def test_fork_while_threads_and_the_channel_are_busy(watcher: Watcher) -> None:
    """Whatever a thread held at that moment, the child's locks are free and its node works."""
    said = watcher.run("""
node = started()
busy, written = True, []
def load():
    while busy:
        written.append(write(node, x="y" * 1000))
threads = [threading.Thread(target=load) for _ in range(3)]
for thread in threads:
    thread.start()
def child():
    done = []
    def is_acked():
        # On a busy machine the watcher may be suspected for a moment.
        done[:] = write(node, mine=os.getpid())
        return "watcher" in done[1].acked
    until(is_acked)
    say(found=node.manager("app").find(done[0])["mine"] == os.getpid())
    node.stop()
pids = []
for number in range(1, 5):
    until(lambda: len(written) > 20 * number)
    pids.append(forked(child))
wait(*pids)
busy = False
for thread in threads:
    thread.join()
say(parent=dict(write(node, x=1)[1].missing))
node.stop()
""")
    assert said[:-1] == [{"found": True}] * 4
    assert said[-1] == {"parent": {}}


def test_locks_held_at_the_fork_do_not_stop_the_child(watcher: Watcher) -> None:
    """Another thread holds every lock of the sessions and of the node while the fork happens."""
    said = watcher.run("""
node = started()
write(node, x=1)
manager = node.manager("app")
locks = [node.sessions._lock, node.sessions.clock._lock, node.sessions.inbox._lock,
         manager.table._lock, manager.policy._lock, node._lock,
         structlog._output._get_lock_for_file(sys.stderr)]
for lock in locks:
    lock.acquire()
def child():
    say(acked=sorted(write(node, x=2)[1].acked), names=sorted(set(node.member_names)))
    node.stop()
pid = forked(child)
for lock in locks:
    lock.release()
wait(pid)
node.stop()
""")
    assert said == [{"acked": ["watcher", "web"], "names": ["watcher", "web"]}]


@needs_proc
def test_child_that_sleeps_does_not_hide_that_its_parent_was_killed(watcher: Watcher) -> None:
    """The parent's connections end with it, and its port is free: noticed at once."""
    process = watcher.start("""
node = started()
port = node.local.port
def child():
    say(child=os.getpid(), port=port, inet=inet_sockets())
    time.sleep(60)
forked(child)
time.sleep(60)
""")
    assert process.stdout is not None
    child = json.loads(process.stdout.readline())
    try:
        assert child["inet"] == []
        assert len(watcher.node.view.members) == 1
        process.kill()
        assert wait_until(lambda: not watcher.node.view.members) <= 1.0
        watcher.wait_removed("crashed")
        os.kill(child["child"], 0)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", child["port"]))
            sock.listen()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child["child"], 9)


@needs_proc
def test_started_programs_inherit_no_socket(watcher: Watcher) -> None:
    """Close-on-exec, also where the program's starter closes nothing."""
    [said] = watcher.run("""
import subprocess
node = started()
sleeper = subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"],
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False)
sleeper.stdout.readline()
say(mine=len(inet_sockets()), theirs=inet_sockets(sleeper.pid))
sleeper.communicate(b"\\n")
node.stop()
""")
    assert said["mine"] >= 4
    assert said["theirs"] == []


def test_workers_of_multiprocessing(watcher: Watcher) -> None:
    """A pool of forked workers: each commits by a member of its own, and leaves in good order."""
    said = watcher.run("""
import multiprocessing
node = started()
session_id, _ = write(node, x=1)
def work(number):
    _, result = write(node, session_id, **{f"w{number}": number})
    return "watcher" in result.acked
context = multiprocessing.get_context("fork")
with context.Pool(2) as pool:
    say(done=pool.map(work, range(6), chunksize=3))
    pool.close()
    pool.join()
until(lambda: len(node.manager("app").find(session_id)) == 7)
say(missing=dict(write(node, session_id, x=2)[1].missing))
node.stop()
""")
    assert said[0] == {"done": [True] * 6}
    wait_until(lambda: len(watcher.removals) == watcher.additions)
    assert set(watcher.removals) == {"left"}


def test_node_made_before_the_fork_and_started_in_each_worker(watcher: Watcher) -> None:
    """Preloading: the parent never runs it. Workers are members of one another."""
    said = watcher.run("""
import multiprocessing
node = BackgroundNode(config())
manager = node.manager("app")
both_have_seen = multiprocessing.get_context("fork").Barrier(2)
def worker():
    node.start()
    assert node.wait_joined()
    until(lambda: len(manager.copies_on) == 2)
    say(names=sorted(node.member_names), actor=node.sessions.clock.actor)
    both_have_seen.wait(20)
    node.stop()
wait(forked(worker), forked(worker))
assert not node.was_started
""")
    assert [each["names"] for each in said] == [["watcher", "web", "web"]] * 2
    assert said[0]["actor"] != said[1]["actor"]


def test_event_loop_in_a_child_is_not_blocked_by_its_start(watcher: Watcher) -> None:
    """There a look-up says what to await; after that everything works."""
    said = watcher.run("""
node = started()
session_id, _ = write(node, x=1)
async def main():
    manager = node.manager("app")
    try:
        manager.find(session_id)
    except LocalProtocolError as error:
        say(refused=str(error))
    assert await node.await_joined()
    session = manager.find(session_id)
    session["x"] += 1
    say(missing=dict((await node.acommit(session)).missing), x=manager.find(session_id)["x"])
    node.stop()
wait(forked(lambda: asyncio.run(main())))
wait(forked(lambda: trio.run(main)))
node.stop()
""")
    assert [each for each in said if "x" in each] == [
        {"missing": {}, "x": 2},
        {"missing": {}, "x": 3},
    ]
    assert ["await node.await_joined()" in each["refused"] for each in said[::2]] == [True] * 2


def test_web_worker_forked_from_a_running_node(watcher: Watcher) -> None:
    """Its first requests wait for its own node, and find the session."""
    said = watcher.run("""
from tribes.web import SessionMiddleware
node = started()
session_id, _ = write(node, x=1)
async def app(scope, receive, send):
    session = scope["session"]
    say(found=dict(session))
    session["x"] = 2
    await send({"type": "http.response.start", "status": 200, "headers": []})
middleware = SessionMiddleware(app, node)
async def send(message):
    pass
async def main():
    scope = {"type": "http", "headers": [(b"cookie", b"JSESSIONID=" + session_id.encode())]}
    await asyncio.gather(*(middleware(dict(scope), None, send) for _ in range(5)))
    node.stop()
wait(forked(lambda: asyncio.run(main())))
until(lambda: node.manager("app").find(session_id)["x"] == 2)
node.stop()
""")
    assert len(said) == 5
    assert said[0] == {"found": {"x": 1}}


def test_given_interceptors_are_not_shared_with_a_child(watcher: Watcher) -> None:
    """They hold the parent's queues. A function that makes them is what a child needs."""
    said = watcher.run("""
from tribes.interceptors import MessageDispatchInterceptor, TcpFailureDetector
chain = lambda: [MessageDispatchInterceptor(), TcpFailureDetector()]
for interceptors in (chain(), chain):
    node = BackgroundNode(config(), interceptors=interceptors)
    node.start()
    node.wait_joined()
    def child():
        try:
            node.start()
        except LocalProtocolError as error:
            say(refused=str(error))
        else:
            say(joined=node.wait_joined())
            node.stop()
    wait(forked(child))
    node.stop()
""")
    assert "a function that makes them" in said[0]["refused"]
    assert said[1] == {"joined": True}


def test_channel_of_a_trio_program_stays_the_parents(watcher: Watcher) -> None:
    """In the child every use says so; the parent's goes on."""
    said = watcher.run("""
async def main():
    async with GroupChannel(config()) as channel:
        await channel.await_joined()
        while not channel.manager("app").copies_on:
            await trio.sleep(0.01)
        manager = channel.manager("app")
        session = manager.create()
        session["x"] = 1
        await channel.acommit(session)
        pid = os.fork()
        if pid == 0:
            for use in (lambda: channel.members, lambda: manager.find(session.id),
                        lambda: manager.commit(session)):
                try:
                    use()
                except TribesError as error:
                    say(refused=type(error).__name__, forked="forked" in str(error))
            os._exit(0)
        await trio.to_thread.run_sync(os.waitpid, pid, 0)
        session["x"] = 2
        result = await channel.acommit(session)
        say(acked=result.acked)
trio.run(main)
""")
    assert [each["refused"] for each in said[:3]] == [
        "ChannelClosedError",
        "LocalProtocolError",
        "LocalProtocolError",
    ]
    assert said[3] == {"acked": ["watcher"]}
    assert all(each["forked"] for each in said[:3])
    watcher.wait_removed("left")


def test_fork_waits_for_a_socket_that_is_being_opened() -> None:
    """A socket is noted before a fork can happen, so that the child knows it."""
    from tribes.runtime.sockets import open_socket

    opening, go_on, forked = threading.Event(), threading.Event(), threading.Event()
    made: list[socket.socket] = []

    def make() -> socket.socket:
        opening.set()
        go_on.wait(20)
        made.append(socket.socket())
        return made[0]

    opener = threading.Thread(target=lambda: open_socket(make))
    opener.start()
    assert opening.wait(20)
    found: list[int] = []

    def fork() -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if made and made[0].fileno() == -1 else 1)
        forked.set()
        found.append(os.waitpid(pid, 0)[1])

    forker = threading.Thread(target=fork)
    forker.start()
    assert not forked.wait(0.05)
    go_on.set()
    opener.join()
    forker.join()
    made[0].close()
    assert found == [0]
