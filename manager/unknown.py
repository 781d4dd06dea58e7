"""What later releases put into sessions: carried for those who understand it, and told of once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from .layout import Kind, Namespace, find_head

if TYPE_CHECKING:
    from .record import Record

__all__ = ["UnknownEntries"]

_KINDS: Final = frozenset(Kind)
_NAMESPACES: Final = frozenset(Namespace)
_IS_UNKNOWN: Final = tuple(
    head >> 4 not in _NAMESPACES or head & 15 not in _KINDS for head in range(256)
)


@final
class UnknownEntries:
    """Warns of entries that other members write and nobody here reads (Tomcat: an unknown action).

    Once for each kind in a namespace, so 256 times at most.

    Args:
        report: Gets level, event and fields of log lines.
    """

    __slots__ = ("_is_new", "_report")

    def __init__(self, report: Callable[[str, str, dict[str, object]], None]) -> None:
        self._report = report
        self._is_new = list(_IS_UNKNOWN)

    def look(self, record: Record) -> None:
        """Look through what a member has sent."""
        main = record if isinstance(record, bytes) else record[0]
        while (head := find_head(main, self._is_new)) >= 0:
            self._is_new[head] = False
            self._report(
                "warning",
                "session data of a newer version",
                {"namespace": head >> 4, "kind": head & 15},
            )
