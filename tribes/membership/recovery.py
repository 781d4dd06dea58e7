"""When multicast counts as broken, and its sockets are to be opened anew (tribes-wire §6.1).

Tomcat's ``McastService`` counts errors in a row. Here one more thing counts: whoever sends to the
group hears itself. When an interface goes and comes back the kernel forgets that the socket had
joined the group on it, without an error; then sending works and nothing is heard.
"""

from __future__ import annotations

from typing import final

__all__ = ["MulticastHealth"]


@final
class MulticastHealth:
    """Errors in a row, and for how long nothing was heard.

    Args:
        errors_max: How many errors in a row make it broken (``recoveryCounter``).
        silent_max: Seconds of sending without hearing anything that make it broken.
    """

    def __init__(self, errors_max: int, silent_max: float) -> None:
        self._errors_max = errors_max
        self._silent_max = silent_max
        self._errors = 0
        self._sent_unheard: float | None = None

    def opened(self) -> None:
        """The sockets are new."""
        self._errors = 0
        self._sent_unheard = None

    def sent(self, now: float) -> None:
        """A datagram was sent to the group."""
        self._errors = 0
        if self._sent_unheard is None:
            self._sent_unheard = now

    def heard(self) -> None:
        """A datagram of the group arrived, whoever sent it."""
        self._sent_unheard = None

    def failed(self) -> None:
        """Sending or receiving failed."""
        self._errors += 1

    def is_broken(self, now: float) -> bool:
        """Whether the sockets are to be opened anew."""
        unheard = self._sent_unheard
        return self._errors >= self._errors_max or (
            unheard is not None and now - unheard >= self._silent_max
        )
