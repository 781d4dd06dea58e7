"""A configuration as TOML, which loads to an equal one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tribes.config.managers import DEFAULT_KIND, ManagerConfig, kind_of, shared_settings
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
    writer = _Writer(config, whole=whole, hide=hide)
    lines = list(writer.table("", config))
    return "\n".join(lines).strip("\n") + "\n" if lines else ""


class _Writer:
    """Writes the tables of one configuration."""

    def __init__(self, config: NodeConfig, *, whole: bool, hide: bool) -> None:
        self._template = config.manager
        self._whole = whole
        self._hide = hide

    def table(self, path: str, record: msgspec.Struct, base: object = None) -> Iterator[str]:
        """The lines of a table.

        Args:
            path: Where it is.
            record: What it holds.
            base: What holds for what is left out, instead of the record's defaults.
        """
        if isinstance(record, ManagerConfig):
            base = self._below(record) if path.startswith("context.") else None
            default = DEFAULT_KIND if base is None else kind_of(type(self._template))
            if self._whole or kind_of(type(record)) != default:
                yield f"kind = {_text(kind_of(type(record)))}"
        inner: list[tuple[str, Any]] = []
        for field in msgspec.structs.fields(record):
            value = getattr(record, field.name)
            default = getattr(base, field.name, _default(field))
            if value is None or (not self._whole and value == default):
                continue
            if _is_table(value) or (isinstance(value, tuple) and value and _is_table(value[0])):
                inner.append((field.name, value))
                continue
            yield f"{field.name} = {_value(value, f'{path}.{field.name}', hide=self._hide)}"
        for name, value in inner:
            yield from self._inner(f"{path}.{name}" if path else name, value)

    def _below(self, record: ManagerConfig) -> ManagerConfig:
        """What holds for what a context's manager does not say."""
        if type(record) is type(self._template):
            return self._template
        return ManagerConfig(**shared_settings(self._template))

    def _inner(self, where: str, value: Any) -> Iterator[str]:
        if isinstance(value, Mapping) and any(
            isinstance(each, msgspec.Struct) for each in value.values()
        ):
            for name, each in value.items():
                yield from self._inner(f"{where}.{_name(name)}", each)
            return
        many = isinstance(value, tuple)
        for each in value if many else (value,):
            yield ""
            yield f"[[{where}]]" if many else f"[{where}]"
            if isinstance(each, msgspec.Struct):
                yield from self.table(where, each)
            else:
                yield from _mapping(where, each, hide=self._hide)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


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
