"""What somebody without the key can send changes nothing, however much of it there is.

``TRIBES_FORGERIES=1000000`` makes as many forgeries of each kind; 100,000 otherwise.
"""

from __future__ import annotations

import os
from random import Random

import pytest

from tests.channel.keyed_net import ONE, OTHER_ONE, TWO, Net, Side, ring
from tribes.channel.door import CONNECTIONS_AT_ONCE, SILENT_MAX
from tribes.config.model import ChannelConfig
from tribes.links.own_wire import HELLO_BODY_MAX_BYTES, OwnSide, encode_hello
from tribes.membership.admission import Admission
from tribes.security.mark import MARK_BYTES, Marker
from tribes.security.replay import Heard, ReplayGuard
from tribes.wire.data import encode_data_frame
from tribes.wire.frame import FRAME_START, encode_frame
from tribes.wire.member import SHUTDOWN_COMMAND, Member, decode_member, encode_member

FORGERIES = int(os.environ.get("TRIBES_FORGERIES", "100000"))
OUTSIDE = "10.0.0.66"


def group() -> tuple[Net, Side, Side]:
    net = Net()
    a, b = (net.add(port, ring(ONE)) for port in (4000, 4001))
    net.run(1.2)
    return net, a, b


def guard(side: Side) -> ReplayGuard:
    assert side.core.protection is not None
    assert isinstance(side.core.protection.admission, Admission)
    return side.core.protection.admission.guard


class State:
    """What must not change."""

    def __init__(self, side: Side) -> None:
        self.view = side.view.number
        self.members = side.view.members
        self.table = [(m, m.alive, m.payload) for m in side.core.membership.table.members()]
        self.delivered = list(side.delivered)
        self.links = set(side.core.accepted.receivers)
        self.asked = side.core.protection and side.core.protection.challenges.asked

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return repr(vars(self))


def test_forged_replayed_and_damaged_datagrams_change_nothing() -> None:
    """Not a bit of the view, the table, or what is asked of anybody."""
    net, a, b = group()
    random = Random(5)
    member = b.core.local
    dead = net.add(4005, ring(ONE))
    net.run(1.2)
    net.stop(dead)
    net.run(1.2)
    assert a.ports == [4001]
    recorded = [*b.sent, *dead.sent, *a.sent]
    leave = encode_member(member.replace(command=SHUTDOWN_COMMAND, alive=10**6))
    wrong = [
        Marker(random.getrandbits(64), keys=ring(key)) for key in (OTHER_ONE, TWO) for _ in range(3)
    ]
    for marker in wrong:
        marker.counter = 1 << 40
    before, fresh = State(a), guard(a).statistics[Heard.FRESH]
    datagram, now = a.core.datagram, net.now
    for number in range(FORGERIES):
        kind = number % 6
        if kind == 0:
            data = random.choice(recorded)
        elif kind == 1:
            flipped = bytearray(random.choice(recorded))
            bit = random.randrange(8 * len(flipped))
            flipped[bit >> 3] ^= 1 << (bit & 7)
            data = bytes(flipped)
        elif kind == 2:
            data = random.choice(wrong).mark(random.choice((leave, encode_member(member))))
        elif kind == 3:
            data = random.choice((leave, random.choice(recorded)[:-MARK_BYTES]))
        elif kind == 4:
            record, mark = random.choice(recorded)[:-MARK_BYTES], random.choice(recorded)
            data = record + mark[-MARK_BYTES:]
        else:
            port = random.randrange(1, 65536)
            made_up = Member(random.randbytes(4), port, random.randbytes(16))
            data = encode_member(made_up) + random.choice(recorded)[-MARK_BYTES:]
        datagram(data, (OUTSIDE, 1), now)
    assert State(a) == before
    assert guard(a).statistics[Heard.FRESH] == fresh
    net.run(5)
    assert a.ports == [4001]
    assert b.ports == [4000]
    assert a.view.number == before.view


def test_a_leave_that_is_sent_again_removes_nobody() -> None:
    """The member is back, with a new life; the leave of its old one is heard again and again."""
    net, a, b = group()
    net.stop(b)
    net.run(0.1)
    assert a.ports == []
    again = net.add(4001, ring(ONE), unique_id=b.core.local.unique_id)
    net.run(1.2)
    assert a.ports == [4001]
    number = a.view.number
    leave = b.sent[-1]
    assert decode_member(leave[:-MARK_BYTES]).is_shutdown
    for _ in range(20):
        net.datagram(leave, OUTSIDE, a)
        net.run(0.3)
    assert a.ports == [4001]
    assert a.view.number == number
    assert again.ports == [4000]


def test_heartbeats_of_a_dead_incarnation_bring_nobody_back() -> None:
    """Nor are they more than a connection for who has just started and knows of no death."""
    net, a, b = group()
    net.kill(b)
    net.run(1)
    assert a.ports == []
    new = net.add(4002, ring(ONE))
    net.run(2)
    for data in (*b.sent, *b.sent):
        net.datagram(data, OUTSIDE, a, new)
        net.run(0.2)
    assert (a.ports, new.ports) == ([4002], [4000])
    assert "member added" in new.events
    assert new.events.count("member added") == 1
    # Somebody with the key is there now, but not the one that was.
    heir = net.add(4001, ring(ONE))
    net.run(1)
    for data in (*b.sent, *b.sent):
        net.datagram(data, OUTSIDE, a, new)
        net.run(0.2)
    ids = [m.unique_id for m in a.view.members if m.port == 4001]
    assert ids == [heir.core.local.unique_id]


def test_heartbeats_held_back_keep_no_dead_member() -> None:
    """Fresh as they are, it is asked over its connection, where nobody answers for it."""
    net, a, b = group()
    held: list[bytes] = []

    def hold(source: Side, target: Side, data: bytes) -> bool:
        if source is b:
            held.append(data)
            return False
        return True

    net.hear = hold
    net.run(2.0)
    net.kill(b)
    net.run(0.5)
    for data in held:
        net.datagram(data, OUTSIDE, a)
        net.run(0.5)
    assert a.ports == []


def test_heartbeats_from_before_the_proof_are_worthless() -> None:
    """The member says with it how many it has sent; those that were held back come too late."""
    net = Net()
    net.hear = lambda source, target, data: False
    a, b = (net.add(port, ring(ONE)) for port in (4000, 4001))
    net.run(4)
    net.datagram(b.sent[1], OUTSIDE, a)
    net.run(0.1)
    assert a.ports == [4001]
    for data in b.sent[2:]:
        net.datagram(data, OUTSIDE, a)
    assert guard(a).statistics[Heard.FRESH] == 0
    assert guard(a).statistics[Heard.LATE] == len(b.sent) - 3
    assert guard(a).statistics[Heard.REPLAYED] == 1
    net.run(0.5)
    net.datagram(b.sent[-1], b.host, a)
    assert guard(a).statistics[Heard.FRESH] == 1


def test_a_proof_of_another_life_is_none() -> None:
    """The same address and unique id, started again: its old heartbeats are not believed."""
    net = Net()
    net.hear = lambda source, target, data: False
    a, b = (net.add(port, ring(ONE)) for port in (4000, 4001))
    net.run(2)
    net.kill(b)
    again = net.add(4001, ring(ONE), unique_id=b.core.local.unique_id)
    for data in b.sent:
        net.datagram(data, OUTSIDE, a)
        net.run(0.1)
    assert a.ports == []
    assert a.core.protection is not None
    assert a.core.protection.admission.statistics.unproved == len(b.sent)
    net.datagram(again.sent[0], again.host, a)
    net.run(0.1)
    assert a.ports == [4001]


def test_forged_and_damaged_frames_change_nothing() -> None:
    """On new connections: plain frames, junk, HELLOs without the key, and what was recorded."""
    net, a, b = group()
    a.send(b, b"hello")
    b.send(a, b"hello")
    net.run(0.2)
    random = Random(6)
    record = encode_member(b.core.local)
    plain = encode_data_frame(6, 0, bytes(16), record, b"forged")
    hello = encode_hello(
        OwnSide(record, b.core.local.unique_id),
        incarnation=5,
        attempt=9,
        target=a.core.local.unique_id,
        nonce=bytes(16),
        key_id=1,
    )
    recorded = [b"".join(a.read), *a.read, plain, encode_frame(hello)]
    before = State(a)
    core = a.core
    for number in range(FORGERIES // 2):
        data = bytearray(random.choice(recorded))
        if number % 3 == 0:
            bit = random.randrange(8 * len(data))
            data[bit >> 3] ^= 1 << (bit & 7)
        elif number % 3 == 1:
            del data[random.randrange(len(data)) :]
            data += random.randbytes(random.randrange(40))
        # An address of its own for each, and time: not what bounds them is tested here.
        link, now = 10**6 + number, net.now + number / 1000
        core.link_opened(link, now, peer=(f"10.1.{number % 250}.9", 1))
        for part in (bytes(data[:70]), bytes(data[70:])):
            core.link_bytes(link, part, now)
        core.link_closed(link, None, now)
        if number % 64 == 0:
            core._outbox.outputs.clear()
    assert State(a) == before
    assert a.delivered == [b"hello"]
    assert len(core._inboxes) <= 1
    assert not core.accepted.door


def test_damaged_bytes_on_a_proven_link_cost_the_link_and_no_message() -> None:
    """Whoever can write into a connection breaks it; what was under way goes by the next one."""
    net, a, b = group()
    random = Random(7)
    sent = []
    for number in range(300):
        sent.append(b"message %d" % number)
        ticket = b.send(a, sent[-1])
        if number % 3 == 0:
            receivers = a.core.accepted.receivers
            [link] = [key for key, r in receivers.items() if b.core.local in r.sources]
            junk = random.randbytes(random.randrange(1, 300))
            # A length that would be waited for is believed, so what follows breaks it.
            a.core.link_bytes(link, b"\0\0\0\x20" + junk.ljust(40, b"x"), net.now)
            assert link not in receivers
        net.run(0.2)
        assert b.done[ticket] == {}
    assert a.delivered == sent
    assert "member removed" not in a.events
    assert "member removed" not in b.events


def test_a_member_cannot_send_in_the_name_of_another() -> None:
    """The record in a frame is that of the HELLO, or the link ends."""
    net, a, b = group()
    c = net.add(4002, ring(ONE))
    net.run(1.2)
    b.core._identity.record = encode_member(c.core.local)
    b.send(a, b"I am c")
    net.run(0.2)
    assert a.delivered == []
    assert a.core.accepted.rejected > 0


@pytest.mark.parametrize("what", ["recorded", "refusal", "junk", "nothing"])
def test_nobody_but_the_member_can_answer_for_it(what: str) -> None:
    """At a dead member's address somebody reads, and answers with what it likes."""
    net, a, b = group()
    answer = {
        "recorded": b"".join(a.answers),
        "refusal": encode_frame(b"TPY\x03\x04\x00"),
        "junk": b"junk" * 100,
        "nothing": b"",
    }[what]
    assert what != "recorded" or len(answer) > 200
    net.kill(b)
    net.impostors[b.host, b.port] = answer
    for number in range(10):
        net.datagram(b.sent[number % len(b.sent)], OUTSIDE, a)
        net.run(1)
    assert a.ports == []
    assert a.delivered == []


# ---- limits before anybody has said who it is --------------------------------------------------


def test_a_connection_that_says_nothing_is_closed_after_a_second() -> None:
    """With a key; and one that begins and does not go on, with or without."""
    net, a, _ = group()
    keyless = net.add(4010, None)
    silent, begun = net.connect(OUTSIDE, a), net.connect(OUTSIDE, a, FRAME_START)
    plain_silent = net.connect(OUTSIDE, keyless)
    plain_begun = net.connect(OUTSIDE, keyless, FRAME_START)
    net.run(0.9)
    strangers = (silent, begun, plain_silent, plain_begun)
    assert [each.is_open for each in strangers] == [True] * 4
    net.run(0.2)
    assert [each.is_open for each in strangers] == [False, False, True, False]
    assert (a.core.accepted.door.too_late, keyless.core.accepted.door.too_late) == (2, 1)


def test_silent_connections_are_bounded_and_the_oldest_goes() -> None:
    """Without a key, where a Tomcat may open one before it needs it."""
    net = Net()
    a = net.add(4000, None)
    strangers = [net.connect(OUTSIDE, a) for _ in range(SILENT_MAX + 10)]
    net.pump()
    assert [each.is_open for each in strangers[:12]] == [False] * 10 + [True] * 2
    assert all(each.is_open for each in strangers[12:])
    assert a.core.accepted.door.made_room == 10


def test_the_rate_of_connections_of_one_address_is_bounded() -> None:
    """Others are not held responsible."""
    net = Net()
    a = net.add(4000, None, config=ChannelConfig())
    for _ in range(int(CONNECTIONS_AT_ONCE)):
        net.connect(OUTSIDE, a).close()
    one_more, other = net.connect(OUTSIDE, a), net.connect("10.0.0.5", a)
    net.pump()
    assert (one_more.is_open, other.is_open) == (False, True)
    assert a.core.accepted.door.too_many == 1
    assert a.core.statistics.connections_refused == 1
    for _ in range(500):
        net.run(0.01)
        last = net.connect(OUTSIDE, a)
        net.pump()
        assert last.is_open
        last.close()


def test_the_first_frame_of_an_own_link_is_bounded() -> None:
    """Before it is waited for: nothing is collected of a stranger beyond it."""
    net, a, b = group()
    record = encode_member(b.core.local)
    side = OwnSide(record, b.core.local.unique_id)
    hello = encode_hello(
        side, incarnation=1, attempt=1, target=bytes(16), nonce=bytes(16), key_id=1
    )
    long = encode_frame(hello + bytes(HELLO_BODY_MAX_BYTES))
    stranger = net.connect(OUTSIDE, a, long[:200])
    net.pump()
    assert not stranger.is_open


@pytest.mark.parametrize("part", [1, 7, 20, 60])
def test_an_opening_in_pieces_is_one_opening(part: int) -> None:
    """However a HELLO is cut, it is recognised, and refused only for what it says."""
    net, a, b = group()
    side = OwnSide(encode_member(b.core.local), b.core.local.unique_id)
    hello = encode_frame(
        encode_hello(
            side,
            incarnation=1,
            attempt=1,
            target=a.core.local.unique_id,
            nonce=bytes(16),
            key_id=2,
        )
    )
    stranger = net.connect(OUTSIDE, a)
    for at in range(0, len(hello), part):
        stranger.write(hello[at : at + part])
    net.pump()
    assert b"key 2 is not known here" in stranger.answer
    assert not stranger.is_open
