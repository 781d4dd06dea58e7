"""The side of a map in the core: a context's replicator that also says which members have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tribes.manager.replication import Replicator

if TYPE_CHECKING:
    from tribes.maps.manager import MapManager
    from tribes.wire.member import Member

__all__ = ["MapReplicator"]


class MapReplicator(Replicator):
    """Copies a map to all members that have it."""

    manager: MapManager

    def peer_up(self, member: Member, now: float) -> None:
        """A member has the map: from here on it gets every change."""
        is_new = member not in self.targets
        super().peer_up(member, now)
        if is_new:
            self.manager.member_changed(member, is_added=True)

    def peer_down(self, member: Member, now: float) -> None:
        """A member is gone, or does not have the map any more."""
        was_there = member in self.targets
        super().peer_down(member, now)
        if was_there:
            self.manager.member_changed(member, is_added=False)
