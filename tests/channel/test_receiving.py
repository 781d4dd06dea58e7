"""The way up: what is acknowledged when."""

from __future__ import annotations

from tests.channel.keyed_net import Net


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
