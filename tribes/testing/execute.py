"""Runs a plan in a simulated world and says what did not hold.

The run has three parts. For ``seconds`` the clients work while the steps of the plan happen. Then
everything that is still broken is mended, dead nodes are started, and the clients stop. After
``settle`` further seconds all nodes must agree. Safety is checked as the run goes on, the history
and the agreement at its end.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tribes.testing.backup_checks import placed_state, survivors
from tribes.testing.drain_checks import DrainedCopies
from tribes.testing.garbage import patient_collector
from tribes.testing.invariants import check_converged, check_history, check_now
from tribes.testing.lock_checks import check_locks, check_locks_over
from tribes.testing.observer import incarnation
from tribes.testing.plan_nodes import SECOND, node_config
from tribes.testing.session_checks import check_reads, check_state
from tribes.testing.sim import SimNode, World
from tribes.testing.steps import PERFORM, UNTOLD
from tribes.testing.violation import Violation, WorldState
from tribes.testing.witness_checks import UNDERSTOOD, WitnessCheck
from tribes.testing.workload import Workload
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from tribes.testing.history import History
    from tribes.testing.plan import Plan, Step

__all__ = ["Outcome", "TimelineEntry", "patient_collector", "run_plan"]

CHECK_EVERY_S = 0.5
"""Virtual seconds between two looks at what must hold while running."""

MESSAGE_MAX_BYTES = 512 * 1024
"""Longer than any message of a run: 256 KiB of records and one session with large values more."""

TIMELINE_MAX = 20_000
"""Entries that a run keeps for its timeline; the oldest go first."""

_ARRIVES_S = 0.2
_ASYNC = int(SendOptions.ASYNCHRONOUS)
_ACKED = _ASYNC | int(SendOptions.USE_ACK)

_LOCKS_S = 8.0
"""After that no lock is left: clients give up after 3 s, and a lease is 2 s."""
_SUSPECT_AFTER = 1000
"""The default, for which `check_suspicions` has its times."""
_ALL_ANSWER = frozenset(
    ("pause", "no_multicast", "duplicate", "reorder", "replay", "clock_step", "disk_full")
)
"""Faults that keep nobody but a stopped process from answering on a stream."""
_PATIENCE_S = 2.5
"""Who does not answer and sends no heartbeats is suspected within 2 s."""
_ASKED_S = 3.5
"""Who sends heartbeats is suspected within 2 s of the first question; there is some load."""

START_S = 1.5
"""Virtual seconds before the plan begins: everybody has found everybody."""

TimelineEntry = tuple[float, str, str, str]
"""Virtual time, node, kind, text."""


@dataclass(slots=True)
class Outcome:
    """What came out of a run.

    Attributes:
        plan: What was run.
        violations: What did not hold; empty is what we want.
        digest: Hash of everything that happened.
        events: Events of the world.
        virtual_s: Virtual seconds.
        real_s: Seconds of this machine.
        timeline: What happened last, for reports.
        nodes: Names, in order.
    """

    plan: Plan
    violations: list[Violation]
    digest: str
    events: int
    virtual_s: float
    real_s: float
    timeline: list[TimelineEntry] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)


def run_plan(
    plan: Plan,
    *,
    keep_timeline: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Outcome:
    """Run a plan from its beginning to its end, or to the first violation while running.

    Args:
        plan: What to run; checked first.
        keep_timeline: Keep what happened, for a report. Costs time.
        progress: Told the share of the virtual time that is over, now and then.

    Raises:
        ConfigError: The plan cannot be run.
    """
    plan.check()
    begin = time.perf_counter()
    with patient_collector() as collect:
        run = _Run(plan, keep_timeline=keep_timeline, between_looks=collect)
        violations = run.execute(progress)
    return Outcome(
        plan=plan,
        violations=violations,
        digest=run.world.digest,
        events=run.world.events,
        virtual_s=run.world.now,
        real_s=time.perf_counter() - begin,
        timeline=list(run.timeline),
        nodes=[node.name for node in run.nodes],
    )


def _patience(plan: Plan) -> float:
    actions = {step.action for step in plan.steps}
    if plan.links != "own" or plan.suspect_after != _SUSPECT_AFTER:
        return 0.0
    if actions <= _ALL_ANSWER:
        return _PATIENCE_S
    return _ASKED_S if actions <= _ALL_ANSWER | {"no_tcp"} else 0.0


class _Run:
    def __init__(
        self, plan: Plan, *, keep_timeline: bool, between_looks: Callable[[], None]
    ) -> None:
        self.plan = plan
        self.end_s = START_S + plan.seconds
        """When the faults end."""
        self.world = World(plan.seed)
        self.timeline: deque[TimelineEntry] = deque(maxlen=TIMELINE_MAX)
        self._keeps_timeline = keep_timeline
        self._between_looks = between_looks
        self._is_mended = False
        self._found: list[Violation] = []
        self._dying: dict[str, int] = {}
        if keep_timeline:
            self.world.observers.append(self._note)
        self.nodes: list[SimNode] = [
            self.world.start(f"n{number}", node_config(plan, number))
            for number in range(plan.members)
        ]
        # Before the main one: the last to come hears what becomes of the raw messages.
        self.extras = [
            Workload(
                self.world,
                clients=extra.clients,
                context=extra.name,
                routing="sticky" if plan.routing == "sticky" else "random",
                think_s=plan.think,
                messages_per_s=0.0,
                seed=plan.seed + number + 1,
                mix=plan.mix or None,
            )
            for number, extra in enumerate(plan.contexts)
        ]
        self.workload = Workload(
            self.world,
            clients=plan.clients,
            routing="sticky" if plan.routing == "sticky" else "random",
            think_s=plan.think,
            messages_per_s=plan.messages_per_s * plan.members,
            send_options=plan.message_options,
            seed=plan.seed,
            mix=plan.mix or None,
            tabs=plan.tabs,
            tick=plan.tick,
            large_share=plan.large_share,
        )
        self.history: History = self.workload.history
        self.loads = [*self.extras, self.workload]
        self.is_placed = plan.managers != "delta"
        self.second: Workload | None = None
        if plan.managers == "both":
            self.second = Workload(
                self.world,
                clients=2,
                context=SECOND,
                routing="random",
                think_s=plan.think,
                messages_per_s=0.0,
                seed=plan.seed + 1,
                is_second=True,
            )
            self.loads.append(self.second)
        # A connection names the process that it is meant for; a plain Tomcat's does not.
        self.history.state["exact targets"] = plan.links == "own"

    def _note(self, now: float, node: str, kind: str, detail: object) -> None:
        self.timeline.append((now, node, kind, str(detail)))

    def execute(self, progress: Callable[[float], None] | None) -> list[Violation]:
        world, plan = self.world, self.plan
        world.run(START_S)
        is_understood = {step.action for step in plan.steps} <= UNDERSTOOD
        if is_understood and plan.links == "own" and plan.suspect_after == _SUSPECT_AFTER:
            WitnessCheck(world, self._found)
        for step in plan.steps:
            world.at(step.at, lambda step=step: self._begin(step))  # type: ignore[misc]
        for load in self.loads:
            load.start()
        whole = plan.seconds + plan.settle
        end = self.end_s
        while world.now < end:
            world.run_until(min(world.now + CHECK_EVERY_S, end))
            if violations := self._look():
                return violations
            if progress is not None:
                progress((world.now - START_S) / max(whole, 1e-9))
        for load in self.loads:
            load.stop()
        self._mend_all()
        healed = world.now
        end = healed + plan.settle
        while world.now < end:
            world.run_until(min(world.now + CHECK_EVERY_S, end))
            if violations := self._look():
                return violations
            if progress is not None:
                progress((world.now - START_S) / max(whole, 1e-9))
        found = []
        for load in (self.workload, *self.extras):
            is_placed = self.is_placed and load is self.workload
            found += [
                *check_converged(
                    world,
                    self.nodes,
                    healed,
                    plan.settle,
                    history=load.history,
                    context=load.context,
                ),
                *check_history(
                    load.history,
                    placed_state(world, "app") if is_placed else WorldState.of(world, load.context),
                    soon_s=plan.soon_s,
                    patience_s=_patience(plan),
                    suspects=plan.suspect_after == _SUSPECT_AFTER,
                    all_answer={step.action for step in plan.steps} <= _ALL_ANSWER,
                    survivors=survivors(load.history, plan.copies, world.now)
                    if is_placed
                    else None,
                ),
            ]
        if plan.settle >= _LOCKS_S:
            found += check_locks_over(world, self.nodes)
        if self.second is not None:
            history = self.second.history
            found += check_converged(
                world, self.nodes, healed, plan.settle, history=history, context=SECOND
            )
            state = WorldState.of(world, SECOND)
            found += [*check_reads(history), *check_state(history, state)]
        # Until the copies were equal the world ran on.
        return found + self._look()

    def _look(self) -> list[Violation]:
        self._between_looks()
        found = self._found[:]
        self._found.clear()
        found += check_locks(self.world, self.nodes)
        for load in self.loads:
            found += load.violations
            found += check_now(
                self.world, load.history, load.context, message_max_bytes=MESSAGE_MAX_BYTES
            )
        return found

    def watch_dying(self, node: SimNode) -> None:
        """A node will die in its next write; it must not do so when all was mended."""
        self._dying[node.name] = node.incarnation

    def watch_drained(self, node: SimNode) -> None:
        """A node says that it may go: what it has must be with its targets, or on the last way."""
        copies = DrainedCopies(node, is_placed=self.is_placed)
        if node.core.view.members and copies.has_heirs:
            # One that sees nobody has given its sessions to nobody.
            self.history.state.setdefault("drained", set()).add(incarnation(node))
        if self.plan.send_options & _ACKED == _ACKED & ~_ASYNC:
            self._found += copies.missing(self.world)
        else:
            # Without acknowledgement the kernel has it, and the network still has to bring it.
            begin = self.world.now

            def look() -> None:
                if self.history.is_calm(begin - 1e-9, begin - 1e-9, settle=_ARRIVES_S):
                    self._found += copies.missing(self.world)

            self.world.at(_ARRIVES_S, look)

    # Steps.

    def _fault(self, kind: str, *names: str) -> None:
        for load in self.loads:
            load.history.fault(self.world.now, kind, *names)

    def _begin(self, step: Step) -> None:
        if self._keeps_timeline:
            nodes = ", ".join(f"n{number}" for number in step.nodes)
            self._note(self.world.now, nodes.partition(",")[0] or "*", "fault", _text(step, nodes))
        # What the world tells the history itself is a jolt here, which only says when.
        names = tuple(f"n{number}" for number in step.nodes)
        kind, end = UNTOLD.get(step.action, ("jolt", "jolt"))
        if step.action != "reset":
            self._fault(kind, *(names if kind == "slow" else ()))
        undo = PERFORM[step.action](self, step)
        if undo is None or not step.seconds:
            return

        def take_back() -> None:
            if self._is_mended:
                return
            self._fault(end, *(names if end == "quick" else ()))
            undo()

        self.world.at(step.seconds, take_back)

    def _mend_all(self) -> None:
        self._is_mended = True
        self.world.calm()
        for node in self.nodes:
            if self._dying.get(node.name) == node.incarnation and node.is_alive:
                # It has not written since: or it would be dead for the rest of the run.
                node.crash()
            if node.throttle != 1.0:
                self._fault("quick", node.name)
            node.throttle = 1.0
            node.delivery_s = 0.0
            node.disk_full = False
            node.clock.drift = 1.0
            node.sockets.release()
            if node.is_paused:
                node.resume()
            self.revive(node)

    def revive(self, node: SimNode) -> None:
        """Start a node if it is dead."""
        if not node.is_alive:
            node.restart()


def _text(step: Step, nodes: str) -> str:
    parts = [step.action, nodes]
    if step.value:
        parts.append(f"value {step.value:g}")
    if step.seconds:
        parts.append(f"for {step.seconds:g} s")
    return " ".join(part for part in parts if part)
