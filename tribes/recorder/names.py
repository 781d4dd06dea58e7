"""What of a core's state can be named in a recording: classes, functions and module constants.

Only what the deterministic core is made of has a name here. None of it does I/O, reads a clock or
starts anything (the import contracts say so), so the most that a made-up recording can have called
is arithmetic on its own data.
"""

from __future__ import annotations

import builtins
import importlib
import sys
from collections.abc import Iterator
from functools import cache, lru_cache
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

from tribes.errors import RecordingError

__all__ = [
    "code_of",
    "constant",
    "constants",
    "is_core",
    "name_is_alias",
    "name_of",
    "named",
    "place_of",
]

_CORE: Final = (
    *("node", "gauges", "timers", "ids", "errors", "wire", "config", "security", "membership"),
    *("links", "channel", "interceptors", "rpc", "manager", "maps"),
)
_PLAIN: Final = (bool, int, float, str, bytes, type(None))


def is_core(module: str) -> bool:
    """Tell whether a module is part of the deterministic core."""
    top, _, rest = module.partition(".")
    return top == "tribes" and rest.split(".", 1)[0] in _CORE


def name_of(value: Any) -> tuple[str, str] | None:
    """Return module and qualified name of a core's class or function; None: it has none."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not (isinstance(module, str) and isinstance(name, str)):
        return None
    if value in (bytes, bytearray, memoryview):
        return (module, name)
    if not is_core(module):
        return None
    try:
        found = named(module, name)
    except RecordingError:
        return None
    return (module, name) if found is value else None


def named(module: str, name: str) -> Any:
    """Return the class or function of that name.

    Raises:
        RecordingError: There is none in the core.
    """
    if module == "builtins":
        found = getattr(builtins, name, None)
        if found in (bytes, bytearray, memoryview):
            return found
        if isinstance(found, type) and issubclass(found, BaseException):
            return found
        raise RecordingError(f"{name!r} is no built-in exception")
    if not is_core(module):
        raise RecordingError(f"{module!r} is not part of the core")
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = vars(found)[part]
    except (ImportError, KeyError, TypeError, ValueError):
        raise RecordingError(f"this release has no {module}.{name}") from None
    if isinstance(found, staticmethod | classmethod):
        found = found.__func__
    if isinstance(found, FunctionType) and module.startswith("tribes.config"):
        # These read files.
        raise RecordingError(f"{module}.{name} is not part of the core")
    if not isinstance(found, type | FunctionType):
        raise RecordingError(f"{module}.{name} is neither class nor function")
    if found.__module__ == module or name_is_alias(found):
        return found
    raise RecordingError(f"{module}.{name} is not of that module")


def name_is_alias(found: Any) -> bool:
    """Whether what a module has under a name is the core's own, imported there."""
    return is_core(getattr(found, "__module__", ""))


@cache
def _codes(module: str) -> dict[tuple[str, int], CodeType]:
    """Every code object of a module, by qualified name and its number among equal ones."""
    if not is_core(module):
        raise RecordingError(f"{module!r} is not part of the core")
    try:
        loaded = importlib.import_module(module)
    except ImportError:
        raise RecordingError(f"this release has no {module}") from None
    found: dict[tuple[str, int], CodeType] = {}
    counts: dict[str, int] = {}
    for top in _functions(loaded, module):
        todo = [top.__code__]
        while todo:
            code = todo.pop()
            number = counts[code.co_qualname] = counts.get(code.co_qualname, -1) + 1
            found[code.co_qualname, number] = code
            todo += [each for each in reversed(code.co_consts) if isinstance(each, CodeType)]
    return found


def _functions(holder: ModuleType | type, module: str) -> Iterator[FunctionType]:
    seen: set[int] = set()
    todo: list[Any] = [holder]
    while todo:
        for value in vars(todo.pop(0)).values():
            if isinstance(value, property):
                todo_functions = [value.fget, value.fset]
            elif isinstance(value, staticmethod | classmethod):
                todo_functions = [value.__func__]
            else:
                todo_functions = [value]
            for each in todo_functions:
                if id(each) in seen or getattr(each, "__module__", None) != module:
                    continue
                seen.add(id(each))
                if isinstance(each, FunctionType):
                    yield each
                    # What stands for an argument that is not given is no constant of the code.
                    todo_defaults = (
                        *(each.__defaults__ or ()),
                        *(each.__kwdefaults__ or {}).values(),
                    )
                    yield from (d for d in todo_defaults if isinstance(d, FunctionType))
                elif isinstance(each, type):
                    todo.append(each)


@cache
def _numbers(module: str) -> dict[CodeType, tuple[str, int]]:
    # Code objects that compare equal are the same instructions: either one will do.
    return {code: place for place, code in _codes(module).items()}


def place_of(function: FunctionType) -> tuple[str, str, int] | None:
    """Return where the code of a function within a function is written; None: not in the core."""
    if not is_core(function.__module__ or ""):
        return None
    place = _numbers(function.__module__).get(function.__code__)
    return None if place is None else (function.__module__, *place)


def code_of(module: str, name: str, number: int) -> tuple[CodeType, dict[str, Any]]:
    """Return the code that `place_of` named, with the names that it sees.

    Raises:
        RecordingError: This release has none there.
    """
    code = None if module.startswith("tribes.config") else _codes(module).get((name, number))
    if code is None:
        raise RecordingError(f"this release has no {module}.{name}")
    return code, vars(sys.modules[module])


def constants() -> dict[int, tuple[str, str]]:
    """Objects that exist once, as constants of the core's modules, by identity.

    What is compared by ``is`` must stay the very object.
    """
    # Modules are loaded when something first needs them; to look through all takes 20 ms.
    return _constants(len(sys.modules))


@lru_cache(1)
def _constants(_modules: int) -> dict[int, tuple[str, str]]:
    found: dict[int, tuple[str, str]] = {}
    for module, loaded in list(sys.modules.items()):
        if not is_core(module):
            continue
        for name, value in list(vars(loaded).items()):
            if not _is_constant(name, value):
                continue
            found.setdefault(id(value), (module, name))
    return found


def constant(module: str, name: str) -> Any:
    """Return such an object.

    Raises:
        RecordingError: This release has none.
    """
    if not is_core(module):
        raise RecordingError(f"{module!r} is not part of the core")
    try:
        value = vars(importlib.import_module(module))[name]
    except (ImportError, KeyError):
        raise RecordingError(f"this release has no {module}.{name}") from None
    if not _is_constant(name, value):
        raise RecordingError(f"{module}.{name} is no constant")
    return value


def _is_constant(name: str, value: Any) -> bool:
    # Nothing that could be called, and no module with more of them.
    return not (
        name.startswith("__")
        or isinstance(value, (*_PLAIN, type, ModuleType))
        or (callable(value) and not is_core(type(value).__module__))
    )
