"""One commit of an attached worker, from the request that makes it to the node's answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, final

from .record import Namespace

if TYPE_CHECKING:
    from tribes.errors import TribesError

    from .changes import Built, Change
    from .inbox import Waiter
    from .reading import Reading
    from .record import Record
    from .session import Session

__all__ = ["REMOVED", "Work", "newer_values"]

REMOVED: Final = object()
"""In place of a value: there is none any more."""


@final
@dataclass(slots=True)
class Work:
    """One commit on its way.

    Attributes:
        key: Of the session.
        changes: What the request did.
        failed: What could not be encoded, or is too large.
        seen: The record that the request read.
        created: hlc of the session's creation.
        timeout_s: For each time that it is sent.
        waits: The node is to answer when the members have it.
        waiter: Told when it is over.
        current: What it was built for.
        built: The result; None: an end, or nothing to do.
        version: Its hlc; 0: there is nothing to commit.
        actor: Whose; another one is lent with the next connection.
        wire: The delta.
        is_end: The session is to end.
        is_gone: It had ended.
        is_unknown: The node may have it or not.
        was_unknown: It was so once, and the request may have gone on meanwhile.
        error: Why it does not stand.
        acked: Members that have it.
        missing: Members that lack it.
        after: The session as it is, if a write of ours was overwritten before it arrived.
    """

    key: str
    changes: list[Change]
    failed: dict[str, Exception]
    seen: Reading | None
    created: int
    timeout_s: float = 0.0
    waits: bool = False
    waiter: Waiter | None = None
    current: Record | None = None
    built: Built | None = None
    version: int = 0
    actor: int = 0
    wire: bytes = b""
    is_end: bool = False
    is_gone: bool = False
    is_unknown: bool = False
    was_unknown: bool = False
    error: TribesError | None = None
    acked: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    after: Record | None = None
    rounds: int = 0


def newer_values(session: Session, work: Work) -> dict[str, Any]:
    """What a request has assigned, or `REMOVED`, since a commit was built."""
    built = {change.name: change.value for change in work.changes}
    later = [each for each in session.changes({}) if each.namespace == Namespace.ATTRIBUTE]
    names = [each.name.decode() for each in later if built.get(each.name) != each.value]
    return {name: session.get(name, REMOVED) for name in names}
