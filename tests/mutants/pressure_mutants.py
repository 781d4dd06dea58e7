"""Broken backpressure: bounds, debts, blocked sends. Queues are small, so that they are met."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from tests.mutants.registry import add, nothing
from tribes.config.model import SenderConfig
from tribes.errors import MemberBehindError
from tribes.links.blocked import BlockedSends
from tribes.links.own_outbox import Outbox
from tribes.manager.repair import Repair
from tribes.manager.replication import Replicator
from tribes.testing import execute
from tribes.testing.plan import Plan, Step
from tribes.testing.plan_nodes import node_config

if TYPE_CHECKING:
    from tests.mutants.registry import Patch
    from tribes.config.model import NodeConfig
    from tribes.wire.member import Member

_MANY: Final = {"write": 4.0, "append": 1.0, "abandon": 1.0}
_config = node_config


def _stress(dirty_max: int = 10_000, **sender: int) -> tuple[Patch, ...]:
    def small(plan: Plan, number: int) -> NodeConfig:
        config = _config(plan, number)
        channel = msgspec.structs.replace(
            config.channel, sender=msgspec.convert(sender, SenderConfig)
        )
        manager = msgspec.structs.replace(config.manager, dirty_max=dirty_max)
        return msgspec.structs.replace(config, channel=channel, manager=manager)

    return ((execute, "node_config", small),)


_LIVE: Final = _stress(live_queue_max_bytes=150_000, unacked_max_bytes=100_000)
_SYNC: Final = _stress(dirty_max=5, live_queue_max_bytes=150_000, unacked_max_bytes=100_000)
_RAW: Final = _stress(queue_max_bytes=1000, queue_timeout=800, timeout=10_000)


def stopped_under_load(seed: int) -> Plan:
    """One of three is stopped while the others write large values; it stays a member."""
    return Plan(
        seed=seed,
        members=3,
        seconds=6.0,
        settle=4.0,
        send_options=(6, 8)[seed % 2],
        clients=8,
        think=0.05,
        routing="sticky",
        messages_per_s=0.0,
        mix=_MANY,
        large_share=0.6,
        soon_s=2.5,
        steps=(Step(2.0, "pause", (2,), seconds=0.9),),
    )


def clogged_under_messages(seed: int) -> Plan:
    """Small messages towards a member that does not read for a while, and long after that."""
    return Plan(
        seed=seed,
        members=3,
        seconds=18.0,
        settle=4.0,
        send_options=8,
        clients=1,
        think=1.0,
        messages_per_s=30.0,
        message_options=(8,),
        steps=(Step(2.0, "clog", (0, 2), seconds=5.0),),
    )


_has_room = Outbox.has_room
add(
    "pressure: live queue unbounded",
    "Changes are queued for a member however many wait.",
    (
        Outbox,
        "has_room",
        lambda self, size, *, is_live: is_live or _has_room(self, size, is_live=is_live),
    ),
    stress=_LIVE,
    plan=stopped_under_load,
    own=True,
)
add(
    "pressure: window forgotten",
    "What is unacknowledged has no bound.",
    (Outbox, "_has_window", lambda self, size: True),
    stress=_LIVE,
    plan=stopped_under_load,
    own=True,
)


def _forget_behind(
    self: Any, member: Member, keys: Any, now: float, why: Exception | None = None
) -> None:
    if not isinstance(why, MemberBehindError):
        _mark(self, member, keys, now, why)


_mark = Repair.mark
add(
    "pressure: refused change forgotten",
    "The key of a change that found the live queue full is not noted.",
    (Repair, "mark", _forget_behind),
    stress=_LIVE,
    plan=stopped_under_load,
    own=True,
)
add(
    "pressure: held off and owed nothing",
    "What a member that is behind is not sent is not noted.",
    (Replicator, "_following", lambda self, keys, now: self._current()),
    stress=_LIVE,
    plan=stopped_under_load,
    own=True,
)
add(
    "pressure: room not told",
    "Nobody notices that a live queue is half empty again.",
    (Replicator, "room", nothing),
    stress=_LIVE,
    plan=stopped_under_load,
    own=True,
)
add(
    "pressure: dirty keys unbounded",
    "However many sessions a member is behind with, each is remembered.",
    (Repair, "_owe", lambda self, debt, keys: debt.dirty.update(dict.fromkeys(keys))),
    stress=_SYNC,
    plan=stopped_under_load,
    own=True,
)


def _no_comparison(self: Any, member: Member, debt: Any, now: float) -> None:
    debt.needs_sync = False
    self._catch_up(member, debt)
    self._paid(member, debt, now, None)


add(
    "pressure: needs-sync never synced",
    "Too many keys are forgotten, and nothing is compared in their place.",
    (Repair, "_compare", _no_comparison),
    stress=_SYNC,
    plan=stopped_under_load,
    own=True,
)


def _never_direct(self: Any, member: Member, debt: Any) -> None:
    del self, member, debt


add(
    "pressure: behind for ever",
    "A member that has caught up gets no change directly any more.",
    (Repair, "_catch_up", _never_direct),
    stress=_LIVE,
    plan=stopped_under_load,
    own=True,
)
add(
    "pressure: blocked send never times out",
    "Who waits for room in a queue waits for as long as the member is one.",
    (BlockedSends, "_expire", nothing),
    stress=_RAW,
    plan=clogged_under_messages,
)
add(
    "pressure: blocked send never let in",
    "Room is not given to those that wait for it.",
    (BlockedSends, "admit", nothing),
    stress=_RAW,
    plan=clogged_under_messages,
)
