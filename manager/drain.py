"""Leaving with receipts: nothing is lost with a member that says it is drained (DESIGN §5.5).

A member that leaves asks every member that stays, partition by partition: is what you have equal to
what I have? ::

    CONFIRM (digests of all partitions that are not empty here)
        └──▶ RECEIPT (the partitions that differ there)
                 └──▶ RECORDS of those, acknowledged when they were merged

A partition has its receipt from a member when that member found it equal, or has merged every
record of it. The second form is what ends a drain under load: while others write on, two replicas
need never be equal at one moment, but what was here is there.

Receipts are void when something could have come after them that nobody else has: a commit of this
node's own, or what a member brought that has just been lost.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

from tribes.errors import RemoteProcessError
from tribes.wire.options import SendOptions

from .messages import Confirm, Pairs, Receipt, Records
from .record import deciseconds, to_wire
from .session_ids import partition_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tribes.channel.core import ChannelCore
    from tribes.wire.member import Member

    from .base import SessionManager

__all__ = ["Drain", "DrainReport", "Lacking", "differing_partitions"]

RECORDS_MAX_BYTES: Final = 256 * 1024
"""Records of one message; the next one leaves when this one was merged. A longer record travels
alone."""

_MESSAGE_ROOM_BYTES: Final = 4096
"""What a message of records needs beyond them: context, keys, lengths."""

AGAIN_S: Final = 1.0
"""Between a question that failed, or was not answered, and the next."""

MERGE_S: Final = 5.0
"""A member that has not merged a message of records for so long is asked anew."""

_SOON_S: Final = 0.05
"""What commits of running requests make void is asked for again together."""

_ACKED: Final = int(SendOptions.USE_ACK | SendOptions.SYNCHRONIZED_ACK)


class Lacking(NamedTuple):
    """What one member has not confirmed.

    Attributes:
        context: Name of the application.
        member: The member's name.
        partitions: How many partitions.
        sessions: Sessions that are in them here.
        why: What stood in the way.
    """

    context: str
    member: str
    partitions: int
    sessions: int
    why: str


class DrainReport(NamedTuple):
    """How a drain ended.

    Attributes:
        is_last: No member stays that could have the sessions: there are none, or all drain too.
        lacking: Receipts that are missing, and from whom.
        sessions: How many live sessions each context has here.
        unsent: Commits that had not left yet.
        saved: Files that the sessions were saved to, by context.
        unsaved: Contexts whose sessions could not be saved although that was asked for, and why.
    """

    is_last: bool = False
    lacking: tuple[Lacking, ...] = ()
    sessions: dict[str, int] = {}  # noqa: RUF012 - a record's field; nobody changes it
    unsent: int = 0
    saved: dict[str, str] = {}  # noqa: RUF012
    unsaved: dict[str, str] = {}  # noqa: RUF012

    @property
    def is_complete(self) -> bool:
        """Whether all that was asked for was done: every receipt is here, or all was saved."""
        return not (self.lacking or self.unsent or self.unsaved)


class _Asked:
    """One member, and what it has not confirmed.

    Attributes:
        open: Partitions without receipt.
        patience: When it is asked again, unless it answers before.
        sync: Number of the question that it is to answer; 0: there is none.
        refused: Partitions of which it cannot have all, and why: asking again would not help.
    """

    __slots__ = ("is_due", "open", "patience", "refused", "sync", "why")

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.refused: dict[int, str] = {}
        self.sync = 0
        self.patience = 0.0
        self.is_due = False
        self.why = "it has not answered"

    @property
    def is_over(self) -> bool:
        """True when there is nothing left to wait for."""
        return self.open <= self.refused.keys()


class Drain:
    """The receipts of one context.

    Args:
        manager: Its table is what has to be elsewhere.
        channel: Where questions go.
    """

    def __init__(self, manager: SessionManager, channel: ChannelCore) -> None:
        self.has_begun = False
        self.receipts = 0
        """Partitions that members have confirmed."""
        self._manager = manager
        self._channel = channel
        self._record_max_bytes = channel.message_max_bytes - _MESSAGE_ROOM_BYTES
        self._asked: dict[Member, _Asked] = {}
        self._sync = 0

    def begin(self, members: Iterable[Member], now: float) -> None:
        """Ask these members, which stay, for their receipts."""
        self.has_begun = True
        for member in members:
            self.peer_up(member, now)

    def stop(self) -> None:
        """Ask nobody any more."""
        self._asked.clear()

    def peer_up(self, member: Member, now: float) -> None:
        """A member stays, or has come: it has to confirm too."""
        if self.has_begun and member not in self._asked:
            self._asked[member] = _Asked()
            self._void(member, self._partitions(), now)

    def peer_down(self, member: Member) -> None:
        """A member is gone, or leaves as well: its receipt is worth nothing."""
        self._asked.pop(member, None)

    def again(self, now: float) -> None:
        """What is here may be more than what was confirmed."""
        for member in self._asked:
            self._void(member, self._partitions(), now)

    def changed(self, keys: Iterable[str], now: float) -> None:
        """This node has changed sessions itself."""
        if not self._asked:
            return  # what every commit of a node that does not leave comes to
        partitions = {partition_of(key) for key in keys}
        for member in self._asked:
            self._void(member, partitions, now + _SOON_S)

    @property
    def is_over(self) -> bool:
        """True when there is nothing to wait for: what lacks a receipt now will not get one."""
        return all(asked.is_over for asked in self._asked.values())

    def lacking(self) -> list[Lacking]:
        """Who has not confirmed what."""
        table = self._manager.table
        found = []
        for member, asked in self._asked.items():
            if asked.open:
                sessions = sum(len(table.keys_of(partition)) for partition in asked.open)
                why = next(iter(asked.refused.values()), asked.why)
                found.append(
                    Lacking(self._manager.context, member.label, len(asked.open), sessions, why)
                )
        return found

    def _partitions(self) -> Iterable[int]:
        return self._manager.table.partition_digests()

    def _void(self, member: Member, partitions: Iterable[int], when: float) -> None:
        asked = self._asked[member]
        asked.open.update(partitions)
        asked.sync = 0
        if asked.open and not asked.is_due:
            asked.is_due = True
            self._channel.timers.at(when, lambda then: self._ask(member, asked, then))

    # Asking.

    def _ask(self, member: Member, asked: _Asked, now: float) -> None:
        if self._asked.get(member) is not asked:
            return
        asked.is_due = False
        self._sync += 1
        sync = asked.sync = self._sync
        asked.patience = now + AGAIN_S
        self._watch(member, asked, sync)
        if member in self._channel.suspected:
            asked.why = "it does not answer"
            return
        table = self._manager.table
        digests = {p: table.partition_digest(p) for p in sorted(asked.open)}

        def settled(faulty: dict[Member, Exception], then: float) -> None:
            del then
            error = faulty.get(member)
            if error is not None and asked.sync == sync:
                asked.why = str(error)
                if isinstance(error, RemoteProcessError):
                    why = f"it gives no receipts: {error}"
                    asked.refused.update(dict.fromkeys(asked.open, why))

        message = Confirm(self._manager.context, sync, digests)
        self._manager.traffic.count_message(message)
        self._channel.post((member,), message.encode(), _ACKED, now, settled=settled)

    def _watch(self, member: Member, asked: _Asked, sync: int) -> None:
        """Ask again when nothing has come of this question for too long."""

        def look(now: float) -> None:
            if self._asked.get(member) is not asked or asked.sync != sync or asked.is_over:
                return
            if now >= asked.patience:
                self._ask(member, asked, now)
            else:
                self._watch(member, asked, sync)

        self._channel.timers.at(asked.patience, look)

    def on_receipt(self, source: Member, message: Receipt, now: float) -> None:
        """A member says which partitions differ; it has all others."""
        asked = self._asked.get(source)
        if asked is None or asked.sync != message.sync:
            return
        differing = asked.open & set(message.differing)
        self.receipts += len(asked.open) - len(differing)
        asked.open = differing
        if differing:
            asked.why = "it has not taken the sessions yet"
            self._serve(source, asked, message.sync, self._records_of(asked, now), now)

    def _records_of(self, asked: _Asked, now: float) -> Iterator[tuple[int, str, bytes]]:
        table, now_ds = self._manager.table, deciseconds(now)
        for partition in sorted(asked.open):
            for key in table.keys_of(partition):
                record = table.get(key)
                if record is None:
                    continue
                data = to_wire(record, now_ds)
                if len(data) > self._record_max_bytes:
                    why = f"a session of {len(data)} bytes is too long to travel"
                    asked.refused[partition] = why
                    continue
                yield partition, key, data

    def _serve(
        self,
        member: Member,
        asked: _Asked,
        sync: int,
        records: Iterator[tuple[int, str, bytes]],
        now: float,
    ) -> None:
        pairs: Pairs = []
        partitions: set[int] = set()
        size, is_done = 0, True
        for each in records:
            partition, key, data = each
            if pairs and size + len(data) > RECORDS_MAX_BYTES:
                # The next message begins with it.
                records, is_done = chain((each,), records), False
                break
            partitions.add(partition)
            pairs.append((key, data))
            size += len(data)

        def settled(faulty: dict[Member, Exception], then: float) -> None:
            # A question that was asked since will be answered with what still differs.
            if self._asked.get(member) is not asked or asked.sync != sync:
                return
            error = faulty.get(member)
            if isinstance(error, RemoteProcessError):
                asked.refused.update(dict.fromkeys(partitions, f"it refused a session: {error}"))
            elif error is not None:
                asked.why = str(error)
                return
            if not is_done:
                self._serve(member, asked, sync, records, then)
                return
            self.receipts += len(asked.open - asked.refused.keys())
            asked.open &= asked.refused.keys()

        asked.patience = now + MERGE_S
        message = Records(self._manager.context, 0, pairs, is_done)
        self._manager.traffic.count_message(message)
        self._channel.post((member,), message.encode(), _ACKED, now, settled=settled)


def differing_partitions(manager: SessionManager, message: Confirm) -> list[int]:
    """The partitions of a question that are not equal here."""
    table = manager.table
    return [p for p, digest in message.digests.items() if table.partition_digest(p) != digest]
