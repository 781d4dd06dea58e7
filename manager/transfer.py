"""How replicas become equal: join, heal, repair and resync are one comparison (DESIGN §5.5).

::

    asker                                   donor
    SUMMARY  64 sums of digests      ──▶                          equal state costs these 512 bytes
                                     ◀──  DIGESTS   of the partitions in the groups that differ
    WANT     the digests of my       ──▶
             sessions in partitions  ◀──  LACK      which of them the donor does not have
             that differ             ◀──  RECORDS   what is not among them
    RECORDS  what the donor lacks    ──▶

A session's digest covers its key, so it stands for the key in these lists.

**Join.**  A joining node is a target of live changes before it asks, and compares with every member
that runs the context: a change is with it directly, or was made at a member that it asks
afterwards, and nothing falls between.  A partition is on its way from one donor at a time, so
several donors share the work; by the time the next donor's turn comes, the digests are mostly equal
and nothing is left to ask it for.  A donor that dies, hangs or does not know the context is
replaced by those that differ in the same partitions; what has arrived is kept.

**Afterwards** each node compares with one other member every `COMPARE_S`, so whatever a lost
message left different is found again.

It is longer than other files because asking, replacing a donor and ending the join look at the same
few maps of comparisons, requests and partitions; what a donor does is in `donor`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final

from tribes.channel.outputs import Notice
from tribes.errors import MemberUnreachableError, RemoteProtocolError, SendTimeoutError
from tribes.wire.options import SendOptions

from .conflicts import tell_conflicts
from .donor import Donor
from .messages import Digests, Lack, Pairs, Records, Summary, Want
from .progress import Progress
from .record import deciseconds, from_wire, life_and_access
from .serving_budget import ServingBudget
from .session_ids import GROUPS, PARTITIONS

if TYPE_CHECKING:
    from tribes.channel.core import ChannelCore
    from tribes.timers import Timer
    from tribes.wire.member import Member

    from .base import SessionManager
    from .record import Record

__all__ = ["Done", "Transfer", "TransferStatistics"]

Done = Callable[[Exception | None, float], None]
"""Told how a comparison ended, and when."""

COMPARE_S: Final = 5.0
"""Between two comparisons with a member chosen at random, once a node has joined."""

SETTLE_SESSIONS: Final = 1000
"""Before that, the sessions that changed are hashed so many at a time, some three milliseconds,"""

SETTLE_PAUSE_S: Final = 0.01
"""with a pause for everything else."""

WANT_SESSIONS: Final = 4096
"""Sessions that one request is about, as far as that can be told before: of those here, which it
lists, and of the donor's, going by its average partition."""

WANT_PARTITIONS_MIN: Final = 16
WANTS_PER_DONOR: Final = 4
"""Requests at least, so that several donors share the work also where there is little."""

WANTS_MAX: Final = 2
"""Requests to one donor at a time: it goes on with one while the other's end is on its way."""

PULL_AGAIN_S: Final = 1.0

PULL_SILENCE_S: Final = 5.0
"""A member that owes an answer and gives none for so long is asked anew; then it is waited for
twice as long each time, since it may be slow and is not made faster by more questions."""

PULL_SILENCE_MAX_S: Final = 20.0

PROGRESS_S: Final = 5.0
"""While records came in the last so many seconds, a join whose time is over goes on, for"""

OVERTIME_MAX: Final = 10
"""times ``state_transfer_timeout_s`` in all."""

DONOR_SILENCE_S: Final = 1.0
"""After that others may be asked for what it owes."""

_ACKED = int(SendOptions.USE_ACK | SendOptions.SYNCHRONIZED_ACK)


class TransferStatistics:
    """Counters of the exchange, plain ints.

    Attributes:
        no_state_transferred: Starts without all sessions, because ``state_transfer_timeout_s`` was
            over (Tomcat: ``counterNoStateTransferred``).
        messages_unanswered: Messages of records that a member did not acknowledge in time.
        donors_replaced: Donors that failed or fell silent while they owed something, and there were
            others.
        records_refused: Records and changes of members that could not be used here.
        records_too_large: Sessions that were left out because no message could hold them.
    """

    __slots__ = (
        "donors_replaced",
        "messages_unanswered",
        "no_state_transferred",
        "pulls_failed",
        "pulls_started",
        "records_received",
        "records_refused",
        "records_sent",
        "records_too_large",
    )

    def __init__(self) -> None:
        self.donors_replaced = 0
        self.messages_unanswered = 0
        self.no_state_transferred = 0
        self.pulls_started = 0
        self.pulls_failed = 0
        self.records_sent = 0
        self.records_received = 0
        self.records_refused = 0
        self.records_too_large = 0


class _Pull:
    """One comparison with one member.

    Attributes:
        left: The partitions that differ, with the member's digests; nothing asked yet: None.
        theirs: The member's digests, as it told them.
        wants: The requests under way, with their partitions.
        gives: What the member lacks and is being sent.
        partitions_max: Of one request.
    """

    __slots__ = (
        "done",
        "gives",
        "heard",
        "is_background",
        "is_silent",
        "left",
        "member",
        "offers",
        "partitions_max",
        "theirs",
        "wants",
    )

    def __init__(
        self, member: Member, now: float, *, offers: bool, is_background: bool, done: Done | None
    ) -> None:
        self.member = member
        self.heard = now
        self.offers = offers
        self.is_background = is_background
        self.done = done
        self.is_silent = False
        self.left: dict[int, int] | None = None
        self.theirs: dict[int, int] = {}
        self.wants: dict[int, list[int]] = {}
        self.gives = 0
        self.partitions_max = WANT_PARTITIONS_MIN

    @property
    def is_equal(self) -> bool:
        """True when nothing is left to ask, get or give."""
        return self.left is not None and not (self.left or self.wants or self.gives)


class Transfer:
    """The comparisons of one context.

    Args:
        manager: Its table is compared and merged into.
        channel: Where messages go.
        randrange: Gives a number below its argument; chooses whom to compare with.
        join_window: Seconds in which other members may still be found.
        timeout: Seconds after which this node goes on although records are missing, unless they
            are still coming; less than 0: never.
        budget: What all donors of this process may have on its way; None: one of its own.
        batch_max: Sessions of one message (``sendAllSessionsSize``).

    Attributes:
        donor: The side that has records.
        is_joined: This node has what the others had, or waits for it no longer.
        is_complete: It has what they had, perhaps only some time after it went on without.
        progress: How far the join is.
    """

    def __init__(
        self,
        manager: SessionManager,
        channel: ChannelCore,
        *,
        randrange: Callable[[int], int],
        join_window: float,
        timeout: float,
        budget: ServingBudget | None = None,
        batch_max: int = 1000,
    ) -> None:
        self.statistics = TransferStatistics()
        self.donor = Donor(
            manager,
            channel,
            statistics=self.statistics,
            budget=ServingBudget() if budget is None else budget,
            batch_max=batch_max,
        )
        self.progress = Progress(manager.context, channel)
        self.is_joined = False
        self.is_complete = True
        self._manager = manager
        self._channel = channel
        self._randrange = randrange
        self._join_window = join_window
        self._timeout = timeout if timeout >= 0 else inf
        self._peers: dict[Member, None] = {}
        self._pulls: dict[int, _Pull] = {}
        self._wants: dict[int, _Pull] = {}
        self._under_way: dict[int, _Pull] = {}
        """By partition, who is asked for it."""
        self._silence: dict[Member, float] = {}
        """How long members are waited for that were silent for too long; `PULL_SILENCE_S`."""
        self._owed: dict[Member, bool] = {}
        """Members to be asked again, and whether they are offered what is here."""
        self._number = 0
        self._started = 0.0
        self._deadline = inf
        self._timer: Timer | None = None
        self.has_met_all: Callable[[], bool] = lambda: True
        """Whether every member that is known has said, or had the time to, what it has."""

    # Life.

    def start(self, now: float) -> None:
        """Begin: joined is who has the sessions of everybody found in the join window."""
        self._started = now
        self.progress.start(now)
        self._channel.timers.at(now + self._join_window, self._look)
        if self._timeout < inf:
            self._deadline = now + max(self._timeout, self._join_window)
            self._channel.timers.at(self._deadline, self._late)
        # Not all members at one moment.
        first = COMPARE_S * (0.5 + self._randrange(1000) / 2000)
        self._timer = self._channel.timers.at(now + self._join_window + first, self._compare)

    def stop(self) -> None:
        """No more comparing."""
        if self._timer is not None:
            self._timer.cancel()

    def peer_up(self, member: Member, now: float) -> None:
        """A member runs this context: ask it for what differs."""
        self._peers[member] = None
        self.pull(member, now)

    def peer_down(self, member: Member, now: float) -> None:
        """A member is gone: whoever else has its sessions is asked too, or was already."""
        self._peers.pop(member, None)
        self._silence.pop(member, None)
        self.donor.peer_down(member)
        self._owed.pop(member, None)
        for sync in [s for s, pull in self._pulls.items() if pull.member == member]:
            self._give_up(sync, MemberUnreachableError("it is gone"), now)

    def resync(self, now: float) -> int:
        """Compare with every member now, as a joining node does; newer state here stays.

        Returns:
            How many members are asked.
        """
        for member in self._peers:
            self.pull(member, now)
        return len(self._peers)

    @property
    def is_comparing(self) -> bool:
        """True while a member has not sent all that it was asked for, or got all that it lacks, or
        is to be asked again. Comparisons that are only to make sure count once they find something.
        """
        return (
            bool(self._owed)
            or self.donor.is_serving
            or any(
                p.left or p.wants or p.gives or not p.is_background for p in self._pulls.values()
            )
        )

    @property
    def record_max_bytes(self) -> int:
        """The longest record that can travel."""
        return self.donor.record_max_bytes

    # Comparing.

    def pull(
        self,
        member: Member,
        now: float,
        *,
        offers: bool = False,
        is_background: bool = False,
        done: Done | None = None,
    ) -> None:
        """Ask one member for the records that are not here.

        Args:
            member: Whom.
            now: Monotonic seconds.
            offers: Also send it what it lacks.
            is_background: Only to make sure: not repeated if it fails.
            done: Told how it ended; then it is not repeated here either.
        """
        owed = False if is_background else self._owed.pop(member, False)
        self._number += 1
        sync = self._number
        self._pulls[sync] = _Pull(
            member, now, offers=offers or owed, is_background=is_background, done=done
        )
        self.statistics.pulls_started += 1
        self._post_summary(sync, member, now)
        self._channel.timers.at(now + DONOR_SILENCE_S, lambda then: self._watch(sync, then))

    def _post_summary(self, sync: int, member: Member, now: float) -> None:
        summary = Summary(self._manager.context, sync, self._manager.table.group_digests())
        self._post(sync, member, summary, now)

    def _post(self, sync: int, member: Member, message: Summary | Want, now: float) -> None:
        def settled(faulty: dict[Member, Exception], then: float) -> None:
            why = faulty.get(member)
            # One that is only slow may answer yet: `_watch` tells how long it is waited for.
            if why is not None and sync in self._pulls and not isinstance(why, SendTimeoutError):
                self._give_up(sync, why, then)

        self._manager.traffic.count_message(message)
        self._channel.post((member,), message.encode(), _ACKED, now, settled=settled)

    def _watch(self, sync: int, now: float) -> None:
        pull = self._pulls.get(sync)
        if pull is None:
            return
        silence = self._silence.get(pull.member, PULL_SILENCE_S)
        if pull.left is not None and not pull.wants:
            # It is we who have not asked: others are asked first, or it is being given something.
            pull.heard = now
        elif now >= pull.heard + silence:
            text = f"it sent nothing for {silence:g} s"
            self._silence[pull.member] = min(2 * silence, PULL_SILENCE_MAX_S)
            self._give_up(sync, MemberUnreachableError(text), now)
            return
        elif now >= pull.heard + DONOR_SILENCE_S and not pull.is_silent:
            self._replace(pull, now)
        if pull.left is None:
            # The answer may be lost with its connection; who answers twice does no harm.
            if pull.member not in self._channel.suspected:
                self._post_summary(sync, pull.member, now)
            self._channel.timers.at(now + DONOR_SILENCE_S, lambda then: self._watch(sync, then))
            return
        pause = silence if pull.is_silent else DONOR_SILENCE_S
        self._channel.timers.at(pull.heard + pause, lambda then: self._watch(sync, then))

    def _replace(self, pull: _Pull, now: float) -> None:
        """A donor is silent: what it owes may be asked of others, and it goes on if it wakes."""
        pull.is_silent = True
        self._release(pull)
        if pull.wants and len(self._pulls) > 1:
            self.statistics.donors_replaced += 1
        self._pump(now)

    def _release(self, pull: _Pull) -> None:
        self._under_way = {p: each for p, each in self._under_way.items() if each is not pull}

    def _give_up(self, sync: int, why: Exception, now: float) -> None:
        pull = self._pulls.pop(sync)
        self._release(pull)
        if pull.wants and self._pulls and not pull.is_silent:
            self.statistics.donors_replaced += 1
        for number in pull.wants:
            del self._wants[number]
        self.statistics.pulls_failed += 1
        if pull.done is not None:
            pull.done(why, now)
        elif pull.member in self._peers and not pull.is_background:
            # It has what this node may lack: ask it again, for as long as it is a member.
            self._owed[pull.member] = pull.offers or self._owed.get(pull.member, False)
            self._channel.timers.at(now + PULL_AGAIN_S, lambda then: self._again(pull.member, then))
        if not pull.is_background:
            fields = {"context": self._manager.application, "member": pull.member.label}
            self._channel.event(Notice("state transfer given up", {**fields, "why": str(why)}))
        self._pump(now)
        self._look(now)

    def _again(self, member: Member, now: float) -> None:
        if member in self._owed:
            self.pull(member, now)

    def _end(self, sync: int, now: float) -> None:
        pull = self._pulls.pop(sync)
        self._silence.pop(pull.member, None)
        if pull.done is not None:
            pull.done(None, now)
        self._look(now)

    def on_digests(self, source: Member, message: Digests, now: float) -> None:
        """A member tells what it has where we differ."""
        pull = self._heard(self._pulls.get(message.sync), source, now)
        if pull is None or pull.left is not None:
            return
        self.progress.know(message.sessions, now)
        width = PARTITIONS // GROUPS
        mine: dict[int, int] = {}
        for group in message.groups:
            first = group * width
            mine.update(self._manager.table.partition_digests(first, first + width - 1))
        theirs = pull.theirs = message.digests
        # Every donor begins elsewhere, so that they meet late.
        start = self._randrange(PARTITIONS)
        differing = self._differing(mine, theirs, is_mutual=pull.offers)
        differing.sort(key=lambda p: (p - start) % PARTITIONS)
        pull.left = {p: theirs.get(p, 0) for p in differing}
        share = len(differing) // (WANTS_PER_DONOR * len(self._pulls))
        by_size = PARTITIONS * WANT_SESSIONS // max(1, message.sessions)
        pull.partitions_max = max(WANT_PARTITIONS_MIN, min(share, by_size))
        self._pump(now)

    def _differing(
        self, mine: dict[int, int], theirs: dict[int, int], *, is_mutual: bool
    ) -> list[int]:
        listed = mine.keys() | theirs.keys() if is_mutual else theirs.keys()
        return [p for p in listed if theirs.get(p, 0) != mine.get(p, 0)]

    def _heard(self, pull: _Pull | None, source: Member, now: float) -> _Pull | None:
        if pull is None or pull.member != source:
            return None
        pull.heard = now
        pull.is_silent = False
        return pull

    def _pump(self, now: float) -> None:
        """Ask every donor that is free for the next partitions."""
        for sync, pull in list(self._pulls.items()):
            while (
                sync in self._pulls
                and pull.left
                and len(pull.wants) < WANTS_MAX
                and not pull.is_silent
            ):
                have = self._next(pull, pull.left)
                if not have:
                    break
                self._want(sync, pull, have, now)
            if pull.is_equal and sync in self._pulls:
                self._end(sync, now)

    def _next(self, pull: _Pull, left: dict[int, int]) -> dict[int, list[int]]:
        """Partitions to ask a donor for, with what is here of each."""
        table = self._manager.table
        have: dict[int, list[int]] = {}
        listed = 0
        for partition in list(left):
            if len(have) >= pull.partitions_max or listed >= WANT_SESSIONS:
                break
            if partition in self._under_way:
                continue
            if table.partition_digest(partition) == left[partition]:
                # It came from another donor.
                del left[partition]
                continue
            have[partition] = [each for each, _ in table.session_digests(partition)]
            listed += len(have[partition])
        for partition in have:
            del left[partition]
            self._under_way[partition] = pull
        return have

    def _want(self, sync: int, pull: _Pull, have: dict[int, list[int]], now: float) -> None:
        self._number += 1
        number = self._number
        pull.wants[number] = list(have)
        self._wants[number] = pull
        want = Want(self._manager.context, number, pull.offers, have)
        self._post(sync, pull.member, want, now)

    def on_lack(self, source: Member, message: Lack, now: float) -> None:
        """A member does not have some of the sessions that we listed: it gets them."""
        pull = self._heard(self._wants.get(message.sync), source, now)
        if pull is None or not pull.offers:
            return
        pull.gives += 1
        sync = next(number for number, each in self._pulls.items() if each is pull)

        def given(why: Exception | None, then: float) -> None:
            pull.gives -= 1
            pull.heard = then
            if self._pulls.get(sync) is pull:
                if why is not None:
                    self._give_up(sync, why, then)
                elif pull.is_equal:
                    self._end(sync, then)

        records = self.donor.lacking(pull.wants[message.sync], message.digests, now)
        self.donor.serve(source, 0, records, now, given)

    def on_records(self, source: Member, message: Records, now: float) -> None:
        """Merge what a member sent."""
        pull = self._heard(self._wants.get(message.sync), source, now)
        try:
            self.merge(message.pairs, now)
        finally:
            # Whether or not all of it could be merged: the member has sent what it has.
            self.progress.receive(len(message.pairs), source, now)
            if message.pairs and now + PROGRESS_S > self._deadline:
                longest = self._started + OVERTIME_MAX * self._timeout
                self._deadline = max(self._deadline, min(now + PROGRESS_S, longest))
            if pull is not None and message.done:
                self._wanted(message, pull, now)

    def _wanted(self, message: Records, pull: _Pull, now: float) -> None:
        del self._wants[message.sync]
        wanted = pull.wants.pop(message.sync)
        for partition in wanted:
            if self._under_way.get(partition) is pull:
                del self._under_way[partition]
        if message.is_lossy and pull.left is not None:
            # This node was too slow. What it lists of them now is not sent again.
            pull.left.update((p, pull.theirs.get(p, 0)) for p in wanted)
        self._pump(now)

    def merge(self, pairs: Pairs, now: float) -> None:
        """Merge records or deltas into the table. A bad one costs only itself.

        Raises:
            RemoteProtocolError: Some were refused; all others were merged.
        """
        table, clock = self._manager.table, self._manager.clock
        now_ds = deciseconds(now)
        refused: RemoteProtocolError | None = None
        for key, data in pairs:
            try:
                record = from_wire(data, now_ds)
                clock.observe(life_and_access(record)[1])
            except RemoteProtocolError as error:
                self.statistics.records_refused += 1
                refused = error
                continue
            self._manager.unknown.look(record)
            before, after, has_changed = table.merge_in(key, record, now_ds)
            self.statistics.records_received += 1
            if has_changed:
                self._manager.merged(key, before, after)
                if before is not None:
                    losses = self._manager.overwritten(before, after)
                    tell_conflicts(self._manager, self._channel, key, losses)
            self._look_for_losers(key, before, record)
        if refused is not None:
            raise refused

    def _look_for_losers(self, key: str, before: Record | None, incoming: Record) -> None:
        """Where everybody has everything, each finds what it has lost itself."""

    # The join, and what follows it.

    def _late(self, now: float) -> None:
        """The time for joining is over, unless records came lately."""
        if now >= self._deadline:
            self._look(now)
        elif not self.is_joined:
            self._channel.timers.at(self._deadline, self._late)

    def met_all(self, now: float) -> None:
        """Every member has said by now what it has, or nobody waits for that any longer."""
        self._look(now)

    def _may_end(self, now: float) -> bool:
        """Whether nobody is to be expected any more that could have sessions."""
        return now >= self._started + self._join_window and self.has_met_all()

    def _look(self, now: float) -> None:
        if self.is_joined and self.is_complete:
            return
        is_waiting = any(not p.is_background for p in self._pulls.values()) or bool(self._owed)
        if self.is_joined:
            # It went on without all sessions, and here is the rest of them.
            self.is_complete = not is_waiting
            return
        if now >= self._deadline:
            self.is_complete = not is_waiting
        elif is_waiting or not self._may_end(now):
            return
        self.is_joined = True
        if not self.is_complete:
            self.statistics.no_state_transferred += 1
        self.progress.end(now)
        fields = {
            "context": self._manager.context,
            "sessions": len(self._manager.table),
            "members": len(self._peers),
            "seconds": round(now - self._started, 3),
        }
        name = "joined" if self.is_complete else "joined without all sessions"
        self._channel.event(Notice(name, fields))

    def _compare(self, now: float) -> None:
        # Also where there is nobody to compare with: what is hashed now need not be remembered.
        if self._manager.table.settle_digests(SETTLE_SESSIONS):
            self._timer = self._channel.timers.at(now + SETTLE_PAUSE_S, self._compare)
            return
        self._timer = self._channel.timers.at(now + COMPARE_S, self._compare)
        suspected = self._channel.suspected
        # Who is getting records is not given the same ones a second time.
        peers = tuple(p for p in self._peers if p not in suspected and not self.donor.serves(p))
        if not peers or self._pulls or self._owed:
            return
        peer = peers[self._randrange(len(peers))]
        self.pull(peer, now, offers=True, is_background=True)
