"""Lazy maps on simulated nodes: where entries lie, how others reach them, what changes move."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from tribes.config.model import NodeConfig
from tribes.errors import MemberUnreachableError
from tribes.manager.values import ValueCodec
from tribes.maps.keys import encode_key
from tribes.maps.lazy_messages import Get, MapReply, Put
from tribes.maps.placement import PARTITIONS, EntryKind, partition_of_entry
from tribes.testing.sim import SimNode, World

if TYPE_CHECKING:
    from tribes.manager.inbox import CommitResult
    from tribes.maps.lazy import LazyCore

CODEC = ValueCodec()


class Client:
    """Uses a lazy map from one node as a request would, and notes how long it took."""

    def __init__(self, node: SimNode, **options: Any) -> None:
        self.node = node
        self.map: LazyCore = node.open_lazy_map(**options)

    @property
    def held(self) -> dict[int, Any]:
        return self.map.parts.held

    def ask(self, request: Get | Put, timeout: float = 5.0) -> MapReply | Exception:
        world, replies = self.node.world, list[MapReply | Exception]()
        self.map.questions.ask(request, timeout, self.node.clock.monotonic(), replies.append)
        self.node.pump()
        assert world.run_until(world.now + timeout + 1, lambda: bool(replies)), "no reply at all"
        assert len(replies) == 1
        return replies[0]

    def put(self, key: str | int, value: object) -> CommitResult | None:
        name, data = encode_key(key), None if value is None else CODEC.encode(value)
        manager = self.held.get(partition_of_entry(name))
        if manager is not None and manager.is_joined:
            manager.write(name, data, None)
            self.node.world.run(0.05)
            return None
        reply = self.ask(Put(name, data))
        assert isinstance(reply, MapReply), reply
        return reply.result

    def get(self, key: str | int) -> Any:
        name = encode_key(key)
        manager = self.held.get(partition_of_entry(name))
        entry = None if manager is None else manager.entry_of(name)
        if entry is not None:
            return CODEC.decode(entry.value)
        reply = self.ask(Get(name))
        if isinstance(reply, Exception):
            return type(reply)
        return None if reply.value is None else CODEC.decode(reply.value)


def start(world: World, names: str, **options: Any) -> list[Client]:
    nodes = [world.start(name, NodeConfig()) for name in names]
    world.run(2)
    clients = [Client(node, **options) for node in nodes]
    world.run(8)
    return clients


def holders(clients: list[Client]) -> list[int]:
    """How many members hold each partition."""
    counts = Counter(p for client in clients for p in client.held)
    return [counts[p] for p in range(PARTITIONS)]


def test_each_partition_lies_on_a_primary_and_its_backups() -> None:
    """One and k, no more: everybody else has proxies, and every member has its share."""
    for copies in (0, 1, 2):
        clients = start(World(copies), "abcd", copies=copies)
        assert holders(clients) == [1 + copies] * PARTITIONS
        assert all(client.map.is_settled for client in clients)
        assert min(len(client.held) for client in clients) >= PARTITIONS * (1 + copies) // 10
        for key in range(20):
            kinds = Counter(client.map.kind_of(encode_key(key)) for client in clients)
            assert kinds[EntryKind.PRIMARY] == 1
            assert kinds[EntryKind.BACKUP] == copies


def test_every_member_reads_and_writes_every_entry() -> None:
    """A proxy fetches; a write through a proxy returns with the holders that have it."""
    clients = start(World(1), "abcd")
    results = [clients[key % 4].put(key, {"n": key}) for key in range(40)]
    through_proxies = [result for result in results if result is not None]
    assert through_proxies
    assert {(len(r.acked), dict(r.missing) == {}) for r in through_proxies} == {(2, True)}
    for client in clients:
        assert [client.get(key) for key in range(40)] == [{"n": key} for key in range(40)]
    assert holders(clients) == [2] * PARTITIONS
    assert sum(m.table.live for client in clients for m in client.held.values()) == 80


def test_an_entry_that_is_nowhere_is_none() -> None:
    """Its holder says so; so does removing it. A removed one is gone everywhere."""
    clients = start(World(2), "abc")
    assert {client.get("nothing") for client in clients} == {None}
    clients[0].put("k", 1)
    for client in clients:
        if partition_of_entry("s:k") not in client.held:
            assert client.put("k", None) is not None
            assert client.put("k", None) is None
    assert {client.get("k") for client in clients} == {None}


def test_a_crash_promotes_backups_and_copies_are_made_anew() -> None:
    """No entry is lost with one member, at once readable, and soon there are two copies again."""
    world = World(3)
    clients = start(world, "abcd")
    for key in range(100):
        clients[0].put(key, key)
    clients[1].node.crash()
    rest = [clients[0], *clients[2:]]
    assert [clients[0].get(key) for key in range(100)] == list(range(100))
    world.run(5)
    assert holders(rest) == [2] * PARTITIONS
    for client in rest:
        assert [client.get(key) for key in range(100)] == list(range(100))
    rest[0].node.crash()
    world.run(5)
    assert [rest[1].get(key) for key in range(100)] == list(range(100))


def test_a_join_moves_partitions_and_loses_nothing() -> None:
    """The newcomer takes its share, the others give up theirs only after it has all."""
    world = World(4)
    clients = start(world, "abc")
    for key in range(200):
        clients[0].put(key, "x" * 300)
    newcomer = Client(world.start("d", NodeConfig()))
    for step in range(100):
        world.run(0.1)
        assert min(holders([*clients, newcomer])) >= 2
        if step % 10 == 0:
            assert newcomer.get(step) == "x" * 300
            clients[step % 3].put(f"during {step}", step)
    everybody = [*clients, newcomer]
    assert holders(everybody) == [2] * PARTITIONS
    assert len(newcomer.held) > PARTITIONS // 8
    for client in everybody:
        assert all(client.get(key) == "x" * 300 for key in range(200))
        assert [client.get(f"during {step}") for step in range(0, 100, 10)] == list(
            range(0, 100, 10)
        )


def test_nothing_is_given_to_a_member_that_hangs() -> None:
    """A newcomer that is placed and takes nothing gets nothing: no entry has only it to lie on."""
    world = World(11)
    clients = start(world, "abc", copies=0)
    for key in range(100):
        clients[0].put(key, key)
    node = world.start("d", NodeConfig())
    world.run(2)
    newcomer = Client(node, copies=0)
    assert world.run_until(
        world.now + 1, lambda: all("d" in c.map.parts.presence.copies_on for c in clients)
    )
    newcomer.node.pause()
    world.run(2.5)
    newcomer.node.crash()
    world.run(5)
    assert [clients[0].get(key) for key in range(100)] == list(range(100))


def test_a_member_that_leaves_gives_everything_away_first() -> None:
    """Even with no backups: draining moves its partitions to the others."""
    world = World(5)
    clients = start(world, "abc", copies=0)
    for key in range(100):
        clients[0].put(key, key)
    clients[0].node.stop(drain=10)
    world.run(8)
    assert not clients[0].node.is_alive
    rest = clients[1:]
    assert holders(rest) == [1] * PARTITIONS
    assert [rest[0].get(key) for key in range(100)] == list(range(100))


def test_a_split_heals_to_one_state() -> None:
    """Both sides go on with all that they have; afterwards the later writes are everywhere."""
    world = World(6)
    clients = start(world, "abcd", copies=1)
    for key in range(60):
        clients[0].put(key, "old")
    world.partition("ab", "cd")
    world.run(8)
    for key in range(0, 30):
        clients[0].put(key, "left")
    for key in range(20, 40):
        clients[2].put(key, "right")
    world.heal()
    world.run(25)
    assert holders(clients) == [2] * PARTITIONS
    for client in clients:
        assert [client.get(key) for key in range(20)] == ["left"] * 20
        assert [client.get(key) for key in range(20, 40)] == ["right"] * 20


def test_a_hung_holder_costs_a_read_little() -> None:
    """The next holder is asked after 0.2 s, and at once when the first one is suspected."""
    world = World(7)
    clients = start(world, "abcd")
    for key in range(40):
        clients[0].put(key, key)
    clients[3].node.pause()
    for patience in (0.5, 0.05):
        for key in range(40):
            began = world.now
            assert clients[0].get(key) == key
            assert world.now - began < patience
        world.run(1.6)


def test_nobody_who_has_it_answers() -> None:
    """Both holders hang: an error within the timeout, not a wrong "there is none".

    (Once they are no members any more there is none.)
    """
    world = World(8)
    clients = start(world, "abcd")
    clients[0].put("k", 1)
    partition = partition_of_entry("s:k")
    asking = next(client for client in clients if partition not in client.held)
    for client in clients:
        if partition in client.held:
            client.node.pause()
    began = world.now
    assert isinstance(asking.ask(Get("s:k"), timeout=2.0), MemberUnreachableError)
    assert world.now - began < 2.1


def test_one_member_alone_has_everything() -> None:
    """Before others come, and after they went; what it had goes on being there."""
    world = World(9)
    clients = start(world, "a")
    clients[0].put("k", 1)
    assert clients[0].get("k") == 1
    assert clients[0].get("other") is None
    assert holders(clients) == [1] * PARTITIONS
    second = Client(world.start("b", NodeConfig()))
    world.run(6)
    assert holders([*clients, second]) == [2] * PARTITIONS
    second.node.stop(drain=5)
    world.run(5)
    assert clients[0].get("k") == 1


def test_closing_the_map_on_one_member_leaves_it_to_the_others() -> None:
    """Its copies are made anew from the backups."""
    world = World(10)
    clients = start(world, "abc")
    for key in range(50):
        clients[0].put(key, key)
    node = clients[0].node
    node.core.close_lazy_map(clients[0].map.parts, node.clock.monotonic())
    node.pump()
    world.run(5)
    assert holders(clients[1:]) == [2] * PARTITIONS
    assert [clients[1].get(key) for key in range(50)] == list(range(50))
