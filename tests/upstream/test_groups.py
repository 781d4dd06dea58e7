"""What Tribes' own tests assert of groups, in simulated ones: the numbers are upstream's."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tribes.config.model import ChannelConfig, MembershipConfig, NodeConfig, ReceiverConfig
from tribes.config.model import SenderConfig as Sender
from tribes.errors import RemoteProcessError
from tribes.testing.sim import SimNode, World

DISPATCH = {"class": "MessageDispatchInterceptor"}
DETECTOR = {"class": "TcpFailureDetector"}
DOMAIN = {"class": "DomainFilterInterceptor"}


def config(**channel: Any) -> NodeConfig:
    return NodeConfig(channel=ChannelConfig(**channel))


def pair(configuration: NodeConfig, *, seed: int = 1) -> tuple[World, SimNode, SimNode]:
    world = World(seed)
    a, b = (world.start(name, configuration) for name in "ab")
    world.run(2)
    assert a.names() == b.names() == ["a", "b"]
    return world, a, b


def domains(names: list[str]) -> list[int]:
    """Start a member of each domain at once; how many members each of them saw come."""
    world = World(seed=6)
    added: dict[str, int] = {f"n{number}": 0 for number in range(len(names))}

    def note(now: float, node: str, kind: str, detail: object) -> None:
        del now, kind
        added[node] += getattr(detail, "name", "") == "member added"

    world.watch(("event",), note)
    for node, name in zip(added, names, strict=True):
        world.start(
            node,
            config(
                interceptors=(DISPATCH, {**DOMAIN, "domain": name}, DETECTOR),
                membership=MembershipConfig(domain=name),
            ),
        )
    world.run(5)
    nodes = world.nodes.values()
    assert [len(node.core.view.members) for node in nodes] == list(added.values())
    return list(added.values())


def test_ten_members_of_a_domain_see_nine_each() -> None:
    """TestGroupChannelMemberArrival: after 5 s exactly nine came, to each."""
    assert domains(["common"] * 10) == [9] * 10


def test_ten_members_of_ten_domains_see_nobody() -> None:
    """TestDomainFilterInterceptor."""
    assert domains([f"domain {number}" for number in range(10)]) == [0] * 10


@pytest.mark.parametrize("own_link", [False, True])
@pytest.mark.parametrize(
    ("sender", "pause"),
    [({}, 0.0), ({"keep_alive_count": 0}, 1.0), ({"keep_alive_time": 1000}, 2.0)],
    ids=["at once", "no connection kept", "connections kept a second"],
)
def test_kept_connections_lose_no_message(
    sender: dict[str, Any], pause: float, own_link: bool
) -> None:
    """TestGroupChannelSenderConnections: three large messages, with a connection kept or not."""
    world, a, b = pair(config(own_link=own_link, sender=Sender(**sender)))
    sent = [Random(number).randbytes(400_000 * number) for number in (1, 2, 3)]
    for message in sent:
        a.send(message, [b], 0)
        world.run(pause)
    world.run(15 - 3 * pause)
    assert [message.message for message in b.messages] == sent


def stop_receiver(node: SimNode) -> None:
    """From here on its machine refuses connections."""
    del node.world.streams.listeners[node.port]


@pytest.mark.parametrize("own_link", [False, True])
def test_member_whose_receiver_stopped_fails_sends_and_is_removed(own_link: bool) -> None:
    """TestTcpFailureDetector: of up to five sends one fails, and there is one member fewer."""
    world, a, b = pair(config(own_link=own_link))
    stop_receiver(b)
    world.reset(a, b)
    faulty = []
    for _ in range(5):
        ticket = a.send(bytes(1024), [b], 0)
        world.run(0.5)
        faulty.append(a.done.get(ticket))
        if faulty[-1]:
            break
    assert faulty[-1], "no send failed"
    world.run(1)
    assert a.names() == ["a"]


def test_member_without_receiver_never_appears() -> None:
    """TestTcpFailureDetector: its heartbeats are heard for six seconds, and believed by nobody."""
    world = World(2)
    a, b = (world.start(name, config()) for name in "ab")
    stop_receiver(b)
    for _ in range(60):
        world.run(0.1)
        assert a.names() == ["a"]
    assert b.names() == ["a", "b"], "it hears the other one"


def test_member_that_only_stopped_its_heartbeats_stays() -> None:
    """TestTcpFailureDetector: five seconds later it is listed, and a send succeeds."""
    world, a, b = pair(config())
    world.multicast_blocked.add("b")
    world.run(5)
    assert a.names() == ["a", "b"]
    ticket = a.send(bytes(1024), [b], 6)
    world.run(1)
    assert a.done[ticket] == {}


@pytest.mark.parametrize("own_link", [False, True])
def test_every_send_that_a_listener_failed_is_an_error_and_no_other(own_link: bool) -> None:
    """TestRemoteProcessException: 10,000 messages acknowledged when processed, some at random
    make the listener raise. Upstream calls it twice for those; here it is called once.
    """
    world, a, b = pair(config(own_link=own_link))
    random = Random(5)
    called = 0

    def listen(message: Any) -> None:
        nonlocal called
        called += 1
        if message.message.startswith(b"fail"):
            raise ValueError("as told")

    b.on_message = listen
    fails = [random.random() < 0.01 for _ in range(10_000)]
    tickets = []
    for number, is_failing in enumerate(fails):
        tickets.append(a.send((b"fail %d" if is_failing else b"%d") % number, [b], 6))
        if number % 100 == 99:
            world.run(0.2)
    world.run(3)
    outcomes = [a.done[ticket] for ticket in tickets]
    assert [bool(outcome) for outcome in outcomes] == fails
    errors = [error for outcome in outcomes for error in outcome.values()]
    assert all(isinstance(error, RemoteProcessError) for error in errors)
    assert called == 10_000


UDP = ReceiverConfig(udp_port=50_000, pending_max=1000)


@pytest.mark.parametrize("way", [32, 64], ids=["udp", "multicast"])
@pytest.mark.parametrize("options", [0, 8], ids=["no ack", "async"])
def test_twenty_senders_of_five_hundred_datagrams(way: int, options: int) -> None:
    """TestUdpPackages and TestMulticastPackages: 100 to 1123 bytes, all there within 25 s, once
    and whole; on a network that loses none.
    """
    world, a, b = pair(config(receiver=UDP))
    random = Random(way + options)
    messages = [
        b"%06d" % number + random.randbytes(random.randrange(94, 1118)) for number in range(10_000)
    ]
    for start in range(0, 10_000, 20):
        for message in messages[start : start + 20]:
            a.send(message, [b], way | options)
        world.run(0.01)
    world.run(25 - 5)
    assert sorted(message.message for message in b.messages) == messages


@pytest.mark.parametrize("way", [32, 64], ids=["udp", "multicast"])
@pytest.mark.parametrize("options", [2, 6, 8], ids=["receipt", "processed", "async"])
def test_five_hundred_datagrams_of_one_sender(way: int, options: int) -> None:
    """TestUdpPackages and TestMulticastPackages: one after the other, all there within 5 s. Those
    to the group are never acknowledged, so nobody waits for that.
    """
    world, a, b = pair(config(receiver=UDP))
    messages = [b"%06d" % number + bytes(500) for number in range(500)]
    tickets = []
    for message in messages:
        tickets.append(a.send(message, [b], way | options))
        world.run(0.005)
    world.run(5 - 2.5)
    assert [message.message for message in b.messages] == messages
    assert all(a.done[ticket] == {} for ticket in tickets)


@pytest.mark.parametrize("way", [32, 64], ids=["udp", "multicast"])
def test_one_datagram_arrives_within_half_a_second(way: int) -> None:
    """TestUdpPackages and TestMulticastPackages."""
    world, a, b = pair(config(receiver=UDP))
    a.send(bytes(100), [b], way)
    world.run(0.5)
    assert len(b.messages) == 1
