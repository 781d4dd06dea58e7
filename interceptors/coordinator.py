"""One member that all agree on: the first in absolute order, once the membership is quiet.

Tomcat's ``SimpleCoordinator`` (tribes-wire §7.12). Nothing is sent: every member sorts what it
sees, so two that see different members have different coordinators for as long as they do.
`NonBlockingCoordinator` asks the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tribes.channel.chain import Interceptor, MembersNext
from tribes.channel.outputs import Event
from tribes.errors import ConfigError
from tribes.membership.change import ChangeKind, MemberChange

if TYPE_CHECKING:
    from tribes.timers import Timer
    from tribes.wire.member import Member

__all__ = ["Coordinator", "CoordinatorElected", "SimpleCoordinator"]


@dataclass(frozen=True, slots=True)
class CoordinatorElected(Event):
    """There is a new view, with the member that coordinates it."""

    coordinator: Member
    members: tuple[Member, ...]

    @property
    def name(self) -> str:
        """``coordinator elected``."""
        return "coordinator elected"

    def fields(self) -> dict[str, object]:
        """Name of the coordinator, number of members."""
        return {"coordinator": self.coordinator.label, "members": len(self.members)}


class Coordinator(Interceptor):
    """What the coordinators share: the members below, and the view that was agreed on."""

    def __init__(self, *, option_flag: int = 0) -> None:
        self.option_flag = option_flag
        self.view: tuple[Member, ...] = ()
        """The members of the agreed view, the own one among them, in absolute order."""
        self._others: dict[Member, Member] = {}

    @property
    def coordinator(self) -> Member | None:
        """Who coordinates; None before the first view."""
        return self.view[0] if self.view else None

    @property
    def is_coordinator(self) -> bool:
        """Whether the own member coordinates."""
        return self.coordinator == self.context.local

    @property
    def membership(self) -> tuple[Member, ...]:
        """All members that are seen now, the own one among them, in absolute order."""
        everybody = (self.context.local, *self._others.values())
        return tuple(sorted(everybody, key=lambda member: member.sort_key))

    def on_members(self, change: MemberChange, now: float, next: MembersNext) -> None:  # noqa: A002
        """Note who is there."""
        if change.kind is ChangeKind.REMOVED:
            self._others.pop(change.member, None)
        else:
            self._others[change.member] = change.member
        next(change, now)
        if change.kind is not ChangeKind.UPDATED:
            self.changed(change, now)

    def changed(self, change: MemberChange, now: float) -> None:
        """A member came or went."""

    def install(self, members: tuple[Member, ...]) -> None:
        """Take a view."""
        self.view = members
        self.context.event(CoordinatorElected(members[0], members))


class SimpleCoordinator(Coordinator):
    """Takes the first member in absolute order for the coordinator.

    Args:
        quiet: Milliseconds without a change before a view is taken. Tomcat: 10 times 250.
        option_flag: Has no effect (``optionFlag``).
    """

    def __init__(self, *, quiet: int = 2500, option_flag: int = 0) -> None:
        if quiet < 0:
            raise ConfigError(f"must be at least 0, found {quiet}", key="quiet")
        super().__init__(option_flag=option_flag)
        self.quiet = quiet
        self._timer: Timer | None = None

    def start(self, now: float) -> None:
        """Wait for the membership to settle."""
        self._wait(now)

    def changed(self, change: MemberChange, now: float) -> None:
        """Wait anew."""
        del change
        self._wait(now)

    def _wait(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()

        def settled(_: float) -> None:
            if not self.context.is_shut_down() and self.membership != self.view:
                self.install(self.membership)

        self._timer = self.context.timers.at(now + self.quiet / 1000, settled)
