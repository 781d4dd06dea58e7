"""Plans from seeds, for long runs: swarms of faults rather than all of them all the time.

Each plan first draws which kinds of faults it has at all (swarm testing: Groce et al., ISSTA 2012),
how often they come and how long they last. A plan with everything in it finds less than many that
each go far in one direction: a group that is always partitioned never fills a queue.

One node, drawn per plan, never loses its memory, so that an acknowledged write always has a copy
that nothing promised away; whoever else crashes is started again.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from msgspec import structs

from tribes.errors import ConfigError
from tribes.testing.plan import ACTIONS, Extra, Plan, Step
from tribes.testing.workload import MERGED_MIX, MIX

__all__ = ["DEFAULT_FAULTS", "NODES_TAKEN", "draw_plan"]

NODES_TAKEN: Final = {
    "crash": 1,
    "crash_during_send": 1,
    "crash_keep_sockets": 1,
    "restart": 1,
    "leave": 1,
    "drain": 1,
    "mass_restart": 1,
    "pause": 1,
    "throttle": 1,
    "slow_listeners": 1,
    "delay": 2,
    "cut": 2,
    "flap": 2,
    "bridge": 3,
    "no_multicast": 1,
    "no_tcp": 2,
    "clog": 2,
    "half_open": 2,
    "reset": 2,
    "reset_mid_frame": 2,
    "corrupt": 2,
    "truncate": 2,
    "oversize": 2,
    "clock_step": 1,
    "clock_drift": 1,
    "disk_full": 1,
    "donor_hangs": 1,
    "donor_refuses": 1,
    "donor_dies": 1,
}
"""How many nodes an action takes; those not named take none, or (partition) a drawn number."""

LOSES_MEMORY: Final = frozenset(
    (
        "crash",
        "crash_during_send",
        "crash_keep_sockets",
        "restart",
        "leave",
        "drain",
        "mass_restart",
        "donor_dies",
    )
)

DEFAULT_FAULTS: Final = tuple(action for action in ACTIONS if action not in ("corrupt", "truncate"))
"""What is drawn from unless told otherwise. TCP does not flip bits or lose bytes in the middle;
where something does, a plain link does not notice everything, as Tomcat's does not."""

_ADDED: Final = frozenset(("slow_listeners",))
"""Drawn by themselves, with what else was added later: so that a seed without them gives the plan
that it always gave."""

_DONORS: Final = frozenset(("donor_hangs", "donor_refuses", "donor_dies"))
"""Likewise, and later still. They need somebody who joins, so with them nodes crash."""

_REST_S: Final = 15.0

CLOCK_OFF_MAX_MS: Final = 11 * 3_600_000.0
"""How far steps may take one wall clock from the true time. A node whose clock is more than 24 h
behind another's refuses what that one writes (``ClockAheadError``), which is no fault of a plan."""

_OPTIONS: Final = (6, 6, 6, 2, 8, 8, 10, 0)


def draw_plan(
    seed: int,
    *,
    members: int | None = None,
    seconds: float = 10.0,
    settle: float = 10.0,
    faults: Sequence[str] | None = None,
    managers: str = "",
) -> Plan:
    """Draw a plan.

    Args:
        seed: Equal seeds give equal plans.
        members: How many nodes; None: drawn, 2 to 6.
        seconds: Virtual seconds under faults; some plans have a load without faults after them.
        settle: Virtual seconds after both.
        faults: The kinds to choose from; None: :data:`DEFAULT_FAULTS`.
        managers: See `Plan`; empty: drawn.

    Raises:
        ConfigError: A kind is none of :data:`ACTIONS`.
    """
    unknown = sorted(set(faults or ()) - ACTIONS.keys())
    if unknown:
        raise ConfigError(
            f"{', '.join(unknown)}: no such fault; there are {', '.join(ACTIONS)}", key="faults"
        )
    random = Random(f"plan {seed}")
    count = members or random.choice((2, 3, 3, 3, 4, 5, 6))
    kinds = [k for k in (faults if faults is not None else DEFAULT_FAULTS) if _fits(k, count)]
    old = [kind for kind in kinds if kind not in _ADDED | _DONORS]
    swarm = [kind for kind in old if random.random() < 0.25]
    added = Random(f"plan {seed}, added")
    swarm += [kind for kind in kinds if kind in _ADDED and added.random() < 0.25]
    donors = Random(f"plan {seed}, donors")
    if donors.random() < 0.2 and (failing := [kind for kind in kinds if kind in _DONORS]):
        swarm += [donors.choice(failing), *(kind for kind in kinds if kind == "crash")]
    anchor = random.randrange(count)
    steps: list[Step] = []
    if swarm:
        pause = random.choice((0.3, 1.0, 3.0))
        at = random.uniform(1.0, 2.5)
        while at < seconds:
            steps.append(_step(random, random.choice(swarm), at, count, anchor))
            at += random.expovariate(1 / pause)
    _keep_clocks_near(steps)
    tabs = added.choice((1, 1, 2, 3))
    # Some go on in peace: what is promised for calm times only is looked at under load too.
    rest = added.choice((0.0,) * 5 + (_REST_S,))
    placed = Random(f"plan {seed}, placed")
    return Plan(
        seed=seed,
        members=count,
        seconds=seconds + rest,
        settle=settle,
        send_options=random.choice(_OPTIONS),
        clients=random.choice((1, 3, 6)),
        think=random.choice((0.05, 0.2, 0.5)),
        routing=random.choice(("sticky", "random")),
        max_inactive_s=random.choice((1800, 1800, 3)),
        messages_per_s=random.choice((0.0, 1.0, 5.0)),
        steps=tuple(steps),
        tabs=tabs,
        tick=added.choice((0.0, 0.05)) if tabs > 1 else 0.0,
        large_share=added.choice((0.0, 0.0, 0.05)),
        links=added.choice(("own", "own", "own", "plain", "mixed")),
        suspect_after=added.choice((1000, 1000, 1000, 0)),
        mix=added.choice(({}, {}, {**MIX, **MERGED_MIX})),
        contexts=_contexts(Random(f"plan {seed}, contexts"), count),
        managers=managers or placed.choice(("delta", "delta", "backup", "both")),
        copies=placed.choice((1, 1, 2)),
    )


def _contexts(random: Random, members: int) -> tuple[Extra, ...]:
    """A quarter of the plans have further contexts, which some nodes lack."""
    if random.random() < 0.75:
        return ()
    return tuple(
        Extra(
            name=name,
            nodes=tuple(sorted(random.sample(range(members), random.randint(1, members)))),
            send_options=random.choice(_OPTIONS),
            clients=random.choice((1, 2)),
        )
        for name in ("blog", "wiki")[: random.choice((1, 2))]
    )


def _keep_clocks_near(steps: list[Step]) -> None:
    off: dict[int, float] = {}
    for index, step in enumerate(steps):
        if step.action != "clock_step":
            continue
        (node,) = step.nodes
        if abs(off.get(node, 0.0) + step.value) > CLOCK_OFF_MAX_MS:
            step = steps[index] = structs.replace(step, value=-step.value)
        off[node] = off.get(node, 0.0) + step.value


def _fits(kind: str, members: int) -> bool:
    if kind in LOSES_MEMORY or kind == "partition":
        return members >= 2
    return NODES_TAKEN.get(kind, 0) <= members


def _step(random: Random, kind: str, at: float, members: int, anchor: int) -> Step:
    seconds = random.choice((0.2, 1.0, 2.0, 5.0))
    value = 0.0
    nodes: tuple[int, ...]
    others = [node for node in range(members) if node != anchor]
    if kind == "mass_restart":
        nodes = (anchor,)
    elif kind in LOSES_MEMORY:
        nodes = (random.choice(others),)
    elif kind == "partition":
        nodes = tuple(sorted(random.sample(range(members), random.randint(1, members - 1))))
    else:
        nodes = tuple(random.sample(range(members), NODES_TAKEN.get(kind, 0)))
    if kind in ("drop", "duplicate", "reorder"):
        value = random.choice((0.05, 0.2, 0.5))
    elif kind == "delay":
        value = random.choice((0.01, 0.1, 0.5))
    elif kind == "flap":
        value = random.choice((0.1, 0.4))
    elif kind == "throttle":
        value = random.choice((10.0, 100.0))
    elif kind == "slow_listeners":
        value = random.choice((0.02, 0.5))
    elif kind == "clock_step":
        value = random.choice((-3_600_000.0, -1000.0, 1000.0, 3_600_000.0))
    elif kind == "clock_drift":
        value = random.choice((0.9, 1.1, 2.0))
    return Step(round(at, 3), kind, nodes, value, seconds)
