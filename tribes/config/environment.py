"""Settings from environment variables: ``TRIBES_CHANNEL__RECEIVER__PORT=4001``.

The name is ``TRIBES_`` and the path of the key in capitals, with two underscores for each dot. The
value is text, as it would stand in TOML without quotes: a number, ``true`` or ``false``, a text, or
for lists texts with commas between them. Lists of tables, and whole tables, are JSON.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec

from tribes.config.model import NodeConfig
from tribes.config.options import parse_send_options
from tribes.errors import ConfigError

__all__ = ["PREFIX", "Override", "apply_overrides", "overrides"]

PREFIX: Final = "TRIBES_"
_BETWEEN: Final = "__"


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

    A variable without ``__`` that looks like no setting is taken for another program's.

    Raises:
        ConfigError: A name is no setting, or its value cannot be one.
    """
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable == PREFIX:
            continue
        path = tuple(variable.removeprefix(PREFIX).lower().split(_BETWEEN))
        if len(path) == 1 and not _near(path[0], NodeConfig):
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
        for part in each.path[:-1]:
            inner = table.get(part)
            table[part] = dict(inner) if isinstance(inner, Mapping) else {}
            table = table[part]
        table[each.path[-1]] = each.value
    return done


def _near(name: str, kind: type[msgspec.Struct]) -> list[str]:
    return difflib.get_close_matches(name, kind.__struct_fields__, 1)


def _hint(variable: str, path: tuple[str, ...]) -> Any:
    kind: Any = NodeConfig
    for index, part in enumerate(path):
        if not _is_table(kind):
            above = _variable(path[:index])
            raise ConfigError(f"{above} is no table; nothing can be in it", source=variable)
        hints = get_type_hints(kind)
        if part not in hints:
            near = _near(part, kind)
            here = [_variable((*path[:index], name)) for name in (near or sorted(hints))]
            raise ConfigError(
                f"is no setting; is {here[0]} meant?"
                if near
                else f"is no setting; there are {', '.join(here)}",
                source=variable,
            )
        kind = _without_none(hints[part])
    return kind


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        return next(each for each in get_args(hint) if each is not type(None))
    return hint


def _is_table(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def _variable(path: tuple[str, ...]) -> str:
    return PREFIX + _BETWEEN.join(path).upper()


def _value(variable: str, key: str, text: str, hint: Any) -> Any:
    if key == "manager.channel_send_options":
        try:
            return parse_send_options(text)
        except ConfigError as why:
            raise ConfigError(why.message, key=key, source=variable) from None
    is_list = get_origin(hint) is tuple
    try:
        if _is_table(hint) or (is_list and text.lstrip().startswith("[")):
            return msgspec.json.decode(text)
        if is_list:
            return [part.strip() for part in text.split(",") if part.strip()]
        if hint is bytes:
            return text
        return msgspec.convert(text, hint, strict=False)
    except msgspec.MsgspecError as why:
        may_hold_keys = _is_table(hint) or "key" in key.rpartition(".")[2]
        shown = "" if may_hold_keys else f"found {text[:80]!r}; "
        raise ConfigError(f"{shown}{why}", key=key, source=variable) from None
