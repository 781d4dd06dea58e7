"""Believe no membership service before the member itself was asked.

Tomcat's ``TcpFailureDetector`` (tribes-wire §7.9): a member that is announced is connected to
before it counts, and one that fell silent or whose connection broke is connected to before it is
dropped. A crash is so noticed by the refused connection within milliseconds instead of after
``drop_time``.

Two differences. Tomcat's default only tests whether a connection can be made, which a stopped or
hung process still allows, since the kernel accepts for it; such a member stays for ever. Here the
default demands an answer (``perform_read_test``).

And a member that gave none is not removed before the channel agrees (``ChainContext.confirm``): one
that is silent only once it was for ``drop_time`` times the local health, and any only while no
other member has an answer from it (DESIGN §4.3). Whom another one hears may not be reachable from
here, though, as on a link that is cut one way. It is tested every second, and removed here after
`CONTRADICTED_MAX_S` without an answer: somebody has to give in, or it would be a member for ever
that nothing can be sent to. Who reaches both goes on to have both.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from tribes.channel.chain import Interceptor, MembersNext, ReceiveNext, Verdict
from tribes.membership.change import ChangeKind, MemberChange, RemovalReason
from tribes.wire.options import SendOptions
from tribes.wire.probes import FAILURE_DETECTOR_PAYLOAD

if TYPE_CHECKING:
    from tribes.timers import Timer
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member

__all__ = ["TcpFailureDetector"]

_RETEST_S = 1.0
"""Seconds between two tests of a member that is silent but still answers."""

_EARLY_S = 0.2
"""Seconds until a member is tested again that has not been silent for long enough."""

CONTRADICTED_MAX_S = 9.0
"""Seconds, from the first contradiction on, after which a member that answers others and not this
one is removed here: three times the default ``drop_time``."""

_FORGET_S = 5.0
"""Contradictions that are this far apart are of two troubles: a test and a pause take less."""

TESTS_MAX = 64
"""Tests under way at once; each takes a connection. The others wait, members before strangers."""

_OWN_SHORTAGES = frozenset(
    (
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOBUFS,
        errno.EADDRNOTAVAIL,
    )
)
"""Errors that say that no test could be made, and nothing about the member."""

_RESETS_MAX = 3
_RESET_PAUSE_S = 0.05
"""A connection that is reset says little: a dying process, or one with too many connections. It is
tried again after 50, 100 and 200 ms before the member counts as dead."""


class TcpFailureDetector(Interceptor):
    """Verifies every change of the membership by a connection of its own.

    Args:
        connect_timeout: Milliseconds for the connection (``connectTimeout``; Tomcat 1000, which is
            just when TCP repeats a lost connection request: one lost packet removed a member).
        perform_send_test: Write the test message once connected (``performSendTest``).
        perform_read_test: Demand its acknowledgement (``performReadTest``; on, unlike Tomcat's).
        read_test_timeout: Milliseconds for the acknowledgement (``readTestTimeout``; Tomcat 5000).
        remove_suspects_timeout: Accepted for Tomcat's sake (``removeSuspectsTimeout``). Tomcat
            stops testing a silent member after these seconds; here it is tested for as long as it
            is silent, or nobody would notice when it stops answering.
        option_flag: Further options of the test message, by which its receiver knows it
            (``optionFlag``).
    """

    def __init__(
        self,
        *,
        connect_timeout: int = 1500,
        perform_send_test: bool = True,
        perform_read_test: bool = True,
        read_test_timeout: int = 1000,
        remove_suspects_timeout: int = 300,
        option_flag: int = 0,
    ) -> None:
        self.connect_timeout = connect_timeout
        self.perform_send_test = perform_send_test
        self.perform_read_test = perform_read_test
        self.read_test_timeout = read_test_timeout
        self.remove_suspects_timeout = remove_suspects_timeout
        self.option_flag = option_flag
        self._verified: dict[Member, Member] = {}
        self._owners: dict[tuple[bytes, int], tuple[Member, int]] = {}
        """Who among the verified has which host and port, and which test has shown it last."""
        self._announced: dict[Member, Member] = {}
        """Who is to count as soon as it answers, with the newest record."""
        self._suspects: dict[Member, float] = {}
        self._under_test: dict[Member, int] = {}
        """The tests under way, by number: one that began later has a greater one."""
        self._tests = 0
        self._waiting: dict[Member, None] = {}
        self._waiting_strangers: dict[Member, None] = {}
        self._retest: dict[Member, Timer] = {}
        self._resets: dict[Member, int] = {}
        self._contradicted: dict[Member, tuple[float, float]] = {}
        """When another member had an answer that this one had not: first, and last."""
        self._up: MembersNext | None = None

    @property
    def suspects(self) -> tuple[Member, ...]:
        """Members that fell silent and still answer."""
        return tuple(self._suspects)

    def receive(self, message: ChannelData, now: float, next: ReceiveNext) -> None:  # noqa: A002
        """Drop the test messages of others; pass everything else on."""
        if message.message == FAILURE_DETECTOR_PAYLOAD and self.wants(message.options):
            return
        next(message, now)

    def on_members(self, change: MemberChange, now: float, next: MembersNext) -> None:  # noqa: A002
        """Test what the membership service says before passing it on."""
        self._up = next
        member = change.member
        if change.kind is ChangeKind.ADDED:
            self._added(member)
        elif change.kind is ChangeKind.UPDATED:
            if member in self._verified:
                self._verified[member] = member
                next(change, now)
            elif member in self._announced:
                self._announced[member] = member
        elif change.reason is RemovalReason.SILENT:
            self._announced.pop(member, None)
            if member in self._verified:
                self._suspects.setdefault(member, now)
                self._test(member)
        else:
            # Farewells and replaced incarnations need no test.
            self._announced.pop(member, None)
            self._remove(member, change.reason, now)

    def on_trouble(self, member: Member, why: Exception, now: float) -> None:
        """A connection broke or a message failed: ask the member at once."""
        del why, now
        if member in self._verified:
            self._test(member)

    def _added(self, member: Member) -> None:
        if member in self._verified:
            self._clear(member)
            return
        self._announced[member] = member
        self._test(member)

    def _test(self, member: Member) -> None:
        if member in self._under_test or self.context.is_shut_down():
            return
        if len(self._under_test) >= TESTS_MAX:
            queue = self._waiting if member in self._verified else self._waiting_strangers
            queue[member] = None
            return
        self._tests += 1
        self._under_test[member] = self._tests
        expect_reply = self.perform_send_test and self.perform_read_test
        options = self.option_flag | int(SendOptions.BYTE_MESSAGE)
        if expect_reply:
            options |= int(SendOptions.USE_ACK)
        self.context.probe(
            member,
            FAILURE_DETECTOR_PAYLOAD if self.perform_send_test else b"",
            options=options,
            expect_reply=expect_reply,
            connect_timeout=self.connect_timeout / 1000,
            reply_timeout=self.read_test_timeout / 1000,
            answer=self._answer(member),
        )

    def _test_waiting(self) -> None:
        # Members before strangers: a flood of made-up heartbeats must not delay a suspicion.
        for queue in (self._waiting, self._waiting_strangers):
            while queue and len(self._under_test) < TESTS_MAX:
                member = next(iter(queue))
                del queue[member]
                if member in self._verified or member in self._announced:
                    self._test(member)
                else:
                    self._clear(member)

    def _answer(self, member: Member) -> Callable[[Exception | None, float], None]:
        def answer(error: Exception | None, now: float) -> None:
            if isinstance(error, OSError) and error.errno in _OWN_SHORTAGES:
                self._tested(member)
                self._test_later(member, now + _RETEST_S)
            elif error is None:
                test = self._under_test[member]
                self._tested(member)
                self._resets.pop(member, None)
                self._contradicted.pop(member, None)
                self._alive(member, test, now)
            elif (
                isinstance(error, ConnectionError)
                and not isinstance(error, ConnectionRefusedError)
                and self._is_worth_another(member)
            ):
                self._tested(member)
                pause = _RESET_PAUSE_S * 2 ** (self._resets[member] - 1)
                self._test_later(member, now + pause)
            else:
                silent = isinstance(error, TimeoutError)
                reason = RemovalReason.SILENT if silent else RemovalReason.CRASHED
                self._no_answer(member, reason, now)

        return answer

    def _tested(self, member: Member) -> None:
        self._under_test.pop(member, None)
        self._test_waiting()

    def _no_answer(self, member: Member, reason: RemovalReason, now: float) -> None:
        if member not in self._verified:
            self._tested(member)
            self._dead(member, reason, now)
            return

        def decided(verdict: Verdict, then: float) -> None:
            self._tested(member)
            if member not in self._verified:
                return  # It left meanwhile, or its port is somebody else's.
            if verdict is Verdict.GONE:
                self._dead(member, reason, then)
            elif verdict is Verdict.EARLY:
                self._test_later(member, then + _EARLY_S)
            elif verdict is Verdict.CONTRADICTED and not self._may_stay(member, then):
                self._dead(member, reason, then)
            else:
                self._test_later(member, then + _RETEST_S)

        # It counts as under test until this is decided.
        is_refused = reason is RemovalReason.CRASHED
        self.context.confirm(member, is_refused=is_refused, answer=decided)

    def _may_stay(self, member: Member, now: float) -> bool:
        begin, last = self._contradicted.get(member, (now, now))
        if now - last > _FORGET_S:
            begin = now
        self._contradicted[member] = begin, now
        return now - begin < CONTRADICTED_MAX_S

    def _test_later(self, member: Member, when: float) -> None:
        timer = self._retest.get(member)
        if timer is not None:
            timer.cancel()

        def again(_: float) -> None:
            # Of one that left while it was tested nothing else takes it away.
            del self._retest[member]
            self._test(member)

        self._retest[member] = self.context.timers.at(when, again)

    def _alive(self, member: Member, test: int, now: float) -> None:
        announced = self._announced.pop(member, None)
        address = member.host, member.port
        if announced is not None:
            if not self._replace(announced, test, now):
                return
            self._verified[member] = announced
            self._owners[address] = announced, test
            if self._up is not None:
                self._up(MemberChange(ChangeKind.ADDED, announced), now)
            return
        if member in self._verified:
            self._owners[address] = self._verified[member], test
        if member in self._suspects:
            self._test_later(member, now + _RETEST_S)

    def _replace(self, newcomer: Member, test: int, now: float) -> bool:
        """Take off who was at a newcomer's address; False: it is the newcomer that is gone.

        One port has one owner. A member that fell silent below and whose successor answers the
        tests in its place would otherwise stay for ever.
        """
        known, shown = self._owners.get((newcomer.host, newcomer.port), (newcomer, 0))
        if known == newcomer:
            return True
        # Whoever of them is there after all is heard again, and asked again.
        if test < shown:
            # An answer that was long under way: who gave it was there before.
            self.context.forget(newcomer)
            return False
        self.context.forget(known)
        self._remove(known, RemovalReason.REPLACED, now)
        return True

    def _is_worth_another(self, member: Member) -> bool:
        resets = self._resets[member] = self._resets.get(member, 0) + 1
        return resets <= _RESETS_MAX

    def _dead(self, member: Member, reason: RemovalReason, now: float) -> None:
        # Whatever the heartbeats say: the next one makes it new, and it is asked again.
        self.context.forget(member)
        self._announced.pop(member, None)
        self._remove(member, reason, now)

    def _remove(self, member: Member, reason: RemovalReason, now: float) -> None:
        self._clear(member)
        self._contradicted.pop(member, None)
        known = self._verified.pop(member, None)
        if known is None:
            return
        self._owners.pop((known.host, known.port), None)
        if self._up is not None:
            self._up(MemberChange(ChangeKind.REMOVED, known, reason), now)

    def _clear(self, member: Member) -> None:
        self._suspects.pop(member, None)
        self._resets.pop(member, None)
        timer = self._retest.pop(member, None)
        if timer is not None:
            timer.cancel()
