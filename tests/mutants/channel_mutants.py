"""Broken channels: acknowledgements, links, deliveries, the dispatch queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from tests.mutants import plans
from tests.mutants.registry import (
    BUSY,
    LINKS,
    MESSAGES,
    STALL,
    add,
    every,
    nothing,
)
from tribes.channel import inbound, receiving, sending
from tribes.channel.inbound import DeliveryQueue, Inbound, Outcomes
from tribes.channel.sending import Sending
from tribes.channel.tickets import Ticket
from tribes.interceptors.dispatch import MessageDispatchInterceptor
from tribes.links.base import OutFrame
from tribes.links.plain import PlainSender
from tribes.links.plain_receiver import PlainReceiver
from tribes.links.pool import SenderPool
from tribes.wire.frame import FrameDecoder

if TYPE_CHECKING:
    from tribes.wire.member import Member

# ---- acknowledgements and tickets --------------------------------------------------------------


def _drop_ack(self: Any) -> None:
    # The slots go, and nothing is written.
    while self._slots and self._slots[0].frame is not None:
        self._slots.popleft()


add(
    "ack dropped",
    "Each twentieth acknowledgement of a connection is not written.",
    every(PlainReceiver, "flush", 20, _drop_ack),
)
add(
    "ack before processing",
    "With option 6 the acknowledgement goes out before the listener has run.",
    (receiving, "_SYNC", 0),
    changes=MESSAGES,
)

_answer = PlainReceiver.answer
add(
    "failure acknowledged",
    "A listener's failure is answered like its success.",
    (PlainReceiver, "answer", lambda self, slot, *, ok: _answer(self, slot, ok=True)),
    changes=MESSAGES,
)
add(
    "failure ignored",
    "The sender takes the answer that a listener failed for a success.",
    (PlainSender, "_fail_ack", lambda self, frame, now: self._settle(frame, None, now)),
    changes=MESSAGES,
)
add(
    "failure for nothing",
    "Each thirtieth answer says that the listener failed, though it did not.",
    every(PlainReceiver, "answer", 30, lambda self, slot, *, ok: _answer(self, slot, ok=False)),
    changes=MESSAGES,
)

_settle = Ticket.settle
add(
    "faulty list empty",
    "A ticket forgets which members failed.",
    (Ticket, "settle", lambda self, member, error, now: _settle(self, member, None, now)),
    changes=MESSAGES,
)


def _blame_all(self: Any, member: Member, error: Exception | None, now: float) -> None:
    for each in list(self._open) if error is not None else [member]:
        _settle(self, each, error, now)


add(
    "faulty list too long",
    "Who failed takes all with it that have not answered yet.",
    (Ticket, "settle", _blame_all),
    changes={**MESSAGES, "members": 4},
)


def _first_answer(self: Any, member: Member, error: Exception | None, now: float) -> None:
    for each in [member, *self._open]:
        _settle(self, each, error if each == member else None, now)


add(
    "ticket ends at the first answer",
    "A ticket is done when one member has answered.",
    (Ticket, "settle", _first_answer),
    changes={**MESSAGES, "members": 4},
)
add(
    "acknowledgement not awaited",
    "A frame counts as acknowledged once the kernel has it.",
    (
        sending,
        "OutFrame",
        lambda data, **rest: OutFrame(data, **{**rest, "needs_ack": False}),
    ),
    changes=MESSAGES,
)


# ---- links -------------------------------------------------------------------------------------


add(
    "timeout ignored",
    "What is not acknowledged in time goes on waiting.",
    (PlainSender, "_expire", nothing),
    faults=("clog", "no_tcp", "delay") * 4,
    changes=MESSAGES,
)


def _forget_begun(self: Any, why: Exception, now: float, *, everything: bool) -> None:
    self._take_all() if everything else self._take_begun()
    _broken(self, why, now, everything=everything)


_broken = PlainSender._broken
add(
    "begun frames forgotten",
    "When a connection breaks, what was on it is neither repeated nor failed.",
    (PlainSender, "_broken", _forget_begun),
    faults=LINKS,
)


def _retry_behind(self: Any, why: Exception, now: float, *, everything: bool) -> None:
    waiting = list(self._queue)
    self._queue.clear()
    begun = self._take_begun()
    self._queue.extend(begun[::-1])
    self._queue.extend(waiting[::-1])
    _broken(self, why, now, everything=everything)


add(
    "order turned round at a reconnect",
    "What a broken connection leaves behind is sent from its end.",
    (PlainSender, "_broken", _retry_behind),
    faults=("clog", "reset", "delay") * 3,
    changes=MESSAGES,
)


def _retry_twice(self: Any) -> list[OutFrame]:
    return [frame for frame in _take_begun(self) for _ in range(2)]


_take_begun = PlainSender._take_begun
add(
    "retried twice",
    "A frame on a broken connection is queued twice.",
    (PlainSender, "_take_begun", _retry_twice),
    faults=LINKS,
)


def _close_silently(self: Any, why: Exception, now: float, *, abort: bool) -> None:
    self._take_all()
    _close(self, why, now, abort=abort)


_close = PlainSender.close
add(
    "queue not failed on close",
    "What waits for a member that is gone gets no outcome.",
    (PlainSender, "close", _close_silently),
    faults=("crash", "pause") * 3,
    changes=MESSAGES,
)


def _overtake(self: Any, frame: OutFrame, now: float) -> None:
    _enqueue(self, frame, now)
    if self._queue and self._queue[-1] is frame:
        self._queue.rotate(1)


_enqueue = PlainSender.enqueue
add(
    "newest first",
    "A frame is queued before those that wait already.",
    (PlainSender, "enqueue", _overtake),
    faults=("clog", "delay", "throttle") * 3,
    changes=MESSAGES,
)


def _keep_positions(self: Any, link: int, now: float) -> None:
    written, flushed = self._written, self._flushed
    self._attempt = None
    self._link = link
    self._decoder = FrameDecoder(body_max_bytes=1024)
    self._written, self._flushed = written, flushed
    self._pump(now)


add(
    "positions kept across connections",
    "A new connection goes on counting where the old one ended.",
    (PlainSender, "link_opened", _keep_positions),
    faults=LINKS,
    options=(0, 8),
    changes=MESSAGES,
)


def _reconnect_never(self: Any) -> None:
    if not getattr(self, "mutant_has_connected", False):
        self.mutant_has_connected = True
        _connect(self)


_connect = PlainSender._connect
add(
    "never connects again",
    "A broken connection is not replaced.",
    (PlainSender, "_connect", _reconnect_never),
    faults=LINKS,
)
add(
    "gone member's sender kept",
    "What waits for a removed member is still sent, to whoever has its port.",
    (SenderPool, "drop", nothing),
    faults=("crash", "pause", "mass_restart") * 3,
    changes=MESSAGES,
)


def _broken_for_good(self: Any, why: Exception, now: float, *, everything: bool) -> None:
    for frame in (*self._unflushed, *self._queue, *((self._awaited,) if self._awaited else ())):
        frame.attempts = 99
    _broken(self, why, now, everything=everything)


add(
    "no retry",
    "A broken connection fails its frames at once.",
    (PlainSender, "_broken", _broken_for_good),
    plan=plans.resets,
)


# ---- deliveries --------------------------------------------------------------------------------


add(
    "delivered twice after a reconnect",
    "Frames that were received before are processed again.",
    (Outcomes, "find_or_add", lambda self, data: (Inbound(), True)),
    faults=LINKS,
    changes=MESSAGES,
)
add(
    "too few outcomes remembered",
    "Only the latest frame of a source is known again.",
    (inbound, "_OUTCOMES_PER_SOURCE", 0),
    faults=LINKS,
    changes=MESSAGES,
)


def _newest(self: Any, source: Any) -> None:
    source.waiting.rotate(1)
    _deliver(self, source)


_deliver = DeliveryQueue._deliver
add(
    "listener gets the newest first",
    "What waits for the listeners is taken from its end.",
    (DeliveryQueue, "_deliver", _newest),
    faults=("clog", "delay", "pause", "no_multicast") * 3,
    changes=MESSAGES,
)
add(
    "message lost before the listener",
    "Each tenth message is acknowledged and given to nobody.",
    every(DeliveryQueue, "put", 10, nothing),
    changes=MESSAGES,
)
add(
    "delivery not ended",
    "The end of a delivery does not let the next one begin.",
    every(DeliveryQueue, "delivered_one", 5, lambda self, token, error: None),
    changes=MESSAGES,
)

_delivery_init = DeliveryQueue.__init__


def _small_delivery(self: Any, config: Any, **settings: Any) -> None:
    _delivery_init(self, msgspec.structs.replace(config, pending_max=1), **settings)


add(
    "pause never ended",
    "A connection that was paused for a full delivery queue is not read again.",
    (DeliveryQueue, "_relieve", nothing),
    faults=("clog", "delay", "throttle", "pause") * 3,
    options=(0, 8),
    changes=MESSAGES,
    stress=((DeliveryQueue, "__init__", _small_delivery),),
)


def _send_to_all(self: Any, message: Any, now: float) -> None:
    everybody = *message.destinations, *self._views.current.members
    message.destinations = tuple(dict.fromkeys(everybody))
    _to_links(self, message, now)


_to_links = Sending.to_links
add(
    "sent to everybody",
    "A message goes to all members, not to its destinations.",
    (Sending, "to_links", _send_to_all),
    changes={**MESSAGES, "members": 4},
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
add(
    "dispatch queue leaks",
    "The queue does not give back all room of what has left it.",
    (MessageDispatchInterceptor, "_admit", _leak),
    options=(8,),
    changes={**MESSAGES, **BUSY},
    stress=_SMALL_QUEUE,
)
add(
    "dispatch bound forgotten",
    "The queue takes whatever comes.",
    (MessageDispatchInterceptor, "_has_room", lambda self, message: True),
    stress=_SMALL_QUEUE,
    plan=plans.full_dispatch,
    reason="changes of sessions have queues of their own, and the plans' messages are too small to "
    "pass the bound by more than one longest message; tests of the interceptor notice it",
)


def _hide_outcome(self: Any, message: Any, now: float, following: Any) -> None:
    ticket = message.ticket
    real = ticket._on_settled
    if real is not None:
        ticket._on_settled = lambda faulty, then: real({}, then)
    _admit(self, message, now, following)


add(
    "asynchronous failure not told",
    "Nobody learns that a queued message did not arrive.",
    (MessageDispatchInterceptor, "_admit", _hide_outcome),
    faults=STALL,
    options=(8, 10),
    changes=BUSY,
)
