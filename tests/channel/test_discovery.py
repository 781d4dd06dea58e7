"""Members that are met on connections: what is believed of whom, and what strangers can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.channel.keyed_net import ONE, OTHER_ONE, Net, Side, ring
from tribes.channel.exchange import PeerExchange
from tribes.config.model import ChannelConfig, MembershipConfig, StaticMemberConfig
from tribes.errors import RemoteProtocolError
from tribes.links.challenge import (
    About,
    Life,
    decode_introduction,
    encode_about,
    encode_introduction,
    encode_life,
)
from tribes.links.link_keys import LinkKeyring
from tribes.links.news import LEAVE_BODY, PEERS_MAX, decode_peers, encode_peers, encode_record
from tribes.links.own_opening import Opened, Opening
from tribes.links.own_wire import ANYBODY, FEATURE_NEWS, Control, OwnSide, Refusal
from tribes.timers import Timers
from tribes.wire.frame import encode_frame
from tribes.wire.member import Member, encode_member

if TYPE_CHECKING:
    from tribes.security.keys import KeyRing

KEYS = pytest.mark.parametrize("keys", [None, ring(ONE)], ids=["open", "keyed"])


def config(*ports: int) -> ChannelConfig:
    static = tuple(StaticMemberConfig(host=f"10.0.0.{port % 250}", port=port) for port in ports)
    return ChannelConfig(membership=MembershipConfig(multicast=False, static=static))


def member(port: int, uid: int = 1, **fields: object) -> Member:
    return Member(b"\x0a\0\0" + bytes([port % 250]), port, bytes([uid]) * 16, **fields)  # type: ignore[arg-type]


def trio_of(keys: KeyRing | None) -> tuple[Net, Side, Side, Side]:
    """Three members, the first named by the others, an hour old enough to be quiet."""
    net = Net()
    a, b, c = (net.add(port, keys, config=config(4001)) for port in (4001, 4002, 4003))
    net.run(2)
    return net, a, b, c


class Pretender:
    """Somebody who opens an own link to a member by hand."""

    def __init__(
        self,
        net: Net,
        side: Side,
        source: Member,
        *,
        target: bytes = b"",
        keys: KeyRing | None = None,
    ) -> None:
        own = OwnSide(encode_member(source), source.unique_id, features=FEATURE_NEWS)
        opening = Opening(
            own,
            target or side.core.local.unique_id,
            key=None if keys is None else LinkKeyring(keys).current,
            incarnation=int.from_bytes(net.random.randbytes(8), "big"),
            attempt=1,
            entropy=net.random.randbytes,
        )
        self._net = net
        self.stranger = net.connect(source.host_text, side)
        self.write(opening.hello)
        self.opened = opening.feed(self.stranger.answer)
        if isinstance(self.opened, Opened) and not target:
            self.write(self.opened.start)

    def write(self, data: bytes) -> None:
        self.stranger.write(data)
        self._net.pump()

    def tell(self, *bodies: bytes) -> None:
        self.write(b"".join(map(encode_frame, bodies)))


@KEYS
def test_who_is_asked_introduces_itself(keys: KeyRing | None) -> None:
    """All three know each other, by one name."""
    _, a, b, c = trio_of(keys)
    assert (a.ports, b.ports, c.ports) == ([4002, 4003], [4001, 4003], [4001, 4002])
    assert not any("rejected" in event for side in (a, b, c) for event in side.events)


@KEYS
def test_a_farewell_travels_on_the_links(keys: KeyRing | None) -> None:
    """Nobody need ask; and nobody looks for who left."""
    net, a, b, c = trio_of(keys)
    net.stop(b)
    assert (a.ports, c.ports) == ([4003], [4001])
    asked = a.core.discovery.seeker.statistics.tried
    net.run(60)
    assert a.core.discovery.seeker.statistics.tried == asked


def test_a_stranger_learns_nothing_of_a_group_with_a_key_and_changes_nothing() -> None:
    """It is told who listens at that address, which heartbeats say aloud, if it knows the number of
    the key; it is not asked in turn, and its hints are not read.
    """
    net, a, _, _ = trio_of(ring(ONE))
    before = a.core.discovery.seeker.statistics.tried, a.core.view
    pretender = Pretender(net, a, member(4009, uid=9))
    assert not isinstance(pretender.opened, Opened)
    Pretender(net, a, member(4009, uid=9), target=ANYBODY)
    net.run(40)
    assert (a.core.discovery.seeker.statistics.tried, a.core.view) == before


def test_another_groups_member_is_not_met() -> None:
    """With the same key number and another key: its introduction proves nothing."""
    net = Net()
    a = net.add(4001, ring(ONE), config=config(4002))
    b = net.add(4002, ring(OTHER_ONE), config=config(4001))
    net.run(30)
    assert (a.ports, b.ports) == ([], [])
    assert a.core.discovery.seeker.statistics.met == 0


def test_who_connects_is_asked_and_not_believed() -> None:
    """A link opened in the name of a member that is not there makes nobody a member."""
    net, a, _, _ = trio_of(None)
    Pretender(net, a, member(4009, uid=9))
    net.run(40)
    assert a.ports == [4002, 4003]
    assert a.core.discovery.seeker.addresses == []


def test_hints_make_nobody_a_member() -> None:
    """They are tried, within bounds, and forgotten."""
    net, a, _, _ = trio_of(None)
    pretender = Pretender(net, a, member(4009, uid=9))
    pretender.tell(encode_peers((f"10.9.0.{i}", 4000) for i in range(200)))
    net.run(0.1)
    assert len(a.core.discovery.seeker.addresses) > 150
    net.run(60)
    assert a.core.discovery.seeker.addresses == []
    assert a.ports == [4002, 4003]


def test_nobody_speaks_for_another() -> None:
    """A farewell and a record count for who opened the link only; a stranger's for nobody, even
    where a process answers that has not announced itself.
    """
    net, a, _, _ = trio_of(None)
    victim = a.core.view.members[0]
    stranger = member(4009, uid=9)
    mute = ChannelConfig(own_link=False, membership=MembershipConfig(multicast=False))
    net.add(4009, None, unique_id=stranger.unique_id, config=mute)
    one = Pretender(net, a, stranger)
    one.tell(LEAVE_BODY)
    assert one.stranger.is_open
    one.tell(encode_record(encode_member(victim.replace(payload=b"other", alive=99_999))))
    assert not one.stranger.is_open
    two = Pretender(net, a, stranger)
    two.tell(encode_record(encode_member(stranger)))
    net.run(5)
    assert a.ports == [4002, 4003]
    assert a.core.view.members[0].payload == victim.payload


def test_news_that_break_the_rules_cost_the_connection() -> None:
    """Too many at once, malformed ones, and going on where one only asked who is there."""
    net, a, _, _ = trio_of(None)
    for bodies in (
        [encode_peers([])] * 17,
        [b"TPY\x10\0"],
        [b"TPY\x10\xff\xff"],
        [b"TPY\x12TRIBES"],
        [b"TPY\x13"],
    ):
        pretender = Pretender(net, a, member(4009, uid=9))
        assert pretender.stranger.is_open
        pretender.tell(*bodies)
        assert not pretender.stranger.is_open
    asker = Pretender(net, a, member(4009, uid=9), target=ANYBODY)
    assert isinstance(asker.opened, Opened)
    asker.write(asker.opened.start)
    assert not asker.stranger.is_open
    assert a.ports == [4002, 4003]


def test_an_introduction_is_read_whole_or_not_at_all() -> None:
    """Cut anywhere it is an error; what follows it is ignored, for later versions."""
    record = member(4001, payload=b"p" * 9)
    tail = encode_introduction(encode_life(Life(5, 6)), encode_member(record))
    met = decode_introduction(tail + b"later")
    assert (met.life[:2], met.record) == ((5, 6), record)
    assert met.record.payload == record.payload
    assert decode_introduction(encode_introduction(b"", encode_member(record))).life[:2] == (0, 0)
    for end in range(len(tail)):
        with pytest.raises(RemoteProtocolError):
            decode_introduction(tail[:end])


def test_an_introduction_may_end_with_clock_and_version() -> None:
    """Members of earlier releases leave it out; what is cut short is an error."""
    record = encode_member(member(4001))
    about = About(1_700_000_000_123, "0.1.0")
    for life in (b"", encode_life(Life(5, 6)), encode_life(Life(5, 6, record))):
        tail = encode_introduction(life, record, encode_about(about))
        assert decode_introduction(tail + b"later").about == about
        assert decode_introduction(encode_introduction(life, record)).about is None
        with pytest.raises(RemoteProtocolError):
            decode_introduction(tail[:-1])


@KEYS
def test_who_asks_is_told_the_clock_of_a_member(keys: KeyRing | None) -> None:
    """With a key it is proved like the rest, and told to nobody who has none."""
    net, a, *_ = trio_of(keys)
    if keys is not None:
        stranger = Pretender(net, a, member(4009, uid=9), target=ANYBODY)
        assert isinstance(stranger.opened, Refusal)
    asker = Pretender(net, a, member(4009, uid=9), target=ANYBODY, keys=keys)
    assert isinstance(asker.opened, Opened)
    told = decode_introduction(asker.opened.tail).about
    assert told == About(a.core._identity.wall_ms(), "")


# ---- the exchange alone --------------------------------------------------------------------------


class Talk:
    """An exchange with what it says and hears."""

    def __init__(self, *members: Member, heard: tuple[Member, ...] = ()) -> None:
        self.members = members
        self.timers = Timers()
        self.told: list[tuple[float, Member, list[int]]] = []
        self.hints: list[int] = []
        self.is_open = True
        self.exchange = PeerExchange(
            member(4000),
            timers=self.timers,
            members=lambda: self.members,
            is_heard=lambda each, now: each in heard,
            tell=self._tell,
            hint=lambda address, now: self.hints.append(address[1]),
        )

    def _tell(self, to: Member, body: bytes, now: float) -> bool:
        if self.is_open:
            self.told.append((now, to, sorted(port for _, port in decode_peers(body))))
        return self.is_open

    def run(self, until: float) -> None:
        while (when := self.timers.next_deadline) <= until:
            self.timers.run_due(when)


ALL = tuple(member(port) for port in (4001, 4002, 4003))


def test_a_new_member_is_told_of_all_others_once_its_link_is_open() -> None:
    """And not of itself."""
    talk = Talk(*ALL)
    talk.is_open = False
    talk.exchange.joined(ALL[0], 0.0)
    talk.run(3.0)
    talk.is_open = True
    talk.run(4.0)
    assert [(to.port, ports) for _, to, ports in talk.told] == [(4001, [4002, 4003])]


def test_members_that_hear_multicast_are_told_of_the_others_only() -> None:
    """What they hear themselves they need not be told."""
    talk = Talk(*ALL, heard=ALL[:2])
    for each in ALL:
        talk.exchange.joined(each, 0.0)
    talk.run(1.0)
    assert [(to.port, ports) for _, to, ports in talk.told] == [
        (4001, [4003]),
        (4002, [4003]),
        (4003, [4001, 4002]),
    ]
    quiet = Talk(*ALL, heard=ALL)
    quiet.exchange.joined(ALL[0], 0.0)
    quiet.run(100.0)
    assert quiet.told == []


def test_all_are_told_again_in_turn() -> None:
    """One per ten seconds, whoever comes next."""
    talk = Talk(*ALL)
    talk.exchange.joined(ALL[0], 0.0)
    talk.run(45.0)
    assert [(round(now), to.port) for now, to, _ in talk.told] == [
        (0, 4001),
        (10, 4001),
        (20, 4002),
        (30, 4003),
        (40, 4001),
    ]


def test_in_a_large_group_everybody_tells_other_successors() -> None:
    """As many as fit; from the own place in the ring on."""
    crowd = tuple(Member(b"\x0a\0\0\0", port, bytes(16)) for port in range(3700, 4300))
    talk = Talk(*crowd)
    talk.exchange.joined(crowd[0], 0.0)
    talk.run(1.0)
    # The own address, 10.0.0.0:4000 but for its id, comes behind the other one of that port.
    assert talk.told[0][2] == list(range(4001, 4001 + PEERS_MAX))


def test_who_tells_too_often_is_not_read() -> None:
    """A few per second are; the rest is counted."""
    talk = Talk(*ALL)
    body = encode_peers([("10.0.0.1", 4009)])
    for i in range(50):
        talk.exchange.received(ALL[0], body, i / 100)
    assert talk.exchange.taken == len(talk.hints) == 3
    assert talk.exchange.too_often == 47
    assert body[3] == Control.PEERS
