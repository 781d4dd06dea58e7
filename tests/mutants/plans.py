"""Plans written for one mutant each, where only one course of things shows it.

Most mechanisms have another one behind them: what is not repaired is compared in the background,
who is not told of an end finds it by asking. A plan here makes the situation in which one mechanism
alone can keep its promise in time, by what happens in the network and never by a changed product.
Times: a send is given up after 3 s; the member is asked then, and has 1 s to answer. So a clog of
3.6 s fails what it caught in its first 0.6 s, and no member is removed.
"""

from __future__ import annotations

from typing import Final

from tribes.testing.plan import Plan, Step

__all__ = [
    "counted",
    "double_clicks",
    "failed_pull",
    "failed_repair",
    "forgotten_while_slow",
    "full_dispatch",
    "idle_split",
    "locked",
    "lost_to_one",
    "many_dirty",
    "resets",
    "used_just_before",
]

_MANY: Final = {"write": 4.0, "append": 1.0, "abandon": 3.0}
"""Many sessions, each written a few times: what is missing stays missing."""


def many_dirty(seed: int) -> Plan:
    """One clog, and a dozen sessions that the other member did not take."""
    return Plan(
        seed=seed,
        members=2,
        seconds=9.0,
        settle=4.0,
        send_options=(6, 2)[seed % 2],
        clients=40,
        think=0.1,
        routing="sticky",
        messages_per_s=0.0,
        mix=_MANY,
        soon_s=4.0,
        steps=(Step(2.0, "clog", (0, 1), seconds=3.6),),
    )


def failed_repair(seed: int) -> Plan:
    """The same, and a second clog just when the repair is on its way."""
    return Plan(
        seed=seed,
        members=2,
        seconds=12.0,
        settle=4.0,
        send_options=(6, 2)[seed % 2],
        clients=40,
        think=0.1,
        routing="sticky",
        messages_per_s=0.0,
        mix=_MANY,
        soon_s=4.0,
        steps=(
            Step(2.0, "clog", (0, 1), seconds=3.3),
            Step(5.4, "clog", (0, 1), seconds=3.6),
        ),
    )


def lost_to_one(seed: int) -> Plan:
    """A member dies whose last changes all have but one, and nobody starts for a while."""
    return Plan(
        seed=seed,
        members=4,
        seconds=9.0,
        settle=6.0,
        send_options=8,
        clients=12,
        think=0.2,
        messages_per_s=0.0,
        mix=_MANY,
        soon_s=3.0,
        steps=(Step(2.0, "clog", (1, 2), seconds=1.6), Step(3.5, "crash", (1,))),
    )


def failed_pull(seed: int) -> Plan:
    """The same, and the one that lacks them cannot ask at first; nobody takes it for gone."""
    return Plan(
        seed=seed,
        members=4,
        seconds=13.0,
        settle=6.0,
        send_options=8,
        clients=12,
        think=0.2,
        messages_per_s=0.0,
        mix=_MANY,
        soon_s=3.0,
        steps=(
            Step(2.0, "clog", (1, 2), seconds=1.55),
            Step(3.5, "crash", (1,)),
            Step(3.6, "clog", (2, 0), seconds=3.5),
            Step(3.6, "clog", (2, 3), seconds=3.5),
        ),
    )


def forgotten_while_slow(seed: int) -> Plan:
    """A member that was stopped for long is found again over a slow network, under load."""
    return Plan(
        seed=seed,
        members=3,
        seconds=15.0,
        settle=6.0,
        send_options=8,
        clients=20,
        think=0.1,
        messages_per_s=0.0,
        mix=_MANY,
        soon_s=3.0,
        steps=(
            Step(1.0, "delay", (0, 1), value=0.2, seconds=9.5),
            Step(2.0, "pause", (1,), seconds=6.0),
        ),
    )


def resets(seed: int) -> Plan:
    """Connections are reset one by one, and nothing else is wrong."""
    pairs = ((0, 1), (1, 2), (0, 2))
    return Plan(
        seed=seed,
        members=3,
        seconds=24.0,
        settle=6.0,
        send_options=6,
        clients=2,
        think=0.5,
        messages_per_s=40.0,
        message_options=(2, 6),
        steps=tuple(Step(2.0 + 1.2 * i, "reset", pairs[i % 3]) for i in range(17)),
    )


def double_clicks(seed: int) -> Plan:
    """The tabs of one browser ask different nodes at the same moment."""
    return Plan(
        seed=seed,
        members=3,
        seconds=6.0,
        settle=6.0,
        send_options=(6, 8)[seed % 2],
        clients=6,
        tabs=6,
        tick=0.05,
        think=0.05,
        messages_per_s=0.0,
        mix={"write": 4.0, "counter": 2.0, "remove": 1.0},
    )


def counted(seed: int) -> Plan:
    """Several nodes change the values of one session that merge by element, across a split."""
    return Plan(
        seed=seed,
        members=3,
        seconds=8.0,
        settle=8.0,
        send_options=(6, 8)[seed % 2],
        clients=6,
        tabs=6,
        tick=(0.05, 0.0)[seed % 2],
        think=0.1,
        messages_per_s=0.0,
        mix={"write": 1.0, "merged_add": 3.0, "merged_put": 2.0, "merged_take": 2.0}
        | {"merged_append": 2.0, "merged_read": 2.0},
        steps=(Step(3.0, "partition", (seed % 3,), seconds=2.0),),
    )


def locked(seed: int) -> Plan:
    """The tabs of one browser want the lock of its session, and a member dies and comes back."""
    return Plan(
        seed=seed,
        members=3,
        seconds=10.0,
        settle=9.0,
        send_options=6,
        clients=6,
        tabs=6,
        think=0.1,
        messages_per_s=0.0,
        mix={"lock": 4.0, "merged_add": 1.0},
        steps=(Step(5.0, "crash", (seed % 3,), seconds=1.0),),
    )


def idle_split(seed: int) -> Plan:
    """A split that outlasts the idle limit: each side uses sessions that the other gives up."""
    return Plan(
        seed=seed,
        members=3,
        seconds=18.0,
        settle=5.0,
        send_options=(6, 8)[seed % 2],
        clients=12,
        think=0.5,
        routing="sticky",
        max_inactive_s=8,
        messages_per_s=0.0,
        mix={"write": 2.0, "read": 2.0, "touch": 1.0},
        soon_s=5.0,
        steps=(Step(2.0, "partition", (seed % 3,), seconds=12.0),),
    )


def used_just_before(seed: int) -> Plan:
    """Sessions that are read shortly before their limit, on any node: the owner hears it later."""
    return Plan(
        seed=seed,
        members=3,
        seconds=24.0,
        settle=6.0,
        send_options=(6, 8)[seed % 2],
        clients=12,
        think=1.5,
        max_inactive_s=3,
        messages_per_s=0.0,
        mix={"read": 3.0, "touch": 1.0},
    )


def full_dispatch(seed: int) -> Plan:
    """Large values towards members whose windows are full."""
    return Plan(
        seed=seed,
        members=3,
        seconds=8.0,
        settle=8.0,
        send_options=8,
        clients=6,
        think=0.05,
        messages_per_s=1.0,
        message_options=(8,),
        large_share=0.5,
        steps=tuple(
            Step(2.0, "clog", (node, other), seconds=2.5)
            for node in range(3)
            for other in range(3)
            if node != other
        ),
    )
