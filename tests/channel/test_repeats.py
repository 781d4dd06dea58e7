"""Whoever is rejected again and again is told of once in a while, and counted each time."""

from __future__ import annotations

from tribes.channel.outputs import LinkRejected
from tribes.channel.repeats import KINDS_MAX, TOLD_EVERY_S, Repeats

WHY = "without a key, and plain_peers does not list its address"


def test_the_same_of_one_host_is_told_once_per_interval_with_the_number_held_back() -> None:
    """Each connection comes from another port; that makes it no other peer."""
    repeats = Repeats()
    told = [
        (i / 2, event)
        for i in range(61)
        if (event := repeats.told(LinkRejected(("10.0.0.1", 40000 + i), WHY), i / 2)) is not None
    ]
    assert [when for when, _ in told] == [0.0, TOLD_EVERY_S, 2 * TOLD_EVERY_S, 3 * TOLD_EVERY_S]
    assert [event.repeats for _, event in told] == [0, 19, 19, 19]
    assert told[1][1].fields()["repeats"] == 19
    assert "repeats" not in told[0][1].fields()
    assert (repeats.seen, repeats.held) == (61, 57)


def test_other_hosts_and_other_reasons_are_told_at_once() -> None:
    """What differs in its details only is the same reason."""
    repeats = Repeats()
    assert repeats.told(LinkRejected(("10.0.0.1", 1), WHY), 0.0)
    assert repeats.told(LinkRejected(("10.0.0.2", 1), WHY), 0.0)
    assert repeats.told(LinkRejected(("10.0.0.1", 1), "no frame: it starts with 00"), 0.0)
    assert not repeats.told(LinkRejected(("10.0.0.1", 1), "no frame: it starts with ff"), 0.0)


def test_what_is_remembered_is_bounded() -> None:
    """A flood from many addresses pushes out the oldest, which may be told again."""
    repeats = Repeats()
    for i in range(KINDS_MAX + 1):
        assert repeats.told(LinkRejected((f"host {i}", 1), WHY), 0.0)
    assert repeats.told(LinkRejected(("host 0", 1), WHY), 1.0)
    assert not repeats.told(LinkRejected((f"host {KINDS_MAX}", 1), WHY), 1.0)
