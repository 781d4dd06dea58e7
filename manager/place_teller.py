"""Telling the other members what is here, until each has heard it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from tribes.wire.options import SendOptions

from .placed_messages import Places

if TYPE_CHECKING:
    from tribes.channel.core import ChannelCore
    from tribes.wire.member import Member

    from .places import PlaceBook

__all__ = ["PlaceTeller"]

REFRESH_S: Final = 2.0
"""Between two tellings of the same, by which the others know that this manager is alive."""

_SOON_S: Final = 0.02
_AGAIN_S: Final = 1.0

_ACKED = int(SendOptions.USE_ACK | SendOptions.SYNCHRONIZED_ACK)


class _Ear:
    """A member: the number of what it was told last, and of what it has acknowledged."""

    __slots__ = ("heard", "told")

    def __init__(self) -> None:
        self.told = 0
        self.heard = 0


class PlaceTeller:
    """Says what the book says of this member.

    Args:
        context: Of what.
        book: What there is to tell.
        entries_of: Counts the live entries of a part.
        channel: Where messages go.

    Attributes:
        number: Of what was told last.
        on_heard: Called when somebody has acknowledged what it was told.
    """

    def __init__(
        self,
        context: str,
        book: PlaceBook,
        entries_of: Callable[[int], int],
        channel: ChannelCore,
    ) -> None:
        self.number = 0
        self.on_heard: Callable[[float], None] | None = None
        self._context = context
        self._book = book
        self._entries_of = entries_of
        self._channel = channel
        self._ears: dict[Member, _Ear] = {}
        self._said = 0.0
        self._is_due = False

    def __contains__(self, member: Member) -> bool:
        return member in self._ears

    @property
    def members(self) -> Iterable[Member]:
        """Who is told."""
        return tuple(self._ears)

    def add(self, member: Member, now: float) -> None:
        """Tell a member from now on, and ask it for the same; perhaps all over again."""
        self._ears[member] = _Ear()
        self.tell(member, now, asks=True)

    def remove(self, member: Member) -> bool:
        """Do not tell a member any more; False if it was not told."""
        return self._ears.pop(member, None) is not None

    def has_heard(self, number: int) -> bool:
        """Whether everybody has acknowledged that, or what came after it."""
        return all(ear.heard >= number for ear in self._ears.values())

    def tell(self, member: Member, now: float, *, asks: bool = False) -> None:
        """Tell one member, again and again until it has heard this or something newer."""
        ear = self._ears.get(member)
        if ear is None:
            return
        self.number += 1
        number = ear.told = self.number
        message = self._message(asks=asks)

        def settled(faulty: dict[Member, Exception], then: float) -> None:
            if not faulty:
                ear.heard = max(number, ear.heard)
                if self.on_heard is not None:
                    self.on_heard(then)
            elif self._ears.get(member) is ear and ear.told == number:
                self._channel.timers.at(then + _AGAIN_S, again)

        def again(then: float) -> None:
            if self._ears.get(member) is ear and ear.told == number:
                self.tell(member, then, asks=asks)

        self._channel.post((member,), message.encode(), _ACKED, now, settled=settled)

    def tell_all(self, now: float) -> int:
        """Tell everybody, at once.

        Returns:
            The number by which `has_heard` knows who has acknowledged this.
        """
        self._said = now
        first = self.number + 1
        for member in list(self._ears):
            self.tell(member, now)
        return first

    def tell_all_soon(self, now: float) -> None:
        """Tell everybody in a moment, however often this is called until then."""
        if self._is_due:
            return
        self._is_due = True

        def tell(then: float) -> None:
            self._is_due = False
            self.tell_all(then)

        self._channel.timers.at(now + _SOON_S, tell)

    def refresh(self, now: float) -> None:
        """Tell everybody if nothing was told for a while."""
        if now - self._said >= REFRESH_S:
            self.tell_all(now)

    def _message(self, *, asks: bool) -> Places:
        book = self._book
        entries = [self._entries_of(p) if claim else 0 for p, claim in enumerate(book.claims)]
        return Places(
            self._context,
            self.number,
            book.weight,
            book.zone,
            asks,
            book.states[:],
            book.claims[:],
            entries,
        )
