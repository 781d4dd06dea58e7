"""The tests of members: on a connection of its own, is it there?

A plain member is asked by Tribes' test frame, which anybody could answer; a member of a group with
a key by a challenge, which only that member can (:mod:`tribes.links.challenge`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, final

from tribes.links.introduction import introduce
from tribes.wire.outputs import NetworkOutput, Probe

if TYPE_CHECKING:
    from tribes.channel.identity import Identity
    from tribes.channel.protection import Protection
    from tribes.security.mark import Marker
    from tribes.wire.member import Member

__all__ = ["Questions"]


@final
class Questions:
    """The tests under way.

    Args:
        identity: Who asks.
        emit: Takes the outputs.
        protection: What a key changes; None: there is none.
        marker: Says who asks; None: only the record does.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        emit: Callable[[NetworkOutput], None],
        protection: Protection | None,
        marker: Marker | None,
    ) -> None:
        self._identity = identity
        self._emit = emit
        self._protection = protection
        self._marker = marker
        self._answers: dict[int, Callable[[Exception | None, float], None]] = {}

    def ask(
        self,
        member: Member,
        message: bytes,
        *,
        options: int,
        expect_reply: bool,
        connect_timeout: float,
        reply_timeout: float,
        answer: Callable[[Exception | None, float], None],
    ) -> None:
        """Begin a test; see ``ChainContext.probe``. ``answer`` may be called at once."""
        if self._protection is not None and self._protection.test(
            member,
            connect_timeout=connect_timeout,
            reply_timeout=reply_timeout,
            answer=answer,
        ):
            return
        number = self._identity.next_number()
        self._answers[number] = answer
        data = b""
        if message:
            frame = self._identity.new_frame(message, options)
            data = introduce(frame, member.unique_id, self._marker)
        self._emit(
            Probe(number, member.address, data, expect_reply, connect_timeout, reply_timeout)
        )

    def answered(self, number: int, error: Exception | None, now: float) -> None:
        """A test with a frame is over."""
        self._answers.pop(number)(error, now)
