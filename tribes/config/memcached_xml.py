"""memcached-session-manager's ``<Manager>`` as a configuration: the block as it stands in a file.

The block may be the whole document, or stand in a ``context.xml`` or ``server.xml``; what stands
around it is not looked at.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, Final

from tribes.config.load import add_aliases, convert_named
from tribes.config.memcached import MemcachedConfig, check_memcached
from tribes.config.notices import Kind, Notice
from tribes.config.tomcat.attributes import Use
from tribes.config.tomcat.msm_tables import MSM_CLASS, MSM_TABLE
from tribes.config.tomcat.tree import Element, parse_tree
from tribes.config.tomcat.values import read_value
from tribes.errors import ConfigError

__all__ = ["memcached_config_from", "memcached_from_xml"]

_KINDS: Final = {
    Use.MAPPED: Kind.MAPPED,
    Use.NO_EFFECT: Kind.NO_EFFECT,
    Use.ELSEWHERE: Kind.ELSEWHERE,
    Use.NOT_SUPPORTED: Kind.NOT_SUPPORTED,
}
_PATH: Final = "Manager"

add_aliases({MemcachedConfig: {"requestURIIgnorePattern": "request_uri_ignore_pattern"}})


def memcached_config_from(table: dict[str, Any], *, source: str = "") -> MemcachedConfig:
    """Make a configuration of a table of TOML's shape, under our names or the original's.

    Raises:
        ConfigError: A key is not known, or has a value that cannot work.
    """
    made = convert_named(table, MemcachedConfig, path="MemcachedManager", source=source)
    check_memcached(made)
    return made


def memcached_from_xml(data: bytes, *, source: str) -> tuple[MemcachedConfig, list[Notice]]:
    """Read the one block of a document.

    Args:
        data: The document.
        source: Its name, for errors.

    Returns:
        The configuration, and what is not simply honoured.

    Raises:
        ConfigError: It is no XML, has no such block or several, or a value cannot work.
    """
    root, notices = parse_tree(data, source=source)
    found = [each for each in _walk(root) if _is_block(each)]
    if len(found) != 1:
        raise ConfigError(
            f'has {len(found)} elements <Manager className="{MSM_CLASS}">; write one',
            key=_PATH,
            source=source,
        )
    [element] = found
    settings: dict[str, Any] = {}
    notices = list(notices)
    for name, text in element.attributes.items():
        if name != "className":
            _attribute(element, name, text.strip(), settings, notices, source)
    try:
        return memcached_config_from(settings, source=source), notices
    except ConfigError as why:
        where = f"{source}: line {element.line}"
        raise ConfigError(why.message, key=f"{_PATH} {why.key}", source=where) from why


def _walk(element: Element) -> Iterator[Element]:
    yield element
    for child in element.children:
        yield from _walk(child)


def _is_block(element: Element) -> bool:
    return element.name == _PATH and element.attributes.get("className", "").strip() == MSM_CLASS


def _attribute(
    element: Element,
    name: str,
    text: str,
    settings: dict[str, Any],
    notices: list[Notice],
    source: str,
) -> None:
    known = next((each for each in MSM_TABLE if each.name == name), None)
    if known is None:
        near = difflib.get_close_matches(name, [each.name for each in MSM_TABLE], 1)
        what = f"ignored; did you mean {near[0]}?" if near else "ignored"
        notices.append(Notice(Kind.UNKNOWN, _PATH, name, text[:80], what, element.line))
        return
    shown = "<hidden>" if known.is_secret else text[:80]
    if known.use in _KINDS and text not in known.same:
        notices.append(Notice(_KINDS[known.use], _PATH, name, shown, known.reason, element.line))
    if not known.key:
        return
    try:
        value = text if known.kind == "text" else read_value(known.kind, text)
    except ValueError as why:
        raise ConfigError(
            f"{why}, found {shown!r}",
            key=f"{_PATH} {name}",
            source=f"{source}: line {element.line}",
        ) from None
    table = settings
    *parts, last = known.key.split(".")
    for part in parts:
        table = table.setdefault(part, {})
    table[last] = value
