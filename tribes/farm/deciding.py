"""The second phase: who decides on a proposal, and how."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from tribes.farm.catalogue import Phase
from tribes.farm.messages import WHY_MAX_CHARS, Report, Standing

if TYPE_CHECKING:
    from tribes.farm.catalogue import Entry

__all__ = ["Standpoint", "decide", "is_decider"]

_READY = (Standing.READY, Standing.DEPLOYED)
_AFTER_ALL = b"\xff" * 17


@final
@dataclass(frozen=True, slots=True)
class Standpoint:
    """How one member stands to a proposal.

    Attributes:
        label: Its name.
        report: What it says.
        moved_at: When that last changed, in monotonic seconds.
        is_own: It is this member, which gives up by itself.
    """

    label: str
    report: Report
    moved_at: float
    is_own: bool = False


def is_decider(local: bytes, entry: Entry, others: Collection[bytes]) -> bool:
    """Whether this member decides: the proposer, or when that is gone the one with the lowest id.

    Args:
        local: Its unique id.
        entry: The proposal.
        others: Unique ids of the other members that take part.
    """
    if entry.origin == local or entry.origin in others:
        return entry.origin == local
    return local < min(others, default=_AFTER_ALL)


def decide(standpoints: Iterable[Standpoint], now: float, limit_s: float) -> tuple[Phase, str]:
    """The phase that a proposal gets, and why it is refused; ``PROPOSED``: it is too early.

    Args:
        standpoints: Of all members that take part.
        now: Monotonic seconds.
        limit_s: So long a member may bring nothing.
    """
    all_ready = True
    for each in standpoints:
        report = each.report
        all_ready &= report.standing in _READY
        if report.standing is Standing.FAILED:
            return Phase.REFUSED, f"{each.label}: {report.why}"[:WHY_MAX_CHARS]
        is_still = report.standing is Standing.LACKS and now - each.moved_at > limit_s
        if is_still and not each.is_own:
            why = f"{each.label}: nothing came of it for {limit_s:g} s"
            return Phase.REFUSED, why[:WHY_MAX_CHARS]
    return (Phase.DEPLOYED if all_ready else Phase.PROPOSED), ""
