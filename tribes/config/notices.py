"""What a configuration says that is not simply honoured: for people, one line each."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import final

__all__ = ["Kind", "Notice"]


@final
class Kind(enum.Enum):
    """Why there is a notice."""

    UNKNOWN = "unknown"
    """Neither Tomcat nor this program knows the name. Tomcat logs a warning and goes on."""
    NOT_SUPPORTED = "not supported"
    """Tomcat would do something that does not happen here."""
    ELSEWHERE = "elsewhere"
    """It is set in another place than the node's configuration."""
    MAPPED = "mapped"
    """It is done in another way."""
    NO_EFFECT = "no effect"
    """There is nothing here that it could change."""
    REPAIRED = "repaired"
    """The document was not quite right, and read all the same."""


@final
@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to know about a configuration.

    Attributes:
        kind: Why.
        path: Where: the elements from the outermost, ``Cluster/Channel/Receiver``.
        name: The attribute, or what else was found.
        found: Its value; ``<hidden>`` if it may be secret.
        what: What happens, and what to write instead.
        line: Line of the element, from 1; 0: unknown.
    """

    kind: Kind
    path: str
    name: str
    found: str
    what: str
    line: int = 0

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        value = f'="{self.found}"' if self.found else ""
        path = f"{self.path} " if self.path else ""
        return f"{where}{path}{self.name}{value}: {self.kind.value}: {self.what}"
