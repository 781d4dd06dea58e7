"""What a request does whose commit is on too few members (DESIGN §5.4).

The commit itself stands whatever is decided here: it is in this node's table, and repair brings it
to the members that lack it. The policy only decides what its request is told, counts that, and says
it to the operator, once per `REPORT_INTERVAL_S` and context, because a member that hangs makes
every commit incomplete and a line for each would be the next outage.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal, final

from tribes.errors import ConfigError, SessionNotReplicatedError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from .inbox import CommitResult

__all__ = ["CommitPolicy", "OnUnreplicated", "check_on_unreplicated"]

OnUnreplicated = Literal["serve", "error"] | Callable[["CommitResult"], None]
"""``"serve"``: go on. ``"error"``: raise `SessionNotReplicatedError`. A function gets the result:
what it raises is raised, and if it returns, the request goes on. It must not block.
"""

REPORT_INTERVAL_S: Final = 10.0
MEMBERS_MAX: Final = 8
"""Members that one report names."""
REASON_MAX_CHARS: Final = 200


@final
class CommitPolicy:
    """The decision for the commits of one context, and its counters. For any thread.

    Args:
        context: The web application; named in reports.
        lock: Guards the counters; held for a few instructions.
        monotonic: Reads the monotonic clock in seconds.
        on_unreplicated: What to do, unless a call says otherwise.
        min_copies: A commit that fewer other members acknowledged is unreplicated too.
        report: Gets the fields of a log line, in the thread of the request.

    Attributes:
        incomplete: Results that named missing members.
        served: Unreplicated commits whose requests went on.
        refused: Unreplicated commits whose requests got an error.
    """

    __slots__ = (
        "_context",
        "_lock",
        "_monotonic",
        "_report",
        "_report_at",
        "_unreported",
        "incomplete",
        "min_copies",
        "on_unreplicated",
        "refused",
        "served",
    )

    def __init__(
        self,
        context: str,
        lock: AbstractContextManager[Any],
        *,
        monotonic: Callable[[], float],
        on_unreplicated: OnUnreplicated = "serve",
        min_copies: int = 0,
        report: Callable[[dict[str, object]], None] | None = None,
    ) -> None:
        self.on_unreplicated = on_unreplicated
        self.min_copies = min_copies
        self.incomplete = 0
        self.served = 0
        self.refused = 0
        self._context = context
        self._lock = lock
        self._monotonic = monotonic
        self._report = report
        self._report_at: float | None = None
        self._unreported = 0

    def is_unreplicated(self, result: CommitResult) -> bool:
        """Whether a member is missing, or fewer than ``min_copies`` have the commit.

        A node that is alone has nobody missing: with ``min_copies`` of 1 its commits are
        unreplicated, with 0 they are not.
        """
        return bool(result.missing) or len(result.acked) < self.min_copies

    def judge(
        self,
        result: CommitResult,
        on_unreplicated: OnUnreplicated | None = None,
        *,
        can_refuse: bool = True,
    ) -> None:
        """Count a result that was waited for, and decide whether its request may go on.

        Args:
            result: What the members said.
            on_unreplicated: What to do; None: the policy's own.
            can_refuse: False when it is too late for an error; then it is served and counted so.

        Raises:
            SessionNotReplicatedError: The commit is unreplicated, and that is an error here.
            Exception: Whatever a function given as ``on_unreplicated`` raised.
        """
        if not self.is_unreplicated(result):
            return
        choice = self.on_unreplicated if on_unreplicated is None else on_unreplicated
        refusal: Exception | None = None
        if callable(choice):
            try:
                choice(result)
            except Exception as error:  # noqa: BLE001 - its way to say no; raised again below
                refusal = error
        elif choice == "error":
            refusal = SessionNotReplicatedError(result)
        is_refused = refusal is not None and can_refuse
        report = self._count(result, is_refused=is_refused)
        if report is not None and self._report is not None:
            self._report(report)
        if refusal is not None and can_refuse:
            raise refusal

    def _count(self, result: CommitResult, *, is_refused: bool) -> dict[str, object] | None:
        now = self._monotonic()
        with self._lock:
            if result.missing:
                self.incomplete += 1
            if is_refused:
                self.refused += 1
            else:
                self.served += 1
            if self._report_at is not None and now - self._report_at < REPORT_INTERVAL_S:
                self._unreported += 1
                return None
            unreported, self._unreported = self._unreported, 0
            self._report_at = now
        # Names and reasons of members only: a session's id or content is nobody's to log.
        missing = {
            name: why[:REASON_MAX_CHARS]
            for name, why in islice(result.missing.items(), MEMBERS_MAX)
        }
        return {
            "context": self._context,
            "missing": missing,
            "missing_count": len(result.missing),
            "acked_count": len(result.acked),
            "min_copies": self.min_copies,
            "refused": is_refused,
            "like_it_since_last_line": unreported,
        }


def check_on_unreplicated(value: object, *, waits: bool) -> None:
    """Refuse an ``on_unreplicated`` argument that cannot work.

    Args:
        value: The argument; None is fine.
        waits: Whether commits wait for members at all.

    Raises:
        ConfigError: It is none of what it may be, or would never be asked.
    """
    if value is None:
        return
    if not callable(value) and value not in ("serve", "error"):
        raise ConfigError(
            f"must be 'serve', 'error' or a function of a CommitResult, found {value!r}",
            key="on_unreplicated",
        )
    if value != "serve" and not waits:
        raise ConfigError(
            "no commit waits for the members here, so it would never be asked; write "
            "channel_send_options = 6 (2: received is enough) in the manager's configuration",
            key="on_unreplicated",
        )
