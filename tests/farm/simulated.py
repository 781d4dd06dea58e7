"""The farm's core on the simulator's nodes: their network, their clocks, their disks.

A disk has files ``state``, ``part/KEY/INDEX``, ``map/KEY``, ``store/KEY`` and ``app/NAME``. They
survive a crash as those of a real member do, and what is under way when it comes is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from tests.farm.contents import NAME
from tribes.farm.core import FarmCore
from tribes.farm.messages import PREFIX, Chunk, Message, State, decode, encode
from tribes.farm.names import ArchiveName
from tribes.farm.outputs import (
    DropPart,
    FarmOutput,
    Forget,
    Install,
    Prepare,
    ReadChunk,
    Save,
    Send,
    Tell,
    WriteChunk,
)
from tribes.farm.records import Kept
from tribes.farm.transfer import Part
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from tribes.farm.catalogue import Entry, Phase
    from tribes.testing.sim import SimNode, World
    from tribes.wire.data import ChannelData

LOOK_S = 0.05
DISK_S = 0.001


class SimFarm:
    """The farm of one simulated node; `start` again after each start of the node.

    Attributes:
        told: Events with their fields, over all incarnations.
        refuses: Why this member's disk refuses to prepare anything; empty: it does not.
        on_send: Sees and may change each message before it goes out; None drops it.
        installs: What was put in place, in order.
    """

    def __init__(self, node: SimNode, **settings: Any) -> None:
        self.node = node
        self.settings = {
            "max_valid_time_s": 300.0,
            "archive_max_bytes": 2**30,
            "chunk_bytes": 10_240,
            **settings,
        }
        self.told: list[tuple[str, dict[str, object]]] = []
        self.refuses = ""
        self.disk_s = DISK_S
        self.on_send: Callable[[bytes, Message], list[Message]] | None = None
        self.installs: list[tuple[float, str, bytes]] = []
        self.core: FarmCore
        self.start()

    @property
    def local(self) -> bytes:
        return self.node.core.local.unique_id

    def start(self) -> None:
        """The process has begun."""
        node = self.node
        self.core = FarmCore(
            self.local,
            node.name,
            self._kept(),
            wall_ms=node.wall_ms,
            now=node.clock.monotonic(),
            **self.settings,
        )
        node.on_message = self._on_message
        self._work()
        self._look()

    def _kept(self) -> Kept:
        disk = self.node.disk
        saved = decode(disk["state"]) if "state" in disk else None
        entries = saved.entries if isinstance(saved, State) else ()
        parts = {}
        for name in [each for each in disk if each.startswith("map/")]:
            size, chunk_bytes = (int(each) for each in disk[name].decode().split())
            key = name.partition("/")[2]
            total = -(-size // chunk_bytes)
            have = bytearray(f"part/{key}/{i}" in disk for i in range(total))
            parts[bytes.fromhex(key)] = Part(size, chunk_bytes, have)
        return Kept(
            entries,
            frozenset(bytes.fromhex(n[6:]) for n in disk if n.startswith("store/")),
            {name[4:]: disk[name] for name in disk if name.startswith("app/")},
            parts,
        )

    def _look(self) -> None:
        now = self.node.clock.monotonic()
        view = {bytes(m.unique_id): m.label for m in self.node.core.view.members}
        if view.keys() != self.core.peers.keys():
            self.core.members(view, now)
        if now >= self.core.next_deadline:
            self.core.timer(now)
        self._work()
        self.node.after(LOOK_S, self._look)

    def _on_message(self, data: ChannelData) -> None:
        if data.message.startswith(PREFIX):
            message = decode(data.message)
            assert message is not None
            self.core.message(data.source.unique_id, message, self.node.clock.monotonic())
            self._work()

    def deploy(self, content: bytes, name: str = NAME) -> Entry:
        """An operator gives it an archive, which its store takes in."""
        parsed, digest = ArchiveName.parse(name), sha256(content).digest()
        key = digest + bytes((parsed.kind,))
        self.node.disk[f"store/{key.hex()}"] = content
        now = self.node.clock.monotonic()
        entry = self.core.propose(parsed, digest, len(content), 0, now)
        self._work()
        return entry

    def undeploy(self, name: str = NAME) -> Entry:
        """An operator takes it away."""
        now = self.node.clock.monotonic()
        entry = self.core.propose(ArchiveName.parse(name), b"", 0, 0, now)
        self._work()
        return entry

    # What is in place, by what the disk says.

    def content(self, app: str = "shop") -> bytes | None:
        """The archive that is in place."""
        key = self.node.disk.get(f"app/{app}")
        return None if key is None else self.node.disk[f"store/{key.hex()}"]

    def parts(self) -> list[str]:
        """Files of transfers."""
        return [name for name in self.node.disk if name.startswith(("part/", "map/"))]

    def events(self, name: str) -> list[dict[str, object]]:
        """What was told under a name."""
        return [fields for event, fields in self.told if event == name]

    def phase(self, app: str = "shop") -> Phase | None:
        """Of the newest entry."""
        entries = self.core.catalogue.get(app).entries
        return entries[-1].phase if entries else None

    # Outputs.

    def _work(self) -> None:
        for output in self.core.take_outputs():
            self._perform(output)

    def _perform(self, output: FarmOutput) -> None:
        match output:
            case Tell():
                self.told.append((output.event, dict(output.fields)))
            case Send():
                self._send(output.member, output.message)
            case Save():
                state = State(False, output.entries, frozenset(), ())
                self.node.disk["state"] = encode(state)
            case _:
                # A disk works off what it is given in order.
                self.node.after(self.disk_s, self._on_disk, output)

    def _send(self, member: bytes, message: Message) -> None:
        messages = [message] if self.on_send is None else self.on_send(member, message)
        targets = [m for m in self.node.core.view.members if m.unique_id == member]
        for each in messages if targets else []:
            options = int(SendOptions.BYTE_MESSAGE | SendOptions.ASYNCHRONOUS)
            self.node.core.send(targets, encode(each), options, self.node.clock.monotonic())
        self.node.pump()

    def _on_disk(self, output: FarmOutput) -> None:
        disk, now = self.node.disk, self.node.clock.monotonic()
        match output:
            case WriteChunk():
                key, error = output.key.hex(), ""
                try:
                    disk[f"map/{key}"] = f"{output.size} {output.chunk_bytes}".encode()
                    disk[f"part/{key}/{output.index}"] = output.data
                except OSError as why:
                    error = str(why.strerror)
                self.core.wrote(output.key, output.index, error, now)
            case Prepare():
                self._prepare(output, now)
            case Install():
                self._install(output.entry, now)
            case DropPart():
                self._drop(output.key)
            case Forget():
                if not self.core.has(output.key):
                    disk.pop(f"store/{output.key.hex()}", None)
            case ReadChunk():
                content = disk[f"store/{output.key.hex()}"]
                begin = output.index * output.chunk_bytes
                data = content[begin : begin + output.chunk_bytes]
                chunk = Chunk(output.key, output.chunk_bytes, output.index, data)
                self._send(output.member, chunk)
                self.core.read(output.member, len(data))
            case _:
                raise AssertionError(output)
        self._work()

    def _prepare(self, output: Prepare, now: float) -> None:
        disk, key = self.node.disk, output.key.hex()
        count = len([name for name in disk if name.startswith(f"part/{key}/")])
        content = b"".join(disk[f"part/{key}/{i}"] for i in range(count))
        self._drop(output.key)
        if self.refuses:
            self.core.prepared(output.key, self.refuses, now)
        elif sha256(content).digest() != output.key[:-1]:
            self.core.prepared(output.key, "the digest is wrong", now, is_corrupt=True)
        else:
            disk[f"store/{key}"] = content
            self.core.prepared(output.key, "", now)

    def _install(self, entry: Entry, now: float) -> None:
        app = entry.name.app
        if entry.digest:
            assert f"store/{entry.key.hex()}" in self.node.disk, "nothing is put in place by half"
            self.node.disk[f"app/{app}"] = entry.key
        else:
            self.node.disk.pop(f"app/{app}", None)
        self.installs.append((self.node.world.now, app, entry.digest))
        self.core.installed_now(entry, "", now)

    def _drop(self, key: bytes) -> None:
        for name in self.parts():
            if name.split("/")[1] == key.hex():
                del self.node.disk[name]


class Farm:
    """Members of one simulated group, each with a farm."""

    def __init__(self, world: World, count: int = 3, **settings: Any) -> None:
        self.world = world
        self.settings = settings
        self.members = [self.join(f"n{i}") for i in range(count)]
        world.run(3.0)

    def join(self, name: str) -> SimFarm:
        """One more."""
        return SimFarm(self.world.start(name), **self.settings)

    def restart(self, member: SimFarm) -> None:
        """After a crash; the memory is lost and the disk is as it was."""
        member.node.start()
        member.start()

    def until(self, condition: Callable[[], bool], within: float = 30.0) -> float:
        """Let time pass until something holds; returns how long that took."""
        begin = self.world.now
        assert self.world.run_until(begin + within, condition), self.describe()
        return self.world.now - begin

    def describe(self) -> str:
        """For a test that fails."""
        return "\n".join(f"{m.node.name}: {m.core.reports()} {m.told[-6:]}" for m in self.members)

    def all_have(self, content: bytes | None, app: str = "shop") -> bool:
        """Whether this is in place everywhere."""
        return all(member.content(app) == content for member in self.members)
