"""The messages of one manager, counted by type (Tomcat's ``counterSend_EVT_…``, §4.11).

=================  ======================  ==================================================
counted as         Tomcat's event          what it is
=================  ======================  ==================================================
``deltas``         DELTA, CREATED,         what requests changed, made, rotated or ended
                   CHANGE_ID, EXPIRED
``touches``        ACCESSED                which sessions were used, in batches
``expiries``       EXPIRED                 which sessions this member, their owner, expired
``expire_asks``    none                    who has used these sessions?
``expire_answers`` none                   the answers
``digests``        GET_ALL_SESSIONS        what a member has, to be compared
``records``        ALL_SESSION_DATA,       sessions that somebody lacked
                   TRANSFERCOMPLETE
``fetches``        none                    a session that a request needs now, and the answer
``places``         none                    of a Backup manager: who holds what
``receipts``       none                    what a member that leaves has confirmed
=================  ======================  ==================================================

A message to several members counts once, as Tomcat's does; nothing is sent, or counted, without
members.  What arrives is counted by its form, in which ``touches`` and ``expiries`` are ``deltas``.
"""

from __future__ import annotations

from collections import Counter
from typing import final

from .messages import (
    Confirm,
    Deltas,
    Digests,
    ExpireAnswer,
    ExpireAsk,
    Fetch,
    Fetched,
    Lack,
    ManagerMessage,
    Receipt,
    Records,
    Summary,
    Want,
)
from .placed_messages import Lost, Places, Seek, Sought, Stale

__all__ = ["Traffic"]

_KINDS: dict[type, str] = {
    Deltas: "deltas",
    Records: "records",
    Summary: "digests",
    Digests: "digests",
    Want: "digests",
    Lack: "digests",
    Fetch: "fetches",
    Fetched: "fetches",
    Confirm: "receipts",
    Receipt: "receipts",
    ExpireAsk: "expire_asks",
    ExpireAnswer: "expire_answers",
    Places: "places",
    Stale: "places",
    Lost: "places",
    Seek: "fetches",
    Sought: "fetches",
}


@final
class Traffic:
    """Counters of one manager; written in the core's thread, readable in any.

    Attributes:
        is_on: Whether anything is counted (``enable_statistics``).
    """

    __slots__ = ("_received", "_sent", "is_on")

    def __init__(self, *, is_on: bool = True) -> None:
        self.is_on = is_on
        self._sent: Counter[str] = Counter()
        self._received: Counter[str] = Counter()

    @property
    def sent(self) -> dict[str, int]:
        """Messages sent, by type."""
        return dict(self._sent)

    @property
    def received(self) -> dict[str, int]:
        """Messages received, by type."""
        return dict(self._received)

    def count_sent(self, kind: str) -> None:
        """A message left for one member or more."""
        if self.is_on:
            self._sent[kind] += 1

    def count_message(self, message: ManagerMessage) -> None:
        """A message left whose type says what it is."""
        self.count_sent(_KINDS.get(type(message), "others"))

    def count_received(self, message: ManagerMessage) -> None:
        """A message arrived."""
        if self.is_on:
            self._received[_KINDS.get(type(message), "others")] += 1

    def reset(self) -> None:
        """Begin again at zero."""
        self._sent = Counter()
        self._received = Counter()
