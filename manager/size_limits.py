"""Attributes that are too large, or make their session so (``on_oversize``).

Sizes are those of the encoded values and of the whole record, as replicas hold it.  What is refused
costs only itself, like a value that cannot be encoded: the rest of the request is committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from tribes.errors import SessionLimitError

from .record import Kind, Namespace, Record, read_entry, size

if TYPE_CHECKING:
    from collections.abc import Callable

    from .changes import Change
    from .reading import Reading
    from .rules import Rules

__all__ = ["SizeLimits"]

_ATTRIBUTE: Final = int(Namespace.ATTRIBUTE)
_TOMBSTONE: Final = int(Kind.TOMBSTONE)


@final
class SizeLimits:
    """The limits of one manager.

    Args:
        rules: Say how much is too much, and what becomes of it.
        report: Gets level, event and fields of a log line.

    Attributes:
        exceeded: Attributes that were too large, refused or reported.
    """

    __slots__ = ("_report", "_rules", "exceeded")

    def __init__(self, rules: Rules, report: Callable[[str, str, dict[str, object]], None]) -> None:
        self._rules = rules
        self._report = report
        self.exceeded = 0

    def check(self, changes: list[Change], failed: dict[str, Exception]) -> None:
        """Take attributes that are too large out of a request's changes; say why in ``failed``."""
        self._refuse(_too_large(changes, self._rules.attribute_max_bytes), changes, failed)

    def check_session(
        self,
        record: Record,
        seen: Reading | None,
        changes: list[Change],
        failed: dict[str, Exception],
    ) -> bool:
        """Take out the attribute that grows most, if the session would be too large.

        Args:
            record: What the changes would make of the session.
            seen: The session as the request found it.
            changes: Of the request.
            failed: Gets what is refused.

        Returns:
            Whether one was taken out, so that the commit must be built again.
        """
        found = _largest(changes, record, seen, self._rules.session_max_bytes)
        return self._refuse(found, changes, failed)

    def _refuse(
        self,
        found: dict[str, SessionLimitError],
        changes: list[Change],
        failed: dict[str, Exception],
    ) -> bool:
        if not found:
            return False
        self.exceeded += len(found)
        if self._rules.warns_of_size:
            for name, error in found.items():
                fields: dict[str, object] = {"attribute": name, "error": str(error)}
                self._report("warning", "session attribute is large", fields)
            return False
        failed.update(found)
        changes[:] = [change for change in changes if _attribute_of(change) not in found]
        return True


def _attribute_of(change: Change) -> str | None:
    """Return the name of the attribute that a change gives a value; None: it gives none one."""
    if change.namespace != _ATTRIBUTE or change.kind == _TOMBSTONE:
        return None
    return change.name.decode()


def _too_large(changes: list[Change], limit: int) -> dict[str, SessionLimitError]:
    """Return the attributes of more than ``limit`` bytes, and why; none if that is 0."""
    found = {}
    for change in changes:
        name = _attribute_of(change)
        if limit > 0 and name is not None and len(change.value) > limit:
            found[name] = SessionLimitError(
                f"the attribute {name!r} has {len(change.value):,} bytes; the most is {limit:,} "
                "(manager.attribute_max_bytes): store less, or a reference to it"
            )
    return found


def _largest(
    changes: list[Change], record: Record, seen: Reading | None, limit: int
) -> dict[str, SessionLimitError]:
    """Return the attribute that grows most, and why, if the session has more than ``limit`` bytes.

    Args:
        changes: Of the commit.
        record: What it would make of the session.
        seen: The session as the request found it.
        limit: The most bytes.
    """
    total = size(record)
    if limit <= 0 or total <= limit:
        return {}
    growth = {}
    for change in changes:
        name = _attribute_of(change)
        if name is not None:
            growth[name] = len(change.value) - _size_before(change, seen)
    if not growth or max(growth.values()) <= 0:
        return {}  # It only became smaller: keeping the session from that would help nobody.
    name = max(growth, key=growth.__getitem__)
    return {
        name: SessionLimitError(
            f"with the attribute {name!r}, {growth[name]:,} bytes more, the session has {total:,} "
            f"bytes; the most is {limit:,} (manager.session_max_bytes): store less, or references"
        )
    }


def _size_before(change: Change, seen: Reading | None) -> int:
    span = None if seen is None else seen.index(_ATTRIBUTE).get(change.name)
    return 0 if span is None or seen is None else len(read_entry(seen.record, span).value)
