"""Plans drawn by hypothesis, which shrinks a failing one to the few steps that matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from tribes.testing.generator import DEFAULT_FAULTS, NODES_TAKEN
from tribes.testing.plan import Plan, Step

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["plans", "steps"]

_VALUES = {
    "drop": (0.05, 0.5),
    "duplicate": (0.05, 0.5),
    "reorder": (0.05, 0.5),
    "delay": (0.01, 0.5),
    "flap": (0.1, 0.4),
    "throttle": (10.0, 100.0),
    "slow_listeners": (0.02, 0.5),
    "clock_step": (-3_600_000.0, 3_600_000.0),
    "clock_drift": (0.9, 2.0),
}


def steps(members: int, seconds: float) -> SearchStrategy[Step]:
    """Return single steps for a cluster of so many nodes. Node 0 never loses its memory."""
    fitting = [kind for kind in DEFAULT_FAULTS if NODES_TAKEN.get(kind, 0) <= members]
    return st.sampled_from(fitting).flatmap(lambda kind: _step(kind, members, seconds))


def _step(kind: str, members: int, seconds: float) -> SearchStrategy[Step]:
    taken = NODES_TAKEN.get(kind, 0)
    everybody = range(members)
    nodes: SearchStrategy[tuple[int, ...]]
    if kind == "mass_restart":
        nodes = st.just((0,))
    elif kind == "partition":
        nodes = st.sets(st.sampled_from(everybody), min_size=1, max_size=members - 1).map(
            lambda chosen: tuple(sorted(chosen))
        )
    elif taken == 1:
        nodes = st.tuples(st.sampled_from(everybody[1:]))
    else:
        nodes = st.permutations(everybody).map(lambda order: tuple(order[:taken]))
    return st.builds(
        Step,
        at=st.integers(10, int(seconds * 10)).map(lambda tenths: tenths / 10),
        action=st.just(kind),
        nodes=nodes,
        value=st.sampled_from(_VALUES.get(kind, (0.0,))),
        seconds=st.sampled_from((0.2, 1.0, 3.0)),
    )


def plans(*, members: int = 3, seconds: float = 6.0, max_steps: int = 6) -> SearchStrategy[Plan]:
    """Return plans for a cluster of so many nodes (at least two)."""
    return st.builds(
        Plan,
        seed=st.integers(0, 1000),
        members=st.just(members),
        seconds=st.just(seconds),
        settle=st.just(10.0),
        send_options=st.sampled_from((6, 8, 2)),
        clients=st.just(3),
        tabs=st.sampled_from((1, 3)),
        think=st.just(0.2),
        routing=st.sampled_from(("sticky", "random")),
        steps=st.lists(steps(members, seconds), max_size=max_steps).map(
            lambda chosen: tuple(sorted(chosen, key=lambda step: step.at))
        ),
    )
