"""What Tomcat's ReplicationValve adds to a request's commit (tomcat-sessions §8).

Only what a request changed is sent in any case, so its filter saves the wait: a request whose path
matches is answered at once, and what it changed travels in order before what the next one changes.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, final

import structlog

if TYPE_CHECKING:
    from tribes.config.valves import ReplicationConfig

__all__ = ["ReplicationValve", "ValveStatistics"]

log = structlog.get_logger("tribes")


@final
class ValveStatistics:
    """Counters of one application, plain ints; times are in seconds."""

    __slots__ = (
        *("cross_context_sent", "filtered", "last_send_s"),
        *("request_s", "requests", "send_s", "sent"),
    )

    def __init__(self) -> None:
        self.requests = 0
        self.filtered = 0
        self.sent = 0
        """Commits that did not have to be refused."""
        self.cross_context_sent = 0
        """Of them, those of requests that another application made, with a session of its own."""
        self.request_s = 0.0
        """From finding the session to its last commit."""
        self.send_s = 0.0
        """Of it, what commits took."""
        self.last_send_s = 0.0


@final
class ReplicationValve:
    """The settings as they are now, and the counters.

    Args:
        config: What to begin with; its filter is a regular expression.

    Attributes:
        statistics: Since the start, or the last `reset`.
    """

    def __init__(self, config: ReplicationConfig) -> None:
        self.statistics = ValveStatistics()
        self.indicator = config.primary_indicator_name if config.primary_indicator else ""
        self._filter: re.Pattern[str] | None = None
        self.pattern = config.filter

    @property
    def pattern(self) -> str:
        """The regular expression; empty: none. One that is none leaves the one before."""
        return "" if self._filter is None else self._filter.pattern

    @pattern.setter
    def pattern(self, text: str) -> None:
        try:
            self._filter = re.compile(text) if text else None
        except re.error as why:
            kept = self.pattern
            log.error("filter is no regular expression", found=text, why=str(why), kept=kept)

    def is_filtered(self, path: str) -> bool:
        """Whether a path, decoded, with the context's and without the query, matches in whole."""
        return self._filter is not None and self._filter.fullmatch(path) is not None

    def reset(self) -> None:
        """Begin to count anew."""
        self.statistics = ValveStatistics()

    def begin(self, *, is_filtered: bool) -> float:
        """A request begins; the time, in monotonic seconds, for `sent`."""
        self.statistics.requests += 1
        self.statistics.filtered += is_filtered
        return time.monotonic()

    def sent(self, since: float, commit_began: float, *, is_included: bool = False) -> float:
        """A request's changes are committed.

        Args:
            since: What `begin` returned, or this for the request's commit before.
            commit_began: When this commit did, in monotonic seconds.
            is_included: Another application has made the request.

        Returns:
            The time.
        """
        now, statistics = time.monotonic(), self.statistics
        statistics.sent += 1
        statistics.cross_context_sent += is_included
        statistics.request_s += now - since
        statistics.last_send_s = now - commit_began
        statistics.send_s += statistics.last_send_s
        return now
