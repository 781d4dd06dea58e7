"""What checks report, and what they look at when a run is over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tribes.ids import SessionKey
from tribes.manager.record import Life, Namespace, header, parse
from tribes.manager.session import Session
from tribes.testing.history import plain
from tribes.testing.observer import incarnation

if TYPE_CHECKING:
    from tribes.testing.history import Version
    from tribes.testing.sim import World

__all__ = ["SessionState", "Violation", "WorldState"]


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise.

    Attributes:
        invariant: Stable name.
        message: What was promised and what was seen.
        witness: The fewest facts that show it, such as ``op 12``, ``send 3``, ``a#1``.
        time: When it was seen, in seconds of the world.
    """

    invariant: str
    message: str
    witness: tuple[str, ...]
    time: float

    def __str__(self) -> str:
        facts = ", ".join(self.witness)
        return f"[{self.time:.3f} s] {self.invariant}: {self.message} ({facts})"


@dataclass(frozen=True, slots=True)
class SessionState:
    """One session on one node: its life and, by attribute, the version and the value."""

    life: int = int(Life.LIVE)
    entries: dict[str, tuple[Version, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorldState:
    """What the live nodes held at the end, by incarnation and session key.

    Attributes:
        time: When that was.
        nodes: Their sessions.
        overwritten: How many of its writes each has seen replaced by others that did not know them.
    """

    time: float
    nodes: dict[str, dict[str, SessionState]]
    overwritten: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, world: World, context: str = "app") -> WorldState:
        """Look at all live nodes; costs a few tens of µs per session and node."""
        nodes: dict[str, dict[str, SessionState]] = {}
        overwritten: dict[str, int] = {}
        for node in world.nodes.values():
            if not node.is_alive:
                continue
            manager = node.manager(context)
            held: dict[str, SessionState] = {}
            nodes[incarnation(node)] = held
            overwritten[incarnation(node)] = manager.statistics().overwritten
            for key in manager.table.keys():  # noqa: SIM118 - a table is no mapping
                record = manager.table.get(key)
                if record is None:
                    continue
                life = header(record).life
                entries: dict[str, tuple[Version, Any]] = {}
                if life == Life.LIVE:
                    session = Session(manager, SessionKey(key), record)
                    for (namespace, name), entry in parse(record).entries.items():
                        if namespace == Namespace.ATTRIBUTE:
                            text = name.decode()
                            entries[text] = (entry.hlc, entry.actor), plain(session.get(text))
                held[key] = SessionState(life, entries)
        return cls(world.now, nodes, overwritten)
