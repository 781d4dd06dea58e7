"""Every attribute and key in words: for ``tribes config explain`` and for the guide's tables."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec

from tribes.config.environment import PREFIX
from tribes.config.managers import DEFAULT_KIND, MANAGER_KINDS, ManagerConfig
from tribes.config.model import NodeConfig
from tribes.config.tomcat import Attribute, Use, every_attribute
from tribes.config.tomcat.interceptor_tables import INTERCEPTOR_TABLES

__all__ = [
    "explain",
    "keys",
    "keys_table",
    "meanings",
    "names_like",
    "tomcat_tables",
    "what_happens",
]

_ATTRIBUTES: Final = re.compile(r"^Attributes:\n(.*)", re.DOTALL | re.MULTILINE)
_ENTRY: Final = re.compile(r"^    (\w+): (.*(?:\n        .*)*)", re.MULTILINE)


def explain(name: str) -> list[str]:
    """A paragraph for each attribute of Tomcat, and each key of ours, of that name.

    Args:
        name: ``dropTime``, ``drop_time``, ``channel.membership.drop_time``, ``NioReceiver.port``,
            in any case.
    """
    wanted = name.strip().lower().replace("@", ".")
    found = []
    for owner, each in every_attribute():
        if wanted in (each.name.lower(), f"{owner}.{each.name}".lower()) or (
            owner.lower().endswith(wanted.partition(".")[0])
            and wanted.partition(".")[2] == each.name.lower()
        ):
            found.append(_attribute(owner, each))
    for key, default, text in keys():
        if wanted == key or wanted == key.rpartition(".")[2]:
            variable = PREFIX + key.replace(".", "__").upper()
            found.append(f"{key} = {default}\n    {text}\n    In the environment: {variable}")
    return list(dict.fromkeys(found))


def names_like(name: str) -> list[str]:
    """Names that may have been meant."""
    names = {each.name for _, each in every_attribute()}
    names |= {key.rpartition(".")[2] for key, _, _ in keys()}
    lower = {each.lower(): each for each in sorted(names)}
    return [lower[n] for n in difflib.get_close_matches(name.lower(), list(lower), 3)]


def keys() -> Iterator[tuple[str, str, str]]:
    """Path, default and meaning of every key, from the model itself."""
    yield from _keys("", NodeConfig)


def _keys(path: str, kind: type[msgspec.Struct]) -> Iterator[tuple[str, str, str]]:
    said = meanings(kind)
    hints = get_type_hints(kind)
    for each in msgspec.structs.fields(kind):
        where = f"{path}.{each.name}" if path else each.name
        hint = hints[each.name]
        if get_origin(hint) is Mapping:
            yield where, "none", said.get(each.name, "")
            yield from _keys(f"{where}.<name>", get_args(hint)[1])
            continue
        if _is_union(hint) and ManagerConfig in get_args(hint):
            yield from _managers(where, said.get(each.name, ""), hint)
            continue
        inner = _inner(hint)
        if inner is None:
            yield where, _default(each), said.get(each.name, "")
            continue
        if each.default is None or each.default == ():
            yield where, "none", said.get(each.name, "")
        yield from _keys(where, inner)


def _managers(path: str, meaning: str, hint: Any) -> Iterator[tuple[str, str, str]]:
    """What all kinds have, once; then what each has of its own."""
    kinds = ", ".join(f"``{kind}``" for kind in MANAGER_KINDS)
    if type(None) in get_args(hint):
        yield path, "unset", f"{meaning} Its keys are those of ``manager``."
        return
    yield f"{path}.kind", f'"{DEFAULT_KIND}"', f"Kind of the manager: {kinds}."
    yield from _keys(path, ManagerConfig)
    shared = {f"{path}.{name}" for name in ManagerConfig.__struct_fields__}
    for kind, record in MANAGER_KINDS.items():
        for key, default, text in _keys(path, record):
            if key not in shared:
                yield key, default, f"{text} Kind ``{kind}``."


def _inner(hint: Any) -> type[msgspec.Struct] | None:
    if get_origin(hint) is not None and (get_origin(hint) is tuple or _is_union(hint)):
        hint = get_args(hint)[0]
    is_table = isinstance(hint, type) and issubclass(hint, msgspec.Struct)
    return hint if is_table else None


def _is_union(hint: Any) -> bool:
    return get_origin(hint) is Union or type(hint).__name__ == "UnionType"


def _default(field: msgspec.structs.FieldInfo) -> str:
    value = field.default
    if value is msgspec.NODEFAULT:
        return "required"
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[]"
    if isinstance(value, str | bytes):
        return f'"{value[:].decode() if isinstance(value, bytes) else value[:]}"'
    return str(value)


def meanings(kind: type) -> dict[str, str]:
    """What the docstring of a class says of each attribute."""
    doc = inspect.cleandoc(kind.__doc__ or "")
    section = _ATTRIBUTES.search(doc)
    if section is None:
        return {}
    return {name: " ".join(text.split()) for name, text in _ENTRY.findall(section[1])}


def _attribute(owner: str, each: Attribute) -> str:
    lines = [f"{owner}.{each.name} (Tomcat's default: {each.default})", f"    {each.meaning}"]
    lines.append(f"    Here: {what_happens(owner, each)}")
    return "\n".join(lines)


def what_happens(owner: str, each: Attribute) -> str:
    """What an attribute does here, in one line."""
    table = "channel.interceptors[]." if owner in INTERCEPTOR_TABLES else ""
    table = "channel.membership.static[]." if owner == "StaticMember" else table
    if each.use is Use.HONOURED:
        return f"honoured, as {table}{each.key}"
    if each.use is Use.MAPPED:
        return f"mapped to {table}{each.key}: {each.reason}"
    return f"{each.use.value}: {each.reason}"


def keys_table() -> str:
    """The guide's table of our keys, in Markdown."""
    lines = ["| key | default | meaning |", "| --- | --- | --- |"]
    for key, default, text in keys():
        meaning = text.replace("``", "`").replace("|", "\\|")
        lines.append(f"| `{key}` | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def tomcat_tables() -> str:
    """The guide's tables of Tomcat's attributes, in Markdown."""
    lines: list[str] = []
    last = ""
    for owner, each in every_attribute():
        if owner != last:
            lines += ["", f"### {owner}", "", "| attribute | default | meaning | here |"]
            lines += ["| --- | --- | --- | --- |"]
            last = owner
        here = what_happens(owner, each).replace("|", "\\|")
        lines.append(f"| `{each.name}` | {each.default} | {each.meaning} | {here} |")
    return "\n".join(lines).strip() + "\n"
