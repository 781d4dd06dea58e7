"""A configuration as TOML, which loads to an equal one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tribes.config.secret import Secret
from tribes.errors import ConfigError

if TYPE_CHECKING:
    from tribes.config.model import NodeConfig

__all__ = ["as_toml"]

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_HIDDEN: Final = "<hidden>"


def as_toml(config: NodeConfig, *, whole: bool = False, hide: bool = False) -> str:
    """Write a configuration.

    Args:
        config: What to write.
        whole: Write every setting, not only what differs from the default.
        hide: Write ``<hidden>`` for keys and other secrets.

    Raises:
        ConfigError: It holds what TOML cannot say: bytes that are no text, or a function.
    """
    lines = list(_table("", config, whole=whole, hide=hide))
    return "\n".join(lines).strip("\n") + "\n" if lines else ""


def _table(path: str, config: msgspec.Struct, *, whole: bool, hide: bool) -> Iterator[str]:
    inner: list[tuple[str, Any]] = []
    for field in msgspec.structs.fields(config):
        value = getattr(config, field.name)
        default = field.default
        if value is None or (not whole and default is not msgspec.NODEFAULT and value == default):
            continue
        if _is_table(value) or (isinstance(value, tuple) and value and _is_table(value[0])):
            inner.append((field.name, value))
            continue
        yield f"{field.name} = {_value(value, f'{path}.{field.name}', hide=hide)}"
    for name, value in inner:
        where = f"{path}.{name}" if path else name
        many = isinstance(value, tuple)
        for each in value if many else (value,):
            yield ""
            yield f"[[{where}]]" if many else f"[{where}]"
            if isinstance(each, msgspec.Struct):
                yield from _table(where, each, whole=whole, hide=hide)
            else:
                yield from _mapping(where, each, hide=hide)


def _is_table(value: Any) -> bool:
    return isinstance(value, msgspec.Struct | Mapping) or callable(value)


def _mapping(path: str, table: Any, *, hide: bool) -> Iterator[str]:
    if not isinstance(table, Mapping):
        raise ConfigError("is a function, which TOML cannot hold", key=path)
    for name, value in table.items():
        yield f"{_name(name)} = {_value(value, f'{path}.{name}', hide=hide)}"


def _value(value: Any, path: str, *, hide: bool) -> str:
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise ConfigError("is no text, and TOML holds text only", key=path) from None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        if isinstance(value, Secret) and hide and value:
            return _text(_HIDDEN)
        return _text(value[:])  # a slice of a secret shows itself
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(each, path, hide=hide) for each in value)}]"
    if isinstance(value, Mapping):
        pairs = (f"{_name(k)} = {_value(v, f'{path}.{k}', hide=hide)}" for k, v in value.items())
        return f"{{ {', '.join(pairs)} }}"
    raise ConfigError(f"is a {type(value).__name__}, which TOML cannot hold", key=path)


def _name(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
