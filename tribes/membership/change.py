"""What happens to the membership, as records that travel up the interceptor chain."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tribes.wire.member import Member

__all__ = ["ChangeKind", "MemberChange", "RemovalReason"]


class ChangeKind(enum.Enum):
    """What a :class:`MemberChange` says of its member."""

    ADDED = "added"
    UPDATED = "updated"
    REMOVED = "removed"


class RemovalReason(enum.StrEnum):
    """Why a member is no longer one."""

    NONE = ""
    LEFT = "left"
    """It said so: its last heartbeat carried the shutdown command."""
    SILENT = "silent"
    """Nothing was heard for ``drop_time``, and it did not answer when asked."""
    CRASHED = "crashed"
    """Its connection ended, and its port refuses a new one."""
    REPLACED = "replaced"
    """Another incarnation announces the same address and port."""


@dataclass(frozen=True, slots=True)
class MemberChange:
    """One change of the membership. ``member`` is the newest record known of it."""

    kind: ChangeKind
    member: Member
    reason: RemovalReason = RemovalReason.NONE
