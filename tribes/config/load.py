"""A node's configuration from TOML, Tomcat's XML, or any mapping of TOML's shape.

Each key is named as in :mod:`tribes.config.model`, or as Tomcat's attribute where there is one
(``dropTime`` for ``drop_time``). A key that is neither is an error that names its path: a typing
error must not pass in silence.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from tribes.config.completing import complete_managers, kind_name
from tribes.config.environment import Override, apply_overrides
from tribes.config.farm import FarmConfig
from tribes.config.lines import line_of, nearest_line
from tribes.config.managers import MANAGER_KINDS, ManagerConfig, PersistentConfig
from tribes.config.model import MembershipConfig, NodeConfig
from tribes.config.options import parse_send_options
from tribes.config.stores import SQLStoreConfig
from tribes.config.typed import mismatch_of
from tribes.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from tribes.config.notices import Notice

__all__ = [
    "Loaded",
    "config_from",
    "convert_named",
    "load_config",
    "read_config",
    "read_config_bytes",
]

_CONFIG_MAX_BYTES: Final = 1024 * 1024
_XML: Final = re.compile(rb"(?:\xef\xbb\xbf)?(?:\s|\xc2\xa0)*<")

_T = TypeVar("_T", bound=msgspec.Struct)

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
    ManagerConfig: {
        "maxInactiveInterval": "max_inactive_s",
        "stateTransferTimeout": "state_transfer_timeout_s",
        "sendAllSessionsSize": "send_all_sessions_size",
    },
    FarmConfig: {"maxValidTime": "max_valid_time_s"},
    PersistentConfig: {
        "FileStore": "file",
        "JDBCStore": "sql",
        "DataSourceStore": "sql",
        "maxIdleBackup": "max_idle_backup_s",
        "minIdleSwap": "min_idle_swap_s",
        "maxIdleSwap": "max_idle_swap_s",
        "checkInterval": "check_interval_s",
    },
    SQLStoreConfig: {
        "connectionURL": "url",
        "connectionName": "user",
        "connectionPassword": "password",
        "sessionTable": "table",
        "sessionIdCol": "id_col",
        "sessionAppCol": "app_col",
        "sessionDataCol": "data_col",
        "sessionValidCol": "valid_col",
        "sessionMaxInactiveCol": "max_inactive_col",
        "sessionLastAccessedCol": "last_accessed_col",
    },
}
"""Tomcat's names that are not ours in capitals (tribes-wire §9.3, tomcat-sessions §6)."""

_OPTIONS: Final = frozenset({"channel_send_options", "map_send_options"})
"""What may be named instead of counted."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and what there is to know of it.

    Attributes:
        config: The configuration.
        notices: What a Tomcat file says that is not simply honoured.
        source: Name of the file.
        lines: Line in which a Tomcat file sets a key.
        text: The file, if it is TOML.
        overrides: Settings from environment variables.
    """

    config: NodeConfig
    notices: tuple[Notice, ...] = ()
    source: str = ""
    lines: Mapping[str, int] = field(default_factory=dict)
    text: str = field(default="", repr=False)  # it may hold keys
    overrides: tuple[Override, ...] = ()

    def located(self, error: ConfigError) -> ConfigError:
        """The same error with the file and line, or the variable, that set its key."""
        for override in self.overrides:
            if error.key == override.key or error.key.startswith(
                (f"{override.key}.", f"{override.key}[")
            ):
                return ConfigError(error.message, key=error.key, source=override.variable)
        line = line_of(self.text, error.key) if self.text else nearest_line(self.lines, error.key)
        source = f"{self.source}: line {line}" if line else self.source
        return ConfigError(error.message, key=error.key, source=source)


def load_config(path: str | Path, *, environ: Mapping[str, str] | None = None) -> NodeConfig:
    """Read a file: TOML, or Tomcat's XML.

    Args:
        path: The file.
        environ: Environment variables whose settings go over the file's (``os.environ``).

    Raises:
        ConfigError: As `read_config`.
    """
    return read_config(path, environ=environ).config


def read_config(path: str | Path, *, environ: Mapping[str, str] | None = None) -> Loaded:
    """Read a file, with notices: TOML, or Tomcat's XML if the first character is ``<``.

    Args:
        path: The file.
        environ: Environment variables whose settings go over the file's (``os.environ``).

    Raises:
        ConfigError: It cannot be read, is neither TOML nor XML, or holds what cannot be: names the
            file, and the line or the key.
    """
    source = str(path)
    try:
        with open(path, "rb") as file:
            data = file.read(_CONFIG_MAX_BYTES + 1)
    except OSError as why:
        raise ConfigError(f"cannot be read: {why.strerror}", source=source) from None
    return read_config_bytes(data, source=source, environ=environ)


def read_config_bytes(
    data: bytes, *, source: str = "", environ: Mapping[str, str] | None = None
) -> Loaded:
    """The same for a file's bytes.

    Raises:
        ConfigError: As `read_config`.
    """
    if len(data) > _CONFIG_MAX_BYTES:
        raise ConfigError(f"has more than {_CONFIG_MAX_BYTES} bytes", source=source)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or _XML.match(data):
        # A node with a file of another kind needs no reader of XML.
        from tribes.config.tomcat import read_tomcat

        making = read_tomcat(data, source=source)
        tables, notices, lines, text = making.tables, making.notices, making.lines, ""
    else:
        notices, lines = [], {}
        text, tables = _toml(data, source)
    done: tuple[Override, ...] = ()
    try:
        named = _renamed(tables, NodeConfig, "", source)
        done = tuple(apply_overrides(named, environ or {}))
        complete_managers(named, source)
        config = _converted(named, source)
    except ConfigError as error:
        known = Loaded(NodeConfig(), (), source, lines, text, done)
        raise (known.located(error) if error.source in ("", source) else error) from None
    return Loaded(config, tuple(notices), source, lines, text, done)


def _toml(data: bytes, source: str) -> tuple[str, dict[str, Any]]:
    try:
        text = data.decode("utf-8-sig")
        return text, tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as why:
        raise ConfigError(f"is no TOML: {why}", source=source) from None
    except ValueError:
        # Python converts no number of more than 4300 digits.
        what = "is no TOML: it has a number of more than 64 bits; write a smaller one"
        raise ConfigError(what, source=source) from None
    except RecursionError:
        raise ConfigError("is no TOML that can be read: too deeply nested", source=source) from None


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
    complete_managers(named, source)
    return _converted(named, source)


def _converted(named: dict[str, Any], source: str) -> NodeConfig:
    if isinstance(named.get("payload"), str):
        try:
            named["payload"] = named["payload"].encode()
        except UnicodeEncodeError:
            raise ConfigError("is no text in UTF-8", key="payload", source=source) from None
    return _record(named, NodeConfig, "", source)


def convert_named(table: Mapping[str, Any], kind: type[_T], *, path: str, source: str) -> _T:
    """Make one record of a table, with our names or Tomcat's.

    Args:
        table: The table.
        kind: The record's type.
        path: Where the table is, for errors.
        source: Where it comes from, for errors.

    Raises:
        ConfigError: As `config_from`.
    """
    return _record(_renamed(table, kind, path, source), kind, path, source)


def _record(named: Mapping[str, Any], kind: type[_T], path: str, source: str) -> _T:
    try:
        return msgspec.convert(named, kind)
    except msgspec.ValidationError as why:
        text, place = mismatch_of(why)
        raise ConfigError(text, key=(path + place).removeprefix("."), source=source) from None


def _renamed(
    table: Mapping[str, Any], kind: type[msgspec.Struct] | Any, path: str, source: str
) -> dict[str, Any]:
    hints = _hints(kind)
    names = {_capitals(name): name for name in hints} | _aliases(kind)
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
        if name in _OPTIONS and isinstance(value, str):
            made[name] = _send_options(value, where, source)
            continue
        made[name] = _renamed_value(value, hints[name], where, source)
    return made


def _renamed_value(value: Any, hint: Any, path: str, source: str) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        if _is_manager(hint):
            return _manager(value, path, source)
        hint = get_args(hint)[0]
    if get_origin(hint) is tuple and isinstance(value, list):
        inner = get_args(hint)[0]
        return [_renamed_value(each, inner, f"{path}[{i}]", source) for i, each in enumerate(value)]
    if get_origin(hint) is Mapping and isinstance(value, Mapping):
        inner = get_args(hint)[1]
        return {k: _renamed_value(v, inner, f"{path}.{k}", source) for k, v in value.items()}
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct) and isinstance(value, Mapping):
        return _renamed(value, hint, path, source)
    return value


def _is_manager(hint: Any) -> bool:
    return ManagerConfig in get_args(hint)


def _manager(table: Any, path: str, source: str) -> Any:
    """A manager's table: without a kind it may have the settings of any, until it gets one."""
    if not isinstance(table, Mapping):
        return table
    kinds = {key: value for key, value in table.items() if key in ("kind", "className")}
    rest = {key: value for key, value in table.items() if key not in kinds}
    if not kinds:
        return _renamed(rest, tuple(MANAGER_KINDS.values()), path, source)
    if len(kinds) > 1:
        raise ConfigError("is there twice, also as kind", key=f"{path}.className", source=source)
    [(key, value)] = kinds.items()
    try:
        name = kind_name(value)
    except ValueError as why:
        raise ConfigError(str(why), key=f"{path}.{key}", source=source) from None
    return {"kind": name, **_renamed(rest, MANAGER_KINDS[name], path, source)}


def _hints(kind: Any) -> dict[str, Any]:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return {name: hint for each in kinds for name, hint in get_type_hints(each).items()}


def _aliases(kind: Any) -> dict[str, str]:
    """Tomcat's names of a record, and of those that it is made from."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return {
        alias: name
        for each in kinds
        for base in reversed(each.__mro__)
        for alias, name in _ALIASES.get(base, {}).items()
    }


def _send_options(text: str, path: str, source: str) -> int:
    try:
        return parse_send_options(text)
    except ConfigError as why:
        raise ConfigError(why.message, key=path, source=source) from None


def _capitals(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _unknown(key: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, known, 1)
    if near:
        return f"is not known; is {near[0]} meant?"
    return f"is not known; known here are {', '.join(sorted(known))}"
