"""Members that never hear each other's heartbeats find out on a connection that both are ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.channel.keyed_net import ONE, TWO, Net, Side, ring
from tribes.channel.acquaintances import INTRODUCED_MAX
from tribes.config.model import ChannelConfig, SenderConfig
from tribes.links.introduction import introduce, introduction_of
from tribes.links.own_sender import OwnSender
from tribes.security.mark import IN_FIRST_FRAME, IN_HEARTBEAT, Marker, Verdict, verify
from tribes.wire.data import decode_body, destination_of, encode_data_frame
from tribes.wire.member import Member, encode_member

if TYPE_CHECKING:
    from tribes.security.keys import KeyRing

HOST_A, HOST_B = "10.0.0.1", "10.0.0.2"


def deaf() -> Net:
    """No heartbeat arrives anywhere."""
    net = Net()
    net.hear = lambda source, target, data: False
    return net


def tell(net: Net, who: Side, about: Side) -> None:
    """As a static configuration does: a record without a mark."""
    net.datagram(encode_member(about.core.local), about.host, who)


def speaks_own(who: Side, to: Side) -> bool:
    return isinstance(who.core.senders._senders.get(to.core.local), OwnSender)


def pair(
    keys: KeyRing | None = None, config: ChannelConfig | None = None
) -> tuple[Net, Side, Side]:
    net = deaf()
    a = net.add(4001, keys, host=HOST_A, config=config)
    b = net.add(4002, keys, host=HOST_B, config=config)
    return net, a, b


def test_static_members_speak_the_own_link_from_the_start() -> None:
    """Each has tested the other before it took it for a member, and so shown its mark."""
    net, a, b = pair()
    tell(net, a, b)
    tell(net, b, a)
    net.run(0.5)
    assert (a.ports, b.ports) == ([4002], [4001])
    a.send(b, b"x")
    b.send(a, b"y")
    net.run(0.1)
    assert (a.delivered, b.delivered) == ([b"y"], [b"x"])
    assert speaks_own(a, b)
    assert speaks_own(b, a)


def test_a_link_that_began_as_a_plain_one_goes_over_when_the_member_shows_up() -> None:
    """What was sent before arrives before what is sent after, whatever the options."""
    net, a, b = pair()
    tell(net, a, b)
    net.run(0.5)
    assert a.ports == [4002]
    assert b.ports == []
    sent = []
    for i in range(40):
        sent.append(b"%d" % i)
        a.send(b, sent[-1], (0, 2, 6, 8, 10)[i % 5])
        assert i > 20 or not speaks_own(a, b)
        if i == 20:
            # The other direction is an own link at once: the test has shown who asks.
            b.send(a, b"hello")
            net.pump()
    net.run(1.0)
    assert speaks_own(b, a)
    assert speaks_own(a, b)
    assert b.delivered == sent
    assert a.delivered == [b"hello"]


def test_what_was_sent_to_a_member_before_it_showed_up_arrives_first() -> None:
    """Nobody waits for an acknowledgement of it, so only its connection says how far it has come
    (found by the simulator: seed 830497, a throttled network).
    """
    net, a, b = pair()
    a.send(b, b"first try", 0)
    net.pump()
    link = net.hold(a)
    a.send(b, b"1", 0)
    net.pump()
    net.hear = lambda source, target, data: target is a
    net.run(2.0)
    assert a.ports == [4002]
    a.send(b, b"2", 2)
    net.run(0.1)
    net.release(a, link)
    net.run(1.0)
    assert b.delivered == [b"first try", b"1", b"2"]
    assert speaks_own(a, b)


def test_several_plain_connections_give_way_to_one_own_link() -> None:
    """``pool_size`` is for plain members."""
    net, a, b = pair(config=ChannelConfig(sender=SenderConfig(pool_size=3)))
    tell(net, a, b)
    net.run(0.5)
    for number in range(6):
        a.send(b, b"%d" % number, 6)
    b.send(a, b"hello")
    net.run(0.5)
    assert sorted(b.delivered) == [b"%d" % number for number in range(6)]
    net.run(1.5)
    assert speaks_own(a, b)


def test_who_does_not_speak_it_is_left_alone() -> None:
    """It shows no mark, and does not look for one."""
    net = deaf()
    a = net.add(4001, None, host=HOST_A)
    plain = net.add(4002, None, host=HOST_B, config=ChannelConfig(own_link=False))
    for who, about in ((a, plain), (plain, a)):
        tell(net, who, about)
    net.run(0.5)
    a.send(plain, b"x")
    plain.send(a, b"y")
    net.run(1.0)
    assert (a.delivered, plain.delivered) == ([b"y"], [b"x"])
    assert not speaks_own(a, plain)
    assert not speaks_own(plain, a)


def test_who_has_a_key_is_a_plain_member_to_who_has_none() -> None:
    """A signed mark says that its sender speaks the own link with those who have the key."""
    net = deaf()
    a = net.add(4001, None, host=HOST_A)
    b = net.add(4002, ring(ONE), host=HOST_B, config=ChannelConfig(plain_peers=(HOST_A,)))
    tell(net, a, b)
    tell(net, b, a)
    net.run(0.5)
    b.send(a, b"y")
    a.send(b, b"x")
    net.run(1.0)
    assert (a.delivered, b.delivered) == ([b"y"], [b"x"])
    assert not speaks_own(a, b)


def keyed_pair() -> tuple[Net, Side, Side]:
    """Both have the key, and each takes the other's address for one of plain members."""
    net, a, b = pair(ring(ONE), ChannelConfig(plain_peers=(HOST_A, HOST_B)))
    tell(net, a, b)
    net.run(1.0)
    return net, a, b


def test_with_a_key_the_mark_leads_to_a_proof() -> None:
    """Also where an address is listed as one of plain peers; then all is sealed."""
    net, a, b = keyed_pair()
    net.run(4.0)
    a.send(b, b"secret", 6)
    b.send(a, b"secret too", 6)
    a.read.clear()
    b.read.clear()
    net.run(1.0)
    assert (a.ports, b.ports) == ([4002], [4001])
    assert (a.delivered, b.delivered) == ([b"secret too"], [b"secret"])
    assert speaks_own(a, b)
    assert speaks_own(b, a)
    for side, other in ((a, b), (b, a)):
        assert side.core.protection is not None
        assert not side.core.protection.admission.is_plain(other.core.local)
        assert b"secret" not in b"".join(side.read)


def first_frame(a: Side, b: Side, marker: Marker) -> bytes:
    record = encode_member(a.core.local)
    return introduce(
        encode_data_frame(3, 0, bytes(16), record, b"m"), b.core.local.unique_id, marker
    )


def questions(side: Side) -> int:
    assert side.core.protection is not None
    return side.core.protection.challenges.asked


@pytest.mark.parametrize(
    ("keys", "asked"),
    [(ring(ONE), True), (ring(TWO), False), (None, False)],
    ids=["ours", "other", "none"],
)
def test_only_a_mark_of_the_group_is_a_reason_to_ask(keys: KeyRing | None, asked: bool) -> None:
    """And whoever was there before is not there any more: a proof is what counts."""
    net, a, b = pair(ring(ONE), ChannelConfig(plain_peers=("any",)))
    before = questions(b)
    data = first_frame(a, b, Marker(77, keys=keys))
    net.kill(a)
    net.connect(HOST_A, b, data)
    net.run(5.0)
    assert (questions(b) > before) == asked
    assert b.ports == []
    # Once more, as somebody who has recorded it would.
    net.connect(HOST_A, b, data)
    net.run(5.0)
    assert b.ports == []


def test_the_mark_covers_the_whole_frame_and_its_destination() -> None:
    """Another message, another destination or another place, and it proves nothing."""
    keys = ring(ONE)
    record = encode_member(Member(host=b"\x7f\0\0\1", port=4000, unique_id=bytes(16)))
    frame = encode_data_frame(3, 0, bytes(16), record, b"message")
    made = introduce(frame, bytes(range(16)), Marker(5, keys=keys))[11:-7]
    data = decode_body(made)
    assert data.message == b"message"
    assert destination_of(data.trailer) == bytes(range(16))
    introduction = introduction_of(data, made)
    assert introduction is not None
    covered, mark = introduction
    assert verify(covered, mark, keys, place=IN_FIRST_FRAME) is Verdict.VALID
    assert verify(covered, mark, keys, place=IN_HEARTBEAT) is Verdict.FORGED
    assert covered == made[: len(covered)]
    assert len(covered) == len(made) - 41
    for at in (0, len(covered) - 1, covered.index(b"message")):
        changed = bytearray(covered)
        changed[at] ^= 1
        assert verify(bytes(changed), mark, keys, place=IN_FIRST_FRAME) is Verdict.FORGED


def test_what_is_remembered_of_strangers_is_bounded() -> None:
    """A flood of marks in made-up names."""
    net, a, b = pair()
    record = b.core.local
    for i in range(INTRODUCED_MAX + 5):
        stranger = record.replace(unique_id=i.to_bytes(16, "big"), host=b"\x0a\0\0\x09")
        frame = encode_data_frame(1, 0, i.to_bytes(16, "big"), encode_member(stranger), b"m")
        link = net.connect("10.0.0.9", a, introduce(frame, a.core.local.unique_id, Marker(1)))
        link.close()
        net.run(0.01)
    assert len(a.core._acquaintances) == INTRODUCED_MAX
