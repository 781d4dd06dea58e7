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

from tribes.config.model import ManagerConfig, NodeConfig
from tribes.testing.invariants import check_converged, check_history, check_now
from tribes.testing.sim import SimNode, World
from tribes.testing.violation import Violation, WorldState
from tribes.testing.workload import Workload

if TYPE_CHECKING:
    from tribes.testing.history import History
    from tribes.testing.plan import Plan, Step

__all__ = ["Outcome", "TimelineEntry", "run_plan"]

CHECK_EVERY_S = 0.5
"""Virtual seconds between two looks at what must hold while running."""

TIMELINE_MAX = 20_000
"""Entries that a run keeps for its timeline; the oldest go first."""

_DRAIN_S = 2.0

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
    run = _Run(plan, keep_timeline=keep_timeline)
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


class _Run:
    def __init__(self, plan: Plan, *, keep_timeline: bool) -> None:
        self.plan = plan
        self.world = World(plan.seed)
        self.timeline: deque[TimelineEntry] = deque(maxlen=TIMELINE_MAX)
        self._keeps_timeline = keep_timeline
        if keep_timeline:
            self.world.observers.append(self._note)
        config = NodeConfig(
            contexts=("app",),
            manager=ManagerConfig(
                channel_send_options=plan.send_options, max_inactive_s=plan.max_inactive_s
            ),
        )
        self.nodes: list[SimNode] = [
            self.world.start(f"n{number}", config) for number in range(plan.members)
        ]
        self.workload = Workload(
            self.world,
            clients=plan.clients,
            routing="sticky" if plan.routing == "sticky" else "random",
            think_s=plan.think,
            messages_per_s=plan.messages_per_s * plan.members,
            seed=plan.seed,
        )
        self.history: History = self.workload.history

    def _note(self, now: float, node: str, kind: str, detail: object) -> None:
        self.timeline.append((now, node, kind, str(detail)))

    def execute(self, progress: Callable[[float], None] | None) -> list[Violation]:
        world, plan = self.world, self.plan
        world.run(START_S)
        for step in plan.steps:
            world.at(step.at, lambda step=step: self._begin(step))  # type: ignore[misc]
        self.workload.start()
        whole = plan.seconds + plan.settle
        end = START_S + plan.seconds
        while world.now < end:
            world.run_until(min(world.now + CHECK_EVERY_S, end))
            if violations := check_now(world, self.history):
                return violations
            if progress is not None:
                progress((world.now - START_S) / max(whole, 1e-9))
        self.workload.stop()
        self._mend_all()
        healed = world.now
        end = healed + plan.settle
        while world.now < end:
            world.run_until(min(world.now + CHECK_EVERY_S, end))
            if violations := check_now(world, self.history):
                return violations
            if progress is not None:
                progress((world.now - START_S) / max(whole, 1e-9))
        return [
            *check_converged(world, self.nodes, healed, plan.settle, history=self.history),
            *check_history(self.history, WorldState.of(world)),
        ]

    # Steps.

    def _begin(self, step: Step) -> None:
        if self._keeps_timeline:
            nodes = ", ".join(f"n{number}" for number in step.nodes)
            self._note(self.world.now, nodes.partition(",")[0] or "*", "fault", _text(step, nodes))
        self.history.fault(self.world.now, "disturb")
        undo = _ACTIONS[step.action](self, step)
        if undo is None or not step.seconds:
            return

        def take_back() -> None:
            self.history.fault(self.world.now, "disturb")
            undo()

        self.world.at(step.seconds, take_back)

    def _mend_all(self) -> None:
        self.world.calm()
        for node in self.nodes:
            node.throttle = 1.0
            node.disk_full = False
            node.clock.drift = 1.0
            node.sockets.release()
            if node.is_paused:
                node.resume()
            self._revive(node)

    def _revive(self, node: SimNode) -> None:
        if not node.is_alive:
            node.restart()


Undo = Callable[[], None] | None


def _text(step: Step, nodes: str) -> str:
    parts = [step.action, nodes]
    if step.value:
        parts.append(f"value {step.value:g}")
    if step.seconds:
        parts.append(f"for {step.seconds:g} s")
    return " ".join(part for part in parts if part)


def _crash(run: _Run, step: Step) -> Undo:
    node = run.nodes[step.nodes[0]]
    if not node.is_alive:
        return None
    node.crash(
        during_send=step.action == "crash_during_send",
        keep_sockets=step.action == "crash_keep_sockets",
    )
    return lambda: run._revive(node)


def _stop(run: _Run, step: Step) -> Undo:
    node = run.nodes[step.nodes[0]]
    if not node.is_alive or node.is_paused:
        return None
    node.stop()
    if step.action == "restart":
        node.restart()
        return None
    return lambda: run._revive(node)


def _drain(run: _Run, step: Step) -> Undo:
    node = run.nodes[step.nodes[0]]
    incarnation, give_up = node.incarnation, run.world.now + _DRAIN_S

    def look() -> None:
        if node.incarnation != incarnation or not node.is_alive or node.is_paused:
            return
        if node.core.is_drained or run.world.now >= give_up:
            node.stop()
            run.world.at(max(step.seconds, _DRAIN_S), lambda: run._revive(node))
        else:
            run.world.at(0.05, look)

    look()
    return None


def _mass_restart(run: _Run, step: Step) -> Undo:
    spared = run.nodes[step.nodes[0]]
    for node in run.nodes:
        if node is not spared and node.is_alive:
            node.crash()

    def start() -> None:
        for node in run.nodes:
            run._revive(node)

    return start


def _pause(run: _Run, step: Step) -> Undo:
    node = run.nodes[step.nodes[0]]
    if not node.is_alive or node.is_paused:
        return None
    node.pause()
    incarnation = node.incarnation

    def resume() -> None:
        if node.is_alive and node.is_paused and node.incarnation == incarnation:
            node.resume()

    return resume


def _throttle(run: _Run, step: Step) -> Undo:
    node = run.nodes[step.nodes[0]]
    node.throttle = max(step.value, 1.0)

    def undo() -> None:
        node.throttle = 1.0

    return undo


def _every_link(name: str) -> Callable[[_Run, Step], Undo]:
    def begin(run: _Run, step: Step) -> Undo:
        def set_to(value: float) -> None:
            for link in run.world.every_link():
                setattr(link, name, value)

        set_to(step.value)
        return lambda: set_to(0.0)

    return begin


def _delay(run: _Run, step: Step) -> Undo:
    a, b = _pair(run, step)
    links = (run.world.link(a, b), run.world.link(b, a))

    def set_to(value: float) -> None:
        for link in links:
            link.delay = value

    set_to(step.value)
    return lambda: set_to(0.0)


def _pair(run: _Run, step: Step) -> tuple[SimNode, SimNode]:
    return run.nodes[step.nodes[0]], run.nodes[step.nodes[1]]


def _cut(run: _Run, step: Step) -> Undo:
    a, b = _pair(run, step)
    run.world.cut(a, b)
    return lambda: run.world.uncut(a, b)


def _partition(run: _Run, step: Step) -> Undo:
    inside = [run.nodes[number] for number in step.nodes]
    outside = [node for node in run.nodes if node not in inside]
    pairs = [(a, b) for a in inside for b in outside]
    for a, b in pairs:
        run.world.cut(a, b, both=True)

    def undo() -> None:
        for a, b in pairs:
            run.world.uncut(a, b)
            run.world.uncut(b, a)

    return undo


def _flap(run: _Run, step: Step) -> Undo:
    a, b = _pair(run, step)
    world = run.world
    end = world.now + (step.seconds or run.plan.seconds)
    period = max(step.value, 0.05)

    def down() -> None:
        if world.now < end:
            world.cut(a, b, both=True)
            world.at(period, up)

    def up() -> None:
        world.uncut(a, b)
        world.uncut(b, a)
        if world.now + period < end:
            world.at(period, down)

    down()
    return None


def _bridge(run: _Run, step: Step) -> Undo:
    a, b = run.nodes[step.nodes[1]], run.nodes[step.nodes[2]]
    run.world.cut(a, b, both=True)

    def undo() -> None:
        run.world.uncut(a, b)
        run.world.uncut(b, a)

    return undo


def _no_multicast(run: _Run, step: Step) -> Undo:
    names = {run.nodes[number].name for number in step.nodes}
    run.world.multicast_blocked.update(names)
    return lambda: run.world.multicast_blocked.difference_update(names)


def _no_tcp(run: _Run, step: Step) -> Undo:
    a, b = _pair(run, step)
    pairs = {(a.name, b.name), (b.name, a.name)}
    run.world.tcp_blocked.update(pairs)
    return lambda: run.world.tcp_blocked.difference_update(pairs)


def _clog(run: _Run, step: Step) -> Undo:
    a, b = _pair(run, step)
    run.world.clog(a, b)
    return lambda: run.world.unclog(a, b)


def _half_open(run: _Run, step: Step) -> Undo:
    a, b = _pair(run, step)
    run.world.half_open(a, b)
    return None


def _reset(run: _Run, step: Step) -> Undo:
    a, b = _pair(run, step)
    run.world.reset(a, b, mid_frame=step.action == "reset_mid_frame")
    return None


def _corrupt(run: _Run, step: Step) -> Undo:
    a, b = _pair(run, step)
    how = {"corrupt": "flip", "truncate": "truncate", "oversize": "oversize"}[step.action]
    run.world.corrupt_next(a, b, how)
    return None


def _replay(run: _Run, step: Step) -> Undo:
    del step
    old = list(run.world.recorded_datagrams)
    for data in old[:: max(1, len(old) // 20)]:
        run.world.inject_datagram(data)
    return None


def _forge(run: _Run, step: Step) -> Undo:
    del step
    world = run.world
    old = list(world.recorded_datagrams)
    if old:
        data = bytearray(world.random.choice(old))
        data[-30:-14] = world.random.randbytes(16)
        world.inject_datagram(bytes(data))
    world.inject_datagram(world.random.randbytes(100))
    for node in run.nodes:
        if node.is_alive:
            world.inject_stream(node, b"FLT2002" + world.random.randbytes(50))
    return None


def _clock_step(run: _Run, step: Step) -> Undo:
    run.nodes[step.nodes[0]].clock.step(int(step.value))
    return None


def _clock_drift(run: _Run, step: Step) -> Undo:
    clock = run.nodes[step.nodes[0]].clock
    clock.drift = step.value

    def undo() -> None:
        clock.drift = 1.0

    return undo


def _disk_full(run: _Run, step: Step) -> Undo:
    node = run.nodes[step.nodes[0]]
    node.disk_full = True

    def undo() -> None:
        node.disk_full = False

    return undo


_ACTIONS: dict[str, Callable[[_Run, Step], Undo]] = {
    "crash": _crash,
    "crash_during_send": _crash,
    "crash_keep_sockets": _crash,
    "restart": _stop,
    "leave": _stop,
    "drain": _drain,
    "mass_restart": _mass_restart,
    "pause": _pause,
    "throttle": _throttle,
    "drop": _every_link("loss"),
    "duplicate": _every_link("duplicate"),
    "reorder": _every_link("reorder"),
    "delay": _delay,
    "cut": _cut,
    "partition": _partition,
    "flap": _flap,
    "bridge": _bridge,
    "no_multicast": _no_multicast,
    "no_tcp": _no_tcp,
    "clog": _clog,
    "half_open": _half_open,
    "reset": _reset,
    "reset_mid_frame": _reset,
    "corrupt": _corrupt,
    "truncate": _corrupt,
    "oversize": _corrupt,
    "replay": _replay,
    "forge": _forge,
    "clock_step": _clock_step,
    "clock_drift": _clock_drift,
    "disk_full": _disk_full,
}
