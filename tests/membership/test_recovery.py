"""When multicast counts as broken."""

from __future__ import annotations

from tribes.membership.recovery import MulticastHealth


def test_errors_in_a_row_break_it_and_success_ends_the_row() -> None:
    """One that is sent between them shows that the socket works."""
    health = MulticastHealth(3, 5.0)
    for _ in range(2):
        health.failed()
    assert not health.is_broken(0)
    health.sent(0)
    health.heard()
    health.failed()
    health.failed()
    assert not health.is_broken(1)
    health.failed()
    assert health.is_broken(1)
    health.opened()
    assert not health.is_broken(1)


def test_who_sends_and_hears_nothing_is_deaf() -> None:
    """Its own heartbeats would be heard: the kernel has forgotten that it joined the group."""
    health = MulticastHealth(10, 5.0)
    assert not health.is_broken(100)
    for now in (100, 102, 104):
        health.sent(now)
        assert not health.is_broken(now)
    health.heard()
    health.sent(105)
    assert not health.is_broken(109)
    health.sent(110)
    assert health.is_broken(110)
