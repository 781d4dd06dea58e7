"""The view: who is a member now, as one immutable list with a number."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tribes.wire.member import Member

__all__ = ["View", "ViewBuilder"]


@dataclass(frozen=True, slots=True)
class View:
    """One membership as this node sees it.

    Attributes:
        number: Grows by one with every member that comes or goes.
        members: The other members, the longest-lived first (tribes-wire §2.3).
        suspected: Those among them that do not answer now. A change of this set alone makes no new
            view and no new number.
    """

    number: int = 0
    members: tuple[Member, ...] = ()
    suspected: frozenset[Member] = frozenset()
    _set: frozenset[Member] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_set", frozenset(self.members))

    def __contains__(self, member: object) -> bool:
        return member in self._set


class ViewBuilder:
    """Keeps the current view in step with the changes that reach the top of the chain.

    A view is made when somebody looks: hundreds of members that join in one moment would otherwise
    cost their number squared.
    """

    def __init__(self) -> None:
        self.number = 0
        """The present view's."""
        self._view: View | None = View()
        self._started: dict[Member, tuple[float, Member]] = {}
        self._suspected: frozenset[Member] = frozenset()

    @property
    def current(self) -> View:
        """The present view."""
        if self._view is None:
            ordered = sorted(self._started.values(), key=_by_start)
            members = tuple([record for _, record in ordered])
            self._view = View(self.number, members, self._suspected)
        return self._view

    @property
    def suspected(self) -> frozenset[Member]:
        """The present view's."""
        return self._suspected

    def __contains__(self, member: Member) -> bool:
        return member in self._started

    def add(self, member: Member, now: float) -> bool:
        """Add a member, or refresh its record; True when it is new."""
        known = self._started.get(member)
        # Alive times are compared as starting points: they are heard at different moments.
        started = now - member.alive / 1000 if known is None else known[0]
        self._started[member] = (started, member)
        self._changed(1 if known is None else 0)
        return known is None

    def remove(self, member: Member) -> bool:
        """Remove a member; False when it was none."""
        if self._started.pop(member, None) is None:
            return False
        self._suspected -= {member}
        self._changed(1)
        return True

    def suspect(self, member: Member, *, is_suspected: bool) -> None:
        """Note that a member does not answer, or does again."""
        self._suspected = self._suspected - {member}
        if is_suspected and member in self._started:
            self._suspected |= {member}
        self._changed(0)

    def get(self, member: Member) -> Member | None:
        """The newest record of a member."""
        known = self._started.get(member)
        return None if known is None else known[1]

    def up_since(self, member: Member) -> float | None:
        """When a member was started, by the clock that ``add`` was given; None: it is none."""
        known = self._started.get(member)
        return None if known is None else known[0]

    def _changed(self, step: int) -> None:
        self.number += step
        self._view = None


def _by_start(known: tuple[float, Member]) -> float:
    return known[0]
