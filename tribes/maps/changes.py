"""What happened to a map, for those who want to be told."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tribes.errors import AttributeUnreadableError

if TYPE_CHECKING:
    from tribes.manager.values import ValueCodec
    from tribes.maps.keys import MapKey
    from tribes.wire.member import Member

__all__ = ["ChangeKind", "EntryChange", "MapChange", "MapMemberChange"]


class ChangeKind(enum.Enum):
    """What happened to an entry."""

    ADDED = "added"
    UPDATED = "updated"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class MapChange:
    """One entry changed on this member.

    Attributes:
        kind: How.
        key: Of the entry.
        value: After the change, a copy; None when it was removed.
        old: Before the change, a copy; None when it was added. A value that cannot be read here is
            the `AttributeUnreadableError` itself.
        is_local: This process changed it; else another member did.
    """

    kind: ChangeKind
    key: MapKey
    value: Any
    old: Any
    is_local: bool


@dataclass(frozen=True, slots=True)
class EntryChange:
    """A `MapChange` with its values still encoded: decoding may call the application's classes, so
    it is done outside the core.
    """

    kind: ChangeKind
    key: MapKey
    value: bytes | None
    old: bytes | None
    is_local: bool

    def read(self, codec: ValueCodec) -> MapChange:
        """Decode the values."""
        value, old = _decoded(self.value, codec), _decoded(self.old, codec)
        return MapChange(self.kind, self.key, value, old, self.is_local)


def _decoded(data: bytes | None, codec: ValueCodec) -> Any:
    if data is None:
        return None
    try:
        return codec.decode(data)
    except AttributeUnreadableError as why:
        return why


@dataclass(frozen=True, slots=True)
class MapMemberChange:
    """A member began or ceased to have the map (Tomcat: ``mapMemberAdded``).

    Attributes:
        member: Which.
        is_added: It has the map now.
    """

    member: Member
    is_added: bool
