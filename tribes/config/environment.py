"""Settings from environment variables: ``TRIBES_CHANNEL__RECEIVER__PORT=4001``.

The name is ``TRIBES_`` and the path of the key in capitals, with two underscores for each dot. The
value is text, as it would stand in TOML without quotes: a number, ``true`` or ``false``, a text, or
for lists texts with commas between them. Lists of tables, and whole tables, are JSON. A context's
name has ``_`` for all but letters and digits: ``TRIBES_CONTEXT__MY_SHOP__MANAGER__KIND=backup``.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec

from tribes.config.managers import AnyManager, ManagerConfig
from tribes.config.model import NodeConfig
from tribes.config.options import parse_send_options
from tribes.errors import ConfigError

__all__ = ["PREFIX", "Override", "apply_overrides", "overrides"]

PREFIX: Final = "TRIBES_"
_BETWEEN: Final = "__"
_MISSPELT: Final = 0.9
"""How like a setting's name another one is that means it."""

_NOT_PLAIN: Final = re.compile(r"[^a-z0-9]")


@dataclass(frozen=True, slots=True)
class Override:
    """One setting from the environment.

    Attributes:
        variable: Its name there.
        path: The key's path.
        value: What it is set to.
    """

    variable: str
    path: tuple[str, ...]
    value: Any = field(repr=False)  # it may be a key

    @property
    def key(self) -> str:
        """The key as people write it."""
        return ".".join(self.path)


def overrides(environ: Mapping[str, str]) -> Iterator[Override]:
    """The settings among environment variables, by their names in alphabetical order.

    A variable without ``__`` is taken for another program's, unless it looks like a setting,
    perhaps with a single underscore for a dot.

    Raises:
        ConfigError: A name is no setting, or its value cannot be one.
    """
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable == PREFIX:
            continue
        path = tuple(variable.removeprefix(PREFIX).lower().split(_BETWEEN))
        if len(path) == 1 and not (_near(path[0], NodeConfig.__struct_fields__) or _meant(path)):
            continue
        hint = _hint(variable, path)
        yield Override(variable, path, _value(variable, ".".join(path), environ[variable], hint))


def apply_overrides(tables: dict[str, Any], found: Mapping[str, str]) -> list[Override]:
    """Put the settings of environment variables into tables, over what is there.

    Args:
        tables: As of TOML, with our names; changed.
        found: The environment.

    Raises:
        ConfigError: As `overrides`.
    """
    done = list(overrides(found))
    for each in done:
        table = tables
        path = _with_name(each.path, tables)
        for depth, part in enumerate(path[:-1], 1):
            inner = table.get(part, {})
            if not isinstance(inner, Mapping):
                raise ConfigError(
                    f"must be a table, in which {each.variable} sets something; found "
                    f"{type(inner).__name__}",
                    key=".".join(path[:depth]),
                )
            table[part] = dict(inner)
            table = table[part]
        table[path[-1]] = each.value
    return done


def _with_name(path: tuple[str, ...], tables: Mapping[str, Any]) -> tuple[str, ...]:
    """The path, with a context's name as it is known: variables have capitals and ``_`` only."""
    if path[0] != "context" or len(path) == 1:
        return path
    contexts, names = tables.get("context"), tables.get("contexts")
    known = [*contexts] if isinstance(contexts, Mapping) else []
    if isinstance(names, list | tuple):
        known += [each for each in names if isinstance(each, str)]
    name = next((each for each in known if _NOT_PLAIN.sub("_", each.lower()) == path[1]), path[1])
    return ("context", name, *path[2:])


def _near(name: str, known: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name, list(known), 1)


def _meant(path: tuple[str, ...]) -> str:
    """The setting that was named with one underscore for a dot, perhaps misspelt; empty: none."""
    known = _plain_names()
    found = difflib.get_close_matches("_".join(path), known, 1, _MISSPELT)
    return _variable(known[found[0]]) if found else ""


@cache
def _plain_names() -> dict[str, tuple[str, ...]]:
    return {"_".join(path): path for path in _paths(NodeConfig, ())}


def _paths(kind: Any, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, hint in _hints(kind).items():
        yield (path := (*above, name))
        if _is_table(inner := _without_none(hint)):
            yield from _paths(inner, path)


def _hint(variable: str, path: tuple[str, ...]) -> Any:
    kind: Any = NodeConfig
    for index, part in enumerate(path):
        if get_origin(kind) is Mapping:
            # Tables by names that people chose.
            kind = _without_none(get_args(kind)[1])
            continue
        if not _is_table(kind):
            above = _variable(path[:index])
            raise ConfigError(f"{above} is no table; nothing can be in it", source=variable)
        hints = _hints(kind)
        if part not in hints:
            near = _near(part, hints)
            here = [_variable((*path[:index], name)) for name in (near or sorted(hints))]
            meant = _meant(path) or (here[0] if near else "")
            raise ConfigError(
                f"is no setting; is {meant} meant?"
                if meant
                else f"is no setting; there are {', '.join(here)}",
                source=variable,
            )
        kind = _without_none(hints[part])
    return kind


def _hints(kind: Any) -> dict[str, Any]:
    """What can be in a table; in a manager's, what any kind of manager has."""
    if kind is AnyManager:
        names = {
            name: hint for each in get_args(kind) for name, hint in get_type_hints(each).items()
        }
        return {"kind": str, **names}
    return get_type_hints(kind)


def _without_none(hint: Any) -> Any:
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    if ManagerConfig in get_args(hint):
        return AnyManager
    return next(each for each in get_args(hint) if each is not type(None))


def _is_table(hint: Any) -> bool:
    return hint is AnyManager or (isinstance(hint, type) and issubclass(hint, msgspec.Struct))


def _variable(path: tuple[str, ...]) -> str:
    return PREFIX + _BETWEEN.join(path).upper()


def _value(variable: str, key: str, text: str, hint: Any) -> Any:
    if key.endswith(("manager.channel_send_options", "manager.map_send_options")):
        try:
            return parse_send_options(text)
        except ConfigError as why:
            raise ConfigError(why.message, key=key, source=variable) from None
    is_list = get_origin(hint) is tuple
    is_table = _is_table(hint) or get_origin(hint) is Mapping
    try:
        if is_table or (is_list and text.lstrip().startswith("[")):
            return msgspec.json.decode(text)
        if is_list:
            return [part.strip() for part in text.split(",") if part.strip()]
        if hint is bytes:
            return text
        return msgspec.convert(text, hint, strict=False)
    except RecursionError:
        raise ConfigError("is nested too deeply", key=key, source=variable) from None
    except msgspec.MsgspecError as why:
        # A list of anything is one of tables, as those of the interceptors.
        may_hold_keys = is_table or hint == tuple[Any, ...] or "key" in key.rpartition(".")[2]
        shown = "" if may_hold_keys else f"found {text[:80]!r}; "
        raise ConfigError(f"{shown}{why}", key=key, source=variable) from None
