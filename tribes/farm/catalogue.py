"""What is deployed, and what is to be: the state that all members of the farm bring to one end.

Of each application there are at most two entries: the last one that was decided to be deployed
(or undeployed, without a digest), and a newer proposal. Entries have a total order, and of one
entry the phase only grows: ``PROPOSED < REFUSED < DEPLOYED``. So merging is commutative,
associative and idempotent, and members that have seen the same entries agree, in whichever order
they came.

``DEPLOYED`` is above ``REFUSED``: who decided to deploy may have done it already, alone in a part
of the group, and what is deployed somewhere must end everywhere or be replaced by something newer.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from tribes.farm.names import ArchiveName

__all__ = ["APPS_MAX", "Catalogue", "Entry", "Merged", "Phase", "Slot"]

APPS_MAX: Final = 256
"""Applications, with those that were undeployed in the last `UNDEPLOYED_KEPT_MS`."""

UNDEPLOYED_KEPT_MS: Final = 24 * 3600 * 1000
"""A member that was away for longer brings back what was undeployed meanwhile."""


@final
class Phase(enum.IntEnum):
    """How far an entry has come."""

    PROPOSED = 0
    REFUSED = 1
    DEPLOYED = 2


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """One archive that somebody wants to be deployed, or an undeployment.

    Attributes:
        name: Of the archive.
        counter: Milliseconds since 1970, or one more than the highest that was known.
        origin: Unique id of the member that proposed it.
        digest: SHA-256 of the archive; empty: the application is to go.
        size: Its bytes.
        modified_ms: When its file was modified, in milliseconds since 1970.
        base: Counter of the newest entry of the application that the proposer knew; 0: none.
        phase: How far it has come.
        why: Why it was refused.
    """

    name: ArchiveName
    counter: int
    origin: bytes
    digest: bytes
    size: int
    modified_ms: int
    base: int = 0
    phase: Phase = Phase.PROPOSED
    why: str = ""

    @property
    def order(self) -> tuple[int, bytes, bytes]:
        """Which of two entries of an application is the newer one; equal for the same one."""
        return self.counter, self.origin, self.digest

    @property
    def key(self) -> bytes:
        """What it needs to be held: the content, and as what. Empty for an undeployment."""
        return self.digest + bytes((self.name.kind,)) if self.digest else b""

    @property
    def version(self) -> str:
        """For people and logs."""
        return f"{self.counter}-{self.origin.hex()[:8]}"

    def at(self, phase: Phase, why: str = "") -> Entry:
        """The same in another phase."""
        return replace(self, phase=phase, why=why)


@final
@dataclass(slots=True)
class Slot:
    """What is known of one application.

    Attributes:
        deployed: The last entry that was decided; None: none was.
        proposal: A newer one that is not decided, or was refused.
    """

    deployed: Entry | None = None
    proposal: Entry | None = None

    @property
    def entries(self) -> list[Entry]:
        """Those there are."""
        return [entry for entry in (self.deployed, self.proposal) if entry is not None]

    @property
    def newest(self) -> Entry | None:
        """What is to be, as far as it is known: the open proposal, or what was decided."""
        return self.open or self.deployed

    @property
    def open(self) -> Entry | None:
        """The proposal that is to be decided."""
        entry = self.proposal
        return entry if entry is not None and entry.phase is Phase.PROPOSED else None


@final
@dataclass(frozen=True, slots=True)
class Merged:
    """What an entry changed.

    Attributes:
        is_new: Anything at all.
        superseded: An open proposal that a newer entry replaced before it was decided.
        replaced: A deployed entry that another one replaced.
    """

    is_new: bool = False
    superseded: Entry | None = None
    replaced: Entry | None = None


_NOTHING: Final = Merged()


@final
class Catalogue:
    """All applications' entries."""

    def __init__(self) -> None:
        self._slots: dict[str, Slot] = {}

    def __iter__(self) -> Iterator[tuple[str, Slot]]:
        return iter(sorted(self._slots.items()))

    def get(self, app: str) -> Slot:
        """What is known of an application."""
        return self._slots.get(app) or Slot()

    @property
    def entries(self) -> list[Entry]:
        """All, by application."""
        return [entry for _, slot in self for entry in slot.entries]

    @property
    def highest(self) -> int:
        """The highest counter; 0: there is nothing."""
        return max((entry.counter for entry in self.entries), default=0)

    def has_room(self, app: str) -> bool:
        """Whether an application can be taken in."""
        return app in self._slots or len(self._slots) < APPS_MAX

    def prune(self, wall_ms: int) -> None:
        """Forget what was undeployed long ago."""
        for app, slot in list(self._slots.items()):
            entry = slot.deployed
            is_gone = entry is None or not entry.digest
            newest = max(each.counter for each in slot.entries)
            if is_gone and slot.open is None and newest < wall_ms - UNDEPLOYED_KEPT_MS:
                del self._slots[app]

    def merge(self, entry: Entry) -> Merged:
        """Take an entry in, from here or elsewhere."""
        app = entry.name.app
        if not self.has_room(app):
            return _NOTHING
        slot = self._slots.get(app) or Slot()
        merged = (
            _merge_deployed(slot, entry)
            if entry.phase is Phase.DEPLOYED
            else (_merge_proposal(slot, entry))
        )
        if merged.is_new:
            self._slots[app] = slot
        return merged


def _merge_deployed(slot: Slot, entry: Entry) -> Merged:
    before, proposal = slot.deployed, slot.proposal
    if before is not None and entry.order <= before.order:
        return _NOTHING
    slot.deployed = entry
    superseded = None
    if proposal is not None and proposal.order <= entry.order:
        slot.proposal = None
        if proposal.phase is Phase.PROPOSED and proposal.order != entry.order:
            superseded = proposal
    return Merged(True, superseded, before)


def _merge_proposal(slot: Slot, entry: Entry) -> Merged:
    if slot.deployed is not None and entry.order <= slot.deployed.order:
        return _NOTHING
    before = slot.proposal
    if before is None or entry.order > before.order:
        slot.proposal = entry
        is_open = before is not None and before.phase is Phase.PROPOSED
        return Merged(True, before if is_open else None)
    if entry.order == before.order and entry.phase > before.phase:
        slot.proposal = entry
        return Merged(True)
    return _NOTHING
