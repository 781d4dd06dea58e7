"""Checks of idle sessions: the destroyed event comes once, and never too early (DESIGN §5.5)."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from tribes.manager.record import Life
from tribes.testing.violation import Violation

if TYPE_CHECKING:
    from tribes.testing.history import History, Told
    from tribes.testing.violation import WorldState

__all__ = ["check_expiries"]

_ROUNDING_S: Final = 0.3
"""Idle times are counted in deciseconds, on either side of the network."""
_UNDER_WAY_S: Final = 0.5
"""A use that comes while the members are asked may not be known to all of them."""


def check_expiries(history: History, state: WorldState) -> list[Violation]:
    """Compare the destroyed events of idle sessions with their uses and their ends.

    - ``fired in use``: in a calm time a session does not expire before its idle limit is over since
      its last use, on whichever node that was: everybody who saw a later use objects.
    - ``fired twice``: in a calm time one node fires, and once, unless the session was used again.
    - ``never fired``: a session that is expired at the end had its event.
    """
    uses: dict[str, list[float]] = {}
    limits: dict[str, int] = {}
    for op in history.ops:
        if op.is_done:
            uses.setdefault(op.key, []).append(op.begin)
            if op.kind == "create":
                limits[op.key] = op.limit
    fired: dict[str, list[Told]] = {}
    found = []
    for told in history.told:
        if told.kind != "expired":
            continue
        key = told.subject
        earlier = fired.setdefault(key, [])
        used, limit = uses.get(key, []), limits.get(key, 0)
        facts = told.node, key[:8]
        known = bisect_left(used, told.time - _UNDER_WAY_S)
        if known and limit and history.is_calm(used[known - 1], told.time):
            idle = told.time - used[known - 1]
            if idle < limit - _ROUNDING_S:
                text = f"{told.node} expired a session {idle:.3f} s after its last use"
                found.append(Violation("fired in use", text, facts, told.time))
        if earlier:
            last = earlier[-1]
            again = bisect_left(used, last.time - _UNDER_WAY_S) < bisect_left(used, told.time)
            if not again and history.is_calm(last.time, told.time):
                text = f"{told.node} fires for a session that {last.node} has fired for"
                found.append(Violation("fired twice", text, (last.node, *facts), told.time))
        earlier.append(told)
    silent = {
        key
        for held in state.nodes.values()
        for key, session in held.items()
        if session.life == Life.EXPIRED and key not in fired
    }
    for key in sorted(silent):
        text = "a session is expired, and no node has told so"
        found.append(Violation("never fired", text, (key[:8],), state.time))
    return found
