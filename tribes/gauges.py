"""What a node keeps for its members at this moment, and how often each bound was met.

The steps are those of DESIGN §5.4, from the request to the wire: the inbox, the dispatch queue, and
per member the queues, the debt and what is not acknowledged. ``docs/backpressure.md`` says what
each means for an operator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from tribes.interceptors import MessageDispatchInterceptor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tribes.channel.core import ChannelCore
    from tribes.manager.inbox import Inbox
    from tribes.manager.replication import Replicator
    from tribes.wire.member import Member

__all__ = ["NodeGauges", "PeerGauges", "gauges_of"]


@final
@dataclass(frozen=True, slots=True)
class PeerGauges:
    """One destination: a member, or a stranger that was sent something.

    The first block is as of now, the second counts since it became a member. Bytes are those of
    frames; see :class:`~tribes.links.base.QueueBounds` for the bounds.

    Attributes:
        member: Its record.
        is_suspected: It does not answer.
        raw_bytes: Users' messages that wait to be written.
        live_bytes: Changes of sessions that wait to be written.
        unacked_bytes: Written, and not known to be received.
        blocked: Sends that wait for room in its queue.
        dirty_keys: Sessions that it is behind with, over all contexts.
        needs_sync: In some context there are too many to count: everything will be compared.
        is_behind: In some context changes do not go to it directly.
        round_trip_s: Seconds that the link takes there and back, smoothed over about eight
            measurements: a frame and its acknowledgement, or the opening of the link. On a plain
            link with option 6 the processing is in it. None: nothing was answered yet.
        lag_s: Seconds that the oldest frame for it has waited to be received; 0: none waits.

        live_refused: Messages with changes that found its live queue full.
        sends_blocked: Sends that had to wait for room in its queue.
        sends_timed_out: Those among them that failed for want of room.
        fell_behind: How often changes stopped going to it directly.
        needed_sync: How often everything had to be compared.
        repaired: Merged sessions that it got in place of the changes that it missed.
    """

    member: Member
    is_suspected: bool
    raw_bytes: int
    live_bytes: int
    unacked_bytes: int
    blocked: int
    dirty_keys: int
    needs_sync: bool
    is_behind: bool
    round_trip_s: float | None
    lag_s: float
    live_refused: int
    sends_blocked: int
    sends_timed_out: int
    fell_behind: int
    needed_sync: int
    repaired: int


@final
@dataclass(frozen=True, slots=True)
class NodeGauges:
    """One node. Counters include what went to members that are gone.

    Attributes:
        inbox_bytes: Changes that requests have left and the channel has not taken yet, with 256
            bytes for each.
        inbox_entries: How many that are.
        dispatch_bytes: Users' asynchronous messages that are on their way, with 256 bytes for each.
        dispatch_waiting: Sends that wait for room among them.
        peers: The destinations.

        inbox_peak_bytes: The most that ever was in the inbox.
        inbox_appended: Changes that found room there.
        inbox_waited: Requests that were held back for want of room.
        inbox_overflowed: Changes that found none; their sessions were sent later.
        dispatch_waited: Sends that had to wait for room in the dispatch queue.
        dispatch_rejected: Those among them that failed for want of room.
        live_refused: Messages with changes that found a peer's live queue full.
        sends_blocked: Sends that had to wait for room in a peer's queue.
        sends_timed_out: Those among them that failed for want of room.
        fell_behind: How often changes stopped going to some peer directly.
        needed_sync: How often everything had to be compared with some peer.
        repaired: Merged sessions that peers got in place of the changes that they missed.
        locks_granted: Locks of sessions in the whole group that requests of this node got.
        locks_lost: Those among them whose lease ended before their requests.
        locks_freed: Locks that this node took, as their keeper, from holders that were gone.
    """

    inbox_bytes: int
    inbox_entries: int
    dispatch_bytes: int
    dispatch_waiting: int
    peers: tuple[PeerGauges, ...]
    inbox_peak_bytes: int
    inbox_appended: int
    inbox_waited: int
    inbox_overflowed: int
    dispatch_waited: int
    dispatch_rejected: int
    live_refused: int
    sends_blocked: int
    sends_timed_out: int
    fell_behind: int
    needed_sync: int
    repaired: int
    locks_granted: int
    locks_lost: int
    locks_freed: int


def gauges_of(
    channel: ChannelCore, replicators: Iterable[Replicator], inbox: Inbox, now: float
) -> NodeGauges:
    """Read everything.

    May be called in any thread: each number is right, and they are not of one moment.

    Args:
        channel: The channel.
        replicators: Its contexts.
        inbox: Where requests leave their changes.
        now: Of the channel's clock, for ages.
    """
    replicators = list(replicators)
    repairs = [replicator.repair for replicator in replicators]
    dispatchers = [i for i in channel.interceptors if isinstance(i, MessageDispatchInterceptor)]
    totals = channel.senders.totals
    return NodeGauges(
        inbox_bytes=inbox.bytes,
        inbox_entries=len(inbox),
        dispatch_bytes=sum(each.queued_bytes for each in dispatchers),
        dispatch_waiting=sum(each.waiting for each in dispatchers),
        peers=tuple(_peers(channel, replicators, now)),
        inbox_peak_bytes=inbox.peak_bytes,
        inbox_appended=inbox.appended,
        inbox_waited=inbox.waited,
        inbox_overflowed=inbox.overflowed,
        dispatch_waited=sum(each.waited for each in dispatchers),
        dispatch_rejected=sum(each.rejected for each in dispatchers),
        live_refused=totals.live_refused,
        sends_blocked=totals.blocked,
        sends_timed_out=totals.timed_out,
        fell_behind=sum(each.fell_behind for each in repairs),
        needed_sync=sum(each.needed_sync for each in repairs),
        repaired=sum(each.repaired for each in repairs),
        locks_granted=sum(each.locks.granted for each in replicators),
        locks_lost=sum(each.locks.lost for each in replicators),
        locks_freed=sum(each.locks.freed for each in replicators),
    )


def _peers(channel: ChannelCore, replicators: list[Replicator], now: float) -> Iterable[PeerGauges]:
    senders, suspected = channel.senders, channel.view.suspected
    for member, load in senders.loads.items():
        debts = [replicator.repair.state(member) for replicator in replicators]
        counts = senders.counts_of(member)
        yield PeerGauges(
            member=member,
            is_suspected=member in suspected,
            raw_bytes=load.raw,
            live_bytes=load.live,
            unacked_bytes=load.unacked,
            blocked=senders.blocked_on(member),
            dirty_keys=sum(debt.dirty for debt in debts),
            needs_sync=any(debt.needs_sync for debt in debts),
            is_behind=any(debt.is_behind for debt in debts),
            round_trip_s=senders.round_trip(member),
            lag_s=senders.lag(member, now),
            live_refused=counts.live_refused,
            sends_blocked=counts.blocked,
            sends_timed_out=counts.timed_out,
            fell_behind=sum(debt.fell_behind for debt in debts),
            needed_sync=sum(debt.needed_sync for debt in debts),
            repaired=sum(debt.repaired for debt in debts),
        )
