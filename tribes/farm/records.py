"""What a farm's core keeps: the members, what an earlier process has left, counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from tribes.farm.catalogue import Entry
    from tribes.farm.messages import Report
    from tribes.farm.transfer import Part

__all__ = ["FarmStatistics", "Kept", "Peer"]


@final
@dataclass(slots=True)
class Peer:
    """A member of the view.

    Attributes:
        label: Its name, for people.
        since: When it came into the view.
        has_farm: Whether it takes part, as far as it has said.
        hello_at: When it is to be greeted again.
        keys: Contents that it has.
        reports: How it stands, by the order of the entry.
        moved_at: When its standing to anything last changed.
        serving: Pieces that are being read for it.
    """

    label: str
    since: float
    has_farm: bool = False
    hello_at: float = 0.0
    keys: frozenset[bytes] = frozenset()
    reports: dict[tuple[int, bytes, bytes], Report] = field(default_factory=dict)
    moved_at: float = 0.0
    serving: int = 0


@final
@dataclass(frozen=True, slots=True)
class Kept:
    """What an earlier process has left on the disk.

    Attributes:
        entries: What it knew.
        keys: Contents that are verified and unpacked.
        installed: Key of what is in place, by application.
        parts: Transfers that were under way.
        previous: Keys of what was in place before, by application.
    """

    entries: tuple[Entry, ...] = ()
    keys: frozenset[bytes] = frozenset()
    installed: Mapping[str, bytes] = field(default_factory=dict)
    parts: Mapping[bytes, Part] = field(default_factory=dict)
    previous: Mapping[str, bytes] = field(default_factory=dict)


@final
@dataclass(slots=True)
class FarmStatistics:
    """What has happened since the start.

    Attributes:
        proposed: Deployments and undeployments that began here.
        deployed: Archives put in place.
        undeployed: Applications taken away.
        refused: Proposals that were refused, by whomever.
        superseded: Proposals and deployments that a newer one of another member replaced.
        fetched_bytes: Bytes of archives received.
        served_bytes: Bytes of archives sent.
        duplicates: Pieces that came twice, or that nobody had asked for.
        corrupt: Contents whose digest was wrong.
        abandoned: Transfers that were given up.
        resumed: Transfers that went on where an earlier process had left them.
        rejected: Messages that were not understood, or not from a member that may speak.
    """

    proposed: int = 0
    deployed: int = 0
    undeployed: int = 0
    refused: int = 0
    superseded: int = 0
    fetched_bytes: int = 0
    served_bytes: int = 0
    duplicates: int = 0
    corrupt: int = 0
    abandoned: int = 0
    resumed: int = 0
    rejected: int = 0
