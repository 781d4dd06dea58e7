"""Histories made by hand, for the tests of the checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tribes.testing.history import History, Op
from tribes.testing.invariants import SessionState, Violation, WorldState, check_history

LATE = 100.0
Fill = Callable[[History], None]


def name_of(parameter: object) -> str:
    """The name of a parameter in a test's id."""
    return getattr(parameter, "__name__", str(parameter))


def healthy() -> History:
    """Three nodes that were there from the beginning."""
    history = History()
    for node in ("a#1", "b#1", "c#1"):
        history.fault(0.0, "present", node)
    return history


def do(history: History, kind: str, begin: float, node: str = "a#1", **fields: Any) -> Op:
    """One finished operation; written ones are acknowledged unless ``acked`` says otherwise."""
    acked, client = fields.pop("acked", ()), fields.pop("client", "c0")
    missing, took = fields.pop("missing", {}), fields.pop("took", 0.01)
    op = history.op(client, node, kind, "K", begin, **fields)
    if op.version is not None:
        history.settle(op, acked, missing, begin + took)
    history.finish(op, "failed" if kind == "lost" else "ok", begin + took)
    return op


def say(history: History, option: int, *, end: float | None = 10.4, **fields: Any) -> None:
    """One message of a to b at 10.0, which is sequence 1 unless there were others."""
    send = history.send("a#1", len(history.sends) + 1, ("b#1",), option, 10.0, **fields)
    send.end = end


def judge(
    history: History, state: SessionState | None = None, node: str = "", **settings: Any
) -> list[Violation]:
    """Check a history at whose end one node, if any, holds one session, if any.

    The copies of no node at all were found equal all the time, so that nothing else is missing.
    """
    for second in range(int(LATE)):
        history.equal_copies(second)
    history.copies.sort(key=lambda copies: copies.time)
    held = {} if state is None else {"K": state}
    return check_history(history, WorldState(LATE, {node: held} if node else {}), **settings)


def facts_of(found: list[Violation]) -> list[tuple[str, tuple[str, ...]]]:
    """Names and witnesses."""
    return [(v.invariant, v.witness) for v in found]
