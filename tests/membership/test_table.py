"""The membership table follows tribes-wire §6.1, without its defects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tribes.membership.change import ChangeKind, MemberChange, RemovalReason
from tribes.membership.table import MembershipTable
from tribes.wire.member import SHUTDOWN_COMMAND, Member

if TYPE_CHECKING:
    import pytest


def member(port: int, uid: int = 1, **fields: object) -> Member:
    return Member(host=b"\x7f\x00\x00\x01", port=port, unique_id=bytes([uid]) * 16, **fields)  # type: ignore[arg-type]


LOCAL = member(4000)


def table() -> MembershipTable:
    return MembershipTable(LOCAL, drop_time=3.0)


def test_first_heartbeat_adds_and_the_own_one_is_ignored() -> None:
    """A new record is reported once; records equal to the local member never are."""
    members = table()
    assert members.next_expiry is None
    assert members.heard(LOCAL, 0.0) == []
    assert members.met(LOCAL, 0.0) == []
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


def test_how_many_are_known_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many names somebody makes up; who is known stays."""
    monkeypatch.setattr("tribes.membership.table.MEMBERS_MAX", 2)
    members = table()
    one, two, three = (member(4000 + n, uid=n + 1, alive=n) for n in (1, 2, 3))
    for each in (one, two, three):
        members.heard(each, 0.0)
    assert members.met(three, 0.1) == []
    assert members.members() == [two, one], "the longest-lived first"
    assert members.refused == 2
    members.forget(three)
    members.forget(one)
    assert members.heard(three, 0.2) == [MemberChange(ChangeKind.ADDED, three)]


def test_a_member_that_was_met_is_kept_by_its_answers() -> None:
    """It becomes silent when neither an answer nor a heartbeat came; one that was only heard when
    no heartbeat came, whatever it answers.
    """
    answers: dict[Member, float] = {}
    members = MembershipTable(LOCAL, 3.0, answered=answers.get)
    met, heard = member(4001), member(4002, uid=2)
    assert members.met(met, 0.0) == [MemberChange(ChangeKind.ADDED, met)]
    members.heard(heard, 0.0)
    answers[met] = answers[heard] = 2.5
    assert members.expire(3.1) == [MemberChange(ChangeKind.REMOVED, heard, RemovalReason.SILENT)]
    assert members.next_expiry == 5.5
    assert members.expire(5.6) == [MemberChange(ChangeKind.REMOVED, met, RemovalReason.SILENT)]


def test_a_member_known_by_two_services_is_one() -> None:
    """Heard and met, in either order: one report, and any sign of life counts."""
    answers: dict[Member, float] = {}
    members = MembershipTable(LOCAL, 3.0, answered=answers.get)
    both = member(4001, alive=1)
    members.heard(both, 0.0, is_marked=True)
    assert members.met(both.replace(alive=2), 0.1) == []
    assert len(members) == 1
    assert members.is_kept(both)
    assert members.is_heard(both, 3.0)
    assert not members.is_heard(both, 3.1)
    answers[both] = 10.0
    assert members.expire(12.0) == []
    members.heard(both.replace(alive=3), 20.0)
    assert members.expire(22.0) == []


def test_the_domain_of_a_member_of_ours_follows_its_record() -> None:
    """Of others the first one heard is kept, as Tomcat does."""
    for is_marked, expected in ((True, b"new"), (False, b"old")):
        members = table()
        members.heard(member(4001, alive=1, domain=b"old"), 0.0, is_marked=is_marked)
        changes = members.heard(member(4001, alive=2, domain=b"new"), 0.1, is_marked=is_marked)
        assert members.members()[0].domain == expected
        assert [change.kind for change in changes] == [ChangeKind.UPDATED] * is_marked


def test_plain_members_are_counted_while_they_are_there() -> None:
    """By that the guests know that they are guests."""
    members = table()
    members.heard(member(4001), 0.0)
    members.heard(member(4002, uid=2), 0.0, is_marked=True)
    members.met(member(4003, uid=3), 0.0, is_marked=False)
    assert members.plain_count == 2
    members.met(member(4003, uid=3, alive=5), 0.0)
    assert members.plain_count == 1
    members.forget(member(4001))
    assert members.plain_count == 0
    members.expire(10.0)
    assert (members.plain_count, members.kept_count, len(members)) == (0, 0, 0)
