"""What a deliberately broken build is, and the list of all of them.

Each mutant replaces a few functions of the product while a plan runs, and says at which faults the
plans should aim, or gives the plans. One that may survive says why; that is a gap of the checkers,
or no fault at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from tribes.testing.plan import Plan

__all__ = [
    "BUSY",
    "CLOG",
    "CRASH",
    "LINKS",
    "LOSS",
    "MESSAGES",
    "MUTANTS",
    "SHORT_IDLE",
    "SPLIT",
    "STALL",
    "Mutant",
    "Patch",
    "add",
    "every",
    "nothing",
]

Patch = tuple[Any, str, Any]
"""A class or module, the name in it, and what stands there instead."""


@dataclass(frozen=True)
class Mutant:
    """One broken build.

    Attributes:
        name: Short and unique.
        text: What is wrong, in a sentence.
        patches: What is replaced.
        faults: Actions to draw plans from; repeated names come more often.
        options: Send options of the managers, one plan after the other; empty: as drawn.
        changes: Fields that every plan gets.
        plan: Gives the plan of a seed instead: for what only one course of things can show.
        test: A test of the suite that must fail, instead of plans: for what needs an attacker.
        stress: Replaced in the sound build too: small queues, so that their bounds are met.
        own: Whether the nodes speak the own link and suspect each other; else neither.
        reason: Why it may survive; empty: it must be caught.
    """

    name: str
    text: str
    patches: tuple[Patch, ...]
    faults: tuple[str, ...] = ()
    options: tuple[int, ...] = ()
    changes: dict[str, Any] = field(default_factory=dict)
    plan: Callable[[int], Plan] | None = None
    test: Callable[[], object] | None = None
    stress: tuple[Patch, ...] = ()
    own: bool = False
    reason: str = ""

    @contextmanager
    def patch(self, *, sound: bool = False) -> Iterator[None]:
        """Break the product; with ``sound`` only make its queues as small as for this mutant."""
        with ExitStack() as stack:
            for owner, name, new in (*self.stress, *(() if sound else self.patches)):
                stack.enter_context(_replaced(owner, name, new))
            yield


@contextmanager
def _replaced(owner: Any, name: str, new: Any) -> Iterator[None]:
    old = vars(owner)[name]
    setattr(owner, name, new)
    try:
        yield
    finally:
        setattr(owner, name, old)


MUTANTS: Final[list[Mutant]] = []


def add(name: str, text: str, *patches: Patch, **settings: Any) -> None:
    """Register a mutant."""
    MUTANTS.append(Mutant(name, text, patches, **settings))


def nothing(*_: Any, **__: Any) -> None:
    """What a mutant does instead of something."""
    return


def every(owner: type, name: str, period: int, instead: Callable[..., Any]) -> Patch:
    """A method that does something else at each ``period``-th call on an object of the class."""
    real = vars(owner)[name]
    counts: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    def method(self: Any, *args: Any, **settings: Any) -> Any:
        calls = counts[self] = counts.get(self, 0) + 1
        return (instead if calls % period == 0 else real)(self, *args, **settings)

    return owner, name, method


LOSS: Final = ("crash", "crash_during_send", "restart", "mass_restart") * 2
CRASH: Final = ("crash",) * 5
LINKS: Final = ("reset", "reset_mid_frame", "half_open") * 3
SPLIT: Final = ("partition", "cut", "flap", "pause") * 2
STALL: Final = ("clog", "pause", "no_tcp") * 2
CLOG: Final = ("clog",) * 10
SHORT_IDLE: Final = {"max_inactive_s": 3}
BUSY: Final = {"clients": 6, "think": 0.05}
MESSAGES: Final = {"messages_per_s": 5.0}
