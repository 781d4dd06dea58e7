"""What a core tells its driver besides network operations: deliveries, results, events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tribes.membership.change import RemovalReason
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member

__all__ = [
    "ChannelOutput",
    "Deliver",
    "Event",
    "LinkRejected",
    "MemberAdded",
    "MemberRefuted",
    "MemberRemoved",
    "MemberSuspected",
    "MemberUpdated",
    "MembershipEvent",
    "Notice",
    "SendFailed",
    "TicketDone",
]


@dataclass(slots=True)
class Deliver:
    """Hand a message to the listeners; answered by ``delivered(token, error)``.

    At most one delivery per source and ``max_threads`` in all are under way: the core sees to it.
    """

    token: int
    source: Member
    message: ChannelData


@dataclass(slots=True)
class TicketDone:
    """A ``send`` returns now: everything its options promise holds for all destinations but the
    ``faulty`` ones.
    """

    ticket: int
    faulty: dict[Member, Exception]


@dataclass(frozen=True, slots=True)
class Event:
    """Something people may want to know. ``name`` is stable; ``fields`` are plain values."""

    @property
    def name(self) -> str:
        """Stable name for logs and metrics, such as ``member added``."""
        raise NotImplementedError

    def fields(self) -> dict[str, object]:
        """What a structured log line carries."""
        return {}


@dataclass(frozen=True, slots=True)
class MemberAdded(Event):
    """A member joined the view: it was heard, and it answers."""

    member: Member
    view: int

    @property
    def name(self) -> str:
        """``member added``."""
        return "member added"

    def fields(self) -> dict[str, object]:
        """Name of the member, number of the view."""
        return {"member": self.member.label, "address": _address(self.member), "view": self.view}


@dataclass(frozen=True, slots=True)
class MemberUpdated(Event):
    """A member changed its payload or command."""

    member: Member

    @property
    def name(self) -> str:
        """``member updated``."""
        return "member updated"

    def fields(self) -> dict[str, object]:
        """Name of the member."""
        return {"member": self.member.label, "address": _address(self.member)}


@dataclass(frozen=True, slots=True)
class MemberRemoved(Event):
    """A member is gone from the view."""

    member: Member
    reason: RemovalReason
    view: int

    @property
    def name(self) -> str:
        """``member removed``."""
        return "member removed"

    def fields(self) -> dict[str, object]:
        """Name of the member, why, number of the view."""
        return {
            "member": self.member.label,
            "address": _address(self.member),
            "reason": str(self.reason),
            "view": self.view,
        }


@dataclass(frozen=True, slots=True)
class MemberSuspected(Event):
    """A member does not answer; nobody waits for it. ``silent`` is in seconds."""

    member: Member
    silent: float

    @property
    def name(self) -> str:
        """``member suspected``."""
        return "member suspected"

    def fields(self) -> dict[str, object]:
        """Name of the member, for how long it has been silent."""
        return {
            "member": self.member.label,
            "address": _address(self.member),
            "silent_s": round(self.silent, 3),
        }


@dataclass(frozen=True, slots=True)
class MemberRefuted(Event):
    """A suspected member answers again."""

    member: Member

    @property
    def name(self) -> str:
        """``member refuted``."""
        return "member refuted"

    def fields(self) -> dict[str, object]:
        """Name of the member."""
        return {"member": self.member.label, "address": _address(self.member)}


@dataclass(frozen=True, slots=True)
class LinkRejected(Event):
    """A peer broke the protocol and lost its connection.

    ``repeats``: how many like it, of the same host and kind, were not told since the last one.
    """

    peer: tuple[str, int]
    why: str
    repeats: int = 0

    @property
    def name(self) -> str:
        """``link rejected``."""
        return "link rejected"

    def fields(self) -> dict[str, object]:
        """Where it came from, what was wrong, and how often that was not told."""
        fields: dict[str, object] = {"peer": _shown(self.peer), "why": self.why}
        if self.repeats:
            fields["repeats"] = self.repeats
        return fields


@dataclass(frozen=True, slots=True)
class SendFailed(Event):
    """An asynchronous send did not reach some destinations, after its caller had gone on."""

    unique_id: bytes
    faulty: dict[Member, Exception]

    @property
    def name(self) -> str:
        """``send failed``."""
        return "send failed"

    def fields(self) -> dict[str, object]:
        """The members with the reasons."""
        return {"faulty": {m.label: f"{type(e).__name__}: {e}" for m, e in self.faulty.items()}}


@dataclass(frozen=True, slots=True)
class Notice(Event):
    """Anything else worth a log line."""

    text: str
    details: dict[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The text itself."""
        return self.text

    def fields(self) -> dict[str, object]:
        """The details as given."""
        return self.details


def _address(member: Member) -> str:
    return _shown(member.address)


def _shown(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


MembershipEvent = MemberAdded | MemberUpdated | MemberSuspected | MemberRefuted | MemberRemoved
"""What membership listeners get."""

ChannelOutput = Deliver | TicketDone | Event
