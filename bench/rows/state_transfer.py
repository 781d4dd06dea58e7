"""How fast a joining member gets the sessions of another, and what that costs the giver."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench.outcomes import OURS, Goal, Outcome, Sample
from bench.runner import Bench, MissingError, Row

if TYPE_CHECKING:
    from bench.processes import Child

ASYNC = 8
SIZE = 1024
MIB = 1024 * 1024
LARGE = 150_000
LARGE_COUNT = 2000
CATCH_UP_S = 30.0


def measure(bench: Bench, outcome: Outcome) -> None:
    """By manager; a joiner of its own for each run, and one donor, which is full before."""
    for manager in ("delta",) if bench.size.only_main else ("delta", "backup"):
        with Donors(bench, manager) as donors:
            bench.compare(
                outcome,
                f"{manager.capitalize()}Manager, {bench.size.sessions:,} sessions of 1 KB",
                {
                    OURS: lambda: donors.join(OURS),
                    "tribes": lambda: donors.join("tribes"),
                    "redis": (lambda: _replica(bench)) if manager == "delta" else "as above",
                    "memcached": "it has no replicas",
                },
                warm=False,
            )
    if not bench.size.only_main:
        with Donors(bench, "delta", count=LARGE_COUNT, size=LARGE) as donors:
            name = f"{LARGE_COUNT:,} sessions of 150 KB"
            bench.compare(outcome, name, {OURS: lambda: donors.join(OURS)}, warm=False)


class Donors:
    """A full member of each kind, and its groups."""

    def __init__(self, bench: Bench, manager: str, *, count: int = 0, size: int = SIZE) -> None:
        self._bench = bench
        self._manager = manager
        self._count = count or bench.size.sessions
        self._size = size
        self._full: dict[str, tuple[Child, int]] = {}

    def __enter__(self) -> Donors:
        return self

    def __exit__(self, *_: object) -> None:
        for child, _group in self._full.values():
            child.end()

    def _donor(self, kind: str) -> tuple[Child, int]:
        if kind not in self._full:
            team = self._bench.fresh_team(kind, 1, manager=self._manager, options=ASYNC)
            self._full[kind] = (team.first, team.group)
            team.first.ask("sessions", self._count, self._size, 1)
        return self._full[kind]

    def join(self, kind: str) -> Sample:
        """Sessions per second, from the first word between the two until the last one is there."""
        (donor, group), count = self._donor(kind), self._count
        before, cpu = donor.reset_peak(), donor.cpu_s()
        joiner = self._bench.member(kind, group, manager=self._manager, options=ASYNC)
        try:
            held, end = joiner.ask("memory")["held"], time.monotonic() + CATCH_UP_S
            took = joiner.started["transfer"]
            begin = time.monotonic()
            while held < count and time.monotonic() < end:
                time.sleep(0.02)
                held = joiner.ask("memory")["held"]
                took = joiner.started["transfer"] + time.monotonic() - begin
            # The joiner's time has its start in it, of which a JVM has more.
            more = {
                "donor_extra_mib": (donor.peak() - before) / MIB,
                "donor_cpu_s": donor.cpu_s() - cpu,
                "missing": count - held,
            }
            return Sample(held / took, more=more)
        finally:
            joiner.end()
            donor.await_alone()


def _replica(bench: Bench) -> Sample:
    """A second server becomes a replica of a full one."""
    team, count = bench.store_team("redis"), bench.size.sessions
    source = bench.store("redis")
    source.flush()
    source.ask(b"CONFIG SET repl-diskless-sync-delay 0\r\n")
    team.first.ask("sessions", count, SIZE, 1)
    replica = bench.store("redis", number=1)
    replica.ask(b"REPLICAOF NO ONE\r\n")
    replica.flush()
    begin, end = time.monotonic(), time.monotonic() + CATCH_UP_S
    replica.ask(f"REPLICAOF 127.0.0.1 {source.port}\r\n".encode())
    while replica.ask(b"DBSIZE\r\n") != f":{count}\r\n".encode():  # or "loading" meanwhile
        if time.monotonic() > end:
            raise MissingError("the replica did not get everything")
        time.sleep(0.002)
    took = time.monotonic() - begin
    replica.ask(b"REPLICAOF NO ONE\r\n")
    return Sample(count / took)


ROW = Row(
    "state-transfer",
    "sessions of 1 KB that a joining member gets from one that has them",
    "sessions/s",
    Goal("≥ 60,000/s; donor's extra memory ≤ 16 MiB", 60_000, at_most=False),
    measure,
)
