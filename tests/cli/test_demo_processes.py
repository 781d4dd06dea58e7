"""The demo as its user meets it: a parent process, nodes that answer, and Ctrl-C.

The nodes are real processes that run the command ``demo-node`` with the demo's web app. Only what
is behind the app is fake: sessions live in the node's own memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
import trio

import tribes

pytestmark = pytest.mark.skipif(os.name != "posix", reason="not here: signals of POSIX")

LIMIT_S = 20
ROOT = Path(tribes.__file__).parents[1]

NODE = f"""
import itertools, os, sys, types
sys.path.insert(0, {str(ROOT)!r})
import uvicorn
from tribes.cli.demo import demo_node
from tribes.cli.demo_app import make_app

class Session(dict):
    created_ms = 1_763_650_000_000

def with_sessions(app):
    sessions = {{}}
    async def wrapped(scope, receive, send):
        if scope["type"] != "http":
            return await app(scope, receive, send)
        cookie = dict(scope["headers"]).get(b"cookie", b"").decode()
        key = cookie.partition("=")[2] or os.urandom(16).hex().upper()
        session = sessions.setdefault(key, Session())
        session.id = key
        async def send_cookie(message):
            if message["type"] == "http.response.start":
                message["headers"] += [(b"set-cookie", b"JSESSIONID=" + key.encode())]
            await send(message)
        await app({{**scope, "session": session}}, receive, send_cookie)
    return wrapped

def run_node(name, http_port, multicast_port, control_url, peers, address):
    app = with_sessions(make_app(name, lambda: [name], control_url, peers))
    if os.environ.get("DEAF"):
        uvicorn.Server.handle_exit = lambda self, number, frame: print("asked to leave")
    uvicorn.run(app, host=address, port=http_port, log_level="warning")

fake = types.ModuleType("tribes.cli.demo_node")
fake.run_node = run_node
sys.modules["tribes.cli.demo_node"] = fake
demo_node(sys.argv[1:])
"""

PARENT = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from tribes.cli import demo, demo_nodes
demo_nodes._LEAVE_S = {5 * LIMIT_S}
real_command = demo.node_command
demo.node_command = lambda spec: [sys.executable, "-c", {NODE!r}, *real_command(spec)[4:]]
demo.demo(sys.argv[1:])
"""


class Parent:
    """A running ``tribes demo``."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.shown = ""

    async def read(self) -> None:
        assert self.process.stdout is not None
        async for chunk in self.process.stdout:
            self.shown += chunk.decode()

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.move_on_after(LIMIT_S):
            while not condition():  # noqa: ASYNC110  (a process can't set an event here)
                await trio.sleep(0.02)
            return
        raise AssertionError(f"waited in vain; the demo showed:\n{self.shown}")

    async def until_shown(self, pattern: str, times: int = 1) -> list[str]:
        await self.until(lambda: len(re.findall(pattern, self.shown)) >= times)
        return re.findall(pattern, self.shown)

    async def end(self) -> int:
        """Wait until the parent has ended."""
        with trio.fail_after(LIMIT_S):
            return await self.process.wait()

    def pids(self) -> list[int]:
        return [int(pid) for pid in re.findall(r"node started .* pid=(\d+)", self.shown)]


def runs(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped doesn't."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    if sys.platform != "linux":
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextlib.asynccontextmanager
async def parent_of(nodes: int, *, ready: bool = True, **env: str) -> AsyncIterator[Parent]:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", PARENT, "--nodes", str(nodes), "--base-port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **env},
        start_new_session=True,  # a process group of its own, as in a terminal
    )
    parent = Parent(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(parent.read)
            await parent.until_shown(r"node ready" if ready else r"node started", nodes)
            yield parent
            nursery.cancel_scope.deadline = trio.current_time() + 1
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await parent.until(lambda: not any(runs(pid) for pid in parent.pids()))


async def get(url: str, client: httpx.AsyncClient) -> dict[str, object]:
    answer: dict[str, object] = (await client.get(url, timeout=LIMIT_S)).json()
    return answer


async def test_kill_a_node_start_it_again_and_end_with_ctrl_c() -> None:
    """Ctrl-C goes to all processes of a terminal; the nodes wait until the parent asks them."""
    async with parent_of(2) as parent, httpx.AsyncClient(timeout=LIMIT_S) as client:
        [control] = await parent.until_shown(r"control +(http://[\d.:]+)/")
        status = await get(f"{control}/status", client)
        nodes = status["nodes"]
        assert isinstance(nodes, list)
        assert [(node["name"], node["running"], node["ready"]) for node in nodes] == [
            ("node-1", True, True),
            ("node-2", True, True),
        ]
        first = await get(f"{nodes[0]['url']}/session", client)
        second = await get(f"{nodes[0]['url']}/session", client)
        assert (first["node"], first["pid"], first["count"]) == ("node-1", nodes[0]["pid"], 1)
        assert second == {**first, "count": 2}

        killed = (await client.post(f"{control}/kill/node-1")).json()
        assert (killed["running"], killed["killed_by_user"]) == (False, True)
        assert not runs(nodes[0]["pid"])
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{nodes[0]['url']}/health")
        assert (await get(f"{nodes[1]['url']}/session", client))["node"] == "node-2"

        started = (await client.post(f"{control}/start/node-1")).json()
        assert started["running"]
        assert started["pid"] != nodes[0]["pid"]
        await parent.until_shown(r"node ready +node=node-1", 2)
        third = await get(f"{nodes[0]['url']}/session", client)
        assert (third["node"], third["pid"]) == ("node-1", started["pid"])

        os.killpg(parent.process.pid, signal.SIGINT)
        assert await parent.end() == 0
        assert not any(runs(pid) for pid in parent.pids())
        await parent.until_shown("All nodes have ended")
        ends = re.findall(r"node ended +node=(\S+) pid=\d+ (how=.*)", parent.shown)
        assert ends[0] == ("node-1", "how=SIGKILL by='the control port (kill)'")
        asked = "how='exit status 0' by='the end of the demo'"
        assert sorted(ends[1:]) == [("node-1", asked), ("node-2", asked)]
        assert "Traceback" not in parent.shown


async def test_sigterm_ends_the_demo_as_ctrl_c_does() -> None:
    async with parent_of(1) as parent:
        parent.process.terminate()
        assert await parent.end() == 0
        assert not runs(parent.pids()[0])


async def test_ctrl_c_while_the_nodes_still_start_ends_them() -> None:
    async with parent_of(2, ready=False) as parent:
        os.kill(parent.process.pid, signal.SIGINT)
        assert await parent.end() == 0
        assert len(parent.pids()) == 2
        assert not any(runs(pid) for pid in parent.pids())


async def test_kill_9_of_the_parent_ends_the_nodes() -> None:
    async with parent_of(2) as parent:
        parent.process.kill()
        assert await parent.end() == -signal.SIGKILL
        assert len(parent.pids()) == 2
        await parent.until(lambda: not any(runs(pid) for pid in parent.pids()))


async def test_the_second_ctrl_c_does_not_wait() -> None:
    async with parent_of(1, DEAF="1") as parent:
        parent.process.send_signal(signal.SIGINT)
        await parent.until_shown(r"node-1 \| asked to leave")
        parent.process.send_signal(signal.SIGINT)
        assert await parent.end() == 0  # without it: much later than the test waits
        assert not runs(parent.pids()[0])
        await parent.until_shown("how=SIGKILL by='the end of the demo'")


async def test_the_page_of_a_node_knows_all_nodes_and_the_control_port() -> None:
    async with parent_of(2) as parent, httpx.AsyncClient(timeout=LIMIT_S) as client:
        [control] = await parent.until_shown(r"control +(http://[\d.:]+)/")
        urls = await parent.until_shown(r"  node-\d +(http://[\d.:]+)/\n")
        page = (await client.get(urls[1])).text
        data = json.loads(page.partition('id="demo-data">')[2].partition("<")[0])
        assert (data["node"], data["control"], data["count"]) == ("node-2", control, 0)
        assert all(f'href="{url}/"' in page for url in urls)
        # What the page's script asks the control port, a browser lets it read.
        answer = await client.get(f"{control}/status", headers={"origin": urls[1]})
        assert answer.headers["access-control-allow-origin"] == urls[1]
