"""How much all donors of a process may have on its way to members that join or were behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from tribes.wire.member import Member

__all__ = ["RECORDS_MAX_BYTES", "SERVING_STRANGERS_MAX", "TRICKLE_S", "ServingBudget"]

RECORDS_MAX_BYTES = 64 * 1024
"""Records of one message. Larger ones are no faster, and a change waits behind them: with 256 KiB,
and four times that under way, a bystander's commits took several times as long during a join."""

SERVED_MAX_BYTES: Final = 12 * 1024 * 1024
"""Records that were sent and not processed, of all requests of a process: with what the links add
it stays below 16 MiB."""

SERVING_STRANGERS_MAX = 1000
"""Askers that are served at once; others ask again."""

TRICKLE_S: Final = 0.05
"""Between two messages to a member whose live queue is not empty: a join under load ends too."""


@final
class ServingBudget:
    """What all donors of a process have encoded and their members have not processed, in bytes.

    Attributes:
        bytes: Now.
        peak_bytes: The most that there ever was.
    """

    __slots__ = ("_by_member", "_trickled", "bytes", "peak_bytes")

    def __init__(self) -> None:
        self.bytes = 0
        self.peak_bytes = 0
        self._by_member: dict[Member, int] = {}
        self._trickled: dict[Member, float] = {}

    def may_trickle(self, member: Member, now: float) -> bool:
        """Whether a member whose live queue is not empty may get one message all the same."""
        if self.is_spent or now < self._trickled.get(member, -TRICKLE_S) + TRICKLE_S:
            return False
        if len(self._trickled) >= SERVING_STRANGERS_MAX:
            self._trickled.clear()
        self._trickled[member] = now
        return True

    def of(self, member: Member) -> int:
        """What is on its way to one member."""
        return self._by_member.get(member, 0)

    @property
    def is_spent(self) -> bool:
        """Whether one more message must wait."""
        return self.bytes + RECORDS_MAX_BYTES > SERVED_MAX_BYTES

    def take(self, member: Member, size_bytes: int) -> None:
        """A message is on its way."""
        self.bytes += size_bytes
        self.peak_bytes = max(self.peak_bytes, self.bytes)
        self._by_member[member] = self.of(member) + size_bytes

    def give_back(self, member: Member, size_bytes: int) -> None:
        """It was processed, or lost."""
        self.bytes -= size_bytes
        left = self.of(member) - size_bytes
        if left > 0:
            self._by_member[member] = left
        else:
            self._by_member.pop(member, None)
