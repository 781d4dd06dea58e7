"""A core's state as plain data, at one moment.

A ring of inputs alone could only be run from the node's start. So the recorder notes the whole
state of the core now and then, and a recording begins with one such state. The core is plain Python
objects that refer to each other, its timers among them; each becomes one row ``(kind, ...)``, and a
reference is the row's number in a list of one. Text, bytes and numbers stand where they are and are
shared with the running core: they never change, so the state costs its structure, not its content.

What is not of the core (locks, callbacks of the application, what waits for a commit) is noted by
its type only, and does nothing when the state is used again. No secret is treated otherwise here:
who writes the rows to a file decides what may be in it.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import Enum
from functools import partial
from types import BuiltinMethodType, CellType, FunctionType, MethodType
from typing import Any, Final

import msgspec

from tribes.manager.table import SessionTable
from tribes.recorder.names import constants, is_core, name_of, place_of

__all__ = ["OMITTED", "Frozen", "freeze", "slots_of"]

OMITTED: Final = object()
"""What stood nowhere before the recorder put something there."""
_INT_MAX: Final = 2**63
_MAPPINGS: Final = {dict: "dict", OrderedDict: "ordered", Counter: "counter"}
_TEXTS: Final = {str, bytes}
_HOLDERS: Final = (dict, list, deque, set, bytearray)


class Frozen:
    """A state.

    Attributes:
        rows: One for each object; a reference ``[n]`` means the n-th.
        roots: The references that were asked for, by name.
        bytes: Content of all texts and bytes, each counted once for each place it stands in.
        externals: Types that are noted only, with how many objects of each.
    """

    __slots__ = ("bytes", "externals", "roots", "rows")

    def __init__(self) -> None:
        self.rows: list[list[Any]] = []
        self.roots: dict[str, Any] = {}
        self.bytes = 0
        self.externals: dict[str, int] = {}


def slots_of(cls: type) -> list[str]:
    """Return the names of all slots of a class and its bases."""
    found: list[str] = []
    for each in cls.__mro__:
        own = each.__dict__.get("__slots__", ())
        found += [own] if isinstance(own, str) else own
    return [
        f"_{cls.__name__.lstrip('_')}{name}"
        if name.startswith("__") and not name.endswith("__")
        else name
        for name in found
        if name not in ("__dict__", "__weakref__")
    ]


def freeze(
    roots: Mapping[str, Any],
    *,
    known: Callable[[Any], str | None] = lambda value: None,
    original: Callable[[Any], Any] = lambda value: value,
) -> Frozen:
    """Note the state of everything that can be reached from some objects.

    Args:
        roots: Where to begin.
        known: Names what is given to the state again when it is used: clocks, chance.
        original: Gives what stood in a place before the recorder put something of its own there.
    """
    walk = _Walk(known, original)
    for name, value in roots.items():
        walk.found.roots[name] = walk.reference(value)
    walk.finish()
    return walk.found


class _Walk:
    def __init__(self, known: Callable[[Any], str | None], original: Callable[[Any], Any]) -> None:
        self.found = Frozen()
        self._known = known
        self._original = original
        self._numbers: dict[int, int] = {}
        self._keep: list[Any] = []
        self._todo: deque[tuple[int, Any]] = deque()
        self._constants = constants()

    def reference(self, value: Any) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is float:
            return value
        if kind is bytes or kind is str:
            self.found.bytes += len(value)
            return value
        if kind is int and -_INT_MAX <= value < _INT_MAX:
            return value
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self.found.rows)
            self._keep.append(value)
            self.found.rows.append([])
            self._todo.append((number, value))
        return [number]

    def finish(self) -> None:
        while self._todo:
            number, value = self._todo.popleft()
            self.found.rows[number] = self._row(value)

    def _all(self, values: Sequence[Any]) -> list[Any]:
        kinds = set(map(type, values))
        if kinds <= _TEXTS:
            # The sessions are here: this is what a state costs.
            self.found.bytes += sum(map(len, values))
            return values if type(values) is list else list(values)
        reference = self.reference
        return [reference(each) for each in values]

    def _pairs(self, value: dict[Any, Any]) -> list[Any]:
        # A copy first: other threads may write to a few of them.
        flat: list[Any] = []
        for pair in value.copy().items():
            flat += pair
        return self._all(flat)

    def _row(self, value: Any) -> list[Any]:
        kind = type(value)
        if (name := self._known(value)) is not None:
            return ["known", name]
        if (place := self._constants.get(id(value))) is not None:
            return ["constant", *place]
        plain = self._plain(kind, value)
        if plain is not None:
            return plain
        if isinstance(value, type):
            named = name_of(value)
            return self._external(value) if named is None else ["class", *named]
        callable_row = self._callable(value)
        if callable_row is not None:
            return callable_row
        if isinstance(value, Enum):
            named = name_of(kind)
            return self._external(value) if named is None else ["enum", *named, value.value]
        return self._object(kind, value)

    def _plain(self, kind: type, value: Any) -> list[Any] | None:
        if kind in _MAPPINGS:
            return [_MAPPINGS[kind], *self._pairs(value)]
        if kind is list:
            return ["list", *self._all(list(value))]
        if kind is tuple:
            return ["tuple", *self._all(value)]
        if kind is set or kind is frozenset:
            return ["set" if kind is set else "frozenset", *self._all(list(value))]
        if kind is deque:
            return ["deque", value.maxlen, *self._all(list(value))]
        if kind is bytearray or kind is memoryview:
            return ["bytearray" if kind is bytearray else "view", bytes(value)]
        if kind is int:
            return ["int", str(value)]
        return None

    def _callable(self, value: Any) -> list[Any] | None:
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, MethodType):
            function = value.__func__
            if isinstance(function, FunctionType) and is_core(function.__module__ or ""):
                return ["method", self.reference(value.__self__), self.reference(function)]
            return self._external(value)
        if isinstance(value, BuiltinMethodType):
            if isinstance(value.__self__, _HOLDERS):
                return ["builtin", self.reference(value.__self__), value.__name__]
            return self._external(value)
        if isinstance(value, partial):
            return [
                "partial",
                self.reference(value.func),
                self.reference(value.args),
                *self._pairs(value.keywords),
            ]
        if isinstance(value, CellType):
            try:
                return ["cell", self.reference(value.cell_contents)]
            except ValueError:
                return ["cell"]
        return None

    def _function(self, value: FunctionType) -> list[Any]:
        named = name_of(value)
        if named is not None:
            return ["function", *named]
        place = place_of(value)
        if place is None:
            return self._external(value)
        return [
            "closure",
            *place,
            self.reference(value.__closure__),
            self.reference(value.__defaults__),
            self.reference(value.__kwdefaults__),
        ]

    def _object(self, kind: type, value: Any) -> list[Any]:
        if isinstance(value, BaseException):
            return self._exception(kind, value)
        named = name_of(kind)
        if named is None:
            return self._external(value)
        if isinstance(value, tuple):
            return ["record", *named, *self._all(value)]
        # A value with a class of its own, like a set of flags.
        if isinstance(value, int):
            return ["value", *named, self.reference(int(value))]
        if isinstance(value, str | bytes):
            plain = str.__str__(value) if isinstance(value, str) else bytes(value)
            return ["value", *named, self.reference(plain)]
        lock: AbstractContextManager[Any] = nullcontext()
        if isinstance(value, SessionTable):
            lock = value.lock
        with lock:
            state = self._state(kind, value)
        return ["struct" if isinstance(value, msgspec.Struct) else "object", *named, *state]

    def _state(self, kind: type, value: Any) -> list[Any]:
        names: list[str] = list(
            value.__struct_fields__ if isinstance(value, msgspec.Struct) else slots_of(kind)
        )
        names += getattr(value, "__dict__", ())
        state: list[Any] = []
        for name in names:
            try:
                held = self._original(getattr(value, name))
            except AttributeError:
                # A slot that has not been set.
                continue
            if held is not OMITTED:
                state += (name, self.reference(held))
        return state

    def _exception(self, kind: type, value: BaseException) -> list[Any]:
        named = ("builtins", kind.__name__) if kind.__module__ == "builtins" else name_of(kind)
        if named is None:
            named = ("builtins", "OSError" if isinstance(value, OSError) else "Exception")
        return ["error", *named, self.reference(value.args), *self._state(kind, value)]

    def _external(self, value: Any) -> list[Any]:
        kind = type(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        if isinstance(value, FunctionType | MethodType | BuiltinMethodType | type):
            name = f"{value.__module__}.{value.__qualname__}"
        self.found.externals[name] = self.found.externals.get(name, 0) + 1
        return ["external", name]
