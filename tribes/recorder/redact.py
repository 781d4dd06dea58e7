"""Steps without their contents, for a recording that may be shown to others."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from tribes.channel.outputs import Event, Notice
from tribes.recorder.inputs import event_fields

if TYPE_CHECKING:
    from tribes.recorder.ring import Step

__all__ = ["without_contents"]

_TEXT_MAX: Final = 300
"""Characters of a text that stands in the log anyway."""

_PARTS_MAX: Final = 1000
"""Parts of a list or a dict that are told of."""


def without_contents(step: Step, salt: bytes) -> list[Any]:
    """Return a step as a file has it: lengths and salted digests instead of bytes and texts."""
    events = [
        [each.name, _short(event_fields(each)) if _is_logged(each) else {}] for each in step.events
    ]
    return [
        *(step.op, step.at, _blank(step.args, salt), [], len(step.changes), 0, step.raised),
        events,
    ]


def _is_logged(event: Event) -> bool:
    # What stands in the log anyway. Events of sessions name them, and what is in them.
    return type(event).__module__ == Notice.__module__


def _short(fields: dict[str, Any]) -> dict[str, Any]:
    return {n: v[:_TEXT_MAX] if isinstance(v, str) else v for n, v in fields.items()}


def _blank(value: Any, salt: bytes) -> Any:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else 0
    if isinstance(value, str):
        value = value.encode("utf-8", "replace")
    if isinstance(value, bytes | bytearray | memoryview):
        digest = blake2b(value, key=salt, digest_size=8).hexdigest()
        return f"{len(value)} bytes, {digest}"
    if isinstance(value, list | tuple):
        return [_blank(each, salt) for each in value[:_PARTS_MAX]]
    if isinstance(value, dict):
        return [_blank(each, salt) for each in list(value.values())[:_PARTS_MAX]]
    return type(value).__name__
