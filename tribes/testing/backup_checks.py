"""Checks of sessions that lie on some of the nodes: where they lie, and that none is lost.

With full copies a write is safe as soon as one node that knows it runs to the end. Here what counts
is how many memories were lost before the copies were whole again: up to as many as a write had
copies beyond the first must cost nothing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from tribes.manager.backup_core import BackupReplicator
from tribes.manager.merge import digest, merge
from tribes.manager.placed_messages import PlaceState
from tribes.manager.placement import PARTS, part_of
from tribes.manager.record import Life, header
from tribes.manager.session_ids import PARTITIONS
from tribes.testing.observer import incarnation
from tribes.testing.violation import Violation, WorldState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tribes.manager.record import Record
    from tribes.testing.history import History, Op
    from tribes.testing.sim import SimNode, World

__all__ = ["check_places", "is_backup", "is_whole", "placed_state", "survivors"]

_PER_PART = PARTITIONS // PARTS


def is_backup(node: SimNode, context: str) -> bool:
    """Whether a context has a Backup manager on a node."""
    return isinstance(node.core.sessions.replicators.get(context), BackupReplicator)


def _core(node: SimNode, context: str) -> BackupReplicator:
    core = node.core.sessions.replicators[context]
    assert isinstance(core, BackupReplicator)
    return core


def _digest(node: SimNode, context: str, part: int) -> int:
    first = part * _PER_PART
    table = node.manager(context).table
    return sum(table.partition_digests(first, first + _PER_PART - 1).values()) % 2**64


def check_places(nodes: Iterable[SimNode], context: str, now: float) -> list[Violation]:
    """Check, in a group that has settled, that every part lies where it should.

    - ``placed``: all live nodes agree on who should hold a part; those do, whole, and no others.
    - ``one owner``: each part has one.
    - ``equal copies``: the holders' digests are equal.
    - ``orphan``: what another node has of a session, its holders have.
    """
    live = [node for node in nodes if node.is_alive]
    found = []
    for part in range(PARTS):
        fact = f"part {part}"
        wanted = {
            tuple(m.unique_id for m in _core(node, context).placed.book.placed(part))
            for node in live
        }
        holders = {
            node.core.local.unique_id: node
            for node in live
            if _core(node, context).placed.book.states[part] == PlaceState.HOLD
        }
        some = [
            node.name
            for node in live
            if (found_part := _core(node, context).placed.parts.get(part)) is not None
            and found_part.is_held
        ]
        if (
            len(wanted) != 1
            or set(next(iter(wanted))) != holders.keys()
            or len(some) != len(holders)
        ):
            text = f"{len(wanted)} opinions where a part should lie; it lies on {', '.join(some)}"
            found.append(Violation("placed", text, (fact, *some), now))
            continue
        owners = [node.name for node in live if _core(node, context).placed.book.is_owner(part)]
        if len(owners) != 1:
            text = f"a part is owned by {', '.join(owners) or 'nobody'}"
            found.append(Violation("one owner", text, (fact, *owners), now))
        if len({_digest(node, context, part) for node in holders.values()}) != 1:
            text = f"the copies on {', '.join(some)} differ"
            found.append(Violation("equal copies", text, (fact, *some), now))
    if found:
        return found
    together = _together(live, context)
    for node in live:
        table = node.manager(context).table
        for key in table.keys():  # noqa: SIM118 - a table is no mapping
            record, held = table.get(key), together.get(key)
            if record is None or header(record).life != Life.LIVE:
                continue
            if held is None or digest(key, merge(held, record)) != digest(key, held):
                text = f"{node.name} has a session, or changes of it, that its holders lack"
                found.append(Violation("orphan", text, (node.name, key[:8]), now))
    return found


def _together(live: list[SimNode], context: str) -> dict[str, Record]:
    """What the holders have of each session."""
    together: dict[str, Record] = {}
    for node in live:
        table, states = node.manager(context).table, _core(node, context).placed.book.states
        for key in table.keys():  # noqa: SIM118 - a table is no mapping
            record = table.get(key)
            if record is not None and states[part_of(key)]:
                together[key] = merge(together.get(key), record)
    return together


def is_whole(nodes: Iterable[SimNode], context: str) -> bool:
    """Whether every part lies where it should, equal, and nobody has something for others."""
    live = [node for node in nodes if node.is_alive]
    names = sorted(node.name for node in live)
    if not all(node.names() == names and not node.is_paused for node in live):
        return False
    if not all(_core(node, context).placed.is_settled for node in live):
        return False
    if not all(_core(node, context).is_quiet for node in live):
        return False
    return not check_places(live, context, 0.0)


def placed_state(world: World, context: str) -> WorldState:
    """What the holders have, as one."""
    state = WorldState.of(world, context)
    held = {}
    for node in world.nodes.values():
        if node.is_alive:
            states = _core(node, context).placed.book.states
            here = state.nodes[incarnation(node)]
            held.update({key: here[key] for key in here if states[part_of(key)]})
    return WorldState(state.time, {"the holders": held})


def survivors(history: History, copies: int, until: float) -> set[int]:
    """The writes that must be there in the end.

    A memory is lost with every end of a process but those that said to be drained. From one moment
    at which the copies were whole to the next, as many losses cost nothing as there are copies; of
    a write that was made in between, as many as members acknowledged it, beside the first holder.
    One that not all acknowledged counts from the first such moment that its writer lives to see.
    """
    drained = history.state.get("drained", set())
    losses = sorted(
        f.time
        for f in history.faults
        if f.kind in ("crash", "stop")
        for node in f.nodes
        if node not in drained
    )
    # At the end they are, or that is what is reported.
    whole = [*(each.time for each in history.copies), until]
    spans = list(zip(whole, [*whole[1:], float("inf")], strict=True))
    # From which moment on nothing more was lost than may be.
    safe_from = float("inf")
    for begin, end in reversed(spans):
        if bisect_left(losses, end) - bisect_right(losses, begin) > copies:
            break
        safe_from = begin
    found = set()
    for op in history.ops:
        if not op.is_done or op.version is None:
            continue
        first = bisect_right(whole, op.begin if op.settled is None else op.settled)
        healed = whole[min(first, len(whole) - 1)]
        lost = bisect_right(losses, healed) - bisect_left(losses, op.begin)
        if healed >= safe_from and lost <= _spared(op, healed, copies):
            found.add(op.number)
    return found


def _spared(op: Op, healed: float, copies: int) -> int:
    """How many losses an operation survives until the copies are whole again."""
    if op.settled is not None and op.settled < healed and op.acked and not op.missing:
        return min(copies, len(op.acked) - (not op.is_holder))
    # Its writer must have lived to bring it to the others.
    return 0
