"""Events that repeat themselves: the first is told, the others are counted.

Whoever speaks another protocol, lacks the key or never gives up comes again and again: a neighbour
without a key on the same multicast address asks at each heartbeat. Of one kind and peer one event
per `TOLD_EVERY_S` is told, with the number of those that were not.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from tribes.channel.outputs import LinkRejected

__all__ = ["KINDS_MAX", "TOLD_EVERY_S", "Repeats"]

TOLD_EVERY_S: Final = 10.0

KINDS_MAX: Final = 1024
"""Pairs of a peer and a kind that are remembered; the one told longest ago is forgotten."""

_DETAILS: Final = re.compile(r"\d|: |\(")
"""What of a reason differs from time to time begins here, at the latest."""


class _Kind:
    __slots__ = ("held", "told")

    def __init__(self, told: float) -> None:
        self.told = told
        self.held = 0


@final
class Repeats:
    """Decides which events of closed connections are told."""

    def __init__(self) -> None:
        self.seen = 0
        """All of them."""
        self.held = 0
        """Those that were not told."""
        self._kinds: OrderedDict[tuple[str, str], _Kind] = OrderedDict()

    def told(self, event: LinkRejected, now: float) -> LinkRejected | None:
        """Count an event; return it as it is to be told, or None when it is not."""
        self.seen += 1
        # The port is another one with each connection.
        name = event.peer[0], _DETAILS.split(event.why, maxsplit=1)[0]
        kind = self._kinds.get(name)
        if kind is not None and now - kind.told < TOLD_EVERY_S:
            kind.held += 1
            self.held += 1
            return None
        if kind is None:
            kind = self._kinds[name] = _Kind(now)
            if len(self._kinds) > KINDS_MAX:
                self._kinds.popitem(last=False)
        else:
            self._kinds.move_to_end(name)
        held, kind.held, kind.told = kind.held, 0, now
        return replace(event, repeats=held) if held else event
