"""Real memcached and Redis servers: killed with SIGKILL, hung with SIGSTOP, emptied by a flush."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.ports import free_tcp_port

if TYPE_CHECKING:
    from tests.conftest import Needs

__all__ = ["CacheServer", "cache_servers"]

START_S = 10.0


class CacheServer:
    """One server process on a loopback port that it keeps when it is started again."""

    def __init__(
        self, kind: Literal["memcached", "redis"], needs: Needs, directory: Path, *extra: str
    ) -> None:
        self.kind = kind
        self.port = free_tcp_port()
        self._log = directory / f"{self.port}.log"
        if kind == "memcached":
            # It refuses to run as root without being told an account.
            account = ["-u", "nobody"] if os.geteuid() == 0 else []
            self._command = [needs("memcached"), "-l", "127.0.0.1", "-U", "0", "-vv", *account]
            self._command += ["-p", str(self.port), *extra]
        else:
            self._command = [needs("redis-server"), "--bind", "127.0.0.1", "--save", ""]
            self._command += ["--appendonly", "no", "--port", str(self.port), *extra]
            # What a replica gets is put into a file first.
            self._command += ["--dir", str(directory)]
        self._process: subprocess.Popen[bytes] | None = None
        self._is_hung = False
        self._mark = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def quiet(self) -> None:
        """Write no log of every command: it would be measured too."""
        self._command = [part for part in self._command if part != "-vv"]

    def start(self) -> None:
        if self._process is not None:
            return
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        end = time.monotonic() + START_S
        while True:
            try:
                self.ask(b"version\r\n" if self.kind == "memcached" else b"PING\r\n")
                return
            except OSError as why:
                if self._process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(self._log.read_text()[-2000:]) from why
                time.sleep(0.01)

    def kill(self) -> None:
        """As a crash: nothing is said or saved, and connections are reset."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process, self._is_hung = None, False

    def hang(self) -> None:
        """It is there, takes connections, and answers nothing; returns when it stands still."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)
        self._is_hung = True

    def go_on(self) -> None:
        if self._process is not None and self._is_hung:
            self._process.send_signal(signal.SIGCONT)
            self._is_hung = False

    def reset(self) -> None:
        """Running and empty, as at the beginning of a test."""
        self.go_on()
        self.start()
        self.flush()
        self.mark()

    def flush(self) -> None:
        """Empty, as after a quick restart."""
        self.ask(b"flush_all\r\n" if self.kind == "memcached" else b"FLUSHALL\r\n")

    def ask(self, request: bytes) -> bytes:
        """Send a command past every client, and return the first answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as sock:
            sock.settimeout(2)
            sock.sendall(request)
            return sock.recv(4 * 1024 * 1024)

    # What it holds.

    def ttl(self, key: str) -> int | None:
        """Seconds that a key still lives, -1 for ever; None: it is not there."""
        if self.kind == "memcached":
            answer = self.ask(f"mg {key} t\r\n".encode())
            found = re.search(rb" t(-?\d+)", answer)
            return int(found[1]) if found else None
        seconds = int(self.ask(f"TTL {key}\r\n".encode()).strip(b":\r\n"))
        return None if seconds == -2 else seconds

    def has(self, key: str) -> bool:
        return self.ttl(key) is not None

    def value(self, key: str) -> bytes:
        """The bytes of a memcached value."""
        assert self.kind == "memcached"
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as sock:
            sock.sendall(f"mg {key} v\r\n".encode())
            data = b""
            while not data.endswith(b"\r\n") or (data.startswith(b"VA") and len(data) < _end(data)):
                data += sock.recv(1 << 20)
        assert data.startswith(b"VA"), data[:100]
        return data.partition(b"\r\n")[2][:-2]

    def put(self, key: str, value: bytes) -> None:
        """Plant bytes in a memcached."""
        assert self.ask(f"ms {key} {len(value)}\r\n".encode() + value + b"\r\n") == b"HD\r\n"

    # What it was asked for.

    def mark(self) -> None:
        """Count from here."""
        self._mark = self._log.stat().st_size

    def commands(self) -> list[str]:
        """What clients asked a memcached for since the mark, without questions for its health."""
        assert self.kind == "memcached"
        with self._log.open("rb") as log:
            log.seek(self._mark)
            lines = log.read().decode("latin-1").splitlines()
        found = [line.partition(" ")[2] for line in lines if re.match(r"<\d+ \w", line)]
        return [line for line in found if re.match(r"(mg|ms|md|mn|set|add|get|cas)", line)]

    def count(self, verb: str, *, locks: bool = False) -> int:
        """Commands of a verb; those for locks apart."""
        return sum(
            line.split(" ")[0] == verb and (" lock:" in f" {line.split(' ')[1]}") is locks
            for line in self.commands()
        )


def _end(data: bytes) -> int:
    head, _, _ = data.partition(b"\r\n")
    return len(head) + 2 + int(head.split(b" ")[1]) + 2


@contextmanager
def cache_servers(
    kind: Literal["memcached", "redis"], count: int, needs: Needs, *extra: str
) -> Iterator[list[CacheServer]]:
    """Start servers, and end them."""
    with tempfile.TemporaryDirectory(prefix="tribes-cache-") as path:
        servers = [CacheServer(kind, needs, Path(path), *extra) for _ in range(count)]
        try:
            for server in servers:
                server.start()
            yield servers
        finally:
            for server in servers:
                server.kill()
