"""The ring: a core's inputs of the last minutes, behind a state from which they can be run again.

It is a row of segments. Each begins with a state of the core and holds the inputs since, with what
they asked of the world meanwhile (time, chance, uses of sessions), the changes that requests made
to sessions in between, and a digest of the outputs. The oldest segment goes when the next one
reaches back far enough, or when memory is short.

Inputs are noted by reference: bytes and texts are shared with the core, which costs a few
microseconds for each. What becomes of a request thread's change in the very moment of an input is
not known: it is noted before the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, final

from tribes.channel.outputs import Event
from tribes.errors import TribesError
from tribes.recorder.freeze import OMITTED, Frozen, freeze
from tribes.recorder.inputs import INPUTS, STRUCTURAL, digest_of, noted, timed

if TYPE_CHECKING:
    from tribes.channel.trail import Tracing
    from tribes.config.recorder import RecorderConfig
    from tribes.manager.clock import Clock
    from tribes.manager.delta import DeltaManager
    from tribes.manager.inbox import Inbox
    from tribes.node import NodeCore

__all__ = ["Ring", "Segment", "Step"]

_CHANGES_MAX: Final = 100_000
"""Changes by requests between two inputs; what is more is lost, and said to be."""

_STATES: Final = 3


@final
class Step:
    """One input.

    Attributes:
        op: Its name; ``take_outputs``: what came out, with the digest as its argument;
            ``changes``: no input, but what requests did before a state was noted, or what came out
            of a call that is not run again.
        at: Monotonic seconds.
        args: Of the call; keywords last, as a dictionary.
        answers: What it asked of the world, in order: name and answer.
        changes: What requests had done to sessions before it.
        clock: The hybrid clock before it.
        raised: Type of what it raised; empty: nothing.
        events: Of the outputs, in order.
    """

    __slots__ = ("answers", "args", "at", "changes", "clock", "events", "op", "raised")

    def __init__(self, op: str, at: float, args: tuple[Any, ...], clock: int) -> None:
        self.op = op
        self.at = at
        self.args = args
        self.clock = clock
        self.answers: list[tuple[str, Any]] = []
        self.changes: list[tuple[Any, ...]] = []
        self.raised = ""
        self.events: tuple[Event, ...] = ()


@final
class Segment:
    """Some inputs and the state before them.

    Attributes:
        state: Before the first; None: it was too large.
        at: Monotonic seconds.
        wall_ms: The same moment of the wall clock.
        steps: In order.
        bytes: What they are counted for.
    """

    __slots__ = ("at", "bytes", "state", "steps", "wall_ms")

    def __init__(self, state: Frozen | None, at: float, wall_ms: int) -> None:
        self.state = state
        self.at = at
        self.wall_ms = wall_ms
        self.steps: list[Step] = []
        self.bytes = 0


class _NotedTracing:
    """Spans whose bytes are noted: they go out with messages."""

    def __init__(self, ring: Ring, tracing: Tracing) -> None:
        self.begin = ring.asked("trace", tracing.begin)
        self.end = tracing.end


@final
class Ring:
    """Records one core.

    Args:
        config: Its bounds.
        now: Monotonic seconds.
        wall_ms: Wall clock in milliseconds.
        thread: Tells the threads apart.
        crashed: Told, once, when the core raised what it should not have.

    Attributes:
        steps_seen: Inputs since the start.
        too_large: How often the state was not noted, because it had too many bytes.
        changes_lost: Changes by requests that there was no room for.
    """

    def __init__(
        self,
        config: RecorderConfig,
        *,
        now: Callable[[], float],
        wall_ms: Callable[[], int],
        thread: Callable[[], int],
        crashed: Callable[[BaseException], None] = lambda why: None,
    ) -> None:
        self._config = config
        self._now = now
        self._wall_ms = wall_ms
        self._thread = thread
        self.crashed = crashed
        self.steps_seen = 0
        self.too_large = 0
        self.changes_lost = 0
        self.segments: deque[Segment] = deque()
        self._step: Step | None = None
        self._loop = -1
        self._changes: deque[tuple[Any, ...]] = deque()
        self._known: dict[int, str] = {}
        self._originals: dict[int, Any] = {}
        self._kept: list[Any] = []
        self._core: NodeCore | None = None
        self._clock: Clock | None = None
        self._inbox: Inbox | None = None
        self._tables: list[Any] = []
        self._has_crashed = False
        self._begins_anew = True

    # What the core is given.

    def asked(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, whose answers to the core are noted."""

        def ask(*args: Any) -> Any:
            value = call(*args)
            step = self._step
            if step is not None and self._thread() == self._loop:
                step.answers.append((name, value))
            return value

        self._known[id(ask)] = name
        self._kept.append(ask)
        return ask

    def asked_manager(self, make: Callable[[str], DeltaManager]) -> Callable[[str], DeltaManager]:
        """The same factory; what it makes is watched."""

        def make_watched(context: str) -> DeltaManager:
            manager = make(context)
            self.watch(manager)
            return manager

        self._known[id(make_watched)] = "make_manager"
        self._kept.append(make_watched)
        return make_watched

    def asked_tracing(self, tracing: Tracing | None) -> Tracing | None:
        """The same, with its spans noted."""
        return None if tracing is None else _NotedTracing(self, tracing)

    def watch(self, manager: DeltaManager) -> None:
        """Note what requests do to a manager's sessions."""
        table = manager.table
        if table.watch is not None:
            return
        context = manager.context

        def changed(*change: Any) -> None:
            if self._step is not None and self._thread() == self._loop:
                # The core's own: it does it again.
                return
            if len(self._changes) >= _CHANGES_MAX:
                self.changes_lost += 1
                return
            self._changes.append((context, *change))

        table.watch = changed
        self._tables.append(table)
        if "take_touches" not in vars(manager):
            take = self.asked(f"touches {context}", manager.take_touches)
            # Requests fill it at any moment: what is taken is noted, not what is in it.
            setattr(manager, "take_touches", take)  # noqa: B010

    def _forget(self, manager: DeltaManager) -> None:
        """Undo `watch`: nobody has this manager's sessions any more."""
        if manager.table not in self._tables:
            return
        self._tables.remove(manager.table)
        manager.table.watch = None
        take = vars(manager).pop("take_touches")
        del self._known[id(take)]
        self._kept.remove(take)

    def record(self, core: NodeCore, clock: Clock, inbox: Inbox) -> None:
        """Note every input of this core from now on."""
        self._core, self._clock, self._inbox = core, clock, inbox
        for name in INPUTS:
            self._put(core, name, self._input(name, getattr(core, name)))
        for name in STRUCTURAL:
            self._put(core, name, self._structural(name, getattr(core, name)))
        self._put(core, "take_outputs", self._outputs(core.take_outputs))

    def start_over(self) -> None:
        """In a forked process: what was recorded is its parent's, and so is the core."""
        self.segments.clear()
        self._changes.clear()
        self._tables.clear()
        self._core = None
        self._step = None
        self._begins_anew = True

    def _put(self, core: NodeCore, name: str, call: Callable[..., Any]) -> None:
        # Methods of the class have no place in the object before.
        self._originals[id(call)] = vars(core).get(name, OMITTED)
        self._kept.append(call)
        setattr(core, name, call)

    # The seam.

    def _input(self, op: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def enter(*args: Any, **keywords: Any) -> Any:
            if self._step is not None:
                return call(*args, **keywords)
            step = self._begin(op, (*noted(args), keywords) if keywords else noted(args))
            try:
                return call(*args, **keywords)
            except Exception as why:
                step.raised = type(why).__name__
                if not isinstance(why, TribesError):
                    self._crash(why)
                raise
            finally:
                self._step = None

        return enter

    def _structural(self, op: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def enter(*args: Any, **keywords: Any) -> Any:
            self._begins_anew = True
            if op == "open_map":
                self.watch(args[0])
            try:
                return call(*args, **keywords)
            finally:
                if op == "close_map":
                    self._forget(args[0])

        return enter

    def _outputs(self, call: Callable[[], list[Any]]) -> Callable[[], list[Any]]:
        def take() -> list[Any]:
            outputs = call()
            if outputs and self._step is None:
                if self._begins_anew:
                    # What a structural call gave, which is not run again.
                    step = self._begin("changes", ())
                else:
                    step = self._begin("take_outputs", (digest_of(outputs),))
                self._step = None
                step.events = tuple(each for each in outputs if isinstance(each, Event))
            return outputs

        return take

    def _begin(self, op: str, args: tuple[Any, ...]) -> Step:
        now = self._now()
        segments = self.segments
        is_over = (
            self._begins_anew
            or segments[-1].bytes * _STATES > self._config.max_bytes
            or now - segments[-1].at >= self._config.seconds / 2
        )
        # Outputs that wait belong to what was noted before them.
        if is_over and (op != "take_outputs" or not segments):
            self._open(now)
        assert self._clock is not None
        step = Step(op, now, args, self._clock.last)
        segment = segments[-1]
        while self._changes:
            change = self._changes.popleft()
            step.changes.append(change)
            segment.bytes += 200 + (len(change[3]) if len(change) > 3 else 0)
        segment.steps.append(step)
        segment.bytes += timed(args)
        self.steps_seen += 1
        self._loop = self._thread()
        self._step = step
        return step

    def _open(self, now: float) -> None:
        self._begins_anew = False
        limit = self._config.max_bytes // _STATES
        state: Frozen | None = None
        if sum(table.bytes for table in self._tables) <= limit:
            self._close(now)
            # What requests do from here on may be in the state already: done again it is the same.
            state = freeze(
                {"core": self._core, "clock": self._clock, "inbox": self._inbox},
                known=lambda value: self._known.get(id(value)),
                original=lambda value: self._originals.get(id(value), value),
            )
        if state is None:
            self.too_large += 1
        self.segments.append(Segment(state, now, self._wall_ms()))
        segments = self.segments
        back = now - self._config.seconds
        while len(segments) > 1 and (
            segments[1].at <= back
            or sum(each.bytes for each in segments) * _STATES > 2 * self._config.max_bytes
        ):
            segments.popleft()

    def _close(self, now: float) -> None:
        """Note what requests did since the last input: the next state has it."""
        if self.segments and self._changes and self._clock is not None:
            step = Step("changes", now, (), self._clock.last)
            while self._changes:
                step.changes.append(self._changes.popleft())
            self.segments[-1].steps.append(step)

    def mark(self) -> None:
        """Note the state now, in the core's thread: what was run up to here is compared with it."""
        if self._core is not None and self._step is None:
            self._open(self._now())

    def _crash(self, why: BaseException) -> None:
        if not self._has_crashed:
            self._has_crashed = True
            self.crashed(why)
