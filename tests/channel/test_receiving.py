"""The way up: what is acknowledged when."""

from __future__ import annotations

from tests.channel.keyed_net import Net
from tests.channel.test_core import TWO, frame
from tribes.links.base import OutFrame


def test_own_link_acknowledges_as_soon_as_the_listener_is_done() -> None:
    """And not before: nothing else need arrive at that member, and no time pass."""
    net = Net()
    a, b = net.add(4000, None), net.add(4001, None)
    net.run(2)
    ticket = a.send(b, b"open")
    net.pump()
    assert a.done == {ticket: {}}
    b.busy = []
    ticket = a.send(b, b"hello")
    net.pump()
    assert ticket not in a.done
    [token] = b.busy
    b.core.delivered(token, None, net.now)
    net.pump()
    assert a.done[ticket] == {}


def test_frames_behind_a_refused_one_are_not_left_open() -> None:
    """The connection ends with the refused one, and nobody else will say what became of them."""
    net = Net()
    a, b = net.add(4000, None), net.add(4001, None)
    net.run(2)
    sender = a.core.senders.get(b.core.local, net.now)
    outcomes: list[tuple[int, str]] = []
    for number, source in enumerate((a.core.local, TWO, a.core.local, a.core.local)):
        sender.enqueue(
            OutFrame(
                frame(source, 6, b"%d" % number, number),
                needs_ack=True,
                settle=lambda error, now, n=number: outcomes.append((n, str(error))),  # type: ignore[misc]
            ),
            net.now,
        )
    net.pump()
    inbox = b.core._inboxes.get(a.core.local.unique_id)
    assert inbox is not None
    assert inbox.open_count == 0
    assert b.delivered == [b"0"]
    net.run(0.2)
    assert [(n, "another member's name" in why) for n, why in sorted(outcomes)] == [
        (0, False),
        (1, True),
        (2, True),
        (3, True),
    ]
    ticket = a.send(b, b"next")
    net.pump()
    assert a.done[ticket] == {}
