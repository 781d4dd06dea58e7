"""A map of which each member holds a part: primary, backups, proxies (Tomcat: LazyReplicatedMap).

It is cut into parts, each with a table of its own, which are placed, taken and given as those of a
Backup manager's sessions are (:mod:`tribes.manager.placed`). How others reach an entry is in
:mod:`tribes.maps.questions`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from tribes.manager.inbox import Commit, resolve_all
from tribes.manager.messages import Deltas
from tribes.manager.part import PartReplicator
from tribes.manager.placed import PlacedCore, Placing
from tribes.manager.placed_messages import Places, PlaceState, Stale
from tribes.manager.transfer import Transfer
from tribes.maps.placement import EntryKind, partition_of_entry
from tribes.maps.questions import LazyParts, Questions
from tribes.maps.replicator import MapReplicator
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from tribes.channel.core import ChannelCore
    from tribes.manager.group import SessionGroup
    from tribes.manager.messages import ManagerMessage
    from tribes.maps.manager import MapManager
    from tribes.rpc.core import RpcCore
    from tribes.wire.member import Member

__all__ = ["LazyCore"]

_ACKED = int(SendOptions.USE_ACK | SendOptions.SYNCHRONIZED_ACK)

_WAIT_S: Final = 5.0
"""How long a start waits for what members say that have the map."""


class _PresenceTransfer(Transfer):
    """Joined is who knows what all others hold."""

    lazy: LazyCore

    def _look(self, now: float) -> None:
        if self.is_joined or now < self._started + self._join_window:
            return
        if not self.lazy.placed.knows_all and now < self._started + _WAIT_S:
            self._channel.timers.at(now + 0.05, self._look)
            return
        super()._look(now)
        if self.is_joined:
            self.lazy.placed.begin(now)


class _Presence(MapReplicator):
    """Tells who has the map, and hears what they hold of it."""

    _transfer_type = _PresenceTransfer
    transfer: _PresenceTransfer
    lazy: LazyCore

    def peer_up(self, member: Member, now: float) -> None:
        """A member has the map."""
        super().peer_up(member, now)
        self.lazy.placed.member_up(member, now)

    def peer_down(self, member: Member, now: float) -> None:
        """A member has it no longer."""
        super().peer_down(member, now)
        self.lazy.placed.member_down(member, now)

    def peer_forgot(self, member: Member, now: float) -> None:
        """A member had taken this node for gone."""
        super().peer_forgot(member, now)
        self.lazy.placed.member_forgot(member, now)

    def message(self, source: Member, message: ManagerMessage, now: float) -> None:
        """A member's message for the map as a whole.

        Raises:
            RemoteProtocolError: It cannot be applied.
        """
        if isinstance(message, Places):
            self.lazy.placed.on_places(source, message, now)
        elif isinstance(message, Stale):
            self.lazy.placed.on_stale(source, message, now)
        else:
            super().message(source, message, now)


class LazyCore:
    """One lazy map in the core of one node.

    Args:
        parts: What it shares with users' threads.
        channel: Where messages go.
        group: Where contexts are run.
        rpc: By which members ask each other.
        replication: Arguments of every replicator.
    """

    def __init__(
        self,
        parts: LazyParts,
        *,
        channel: ChannelCore,
        group: SessionGroup,
        rpc: RpcCore,
        replication: dict[str, Any],
    ) -> None:
        self.parts = parts
        self._channel = channel
        self._group = group
        self._replication = replication
        context = parts.presence.context
        self.placed = PlacedCore(
            context, self, channel=channel, group=group, placing=Placing(copies=parts.copies)
        )
        group.placed[context] = self.placed
        self.questions = Questions(parts, self.order, channel=channel, rpc=rpc)
        parts.held.clear()
        self._presence = _Presence(parts.presence, **replication)
        self._presence.lazy = self._presence.transfer.lazy = self
        parts.presence.replicator = self._presence

    def start(self, now: float) -> None:
        """Find out who has the map, and take what should lie here."""
        self._group.add(self._presence, now)

    def drain(self, now: float) -> None:
        """Give everything to the others, before this member goes; `is_drained` tells when."""
        self.placed.drain(now)

    @property
    def is_drained(self) -> bool:
        """True when nothing is here that another member with the map should have instead."""
        return self.placed.is_drained

    def close(self, now: float) -> None:
        """Take no part any more. What no other member holds is lost: `drain` first."""
        self.questions.stop()
        for manager in self.parts.held.values():
            self._group.strays[manager.context] = lambda commits: resolve_all(commits, (), {})
        self.placed.close()
        self.parts.held.clear()
        del self._group.placed[self.parts.presence.context]
        self._group.change((), [self.parts.presence.context], now)

    # Who holds what.

    def order(self, partition: int) -> list[Member]:
        """All members with the map, those first that should hold this partition."""
        return self.placed.book.order(partition)

    def kind_of(self, name: str) -> EntryKind:
        """What an entry is here, whether or not it exists."""
        placed = self.placed.book.placed(partition_of_entry(name))
        if self._channel.local not in placed:
            return EntryKind.PROXY
        return EntryKind.PRIMARY if placed[0] == self._channel.local else EntryKind.BACKUP

    @property
    def is_joined(self) -> bool:
        """True when the others with the map are known, and all that is held here is whole."""
        held = list(self.parts.held.values())
        return self.parts.presence.is_joined and all(manager.is_joined for manager in held)

    @property
    def is_settled(self) -> bool:
        """True when this member holds, whole, what it should, and nothing else."""
        return self.placed.is_settled

    # Parts.

    def make_part(self, number: int) -> PartReplicator:
        """Make the replicator of a part."""
        manager = self.parts.make(number)
        manager.is_part = True
        part = PartReplicator(manager, part=number, host=self.placed, **self._replication)
        manager.replicator = part
        return part

    def place_changed(self, number: int, state: PlaceState) -> None:
        """A part is something else here: users look into those that are here."""
        part = self.placed.parts.get(number)
        if part is not None and state != PlaceState.NONE:
            self._group.strays.pop(part.manager.context, None)
            self.parts.held[number] = cast("MapManager", part.manager)
        else:
            self.parts.held.pop(number, None)

    def part_released(self, number: int, now: float) -> None:
        """A part lies on others. A thread may not know yet, and change it here."""
        part = self.placed.parts.pop(number)
        self._group.strays[part.manager.context] = self._forward(number)

    def entries_of(self, number: int) -> int:
        """Return how many entries a part has here."""
        manager = self.parts.held.get(number)
        return 0 if manager is None else manager.table.live

    def _forward(self, number: int) -> Callable[[list[Commit]], None]:
        """Commits of a thread that did not know that the part has just been given away."""

        def send(commits: list[Commit]) -> None:
            context = commits[0].context
            targets = self.placed.book.holders(number)

            def settled(faulty: dict[Member, Exception], then: float) -> None:
                missing = {m.label: f"{type(e).__name__}: {e}" for m, e in faulty.items()}
                acked = tuple(m.label for m in targets if m not in faulty)
                resolve_all(commits, acked, missing)

            payload = Deltas(context, [(c.key, c.delta) for c in commits]).encode()
            if targets:
                self._channel.post(targets, payload, _ACKED, self._channel.now, settled=settled)
            else:
                settled({}, 0.0)

        return send
