"""A process of ours that a benchmark drives: a line says what to do, a line of JSON what came.

The commands and answers are those of ``java/BenchMember.java``, so that both sides do the same:

    latency HOW SIZE OPTIONS SECONDS      microseconds until a send returned
    commits HOW SIZE SECONDS              the same for commits of a session, one after the other
    flood HOW SIZE OPTIONS SENDERS SECONDS
    stream SIZE OPTIONS SECONDS           numbered messages, as fast as they are taken
    heard, forget                         what arrived here, in which order, and when last
    sessions COUNT SIZE ATTRIBUTES        create sessions
    update HOW SENDERS SIZE SECONDS       change an attribute of a hundred sessions, over and over
    settle {"id": number, …}              wait until these sessions have these values here
    request COUNT SIZE                    microseconds of one request's session work
    change, value ID TOKEN                one update; and what another member has of it then
    bytes BATCH SIZE                      on the wire, both ways, for one update
    memory, members, events, stop

``HOW`` is where the sender runs: ``thread`` (as a WSGI worker) and ``asyncio`` beside a background
node, or ``native``, in the trio run of the channel itself (``--native``).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import inspect
import json
import statistics
import sys
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import trio

from bench import workload
from bench.hosts import InAsyncio, InThread, Native
from bench.workload import ATTRIBUTE, MANY, TURN, Heard, Host, percentiles, run_here, text
from tribes import (
    BackgroundNode,
    ChannelConfig,
    ChannelData,
    GroupChannel,
    GroupSendError,
    ManagerConfig,
    MembershipConfig,
    NodeConfig,
    ReceiverConfig,
    SenderConfig,
)
from tribes.config.managers import BackupConfig
from tribes.config.model import TlsConfig
from tribes.manager.backup import BackupManager
from tribes.security.keys import GroupKey
from tribes.web.freshness import bring, decode_token, encode_token

if TYPE_CHECKING:
    from tribes.channel.outputs import Event

CONTEXT = "bench"
SETTLE_S = 20.0
ROUNDS = 20
MIB = 1024 * 1024

Seen = list[tuple[float, str, str]]
"""When what happened to whom."""


def config_of(arguments: argparse.Namespace) -> NodeConfig:
    """Defaults, but for what is compared, and a queue as long as Tomcat's (64 MiB)."""
    kind, options = arguments.manager, arguments.options
    manager = (
        BackupConfig(map_send_options=options, max_inactive_s=0)
        if kind == "backup"
        else ManagerConfig(channel_send_options=options, max_inactive_s=0)
    )
    tls = None
    if arguments.tls:
        folder = Path(arguments.tls)
        tls = TlsConfig(certificate=str(folder / "member.pem"), authorities=str(folder / "ca.pem"))
    chain = [{"class": name} for name in ("GzipInterceptor",) if "gzip" in arguments.interceptors]
    if "encrypt" in arguments.interceptors:
        chain.append({"class": "EncryptInterceptor", "encryption_key": "ab" * 32})
    chain += [{"class": "MessageDispatchInterceptor"}, {"class": "TcpFailureDetector"}]
    return NodeConfig(
        name=arguments.name,
        contexts=() if kind == "none" else (CONTEXT,),
        channel=ChannelConfig(
            membership=MembershipConfig(port=arguments.group),
            receiver=ReceiverConfig(port=0),
            sender=SenderConfig(queue_max_bytes=64 * MIB),
            keys=GroupKey(1, bytes(32)).to_text() if arguments.key else "",
            tls=tls,
            interceptors=tuple(chain) if arguments.interceptors else None,
        ),
        manager=manager,
        drain_timeout_s=0.5,
    )


# ---- what it does ------------------------------------------------------------------------------


def note(seen: Seen, event: Event) -> None:
    """When members came, were suspected, and went."""
    kind, _, what = event.name.partition(" ")
    if kind == "member":
        seen.append((time.time(), what, str(event.fields().get("member"))))


class Member:
    """The commands, which all run wherever a sender may."""

    def __init__(self, node: BackgroundNode | GroupChannel, heard: Heard, seen: Seen) -> None:
        self.node = node
        self.heard_here = heard
        self.seen = seen
        self.ids: list[str] = []
        self.finals: dict[str, int] = {}

    @property
    def manager(self) -> Any:
        return self.node.manager(CONTEXT)

    # Messages.

    async def latency(self, host: Host, size: str, options: str, seconds: str) -> dict[str, Any]:
        data, flags = workload.message(int(size)), int(options)
        return await self._timed(host, float(seconds), lambda: host.send(data, flags))

    async def commits(self, host: Host, size: str, seconds: str) -> dict[str, Any]:
        def change() -> Coroutine[Any, Any, None]:
            return host.commit(self._changed(self.ids[0], int(size)))

        return await self._timed(host, float(seconds), change)

    async def _timed(
        self, host: Host, seconds: float, work: Callable[[], Coroutine[Any, Any, None]]
    ) -> dict[str, Any]:
        taken: list[float] = []
        errors, end = 0, time.perf_counter() + seconds
        while (begin := time.perf_counter()) < end or not taken:
            try:
                await work()
            except GroupSendError:
                errors += 1
            taken.append(time.perf_counter() - begin)
        return percentiles(taken, errors=errors)

    async def flood(
        self, host: Host, size: str, options: str, senders: str, seconds: str
    ) -> dict[str, Any]:
        data, flags = workload.message(int(size)), int(options)
        begin = time.perf_counter()

        async def loop(index: int) -> int:
            count = 0
            while time.perf_counter() < begin + float(seconds):
                await host.send(data, flags)
                count += 1
            return count

        count = await host.gather(int(senders), loop)
        return {"n": count, "seconds": time.perf_counter() - begin}

    async def stream(self, host: Host, size: str, options: str, seconds: str) -> dict[str, Any]:
        length, flags, count, began = int(size), int(options), 0, time.time()
        while time.time() < began + float(seconds):
            await host.send(workload.message(length, count), flags)
            count += 1
        return {"n": count, "began": began}

    async def heard(self, host: Host) -> dict[str, Any]:
        return self.heard_here.told()

    async def forget(self, host: Host) -> dict[str, Any]:
        return self.heard_here.forget()

    # Sessions.

    async def value(self, host: Host, session_id: str, token: str = "") -> dict[str, Any]:
        """The number that a session has here, for a client that brings such a token."""
        written = decode_token(token)
        bring(self.manager, (session_id,), written)
        session = self.manager.find(session_id)
        return {"number": -1 if session is None else int(session[ATTRIBUTE].lstrip("x"))}

    async def change(self, host: Host) -> dict[str, Any]:
        """One update, as a request makes it; and what its client is told."""
        session_id = self.ids[0]
        assert isinstance(self.node, BackgroundNode)
        result = self.node.commit(self._changed(session_id, 100))
        token = encode_token(result.version, self.manager.clock.actor)
        return {"id": session_id, "number": self.finals[session_id], "token": token}

    async def sessions(self, host: Host, count: str, size: str, attributes: str) -> dict[str, Any]:
        number = int(attributes)
        for turn in range(int(count)):
            session = self.manager.create()
            for which in range(number):
                session[f"{ATTRIBUTE}{which or ''}"] = text(int(size) // number, turn)
            await host.commit(session)
            if len(self.ids) < MANY:
                self.ids.append(session.id)
            if turn % TURN == 0:
                await host.checkpoint()
        return {"held": len(self.manager.table)}

    def _changed(self, session_id: str, size: int) -> Any:
        number = self.finals[session_id] = self.finals.get(session_id, 0) + 1
        session = self.manager.find(session_id)
        session[ATTRIBUTE] = text(size, number)
        return session

    async def update(self, host: Host, senders: str, size: str, seconds: str) -> dict[str, Any]:
        number, length, began = int(senders), int(size), time.time()

        async def loop(index: int) -> int:
            # Each sender has sessions of its own: of two that change one at once, the one that was
            # numbered last need not be the one that is committed last.
            own = self.ids[index::number]
            count = 0
            while time.time() < began + float(seconds):
                await host.commit(self._changed(own[count % len(own)], length))
                count += 1
                if count % TURN == 0:
                    await host.checkpoint()
            return count

        count = await host.gather(number, loop)
        return {"n": count, "began": began, "ended": time.time(), "finals": self.finals}

    async def settle(self, host: Host, wanted: str) -> dict[str, Any]:
        missing = dict(json.loads(wanted))
        end = time.time() + SETTLE_S
        while missing and time.time() < end:
            for session_id, number in list(missing.items()):
                if isinstance(self.manager, BackupManager) and self.manager.is_elsewhere(
                    session_id
                ):
                    del missing[session_id]
                    continue
                session = self.manager.find(session_id)
                if session is not None and session[ATTRIBUTE].endswith(text(10, number)):
                    del missing[session_id]
            if missing:
                await host.pause()
        return {"last": time.time(), "stale": len(missing), "count": 0}

    async def request(self, host: Host, count: str, size: str) -> dict[str, Any]:
        def work(turn: int) -> None:
            run_here(host.commit(self._changed(self.ids[turn % len(self.ids)], int(size))))

        return workload.requests_timed(int(count), work)

    async def bytes(self, host: Host, batch: str, size: str) -> dict[str, Any]:
        """The median of some rounds: now and then replicas are compared meanwhile."""
        assert isinstance(self.node, GroupChannel)
        shell, found = self.node.shell, []

        async def commit(index: int) -> int:
            await host.commit(self._changed(self.ids[index], int(size)))
            return 1

        def counted() -> int:
            return shell.links.bytes_written + shell.core.channel.statistics.bytes_received

        for _ in range(ROUNDS):
            before = counted()
            count = await host.gather(int(batch), commit)
            found.append((counted() - before) / count)
        return {"bytes": statistics.median(found)}

    # What it has and sees.

    async def memory(self, host: Host) -> dict[str, Any]:
        begin = time.process_time()
        gc.collect()
        pause = time.process_time() - begin
        held = len(self.manager.table) if self.node.config.contexts else 0
        return {"used": resident(), "held": held, "gc_ms": pause * 1e3}

    async def members(self, host: Host) -> dict[str, Any]:
        """How many others it sees, and how many of them take part in the application."""
        others = len(self.node.view.members)
        taking = len(self.manager.copies_on) if self.node.config.contexts else others
        return {"members": others, "taking": taking}

    async def events(self, host: Host) -> dict[str, Any]:
        return {"events": self.seen}


def resident() -> int:
    """Bytes of memory that this process has, now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise LookupError("VmRSS")


# ---- the process -------------------------------------------------------------------------------


def chosen(member: Member, name: str, arguments: list[str], hosts: dict[str, Host]) -> Any:
    """What a command comes to, to be awaited."""
    is_placed = bool(arguments) and arguments[0] in hosts
    host = hosts[arguments[0]] if is_placed else next(iter(hosts.values()))
    return getattr(member, name)(host, *arguments[is_placed:])


def beside(config: NodeConfig) -> None:
    """A background node; commands run in the main thread, or in asyncio there."""
    heard = Heard()
    seen: Seen = []
    begin = time.perf_counter()
    node = BackgroundNode(config, watch=partial(note, seen))
    member = Member(node, heard, seen)
    node.start()
    node.wait_joined()
    seconds = time.perf_counter() - begin
    node.channel.add_message_listener(lambda data: heard.note(data.message), inline=True)
    # From the first member that was there: what was before is waiting, for who answers.
    transfer = time.time() - member.seen[0][0] if member.seen else 0.0
    workload.tell({"started": True, "seconds": seconds, "transfer": transfer})
    hosts: dict[str, Host] = {"thread": InThread(node), "asyncio": InAsyncio(node)}
    for line in sys.stdin:
        name, arguments = workload.split(line)
        if name == "stop":
            break
        work = chosen(member, name, arguments, hosts)
        is_asyncio = arguments[:1] == ["asyncio"]
        workload.tell(asyncio.run(work) if is_asyncio else run_here(work))
    node.stop()


async def native(config: NodeConfig) -> None:
    """A channel, and commands in its trio run."""
    heard = Heard()
    seen: Seen = []
    begin = time.perf_counter()
    channel = GroupChannel(config, watch=partial(note, seen))
    member = Member(channel, heard, seen)

    def listen(data: ChannelData) -> None:
        heard.note(data.message)

    async with channel:
        channel.add_message_listener(listen, inline=True)
        await channel.await_joined()
        workload.tell({"started": True, "seconds": time.perf_counter() - begin})
        hosts: dict[str, Host] = {"native": Native(channel)}
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            name, arguments = workload.split(line)
            if name == "stop":
                break
            work = chosen(member, name, arguments, hosts)
            workload.tell(await work if inspect.isawaitable(work) else work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--group", type=int, required=True, help="multicast port")
    parser.add_argument("--name", required=True)
    parser.add_argument("--manager", choices=("none", "delta", "backup"), default="none")
    parser.add_argument("--options", type=int, default=6)
    parser.add_argument("--native", action="store_true")
    parser.add_argument("--key", action="store_true")
    parser.add_argument("--tls", default="", help="folder with ca.pem and member.pem")
    parser.add_argument("--interceptors", default="")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    config = config_of(arguments)
    if arguments.native:
        trio.run(native, config)
    else:
        beside(config)


if __name__ == "__main__":
    main()
