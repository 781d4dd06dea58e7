"""With TLS and no key: what is heard by multicast names hosts, and nothing more.

The wires of these tests stand for connections that have proved who is at their other end; somebody
who can't prove it gets no further than a refused connection.
"""

from __future__ import annotations

from random import Random

import pytest

from tests.channel.keyed_net import ONE, Net, Side, ring
from tests.channel.test_core import LOCAL, TWO, Counter, frame
from tribes.channel.core import ChannelCore
from tribes.channel.door import SILENT_MAX
from tribes.config.model import ChannelConfig, TlsConfig
from tribes.errors import LocalProtocolError, RemoteProtocolError
from tribes.links.challenge import Life, decode_life, encode_life
from tribes.membership.introductions import (
    QUESTIONS_MAX,
    QUESTIONS_PER_S,
    REMEMBERED_MAX,
    Introductions,
)
from tribes.security.mark import MARK_BYTES, Marker
from tribes.wire.data import encode_data_frame
from tribes.wire.member import SHUTDOWN_COMMAND, Member, encode_member
from tribes.wire.options import SendOptions

TLS = ChannelConfig(tls=TlsConfig(certificate="x", authorities="x"))
OUTSIDE = "10.0.0.66"


def group(*ports: int) -> tuple[Net, list[Side]]:
    net = Net()
    sides = [net.add(port, None, config=TLS) for port in ports]
    net.run(1.2)
    assert [side.ports for side in sides] == [[p for p in ports if p != q] for q in ports]
    return net, sides


def introductions(side: Side) -> Introductions:
    assert side.core.protection is not None
    assert isinstance(side.core.protection.admission, Introductions)
    return side.core.protection.admission


def asked(side: Side) -> int:
    assert side.core.protection is not None
    return side.core.protection.challenges.asked


def life_of(side: Side) -> int:
    assert side.core.protection is not None
    return side.core.protection._marker.incarnation


def forged(member: Member, incarnation: int = 5, counter: int = 1 << 60) -> bytes:
    marker = Marker(incarnation)
    marker.counter = counter
    return marker.mark(encode_member(member))


def test_members_find_each_other_and_talk() -> None:
    """Messages both ways; a later one is found too, and who speaks no TLS is not."""
    net, (a, b) = group(4000, 4001)
    first, second = a.send(b, b"hello"), b.send(a, b"back", 2)
    net.run(0.2)
    assert (b.delivered, a.delivered) == ([b"hello"], [b"back"])
    assert (a.done[first], b.done[second]) == ({}, {})
    c = net.add(4002, None, config=TLS)
    keyed = net.add(4004, ring(ONE))
    net.run(1.2)
    assert (a.ports, b.ports, c.ports) == ([4001, 4002], [4000, 4002], [4000, 4001])
    assert keyed.ports == []


def test_a_farewell_counts_when_nobody_is_there_and_a_crash_is_one() -> None:
    """Told apart, and both at once."""
    net, (a, b, c) = group(4000, 4001, 4002)
    net.stop(b)
    net.run(0.4)
    assert a.ports == [4002]
    net.kill(c)
    net.run(0.4)
    assert a.ports == []
    assert [removal.reason.name for removal in a.removals] == ["LEFT", "CRASHED"]


def test_forged_farewells_remove_nobody() -> None:
    """With the right incarnation too, which everybody can hear; each costs a question at most."""
    net, (a, b) = group(4000, 4001)
    number, before = a.view.number, asked(a)
    for _ in range(200):
        leave = b.core.local.replace(command=SHUTDOWN_COMMAND, alive=10**6)
        net.datagram(forged(leave, life_of(b)), OUTSIDE, a)
        net.datagram(forged(leave), OUTSIDE, a)
        net.datagram(forged(leave, life_of(b)), b.host, a)
        net.run(0.05)
    assert a.view.number == number
    assert a.ports == [4001]
    assert asked(a) - before <= 12
    ticket = a.send(b, b"still")
    net.run(0.1)
    assert a.done[ticket] == {}


@pytest.mark.parametrize("what", ["nobody", "stranger", "plain member", "keyed member"])
def test_made_up_members_do_not_appear(what: str) -> None:
    """Wherever the heartbeat points."""
    net, (a,) = group(4000)
    ghost = Member(bytes((10, 0, 0, 9)), 4009, bytes(16))
    if what == "stranger":
        net.impostors[ghost.address] = b"anything" * 20
    elif what == "plain member":
        net.add(4009, None, host="10.0.0.9", unique_id=bytes(16))  # which sends heartbeats itself
    elif what == "keyed member":
        net.add(4009, ring(ONE), host="10.0.0.9", unique_id=bytes(16))
    for _ in range(20):
        net.datagram(forged(ghost), OUTSIDE, a)
        net.datagram(encode_member(ghost), OUTSIDE, a)
        net.run(0.3)
    assert a.ports == []
    assert a.view.number == 0
    assert asked(a) <= 14


def test_a_member_describes_itself() -> None:
    """A heartbeat that names it truly and lies about the rest makes it a member as it is."""
    net = Net()
    net.hear = lambda source, target, data: False
    a, b = (net.add(port, None, config=TLS) for port in (4000, 4001))
    net.run(20)
    real = b.core.local
    for lie in (
        real.replace(alive=2**40, payload=b"lie", domain=b"lie"),
        real.replace(command=b"lie"),
    ):
        net.datagram(forged(lie), OUTSIDE, a)
        net.run(0.1)
    [member] = a.view.members
    assert (member, member.payload, member.domain, member.command) == (real, b"4001", b"", b"")
    assert 19_000 <= member.alive <= 21_000
    # Nor does it change later.
    net.datagram(forged(real.replace(alive=2**40, payload=b"lie")), OUTSIDE, a)
    net.datagram(
        forged(real.replace(alive=2**40, payload=b"lie", domain=b"lie"), life_of(b)), OUTSIDE, a
    )
    net.run(0.1)
    [member] = a.core.membership.table.members()
    assert (member.payload, member.domain) == (b"4001", b"")
    assert member.alive <= 22_000
    assert a.view.number == 1


def test_another_id_at_a_members_address_replaces_nobody() -> None:
    """The member refuses to be it."""
    net, (a, b) = group(4000, 4001)
    number = a.view.number
    for _ in range(5):
        net.datagram(forged(b.core.local.replace(unique_id=net.random.randbytes(16))), OUTSIDE, a)
        net.run(0.5)
    assert a.view.number == number
    assert a.view.members == (b.core.local,)


@pytest.mark.parametrize("same_id", [True, False])
def test_a_successor_takes_its_address(same_id: bool) -> None:
    """At once, with the same unique id or another."""
    net, (a, b) = group(4000, 4001)
    net.hear = lambda source, target, data: source is not b
    net.kill(b)
    again = net.add(4001, None, config=TLS, unique_id=b.core.local.unique_id if same_id else b"")
    net.run(1.2)
    assert a.view.members == (again.core.local,)
    ticket = a.send(again, b"hello")
    net.run(0.2)
    assert a.done[ticket] == {}
    assert again.delivered == [b"hello"]


def test_heartbeats_of_the_dead_keep_and_bring_back_nobody() -> None:
    """However often they are sent."""
    net, (a, b) = group(4000, 4001)
    net.kill(b)
    for data in b.sent * 20:
        net.datagram(data, b.host, a)
        net.run(0.1)
    assert a.ports == []
    assert introductions(a)._members == {}


def test_a_flood_of_heartbeats_makes_a_bounded_number_of_questions() -> None:
    """And uses bounded memory; members stay what they are."""
    net, (a, _) = group(4000, 4001)
    random, known = Random(3), introductions(a)
    before = asked(a)
    for number in range(20_000):
        ghost = Member(random.randbytes(4), random.randrange(1, 65536), random.randbytes(16))
        a.core.datagram(forged(ghost, random.getrandbits(60)), (OUTSIDE, 1), net.now)
        if number % 100 == 0:
            net.run(0.01)
            assert len(known._under_question) <= QUESTIONS_MAX
    assert asked(a) - before <= QUESTIONS_PER_S * 3.1
    assert len(known._asked) <= REMEMBERED_MAX
    assert a.ports == [4001]
    net.run(3)
    assert a.ports == [4001]
    late = net.add(4002, None, config=TLS)
    net.run(1.2)
    assert late.core.local in a.view.members


def test_connections_that_do_not_shake_hands_are_silent_and_bounded() -> None:
    """Both by their time and by their number, before any of them has said a word."""
    net, (a, _) = group(4000, 4001)
    strangers = [net.connect(f"10.2.{n % 250}.1", a) for n in range(SILENT_MAX + 5)]
    net.pump()
    assert [each.is_open for each in strangers[:6]] == [False] * 5 + [True]
    net.run(1.9)
    assert strangers[-1].is_open
    net.run(0.2)
    assert not any(each.is_open for each in strangers)
    assert a.core.accepted.door.too_late == SILENT_MAX


def test_only_own_links_are_taken() -> None:
    """A certificate is no leave to speak as a plain member."""
    net, (a, _) = group(4000, 4001)
    ghost = encode_member(Member(bytes((10, 0, 0, 9)), 4009, bytes(16)))
    stranger = net.connect(OUTSIDE, a, encode_data_frame(6, 0, bytes(16), ghost, b"x"))
    net.pump()
    assert not stranger.is_open
    assert stranger.answer == b""
    assert a.delivered == []


def test_messages_by_udp_are_neither_sent_nor_taken() -> None:
    """TLS does not cover them."""
    net, (a, b) = group(4000, 4001)
    for options in (SendOptions.UDP, SendOptions.MULTICAST):
        with pytest.raises(LocalProtocolError, match="clear the options"):
            a.send(b, b"x", int(options))
    to_group = encode_data_frame(0, 0, bytes(16), encode_member(b.core.local), b"x")
    net.datagram(to_group, b.host, a)
    assert a.delivered == []
    # The configuration refuses the port; the core does not rely on it.
    here = LOCAL.replace(udp_port=5000)
    core = ChannelCore(here, TLS, wall_ms=lambda: 1000, entropy=Counter())
    core.start(0.0)
    core.take_outputs()
    core.udp_datagram(frame(TWO, SendOptions.UDP | 3, b"x"), ("127.0.0.1", 5001), 0.0)
    assert core.take_outputs() == []


def test_heartbeats_are_no_answer() -> None:
    """Who owes one is suspected and removed, whatever is heard of it."""
    net, (a, b) = group(4000, 4001)
    heard = list(b.sent)
    # It hangs: nothing that arrives there is answered.
    b.core.link_bytes = lambda link, data, now: None
    begin = net.now
    while a.ports and net.now < begin + 15:
        net.datagram(heard[-1], b.host, a)
        net.run(0.1)
    assert a.ports == []
    assert net.now - begin < 12


def test_what_a_member_says_of_its_life() -> None:
    """With a record behind it or none; one cut short is an error."""
    for life in (Life(1, 2), Life(1, 2, b"record")):
        assert decode_life(encode_life(life)) == life
    assert decode_life(encode_life(Life(1, 2, b"record")) + b"later") == Life(1, 2, b"record")
    with pytest.raises(RemoteProtocolError, match="claims a record of 6 bytes"):
        decode_life(encode_life(Life(1, 2, b"record"))[:-1])


def test_the_mark_is_there_and_proves_nothing() -> None:
    """Members are known by it, so that plain ones and keyed groups are left alone."""
    _, (a, _) = group(4000, 4001)
    assert a.sent[-1][-MARK_BYTES:].startswith(b"TPY")
    assert a.sent[-1][-16:] == bytes(16)
