"""How long a link takes there and back, by what travels on it anyway.

One question is timed at a time: the opening of a connection, a frame that the member acknowledges,
or a PING. A frame that is written again on another connection is not timed, since nobody can say
which writing was answered (Karn's rule, RFC 6298 §3).
"""

from __future__ import annotations

from typing import Final, final

__all__ = ["PING", "RoundTrip"]

PING: Final = 0
"""Stands for a PING, and for the HELLO of a connection, where positions of frames begin at 1."""

_SHARE: Final = 1 / 8
"""Of a new measurement in the smoothed one, as in RFC 6298 §2."""


@final
class RoundTrip:
    """The time between the writing of a question and its answer.

    Attributes:
        seconds: Smoothed; None until the first answer.
    """

    __slots__ = ("_asked_at", "_question", "seconds")

    def __init__(self) -> None:
        self.seconds: float | None = None
        self._question: int | None = None
        self._asked_at = 0.0

    def asked(self, question: int, now: float) -> None:
        """Something is written that will be answered; not timed while another one is."""
        if self._question is None:
            self._question, self._asked_at = question, now

    def acknowledged(self, received: int, now: float) -> None:
        """The member has all frames up to this position."""
        if self._question and self._question <= received:
            self._measured(now)

    def ponged(self, now: float) -> None:
        """The member has answered a PING, or the HELLO."""
        if self._question == PING:
            self._measured(now)

    def lost(self) -> None:
        """The connection is gone, with the answer."""
        self._question = None

    def _measured(self, now: float) -> None:
        self._question = None
        taken = max(0.0, now - self._asked_at)
        before = self.seconds
        self.seconds = taken if before is None else before + _SHARE * (taken - before)
