"""Who has the key is a member; nobody else is, in either direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.channel.keyed_net import ONE, OTHER_ONE, THREE, TWO, Net, Side, ring
from tribes.config.model import ChannelConfig
from tribes.errors import LocalProtocolError, SendTimeoutError
from tribes.membership.admission import Admission
from tribes.security.replay import Heard
from tribes.wire.data import encode_data_frame
from tribes.wire.frame import ACK_FRAME
from tribes.wire.member import Member, encode_member

if TYPE_CHECKING:
    from tribes.security.keys import KeyRing

PLAIN_HOST = "10.0.0.77"


def group(*ports: int, keys: KeyRing | None = None) -> tuple[Net, list[Side]]:
    net = Net()
    sides = [net.add(port, keys or ring(ONE)) for port in ports]
    net.run(1.2)
    return net, sides


@pytest.mark.parametrize("options", [0, 2, 6, 8, 10])
def test_members_with_the_key_talk(options: int) -> None:
    """All options, in both directions; nothing of it can be read on the way."""
    net, (a, b, c) = group(4000, 4001, 4002)
    assert (a.ports, b.ports, c.ports) == ([4001, 4002], [4000, 4002], [4000, 4001])
    tickets = [a.send(b, b"to b", options), a.send(c, b"to c", options)]
    back = b.send(a, b"to a", options)
    net.run(0.1)
    assert [a.done[ticket] for ticket in tickets] == [{}, {}]
    assert b.done[back] == {}
    assert (a.delivered, b.delivered, c.delivered) == ([b"to a"], [b"to b"], [b"to c"])
    everything = b"".join(b"".join(side.read) for side in (a, b, c))
    assert b"to a" not in everything
    assert b"to b" not in everything


def test_a_newcomer_is_asked_once_before_it_counts() -> None:
    """One question of each to each; the failure detector takes the same answer."""
    _, (a, b) = group(4000, 4001)
    for side in (a, b):
        assert side.core.protection is not None
        assert side.core.protection.challenges.asked == 1
        assert side.core.protection.challenges.proved == 1
        assert side.events.count("member added") == 1


@pytest.mark.parametrize("keys", [None, ring(OTHER_ONE), ring(TWO)])
def test_who_has_not_the_key_is_no_member(keys: KeyRing | None) -> None:
    """It sees nobody, nobody sees it, and it gets no byte of a message."""
    net, (a, b) = group(4000, 4001)
    x = net.add(4009, keys)
    net.run(10)
    assert (a.ports, b.ports, x.ports) == ([4001], [4000], [])
    ticket = a.send(x, b"secret")
    back = x.send(a, b"forged")
    a.send(b, b"ours")
    net.run(10)
    assert list(a.done[ticket]) == [x.core.local]
    assert list(x.done[back]) == [a.core.local]
    assert (a.delivered, b.delivered, x.delivered) == ([], [b"ours"], [])
    assert b"secret" not in b"".join(x.read)
    assert a.core.view.number == 1


def test_neighbour_without_the_key_is_told_of_now_and_then() -> None:
    """It hears heartbeats and asks at each of them; its operator may never look."""
    net, (a, b) = group(4000, 4001)
    net.add(4009, None)
    net.run(60)
    assert a.core.statistics.rejections > 100
    assert a.events.count("link rejected") <= 7
    assert a.core.statistics.rejections - a.core.statistics.rejections_not_told == (
        a.events.count("link rejected")
    )
    assert b.ports == [4000]


def test_plain_frames_are_refused_and_not_answered() -> None:
    """Also the test frames that ask whether somebody is there, and whoever they claim to be of."""
    net, (a, b) = group(4000, 4001)
    record = encode_member(b.core.local)
    for message in (b"x", bytes(100)):
        data = encode_data_frame(6, 0, bytes(16), record, message)
        stranger = net.connect(b.host, a, data)
        net.pump()
        assert not stranger.is_open
        assert stranger.answer == b""
    assert a.delivered == []
    assert a.core.statistics.links_rejected == 2
    # The second is like the first.
    assert a.events.count("link rejected") == 1
    assert (a.core.statistics.rejections, a.core.statistics.rejections_not_told) == (2, 1)
    net.run(3)
    assert a.ports == [4001]


def test_farewell_and_crash_and_restart() -> None:
    """Each is noticed as without a key."""
    net, (a, b, c) = group(4000, 4001, 4002)
    net.stop(b)
    net.run(0.1)
    assert (a.ports, c.ports) == ([4002], [4000])
    net.kill(c)
    net.run(0.1)
    assert a.ports == []
    again = net.add(4002, ring(ONE))
    net.run(1.2)
    assert a.ports == [4002]
    assert again.ports == [4000]
    same = net.add(4001, ring(ONE), unique_id=b.core.local.unique_id)
    net.run(1.2)
    assert a.ports == [4001, 4002]
    assert same.ports == [4000, 4002]


def test_restart_with_the_same_unique_id_is_taken() -> None:
    """Another incarnation of the marks, proved again."""
    net, (a, b) = group(4000, 4001)
    net.kill(b)
    again = net.add(4001, ring(ONE), unique_id=b.core.local.unique_id)
    net.run(1.5)
    assert a.ports == [4001]
    ticket = a.send(again, b"hello")
    net.run(1.5)
    assert a.done[ticket] == {}
    assert again.delivered == [b"hello"]


def test_rotation_loses_no_message() -> None:
    """Three steps, member by member, with messages under way all the time."""
    net, sides = group(4000, 4001, 4002)
    tickets: list[tuple[Side, int]] = []
    expected: dict[int, list[bytes]] = {side.port: [] for side in sides}
    count = 0

    def traffic() -> None:
        nonlocal count
        for source in sides:
            for target in sides:
                if source is not target:
                    count += 1
                    payload = b"%d %d" % (source.port, count)
                    tickets.append((source, source.send(target, payload, (6, 2, 8)[count % 3])))
                    expected[target.port].append(payload)

    for step in (ring(ONE, TWO), ring(TWO, ONE), ring(TWO)):
        for side in sides:
            traffic()
            side.core.set_keys(step, net.now)
            traffic()
            net.run(0.3)
        net.run(1.0)
    traffic()
    net.run(2.0)
    assert [side.done[ticket] for side, ticket in tickets] == [{}] * len(tickets)
    for side in sides:
        for source in sides:
            mark = b"%d " % source.port
            got = [each for each in side.delivered if each.startswith(mark)]
            assert got == [each for each in expected[side.port] if each.startswith(mark)]
        assert "member removed" not in side.events
        assert "member suspected" not in side.events
    late = net.add(4009, ring(ONE))
    net.run(3)
    assert late.ports == []
    assert [side.ports for side in sides] == [[4001, 4002], [4000, 4002], [4000, 4001]]


def test_the_middle_of_a_rotation_may_last() -> None:
    """Members that sign with different keys hear each other as before, and newcomers of both."""
    net, (a, b) = group(4000, 4001, keys=ring(ONE, TWO))
    a.core.set_keys(ring(TWO, ONE), net.now)
    net.run(1)
    before = [fresh(side) for side in (a, b)]
    net.run(10)
    assert [fresh(side) - number for side, number in zip((a, b), before, strict=True)] == [20, 20]
    news = [net.add(port, keys) for port, keys in ((4002, ring(TWO, ONE)), (4003, ring(ONE, TWO)))]
    net.run(1.2)
    assert all(len(side.ports) == 3 for side in (a, b, *news))
    assert "member suspected" not in a.events + b.events


def fresh(side: Side) -> int:
    assert side.core.protection is not None
    assert isinstance(side.core.protection.admission, Admission)
    return side.core.protection.admission.guard.statistics[Heard.FRESH]


def test_links_of_a_key_that_was_taken_away_are_closed() -> None:
    """At once, on whichever side; links of a key that stays go on."""
    net, (a, b) = group(4000, 4001)
    before = len(net._ends)
    links = set(net._ends)
    for side in (a, b):
        side.core.set_keys(ring(ONE, TWO), net.now)
    net.run(0.2)
    assert set(net._ends) == links
    for side in (a, b):
        side.core.set_keys(ring(TWO, ONE), net.now)
    net.run(0.2)
    assert set(net._ends) == links
    a.core.set_keys(ring(TWO), net.now)
    net.run(0.2)
    assert not links & set(net._ends)
    assert len(net._ends) == before
    assert a.ports == [4001]
    assert b.ports == [4000]


def test_a_key_with_the_same_id_and_another_secret_is_another_key() -> None:
    """Ids are numbers that people choose."""
    net, (a, b) = group(4000, 4001)
    a.core.set_keys(ring(OTHER_ONE), net.now)
    net.run(5)
    assert (a.ports, b.ports) == ([], [])


def test_a_member_that_was_not_rotated_is_left_out_and_comes_back() -> None:
    """Until it gets the key as well."""
    net, (a, b, c) = group(4000, 4001, 4002)
    for side in (a, b):
        side.core.set_keys(ring(THREE), net.now)
    net.run(8)
    assert (a.ports, c.ports) == ([4001], [])
    c.core.set_keys(ring(THREE), net.now)
    net.run(3)
    assert (a.ports, b.ports, c.ports) == ([4001, 4002], [4000, 4002], [4000, 4001])


def test_a_key_cannot_be_set_where_there_was_none() -> None:
    """The others would not understand it until all have it: it takes a restart."""
    net = Net()
    a = net.add(4000, None)
    with pytest.raises(LocalProtocolError, match="started without a key"):
        a.core.set_keys(ring(ONE), 0.0)


# ---- plain peers -------------------------------------------------------------------------------


def with_plain_peers(*addresses: str) -> tuple[Net, list[Side]]:
    net = Net()
    config = ChannelConfig(plain_peers=addresses)
    sides = [net.add(port, ring(ONE), config=config) for port in (4000, 4001)]
    net.run(1.2)
    return net, sides


@pytest.mark.parametrize("listed", [PLAIN_HOST, "any"])
@pytest.mark.parametrize("own_link", [False, True])
def test_plain_peers_come_without_a_key(listed: str, own_link: bool) -> None:
    """A Tomcat, or a member without a key; it talks with all by the plain link."""
    net, (a, b) = with_plain_peers(listed)
    tomcat = net.add(4009, None, host=PLAIN_HOST, config=ChannelConfig(own_link=own_link))
    net.run(2.0)
    assert (a.ports, b.ports, tomcat.ports) == ([4001, 4009], [4000, 4009], [4000, 4001])
    tickets = [(a, a.send(tomcat, b"1")), (tomcat, tomcat.send(a, b"2")), (a, a.send(b, b"ours"))]
    net.run(0.5)
    assert [side.done[ticket] for side, ticket in tickets] == [{}, {}, {}]
    assert (a.delivered, b.delivered, tomcat.delivered) == ([b"2"], [b"ours"], [b"1"])
    assert b"ours" not in b"".join(b.read)
    net.stop(tomcat)
    net.run(0.5)
    assert (a.ports, b.ports) == ([4001], [4000])


def test_plain_peers_of_other_addresses_do_not() -> None:
    """By the address of the datagram and the socket, and by the one in the record."""
    net, (a, b) = with_plain_peers(PLAIN_HOST)
    stranger = net.add(4009, None)
    net.run(3)
    assert (a.ports, b.ports, stranger.ports) == ([4001], [4000], [])
    claims = encode_member(Member(bytes((10, 0, 0, 77)), 4010, b"c" * 16))
    net.datagram(claims, "10.0.0.8", a, b)
    other = encode_member(Member(bytes((10, 0, 0, 8)), 4010, b"c" * 16))
    net.datagram(other, PLAIN_HOST, a, b)
    net.run(1)
    assert a.core.protection is not None
    admission = a.core.protection.admission
    assert isinstance(admission, Admission)
    assert admission.statistics.unsigned >= 1
    assert admission.statistics.foreign == 1
    refused = net.connect("10.0.0.8", a, encode_data_frame(6, 0, bytes(16), claims, b"x"))
    foreign = net.connect(PLAIN_HOST, a, encode_data_frame(6, 0, bytes(16), other, b"x"))
    net.pump()
    assert (refused.is_open, foreign.is_open) == (False, False)
    assert a.delivered == []


def test_plain_peers_cannot_take_the_name_of_a_member_that_signs() -> None:
    """Neither in heartbeats and farewells, nor in frames; nor its address with another name."""
    net, (a, b) = with_plain_peers("any")
    member = b.core.local
    before = a.view.number
    thief = Member(member.host, member.port, b"t" * 16)
    for record in (member, member.replace(command=b"BABY-ALEX", alive=99_999), thief):
        net.datagram(encode_member(record), PLAIN_HOST, a)
        frame = encode_data_frame(6, 0, bytes(16), encode_member(record), b"forged")
        assert not _is_open(net, a, frame)
    net.run(5)
    assert a.delivered == []
    assert a.view.number == before
    assert a.ports == [4001]


def _is_open(net: Net, side: Side, data: bytes) -> bool:
    stranger = net.connect(PLAIN_HOST, side, data)
    net.pump()
    return stranger.is_open


def test_a_plain_peer_may_wait_with_its_connection() -> None:
    """Plain Tribes connects before it has something to say; its frames are answered."""
    net, (a, _) = with_plain_peers(PLAIN_HOST)
    stranger = net.connect(PLAIN_HOST, a)
    net.run(30)
    assert stranger.is_open
    record = encode_member(Member(bytes((10, 0, 0, 77)), 4010, b"c" * 16))
    stranger.write(encode_data_frame(2, 0, bytes(16), record, b"hello"))
    net.pump()
    assert stranger.answer == ACK_FRAME
    assert a.delivered == [b"hello"]


def test_a_member_first_heard_without_its_signature_is_served_by_its_key() -> None:
    """A record in its name, sent before its first heartbeat, does not keep its link plain."""
    net = Net()
    config = ChannelConfig(plain_peers=("any",))
    heard = False
    net.hear = lambda source, target, data: heard
    a, b = (net.add(port, ring(ONE), config=config) for port in (4000, 4001))
    net.datagram(encode_member(b.core.local), PLAIN_HOST, a)
    net.run(0.2)
    assert a.ports == [4001]
    heard = True
    net.run(1.2)
    assert a.ports == [4001]
    a.send(b, b"secret")
    net.run(0.2)
    assert b.delivered == [b"secret"]
    assert b"secret" not in b"".join(b.read)


def test_nothing_waits_for_ever_for_a_destination_that_does_not_prove_the_key() -> None:
    """It gets a HELLO and nothing else, and the sender is told when its time is over."""
    net, (a, _) = group(4000, 4001)
    nobody = net.add(4009, None)
    ticket = a.send(nobody, b"secret")
    net.run(10)
    assert isinstance(a.done[ticket][nobody.core.local], SendTimeoutError)
    assert nobody.delivered == []
