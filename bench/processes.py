"""The processes that are measured: started, told what to do, asked for processor time, ended."""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import signal

__all__ = ["ROOT", "Child", "Team", "cpu_of"]

ROOT = Path(__file__).parents[1]
ANSWER_S = 150.0
START_S = 60.0
TOGETHER_S = 60.0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_of(pid: int) -> float:
    """Processor time of all threads of a process so far; seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


class Child:
    """One process that answers each line with a line of JSON.

    Raises:
        RuntimeError: It ended, or did not answer in time; with the end of what it complained of.
    """

    def __init__(self, command: Sequence[str], *, waits: bool = True) -> None:
        # Kept in a file: nobody reads it meanwhile, and a full pipe would stop the process.
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        self._rest = b""
        self.started: Mapping[str, Any] = {}
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
        )
        if waits:
            self.await_start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def await_start(self) -> Mapping[str, Any]:
        """What it tells when it runs."""
        self.started = self._read(START_S)
        return self.started

    def say(self, *words: object) -> None:
        r"""Tell it to do something, whose answer is `hear`\\ d later."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(" ".join(map(str, words)).encode() + b"\n")
            self._process.stdin.flush()

    def hear(self, seconds: float = ANSWER_S) -> dict[str, Any]:
        """The answer to what was said."""
        return self._read(seconds)

    def ask(self, *words: object) -> dict[str, Any]:
        """Tell it to do something, and wait for what comes of it."""
        self.say(*words)
        return self._read(ANSWER_S)

    def _read(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        descriptor, end = self._process.stdout.fileno(), time.monotonic() + seconds
        while b"\n" not in self._rest:
            left = end - time.monotonic()
            ready = select.select([descriptor], [], [], max(0, left))[0]
            data = os.read(descriptor, 1 << 20) if ready else b""
            if not data:
                raise RuntimeError(f"no answer from {self._process.args!r}: {self._complained()}")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def _complained(self) -> str:
        self._complaints.seek(0)
        return self._complaints.read()[-3000:].decode(errors="replace")

    def cpu_s(self) -> float:
        """Processor time of all its threads so far; seconds."""
        return cpu_of(self.pid)

    def await_others(self, count: int, seconds: float = TOGETHER_S) -> None:
        """Wait until it sees so many others, which all take part.

        Raises:
            RuntimeError: Not in time.
        """
        end = time.monotonic() + seconds
        while min(self.ask("members").values()) < count:
            if time.monotonic() > end:
                raise RuntimeError(f"not {count} others: {self.ask('members')}")
            time.sleep(0.05)

    def await_event(
        self, kind: str, member: str, seconds: float, *, after: float = 0
    ) -> float | None:
        """When this happened first to a member, after a moment; empty: any one. None: never."""
        end = time.monotonic() + seconds
        while True:
            found = [
                at
                for at, what, who in self.ask("events")["events"]
                if what == kind and member in ("", who) and at >= after
            ]
            if found or time.monotonic() > end:
                return min(found, default=None)
            time.sleep(0.02)

    def await_alone(self, count: int = 0) -> None:
        """Wait until it sees no more than so many others.

        Raises:
            RuntimeError: Not in time.
        """
        end = time.monotonic() + TOGETHER_S
        while (others := self.ask("members")["members"]) > count:
            if time.monotonic() > end:
                raise RuntimeError(f"{others} others instead of {count}")
            time.sleep(0.05)

    def reset_peak(self) -> int:
        """Begin to look for the most memory that it has; returns what it has now, in bytes."""
        with suppress(OSError):  # Not allowed: then it is the most of its life.
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return self._memory("VmRSS")

    def peak(self) -> int:
        """The most memory that it had since; bytes."""
        return self._memory("VmHWM")

    def _memory(self, name: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
        raise LookupError(name)

    def signal(self, number: signal.Signals) -> None:
        """Stop, continue or kill it."""
        self._process.send_signal(number)

    def end(self) -> None:
        """End it, whatever it does; a second call does nothing."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._complaints):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


class Team:
    """Processes that measure one contender together; the first one does the work."""

    def __init__(self, children: Sequence[Child], *, of_members: bool = True) -> None:
        self.children = list(children)
        self.first = self.children[0]
        self.others = self.children[1:]
        self.group = 0
        """The multicast port of its group, for those who are to join it."""
        self.is_prepared = False
        """It has the sessions that are to be changed."""
        if of_members:
            self.await_together()

    def await_together(self) -> None:
        """Wait until each sees all others, and all take part.

        Raises:
            RuntimeError: Not in time.
        """
        wanted, end = len(self.children) - 1, time.monotonic() + TOGETHER_S
        for child in self.children:
            child.await_others(wanted, max(0, end - time.monotonic()))

    def await_role(self, has_it: Callable[[Child], bool]) -> None:
        """Wait until one of them has a role, and make it the first.

        Raises:
            RuntimeError: Not in time.
        """
        end = time.monotonic() + TOGETHER_S
        while not (found := [child for child in self.children if has_it(child)]):
            if time.monotonic() > end:
                raise RuntimeError("nobody leads")
            time.sleep(0.1)
        self.first = found[0]
        self.others = [child for child in self.children if child is not self.first]

    def cpu_s(self) -> float:
        """Processor time of all of them; seconds."""
        return sum(child.cpu_s() for child in self.children)

    def end(self) -> None:
        """End all processes."""
        for child in self.children:
            child.end()
