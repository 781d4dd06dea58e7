"""Deliberate protocol faults: what the simulator and its invariants must notice.

Each mutant replaces a few functions of the product while a plan runs, and says at which faults the
plans should aim. One that may survive says why; that is a gap of the checkers, or no fault at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tribes.channel import core, inbound
from tribes.channel.inbound import DeliveryQueue, Inbound, Outcomes
from tribes.channel.tickets import Ticket
from tribes.interceptors.dispatch import MessageDispatchInterceptor
from tribes.interceptors.failure import TcpFailureDetector
from tribes.links.base import OutFrame
from tribes.links.plain import PlainReceiver, PlainSender
from tribes.links.pool import SenderPool
from tribes.manager import base, digests, merge, record, table, transfer
from tribes.manager.clock import Clock
from tribes.manager.expiry import Expiry
from tribes.manager.group import SessionGroup
from tribes.manager.inbox import Inbox
from tribes.manager.messages import Records
from tribes.manager.record import HAS_CONTAINER, Life, from_wire, header, main_of
from tribes.manager.repair import Repair
from tribes.manager.replication import Replicator
from tribes.manager.session_ids import PARTITIONS
from tribes.manager.table import SessionTable
from tribes.manager.transfer import Transfer
from tribes.membership.change import ChangeKind, MemberChange
from tribes.membership.multicast import MulticastMembership
from tribes.membership.table import MembershipTable
from tribes.membership.view import ViewBuilder
from tribes.wire.frame import FrameDecoder

if TYPE_CHECKING:
    from tribes.wire.member import Member

__all__ = ["MUTANTS", "Mutant"]

Patch = tuple[Any, str, Any]
"""A class or module, the name in it, and what stands there instead."""


@dataclass(frozen=True)
class Mutant:
    """One broken build.

    Attributes:
        name: Short and unique.
        text: What is wrong, in a sentence.
        patches: What is replaced.
        faults: Actions to draw plans from; repeated names come more often.
        options: Send options of the managers, one plan after the other; empty: as drawn.
        changes: Fields that every plan gets.
        stress: Replaced in the sound build too: small queues, so that their bounds are met.
        reason: Why it may survive; empty: it must be caught.
    """

    name: str
    text: str
    patches: tuple[Patch, ...]
    faults: tuple[str, ...] = ()
    options: tuple[int, ...] = ()
    changes: dict[str, Any] = field(default_factory=dict)
    stress: tuple[Patch, ...] = ()
    reason: str = ""

    @contextmanager
    def patch(self, *, sound: bool = False) -> Iterator[None]:
        """Break the product; with ``sound`` only make its queues as small as for this mutant."""
        with ExitStack() as stack:
            for owner, name, new in (*self.stress, *(() if sound else self.patches)):
                stack.enter_context(_replaced(owner, name, new))
            yield


@contextmanager
def _replaced(owner: Any, name: str, new: Any) -> Iterator[None]:
    old = vars(owner)[name]
    setattr(owner, name, new)
    try:
        yield
    finally:
        setattr(owner, name, old)


MUTANTS: Final[list[Mutant]] = []


def _add(name: str, text: str, *patches: Patch, **settings: Any) -> None:
    MUTANTS.append(Mutant(name, text, patches, **settings))


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _every(owner: type, name: str, period: int, instead: Callable[..., Any]) -> Patch:
    """A method that does something else at each ``period``-th call on an object of the class."""
    real = vars(owner)[name]
    counts = f"mutant_calls_of_{name}"

    def method(self: Any, *args: Any, **settings: Any) -> Any:
        calls = getattr(self, counts, 0) + 1
        setattr(self, counts, calls)
        return (instead if calls % period == 0 else real)(self, *args, **settings)

    return owner, name, method


_LOSS: Final = ("crash", "crash_during_send", "restart", "mass_restart") * 2
_CRASH: Final = ("crash",) * 5
_LINKS: Final = ("reset", "reset_mid_frame", "half_open") * 3
_SPLIT: Final = ("partition", "cut", "flap", "pause") * 2
_STALL: Final = ("clog", "pause", "no_tcp") * 2
_CLOG: Final = ("clog",) * 10
_SHORT_IDLE: Final = {"max_inactive_s": 3}
_BUSY: Final = {"clients": 6, "think": 0.05}
_MESSAGES: Final = {"messages_per_s": 5.0}


# ---- acknowledgements and tickets --------------------------------------------------------------


def _drop_ack(self: Any) -> None:
    # The slots go, and nothing is written.
    while self._slots and self._slots[0].frame is not None:
        self._slots.popleft()


_add(
    "ack dropped",
    "Each twentieth acknowledgement of a connection is not written.",
    _every(PlainReceiver, "flush", 20, _drop_ack),
)
_add(
    "ack before processing",
    "With option 6 the acknowledgement goes out before the listener has run.",
    (core, "_SYNC", 0),
    changes=_MESSAGES,
)

_answer = PlainReceiver.answer
_add(
    "failure acknowledged",
    "A listener's failure is answered like its success.",
    (PlainReceiver, "answer", lambda self, slot, *, ok: _answer(self, slot, ok=True)),
    changes=_MESSAGES,
)
_add(
    "failure ignored",
    "The sender takes the answer that a listener failed for a success.",
    (PlainSender, "_fail_ack", lambda self, frame, now: self._settle(frame, None, now)),
    changes=_MESSAGES,
)
_add(
    "failure for nothing",
    "Each thirtieth answer says that the listener failed, though it did not.",
    _every(PlainReceiver, "answer", 30, lambda self, slot, *, ok: _answer(self, slot, ok=False)),
    changes=_MESSAGES,
)

_settle = Ticket.settle
_add(
    "faulty list empty",
    "A ticket forgets which members failed.",
    (Ticket, "settle", lambda self, member, error, now: _settle(self, member, None, now)),
    changes=_MESSAGES,
)


def _blame_all(self: Any, member: Member, error: Exception | None, now: float) -> None:
    for each in list(self._open) if error is not None else [member]:
        _settle(self, each, error, now)


_add(
    "faulty list too long",
    "Who failed takes all with it that have not answered yet.",
    (Ticket, "settle", _blame_all),
    changes={**_MESSAGES, "members": 4},
)


def _first_answer(self: Any, member: Member, error: Exception | None, now: float) -> None:
    for each in [member, *self._open]:
        _settle(self, each, error if each == member else None, now)


_add(
    "ticket ends at the first answer",
    "A ticket is done when one member has answered.",
    (Ticket, "settle", _first_answer),
    changes={**_MESSAGES, "members": 4},
)
_add(
    "acknowledgement not awaited",
    "A frame counts as acknowledged once the kernel has it.",
    (
        core,
        "OutFrame",
        lambda data, *, needs_ack, settle: OutFrame(data, needs_ack=False, settle=settle),
    ),
    changes=_MESSAGES,
)


# ---- links -------------------------------------------------------------------------------------


_add(
    "timeout ignored",
    "What is not acknowledged in time goes on waiting.",
    (PlainSender, "_expire", _nothing),
    faults=("clog", "no_tcp", "delay") * 4,
    changes=_MESSAGES,
    reason="the detector removes who hangs, and the checkers look for waiting sends at the end "
    "only, when the window is open again: one that took too long and ended is not judged",
)


def _forget_begun(self: Any, why: Exception, now: float, *, everything: bool) -> None:
    self._take_all() if everything else self._take_begun()
    _broken(self, why, now, everything=everything)


_broken = PlainSender._broken
_add(
    "begun frames forgotten",
    "When a connection breaks, what was on it is neither repeated nor failed.",
    (PlainSender, "_broken", _forget_begun),
    faults=_LINKS,
)


def _retry_behind(self: Any, why: Exception, now: float, *, everything: bool) -> None:
    waiting = list(self._queue)
    self._queue.clear()
    begun = self._take_begun()
    self._queue.extend(begun[::-1])
    self._queue.extend(waiting[::-1])
    _broken(self, why, now, everything=everything)


_add(
    "order turned round at a reconnect",
    "What a broken connection leaves behind is sent from its end.",
    (PlainSender, "_broken", _retry_behind),
    faults=("clog", "reset", "delay") * 3,
    changes=_MESSAGES,
)


def _retry_twice(self: Any) -> list[OutFrame]:
    return [frame for frame in _take_begun(self) for _ in range(2)]


_take_begun = PlainSender._take_begun
_add(
    "retried twice",
    "A frame on a broken connection is queued twice.",
    (PlainSender, "_take_begun", _retry_twice),
    faults=_LINKS,
)


def _close_silently(self: Any, why: Exception, now: float, *, abort: bool) -> None:
    self._take_all()
    _close(self, why, now, abort=abort)


_close = PlainSender.close
_add(
    "queue not failed on close",
    "What waits for a member that is gone gets no outcome.",
    (PlainSender, "close", _close_silently),
    faults=("crash", "pause") * 3,
    changes=_MESSAGES,
)


def _overtake(self: Any, frame: OutFrame, now: float) -> None:
    _enqueue(self, frame, now)
    if self._queue and self._queue[-1] is frame:
        self._queue.rotate(1)


_enqueue = PlainSender.enqueue
_add(
    "newest first",
    "A frame is queued before those that wait already.",
    (PlainSender, "enqueue", _overtake),
    faults=("clog", "delay", "throttle") * 3,
    changes=_MESSAGES,
)


def _keep_positions(self: Any, link: int, now: float) -> None:
    written, flushed = self._written, self._flushed
    self._attempt = None
    self._link = link
    self._decoder = FrameDecoder(body_max_bytes=1024)
    self._written, self._flushed = written, flushed
    self._pump()
    del now


_add(
    "positions kept across connections",
    "A new connection goes on counting where the old one ended.",
    (PlainSender, "link_opened", _keep_positions),
    faults=_LINKS,
    options=(0, 8),
    changes=_MESSAGES,
    reason="the next acknowledged frame settles what went before it, and the load always has some",
)


def _reconnect_never(self: Any) -> None:
    if not getattr(self, "mutant_has_connected", False):
        self.mutant_has_connected = True
        _connect(self)


_connect = PlainSender._connect
_add(
    "never connects again",
    "A broken connection is not replaced.",
    (PlainSender, "_connect", _reconnect_never),
    faults=_LINKS,
)
_add(
    "gone member's sender kept",
    "What waits for a removed member is still sent, to whoever has its port.",
    (SenderPool, "drop", _nothing),
    faults=("crash", "pause", "mass_restart") * 3,
    changes=_MESSAGES,
    reason="what waits still fails in time, and what reaches a successor on the same port is "
    "excused by `nothing invented`",
)


def _broken_for_good(self: Any, why: Exception, now: float, *, everything: bool) -> None:
    for frame in (*self._unflushed, *self._queue, *((self._awaited,) if self._awaited else ())):
        frame.attempts = 99
    _broken(self, why, now, everything=everything)


_add(
    "no retry",
    "A broken connection fails its frames at once.",
    (PlainSender, "_broken", _broken_for_good),
    faults=_LINKS,
    changes=_MESSAGES,
    reason="the ticket says so, and a fault excuses it: one retry is a comfort, not a promise",
)


# ---- deliveries --------------------------------------------------------------------------------


_add(
    "delivered twice after a reconnect",
    "Frames that were received before are processed again.",
    (Outcomes, "find_or_add", lambda self, data: (Inbound(), True)),
    faults=_LINKS,
    changes=_MESSAGES,
)
_add(
    "too few outcomes remembered",
    "Only the latest frame of a source is known again.",
    (inbound, "_OUTCOMES_PER_SOURCE", 0),
    faults=_LINKS,
    changes=_MESSAGES,
)


def _newest(self: Any, member: Member, source: Any) -> None:
    source.waiting.rotate(1)
    _deliver(self, member, source)


_deliver = DeliveryQueue._deliver
_add(
    "listener gets the newest first",
    "What waits for the listeners is taken from its end.",
    (DeliveryQueue, "_deliver", _newest),
    faults=("clog", "delay", "pause", "no_multicast") * 3,
    changes=_MESSAGES,
)
_add(
    "message lost before the listener",
    "Each tenth message is acknowledged and given to nobody.",
    _every(DeliveryQueue, "put", 10, _nothing),
    changes=_MESSAGES,
)
_add(
    "delivery not ended",
    "The end of a delivery does not let the next one begin.",
    _every(DeliveryQueue, "delivered_one", 5, lambda self, token, error: None),
    changes=_MESSAGES,
)

_delivery_init = DeliveryQueue.__init__


def _small_delivery(self: Any, config: Any, **settings: Any) -> None:
    _delivery_init(self, msgspec.structs.replace(config, pending_max=1), **settings)


_add(
    "pause never ended",
    "A connection that was paused for a full delivery queue is not read again.",
    (DeliveryQueue, "_relieve", _nothing),
    faults=("clog", "delay", "throttle", "pause") * 3,
    options=(0, 8),
    changes=_MESSAGES,
    stress=((DeliveryQueue, "__init__", _small_delivery),),
)


def _send_to_all(self: Any, message: Any, now: float) -> None:
    message.destinations = tuple(dict.fromkeys((*message.destinations, *self.view.members)))
    _to_links(self, message, now)


_to_links = core.ChannelCore._to_links
_add(
    "sent to everybody",
    "A message goes to all members, not to its destinations.",
    (core.ChannelCore, "_to_links", _send_to_all),
    changes={**_MESSAGES, "members": 4},
)


# ---- dispatch ----------------------------------------------------------------------------------


def _leak(self: Any, message: Any, now: float, following: Any) -> None:
    _admit(self, message, now, following)
    self.queued_bytes += 300


_admit = MessageDispatchInterceptor._admit


def _small_queue(self: Any, **settings: Any) -> None:
    del settings
    _dispatch_init(self, max_queue_size=20_000)


_dispatch_init = MessageDispatchInterceptor.__init__
_SMALL_QUEUE: Final = ((MessageDispatchInterceptor, "__init__", _small_queue),)
_add(
    "dispatch queue leaks",
    "The queue does not give back all room of what has left it.",
    (MessageDispatchInterceptor, "_admit", _leak),
    options=(8,),
    changes={**_MESSAGES, **_BUSY},
    stress=_SMALL_QUEUE,
)
_add(
    "dispatch bound forgotten",
    "The queue takes whatever comes.",
    (MessageDispatchInterceptor, "_has_room", lambda self, message: True),
    faults=_STALL,
    options=(8,),
    changes={**_BUSY, "messages_per_s": 0.0},
    stress=_SMALL_QUEUE,
    reason="the bound allows one longest frame, and the load of a plan is shorter than that; "
    "the interceptor's own tests see it",
)


def _hide_outcome(self: Any, message: Any, now: float, following: Any) -> None:
    ticket = message.ticket
    real = ticket._on_settled
    if real is not None:
        ticket._on_settled = lambda faulty, then: real({}, then)
    _admit(self, message, now, following)


_add(
    "asynchronous failure not told",
    "Nobody learns that a queued message did not arrive.",
    (MessageDispatchInterceptor, "_admit", _hide_outcome),
    faults=_STALL,
    options=(8, 10),
    changes=_BUSY,
)


# ---- membership --------------------------------------------------------------------------------


_add(
    "never removed",
    "A member that is dead stays in the view.",
    (ViewBuilder, "remove", lambda self, member: False),
    faults=_CRASH,
)
_add(
    "detector removes nobody",
    "The failure detector never reports a removal.",
    (TcpFailureDetector, "_remove", _nothing),
    faults=_CRASH,
)
_add(
    "newcomers not added",
    "A member that was there before is not added again.",
    _every(ViewBuilder, "add", 6, lambda self, member, now: False),
    faults=_LOSS,
)
_add(
    "replacement forgotten",
    "A new process on a port does not end the one that announced it before.",
    (TcpFailureDetector, "_replace", _nothing),
    faults=("crash_keep_sockets",) * 6,
)


def _untested(self: Any, change: MemberChange, now: float, next: Any) -> None:  # noqa: A002
    self._up = next
    if change.kind is ChangeKind.ADDED:
        self._verified[change.member] = change.member
    elif change.kind is ChangeKind.REMOVED:
        self._verified.pop(change.member, None)
    next(change, now)


_add(
    "no probe",
    "What heartbeats say is believed without asking the member.",
    (TcpFailureDetector, "on_members", _untested),
    faults=("no_multicast", "forge", "drop", "replay") * 3,
    reason="a view that is wrong while faults last is not judged, only the one after them, and "
    "heartbeats mend that",
)


def _heartbeat_once(self: Any, now: float) -> None:
    if self.statistics.heartbeats_sent < 5:
        _heartbeat(self, now)


_heartbeat = MulticastMembership._heartbeat
_add(
    "heartbeats end",
    "A member falls silent after five heartbeats.",
    (MulticastMembership, "_heartbeat", _heartbeat_once),
    faults=_LOSS,
)
_add(
    "farewell ignored",
    "A member that says farewell is not removed for it.",
    (MembershipTable, "_left", lambda self, record: []),
    faults=("leave", "restart", "drain") * 3,
    reason="the connection ends, the detector asks and finds nobody: the same a little later",
)
_add(
    "forget does not forget",
    "Whom the detector gave up stays known below, so its heartbeats make nobody new.",
    (MembershipTable, "forget", _nothing),
    faults=("pause", "partition", "no_tcp") * 3,
)


# ---- who runs what -----------------------------------------------------------------------------


def _hello_once(self: Any, member: Member, now: float, *, is_first: bool) -> None:
    if not is_first:
        _hello(self, member, now, is_first=False)
    elif member not in self.__dict__.setdefault("mutant_greeted", set()):
        self.mutant_greeted.add(member)
        _hello(self, member, now, is_first=True)


_hello = SessionGroup._hello
_add(
    "hello once only",
    "A member that was gone and is back gets no hello.",
    (SessionGroup, "_hello", _hello_once),
    faults=("pause", "partition") * 4,
    changes=_BUSY,
)
_add(
    "hello not answered",
    "A first hello gets no answer.",
    (
        SessionGroup,
        "_hello",
        lambda self, member, now, *, is_first: (
            _hello(self, member, now, is_first=True) if is_first else None
        ),
    ),
    faults=("pause", "partition", "crash") * 4,
    changes=_BUSY,
    reason="every member sends its own first hello: the answer saves time where one side "
    "had not lost the other",
)


def _pull_first(self: Any, source: Member, hello: Any, now: float) -> None:
    if hello.is_first and source in self._channel.view:
        for context, replicator in self.replicators.items():
            if context in hello.contexts:
                replicator.peer_forgot(source, now)
        self._hello(source, now, is_first=False)
        self._contexts[source] = hello.contexts
        self._connect(source, now)
    else:
        _on_hello(self, source, hello, now)


_on_hello = SessionGroup._on_hello
_add(
    "asks before it answers",
    "A node asks for records before the other knows to send it changes.",
    (SessionGroup, "_on_hello", _pull_first),
    faults=("pause", "partition", "cut") * 4,
    changes={**_BUSY, "members": 3},
    reason="the write must fall between two frames of one connection",
)
_add(
    "forgotten member does not ask",
    "A node that the others took for gone does not ask for what it missed.",
    (Replicator, "peer_forgot", _nothing),
    faults=("pause", "no_multicast", "cut") * 4,
    changes={**_BUSY, "members": 3},
)
_add(
    "no comparison after a loss",
    "The death of a member does not make the others compare.",
    (Replicator, "peer_lost", _nothing),
    faults=("crash", "crash_during_send", "partition") * 3,
    changes={**_BUSY, "members": 4},
    reason="probably since the comparison in the background mends most within the settle time",
)
_add(
    "dead member stays a target",
    "Changes still go to members that are gone.",
    (Replicator, "peer_down", _nothing),
    faults=_CRASH,
    reason="probably since a plain link knows its member by address: its successor takes what was "
    "meant for it",
)
_add(
    "newcomer no target",
    "A member that comes later gets no changes.",
    _every(Replicator, "peer_up", 2, _nothing),
    faults=_CRASH,
    changes=_BUSY,
)


# ---- transfer ----------------------------------------------------------------------------------

_add(
    "nothing asked on joining",
    "A node that joins does not ask for sessions.",
    (Transfer, "peer_up", lambda self, member, now: self._peers.update({member: None})),
    faults=_CRASH,
)


def _target_late(self: Any, member: Member, now: float) -> None:
    if member not in self._targets:
        self.transfer.peer_up(member, now)
        self._channel.timers.at(now + 1.0, lambda then: self.__dict__.update(_with(self, member)))
        self.repair.peer_up(member)
        self.expiry.peer_up(member)


def _with(self: Any, member: Member) -> dict[str, Any]:
    here = member in self.transfer._peers and member not in self._targets
    return {"_targets": (*self._targets, member)} if here else {}


_add(
    "target after the snapshot",
    "A joining node gets changes only some time after the records.",
    (Replicator, "peer_up", _target_late),
    faults=_CRASH,
    changes=_BUSY,
)


def _lose_last(self: Any, source: Member, message: Records, now: float) -> None:
    if message.done:
        message = Records(message.context, message.sync, message.pairs[:-1], True)
    _on_records(self, source, message, now)


_on_records = Transfer.on_records
_add(
    "last record lost",
    "The last record of a transfer is not taken in.",
    (Transfer, "on_records", _lose_last),
    faults=_CRASH,
)
_differing = Transfer._differing
_add(
    "partition skipped",
    "The first partition that differs is left out.",
    (Transfer, "_differing", lambda self, message: _differing(self, message)[1:]),
    faults=_CRASH,
)
_add(
    "upper half skipped",
    "Partitions of the upper half are never compared.",
    (
        Transfer,
        "_differing",
        lambda self, message: [p for p in _differing(self, message) if p < PARTITIONS // 2],
    ),
    faults=_CRASH,
)
_add(
    "nothing differs",
    "Digests are taken for equal.",
    (Transfer, "_differing", lambda self, message: []),
    faults=_CRASH,
)


def _first_chunk(
    self: Any, target: Member, sync: int, serving: int, records: Any, now: float
) -> None:
    _serve(self, target, sync, -1, records, now)


_serve = Transfer._serve
_SMALL_CHUNKS: Final = ((transfer, "RECORDS_MAX_BYTES", 400),)
_add(
    "only the first chunk",
    "Of a transfer in several messages only the first is sent.",
    (Transfer, "_serve", _first_chunk),
    faults=_CRASH,
    changes=_BUSY,
    stress=_SMALL_CHUNKS,
)


def _done_early(self: Any, source: Member, message: Records, now: float) -> None:
    pull = self._pulls.get(message.sync)
    if pull is not None and not message.done:
        self._serving.clear()
        message = Records(message.context, message.sync, [], True)
    _on_records(self, source, message, now)


_add(
    "first chunk lost",
    "What arrives in several messages is taken for complete, without the first.",
    (Transfer, "on_records", _done_early),
    faults=_CRASH,
    changes=_BUSY,
    stress=_SMALL_CHUNKS,
)
_add(
    "failed transfer not repeated",
    "A transfer that was given up is not asked for again.",
    (Transfer, "_again", _nothing),
    (Transfer, "_compare", _nothing),
    faults=("no_tcp", "clog", "half_open", "cut") * 3,
    changes=_BUSY,
    reason="a transfer must break off without its member being removed; that is rare in plans",
)
_records_of = Transfer._records_of
_add(
    "dead sessions not transferred",
    "Records of sessions that were logged out are left out of transfers.",
    (
        Transfer,
        "_records_of",
        lambda self, partitions, now_ds: (
            (key, data)
            for key, data in _records_of(self, partitions, now_ds)
            if header(self._manager.table.get(key)).life == Life.LIVE
        ),
    ),
    faults=_SPLIT,
    changes=_BUSY,
    reason="a transfer must break off without its member being removed; that is rare in plans",
)
_add(
    "age wrong on the way",
    "A record that arrives looks a thousand seconds older than it is.",
    (transfer, "from_wire", lambda data, now_ds: from_wire(data, now_ds - 10_000)),
    changes=_SHORT_IDLE,
)
_add(
    "no anti-entropy",
    "Nodes do not compare windows of partitions in the background.",
    (Transfer, "_compare", _nothing),
    faults=_STALL,
    options=(0, 8),
    changes=_BUSY,
    reason="repair and the comparison after a broken link mend the same, sooner: the third net",
)


# ---- repair ------------------------------------------------------------------------------------

_add(
    "dirty keys forgotten",
    "What a member did not take is not noted.",
    (Repair, "mark", _nothing),
    faults=_CLOG,
    options=(6, 2),
    changes=_BUSY,
)


def _pay_nothing(self: Any, debt: Any, now_ds: int) -> Any:
    keys, _ = _batch(self, debt, now_ds)
    return keys, []


_batch = Repair._batch
_add(
    "repair sends nothing",
    "Keys that a member misses are crossed out, and no record is sent.",
    (Repair, "_batch", _pay_nothing),
    faults=_CLOG,
    options=(6, 2),
    changes=_BUSY,
)
_add(
    "first key repaired only",
    "Of the keys that a member misses only the first is sent.",
    (
        Repair,
        "_batch",
        lambda self, debt, now_ds: (lambda found: (found[0], found[1][:1]))(
            _batch(self, debt, now_ds)
        ),
    ),
    faults=_CLOG,
    options=(6, 2),
    changes=_BUSY,
    reason="the comparison in the background mends it within 16 s, mostly before the end of the "
    "plan: the second net",
)
_go_on = Repair._go_on


def _failed_is_done(self: Any, member: Member, debt: Any, now: float, *, has_failed: bool) -> None:
    if has_failed:
        debt.dirty.clear()
        debt.needs_sync = False
    _go_on(self, member, debt, now, has_failed=False)


_add(
    "failed repair not repeated",
    "A repair that fails counts as done.",
    (Repair, "_go_on", _failed_is_done),
    faults=_CLOG,
    options=(6, 2),
    changes=_BUSY,
    reason="the comparison in the background mends it within 16 s, mostly before the end of the "
    "plan: the second net",
)
_add(
    "debt never paid off",
    "After a repair its member still counts as behind.",
    (Repair, "_go_on", _nothing),
    faults=_CLOG,
    options=(6, 2),
    changes=_BUSY,
)
_add(
    "broken link not compared",
    "Without acknowledgements a broken connection makes nobody compare.",
    (Repair, "compare", _nothing),
    (Transfer, "_compare", _nothing),
    faults=_LINKS,
    options=(0, 8),
    changes=_BUSY,
)


# ---- merging -----------------------------------------------------------------------------------

_SLOW_MERGE: Final[Patch] = (merge, "patches_of", lambda main, delta: None)
_is_newer = merge._is_newer
_add(
    "last arrival wins",
    "A merge takes the entry that comes, whatever its version.",
    _SLOW_MERGE,
    (merge, "_is_newer", lambda entry, known: entry != known),
    faults=_SPLIT,
    changes=_BUSY,
)
_add(
    "older version wins",
    "A merge keeps the lesser version.",
    _SLOW_MERGE,
    (merge, "_is_newer", lambda entry, known: not _is_newer(entry, known)),
)
_add(
    "first arrival wins",
    "A merge never replaces an entry.",
    _SLOW_MERGE,
    (merge, "_is_newer", lambda entry, known: False),
)
_add(
    "equal times not decided",
    "Of two entries with one time, each node keeps its own.",
    _SLOW_MERGE,
    (merge, "_is_newer", lambda entry, known: entry.hlc > known.hlc),
    faults=_SPLIT,
    changes={**_BUSY, "routing": "random"},
    reason="two nodes must write one attribute within a millisecond, and the clients of a plan "
    "have a session each and wait for their answers",
)


def _merge_ending(a: Any, *others: Any) -> Any:
    # Destroyed does not absorb: what comes later lives.
    for other in others:
        if a is not None and main_of(a)[1] == Life.DESTROYED and main_of(other)[1] == Life.LIVE:
            a = other
        else:
            a = _merge(a, other)
    return a


_merge = merge.merge
_add(
    "logged out comes back",
    "A live record that arrives later revives a destroyed session.",
    (table, "merge", _merge_ending),
    faults=_SPLIT,
    changes=_BUSY,
)


def _merge_incoming(a: Any, *others: Any) -> Any:
    for other in others:
        a = other if a is None or main_of(other)[2] & HAS_CONTAINER else _merge(a, other)
    return a


_add(
    "whole record replaced",
    "A delta with an id replaces the record instead of joining it.",
    (table, "merge", _merge_incoming),
    changes=_BUSY,
)


def _merge_expired(a: Any, *others: Any) -> Any:
    for other in others:
        expired = a is not None and main_of(a)[1] == Life.EXPIRED
        a = a if expired else _merge(a, other)
    return a


_add(
    "expired for ever",
    "A later use does not revive a session that another node has expired.",
    (table, "merge", _merge_expired),
    faults=_SPLIT,
    changes={**_SHORT_IDLE, **_BUSY},
    reason="no plan splits a cluster for longer than the idle limit and the interval of the search",
)


def _skip_end(self: Any, key: str, incoming: Any, now_ds: Any = None) -> Any:
    if main_of(incoming)[1] == Life.DESTROYED:
        return self.get(key), incoming, False
    return _merge_in(self, key, incoming, now_ds)


_merge_in = SessionTable.merge_in
_add(
    "tombstone skipped",
    "That a session was logged out elsewhere is not taken in.",
    (SessionTable, "merge_in", _skip_end),
    changes=_BUSY,
)


def _skip_id(self: Any, key: str, incoming: Any, now_ds: Any = None) -> Any:
    known = self.get(key)
    if known is not None and main_of(incoming)[2] & HAS_CONTAINER:
        return known, known, False
    return _merge_in(self, key, incoming, now_ds)


_add(
    "new id not taken in",
    "Changes of a session's id do not reach the other nodes.",
    (SessionTable, "merge_in", _skip_id),
    changes={**_BUSY, "routing": "random"},
)
_add(
    "digest without versions",
    "A digest covers which sessions there are, and not what is in them.",
    (digests, "digest", lambda key, record: hash_of(key, main_of(record)[1])),
    faults=_SPLIT,
    changes=_BUSY,
)


def hash_of(key: str, life: int) -> int:
    """A digest of a key and a life, the same in every process."""
    return int(key[:15].encode().hex()[:15], 16) * 4 + life


_add(
    "digest out of date",
    "A change does not make its partition's digest anew.",
    (digests.PartitionDigests, "changed", _nothing),
    faults=_SPLIT,
    changes=_BUSY,
)


# ---- expiry ------------------------------------------------------------------------------------

_LONG_SETTLE: Final = {**_SHORT_IDLE, "seconds": 4.0, "settle": 24.0}
_GRACE: Final = (
    "uses are told within a second, and the checkers allow two seconds of rounding: only a longer "
    "touch interval would show it"
)


def _expire_unasked(self: Any, now: float) -> None:
    peers, self._peers = self._peers, {}
    try:
        _look_once(self, now)
    finally:
        self._peers = peers


_look_once = Expiry._look_once
_add(
    "owner does not ask",
    "The owner expires an idle session without asking anybody.",
    (Expiry, "_look_once", _expire_unasked),
    faults=_STALL,
    changes={**_SHORT_IDLE, **_BUSY},
    reason=_GRACE,
)


def _accept_all(self: Any, source: Member, message: Any, now: float) -> None:
    ask = self._asks.get(message.ask)
    if ask is not None and source in ask.waiting:
        self._answered(message.ask, ask, source, now)


_add(
    "objections ignored",
    "The owner expires sessions that others have just seen used.",
    (Expiry, "on_answer", _accept_all),
    faults=_STALL,
    changes={**_SHORT_IDLE, **_BUSY},
    reason=_GRACE,
)
_add(
    "idle too early",
    "A session counts as idle long before its limit.",
    (base, "_is_over", lambda idle_ds, limit_s: limit_s > 0 and idle_ds >= limit_s // 2),
    changes={**_SHORT_IDLE, "think": 0.5},
)
_add(
    "never expired",
    "Nobody looks for idle sessions.",
    (Expiry, "_look_once", _nothing),
    changes=_LONG_SETTLE,
)
_add(
    "nobody owns",
    "No node takes itself for a session's owner.",
    (Expiry, "is_owner", lambda self, key: False),
    changes=_LONG_SETTLE,
)
_add(
    "everybody owns",
    "Every node takes itself for the owner of every session.",
    (Expiry, "is_owner", lambda self, key: True),
    changes=_LONG_SETTLE,
    reason="expiring is a merge, so the copies stay equal; that the destroyed event is due on one "
    "node only is checked by no invariant",
)
_add(
    "expired at once",
    "The owner expires every session that it looks at.",
    (base, "_is_over", lambda idle_ds, limit_s: idle_ds >= 2),
    changes={**_BUSY, "think": 0.5},
)


# ---- clock -------------------------------------------------------------------------------------

_life_and_access = record.life_and_access
_NO_GUARD: Final[Patch] = (base, "life_and_access", lambda each: (_life_and_access(each)[0], 0))
_CLOCKS: Final = ("clock_step",) * 6
_add(
    "peers' clocks not observed",
    "A write may be older than what its writer saw.",
    (Clock, "observe", _nothing),
    _NO_GUARD,
    faults=_CLOCKS,
    changes={**_BUSY, "routing": "random"},
)


def _wall_only(self: Any) -> int:
    self._last = self._wall_ms() << 8
    return int(self._last)


_add(
    "clock jumps back",
    "Versions follow the wall clock when it is set back.",
    (Clock, "next", _wall_only),
    _NO_GUARD,
    faults=_CLOCKS,
    changes=_BUSY,
)


# ---- commits and the inbox ---------------------------------------------------------------------


def _resolve_early(self: Any, commits: Any, now: float) -> None:
    self._resolve(commits, tuple(member.label for member in self._targets), {})
    _send(self, commits, now)


_send = Replicator._send
_add(
    "waiter told early",
    "A commit counts as acknowledged by all before anybody has it.",
    (Replicator, "_send", _resolve_early),
    faults=_STALL,
    changes={**_BUSY, "routing": "random"},
)
_resolve = Replicator._resolve
_add(
    "missing list empty",
    "Members that did not answer are reported as having the commit.",
    (
        Replicator,
        "_resolve",
        lambda self, commits, acked, missing: _resolve(self, commits, (*acked, *missing), {}),
    ),
    faults=_STALL,
    options=(6,),
    changes={**_BUSY, "routing": "random"},
)
_add(
    "commit waits for ever",
    "A waiter is never told.",
    (Replicator, "_resolve", _nothing),
    options=(6,),
)


def _leave_out(self: Any, commits: Any, now: float) -> None:
    targets = self._targets
    self._targets = targets[:1]
    try:
        _send(self, commits, now)
    finally:
        self._targets = targets


_add(
    "one copy only",
    "Changes go to the first member, not to all.",
    (Replicator, "_send", _leave_out),
    changes={"members": 4, **_BUSY},
)


def _lose_commit(self: Any, limit_entries: int) -> Any:
    return _drain(self, limit_entries)[1:]


_drain = Inbox.drain
_add(
    "first commit lost",
    "The first commit of a batch does not leave the inbox.",
    (Inbox, "drain", _lose_commit),
)

_inbox_init = Inbox.__init__


def _small_inbox(self: Any, lock: Any, **settings: Any) -> None:
    _inbox_init(self, lock, **{**settings, "max_bytes": 500})


_SMALL_INBOX: Final = ((Inbox, "__init__", _small_inbox),)


def _lose_overflow(self: Any, keys: Any, now: float) -> None:
    del self, keys, now


_add(
    "inbox overflow lost",
    "Changes that found no room in the inbox are never sent.",
    (Replicator, "mark_dirty", _lose_overflow),
    faults=("throttle",) * 6,
    changes=_BUSY,
    stress=_SMALL_INBOX,
)


def _put_anyway(self: Any, commit: Any) -> bool:
    bound, self.max_bytes = self.max_bytes, 1 << 40
    try:
        return _put(self, commit)
    finally:
        self.max_bytes = bound


_put = Inbox.put
_add(
    "inbox bound forgotten",
    "The inbox takes whatever comes.",
    (Inbox, "put", _put_anyway),
    faults=("throttle",) * 6,
    changes=_BUSY,
    stress=_SMALL_INBOX,
)
_add(
    "core not woken",
    "The core is not told that there are commits.",
    (Inbox, "call_wake", _nothing),
)
