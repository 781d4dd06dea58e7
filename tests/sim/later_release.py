"""Nodes of a later release, for groups in which both run: they say and store more than this one.

Their messages have more fields, some are of a kind that this release does not have, and their
sessions hold a namespace and merge kinds that it does not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tribes.channel.chain import Interceptor, SendNext
from tribes.channel.tickets import Outgoing
from tribes.manager.dots import Dots, dots_of, encode_dots
from tribes.manager.inbox import Commit
from tribes.manager.merge import merge
from tribes.manager.messages import MAGIC
from tribes.manager.record import WHOLE, Entry, header, pack_delta, parse, to_wire
from tribes.runtime.stacks import default_interceptors
from tribes.wire.codec import pack, unpack
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from tribes.testing.sim import SimNode

__all__ = ["Later", "later_interceptors", "say_more", "store_more", "stored"]

_BEHIND: Final = len(MAGIC) + 1
_NAMESPACE: Final = 11
_JOINED: Final = 6
_PLAIN: Final = 9
_FLAG: Final = 0x40
_ASYNC: Final = int(SendOptions.ASYNCHRONOUS)


class Later(Interceptor):
    """Adds fields to every message of the managers, as a later release may."""

    def send(self, message: Outgoing, now: float, next: SendNext) -> None:  # noqa: A002
        """Pass it on with more fields."""
        data = message.data
        if data.message.startswith(MAGIC):
            fields = unpack(data.message[_BEHIND:])
            assert isinstance(fields, list)
            more = data.message[:_BEHIND] + pack([*fields, {"later": [1, None]}, b"more"])
            message = Outgoing(data.with_message(more), message.destinations, message.ticket)
        next(message, now)


def later_interceptors() -> list[Interceptor]:
    """The chain of a node of a later release."""
    return [Later(), *default_interceptors()]


def say_more(node: SimNode) -> None:
    """Send everybody a message of a kind that only a later release has."""
    payload = MAGIC + b"\x01" + pack([77, "app", {"of": "a later release"}])
    node.core.channel.post(node.core.view.members, payload, _ASYNC, node.clock.monotonic())
    node.pump()


def store_more(node: SimNode, key: str, tag: str) -> None:
    """Write what this release does not know into a session, which is made if it is not there.

    Args:
        node: Where.
        key: The session.
        tag: Names the write: an element of one value, the content of the others, and a value.
    """
    manager = node.manager()
    table, clock = manager.table, manager.clock
    current = table.get(key)
    if current is not None:
        clock.observe(header(current).access)
    hlc, now_ds = clock.next(), manager.now_ds()
    entries = {} if current is None else parse(current).entries
    known = entries.get((0, b"joined"))
    dots = None if known is None else dots_of(known)
    dots = dots or Dots()
    dots.seen[clock.actor] = hlc
    dots.elements[hlc, clock.actor, _JOINED << 12] = tag.encode()
    contents = (
        (0, _JOINED, b"joined", encode_dots(dots)),
        (0, _PLAIN, b"plain", tag.encode()),
        (_NAMESPACE, 0, tag.encode(), b"of a later release"),
    )
    writes = [
        # As if it had seen all: what is no client's write is to be nobody's conflict.
        Entry(namespace, kind, name, value, hlc, clock.actor, hlc - 1)
        for namespace, kind, name, value in contents
    ]
    created = hlc if current is None else header(current).created
    flags = _FLAG | (WHOLE if current is None else 0)
    delta = pack_delta(created, hlc, clock.actor, now_ds, flags, writes)
    commit = Commit("app", key, hlc, to_wire(delta, now_ds), None)
    assert table.swap(key, current, merge(current, delta), commit)
    node.pump()


def stored(node: SimNode, key: str) -> tuple[set[str], str, set[str], int]:
    """What a node has of it: the joined elements, the plain value, the names, the flags."""
    record = node.manager().table.get(key)
    assert record is not None, f"{node.name} lacks the session"
    entries = parse(record).entries
    dots = dots_of(entries[0, b"joined"])
    assert dots is not None
    names = {name.decode() for namespace, name in entries if namespace == _NAMESPACE}
    elements = {payload.decode() for payload in dots.elements.values()}
    return elements, entries[0, b"plain"].value.decode(), names, header(record).flags & _FLAG
