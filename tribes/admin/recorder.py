"""What has happened lately: failures, and rates second by second."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, final

from tribes.channel.outputs import MemberRemoved, MemberSuspected, Notice, SendFailed

if TYPE_CHECKING:
    from tribes.channel.outputs import Event

__all__ = ["FAILURES_MAX", "SAMPLES_MAX", "Failures", "Rates"]

FAILURES_MAX: Final = 50
SAMPLES_MAX: Final = 120
_TEXT_MAX: Final = 300

_FINE: Final = frozenset(
    {
        *("joined", "member draining", "discovery works again", "multicast recovered"),
        "interceptors",
    }
)
"""Notices that tell of no failure."""


@final
class Failures:
    """The last events that an operator should know of, the newest last.

    Args:
        wall: Reads the wall clock, in seconds.
    """

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._kept: deque[dict[str, Any]] = deque(maxlen=FAILURES_MAX)
        self.seen = 0
        """All of them since the start."""

    def watch(self, event: Event) -> None:
        """See an event of the node, in its loop."""
        if not _is_failure(event):
            return
        self.note(event.name, event.fields())

    def note(self, name: str, fields: Mapping[str, object]) -> None:
        """Keep something that is no event of the channel's."""
        self.seen += 1
        shown = {name: _short(value) for name, value in fields.items()}
        self._kept.append({"at_ms": int(self._wall() * 1000), "event": name, "fields": shown})

    @property
    def last(self) -> list[dict[str, Any]]:
        """Time, name and fields of each."""
        return list(self._kept)


def _is_failure(event: Event) -> bool:
    match event:
        case MemberSuspected() | SendFailed():
            return True
        case MemberRemoved():
            return event.fields().get("reason") != "left"
        case Notice():
            return event.name not in _FINE
        case _:
            return event.name == "link rejected"


def _short(value: object) -> Any:
    """Text of others, and of errors, is shown up to a bound."""
    if isinstance(value, bool | int | float) or value is None:
        return value
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= _TEXT_MAX else text[:_TEXT_MAX] + "…"


@final
class Rates:
    """What counters grew by, each second of the last two minutes.

    Args:
        read: Gives the counters now. A name is there from the first time on.
    """

    def __init__(self, read: Callable[[], Mapping[str, int]]) -> None:
        self._read = read
        self._last: Mapping[str, int] = {}
        self._at: float | None = None
        self._series: dict[str, deque[float]] = {}

    def sample(self, now: float) -> None:
        """Take a sample.

        Args:
            now: Monotonic seconds.
        """
        counters = dict(self._read())
        if self._at is not None and now > self._at:
            seconds = now - self._at
            for name, value in counters.items():
                series = self._series.setdefault(name, deque(maxlen=SAMPLES_MAX))
                # A manager's counters can be reset, which is no negative rate.
                series.append(round(max(0, value - self._last.get(name, 0)) / seconds, 2))
        self._last, self._at = counters, now

    @property
    def series(self) -> dict[str, list[float]]:
        """Per second, the newest last."""
        return {name: list(values) for name, values in self._series.items()}
