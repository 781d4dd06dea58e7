"""Bytes between two members that compare what they have: equal ones, and with ten differences."""

from __future__ import annotations

import time
from typing import Any

from bench.outcomes import OURS, Case, Goal, Outcome, Sample
from bench.runner import Bench, Row
from tribes.manager.transfer import Transfer
from tribes.testing.manager_strategies import make_manager
from tribes.timers import Timers
from tribes.wire.member import Member

MIB = 1024 * 1024
PAYLOAD = 1000
PEER = "it compares nothing: a member that missed a message never gets it"


class Pipe:
    """A channel in memory between two transfers, that counts what goes through it."""

    message_max_bytes = 16 * MIB
    suspected: frozenset[Member] = frozenset()

    def __init__(self, number: int) -> None:
        self.local = Member(host=b"\x7f\x00\x00\x01", port=number, unique_id=bytes([number]) * 16)
        self.timers = Timers()
        self.bytes = 0
        self.other: Any = None
        self.transfer: Any = None
        self.queue: list[Any] = []

    def live_waiting(self, member: Member) -> int:
        return 0

    def event(self, event: object) -> None:
        pass

    def post(self, to: Any, payload: bytes, options: int, now: float, **more: Any) -> None:
        self.bytes += len(payload)
        self.queue.append((payload, more.get("settled")))

    def pump(self) -> bool:
        from tribes.manager.messages import Digests, Lack, Records, Summary, Want, decode_message

        queue, self.queue = self.queue, []
        for payload, settled in queue:
            message, there = decode_message(payload), self.other.transfer
            match message:
                case Summary():
                    there.donor.on_summary(self.local, message, 0.0)
                case Want():
                    there.donor.on_want(self.local, message, 0.0)
                case Digests():
                    there.on_digests(self.local, message, 0.0)
                case Records():
                    there.on_records(self.local, message, 0.0)
                case Lack():
                    there.on_lack(self.local, message, 0.0)
                case _:
                    raise AssertionError(f"{message} between two transfers")
            if settled is not None:
                settled({}, 0.0)
        self.timers.run_due(0.0)
        return bool(queue)


def measure(bench: Bench, outcome: Outcome) -> None:
    """On two managers in this process; the bytes are the same every time."""
    outcome.runs = 1
    count = 1000 if bench.size.is_quick else 100_000
    for name, (value, unit) in _compare(count).items():
        case = Case(f"{count:,} sessions, {name}", unit)
        case.of(OURS).samples.append(Sample(value))
        case.of("tribes").absent = PEER
        outcome.cases.append(case)


def _compare(count: int) -> dict[str, tuple[float, str]]:
    managers = [make_manager(actor=actor, max_inactive_s=0) for actor in (1, 2)]
    for number in range(count):
        _change(managers[0], managers[0].create(), number)
    tables = [manager.table for manager in managers]
    keys = tables[0].keys()
    for key in keys:
        record = tables[0].get(key)
        assert record is not None
        tables[1].merge_in(key, record)
    pipes = [Pipe(1), Pipe(2)]
    for at, (pipe, manager) in enumerate(zip(pipes, managers, strict=True)):
        pipe.other = pipes[1 - at]
        channel: Any = pipe
        pipe.transfer = Transfer(manager, channel, randrange=lambda n: 0, join_window=0, timeout=-1)

    def bytes_of_round() -> tuple[float, str]:
        for pipe in pipes:
            pipe.bytes = 0
        pipes[1].transfer.pull(pipes[0].local, 0.0, offers=True)
        while sum(pipe.pump() for pipe in pipes):
            pass
        assert tables[0].root_digest() == tables[1].root_digest()
        return sum(pipe.bytes for pipe in pipes), "bytes"

    found = {"equal": bytes_of_round()}
    for key in keys[:10]:
        record = tables[1].get(key)
        assert record is not None
        tables[1].drop(key, record)
    found["ten missing"] = bytes_of_round()
    for number, key in enumerate(keys[10:20]):
        _change(managers[0], managers[0].find(key), -number)
    found["ten differing"] = bytes_of_round()
    updates = 2 * count
    begin = time.process_time()
    for number in range(updates):
        _change(managers[0], managers[0].find(keys[number % count]), number)
    plain = time.process_time() - begin
    begin = time.process_time()
    tables[0].group_digests()
    settling = time.process_time() - begin
    found["settling digests, over the updates between"] = (100 * settling / plain, "%")
    return found


def _change(manager: Any, session: Any, number: int) -> None:
    session["value"] = f"{number:x<{PAYLOAD}}"
    manager.commit(session)
    manager.inbox.drain(10)


ROW = Row(
    "anti-entropy",
    "bytes of a comparison of two equal members with 100,000 sessions",
    "bytes",
    Goal("≤ 1 KiB, ten differing ≤ 64 KiB", 1024),
    measure,
)
