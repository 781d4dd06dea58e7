"""That another member's write replaced one of this process which its writer had not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tribes.channel.outputs import Event

if TYPE_CHECKING:
    from .record import Entry

__all__ = ["SessionConflict"]


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
