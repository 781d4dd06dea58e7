"""A recording's inputs once more, through the same core, and whether the same comes out.

Each segment begins with its own state, so a difference in one says nothing about the next. Within a
segment the first difference ends it: what follows was recorded of a core in another state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import msgspec

from tribes.channel.outputs import Event
from tribes.config.managers import BackupConfig
from tribes.errors import RecordingError
from tribes.manager.backup import BackupManager
from tribes.manager.clock import Clock
from tribes.manager.delta import DeltaManager
from tribes.manager.rules import Rules
from tribes.manager.table import SessionTable
from tribes.manager.values import ValueCodec
from tribes.node import NodeCore
from tribes.recorder.inputs import INPUTS, batch_of, digest_of, event_fields
from tribes.recorder.thaw import Nothing, thaw

if TYPE_CHECKING:
    from tribes.recorder.file import NotedSegment, Recording

__all__ = ["Difference", "Line", "SegmentResult", "replay", "told"]


class Line(msgspec.Struct, frozen=True):
    """One line of a timeline.

    Attributes:
        wall_ms: When.
        event: What.
        fields: More of it.
    """

    wall_ms: float
    event: str
    fields: dict[str, Any]


class Difference(msgspec.Struct, frozen=True):
    """Where a run left the recording.

    Attributes:
        step: Its number in the segment, from 0.
        op: The input.
        wall_ms: When it came.
        why: What is different.
    """

    step: int
    op: str
    wall_ms: float
    why: str


class SegmentResult(msgspec.Struct):
    """What became of a segment.

    Attributes:
        steps: How many there are.
        run: How many were run.
        outputs: Outputs that were compared.
        ran: Whether there was a state to begin with.
        difference: None: all outputs were equal, as far as it ran.
        lines: Its timeline: of the run as far as it was equal, and from there as recorded.
    """

    steps: int
    run: int = 0
    outputs: int = 0
    ran: bool = False
    difference: Difference | None = None
    lines: list[Line] = []


class _OtherAnswerError(Exception):
    """The core asked something else than what was recorded."""


class _World:
    """What the core asks: it gets the recorded answers, in their order."""

    def __init__(self) -> None:
        self.answers: deque[tuple[str, Any]] = deque()

    def ask(self, name: str) -> Callable[..., Any]:
        """What answers questions of that name."""

        def answer(*_args: Any) -> Any:
            if not self.answers:
                raise _OtherAnswerError(f"it asks for {name!r}, and nothing more was asked")
            asked, value = self.answers.popleft()
            if asked != name:
                raise _OtherAnswerError(f"it asks for {name!r}, recorded is {asked!r}")
            return value

        return answer


def replay(recording: Recording) -> Iterator[SegmentResult]:
    """Run a recording.

    Raises:
        RecordingError: Its state is not of this release, or is damaged.
    """
    try:
        yield from _replay(recording)
    except RecordingError:
        raise
    except Exception as why:
        raise RecordingError(f"it is damaged: {type(why).__name__}: {why}") from why


def _replay(recording: Recording) -> Iterator[SegmentResult]:
    before: tuple[NodeCore, SegmentResult] | None = None
    for segment in recording.segments:
        if recording.is_redacted or not segment.roots.keys() >= {"core", "clock"}:
            if before is not None:
                yield before[1]
                before = None
            yield told(segment)
            continue
        ready = _Ready(segment)
        if before is not None:
            _compare(*before, ready)
            yield before[1]
        before = ready.core, ready.run()
    if before is not None:
        yield before[1]


def told(segment: NotedSegment) -> SegmentResult:
    """The timeline of a segment as it was recorded, without running it."""
    steps = _steps(segment)
    found = SegmentResult(len(steps), lines=[])
    for step in steps:
        _tell(segment, step, found)
    return found


def _tell(segment: NotedSegment, step: list[Any], found: SegmentResult) -> None:
    wall_ms = _wall_ms(segment, step[1])
    for name, fields in step[7]:
        found.lines.append(Line(wall_ms, str(name), dict(fields)))


def _wall_ms(segment: NotedSegment, at: float) -> float:
    return segment.wall_ms + (float(at) - segment.at) * 1000


def _steps(segment: NotedSegment) -> list[list[Any]]:
    if "steps" not in segment.roots:
        return [
            [*(s.op, s.at, s.args, s.answers, s.changes, s.clock, s.raised), s.events]
            for s in segment.steps
        ]
    # Only the steps: the state may be there, and not be wanted.
    steps = thaw(segment.rows, _known(segment.rows, _World(), {}))(segment.roots["steps"])
    return _checked(steps)


def _checked(steps: Any) -> list[list[Any]]:
    if not isinstance(steps, list) or not all(
        isinstance(each, list) and len(each) == 8 for each in steps
    ):
        raise RecordingError("its steps are damaged")
    return steps


def _known(rows: list[Any], world: _World, more: dict[str, Any]) -> dict[str, Any]:
    names = {row[1] for row in rows if len(row) == 2 and row[0] == "known"}
    return {name: world.ask(str(name)) for name in names if isinstance(name, str)} | more


class _Ready:
    """A segment's core in the state in which the segment begins."""

    def __init__(self, segment: NotedSegment) -> None:
        self.segment = segment
        self.world = world = _World()
        makers: list[_Managers] = []

        def make(context: str) -> DeltaManager:
            return makers[0].make(context)

        of = thaw(segment.rows, _known(segment.rows, world, {"make_manager": make}))
        self.core, self.clock = of(segment.roots["core"]), of(segment.roots["clock"])
        if not isinstance(self.core, NodeCore) or not isinstance(self.clock, Clock):
            raise RecordingError("its state is that of no node")
        makers.append(_Managers(self.core, self.clock, of(segment.roots.get("inbox")), world))
        self.steps = _checked(of(segment.roots["steps"]))

    def run(self) -> SegmentResult:
        """Run all steps, up to the first difference."""
        segment, steps = self.segment, self.steps
        found = SegmentResult(len(steps), ran=True, lines=[])
        for number, step in enumerate(steps):
            why = _difference(self.core, self.clock, self.world, step, found)
            found.run = number + 1
            if why:
                found.difference = Difference(number, str(step[0]), _wall_ms(segment, step[1]), why)
                break
            _tell(segment, step, found)
        for step in steps[found.run - 1 if found.difference else len(steps) :]:
            _tell(segment, step, found)
        return found


def _compare(core: NodeCore, found: SegmentResult, following: _Ready) -> None:
    """Compare the sessions at the end of a run with those in the state that was noted then."""
    if found.difference is not None:
        return
    # What requests did while the state was noted may be in it.
    late = {(change[0], change[2]) for step in following.steps[:1] for change in step[4]}
    for context, replicator in following.core.sessions.replicators.items():
        mine = core.sessions.replicators.get(context)
        noted = dict(_records(replicator))
        run = {} if mine is None else dict(_records(mine))
        keys = [key for key in {**noted, **run} if (context, key) not in late]
        wrong = [key for key in keys if noted.get(key) != run.get(key)]
        if wrong:
            found.difference = Difference(
                found.steps,
                "state",
                float(following.segment.wall_ms),
                f"{len(wrong)} of {len(keys)} sessions of {context!r} are others than were noted",
            )
            return


def _records(replicator: Any) -> Iterator[tuple[str, Any]]:
    table = replicator.manager.table
    for key in table.keys():  # noqa: SIM118 - a method of the table, which is no dict
        yield key, table.get(key)


def _difference(
    core: NodeCore, clock: Any, world: _World, step: list[Any], found: SegmentResult
) -> str:
    """Run one step; returns what is different, or nothing."""
    op, _, args, answers, changes, last, raised, events = step
    for context, change, key, *rest in changes:
        replicator = core.sessions.replicators.get(context)
        if replicator is not None:
            replicator.manager.table.repeat(change, key, *rest)
    clock._last = last
    if op == "changes":
        return ""
    world.answers.clear()
    world.answers.extend(answers)
    if op == "take_outputs":
        outputs = core.take_outputs()
        found.outputs += len(outputs)
        if digest_of(outputs) == args[0]:
            return ""
        mine = [[e.name, event_fields(e)] for e in outputs if isinstance(e, Event)]
        return _how(mine, events, outputs)
    if op not in INPUTS:
        raise RecordingError(f"there is no input {op!r}")
    try:
        _call(core, op, args)
    except _OtherAnswerError as why:
        return str(why)
    except Exception as why:  # noqa: BLE001 - what the core raised then is in the recording
        if type(why).__name__ != raised:
            return f"it raises {type(why).__name__}: {why}; recorded is {raised or 'nothing'}"
        return ""
    if raised:
        return f"it raises nothing; recorded is {raised}"
    if world.answers:
        return f"it does not ask for {world.answers[0][0]!r}, which it did then"
    return ""


def _call(core: NodeCore, op: str, args: tuple[Any, ...]) -> None:
    if op == "commits":
        args = batch_of(args, Nothing("waiter"))
    if args and isinstance(args[-1], dict):
        getattr(core, op)(*args[:-1], **args[-1])
    else:
        getattr(core, op)(*args)


def _how(mine: list[Any], events: list[Any], outputs: list[Any]) -> str:
    if mine != [[name, dict(fields)] for name, fields in events]:
        said = ", ".join(name for name, _ in mine) or "no event"
        was = ", ".join(str(name) for name, _ in events) or "none"
        return f"its events differ: {said}; recorded: {was}"
    kinds = ", ".join(type(each).__name__ for each in outputs[:20]) or "nothing"
    return f"its outputs differ: it gives {kinds}"


class _Managers:
    """Makes the managers of contexts that appeared during the recording."""

    def __init__(self, core: NodeCore, clock: Any, inbox: Any, world: _World) -> None:
        self._core = core
        self._clock = clock
        self._inbox = inbox
        self._world = world

    def make(self, context: str) -> DeltaManager:
        """As the recorded process made it."""
        config = self._core.config.replicated_manager_of(context)
        kind = BackupManager if isinstance(config, BackupConfig) else DeltaManager
        manager = kind(
            context,
            SessionTable(nullcontext(), self._inbox, max_inactive_s=config.max_inactive_s),
            self._clock,
            inbox=self._inbox,
            codec=ValueCodec(),
            entropy=self._world.ask("entropy"),
            monotonic=self._world.ask("monotonic"),
            max_inactive_s=config.max_inactive_s,
            session_id_length=config.session_id_length,
            max_active_sessions=config.max_active_sessions,
            rules=Rules.of(config),
        )
        take = self._world.ask(f"touches {context}")
        setattr(manager, "take_touches", take)  # noqa: B010
        return manager
