"""A node that says it is drained may be stopped: nothing must be lost with it (DESIGN §5.5)."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

from tribes.manager.merge import digest, merge
from tribes.manager.record import parse
from tribes.testing.observer import incarnation
from tribes.testing.violation import Violation

if TYPE_CHECKING:
    from tribes.manager.record import Record
    from tribes.testing.sim import SimNode, World

__all__ = ["DrainedCopies"]


class DrainedCopies:
    """What a node had when it said that it was drained, and who has to have it.

    Args:
        node: It says so now.
        context: The web application.
        is_placed: Its sessions lie on some nodes: the others together must have what is here.
    """

    def __init__(self, node: SimNode, context: str = "app", *, is_placed: bool = False) -> None:
        manager = node.manager(context)
        table = manager.table
        self._node = node
        self._where = incarnation(node)
        self._actor = manager.clock.actor
        self._context = context
        records = ((key, table.get(key)) for key in table.keys())  # noqa: SIM118 - no mapping
        self._records = {key: record for key, record in records if record is not None}
        self._is_placed = is_placed
        replicator = node.core.sessions.replicators[context]
        # Whom it knows to leave too it asks for nothing: such a receipt would be worth nothing.
        heirs = replicator.targets if is_placed else replicator.staying
        targets = {m.unique_id for m in heirs}
        self._targets = targets - self._leaving(node.world) if is_placed else targets

    @property
    def has_heirs(self) -> bool:
        """Whether it knew anybody who was to get what it had, if that does not lie on all."""
        return bool(self._targets) or not self._is_placed

    @staticmethod
    def _leaving(world: World) -> set[bytes]:
        """Nodes that are about to go themselves: no heirs (DESIGN §5.5)."""
        live = [node for node in world.nodes.values() if node.is_alive]
        return {n.core.local.unique_id for n in live if n.core.sessions.is_retired}

    def missing(self, world: World) -> list[Violation]:
        """Compare with the tables of the nodes that run now.

        ``drained copies``: each target has the changes that the node made. What others had made is
        with the other nodes together: a target that has not heard of those yet asks them.
        """
        others = [n for n in world.nodes.values() if n.is_alive and incarnation(n) != self._where]
        tables = {incarnation(n): n.manager(self._context).table for n in others}
        targets = [incarnation(n) for n in others if n.core.local.unique_id in self._targets]
        found = []
        for key, record in self._records.items():
            together = _together([table.get(key) for table in tables.values()])
            if self._is_placed:
                if targets and not _has(key, together, record):
                    text = f"no node has a session, or all changes of it, that {self._where} had"
                    facts = self._where, self._where, key[:8]
                    found.append(Violation("drained copies", text, facts, world.now))
                continue
            for where in targets:
                held = tables[where].get(key)
                if _has(key, held, record) or (
                    not self._has_made(held, record) and _has(key, together, record)
                ):
                    continue
                text = f"{where} lacks a session or changes of it that {self._where} had"
                facts = self._where, where, key[:8]
                found.append(Violation("drained copies", text, facts, world.now))
        return found

    def _has_made(self, held: Record | None, record: Record) -> bool:
        """Whether the node itself made a change that is not in a copy."""
        known = {} if held is None else parse(held).entries
        return any(
            entry.actor == self._actor
            and (
                name not in known or (known[name].hlc, known[name].actor) < (entry.hlc, entry.actor)
            )
            for name, entry in parse(record).entries.items()
        )


def _together(copies: list[Record | None]) -> Record | None:
    known = [copy for copy in copies if copy is not None]
    return reduce(merge, known) if known else None


def _has(key: str, held: Record | None, record: Record) -> bool:
    # Uses and ages apart: what replicas compare.
    return held is not None and digest(key, merge(held, record)) == digest(key, held)
