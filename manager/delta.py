"""The Delta manager: every member that runs a context holds all its sessions (Tomcat's all-to-all).

Requests use it as they use every manager (:class:`SessionManager`). What is particular to it lives
in the core: the :class:`Replicator` that sends each commit to all members, gives a joiner
everything, repairs what a member missed, and expires idle sessions by their owner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import SessionManager
from .expiry import owner_of
from .session_ids import partition_of

if TYPE_CHECKING:
    from .replication import Replicator

__all__ = ["DeltaManager"]


class DeltaManager(SessionManager):
    """Creates, finds and commits sessions whose copies are on all members of the context.

    Attributes:
        replicator: The side in the core, once a node runs this manager; None before. From other
            threads only the properties here may be used.
    """

    replicator: Replicator | None = None

    @property
    def copies_on(self) -> tuple[str, ...]:
        """Names of the other members that hold copies now; safe from any thread."""
        replicator = self.replicator
        return () if replicator is None else tuple(m.label for m in replicator.targets)

    @property
    def is_joined(self) -> bool:
        """Whether this node has the sessions that the others had; safe from any thread."""
        replicator = self.replicator
        return replicator is not None and replicator.transfer.is_joined

    def is_primary(self, key: str) -> bool:
        """Whether this node expires the session; safe from any thread.

        Every member may serve it: nothing moves by being asked.
        """
        replicator = self.replicator
        if replicator is None:
            return True
        # Of immutable things only: the expiry's own notes are the core's.
        local = bytes(replicator.local.unique_id)
        others = (bytes(member.unique_id) for member in replicator.targets)
        return owner_of(partition_of(key), (local, *others)) == local
