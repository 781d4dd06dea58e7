"""What a group key or TLS changes in a channel, in one place (DESIGN §4.2, `docs/security.md`).

Without either there is no object of this class, and nothing of this happens. With a key:

- heartbeats and farewells are judged by :class:`Admission`;
- members are tested by :class:`Challenges` instead of by a test frame;
- own links are opened with a key, and connections that prove none are for ``plain_peers`` only.

With TLS and no key the driver's connections prove who is at their other end:

- heartbeats and farewells only introduce, see :class:`Introductions`;
- members are tested by the same questions, on connections that prove them;
- there are own links only, and nobody is a plain peer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from tribes.links.challenge import Challenges, Life, encode_life
from tribes.links.link_keys import LinkKeyring
from tribes.membership.admission import Admission, Asked
from tribes.membership.introductions import Asked as Introducing
from tribes.membership.introductions import Introduced, Introductions
from tribes.security.plain_peers import PlainPeers

if TYPE_CHECKING:
    from tribes.config.model import ChannelConfig
    from tribes.links.own_wire import OwnSide
    from tribes.membership.change import MemberChange
    from tribes.security.keys import KeyRing
    from tribes.security.mark import Mark, Marker
    from tribes.timers import Timers
    from tribes.wire.member import Member
    from tribes.wire.outputs import NetworkOutput

__all__ = ["Protection"]


@final
class Protection:
    """The keys of a channel, and who is asked for them.

    Args:
        keys: The group's; None: the connections prove who is there.
        local: The own record.
        config: Who may go without.
        side: What this process says of itself on own links.
        marker: Signs the own heartbeats.
        timers: Where it asks to be woken.
        entropy: Gives n random bytes.
        emit: Takes the outputs.
        new_attempt: Numbers connection attempts.
        admit: Takes the record of a member that proved itself.
        replace: Takes one that was a plain member until then, before ``admit``.
        touch: Takes the record of a member that was heard again; without a key.
        left: Takes the farewell of a member that is gone; without a key.
        record: Gives the own record as it is now; without a key.
        refused: Told whose heartbeats count for nothing, see `Admission`; with a key.
    """

    def __init__(
        self,
        keys: KeyRing | None,
        local: Member,
        config: ChannelConfig,
        *,
        side: OwnSide,
        marker: Marker,
        timers: Timers,
        entropy: Callable[[int], bytes],
        emit: Callable[[NetworkOutput], None],
        new_attempt: Callable[[], int],
        admit: Callable[[Member, float], None],
        replace: Callable[[Member, float], None],
        touch: Callable[[Member, float], None],
        left: Callable[[Member, float], None],
        record: Callable[[], bytes],
        refused: Callable[[str, str, int], None],
    ) -> None:
        self.links: Final = None if keys is None else LinkKeyring(keys)
        self.challenges: Final = Challenges(
            side=side,
            keys=self.links,
            timers=timers,
            entropy=entropy,
            emit=emit,
            new_attempt=new_attempt,
        )
        self.admission: Final = (
            Introductions(
                local,
                timers=timers,
                ask=self._ask_who,
                admit=self._admit,
                replace=replace,
                touch=touch,
                left=left,
            )
            if keys is None
            else Admission(
                local,
                keys,
                PlainPeers(config.plain_peers),
                ask=self._ask,
                admit=self._admit,
                replace=replace,
                refused=refused,
            )
        )
        self._marker = marker
        self._record = record
        self._admitted = admit
        self._proved: tuple[Member, float] | None = None

    def set_keys(self, keys: KeyRing) -> None:
        """Sign with the first of other keys, and accept all of them."""
        assert self.links is not None
        assert isinstance(self.admission, Admission)
        self._marker.keys = self.admission.keys = keys
        self.links.set(keys)

    def introduced(self, record: Member, covered: bytes, mark: Mark, now: float) -> bool:
        """Somebody says in the first frame of a plain connection that it has a key; whether it may
        be so. With TLS there are no such connections.
        """
        return isinstance(self.admission, Admission) and self.admission.introduced(
            record, covered, mark, now
        )

    def opened(self, record: Member) -> None:
        """A member has opened an own link: it was never a plain peer, or is none any more."""
        if isinstance(self.admission, Admission):
            self.admission.opened(record)

    def explained(self, change: MemberChange, now: float) -> MemberChange:
        """Give a removal its true reason, where the farewell itself could not be believed."""
        if isinstance(self.admission, Introductions):
            return self.admission.explained(change, now)
        return change

    def life(self) -> bytes:
        """What this member states of itself in each WELCOME."""
        record = self._record() if self.links is None else b""
        return encode_life(Life(self._marker.incarnation, self._marker.counter, record))

    def test(
        self,
        member: Member,
        *,
        connect_timeout: float,
        reply_timeout: float,
        answer: Callable[[Exception | None, float], None],
    ) -> bool:
        """Ask a member for a proof; False: it is a plain peer, whom a test frame asks.

        ``answer`` gets None when it is there, else why not.
        """
        if self.admission.may_test_plainly(member):
            return False
        proved = self._proved
        if proved is not None and proved[0] == member:
            # It has answered this very moment, which is why it was announced.
            answer(None, proved[1])
            return True

        def answered(result: Life | Exception, then: float) -> None:
            answer(None if isinstance(result, Life) else result, then)

        self.challenges.ask(
            member, answered, connect_timeout=connect_timeout, reply_timeout=reply_timeout
        )
        return True

    def _ask(self, member: Member, answer: Asked) -> None:
        def answered(result: Life | Exception, now: float) -> None:
            if isinstance(result, Life):
                answer(result.incarnation, result.counter, now)
            else:
                answer(None, 0, now)

        self.challenges.ask(member, answered)

    def met(
        self, record: Member, life: Life, now: float, take: Callable[[Member, float], None]
    ) -> None:
        """Let ``take`` have a member that introduced itself, under its proof."""
        if self.admission.met(record, life.incarnation, life.counter, now):
            self._as_proved(record, now, take)

    def _ask_who(self, member: Member, answer: Introducing) -> None:
        def answered(result: Life | Exception, now: float) -> None:
            if isinstance(result, Life):
                answer(Introduced(result.incarnation, result.record), now)
            else:
                answer(result, now)

        self.challenges.ask(member, answered)

    def _admit(self, member: Member, now: float) -> None:
        self._as_proved(member, now, self._admitted)

    def _as_proved(self, member: Member, now: float, take: Callable[[Member, float], None]) -> None:
        self._proved = (member, now)
        try:
            take(member, now)
        finally:
            self._proved = None
