"""The tests of members: on a connection of its own, is it there?

A plain member is asked by Tribes' test frame, which anybody could answer; a member of a group with
a key by a challenge, which only that member can (:mod:`tribes.links.challenge`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, final

from tribes.ids import make_unique_id
from tribes.links.introduction import introduce
from tribes.wire.data import encode_data_frame
from tribes.wire.outputs import NetworkOutput, Probe

if TYPE_CHECKING:
    from tribes.channel.protection import Protection
    from tribes.security.mark import Marker
    from tribes.wire.member import Member

__all__ = ["Questions"]


@final
class Questions:
    """The tests under way.

    Args:
        record: The own record, encoded.
        wall_ms: Wall clock in milliseconds.
        entropy: Gives n random bytes.
        emit: Takes the outputs.
        new_number: Numbers the tests.
        protection: What a key changes; None: there is none.
        marker: Says who asks; None: only the record does.
    """

    def __init__(
        self,
        record: bytes,
        *,
        wall_ms: Callable[[], int],
        entropy: Callable[[int], bytes],
        emit: Callable[[NetworkOutput], None],
        new_number: Callable[[], int],
        protection: Protection | None,
        marker: Marker | None,
    ) -> None:
        self._record = record
        self._wall_ms = wall_ms
        self._entropy = entropy
        self._emit = emit
        self._new_number = new_number
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
        number = self._new_number()
        self._answers[number] = answer
        data = b""
        if message:
            data = encode_data_frame(
                options,
                self._wall_ms(),
                make_unique_id(self._entropy(16)),
                self._record,
                message,
            )
            data = introduce(data, member.unique_id, self._marker)
        self._emit(
            Probe(number, member.address, data, expect_reply, connect_timeout, reply_timeout)
        )

    def answered(self, number: int, error: Exception | None, now: float) -> None:
        """A test with a frame is over."""
        self._answers.pop(number)(error, now)
