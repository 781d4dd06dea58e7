"""Checks of the channel: order, no duplicates, exact outcomes (DESIGN §4.1, 8)."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from tribes.testing.violation import Violation
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from tribes.testing.history import Delivery, History, Send

__all__ = ["DeliveryCheck", "check_sends"]

_ACK: Final = int(SendOptions.USE_ACK)
_SYNC: Final = int(SendOptions.SYNCHRONIZED_ACK)
_ASYNC: Final = int(SendOptions.ASYNCHRONOUS)
_RETRY_S: Final = 1.0
"""A reset so long ago has no more effect: the members are connected again in milliseconds."""

ARRIVES_S: Final = 3.0
"""Within which a message to a healthy member is with its listener when nothing is wrong."""
TIMEOUT_S: Final = 3.0
"""``sender.timeout``: what is not acknowledged by then has failed, and may still come."""
BLOCKED_S: Final = 10.0
"""Within which every send has ended: sender.timeout (3 s) and queue_timeout (3 s), and slack."""


class DeliveryCheck:
    """Looks at the deliveries that were appended since the last call; a few µs each.

    ``order``: the listener of one receiver incarnation gets the messages of one sender incarnation
    in the order in which they were sent, whatever their options. A message whose ticket named the
    receiver as faulty has an unknown fate, and may come late; TCP keeps everything else in order,
    because an acknowledged frame is alone on its connection and a retry begins with the oldest.
    What was meant for the receiver's predecessor on the same port has no place in its order.

    ``no duplicate``: no listener gets a message twice.

    ``nothing invented``: what is delivered was sent before, to that process. Where not all links
    are own ones, to that node: a plain link knows its member by the address, and a process that is
    started again while a message to the one before waits for a connection may get it.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self._seen = 0
        self._indexed = 0
        self._sends: dict[tuple[str, int], Send] = {}
        self._got: dict[tuple[str, str], tuple[int, set[int]]] = {}

    def __call__(self) -> list[Violation]:
        history = self.history
        for send in history.sends[self._indexed :]:
            self._sends[send.sender, send.sequence] = send
        self._indexed = len(history.sends)
        found = []
        for delivery in history.deliveries[self._seen :]:
            found += self._check(delivery)
        self._seen = len(history.deliveries)
        return found

    def _is_target(self, send: Send, receiver: str) -> bool:
        if self.history.state.get("exact targets"):
            return receiver in send.targets
        return _is_target(send, receiver)

    def _check(self, delivery: Delivery) -> list[Violation]:
        sender, receiver, sequence = delivery.sender, delivery.receiver, delivery.sequence
        send = self._sends.get((sender, sequence))
        what = f"message {sequence} of {sender}"
        is_target = send is not None and self._is_target(send, receiver)
        if send is None or not is_target or send.begin > delivery.time:
            text = f"{receiver} got {what}, which was not sent to it"
            return [Violation("nothing invented", text, (what, receiver), delivery.time)]
        fact = f"send {send.number}"
        last, got = self._got.setdefault((sender, receiver), (0, set()))
        if sequence in got:
            text = f"{receiver} got {what} twice"
            return [Violation("no duplicate", text, (fact, receiver), delivery.time)]
        got.add(sequence)
        if receiver not in send.targets:
            # Meant for the process before it on that port: no order is promised among the two.
            return []
        if sequence > last:
            self._got[sender, receiver] = sequence, got
        elif receiver not in send.faulty and not _has_timed_out(send, delivery):
            later = self._sends[sender, last]
            text = f"{receiver} got {what} after message {last}, sent later"
            facts = (fact, f"send {later.number}", receiver)
            return [Violation("order", text, facts, delivery.time)]
        return []


def _has_timed_out(send: Send, delivery: Delivery) -> bool:
    # An asynchronous send that fails later says so in an event, which may not have come yet.
    return bool(send.option & _ASYNC) and delivery.time - send.begin >= TIMEOUT_S


def _is_target(send: Send, receiver: str) -> bool:
    return receiver in send.targets or _node(receiver) in map(_node, send.targets)


def _node(incarnation: str) -> str:
    return incarnation.partition("#")[0]


def check_sends(history: History, until: float) -> list[Violation]:
    """Compare what the tickets said with what the listeners got.

    For a send that ended, and each of its targets:

    - ``faulty list``: with option 6, `RemoteProcessError` names exactly the receivers whose
      listener raised; without the bit 4 it names nobody, since the acknowledgement comes before.
    - ``acknowledged``: not faulty with option 6 means that the listener had returned without an
      error by then. Not faulty with option 2 means that the member had the message: the listener
      gets it, unless the process dies or is paused before.
    - ``faulty without cause``: any other error needs one: a fault shortly before or meanwhile, or
      a member that is dead or paused. One reset of the connections alone is none: what was on them
      is sent again.
    - ``lost silently``: an asynchronous send with an acknowledgement ends with it, or with a
      `SendFailed` that names the member. A listener's failure is told by it with option 14.
    - ``lost in calm``: where there was none of these, every option delivers, within `ARRIVES_S`.
      With faults, options 0 and 8 promise nothing more than their queues, so nothing is demanded.

    How long it took is judged by `check_times`.

    Args:
        history: The run.
        until: When it ended.
    """
    born = {n for f in history.faults if f.kind in ("start", "present") for n in f.nodes}
    pauses = _Pauses(history)
    arrived = {(d.sender, d.sequence, _node(d.receiver)): d for d in history.deliveries}
    found = []
    for send in history.sends:
        end = send.end
        if end is None:
            continue
        for target in send.targets:
            delivery = arrived.get((send.sender, send.sequence, _node(target)))
            present = (
                target in born
                and not history.is_dead(target, send.begin)
                and not pauses.at(target, send.begin)
            )
            problem = _judge(history, send, end, target, delivery, present, until)
            if not problem and send.option & (_ACK | _ASYNC) == _ACK | _ASYNC:
                problem = _judge_late(history, send, target, delivery, until)
            # Paused later, or dead: it may have stood in the queue of the listener.
            lasts = present and not history.is_dead(target, until) and not pauses.at(target, until)
            if not problem and not delivery and lasts and _is_promised(send, target):
                problem = "acknowledged", "the member had it, and its listener never got it"
            if problem:
                name, why = problem
                text = f"option {send.option} from {send.sender} to {target}: {why}"
                found.append(Violation(name, text, (f"send {send.number}", target), end))
    return found


def _is_promised(send: Send, target: str) -> bool:
    return target not in send.faulty and send.option & (_ACK | _ASYNC) == _ACK


def _judge(
    history: History,
    send: Send,
    end: float,
    target: str,
    delivery: Delivery | None,
    present: bool,
    until: float,
) -> tuple[str, str] | None:
    fault = send.faulty.get(target)
    is_synchronous = send.option & (_SYNC | _ASYNC) == _SYNC
    calm = present and history.is_calm(send.begin, max(end, send.begin + ARRIVES_S))
    if fault == "RemoteProcessError":
        if not send.option & _SYNC:
            return "faulty list", "the listener's failure was told although nobody waited for it"
        if delivery is None or not delivery.failed:
            return "faulty list", "it is named as failed, but its listener did not fail"
        return None
    if fault is not None:
        if calm or (
            present and fault == "MemberUnreachableError" and _is_reset(history, send, end)
        ):
            return "faulty without cause", f"{fault}, but nothing was wrong"
        return None
    if is_synchronous:
        if delivery is None or delivery.time > end:
            return "acknowledged", "the send ended before the listener had the message"
        if delivery.failed:
            return "faulty list", "its listener failed, and the sender was not told"
    if calm and delivery is None and send.begin + ARRIVES_S <= until:
        return "lost in calm", f"nothing was wrong, and it is not there after {ARRIVES_S:g} s"
    return None


def _is_reset(history: History, send: Send, end: float) -> bool:
    """Whether one reset of connections is all that was wrong."""
    before = send.begin - _RETRY_S
    faults = history.faults_in(before, end)
    return (
        len(faults) == 1
        and faults[0].kind == "reset"
        and history.is_calm(before - 1e-9, before - 1e-9, settle=0.0)
    )


def _judge_late(
    history: History, send: Send, target: str, delivery: Delivery | None, until: float
) -> tuple[str, str] | None:
    fault = send.late.get(target)
    if fault == "RemoteProcessError":
        if not send.option & _SYNC:
            return "faulty list", "the listener's failure was told although nobody waited for it"
        if delivery is None or not delivery.failed:
            return "faulty list", "it is named as failed, but its listener did not fail"
    if fault is not None or target in send.faulty or until - send.begin < BLOCKED_S:
        return None
    if history.is_dead(send.sender, until) or history.was_slow(send.sender, send.begin, until):
        # Nobody was left to tell, or to be told.
        return None
    if delivery is None:
        if history.is_dead(target, until) or history.was_slow(target, send.begin, until):
            return None
        return "lost silently", "neither did it arrive, nor did anybody tell that it failed"
    if delivery.failed and send.option & _SYNC:
        return "faulty list", "its listener failed, and the sender was not told"
    return None


class _Pauses:
    """Which incarnation was paused when."""

    def __init__(self, history: History) -> None:
        self._times: dict[str, list[float]] = {}
        self._paused: dict[str, list[bool]] = {}
        for fault in history.faults:
            if fault.kind in ("pause", "resume"):
                for node in fault.nodes:
                    self._times.setdefault(node, []).append(fault.time)
                    self._paused.setdefault(node, []).append(fault.kind == "pause")

    def at(self, node: str, time: float) -> bool:
        before = bisect_right(self._times.get(node, ()), time)
        return before > 0 and self._paused[node][before - 1]
