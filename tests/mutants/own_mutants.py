"""Broken own links and broken suspicion: what plain links cannot show (DESIGN §4.2, §4.3)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import msgspec

from tests.channel import test_receiving
from tests.mutants import own_plans, registry
from tests.mutants.registry import BUSY, MESSAGES, Patch, every, nothing
from tribes.channel import sending
from tribes.channel.accepted import AcceptedLinks
from tribes.channel.inbound import Inbound
from tribes.channel.receiving import Receiving
from tribes.channel.tickets import Ticket
from tribes.config.model import SenderConfig
from tribes.errors import MemberUnreachableError
from tribes.links import own_inbox
from tribes.links.base import Need, excuse
from tribes.links.own_connection import Connection
from tribes.links.own_inbox import OwnInbox, OwnInboxes
from tribes.links.own_outbox import Item, Outbox, Progress, Resumed
from tribes.links.own_receiver import OwnReceiver
from tribes.links.own_sender import OwnSender
from tribes.links.pool import SenderPool
from tribes.manager.repair import Repair
from tribes.manager.replication import Replicator
from tribes.membership.health import HealthMonitor
from tribes.testing import execute
from tribes.testing.plan_nodes import node_config

if TYPE_CHECKING:
    from tribes.config.model import NodeConfig
    from tribes.links.base import OutFrame
    from tribes.links.own_acks import Ack
    from tribes.testing.plan import Plan
    from tribes.wire.member import Member


def add(name: str, text: str, *patches: Patch, **settings: Any) -> None:
    """Register a mutant of members that speak the own link and suspect each other."""
    registry.add(name, text, *patches, own=True, **settings)


# ---- acknowledgements ----------------------------------------------------------------------------

add(
    "own: acknowledgement forgotten",
    "Now and then what a connection has to acknowledge is not written when nothing else is left.",
    every(AcceptedLinks, "flush", 5, lambda links: links.touched.clear()),
    changes=MESSAGES,
)

# ---- positions ---------------------------------------------------------------------------------

_resume = Outbox.resume


def _resend_nothing(self: Any, *given: Any, **settings: Any) -> Resumed:
    resumed = _resume(self, *given, **settings)
    self._again.clear()
    return resumed


add(
    "own: nothing sent again",
    "What was written on a broken connection and not received is not written on the next one.",
    (Outbox, "resume", _resend_nothing),
    plan=own_plans.torn,
)


def _resend_received(self: Any, *given: Any, **settings: Any) -> Resumed:
    last = [(item, item.frame.data) for item in self._sent][:1]
    resumed = _resume(self, *given, **settings)
    if last and last[0][0] not in [item for item, _ in self._again]:
        self._again.extendleft(last)
    return resumed


add(
    "own: sent again although received",
    "What the member has by its WELCOME is written once more.",
    (Outbox, "resume", _resend_received),
    plan=own_plans.torn,
)


def _resend_from_its_end(self: Any, *given: Any, **settings: Any) -> Resumed:
    resumed = _resume(self, *given, **settings)
    self._again.reverse()
    return resumed


add(
    "own: sent again from its end",
    "What a broken connection leaves behind is written in the reverse order.",
    (Outbox, "resume", _resend_from_its_end),
    plan=own_plans.torn,
)

_next_to_write = Outbox.next_to_write


def _new_first(self: Any, chunks: list[bytes], written: int, limit: int) -> Any:
    again, waiting = list(self._again), bool(self._waiting)
    if not waiting:
        return _next_to_write(self, chunks, written, limit)
    self._again.clear()
    found = _next_to_write(self, chunks, written, limit)
    self._again.extend(again)
    return found


add(
    "own: new before old",
    "After a reconnect, what waits is written before what has to be written again.",
    (Outbox, "next_to_write", _new_first),
    plan=own_plans.torn,
)


def _put_first(self: Any, frame: OutFrame) -> None:
    _put(self, frame)
    if len(self._waiting) > 1:
        self._waiting.rotate(1)


_put = Outbox.put
add(
    "own: newest first",
    "A frame is queued before those that wait already.",
    (Outbox, "put", _put_first),
    plan=own_plans.torn,
)


def _take_two(self: Any, body: bytes) -> int:
    position = _take(self, body)
    if position % 40:
        return position
    self.received += 1
    self._open[self.received] = False
    self.done(self.received, None)
    return position


_take = OwnInbox.take
add(
    "own: position counted twice",
    "Each fortieth frame counts as two at the receiver.",
    (OwnInbox, "take", _take_two),
    changes=MESSAGES,
)
add(
    "own: inbox forgotten with its connection",
    "What was received is remembered no longer than its connection.",
    (OwnInboxes, "rest", lambda self, inbox, receiver: self._drop(inbox.unique_id)),
    plan=own_plans.many_resets,
)


def _retry_unknown(self: Any, incarnation: int, *given: Any, **settings: Any) -> Resumed:
    if self._incarnation not in (None, incarnation):
        sent = [item for item in self._sent if item.position in self._open]
        self._waiting.extendleft(sent[::-1])
        for item in sent:
            del self._open[item.position]
            item.position = 0
    return _resume(self, incarnation, *given, **settings)


add(
    "own: sent again although forgotten",
    "What may have arrived at a member that has forgotten its sender is sent a second time.",
    (Outbox, "resume", _retry_unknown),
    plan=own_plans.answers_lost,
    reason="an acknowledgement leaves with the read, before the receiver can forget anything",
)
add(
    "own: receiver's memory not compared",
    "A sender goes on with its numbers at a member that has forgotten it.",
    (
        Outbox,
        "resume",
        lambda self, incarnation, received, **settings: _resume(
            self, self._incarnation or incarnation, received, **settings
        ),
    ),
    plan=own_plans.removed_and_back,
)


def _unknown_is_done(self: Any, *given: Any, **settings: Any) -> Resumed:
    resumed = _resume(self, *given, **settings)
    return Resumed([*resumed.received, *resumed.unknown], [])


add(
    "own: unknown counts as received",
    "What was on its way to a member that has forgotten its sender counts as received.",
    (Outbox, "resume", _unknown_is_done),
    plan=own_plans.cut_one_way,
)


def _skip_nothing(self: Any, body: bytes, now: float) -> None:
    _on_start(self, body, now)
    self._skip = 0


_on_start = OwnReceiver._on_start
add(
    "own: start ignored",
    "A receiver does not leave out what came on the old connection behind its WELCOME.",
    (OwnReceiver, "_on_start", _skip_nothing),
    plan=own_plans.old_data_late,
)


def _adopt_both(self: Any, inbox: OwnInbox, receiver: OwnReceiver, attempt: int) -> None:
    _adopt(self, inbox, receiver, attempt)


_adopt = OwnInboxes.adopt
add(
    "own: two connections of one sender",
    "The connection that a newer one displaces stays open and is read.",
    (OwnInboxes, "adopt", _adopt_both),
    plan=own_plans.old_data_late,
)

# ---- acknowledgements --------------------------------------------------------------------------


def _flushed_is_received(self: Any, total: int) -> list[Item]:
    done = _flushed(self, total)
    for item in list(self._open.values()):
        if item.need is Need.RECEIVED and item.end <= total:
            del self._open[item.position]
            done.append(item)
    return done


_flushed = Outbox.flushed
add(
    "own: acknowledged before received",
    "With option 2 a send ends once the kernel has it.",
    (Outbox, "flushed", _flushed_is_received),
    faults=("no_tcp", "partition", "cut") * 3,
    changes=MESSAGES,
)
add(
    "own: received counts as processed",
    "A receiver tells that a frame was processed when it has it.",
    (Inbound, "answer_by", lambda self, inbox, position: inbox.done(position, None)),
    changes=MESSAGES,
)


def _received_is_enough(self: Any, frame: OutFrame, now: float) -> None:
    if frame.need is Need.PROCESSED:
        frame.need = Need.RECEIVED
    _enqueue(self, frame, now)


_enqueue = OwnSender.enqueue
add(
    "own: processing not awaited",
    "A sender is content with having been received where it should wait for more.",
    (OwnSender, "enqueue", _received_is_enough),
    changes=MESSAGES,
)

_done = OwnInbox.done
add(
    "own: failure not told",
    "A receiver tells a listener's failure like its success.",
    (OwnInbox, "done", lambda self, position, error: _done(self, position, None)),
    changes=MESSAGES,
)


def _failed_is_done(self: Any, ack: Ack) -> Progress:
    progress = _acked(self, ack)
    return Progress([*progress.done, *(item for item, _ in progress.failed)], [], True)


_acked = Outbox.acked
add(
    "own: failure taken for success",
    "A sender takes the word that a listener failed for a success.",
    (Outbox, "acked", _failed_is_done),
    changes=MESSAGES,
)


def _floor_first(self: Any, ack: Ack) -> Progress:
    first = _acked(self, replace(ack, failures=(), serial=0))
    then = _acked(self, ack)
    return Progress([*first.done, *then.done], then.failed, first.is_progress or then.is_progress)


add(
    "own: floor before failures",
    "Of one acknowledgement a sender first reads what is done, and then what failed.",
    (Outbox, "acked", _floor_first),
    changes=MESSAGES,
)


def _tell_once(self: Any) -> Any:
    yield from list(_acks(self))
    self._failures.clear()


_acks = OwnInbox.acks
add(
    "own: failure told only once",
    "A failure that was told on a connection that broke is not told again.",
    (OwnInbox, "acks", _tell_once),
    plan=own_plans.failing_resets,
)


def _as_before(self: Any) -> None:
    told = self._told_serial
    _restart(self)
    self._told_serial = told


_restart = OwnInbox.restart
add(
    "own: failures not told anew",
    "On a new connection a receiver takes for told what it told on the one before.",
    (OwnInbox, "restart", _as_before),
    plan=own_plans.failing_resets,
)
add(
    "own: failures not confirmed",
    "A sender never says that it has seen a failure.",
    (Connection, "confirm", nothing),
    stress=((own_inbox, "FAILURES_MAX", 10),),
    plan=own_plans.failing_resets,
    reason="the connection that is refused for it is made anew, and nothing is lost on the way",
)


def _flush_to_nobody(self: Any) -> None:
    if self._inbox is not None:
        list(self._inbox.acks())


add(
    "own: acknowledgement dropped",
    "Each tenth acknowledgement of a connection is not written.",
    every(OwnReceiver, "flush", 10, _flush_to_nobody),
    plan=own_plans.quiet,
)


add(
    "own: acknowledged with the next read",
    "When a listener is done nobody writes the acknowledgement until something else arrives.",
    (Receiving, "_frame_finished", lambda self, inbound: inbound.finish()),
    test=test_receiving.test_own_link_acknowledges_as_soon_as_the_listener_is_done,
)

# ---- sending -----------------------------------------------------------------------------------


def _asleep(self: Any, now: float) -> None:
    del now
    self._is_awake = True


add(
    "own: wake-up lost",
    "Each fortieth time that something is to be written, nobody is woken for it.",
    every(OwnSender, "_write_soon", 40, _asleep),
    changes=MESSAGES,
)


_connected: Final[WeakSet[OwnSender]] = WeakSet()


def _reconnect_never(self: Any) -> None:
    if self not in _connected:
        _connected.add(self)
        _connect(self)


_connect = OwnSender._connect
add(
    "own: never connects again",
    "A broken connection is not replaced.",
    (OwnSender, "_connect", _reconnect_never),
    plan=own_plans.many_resets,
)


_broken = OwnSender._broken


def _fail_all(self: Any, connection: Any, why: Exception, now: float) -> None:
    waiting = list(self.outbox._open.values())
    self.outbox._open.clear()
    lost = MemberUnreachableError(f"the connection to {self.member.name} broke")
    self._settle([(item, lost) for item in waiting], now)
    _broken(self, connection, why, now)


add(
    "own: broken connection fails its frames",
    "What is on its way fails when its connection breaks.",
    (OwnSender, "_broken", _fail_all),
    plan=own_plans.many_resets,
)
add(
    "own: deadline ends nothing",
    "What is not acknowledged in time goes on waiting.",
    (OwnSender, "_expire", nothing),
    plan=own_plans.slow,
)


def _close_silently(self: Any, why: Exception, now: float, *, abort: bool) -> None:
    self.outbox.clear()
    _close(self, why, now, abort=abort)


_close = OwnSender.close
add(
    "own: queue not failed on close",
    "What waits for a member that is gone gets no outcome.",
    (OwnSender, "close", _close_silently),
    faults=("crash", "pause", "partition") * 3,
    changes=MESSAGES,
)

_config = node_config


def _small_queues(max_bytes: int) -> tuple[Patch, ...]:
    def small(plan: Plan, number: int) -> NodeConfig:
        config = _config(plan, number)
        sender = SenderConfig(
            queue_max_bytes=max_bytes, live_queue_max_bytes=max_bytes, unacked_max_bytes=max_bytes
        )
        channel = msgspec.structs.replace(config.channel, sender=sender)
        return msgspec.structs.replace(config, channel=channel)

    return ((execute, "node_config", small),)


_SMALLER_QUEUES: Final = _small_queues(20_000)


def _leak(self: Any, received: int) -> list[Item]:
    before = self._received
    done = _receive(self, received)
    if received > before:
        self.unacked_bytes += 200
    return done


_receive = Outbox._receive
add(
    "own: queue leaks",
    "A sender does not give back all room of what was received.",
    (Outbox, "_receive", _leak),
    stress=_SMALLER_QUEUES,
    changes={**MESSAGES, **BUSY, "large_share": 0.0},
)


def _take_anybody(self: Any, hello: Any, version: int | None) -> Any:
    self._side = replace(self._side, unique_id=hello.target)
    return _refusal(self, hello, version)


_refusal = OwnReceiver._refusal
add(
    "own: successor answers",
    "A process takes connections that were meant for the one before it on its port.",
    (OwnReceiver, "_refusal", _take_anybody),
    plan=own_plans.successors,
    reason="the failure detector names the process too, and removes the dead one first",
)
add(
    "own: inbox of a removed member kept",
    "What was received from a member is remembered when it is gone.",
    (OwnInboxes, "forget", lambda self, unique_id: None),
    plan=own_plans.successors,
    reason="another sender object has another incarnation, and a resting inbox only takes room",
)
add(
    "own: gone member's sender kept",
    "What waits for a removed member is still sent.",
    (SenderPool, "drop", nothing),
    plan=own_plans.successors,
)
add(
    "own: hung connection kept",
    "A connection that does not answer is not replaced although the member answers elsewhere.",
    (SenderPool, "answered_elsewhere", nothing),
    plan=own_plans.hung,
    reason="a simulated kernel sends again within a second, where a real one may take minutes",
)


def _no_pong(self: Any) -> None:
    self._pongs = False
    _flush(self)


_flush = OwnReceiver.flush
add(
    "own: question not answered",
    "A receiver does not answer a PING.",
    (OwnReceiver, "flush", _no_pong),
    plan=own_plans.deaf_to_heartbeats,
)

# ---- suspicion ---------------------------------------------------------------------------------

add(
    "never suspects",
    "Nobody looks who does not answer.",
    (HealthMonitor, "_look", nothing),
    plan=own_plans.stopped,
)


def _suspect_all(self: Any, member: Member, state: Any, now: float) -> None:
    if not state.is_suspected and now - state.answered >= self._suspect_after:
        state.is_suspected = True
        self.statistics.suspected += 1
        self._changed(member, now - state.answered, now)
    else:
        _check(self, member, state, now)


_check = HealthMonitor._check
add(
    "suspects whoever is quiet",
    "Who has not answered for a second is suspected, whether or not it was asked.",
    (HealthMonitor, "_check", _suspect_all),
    plan=own_plans.quiet,
)
add(
    "never refutes",
    "Who answers again stays suspected.",
    (HealthMonitor, "_refute", nothing),
    plan=own_plans.stopped,
)


def _suspect_unasked(self: Any, member: Member, state: Any, now: float) -> None:
    if state.pinged is None:
        state.pinged = now - self._suspect_after
    _check(self, member, state, now)


add(
    "own pause counts against the others",
    "Who was stopped itself takes the others for silent, and does not ask them first.",
    (HealthMonitor, "_excuse", nothing),
    (HealthMonitor, "_check", _suspect_unasked),
    plan=own_plans.stopped_often,
)


def _heartbeats_answer(self: Any, member: Member, state: Any, now: float) -> None:
    state.answered = max(state.answered, state.heard)
    _check(self, member, state, now)


add(
    "heartbeats count as answers",
    "Who sends heartbeats is well, whatever it does not answer.",
    (HealthMonitor, "_check", _heartbeats_answer),
    plan=own_plans.hung,
)


def _heard_refutes(self: Any, member: Member, now: float) -> None:
    self.answered(member, now)


add(
    "heartbeat refutes",
    "A heartbeat ends a suspicion although a question is unanswered.",
    (HealthMonitor, "heard", _heard_refutes),
    plan=own_plans.hung,
)
add(
    "suspected member is waited for",
    "Whoever waits when a member is suspected goes on waiting, and so does every later send.",
    (SenderPool, "excuse", nothing),
    (sending, "excuse", nothing),
    plan=own_plans.stopped,
)


def _excuse_well(self: Any, member: Member, why: Exception, now: float) -> None:
    sender = self._senders.get(member)
    if sender is not None:
        excuse(sender.outbox.with_tickets(), None, now)  # type: ignore[arg-type]


add(
    "excuse counts as success",
    "Who stops waiting for a suspected member is told that it has the message.",
    (SenderPool, "excuse", _excuse_well),
    plan=own_plans.stopped,
)


add(
    "suspected member owed nothing",
    "What a suspected member is not sent is not noted.",
    (
        Replicator,
        "_following",
        lambda self, keys, now: tuple(
            member for member in self._targets if member not in self._channel.view.suspected
        ),
    ),
    plan=own_plans.stopped,
)
add(
    "debt of a suspected member not paid",
    "A member that answers again does not get what it missed.",
    (Repair, "go_on", nothing),
    plan=own_plans.stopped,
)


def _missing_nobody(self: Any, member: Member, error: Exception | None, now: float) -> None:
    _settle(self, member, None if type(error).__name__ == "MemberSuspectedError" else error, now)


_settle = Ticket.settle
add(
    "suspected member not named",
    "A send that did not wait for a suspected member does not say so.",
    (Ticket, "settle", _missing_nobody),
    plan=own_plans.stopped,
)
