"""What joining, comparing and holding sessions cost.

    python bench/state_transfer.py [join] [compare] [memory]

``join``: two processes on loopback, and a third one that commits (6) all the time: sessions per
second while a fourth joins, the donor's extra memory, and the third's p99 before and meanwhile.
``compare``: bytes between equal replicas and ones of which ten of 100,000 sessions differ, and the
processor time of keeping digests. ``memory``: bytes of a replica over its payload, and the pause of
a full garbage collection, against plain objects. The last line is JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing as mp
import socket
import statistics
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tribes import ChannelConfig, ManagerConfig, MembershipConfig, NodeConfig, ReceiverConfig
from tribes.manager.transfer import Transfer
from tribes.runtime.background import BackgroundNode
from tribes.testing.manager_strategies import make_manager
from tribes.timers import Timers
from tribes.wire.member import Member

MIB = 1024 * 1024


def status(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def node(name: str, port: int, options: int = 8) -> BackgroundNode:
    config = NodeConfig(
        name=name,
        contexts=("bench",),
        channel=ChannelConfig(
            membership=MembershipConfig(port=port, frequency=200, drop_time=6000),
            receiver=ReceiverConfig(port=0),
        ),
        manager=ManagerConfig(channel_send_options=options, max_inactive_s=0),
    )
    return BackgroundNode(config)


def donor(pipe: Any, port: int, count: int, size: int) -> None:
    started = node("donor", port)
    started.start()
    started.wait_joined()
    manager = started.manager("bench")
    for _ in range(count):
        session = manager.create()
        session["value"] = "x" * size
        manager.commit(session)
    time.sleep(1)
    pipe.send("full")
    pipe.recv()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    pipe.send("watching")
    pipe.recv()
    budget = started.channel.shell.core._budget
    pipe.send((status("VmHWM") - before, budget.peak_bytes))
    pipe.recv()
    started.stop()


def bystander(pipe: Any, port: int) -> None:
    """Commits one small session with acknowledgement, over and over."""
    started = node("bystander", port, 6)
    started.start()
    started.wait_joined()
    manager = started.manager("bench")
    session = manager.create()
    pipe.send("ready")
    taken: list[tuple[float, float]] = []
    while not pipe.poll():
        begin = time.perf_counter()
        session["n"] = len(taken)
        started.commit(session)
        taken.append((time.time(), time.perf_counter() - begin))
        time.sleep(0.002)
    pipe.send(taken)
    pipe.recv()
    started.stop()


def joiner(pipe: Any, port: int) -> None:
    came: list[float] = []
    on_records = Transfer.on_records

    def noting(self: Transfer, *args: Any) -> None:
        on_records(self, *args)
        came.append(time.time())

    on_digests = Transfer.on_digests

    def asked(self: Transfer, *args: Any) -> None:
        came.append(time.time())
        on_digests(self, *args)

    Transfer.on_records = noting  # type: ignore[method-assign]
    Transfer.on_digests = asked  # type: ignore[method-assign]
    started = node("joiner", port)
    cpu = time.process_time()
    started.start()
    started.wait_joined()
    cpu = time.process_time() - cpu
    pipe.send((len(started.manager("bench").table), came[0], came[-1], cpu))
    pipe.recv()
    started.stop()


def join(count: int, size: int) -> dict[str, float]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = mp.get_context("spawn")
    pipes, processes = [], []

    def start(target: Any, *args: Any) -> Any:
        ours, theirs = context.Pipe()
        process = context.Process(target=target, args=(theirs, port, *args))
        process.start()
        pipes.append(ours)
        processes.append(process)
        return ours

    try:
        giver = start(donor, count, size)
        giver.recv()
        other = start(bystander)
        other.recv()
        time.sleep(6)
        giver.send("watch")
        giver.recv()
        taker = start(joiner)
        held, first, last, cpu = taker.recv()
        giver.send("measure")
        extra, budget = giver.recv()
        other.send("stop")
        taken = other.recv()
    finally:
        for pipe in pipes:
            with suppress(OSError):
                pipe.send("end")
        for process in processes:
            process.join(20)
            if process.is_alive():
                process.terminate()
    before = [each for when, each in taken if first - 4 < when < first - 1]
    meanwhile = [each for when, each in taken if first <= when <= last]
    seconds = last - first
    return {
        "sessions": held,
        "seconds": seconds,
        "per_s": held / seconds,
        "joiner_cpu_s": cpu,
        "donor_extra_mib": extra / MIB,
        "encoded_ahead_mib": budget / MIB,
        "p99_before_ms": 1000 * _p99(before),
        "p99_meanwhile_ms": 1000 * _p99(meanwhile),
        "commits_meanwhile": len(meanwhile),
    }


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98] if len(values) > 1 else float("nan")


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
            if settled is not None:
                settled({}, 0.0)
        self.timers.run_due(0.0)
        return bool(queue)


def compare(count: int) -> dict[str, float]:
    managers = [make_manager(actor=actor, max_inactive_s=0) for actor in (1, 2)]
    for _ in range(count):
        session = managers[0].create()
        session["value"] = "x" * 1000
        managers[0].commit(session)
    tables = [manager.table for manager in managers]
    keys = tables[0].keys()
    for key in keys:
        tables[1].merge_in(key, tables[0].get(key))
    pipes = [Pipe(1), Pipe(2)]
    for pipe, manager in zip(pipes, managers, strict=True):
        pipe.other = pipes[1 - pipes.index(pipe)]
        pipe.transfer = Transfer(
            manager,
            pipe,  # type: ignore[arg-type]
            randrange=lambda n: 0,
            join_window=0,
            timeout=-1,
        )
    found: dict[str, float] = {}

    def run(name: str, **more: Any) -> None:
        for pipe in pipes:
            pipe.bytes = 0
        pipes[1].transfer.pull(pipes[0].local, 0.0, **more)
        while sum(pipe.pump() for pipe in pipes):
            pass
        assert tables[0].root_digest() == tables[1].root_digest()
        found[name] = sum(pipe.bytes for pipe in pipes)

    run("equal_bytes", offers=True)
    for key in keys[:10]:
        tables[1].drop(key, tables[1].get(key))
    run("ten_missing_bytes", offers=True)
    for key in keys[10:20]:
        session = managers[0].find(key)
        session["value"] = "y" * 1000
        managers[0].commit(session)
    run("ten_differing_bytes", offers=True)
    # Five seconds of ten thousand updates, and then the next comparison.
    updates = 50_000
    records = [(keys[n % count], tables[0].get(keys[n % count])) for n in range(updates)]
    digests = tables[0]._digests
    begin = time.process_time()
    for key, record in records:
        digests.changed(key, record)
    noting = time.process_time() - begin
    for key, _ in records:
        session = managers[0].find(key)
        session["value"] = "z" * 1000
        managers[0].commit(session)
    begin = time.process_time()
    tables[0].group_digests()
    settling = time.process_time() - begin
    found["digest_share_of_a_core_percent"] = 100 * (noting + settling) / 5
    return found


class Plain:
    """A session as an application would write it down."""

    def __init__(self, key: str, attributes: dict[str, str]) -> None:
        self.id = key
        self.created = time.time()
        self.accessed = time.time()
        self.attributes = dict(attributes)
        self.versions = dict.fromkeys(attributes, (1, 1))


def _fill(pipe: Any, kind: str, count: int, attributes: int, payload: int) -> None:
    empty_ms = _pause_ms()
    before = status("VmRSS")
    each = "x" * (payload // attributes)
    keep: Any
    if kind == "records":
        manager = make_manager(max_inactive_s=0)
        keep = manager
        for number in range(count):
            session = manager.create()
            for attribute in range(attributes):
                session[f"a{attribute}"] = each
            manager.commit(session)
            manager.inbox.drain(10)
            if not number % 1000:
                # As every node does every five seconds.
                manager.table.settle_digests(1000)
    else:
        keep = {}
        for number in range(count):
            key = f"{number:032X}"
            # A string of its own, as if it had come from the network.
            values = {f"a{n}": each[:-1] + chr(97 + number % 26) for n in range(attributes)}
            keep[key] = Plain(key, values)
    gc.collect()
    rss = status("VmRSS") - before
    pipe.send((rss / count, _pause_ms() - empty_ms))
    del keep


def _pause_ms() -> float:
    """Of a full garbage collection; processor time, since others may run."""
    gc.collect()
    pauses = []
    for _ in range(5):
        begin = time.process_time()
        gc.collect()
        pauses.append(1000 * (time.process_time() - begin))
    return statistics.median(pauses)


def memory() -> dict[str, float]:
    found = {}
    context = mp.get_context("spawn")
    runs = [(kind, 100_000, n, 1000) for n in (1, 3, 5) for kind in ("records", "objects")]
    runs += [(kind, 1_000_000, 1, 100) for kind in ("records", "objects")]
    for kind, count, attributes, payload in runs:
        ours, theirs = context.Pipe()
        process = context.Process(target=_fill, args=(theirs, kind, count, attributes, payload))
        process.start()
        per_session, pause = ours.recv()
        process.join()
        name = f"{kind}_{count}_{attributes}"
        if count == 100_000:
            found[f"{name}_over_payload_bytes"] = per_session - payload
        else:
            found[f"{name}_gc_ms"] = pause
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["join", "compare", "memory"])
    parser.add_argument("--gigabyte", action="store_true", help="join with 7,000 x 150 KB")
    options = parser.parse_args()
    results: dict[str, Any] = {"load": Path("/proc/loadavg").read_text().split()[0]}
    if "join" in options.what:
        results["join 100 k x 1 KB"] = join(100_000, 1000)
        results["join 2,000 x 150 KB"] = join(2000, 150_000)
        if options.gigabyte:
            results["join 7,000 x 150 KB"] = join(7000, 150_000)
    if "compare" in options.what:
        results["compare 100 k"] = compare(100_000)
    if "memory" in options.what:
        results["memory"] = memory()
    results["load after"] = Path("/proc/loadavg").read_text().split()[0]
    for name, found in results.items():
        if isinstance(found, dict):
            for key, value in found.items():
                print(f"{name}: {key} = {value:.5g}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
