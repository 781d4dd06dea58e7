"""Views: immutable, numbered, the longest-lived member first."""

from __future__ import annotations

from tribes.membership.view import View, ViewBuilder
from tribes.wire.member import Member


def member(port: int, alive: int = 0, payload: bytes = b"") -> Member:
    return Member(
        host=b"\x7f\x00\x00\x01",
        port=port,
        unique_id=bytes([port % 251]) * 16,
        alive=alive,
        payload=payload,
    )


def test_members_stand_by_when_they_started_whenever_they_were_heard() -> None:
    """Alive times heard at different moments are compared as starting points."""
    views = ViewBuilder()
    views.add(member(4001, alive=10_000), now=100.0)
    views.add(member(4002, alive=10_500), now=101.0)
    views.add(member(4003, alive=20_000), now=101.0)
    assert [m.port for m in views.current.members] == [4003, 4001, 4002]


def test_number_grows_with_each_coming_and_going_only() -> None:
    """A refreshed record is no new view; a snapshot taken before never changes."""
    views = ViewBuilder()
    empty = views.current
    assert views.add(member(4001), now=0.0)
    assert not views.add(member(4001, payload=b"new"), now=1.0)
    assert views.current.number == 1
    assert views.current.members[0].payload == b"new"
    assert views.get(member(4001)) == member(4001)
    assert views.remove(member(4001))
    assert not views.remove(member(4001))
    assert views.current.number == 2
    assert empty == View(0, ())
    assert member(4001) not in views.current
