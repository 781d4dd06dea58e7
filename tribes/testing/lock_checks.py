"""Checks of the lock that a session has in the whole group (``tribes.manager.locks``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tribes.manager.locks import LEASE_S
from tribes.testing.observer import incarnation
from tribes.testing.violation import Violation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tribes.manager.locks import ClusterLocks
    from tribes.testing.sim import SimNode, World

__all__ = ["check_locks", "check_locks_over"]


def _locks(node: SimNode, context: str) -> ClusterLocks | None:
    replicator = node.core.sessions.replicators.get(context)
    return None if replicator is None or not node.is_alive else replicator.locks


def check_locks(world: World, nodes: Iterable[SimNode], context: str = "app") -> list[Violation]:
    """Check that no lock has two holders, at any moment.

    - ``lock held twice``: two processes hold one lock, and both have had the same member as its
      keeper for a lease or longer. With different keepers they disagree about who is a member:
      then each side may have a holder.
    """
    holders: dict[tuple[str, bytes], list[str]] = {}
    for node in nodes:
        locks = _locks(node, context)
        if locks is None:
            continue
        now = node.clock.monotonic()
        for key in locks.held(now):
            keeper = locks.keeper_since(key, now - LEASE_S)
            if keeper is not None:
                holders.setdefault((key, keeper), []).append(incarnation(node))
    return [
        Violation(
            "lock held twice", f"{key} is locked by {' and '.join(who)}", tuple(who), world.now
        )
        for (key, _), who in holders.items()
        if len(who) > 1
    ]


def check_locks_over(
    world: World, nodes: Iterable[SimNode], context: str = "app"
) -> list[Violation]:
    """Check that nothing of any lock is left when nobody has asked for one for some seconds.

    - ``lock left``: a process still holds or waits for one, or keeps one.
    """
    found = []
    for node in nodes:
        locks = _locks(node, context)
        if locks is not None and not locks.is_idle:
            where = incarnation(node)
            found.append(Violation("lock left", f"{where} has locks left", (where,), world.now))
    return found
