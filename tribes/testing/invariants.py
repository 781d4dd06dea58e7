"""What must be true of every run, however it was disturbed (DESIGN §8).

=====================  ===========================================================================
`check_now`            while a run goes on, often: order, duplicates, inventions, bounds, and that
                       no logged-out session comes back
`check_history`        afterwards, in linear time: `check_reads`, `check_state`, `check_merged`,
                       `check_overwritten`, `check_sends`,
                       `check_times`, `check_views`, `check_suspicions`, `check_expiries`,
                       `check_soon`
`check_converged`      some time after the last fault: one view, equal copies, nothing blocked
=====================  ===========================================================================

Each demands only what is promised, and says in its documentation what and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from tribes.interceptors import MessageDispatchInterceptor
from tribes.links.blocked import BLOCKED_MAX
from tribes.manager.record import Life, header
from tribes.testing.backup_checks import check_places, is_backup, is_whole
from tribes.testing.expiry_checks import check_expiries
from tribes.testing.history import SETTLE_S
from tribes.testing.merge_checks import check_merged, check_overwritten
from tribes.testing.message_checks import DeliveryCheck, check_sends
from tribes.testing.observer import incarnation
from tribes.testing.session_checks import check_reads, check_state
from tribes.testing.suspicion_checks import check_suspicions
from tribes.testing.time_checks import check_soon, check_times
from tribes.testing.view_checks import check_views
from tribes.testing.violation import SessionState, Violation, WorldState

if TYPE_CHECKING:
    from tribes.manager.record import Record
    from tribes.membership.view import View
    from tribes.testing.history import History, Op
    from tribes.testing.sim import SimNode, World
    from tribes.wire.member import Member

__all__ = [
    "SessionState",
    "Violation",
    "WorldState",
    "check_converged",
    "check_expiries",
    "check_history",
    "check_merged",
    "check_now",
    "check_overwritten",
    "check_reads",
    "check_sends",
    "check_soon",
    "check_state",
    "check_suspicions",
    "check_times",
    "check_views",
]

_READ_MESSAGES: Final = 4096
"""Short messages that one read of a connection may bring before the pause takes effect."""
_DRAIN_S: Final = 1.0
_SWEEP_SLACK: Final = 10_000
_STATES: Final = frozenset(("bound", "logged out", "target is no member"))
"""What goes on for as long as it is so, and is told once."""


class _Online:
    def __init__(self, history: History) -> None:
        self.history = history
        self.deliveries = DeliveryCheck(history)
        self.looked = 0
        self.ended: dict[str, Op] = {}
        self.learned: dict[tuple[str, str], None] = {}
        self.judged: dict[str, dict[str, Record]] = {}
        """By node and session, the record that was found right: records are immutable."""
        self.followed: dict[str, tuple[tuple[Member, ...], View]] = {}
        """By node, targets and view that were found right; both are immutable."""
        self.told: set[tuple[str, ...]] = set()


def check_now(
    world: World,
    history: History,
    context: str = "app",
    *,
    message_max_bytes: int | None = None,
) -> list[Violation]:
    """Check what must hold at every moment; each violation is reported once.

    - Of the deliveries since the last call: see `DeliveryCheck`.
    - ``logged out``: a node on which a session of an invalidation was once seen destroyed does not
      have it live again. (It may forget it after 24 h; then it is in no table.)
    - ``bound``: what waits stays within its setting, with the one message or read on top that the
      setting allows: commits in the inbox, bytes in the dispatch queue, per peer the bytes of
      messages and of changes that wait, the bytes that are not acknowledged and the sends that are
      blocked, messages waiting for the listeners, keys that a peer misses (none once everything is
      to be compared), and remembered destroyed sessions.

    - ``target is no member``: copies go to members only, and to nobody who left the view.

    Args:
        world: The cluster, between two events.
        history: Its history.
        context: The web application.
        message_max_bytes: The longest message of the load, for the bounds that one message may
            pass; None: what a frame may have.
    """
    online = history.state.get("online")
    if not isinstance(online, _Online):
        online = history.state["online"] = _Online(history)
    found = online.deliveries()
    for op in history.ops[online.looked :]:
        if op.kind == "invalidate" and op.version is not None:
            online.ended[op.key] = op
    online.looked = len(history.ops)
    for node in world.nodes.values():
        if not node.is_alive or not node.runs(context):
            continue
        where = incarnation(node)
        table = node.manager(context).table
        judged = online.judged.setdefault(where, {})
        # A node may forget what lies on others, and get it from one that never knew the end.
        ended = {} if is_backup(node, context) else online.ended
        for key, op in ended.items():
            record = table.get(key)
            if record is None or record is judged.get(key):
                continue
            judged[key] = record
            if header(record).life == Life.DESTROYED:
                online.learned[where, key] = None
            elif header(record).life == Life.LIVE and (where, key) in online.learned:
                text = f"{where} has a session live again that it knew to be logged out"
                found.append(Violation("logged out", text, (f"op {op.number}", where), world.now))
        found += _check_targets(node, context, where, online)
        for what, value, limit in _beyond(node, context, message_max_bytes):
            text = f"{where}: {what} is {value}, allowed are {limit}"
            found.append(Violation("bound", text, (where, what), world.now))
    fresh = [v for v in found if v.invariant not in _STATES]
    for each in found:
        if each.invariant in _STATES:
            mark = (each.invariant, *each.witness)
            if mark not in online.told:
                online.told.add(mark)
                fresh.append(each)
    return fresh


def _check_targets(node: SimNode, context: str, where: str, online: _Online) -> list[Violation]:
    replicator = node.core.sessions.replicators.get(context)
    if replicator is None:
        return []
    view, targets = node.core.view, replicator.targets
    right = online.followed.get(where)
    if right is not None and right[0] is targets and right[1] is view:
        return []
    found = [
        Violation(
            "target is no member",
            f"{where} sends its changes to {member.label}, which is no member",
            (where, member.label),
            node.world.now,
        )
        for member in targets
        if member not in view
    ]
    if not found:
        online.followed[where] = targets, view
    return found


def _beyond(
    node: SimNode, context: str, message_max_bytes: int | None
) -> Iterator[tuple[str, int, int]]:
    """What waits beyond its bound: what it is, how much, and the bound."""
    manager, channel = node.manager(context), node.core.channel
    config = channel.config
    largest = message_max_bytes or config.receiver.frame_max_bytes
    inbox = manager.inbox
    if inbox.peak_bytes > inbox.max_bytes:
        yield "bytes in the inbox", inbox.peak_bytes, inbox.max_bytes
    for interceptor in channel._chain.interceptors:
        if isinstance(interceptor, MessageDispatchInterceptor):
            # A message larger than the queue is let through when nothing else is there.
            limit = max(interceptor.max_queue_size, largest)
            if interceptor.queued_bytes > limit:
                yield "bytes in the dispatch queue", interceptor.queued_bytes, limit
    sender = config.sender
    raw_max = max(sender.queue_max_bytes, largest)
    live_max = max(sender.live_queue_max_bytes, largest)
    unacked_max = max(sender.unacked_max_bytes, largest)
    for member, load in channel.senders.busy_loads.items():
        # One frame that is larger than a bound is let through when nothing else is there.
        if load.raw > raw_max:
            yield f"bytes of messages for {member.label}", load.raw, raw_max
        if load.live > live_max:
            yield f"bytes of changes for {member.label}", load.live, live_max
        if load.unacked > unacked_max:
            yield f"bytes of unacknowledged frames for {member.label}", load.unacked, unacked_max
    for member, blocked in channel.senders.blocked.items():
        if blocked > BLOCKED_MAX:
            yield f"sends blocked by {member.label}", blocked, BLOCKED_MAX
    limit = config.receiver.pending_max + _READ_MESSAGES
    for member, source in channel.deliveries._sources.items():
        if len(source.waiting) > limit:
            yield f"messages waiting from {member.label}", len(source.waiting), limit
    replicator = node.core.sessions.replicators.get(context)
    if replicator is not None:
        for member in replicator.repair.dirty:
            debt = replicator.repair.state(member)
            limit = 0 if debt.needs_sync else node.config.manager.dirty_max
            if debt.dirty > limit:
                yield f"keys that {member.label} misses", debt.dirty, limit
    destroyed = manager.table.count(Life.DESTROYED)
    limit = manager.sweeper.destroyed_max + _SWEEP_SLACK
    if destroyed > limit:
        yield "destroyed sessions in the table", destroyed, limit


def check_history(
    history: History,
    world_state: WorldState,
    *,
    soon_s: float = SETTLE_S,
    patience_s: float = 0.0,
    suspects: bool = False,
    all_answer: bool = False,
    survivors: set[int] | None = None,
) -> list[Violation]:
    """Check a run that is over: reads against writes, the end state, tickets against deliveries.

    Args:
        history: The run.
        world_state: What the nodes hold now; `check_state` takes them for converged.
        soon_s: See `check_soon`.
        patience_s: See `check_times`.
        suspects: Whether all nodes suspect who does not answer for a second, see
            `check_suspicions`.
        all_answer: Whether no fault kept anybody from answering, but for stops.
        survivors: Where sessions lie on some nodes: the operations that must be seen in the end.
    """
    until = world_state.time
    return [
        *check_reads(history, is_placed=survivors is not None),
        *check_state(history, world_state, survivors),
        *check_merged(history, world_state, survivors),
        *check_overwritten(history, world_state),
        *check_expiries(history, world_state),
        *check_sends(history, until),
        *check_times(history, until, patience_s),
        *check_views(history),
        *(check_suspicions(history, until, all_answer=all_answer) if suspects else ()),
        *check_soon(history, until, soon_s),
        *DeliveryCheck(history)(),
    ]


def check_converged(
    world: World,
    nodes: Iterable[SimNode],
    heal_time: float,
    limit_s: float,
    *,
    history: History | None = None,
    context: str = "app",
) -> list[Violation]:
    """Check that the cluster is whole again, ``limit_s`` after the last fault ended.

    To tell a message that never arrives from one that is just on its way, the world runs on, for a
    second at most, until every queue is empty and all copies are equal. Whatever load there was
    must have stopped by then.

    - ``one view``: every live node sees exactly the live nodes.
    - ``equal copies``: all have the same digest, which covers lives and the versions of entries.
    - ``required copies``: a session that is live on one is live on all.
    - ``drained``: nothing is on its way, and no member is known to miss anything.
    - ``sender kept``: nobody has a queue or a connection left to a process that is no member.
    - ``blocked``: no request on a live node still waits for its commit's result.

    Args:
        world: The cluster.
        nodes: Those that must be in it; dead ones are left out, paused ones are not.
        heal_time: When the last fault ended.
        limit_s: How long the cluster may take to recover.
        history: Tells which requests wait; None: that is not checked.
        context: The web application.

    Raises:
        ValueError: It is too early to demand anything.
    """
    if world.now < heal_time + limit_s:
        raise ValueError(f"{world.now:.3f} s is less than {limit_s:g} s after {heal_time:.3f} s")
    every = [node for node in nodes if node.is_alive]
    live = [node for node in every if node.runs(context)]
    if not live:
        return []
    is_placed = any(is_backup(node, context) for node in live)

    def digests() -> set[int]:
        return {node.manager(context).table.root_digest() for node in live}

    def is_quiet() -> bool:
        if is_placed:
            return is_whole(live, context) and all(node.core.is_drained for node in every)
        return all(node.core.is_drained for node in every) and len(digests()) == 1

    world.run_until(world.now + _DRAIN_S, is_quiet)
    now, found = world.now, []
    expected = sorted(node.name for node in every)
    for node in every:
        if node.names() != expected:
            text = f"{node.name} sees {', '.join(node.names())} instead of {', '.join(expected)}"
            found.append(Violation("one view", text, (node.name,), now))
        if not node.core.is_drained:
            text = f"{node.name} still has something for another member"
            found.append(Violation("drained", text, (node.name,), now))
        for member in node.core.channel.queued_bytes:
            if member not in node.core.view:
                text = f"{node.name} has a sender to {member.label}, which is no member"
                found.append(Violation("sender kept", text, (node.name, member.label), now))
    if is_placed:
        found += check_places(live, context, now)
    elif len(digests()) > 1:
        different = tuple(f"{n.name}: {n.manager(context).table.root_digest():x}" for n in live)
        found.append(Violation("equal copies", "the digests differ", different, now))
    if not is_placed:
        found += _check_copies(live, context, now)
    if history is not None:
        running = {incarnation(node): node for node in live}
        for op in history.waiting.values():
            if op.node in running:
                timeout = running[op.node].config.manager.commit_timeout / 1000
                if now - op.begin > timeout + _DRAIN_S:
                    text = f"a request on {op.node} has waited since {op.begin:.3f} s"
                    found.append(Violation("blocked", text, (f"op {op.number}",), now))
    return found


def _check_copies(live: list[SimNode], context: str, now: float) -> list[Violation]:
    held = {}
    for node in live:
        table = node.manager(context).table
        keys = table.keys()
        records = ((key, table.get(key)) for key in keys)
        held[node.name] = {k for k, r in records if r is not None and header(r).life == Life.LIVE}
    found = []
    every = set().union(*held.values())
    for name, keys_held in held.items():
        for key in sorted(every - keys_held):
            holder = next(other for other, keys in held.items() if key in keys)
            text = f"{name} lacks session {key[:8]}…, which is live on {holder}"
            found.append(Violation("required copies", text, (name, holder, key[:8]), now))
    return found
