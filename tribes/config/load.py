"""A node's configuration from TOML, or from any mapping of that shape.

Each key is named as in :mod:`tribes.config.model`, or as Tomcat's attribute where there is one
(``dropTime`` for ``drop_time``). A key that is neither is an error that names its path: a typing
error must not pass in silence.
"""

from __future__ import annotations

import difflib
import tomllib
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec

from tribes.config.model import ManagerConfig, MembershipConfig, NodeConfig
from tribes.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["config_from", "load_config"]

_CONFIG_MAX_BYTES: Final = 1024 * 1024

_ALIASES: Final[dict[type[msgspec.Struct], dict[str, str]]] = {
    MembershipConfig: {
        "mcastAddress": "address",
        "mcastPort": "port",
        "mcastFrequency": "frequency",
        "memberDropTime": "drop_time",
        "mcastDropTime": "drop_time",
        "mcastBindAddress": "bind",
        "mcastTTL": "ttl",
        "Member": "static",
    },
    ManagerConfig: {"stateTransferTimeout": "state_transfer_timeout_s"},
}
"""Tomcat's names that are not ours in capitals (tribes-wire §9.3)."""


def load_config(path: str | Path) -> NodeConfig:
    """Read a TOML file.

    Raises:
        ConfigError: It cannot be read, is no TOML, or holds what cannot be: names the file, and the
            line or the key.
    """
    source = str(path)
    try:
        with open(path, "rb") as file:
            data = file.read(_CONFIG_MAX_BYTES + 1)
        if len(data) > _CONFIG_MAX_BYTES:
            raise ConfigError(f"has more than {_CONFIG_MAX_BYTES} bytes", source=source)
        found = tomllib.loads(data.decode())
    except OSError as why:
        raise ConfigError(f"cannot be read: {why.strerror}", source=source) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as why:
        raise ConfigError(f"is no TOML: {why}", source=source) from None
    return config_from(found, source=source)


def config_from(found: Mapping[str, Any], *, source: str = "") -> NodeConfig:
    """Make a configuration of tables, lists and plain values.

    ``payload`` may be text. What the values mean together is checked when a node starts
    (`check_config`).

    Args:
        found: The outermost table.
        source: Where it comes from, for errors.

    Raises:
        ConfigError: A key is not known, is there twice, or has a value of another type; names its
            path.
    """
    named = _renamed(found, NodeConfig, "", source)
    if isinstance(named.get("payload"), str):
        named["payload"] = named["payload"].encode()
    try:
        return msgspec.convert(named, NodeConfig)
    except msgspec.ValidationError as why:
        text, _, path = str(why).partition(" - at `$")
        key = path.removesuffix("`").removeprefix(".")
        raise ConfigError(text, key=key, source=source) from None


def _renamed(
    table: Mapping[str, Any], kind: type[msgspec.Struct], path: str, source: str
) -> dict[str, Any]:
    hints = get_type_hints(kind)
    names = {_capitals(name): name for name in hints} | _ALIASES.get(kind, {})
    made: dict[str, Any] = {}
    for key, value in table.items():
        where = f"{path}.{key}" if path else key
        name = key if key in hints else names.get(key)
        if name is None:
            raise ConfigError(_unknown(key, hints), key=where, source=source)
        if name in made:
            raise ConfigError(
                f"is there twice, also as {name} or as another", key=where, source=source
            )
        made[name] = _renamed_value(value, hints[name], where, source)
    return made


def _renamed_value(value: Any, hint: Any, path: str, source: str) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        hint = get_args(hint)[0]
    if get_origin(hint) is tuple and isinstance(value, list):
        inner = get_args(hint)[0]
        return [_renamed_value(each, inner, f"{path}[{i}]", source) for i, each in enumerate(value)]
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct) and isinstance(value, Mapping):
        return _renamed(value, hint, path, source)
    return value


def _capitals(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _unknown(key: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, known, 1)
    if near:
        return f"is not known; is {near[0]} meant?"
    return f"is not known; known here are {', '.join(sorted(known))}"
