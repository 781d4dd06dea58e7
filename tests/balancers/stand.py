"""Three processes of examples/balancers/app.py, real balancers in front, and users who count."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from tests.ports import free_tcp_port, free_udp_port
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.conftest import Needs

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "balancers"
NAMES = ("web1", "web2", "web3")

_MODULES = (
    *("mpm_event", "authz_core", "headers", "proxy", "proxy_http", "proxy_balancer"),
    *("slotmem_shm", "lbmethod_byrequests", "lbmethod_bytraffic", "watchdog", "proxy_hcheck"),
)


class Stand:
    """Three application processes and what is in front of them, each ended by its pid.

    Attributes:
        application: What Python is to run, with the port in ``PORT``.
        port: Of the first balancer.
    """

    application = EXAMPLES / "app.py"

    def __init__(self, folder: Path, needs: Needs) -> None:
        self.folder = folder
        self.needs = needs
        self.port = free_tcp_port()
        self.ports = {name: free_tcp_port() for name in NAMES}
        self.group_port = free_udp_port()
        self.apps: dict[str, subprocess.Popen[bytes]] = {}
        self.balancers: list[subprocess.Popen[bytes]] = []
        self.http = httpx.Client(timeout=10, trust_env=False)

    def start(self, configuration: str) -> None:
        """Start everything; return when each process and the balancer answer."""
        for name in NAMES:
            self.begin(name)
        for name in NAMES:
            self.wait_ready(name)
        self.add(configuration, self.port)

    def add(self, configuration: str, port: int = 0) -> int:
        """Start one more balancer, of another kind than the others; the port that it answers at."""
        port = port or free_tcp_port()
        self.balancers.append(self._start_balancer(EXAMPLES / configuration, port))
        wait_until(lambda: self._answers(port))
        return port

    def begin(self, name: str) -> None:
        """Start one application process."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.apps[name] = subprocess.Popen(
                [sys.executable, self.application.name],
                cwd=self.application.parent,
                env={
                    **os.environ,
                    "ROUTE": name,
                    "PORT": str(self.ports[name]),
                    "GROUP_PORT": str(self.group_port),
                    "PYTHONPATH": str(ROOT),
                },
                stdout=log,
                stderr=log,
            )

    def wait_ready(self, name: str) -> None:
        wait_until(lambda: self._answers(self.ports[name]), 30)

    def kill(self, name: str) -> None:
        """End one at once."""
        process = self.apps.pop(name)
        process.kill()
        process.wait()

    def restart(self, name: str) -> None:
        """Ask one to leave, and start it again."""
        process = self.apps.pop(name)
        process.terminate()
        process.wait(30)
        self.begin(name)
        self.wait_ready(name)

    def close(self) -> None:
        for process in self.apps.values():
            process.kill()
            process.wait()
        for balancer in self.balancers:
            balancer.send_signal(signal.SIGTERM)
        for balancer in self.balancers:
            try:
                balancer.wait(10)
            except subprocess.TimeoutExpired:
                balancer.kill()
                balancer.wait()
        self.http.close()

    def logs(self) -> str:
        return "\n".join(
            f"== {path.name}\n{path.read_text()[-3000:]}" for path in self.folder.glob("*log")
        )

    def _answers(self, port: int) -> bool:
        for process in (*self.balancers, *self.apps.values()):
            assert process.poll() is None, self.logs()
        with contextlib.suppress(httpx.TransportError):
            return self.http.get(f"http://127.0.0.1:{port}/ready").status_code == 200
        return False

    def _start_balancer(self, example: Path, port: int) -> subprocess.Popen[bytes]:
        ports = {8000: port, **{8001 + i: self.ports[name] for i, name in enumerate(NAMES)}}
        # As a user would: the addresses are changed, and nothing else.
        text, changed = re.subn(
            r"127\.0\.0\.1:(800\d)",
            lambda found: f"127.0.0.1:{ports[int(found[1])]}",
            example.read_text(),
        )
        assert changed >= 4
        kind = example.parent.name
        file = self.folder / f"{kind}.conf"
        if kind == "nginx":
            file.write_text(self._nginx(text))
            command = [self.needs("nginx"), "-c", str(file), "-p", str(self.folder)]
        elif kind == "httpd":
            file.write_text(self._httpd(text, port))
            command = [self.needs("apache2", "httpd"), "-f", str(file), "-DFOREGROUND"]
        else:
            file.write_text(text)
            command = [self.needs("haproxy"), "-f", str(file), "-db"]
        with (self.folder / f"{kind}.log").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def _nginx(self, text: str) -> str:
        folder = self.folder
        temporary = " ".join(
            f"{name}_temp_path {folder}/{name};"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        return (
            f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;"
            f" {'user root;' if os.geteuid() == 0 else ''}\n"
            f"events {{}}\nhttp {{ access_log off; {temporary}\n{text}\n}}\n"
        )

    def _httpd(self, text: str, port: int) -> str:
        modules = Path("/usr/lib/apache2/modules")
        loaded = "\n".join(
            f"LoadModule {name}_module {file}"
            for name in _MODULES
            if (file := modules / f"mod_{name}.so").exists()  # some are built in
        )
        user = "User www-data\nGroup www-data\n" if os.geteuid() == 0 else ""
        folder = self.folder
        return (
            f"ServerRoot {folder}\nServerName localhost\nPidFile {folder}/httpd.pid\n"
            f"DefaultRuntimeDir {folder}\nErrorLog {folder}/error.log\n{loaded}\n{user}"
            f"Listen 127.0.0.1:{port}\n{text}"
        )


@dataclass
class User:
    """A browser: its cookies, and how far its counter has come."""

    cookies: dict[str, str] = field(default_factory=dict)
    visits: int = 0
    nodes: list[str] = field(default_factory=list)

    def visit(self, http: httpx.Client, port: int) -> httpx.Response:
        """One request; keeps the cookie, the count and who answered."""
        sent = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = {"cookie": sent} if sent else {}
        answer = http.get(f"http://127.0.0.1:{port}/", headers=headers)
        http.cookies.clear()
        if answer.status_code == 200:
            for given in answer.headers.get_list("set-cookie"):
                name, _, value = given.partition(";")[0].partition("=")
                self.cookies[name] = value
            count = int(answer.text.removeprefix("visit "))
            # A request that the balancer repeated may have counted twice; never back.
            assert count > self.visits, f"{answer.headers['x-node']} has lost visits"
            self.visits = count
            self.nodes.append(answer.headers["x-node"])
        return answer

    @property
    def route(self) -> str:
        return self.cookies.get("JSESSIONID", "").rpartition(".")[2]

    @property
    def session_id(self) -> str:
        return self.cookies.get("JSESSIONID", "").partition(".")[0]


class Load:
    """Users in threads that visit until the end of the ``with`` block; what failed is kept."""

    def __init__(self, port: int, users: int = 12, threads: int = 4) -> None:
        self.users = [User() for _ in range(users)]
        self.requests = 0
        self.failures: list[str] = []
        self.lost: list[str] = []
        self.clients = threads
        self._port = port
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(self.users[i::threads],))
            for i in range(threads)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in self._threads), "a request never ended"

    def go_on(self, requests: int = 100) -> None:
        """Wait until so many more were answered."""
        goal = self.requests + requests
        wait_until(lambda: self.requests >= goal, 30)

    def _run(self, users: list[User]) -> None:
        with httpx.Client(timeout=10, trust_env=False) as http:
            while not self._ended.is_set():
                for user in users:
                    self._visit(user, http)

    def _visit(self, user: User, http: httpx.Client) -> None:
        session_id = user.session_id
        try:
            answer = user.visit(http, self._port)
        except AssertionError as error:
            self.lost.append(str(error))
            return
        except httpx.TransportError as error:
            self.failures.append(repr(error))
            return
        if answer.status_code != 200:
            self.failures.append(f"{answer.status_code} {answer.text[:80]}")
            time.sleep(0.01)
            return
        if session_id and user.session_id != session_id:
            self.lost.append(f"{session_id} became {user.session_id}")
        self.requests += 1
