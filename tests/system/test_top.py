"""``tribes top`` in terminals of several sizes, and where there is none."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest

from tests.system.test_operators import TOKEN, Node, start, token_file

__all__ = ["start", "token_file"]

pytestmark = pytest.mark.timeout(90)

WITHIN_S = 20.0


class Terminal:
    """A command in a terminal, and what its screen shows."""

    def __init__(self, command: list[str], columns: int, lines: int) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self._master, slave = pty.openpty()
        self.written = b""
        self._slave = slave
        self.before = termios.tcgetattr(slave)
        self.resize(columns, lines)
        # What a test runner has of its own counts more than a terminal's size.
        environ = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        # Shells need to be the terminal's, as its processes are.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environ | {"TERM": "xterm-256color", "PYTHONPATH": str(Path.cwd())},
        )

    def resize(self, columns: int, lines: int) -> None:
        """As a user who drags a corner."""
        self.screen.resize(lines, columns)
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display)

    def read(self, seconds: float = 0.1) -> None:
        """Draw what came."""
        if select.select([self._master], [], [], seconds)[0]:
            with contextlib.suppress(OSError):
                data = os.read(self._master, 65536)
                self.written += data
                self._stream.feed(data)

    def until(self, *wanted: str) -> str:
        """The screen once all of this is on it."""
        deadline = time.monotonic() + WITHIN_S
        while not all(each in self.text for each in wanted):
            assert time.monotonic() < deadline, f"no {wanted} on:\n{self.text}"
            assert self.process.poll() is None, self.written
            self.read()
        return self.text

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def end(self) -> int:
        """Its exit status; the terminal must be as it was."""
        deadline = time.monotonic() + WITHIN_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline
            self.read()
        assert termios.tcgetattr(self._slave) == self.before
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._slave)
        os.close(self._master)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Runs the command in a terminal of a size."""
    made: list[Terminal] = []

    def run(*arguments: str, columns: int = 80, lines: int = 24) -> Terminal:
        command = [sys.executable, "-m", "tribes", "top", *arguments]
        made.append(Terminal(command, columns, lines))
        return made[-1]

    yield run
    for each in made:
        each.close()


def once(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tribes", "top", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_it_follows_the_group(
    start: Callable[..., Node], terminal: Callable[..., Terminal]
) -> None:
    """Members come, hang and die; when the node has gone it says so and keeps the last picture; q
    ends it with the terminal as it was.
    """
    node = start("n1")
    node.read_until("joined")
    seen = terminal("--url", node.url, "--every", "0.3")
    seen.until("n1  ready  0 other members", "shop", "commits/s", "q: quit")
    other = start("n2")
    seen.until("1 other members", "n2", "answers", "link to", "ms")
    other.process.send_signal(signal.SIGSTOP)
    seen.until("1 suspected", "member suspected")
    other.process.kill()
    seen.until("0 other members", "crashed")
    node.close()
    seen.until("old: ", "does not answer", "n1")
    seen.press("q")
    assert seen.end() == 0


@pytest.mark.parametrize(("columns", "lines"), [(40, 12), (20, 5), (200, 60)])
def test_it_fits_any_terminal(
    start: Callable[..., Node], terminal: Callable[..., Terminal], columns: int, lines: int
) -> None:
    """Nothing scrolls or wraps: the first line stays, and what does not fit is counted."""
    node = start("n1")
    start("n2")
    node.read_until("member added")
    seen = terminal("--url", node.url, "--every", "0.3", columns=columns, lines=lines)
    text = seen.until("n1  ready")
    assert text.startswith("n1  ready")
    if lines == 5:
        seen.until("lines more")
    for width in (columns, 30):
        seen.resize(width, lines)
        seen.screen.reset()  # what stood there before does not count
        assert seen.until("n1  ready").startswith("n1  ready")
    seen.press("x")
    seen.process.send_signal(signal.SIGINT)
    assert seen.end() == 0


def test_without_a_terminal_it_prints_one_picture(
    start: Callable[..., Node], token_file: Path
) -> None:
    """And asks for the token like its sisters; as JSON it is the status, a line for each."""
    node = start("n1", f'token_file = "{token_file}"\n')
    node.read_until("joined")
    refused = once("--url", node.url)
    assert refused.returncode == 1
    assert "--token-file" in refused.stderr
    done = once("--url", node.url, "--token-file", str(token_file))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("n1  ready")
    assert "\x1b" not in done.stdout
    assert TOKEN not in done.stdout
    done = once("--url", node.url, "--token-file", str(token_file), "--json", "--once")
    assert json.loads(done.stdout)["node"] == "n1"
    command = [sys.executable, "-m", "tribes", "top", "--url", node.url, "--json"]
    with subprocess.Popen(
        [*command, "--token-file", str(token_file), "--every", "0.2"],
        stdout=subprocess.PIPE,
        text=True,
    ) as lines:
        assert lines.stdout is not None
        views = [json.loads(lines.stdout.readline())["uptime_s"] for _ in range(3)]
        lines.send_signal(signal.SIGINT)
    assert views == sorted(views)
    assert lines.returncode == 0
    assert once("--url", "http://127.0.0.1:1").returncode == 1
    assert once("--every", "0").returncode == 2
