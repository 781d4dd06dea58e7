"""Each example starts by the command that it shows, and its session survives ``kill -9``."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.ports import free_tcp_port, free_udp_port
from tests.servers.caches import CacheServer, cache_servers
from tests.servers.test_attached_servers import Host
from tests.snippets import code_lines
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import Needs

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*/app.py"))


class Instances:
    """Runs of one example, each in a process group of its own."""

    def __init__(self, app: Path, folder: Path) -> None:
        [self.command] = re.findall(r"\n\n    (\S.*)\n\n", ast_docstring(app))
        assert "8001" in self.command
        self.app = app
        self.folder = folder
        self.group_port = free_udp_port()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.http = httpx.Client(timeout=30, trust_env=False)
        self.memcached: list[CacheServer] = []
        self.hosts: list[Host] = []

    def start(self) -> int:
        """Start one; returns its port."""
        port = free_tcp_port()
        environment = {
            **os.environ,
            "GROUP_PORT": str(self.group_port),
            "MEMCACHED_NODES": ",".join(
                f"n{number}:{server.address}" for number, server in enumerate(self.memcached, 1)
            ),
            "PYTHONPATH": str(ROOT),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        if self.app.parent.name == "attached":
            host = Host(f"host-{port}", self.group_port, self.folder, attach=True)
            self.hosts.append(host)
            host.start()
            environment["TRIBES_ATTACH"] = host.socket
        with (self.folder / f"{port}.log").open("wb") as log:
            self.processes.append(
                subprocess.Popen(
                    self.command.replace("8001", str(port)).split(),
                    cwd=self.app.parent,
                    env=environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )
        wait_until(lambda: self.visit(port), 30)
        return port

    def visit(self, port: int, cookie: str = "") -> httpx.Response | None:
        """One request; None when nobody serves."""
        self.http.cookies.clear()  # it would send what it has got, to every port
        try:
            headers = {"cookie": cookie} if cookie else {}
            return self.http.get(f"http://127.0.0.1:{port}/", headers=headers)
        except httpx.TransportError:
            assert self.processes[-1].poll() is None, self.logs()
            return None

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in self.folder.glob("*.log"))

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """At once, its workers too, and the node that they are attached to."""
        for host in self.hosts[self.processes.index(process) :][:1]:
            host.end(signal.SIGKILL)
        with process, contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def ast_docstring(app: Path) -> str:
    return ast.get_docstring(ast.parse(app.read_text())) or ""


@pytest.fixture
def instances(request: pytest.FixtureRequest, tmp_path: Path, needs: Needs) -> Iterator[Instances]:
    made = Instances(request.param, tmp_path)
    with contextlib.ExitStack() as stack:
        if request.param.parent.name == "memcached":
            made.memcached = stack.enter_context(cache_servers("memcached", 2, needs))
        try:
            yield made
        finally:
            for process in made.processes:
                made.kill(process)
            made.http.close()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="not here: no process groups")
@pytest.mark.parametrize(
    "instances", EXAMPLES, ids=[app.parent.name for app in EXAMPLES], indirect=True
)
def test_session_survives_the_process_that_made_it(instances: Instances) -> None:
    """Two instances share it; the first is killed, and the next request finds it."""
    one = instances.start()
    two = instances.start()
    first = instances.visit(one)
    assert first is not None
    assert first.text == "visit 1"
    cookie = first.headers["set-cookie"].partition(";")[0]
    visits = 1

    def is_shared() -> bool:
        nonlocal visits
        answers = [instances.visit(port, cookie) for port in (one, two)]
        visits += 2
        return answers[1] is not None and answers[1].text == f"visit {visits}"

    wait_until(is_shared)
    last = instances.visit(one, cookie)
    assert last is not None
    assert last.text == f"visit {visits + 1}"
    instances.kill(instances.processes[0])
    for server in instances.memcached[:1]:
        server.kill()
    found = instances.visit(two, cookie)
    assert found is not None, instances.logs()
    assert found.text == f"visit {visits + 2}", instances.logs()


@pytest.mark.parametrize("app", EXAMPLES, ids=[app.parent.name for app in EXAMPLES])
def test_example_is_short(app: Path) -> None:
    """Under thirty lines of code, without its docstring and imports."""
    assert 0 < len(code_lines(app)) < 30
    assert len(EXAMPLES) >= 4
