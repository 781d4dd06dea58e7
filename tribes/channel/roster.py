"""Who is in the group and answers: from what is found, heard and asked to the view that users see.

How the parts work together::

    Discovery, heartbeats ──▶ MulticastMembership ──▶ interceptors ──▶ the view, then the consumers
                                      ▲                    ▲
    bytes of a member ──▶ HealthMonitor ─── silent ────────┤
            ▲                                              │
    Questions ◀── Witnesses ◀── confirm ── failure detector┘
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import TYPE_CHECKING, Final, final

from tribes.channel.discovery import Discovery
from tribes.channel.outputs import (
    MemberAdded,
    MemberRefuted,
    MemberRemoved,
    MemberSuspected,
    MemberUpdated,
)
from tribes.channel.questions import Questions
from tribes.channel.sending import not_answering
from tribes.channel.witnesses import Witnesses
from tribes.membership.change import ChangeKind, MemberChange
from tribes.membership.health import HealthMonitor
from tribes.membership.multicast import MulticastMembership
from tribes.wire.options import SendOptions
from tribes.wire.probes import FAILURE_DETECTOR_PAYLOAD

if TYPE_CHECKING:
    from tribes.channel.chain import Chain, Verdict
    from tribes.channel.identity import Identity
    from tribes.channel.outbox import Outbox
    from tribes.channel.protection import Protection
    from tribes.config.model import ChannelConfig
    from tribes.links.challenge import Challenges
    from tribes.links.own_receiver import OwnReceiver
    from tribes.links.pool import SenderPool
    from tribes.membership.view import ViewBuilder
    from tribes.security.mark import Marker
    from tribes.timers import Timers
    from tribes.wire.member import Member

__all__ = ["Roster"]

_TEST_OPTIONS = int(SendOptions.BYTE_MESSAGE | SendOptions.USE_ACK)


@final
class Roster:
    """The membership services, the failure detection, and the view that they lead to.

    Args:
        identity: The own record.
        config: Membership settings.
        views: Builds the view.
        chain: Told what the services find; it tells :meth:`changed`, and hears of trouble.
        senders: Know who owes an answer.
        protection: What a key changes; None: there is none.
        challenges: Ask who is at an address.
        marker: Says in heartbeats and tests who we are; None: only the record does.
        timers: Where everything here asks to be woken.
        outbox: Takes the outputs.
        has_inbox: Whether a member has opened an own link.
        members_changed: Told every change of the view.
        suspicion: Told when a member stops answering (True) and when it answers again.
        forget: Told of a member that is gone, last of all.
        respond: Told of a connection that has an answer to write.
    """

    def __init__(
        self,
        identity: Identity,
        config: ChannelConfig,
        *,
        views: ViewBuilder,
        chain: Chain,
        senders: SenderPool,
        protection: Protection | None,
        challenges: Challenges,
        marker: Marker | None,
        timers: Timers,
        outbox: Outbox,
        has_inbox: Callable[[Member], bool],
        members_changed: Callable[[MemberChange, float], None] | None,
        suspicion: Callable[[Member, bool, float], None] | None,
        forget: Callable[[Member, float], None],
        respond: Callable[[OwnReceiver], None],
    ) -> None:
        self._config = config.membership
        self._views = views
        self._chain = chain
        self._senders = senders
        self._protection = protection
        self._outbox = outbox
        self._has_inbox = has_inbox
        self._members_changed = members_changed
        self._suspicion = suspicion
        self._forget = forget
        self._is_stopped = False
        suspect_after = config.membership.suspect_after
        self.health: Final = HealthMonitor(
            suspect_after / 1000 if suspect_after else inf,
            timers=timers,
            unanswered=senders.unanswered_since,
            ping=self._ping,
            changed=self._suspect,
            remove_after=config.membership.drop_time / 1000,
            hopeless=self._give_up_on,
            hung=senders.answered_elsewhere,
        )
        self.membership: Final = MulticastMembership(
            identity.local,
            config.membership,
            marker=marker,
            timers=timers,
            emit=outbox.outputs.append,
            changed=chain.on_members,
            heard=self.health.heard,
            admission=None if protection is None else protection.admission,
            answered=self.health.last_answer,
        )
        self.witnesses: Final = Witnesses(
            identity.local.unique_id,
            timers=timers,
            health=self.health,
            others=self._witnesses,
            ask=senders.ask,
            find=self._find,
            probe=self._observe,
            respond=respond,
        )
        self.discovery: Final = Discovery(
            identity.local,
            config,
            challenges=challenges,
            protection=protection,
            membership=self.membership,
            timers=timers,
            view=lambda: views.current,
            tell=senders.tell,
        )
        self.questions: Final = Questions(
            identity, emit=outbox.emit, protection=protection, marker=marker
        )

    def close(self) -> None:
        """Doubt nobody any more: the channel is stopping."""
        self._is_stopped = True

    def stop(self, now: float) -> None:
        """Say farewell, and look for nobody any more."""
        self.membership.stop(now)
        self.discovery.stop()
        self.health.stop()
        self.witnesses.stop()

    # The view.

    def changed(self, change: MemberChange, now: float) -> None:
        """Above the first interceptor: a change of the membership that all of them let through."""
        member = change.member
        if change.kind is ChangeKind.REMOVED:
            if self._views.remove(member):
                self._removed(change, now)
        elif self._views.add(member, now):
            self._added(change, now)
        else:
            self._outbox.emit(MemberUpdated(member))
            self._notify(change, now)

    def _added(self, change: MemberChange, now: float) -> None:
        member = change.member
        self.health.added(member, now)
        if self._protection is not None:
            self._protection.admission.joined(member, now)
            if self._has_inbox(member):
                self._protection.opened(member)
        self._outbox.emit(MemberAdded(member, self._views.number))
        self._senders.member_added(member, now)
        self.discovery.joined(member, now)
        self._notify(change, now)

    def _removed(self, change: MemberChange, now: float) -> None:
        member = change.member
        self.discovery.gone(member, change.reason, now)
        self.health.removed(member)
        if self._protection is not None:
            change = self._protection.explained(change, now)
            self._protection.admission.forget(member)
        self._outbox.emit(MemberRemoved(member, change.reason, self._views.number))
        self._notify(change, now)
        self._forget(member, now)

    def _notify(self, change: MemberChange, now: float) -> None:
        self._chain.on_view(change, now)
        if self._members_changed is not None:
            self._members_changed(change, now)

    # Trouble.

    def trouble(self, member: Member, why: Exception, now: float) -> None:
        """Something about a member makes one ask whether it is there."""
        if not self._is_stopped and member in self._views:
            self._chain.on_trouble(self._views.get(member) or member, why, now)

    def link_broke(self, member: Member, why: Exception, now: float) -> None:
        """A connection to a member broke, or could not be made."""
        self.witnesses.lost(member, now)
        self.trouble(member, why, now)

    def _give_up_on(self, member: Member, now: float) -> None:
        self.trouble(member, TimeoutError("no answer for a long time"), now)

    def _suspect(self, member: Member, silent: float | None, now: float) -> None:
        self._views.suspect(member, is_suspected=silent is not None)
        known = self._views.get(member) or member
        if silent is None:
            self._outbox.emit(MemberRefuted(known))
            self.discovery.answers_again(known, now)
        else:
            self._outbox.emit(MemberSuspected(known, silent))
        if self._suspicion is not None:
            self._suspicion(member, silent is not None, now)
        if silent is not None:
            self._senders.doubt(member, now)
            self._senders.excuse(member, not_answering(member), now)

    # Tests.

    def probe(
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
        """Ask on a fresh connection whether a member is there; see ``ChainContext.probe``."""

        def answered(error: Exception | None, now: float) -> None:
            if error is None and expect_reply:
                self.health.answered(member, now)
                self._senders.answered_elsewhere(member, now)
            answer(error, now)

        if expect_reply:
            self.health.asked(member, self._outbox.now)
        self.questions.ask(
            member,
            message,
            options=options,
            expect_reply=expect_reply,
            connect_timeout=connect_timeout,
            reply_timeout=reply_timeout,
            answer=answered,
        )

    def confirm(
        self, member: Member, *, is_refused: bool, answer: Callable[[Verdict, float], None]
    ) -> None:
        """Ask others before a member is removed; see ``ChainContext.confirm``."""
        self.witnesses.confirm(member, is_refused=is_refused, answer=answer, now=self._outbox.now)

    def _ping(self, member: Member, now: float) -> None:
        is_quiet = self._senders.unanswered_since(member) is None
        if is_quiet and not self.health.is_suspected(member) and self._senders.ping(member, now):
            return
        self._test(member, self._config.suspect_after / 1000, lambda error, then: None)

    def _test(
        self, member: Member, timeout: float, answer: Callable[[Exception | None, float], None]
    ) -> None:
        self.probe(
            member,
            FAILURE_DETECTOR_PAYLOAD,
            options=_TEST_OPTIONS,
            expect_reply=True,
            connect_timeout=timeout,
            reply_timeout=timeout,
            answer=answer,
        )

    # What witnesses ask, and are asked.

    def _witnesses(self) -> Iterable[Member]:
        view, can_witness = self._views.current, self._senders.can_witness
        return (m for m in view.members if m not in view.suspected and can_witness(m))

    def _find(self, unique_id: bytes) -> Member | None:
        return next((m for m in self._views.current.members if m.unique_id == unique_id), None)

    def _observe(
        self,
        member: Member,
        timeout: float,
        answer: Callable[[Exception | None, float], None],
        now: float,
    ) -> None:
        def answered(error: Exception | None, then: float) -> None:
            answer(error, then)
            if isinstance(error, ConnectionRefusedError):
                # The question has told this member too.
                self.trouble(member, error, then)

        self._senders.ping(member, now)
        self._test(member, timeout, answered)
