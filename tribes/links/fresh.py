"""An accepted connection before it is known which kind of link it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tribes.links.own_wire import is_hello

if TYPE_CHECKING:
    from tribes.timers import Timer

__all__ = ["FreshLink"]


class FreshLink:
    """Collects the first bytes of a connection until they tell its kind; 51 are enough.

    Args:
        link: The driver's name of the connection.
        peer: Where it comes from.
    """

    __slots__ = ("_start", "link", "peer", "timer")

    def __init__(self, link: int, peer: tuple[str, int]) -> None:
        self.link = link
        self.peer = peer
        self.timer: Timer | None = None
        """Ends the wait for more bytes."""
        self._start = b""

    @property
    def is_silent(self) -> bool:
        """Whether nothing came yet."""
        return not self._start

    def feed(self, data: bytes) -> tuple[bool, bytes] | None:
        """Add bytes; once it is known, return whether it is an own link, and all bytes."""
        self._start += data
        is_own = is_hello(self._start)
        return None if is_own is None else (is_own, self._start)
