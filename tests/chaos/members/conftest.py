"""Members as processes of their own, told what to do, and the table of what was shown."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_udp_port

PROGRAM = Path(__file__).with_name("program.py")
ROOT = Path(__file__).parents[3]
GROUP = "228.0.0.4"
ANSWER_S = 120.0


@dataclass(frozen=True)
class Sizes:
    """How much a claim is tried on, and how exactly it must be met.

    Attributes:
        is_full: Whether these are the numbers of the claim itself.
        sends: Acknowledged sends in each part of a comparison.
        attempts: The best of so many counts.
        ratio: By how much a p99 may grow.
        noticed_s: Within how many seconds a killed process is removed.
        kills: How often each kind of process is killed.
        messages: Numbered messages across two reconnects.
        busy_s: Seconds of threads that compute.
    """

    is_full: bool
    sends: int
    attempts: int
    ratio: float
    noticed_s: float
    kills: int
    messages: int
    busy_s: float


# CI shares its two cores with other tests: it shows that things happen, and about when.
DEFAULT = Sizes(False, 1000, 3, 3.0, 1.0, 1, 20_000, 4.0)
FULL = Sizes(True, 20_000, 5, 1.2, 0.5, 10, 100_000, 20.0)


class Member:
    """One process, and all that it said of its events."""

    def __init__(self, name: str, group_port: int, *, inline: bool) -> None:
        self.name = name
        self.events: list[dict[str, Any]] = []
        self._answers: dict[int, Future[Any]] = {}
        self._numbers = itertools.count(1)
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), name, str(group_port), "inline" if inline else "thread"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said = json.loads(line)
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said["answer"])
            else:
                self.events.append(said)

    def begin(self, what: str, **arguments: Any) -> Future[Any]:
        """Tell it to do something; the answer comes later."""
        assert self.process.stdin is not None
        number = next(self._numbers)
        answer = self._answers[number] = Future()
        line = json.dumps({"id": number, "do": what, **arguments}) + "\n"
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()
        return answer

    def do(self, what: str, **arguments: Any) -> Any:
        """Tell it to do something, and wait for the answer."""
        return self.begin(what, **arguments).result(ANSWER_S)

    def when(self, event: str, of: str, since: float = 0.0) -> float | None:
        """When an event of a member was first told after a moment."""
        times = (e["at"] for e in self.events if e["event"] == event and e["member"] == of)
        return next((at for at in times if at >= since), None)

    def await_event(self, event: str, of: str, since: float, within: float) -> float:
        """Seconds from a moment until an event of a member."""
        deadline = time.monotonic() + within + 5
        while (at := self.when(event, of, since)) is None:
            assert time.monotonic() < deadline, f"{self.name}: {event} of {of}: {self.events[-5:]}"
            time.sleep(0.005)
        return at - since

    def pause(self) -> float:
        """SIGSTOP; returns when."""
        self.process.send_signal(signal.SIGSTOP)
        return time.monotonic()

    def resume(self) -> float:
        """SIGCONT; returns when."""
        now = time.monotonic()
        self.process.send_signal(signal.SIGCONT)
        return now

    def kill(self) -> float:
        """``kill -9``; returns when."""
        now = time.monotonic()
        self.process.kill()
        self.process.wait()
        return now

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                assert pipe is not None
                pipe.close()
        self._reader.join(5)


class Group:
    """The members of one test."""

    def __init__(self) -> None:
        self.port = free_udp_port()
        self.members: dict[str, Member] = {}
        self._started: list[Member] = []

    def start(self, *names: str, inline: bool = False) -> list[Member]:
        """Start members and wait until all see each other."""
        fresh = [Member(name, self.port, inline=inline) for name in names]
        self.members.update(zip(names, fresh, strict=True))
        self._started += fresh
        self.await_whole()
        return fresh

    def await_whole(self, within: float = 30) -> None:
        """Wait until every member sees all others."""
        deadline = time.monotonic() + within
        names = set(self.members)
        for name, member in self.members.items():
            member.await_event("joined", name, 0, within)
            while set(seen := member.do("members")) != names - {name}:
                assert time.monotonic() < deadline, f"{name} sees {seen}"
                time.sleep(0.02)

    def told(self, event: str, since: float) -> list[str]:
        """Who told such an event after a moment, and of whom."""
        return [
            f"{member.name}: {each['member']}"
            for member in self.members.values()
            for each in list(member.events)
            if each["event"] == event and each["at"] >= since
        ]

    def close(self) -> None:
        for member in self._started:
            member.close()


class Ear:
    """Hears the heartbeats of a group, and knows how long each member was quiet."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self.heard: dict[int, list[float]] = {}
        self._is_over = False
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sock.bind((GROUP, group.port))
        request = struct.pack("4s4s", socket.inet_aton(GROUP), socket.inet_aton("127.0.0.1"))
        self._sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        self._sock.settimeout(0.2)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while not self._is_over:
            with contextlib.suppress(TimeoutError):
                _, (_, port) = self._sock.recvfrom(65536)
                self.heard.setdefault(port, []).append(time.monotonic())

    def longest_pause(self, since: float) -> float:
        """The longest time in which some member was not heard; each must have been once."""
        assert len(self.heard) >= len(self._group.members), f"only {list(self.heard)} are heard"
        now = time.monotonic()
        longest = 0.0
        for times in self.heard.values():
            inside = [since, *(at for at in times if at > since), now]
            longest = max(longest, *(b - a for a, b in itertools.pairwise(inside)))
        return longest

    def close(self) -> None:
        self._is_over = True
        self._thread.join()
        self._sock.close()


def percentile(seconds: list[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered), math.ceil(len(ordered) * share)) - 1]


@pytest.fixture
def group() -> Iterator[Group]:
    """A group that leaves no process behind."""
    made = Group()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def ear(group: Group) -> Iterator[Ear]:
    """Hears the group's heartbeats."""
    made = Ear(group)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def sizes() -> Sizes:
    """What is tried: less than what is claimed, unless ``TRIBES_PROOF`` is set."""
    return DEFAULT if os.environ.get("TRIBES_PROOF", "0") in ("", "0") else FULL


@pytest.fixture
def p99() -> Callable[[list[float]], float]:
    """Of some seconds."""
    return lambda seconds: percentile(seconds, 0.99)


@pytest.fixture
def shown(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Note what was measured for a claim, and fail if it is more than its bound."""

    def note(claim: str, measured: float, bound: float, unit: str = "s") -> None:
        record_property("shown", (claim, f"{measured:.3g} {unit}", f"{bound:.3g} {unit}"))
        assert measured <= bound, f"{claim}: {measured:.3g} {unit}, at most {bound:.3g} {unit}"

    return note


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was measured beside what is claimed."""
    rows = [
        value
        for kind in ("passed", "failed")
        for report in terminalreporter.stats.get(kind, [])
        if getattr(report, "when", "") == "call"
        for key, value in report.user_properties
        if key == "shown"
    ]
    if not rows:
        return
    terminalreporter.section("shown on real processes: the worst measured, and the bound")
    worst: dict[str, tuple[float, str, str]] = {}
    for claim, measured, bound in rows:
        value = float(measured.split()[0])
        if claim not in worst or value > worst[claim][0]:
            worst[claim] = (value, measured, bound)
    for claim, (_, measured, bound) in worst.items():
        terminalreporter.write_line(f"{claim:<68} {measured:>10}   <= {bound}")
