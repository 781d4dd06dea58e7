"""The side of a comparison that has records: it says what differs, and sends what is wanted.

Records are encoded when they leave, and never before: a donor keeps references to what it is still
to send, that is keys.  What it has encoded and the members have not processed is bounded twice: by
`OUTSTANDING_MAX_BYTES` for each request, and by `ServingBudget` for all members and contexts
together.  Changes go first: while some wait in a member's live queue, it gets one message of
records every `TRICKLE_S` and no more.

A member may be slow.  When it did not acknowledge a message in time, the donor sends no more and
tells it as soon as it listens; the member asks again at once, for what it has not got.  So nothing
is sent twice, and a stall of one of them costs no more than it lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Final

from tribes.errors import (
    MemberBehindError,
    MemberSuspectedError,
    QueueFullError,
    RemoteProcessError,
    SendTimeoutError,
)
from tribes.wire.options import SendOptions

from .merge import digest
from .messages import Digests, Lack, Pairs, Records, Summary, Want
from .record import deciseconds, size, to_wire
from .serving_budget import RECORDS_MAX_BYTES, SERVING_STRANGERS_MAX, TRICKLE_S, ServingBudget
from .session_ids import GROUPS, PARTITIONS

if TYPE_CHECKING:
    from tribes.channel.core import ChannelCore
    from tribes.wire.member import Member

    from .base import SessionManager
    from .record import Record
    from .transfer import TransferStatistics

__all__ = ["Donor", "are_lost"]

UNANSWERED_MAX: Final = 8
"""Messages of a request that a slow member may leave unacknowledged; then it is dropped."""

OUTSTANDING_MAX_BYTES = 256 * 1024
"""Records of one request that were sent and not processed, but for the last message's surplus."""

SERVINGS_MAX = 8
"""Requests of one member that are served at once; of more the oldest is dropped."""

LIVE_SLACK_BYTES: Final = 64 * 1024
"""A live queue with less than one message of changes counts as empty."""

_MESSAGE_ROOM_BYTES: Final = 4096
"""What a message of records needs beyond them: context, keys, lengths."""

_SLOW: Final = (SendTimeoutError, MemberSuspectedError)
"""What says that a member does not keep up; it is still one."""

_ACKED = int(SendOptions.USE_ACK | SendOptions.SYNCHRONIZED_ACK)


class _Serving:
    """One request that is being served."""

    __slots__ = (
        "ended",
        "have",
        "is_lossy",
        "is_over",
        "is_told",
        "is_waiting",
        "messages",
        "outstanding",
        "records",
        "sync",
        "target",
        "unanswered",
    )

    def __init__(
        self,
        target: Member,
        sync: int,
        records: Iterator[tuple[str, bytes]],
        ended: Callable[[Exception | None, float], None] | None,
        have: dict[int, list[int]],
    ) -> None:
        self.target = target
        self.sync = sync
        self.records = records
        self.ended = ended
        self.have = have  # the partitions that are wanted and not begun
        self.messages = 0  # on their way
        self.outstanding = 0  # bytes in them
        self.unanswered = 0  # messages
        self.is_lossy = False  # some may not have arrived
        self.is_over = False  # nothing is left to be encoded
        self.is_told = False  # the last message is on its way
        self.is_waiting = False  # a timer is set


class Donor:
    """Serves what other members want of one context.

    Args:
        manager: Its table has the records.
        channel: Where they go.
        statistics: Counts what was sent.
        budget: Shared by all donors of the process.
        batch_max: Sessions of one message (``sendAllSessionsSize``).
    """

    def __init__(
        self,
        manager: SessionManager,
        channel: ChannelCore,
        *,
        statistics: TransferStatistics,
        budget: ServingBudget,
        batch_max: int,
    ) -> None:
        self._manager = manager
        self._channel = channel
        self._statistics = statistics
        self._budget = budget
        self._batch_max = batch_max
        self._servings: dict[Member, dict[_Serving, None]] = {}

    @property
    def is_serving(self) -> bool:
        """Whether somebody is still to get records."""
        return bool(self._servings)

    def serves(self, member: Member) -> bool:
        """Whether this member is still to get records."""
        return member in self._servings

    @property
    def record_max_bytes(self) -> int:
        """The longest record that can travel."""
        return self._channel.message_max_bytes - RECORDS_MAX_BYTES - _MESSAGE_ROOM_BYTES

    def peer_down(self, member: Member) -> None:
        """A member is gone: it wants nothing any more."""
        self._servings.pop(member, None)

    def on_summary(self, source: Member, message: Summary, now: float) -> None:
        """Tell the source the digests of the groups in which it differs."""
        table = self._manager.table
        mine = table.group_digests()
        groups = [g for g in range(GROUPS) if mine[g] != message.sums[g]]
        width = PARTITIONS // GROUPS
        digests: dict[int, int] = {}
        for group in groups:
            digests.update(table.partition_digests(group * width, (group + 1) * width - 1))
        answer = Digests(message.context, message.sync, len(table), groups, digests)
        self._manager.traffic.count_message(answer)
        self._channel.post((source,), answer.encode(), _ACKED, now)

    def on_want(self, source: Member, message: Want, now: float) -> None:
        """Send what the source wants, after saying what is lacking here if it offers that."""
        table = self._manager.table
        if message.offers:
            lacking: list[int] = []
            for partition, listed in message.have.items():
                mine = {each for each, _ in table.session_digests(partition)} if listed else ()
                lacking.extend(each for each in listed if each not in mine)
            if lacking:
                answer = Lack(message.context, message.sync, lacking)
                self._manager.traffic.count_message(answer)
                self._channel.post((source,), answer.encode(), _ACKED, now)
        for serving in self._servings.get(source, ()):
            # Who asks again has given up waiting for the rest of it.
            for partition in message.have.keys() & serving.have.keys():
                del serving.have[partition]
        have = dict(message.have)
        self.serve(source, message.sync, self._wanted(have, now), now, have=have)

    def serve(
        self,
        target: Member,
        sync: int,
        records: Iterator[tuple[str, bytes]],
        now: float,
        ended: Callable[[Exception | None, float], None] | None = None,
        *,
        have: dict[int, list[int]] | None = None,
    ) -> None:
        """Send records, as fast as the member processes them.

        Args:
            target: Who gets them.
            sync: Of its request; 0: it made none.
            records: What to send; asked for more when there is room.
            now: Monotonic seconds.
            ended: Told when all are processed, or why not all could be sent.
            have: What ``records`` takes its partitions from; one taken out is not sent.
        """
        servings = self._servings.get(target)
        if servings is None:
            if len(self._servings) >= SERVING_STRANGERS_MAX:
                # Who has asked asks again.
                if ended is not None:
                    ended(QueueFullError(f"{len(self._servings)} members are being served"), now)
                return
            servings = self._servings[target] = {}
        elif len(servings) >= SERVINGS_MAX:
            self._end(next(iter(servings)), QueueFullError("newer requests took its place"), now)
            servings = self._servings.setdefault(target, {})
        serving = _Serving(target, sync, records, ended, {} if have is None else have)
        servings[serving] = None
        self._go_on(serving, now)

    def lacking(
        self, partitions: list[int], digests: list[int], now: float
    ) -> Iterator[tuple[str, bytes]]:
        """The records of these partitions that have one of these digests."""
        table = self._manager.table
        lacked = set(digests)
        for partition in partitions:
            for each, key in table.session_digests(partition):
                record = table.get(key) if each in lacked else None
                wire = None if record is None else self._encoded(record, now)
                if wire is not None:
                    yield key, wire

    def _wanted(self, have: dict[int, list[int]], now: float) -> Iterator[tuple[str, bytes]]:
        table = self._manager.table
        while have:
            partition = next(iter(have))
            known = set(have.pop(partition))
            for key in table.keys_of(partition):
                record = table.get(key)
                # Who has nothing gets everything: then nothing has to be hashed.
                if record is None or (known and digest(key, record) in known):
                    continue
                wire = self._encoded(record, now)
                if wire is not None:
                    yield key, wire

    def _encoded(self, record: Record, now: float) -> bytes | None:
        if size(record) > self.record_max_bytes:
            # No member could read it. Its writer was told; all others shall have theirs.
            self._statistics.records_too_large += 1
            return None
        return to_wire(record, deciseconds(now))

    def _is_current(self, serving: _Serving) -> bool:
        return serving in self._servings.get(serving.target, ())

    def _go_on(self, serving: _Serving, now: float) -> None:
        while self._is_current(serving) and not (serving.is_told or serving.is_waiting):
            if serving.messages and (
                serving.outstanding + RECORDS_MAX_BYTES > OUTSTANDING_MAX_BYTES or serving.is_over
            ):
                return
            if not self._may_send(serving.target):
                self._wait(serving, now)
                return
            self._send(serving, now)

    def _may_send(self, target: Member) -> bool:
        """Whether nothing but records waits for a member, and the budget allows for more."""
        if self._budget.is_spent or target in self._channel.suspected:
            return False
        waiting = self._channel.live_waiting(target) - self._budget.of(target)
        return waiting <= LIVE_SLACK_BYTES

    def _wait(self, serving: _Serving, now: float) -> None:
        if serving.is_waiting:
            return
        serving.is_waiting = True

        target = serving.target

        def again(then: float) -> None:
            serving.is_waiting = False
            if self._is_current(serving) and not serving.is_told:
                may_send = not serving.messages and target not in self._channel.suspected
                if may_send and self._budget.may_trickle(target, then):
                    self._send(serving, then)
                self._go_on(serving, then)

        self._channel.timers.at(now + TRICKLE_S, again)

    def _send(self, serving: _Serving, now: float) -> None:
        pairs, length = self._take(serving)
        is_last = serving.is_over and not serving.messages
        if not pairs and not (is_last and serving.sync):
            if is_last:
                self._end(serving, None, now)
            return
        serving.is_told = is_last
        self._statistics.records_sent += len(pairs)
        serving.messages += 1
        serving.outstanding += length
        target = serving.target
        self._budget.take(target, length)

        def settled(faulty: dict[Member, Exception], then: float) -> None:
            self._budget.give_back(target, length)
            serving.messages -= 1
            serving.outstanding -= length
            if not self._is_current(serving):
                return
            why = faulty.get(target)
            if isinstance(why, MemberBehindError):
                # There is no room for it just now: the same again when there is.
                serving.records = chain(pairs, serving.records)
                serving.is_over = serving.is_told = False
                self._wait(serving, then)
                return
            self._settle(serving, why, then)

        message = Records(
            self._manager.context, serving.sync, pairs, is_last, is_last and serving.is_lossy
        )
        self._manager.traffic.count_message(message)
        self._channel.post((target,), message.encode(), _ACKED, now, settled=settled)

    def _take(self, serving: _Serving) -> tuple[Pairs, int]:
        """Encode the records of one message; return how many bytes they have, too."""
        pairs: Pairs = []
        length = 0
        for key, record in serving.records:
            pairs.append((key, record))
            length += len(record)
            if length >= RECORDS_MAX_BYTES or len(pairs) >= self._batch_max:
                break
        else:
            serving.is_over = True
        return pairs, length

    def _settle(self, serving: _Serving, why: Exception | None, now: float) -> None:
        if isinstance(why, _SLOW) and serving.sync and serving.unanswered < UNANSWERED_MAX:
            serving.unanswered += 1
            serving.is_lossy = serving.is_over = True
            serving.is_told = False
            serving.records = iter(())
            self._statistics.messages_unanswered += 1
        elif why is not None and are_lost(why):
            # Who asked, with a number, asks again.
            self._end(serving, why, now)
            return
        if not serving.is_told:
            # Not from within: a message that is settled at once must not nest the next one.
            self._channel.timers.at(now, lambda then: self._go_on(serving, then))
        elif not serving.messages:
            self._end(serving, None, now)

    def _end(self, serving: _Serving, why: Exception | None, now: float) -> None:
        servings = self._servings[serving.target]
        del servings[serving]
        if not servings:
            del self._servings[serving.target]
        if serving.ended is not None:
            serving.ended(why, now)


def are_lost(why: Exception) -> bool:
    """Whether a message did not arrive. Refused records cost only themselves."""
    return not isinstance(why, RemoteProcessError)
