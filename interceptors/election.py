"""Members agree on one view and its coordinator by a message that goes round.

Tomcat's ``NonBlockingCoordinator`` (tribes-wire §7.11). The member that sorts first sends a request
with all members it knows to the next one, each adds those it knows and passes it on, and when it is
back and says what it said before, its sender confirms the view to all. Messages go on meanwhile.

Added to Tomcat's rules, since there an election could stay open, or its message go round, for ever:

1. An election that is not over after ``wait`` is given up.
2. A request is dropped that has gone round more often than members can have been added, or whose
   source is gone; and by the member that sorts first, which begins its own instead.
3. A member whose view is not what it sees asks, and the first one tells it the view again.
4. A member that only a request names, and that answers, counts for the view. It does not become a
   member of the channel by that.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from tribes.channel.outputs import Notice
from tribes.channel.tickets import Outgoing, Ticket
from tribes.errors import ConfigError, RemoteProtocolError
from tribes.ids import make_unique_id
from tribes.interceptors.coordination import ALIVE, HEADER, Coordination, CoordinationKind
from tribes.interceptors.coordinator import Coordinator
from tribes.membership.change import ChangeKind, MemberChange
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from tribes.channel.chain import ReceiveNext
    from tribes.timers import Timer
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member

__all__ = ["NonBlockingCoordinator"]

_OPTIONS = int(SendOptions.USE_ACK)

STRANGERS_MAX = 64
"""Members that one request may name and nobody here knows: each is connected to."""

PASSES_MAX = 8
"""How often one request may come by."""

_REMEMBERED_MAX = 64
"""Requests whose passes are counted."""


class NonBlockingCoordinator(Coordinator):
    """Agrees with all members on a view.

    Args:
        wait: Milliseconds to wait for a message of the member that should begin an election, and
            after which an election is given up. Tomcat's 15 seconds, fixed there.
        connect_timeout: Milliseconds for the connection to a member that only a request names.
        option_flag: Has no effect (``optionFlag``).
    """

    def __init__(
        self, *, wait: int = 15_000, connect_timeout: int = 1000, option_flag: int = 0
    ) -> None:
        for key, value in (("wait", wait), ("connect_timeout", connect_timeout)):
            if value < 1:
                raise ConfigError(f"must be at least 1, found {value}", key=key)
        super().__init__(option_flag=option_flag)
        self.wait = wait
        self.connect_timeout = connect_timeout
        self.view_id = b""
        """Names the agreed view; the same on all members."""
        self._is_started = False
        self._election = b""
        self._timer: Timer | None = None
        self._passes: OrderedDict[bytes, int] = OrderedDict()
        self.dropped: Counter[str] = Counter()
        """Requests that were not passed on, by the reason."""

    @property
    def is_electing(self) -> bool:
        """Whether an election of this member's is under way."""
        return bool(self._election)

    # What begins an election.

    def start(self, now: float) -> None:
        """Begin with a view of one's own."""
        self._is_started = True
        self._elect(now, force=False)

    def changed(self, change: MemberChange, now: float) -> None:
        """A member came or went: see whether this one has to begin an election."""
        if not self._is_started or self.context.is_shut_down():
            return
        if change.kind is ChangeKind.ADDED:
            self._elect(now, force=False)
        elif self.is_coordinator or self._is_first:
            self._elect(now, force=True)

    def on_heartbeat(self, now: float) -> None:
        """Begin an election where one was missed."""
        if _same(self.view, self.membership) or self.context.is_shut_down():
            return
        if self._is_first:
            self._elect(now, force=True)
        elif self._timer is None:
            # A confirmation overtook a newer one, say: the first need not know of it.
            self._elect(now, force=False)

    @property
    def _is_first(self) -> bool:
        return self.membership[0] == self.context.local

    def _elect(self, now: float, *, force: bool) -> None:
        local, members = self.context.local, self.membership
        if len(members) == 1:
            self._end()
            self.view_id = self._fresh_id()
            self.install(members)
            return
        if self._election or _same(self.view, members):
            return
        if not force and members[0] != local:
            self._await(now, lambda then: self._elect(then, force=True))
            return
        self._election = self._fresh_id()
        self._await(now, self._give_up)
        request = Coordination(CoordinationKind.REQUEST, members[0], local, members, self._election)
        self._pass_on(request, now)

    def _give_up(self, now: float) -> None:
        self._election = b""
        self.context.event(Notice("election given up", {"after_ms": self.wait}))
        if not _same(self.view, self.membership):
            self._elect(now, force=self._is_first)

    def _end(self) -> None:
        self._election = b""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _await(self, now: float, late: Callable[[float], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()

        def over(then: float) -> None:
            self._timer = None
            if not self.context.is_shut_down():
                late(then)

        self._timer = self.context.timers.at(now + self.wait / 1000, over)

    def _fresh_id(self) -> bytes:
        return make_unique_id(self.context.entropy(16))

    # What others say.

    def receive(self, message: ChannelData, now: float, next: ReceiveNext) -> None:  # noqa: A002
        """Take the messages of elections; pass everything else on.

        Raises:
            RemoteProtocolError: A message of an election is malformed, or names too many members
                that nobody knows.
        """
        if message.message.startswith(HEADER):
            self._heard(Coordination.decode(message.message), now)
        elif not message.message.startswith(ALIVE):
            next(message, now)

    def _heard(self, heard: Coordination, now: float) -> None:
        if not self._election and self._timer is not None:
            # Whom it waited for is there.
            self._timer.cancel()
            self._timer = None
        if heard.kind is CoordinationKind.CONFIRMATION:
            self._confirmed(heard)
            return
        known = {self.context.local, *self._others}
        strangers = [member for member in heard.members if member not in known]
        if len(strangers) > STRANGERS_MAX:
            raise RemoteProtocolError(f"an election with {len(strangers)} unknown members")
        dead: set[Member] = set()
        waiting = set(strangers)

        def answer(member: Member, error: Exception | None, then: float) -> None:
            waiting.discard(member)
            if error is not None:
                dead.add(member)
            if not waiting:
                self._requested(heard, dead, then)

        if not waiting:
            self._requested(heard, dead, now)
        for member in strangers:
            self.context.probe(
                member,
                b"",
                options=0,
                expect_reply=False,
                connect_timeout=self.connect_timeout / 1000,
                reply_timeout=self.connect_timeout / 1000,
                answer=lambda error, then, member=member: answer(  # type: ignore[misc]
                    member, error, then
                ),
            )

    def _requested(self, heard: Coordination, dead: set[Member], now: float) -> None:
        local = self.context.local
        everybody = {member: member for member in (*heard.members, *self.membership)}
        merged = tuple(
            sorted((m for m in everybody if m not in dead), key=lambda member: member.sort_key)
        )
        request = dataclasses.replace(heard, members=merged, leader=merged[0])
        if heard.source == local:
            if heard.view_id != self._election:
                self.dropped["given up"] += 1
            elif merged[0] != local:
                # Whoever is first now has seen it on its way, and begins its own.
                self._end()
                self._await(now, lambda then: self._elect(then, force=True))
            elif _same(heard.members, merged):
                self._confirm(request, now)
            else:
                self._pass_on(request, now)
        elif merged[0] == local:
            self.dropped["not first"] += 1
            self._instead(heard.source, merged, now)
        elif heard.source not in everybody or heard.source in dead:
            self.dropped["source gone"] += 1
        else:
            self._pass_on(request, now)

    def _instead(self, source: Member, merged: tuple[Member, ...], now: float) -> None:
        """Begin the election that somebody else asked for, or say what it came to already."""
        if self._election or not _same(self.view, merged):
            self._elect(now, force=True)
            return
        known = Coordination(
            CoordinationKind.CONFIRMATION, self.view[0], self.context.local, self.view, self.view_id
        )
        self._send(known, (source,), Ticket((source,)), now)

    def _confirm(self, request: Coordination, now: float) -> None:
        confirmation = dataclasses.replace(request, kind=CoordinationKind.CONFIRMATION)
        others = tuple(member for member in request.members if member != self.context.local)
        self._send(confirmation, others, Ticket(others), now)
        self._confirmed(confirmation)

    def _confirmed(self, heard: Coordination) -> None:
        if heard.view_id == self.view_id or self.context.local not in heard.members:
            return
        members = tuple(sorted(heard.members, key=lambda member: member.sort_key))
        if heard.view_id == self._election or members[0] != self.context.local:
            self._end()
        self.view_id = heard.view_id
        self.install(members)

    # The way round.

    def _pass_on(self, request: Coordination, now: float) -> None:
        passes = self._passes[request.view_id] = self._passes.get(request.view_id, 0) + 1
        self._passes.move_to_end(request.view_id)
        if len(self._passes) > _REMEMBERED_MAX:
            self._passes.popitem(last=False)
        if passes > PASSES_MAX:
            self.dropped["too often"] += 1
            return
        ring = request.members
        here = ring.index(self.context.local)
        self._offer(request, list(ring[here + 1 :] + ring[:here]), now)

    def _offer(self, request: Coordination, following: list[Member], now: float) -> None:
        """Send a request to the first that takes it."""
        if not following or self.context.is_shut_down():
            self.dropped["nobody there"] += 1
            return
        member, *rest = following

        def settled(faulty: dict[Member, Exception], then: float) -> None:
            if faulty:
                self._offer(request, rest, then)

        self._send(request, (member,), Ticket((member,), settled=settled), now)

    def _send(
        self, what: Coordination, members: tuple[Member, ...], ticket: Ticket, now: float
    ) -> None:
        data = self.context.new_message(what.encode(), _OPTIONS)
        self.send_own(Outgoing(data, members, ticket), now)


def _same(one: tuple[Member, ...], other: tuple[Member, ...]) -> bool:
    return set(one) == set(other)
