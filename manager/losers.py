"""Telling writers that do not hold a session that a write of theirs was replaced unseen.

Who holds a session sees how it is merged. Who changed it on a visit, or held it only then, does
not: it would never count that another write, made without knowing of its own, took its place. So
the holders tell the members that do not hold the part. Such writes are rare, and nobody is told who
wrote them, so all of these are told, once per message that was merged; whose write it was counts
it once, however many holders tell it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tribes.errors import RemoteProtocolError
from tribes.wire.options import SendOptions

from .conflicts import tell_conflicts
from .merge import lost_between
from .placed_messages import LOSSES_MAX, Loss, Lost
from .record import Entry, deciseconds, from_wire, header, pack_delta, parse, to_wire

if TYPE_CHECKING:
    from tribes.channel.core import ChannelCore
    from tribes.wire.member import Member

    from .backup import BackupManager
    from .record import Record

__all__ = ["Losers", "on_lost"]

BATCH_MAX_BYTES: Final = 256 * 1024
_USE_ACK = int(SendOptions.USE_ACK)


class Losers:
    """The lost writes of one part, until those have been told that may have made them.

    Args:
        manager: Of the sessions.
        channel: Where messages go.
    """

    def __init__(self, manager: BackupManager, channel: ChannelCore) -> None:
        self._manager = manager
        self._channel = channel
        self._found: list[Loss] = []

    def look(self, key: str, before: Record, incoming: Record) -> None:
        """Note what gets lost where two records are merged, but for this process's writes."""
        own = self._manager.clock.actor
        for lost, won in lost_between(before, incoming):
            if lost.actor != own and len(self._found) < LOSSES_MAX:
                created = min(header(before).created, header(incoming).created)
                pair = (self._alone(created, entry) for entry in (lost, won))
                self._found.append(Loss(key, *pair))

    def _alone(self, created: int, entry: Entry) -> bytes:
        now_ds = deciseconds(self._channel.now)
        return to_wire(pack_delta(created, entry.hlc, entry.actor, now_ds, 0, [entry]), now_ds)

    def tell(self, members: list[Member], now: float) -> None:
        """Tell these members what was noted."""
        found, self._found = self._found, []
        while found and members:
            size = count = 0
            while count < len(found) and (not count or size < BATCH_MAX_BYTES):
                size += sum(map(len, found[count]))
                count += 1
            message = Lost(self._manager.context, found[:count])
            self._manager.traffic.count_message(message)
            self._channel.post(members, message.encode(), _USE_ACK, now)
            del found[:count]


def on_lost(manager: BackupManager, channel: ChannelCore, message: Lost) -> None:
    """A holder says which writes were lost: count those of this process.

    Raises:
        RemoteProtocolError: A record is malformed.
    """
    now_ds = deciseconds(channel.now)
    for key, lost, won in message.losses:
        entries = _only(from_wire(lost, now_ds)), _only(from_wire(won, now_ds))
        tell_conflicts(manager, channel, key, manager.first_seen([entries]))


def _only(record: Record) -> Entry:
    entries = list(parse(record).entries.values())
    if len(entries) != 1:
        raise RemoteProtocolError(f"expected one write, found {len(entries)}")
    return entries[0]
