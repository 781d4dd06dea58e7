"""Heartbeats: one per frequency, a farewell at the end, junk without effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tribes.config.model import MembershipConfig
from tribes.membership.change import ChangeKind, MemberChange, RemovalReason
from tribes.membership.multicast import MulticastMembership
from tribes.security.mark import Marker, split
from tribes.timers import Timers
from tribes.wire.member import SHUTDOWN_COMMAND, Member, decode_member, encode_member

if TYPE_CHECKING:
    from tribes.wire.outputs import Datagram


def member(port: int, **fields: object) -> Member:
    return Member(
        host=b"\x7f\x00\x00\x01",
        port=port,
        unique_id=bytes([port % 251]) * 16,
        **fields,  # type: ignore[arg-type]
    )


class Service:
    """A membership service with everything it says."""

    def __init__(self) -> None:
        self.timers = Timers()
        self.sent: list[Datagram] = []
        self.changes: list[MemberChange] = []
        self.heard: list[Member] = []
        self.service = MulticastMembership(
            member(4000, payload=b"me"),
            MembershipConfig(),
            marker=Marker(7),
            timers=self.timers,
            emit=self.sent.append,
            changed=lambda change, now: self.changes.append(change),
            heard=lambda member, now: self.heard.append(member),
        )

    def run_until(self, end: float) -> None:
        while self.timers.next_deadline <= end:
            self.timers.run_due(self.timers.next_deadline)


def test_heartbeat_at_once_and_then_every_frequency() -> None:
    """The first record leaves at start; each later one carries the time since then."""
    it = Service()
    it.service.start(100.0)
    it.run_until(101.6)
    records = [decode_member(datagram.data) for datagram in it.sent]
    marks = [split(datagram.data)[1] for datagram in it.sent]
    assert [mark.counter for mark in marks if mark is not None] == [1, 2, 3, 4]
    assert [record.alive for record in records] == [0, 500, 1000, 1500]
    assert {record.payload for record in records} == {b"me"}


def test_farewell_is_sent_once_and_heartbeats_end() -> None:
    """Stopping sends one record with the shutdown command and nothing after it."""
    it = Service()
    it.service.start(0.0)
    it.service.stop(0.7)
    it.service.stop(0.8)
    it.run_until(10.0)
    last = decode_member(it.sent[-1].data)
    assert last.is_shutdown
    assert last.alive == 700
    assert [decode_member(d.data).is_shutdown for d in it.sent] == [False, True]


def test_silent_member_is_reported_after_drop_time() -> None:
    """Without heartbeats a member is reported silent between 3.0 and 3.1 s after the last."""
    it = Service()
    it.service.start(0.0)
    other = member(4001)
    it.service.datagram(encode_member(other), 1.0)
    it.service.datagram(encode_member(other.replace(alive=9)), 2.0)
    it.run_until(5.0)
    assert [change.kind for change in it.changes] == [ChangeKind.ADDED]
    it.run_until(5.1)
    assert it.changes[-1] == MemberChange(ChangeKind.REMOVED, other, RemovalReason.SILENT)


def test_junk_datagrams_are_counted_and_change_nothing() -> None:
    """Neither foreign nor malformed datagrams reach the membership."""
    it = Service()
    it.service.start(0.0)
    record = encode_member(member(4001))
    it.service.datagram(b"hello", 0.1)
    it.service.datagram(record[:-1], 0.1)
    it.service.datagram(record[:20] + b"\xff" * 30, 0.1)
    assert it.changes == []
    statistics = it.service.statistics
    assert (statistics.ignored, statistics.malformed, statistics.heartbeats_received) == (1, 2, 0)


def test_a_change_and_its_return_are_both_reported() -> None:
    """The short way for usual heartbeats compares with what was heard last, not with an older one.

    A record with another domain is not taken over whole, so what was heard before it is not what
    is known after it.
    """
    it = Service()
    it.service.start(0.0)

    def hear(alive: int, **fields: object) -> None:
        it.service.datagram(encode_member(member(4001, alive=alive, **fields)), alive / 1000)

    hear(500, payload=b"old")
    hear(1000, payload=b"old")
    hear(1500, payload=b"new", domain=b"other")
    hear(2000, payload=b"old")
    hear(2500, payload=b"old")
    told = [(change.kind, change.member.payload) for change in it.changes]
    assert told == [
        (ChangeKind.ADDED, b"old"),
        (ChangeKind.UPDATED, b"new"),
        (ChangeKind.UPDATED, b"old"),
    ]
    assert it.service.statistics.heartbeats_received == len(it.heard) == 5


def test_a_usual_heartbeat_keeps_its_member_and_a_farewell_ends_it() -> None:
    """Also the short way counts as a sign of life, and takes the new alive time over."""
    it = Service()
    it.service.start(0.0)
    for alive in range(500, 9000, 500):
        it.run_until(alive / 1000)
        it.service.datagram(encode_member(member(4001, alive=alive)), alive / 1000)
    assert [change.kind for change in it.changes] == [ChangeKind.ADDED]
    assert [known.alive for known in it.service.table.members()] == [8500]
    farewell = member(4001, alive=9000, command=SHUTDOWN_COMMAND)
    it.service.datagram(encode_member(farewell), 9.0)
    assert it.changes[1:] == [MemberChange(ChangeKind.REMOVED, member(4001), RemovalReason.LEFT)]
