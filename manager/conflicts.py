"""That another member's write replaced one of this process which its writer had not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tribes.channel.outputs import Event

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tribes.channel.core import ChannelCore

    from .base import SessionManager
    from .record import Entry

__all__ = ["SessionConflict", "tell_conflicts"]


@dataclass(frozen=True, slots=True)
class SessionConflict(Event):
    """A write of this process is lost; ``SessionManager.on_conflict`` is to be told."""

    context: str
    key: str
    lost: Entry
    won: Entry

    @property
    def name(self) -> str:
        """``session conflict``."""
        return "session conflict"

    def fields(self) -> dict[str, object]:
        """Context, attribute, and the first digits of the key, which is a secret; no value."""
        attribute = self.lost.name.decode()
        return {"context": self.context, "session": self.key[:8] + "…", "attribute": attribute}


def tell_conflicts(
    manager: SessionManager, channel: ChannelCore, key: str, losses: Iterable[tuple[Entry, Entry]]
) -> None:
    """Let the application know of writes of this process that were lost, if it wants to."""
    if manager.on_conflict is not None:
        for lost, won in losses:
            channel.event(SessionConflict(manager.context, key, lost, won))
