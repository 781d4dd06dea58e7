"""A core's state from plain data, as `tribes.recorder.freeze` made it.

Rows come from a file and are not trusted: a class is made without its ``__init__``, and only the
core's own (see `tribes.recorder.names`); every row and reference is checked, and whatever else goes
wrong is a `RecordingError`.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any, Final

import msgspec

from tribes.errors import RecordingError
from tribes.recorder.freeze import slots_of
from tribes.recorder.names import code_of, constant, named
from tribes.security.seal import _cipher_of, _Direction

__all__ = ["Nothing", "thaw"]

_FILLED: Final = frozenset(
    {"dict", "ordered", "counter", "list", "deque", "set", "object", "cell", "error"}
)
"""Kinds that exist empty first: what they hold may hold them."""

_BUILTINS: Final[dict[type, set[str]]] = {
    dict: {"get", "pop", "keys", "values", "items", "setdefault", "__contains__", "__getitem__"},
    OrderedDict: {"get", "pop", "__contains__"},
    Counter: {"get", "__contains__"},
    list: {"append", "extend"},
    deque: {"append", "appendleft", "popleft", "extend"},
    set: {"add", "discard", "__contains__"},
    bytearray: {"extend"},
}


class Nothing:
    """What stood here is not of the core: it does nothing, and is not locked.

    Attributes:
        name: Its type, or what it was called.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *args: object) -> None:
        return None

    def __getattr__(self, name: str) -> Nothing:
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing(f"{self.name}.{name}")

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<{self.name}, not recorded>"


def thaw(rows: Sequence[Any], known: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Make the objects of a state.

    Args:
        rows: Of `Frozen.rows`.
        known: What stands for each name that `freeze` was told.

    Returns:
        What gives the object of a reference, or the value itself.

    Raises:
        RecordingError: The rows make no state of this release.
    """
    maker = _Maker(rows, known)
    try:
        maker.make_all()
    except RecordingError:
        raise
    except Exception as why:
        raise RecordingError(f"the state is damaged: {type(why).__name__}: {why}") from why
    return maker.resolve


class _Maker:
    def __init__(self, rows: Sequence[Any], known: Mapping[str, Any]) -> None:
        self._rows = rows
        self._known = known
        self._made: dict[int, Any] = {}

    def resolve(self, value: Any) -> Any:
        """The object of a reference."""
        if type(value) is not list:
            return value
        if len(value) != 1 or type(value[0]) is not int or value[0] not in self._made:
            raise RecordingError("a reference to nothing")
        return self._made[value[0]]

    def make_all(self) -> None:
        rows = self._rows
        for row in rows:
            if not isinstance(row, list) or not row or not isinstance(row[0], str):
                raise RecordingError("a row of the state is no row")
        for number, row in enumerate(rows):
            if row[0] in _FILLED:
                self._made[number] = self._empty(row)
        for number in range(len(rows)):
            self._make(number)
        # Attributes before keys: what is a key is hashed by what it holds.
        for kinds in (("object", "error"), ("cell", "list", "deque"), ("dict", "ordered")):
            for number, row in enumerate(rows):
                if row[0] in kinds:
                    self._fill(self._made[number], row)
        for number, row in enumerate(rows):
            if row[0] in ("set", "counter"):
                self._fill(self._made[number], row)
        for made in self._made.values():
            if type(made) is _Direction:
                made._cipher = _cipher_of(made._key)

    def _empty(self, row: list[Any]) -> Any:
        kind = row[0]
        if kind == "object":
            return self._new(named(row[1], row[2]))
        if kind == "error":
            cls = named(row[1], row[2])
            if not (isinstance(cls, type) and issubclass(cls, BaseException)):
                raise RecordingError(f"{row[2]!r} is no exception")
            return cls.__new__(cls)
        if kind == "deque":
            return deque(maxlen=row[1])
        plain: dict[str, Callable[[], Any]] = {
            "dict": dict,
            "ordered": OrderedDict,
            "counter": Counter,
            "list": list,
            "set": set,
            "cell": CellType,
        }
        return plain[kind]()

    def _new(self, cls: Any) -> Any:
        if not isinstance(cls, type) or issubclass(cls, BaseException | Enum | tuple | int | str):
            raise RecordingError(f"{cls!r} cannot be made so")
        return object.__new__(cls)

    # What cannot change needs its parts first; a cycle always leads through something that can.

    def _make(self, number: int) -> None:
        todo = [number]
        tried: dict[int, int] = {}
        while todo:
            at = todo[-1]
            if at in self._made:
                todo.pop()
                continue
            row = self._rows[at]
            tried[at] = tried.get(at, 0) + 1
            parts = [each[0] for each in row if type(each) is list and each[0] not in self._made]
            if row[0] == "frozenset" and not parts:
                parts = self._fill_members(row)
            if not parts:
                self._made[at] = self._whole(row)
                todo.pop()
            elif tried[at] > 2 or any(not 0 <= part < len(self._rows) for part in parts):
                raise RecordingError("the state refers to itself where it cannot")
            else:
                todo += parts

    def _fill_members(self, row: list[Any]) -> list[int]:
        """Give attributes to what is hashed now; returns the rows that it needs first."""
        needed: list[int] = []
        for reference in row[1:]:
            if type(reference) is list and self._rows[reference[0]][0] == "object":
                member = self._rows[reference[0]]
                missing = [e[0] for e in member[3:] if type(e) is list and e[0] not in self._made]
                needed += missing
                if not missing:
                    self._fill(self._made[reference[0]], member)
        return needed

    def _whole(self, row: list[Any]) -> Any:
        kind, rest = row[0], [self.resolve(each) for each in row[1:]]
        match kind:
            case "tuple":
                return tuple(rest)
            case "frozenset":
                return frozenset(rest)
            case "int":
                return int(rest[0][:400])
            case "bytearray":
                return bytearray(rest[0])
            case "view":
                return memoryview(bytes(rest[0]))
            case "known":
                if rest[0] not in self._known:
                    raise RecordingError(f"{rest[0]!r} is not known here")
                return self._known[rest[0]]
            case "constant":
                return constant(rest[0], rest[1])
            case "class" | "function":
                return named(rest[0], rest[1])
            case "enum":
                return named(rest[0], rest[1])(rest[2])
            case "struct":
                cls = _subclass(named(rest[0], rest[1]), msgspec.Struct)
                return cls(**dict(zip(rest[2::2], rest[3::2], strict=True)))
            case "record":
                return tuple.__new__(_subclass(named(rest[0], rest[1]), tuple), rest[2:])
            case "value":
                cls = named(rest[0], rest[1])
                if issubclass(cls, Enum):
                    return cls(rest[2])
                base = _subclass(cls, (int, str, bytes))
                return base.__new__(base, rest[2])
            case "external":
                return Nothing(str(rest[0])[:200])
            case _:
                return self._callable(kind, rest)

    def _callable(self, kind: str, rest: list[Any]) -> Any:
        match kind:
            case "method":
                if not isinstance(rest[1], FunctionType):
                    raise RecordingError("a method is no function")
                return MethodType(rest[1], rest[0])
            case "builtin":
                if rest[1] not in _BUILTINS.get(type(rest[0]), ()):
                    raise RecordingError(f"{rest[1]!r} is not called in a core")
                return getattr(rest[0], rest[1])
            case "partial":
                if not callable(rest[0]) or len(rest) % 2:
                    raise RecordingError("a partial of nothing")
                return partial(rest[0], *rest[1], **dict(zip(rest[2::2], rest[3::2], strict=True)))
            case "closure":
                code, names = code_of(rest[0], rest[1], rest[2])
                made = FunctionType(code, names, rest[1].rpartition(".")[2], rest[4], rest[3])
                made.__kwdefaults__ = rest[5]
                made.__qualname__, made.__module__ = rest[1], rest[0]
                return made
            case _:
                raise RecordingError(f"a row of the unknown kind {kind!r}")

    def _fill(self, made: Any, row: list[Any]) -> None:
        kind = row[0]
        first = {"object": 3, "error": 4, "deque": 2}.get(kind, 1)
        rest = [self.resolve(each) for each in row[first:]]
        match kind:
            case "object" | "error":
                if kind == "error":
                    made.args = tuple(self.resolve(row[3]))
                _set_all(made, rest)
            case "cell":
                if rest:
                    made.cell_contents = rest[0]
            case "list" | "deque":
                made.extend(rest)
            case "set":
                made.update(rest)
            case _:
                if len(rest) % 2:
                    raise RecordingError("a key without a value")
                made.update(zip(rest[::2], rest[1::2], strict=True))


def _set_all(made: Any, state: list[Any]) -> None:
    cls = type(made)
    allowed = set(slots_of(cls))
    own = getattr(made, "__dict__", None)
    for name, value in zip(state[::2], state[1::2], strict=True):
        if name in allowed:
            object.__setattr__(made, name, value)
        elif own is not None and type(name) is str and not name.startswith("__"):
            own[name] = value
        else:
            raise RecordingError(f"{cls.__qualname__} has no {name!r}")


def _subclass(cls: Any, base: type | tuple[type, ...]) -> Any:
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise RecordingError(f"{cls!r} is of another kind")
    return cls
