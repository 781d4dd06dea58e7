"""The membership table follows tribes-wire §6.1, without its defects."""

from __future__ import annotations

from tribes.membership.change import ChangeKind, MemberChange, RemovalReason
from tribes.membership.table import MembershipTable
from tribes.wire.member import SHUTDOWN_COMMAND, Member


def member(port: int, uid: int = 1, **fields: object) -> Member:
    return Member(host=b"\x7f\x00\x00\x01", port=port, unique_id=bytes([uid]) * 16, **fields)  # type: ignore[arg-type]


LOCAL = member(4000)


def table() -> MembershipTable:
    return MembershipTable(LOCAL, drop_time=3.0)


def test_first_heartbeat_adds_and_the_own_one_is_ignored() -> None:
    """A new record is reported once; records equal to the local member never are."""
    members = table()
    assert members.heard(LOCAL, 0.0) == []
    other = member(4001, alive=10)
    assert members.heard(other, 0.0) == [MemberChange(ChangeKind.ADDED, other)]
    assert members.heard(member(4001, alive=20), 0.5) == []
    assert members.members() == [other]
    assert members.members()[0].alive == 20


def test_payload_follows_later_heartbeats_but_domain_and_ports_do_not() -> None:
    """Payload and command are replaced when the alive time differs; domain and ports never."""
    members = table()
    members.heard(member(4001, alive=1, payload=b"a", domain=b"d"), 0.0)
    same_alive = member(4001, alive=1, payload=b"b")
    assert members.heard(same_alive, 0.1) == []
    changes = members.heard(member(4001, alive=2, payload=b"c", domain=b"e", udp_port=9), 0.2)
    assert [change.kind for change in changes] == [ChangeKind.UPDATED]
    known = members.members()[0]
    assert (known.payload, known.domain, known.udp_port) == (b"c", b"d", -1)


def test_silence_longer_than_drop_time_is_reported_once() -> None:
    """A member not heard for more than drop_time is removed as silent; the limit is in time."""
    members = table()
    other = member(4001)
    members.heard(other, 0.0)
    assert members.expire(3.0) == []
    assert members.expire(3.01) == [MemberChange(ChangeKind.REMOVED, other, RemovalReason.SILENT)]
    assert members.expire(9.0) == []


def test_farewell_counts_only_for_known_members() -> None:
    """The shutdown record removes a member that was known, and reports nothing otherwise."""
    members = table()
    other = member(4001)
    farewell = member(4001, command=SHUTDOWN_COMMAND, alive=99)
    assert members.heard(farewell, 0.0) == []
    members.heard(other, 0.0)
    assert members.heard(farewell, 0.1) == [
        MemberChange(ChangeKind.REMOVED, other, RemovalReason.LEFT)
    ]
    assert members.heard(member(4000, command=SHUTDOWN_COMMAND), 0.2) == []


def test_record_of_another_incarnation_on_the_same_port_removes_nobody() -> None:
    """It may be an old one that arrives late: whoever asks the two finds out which is there."""
    members = table()
    one, other = member(4001, uid=2), member(4001, uid=3)
    members.heard(one, 0.0)
    assert members.heard(other, 1.0) == [MemberChange(ChangeKind.ADDED, other)]
    assert set(members.members()) == {one, other}


def test_forgotten_member_is_new_again() -> None:
    """After forget nothing is reported until the next heartbeat, which adds the member."""
    members = table()
    other = member(4001)
    members.heard(other, 0.0)
    members.forget(other)
    assert len(members) == 0
    assert members.heard(other, 0.1) == [MemberChange(ChangeKind.ADDED, other)]
