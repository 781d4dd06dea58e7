"""What a context's manager does not say is the node's: done to tables, before records are made.

A record cannot tell what was written from what is its default, tables can. So in TOML, in the
environment and in what Tomcat's XML becomes, ``[context.shop.manager]`` needs to hold only what is
otherwise than in ``[manager]``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final

from tribes.config.managers import DEFAULT_KIND, MANAGER_KINDS, ManagerConfig
from tribes.errors import ConfigError

__all__ = ["complete_managers", "kind_name"]

_SHARED: Final = frozenset(ManagerConfig.__struct_fields__)
_STORES: Final = frozenset({"file", "sql"})


def kind_name(text: Any) -> str:
    """A kind as it is written, or as Tomcat names the class.

    Raises:
        ValueError: There is no such kind; says which there are.
    """
    name = str(text).rpartition(".")[2].strip()
    name = name.lower().removesuffix("manager") or name
    name = "memcached" if name == "memcachedbackupsession" else name
    if name in MANAGER_KINDS:
        return name
    near = difflib.get_close_matches(name, MANAGER_KINDS, 1)
    guess = f"is {near[0]!r} meant?" if near else f"allowed are {', '.join(MANAGER_KINDS)}"
    raise ValueError(f"found {str(text)[:80]!r}; {guess}")


def complete_managers(named: dict[str, Any], source: str) -> None:
    """Give each manager its kind, and a context's what the node's says.

    Args:
        named: The outermost table, with our names; changed.
        source: Where it comes from, for errors.

    Raises:
        ConfigError: A kind is not known, or a setting is of another kind.
    """
    template = named.get("manager")
    if isinstance(template, Mapping):
        kind = _kind(template, DEFAULT_KIND, "manager", source)
        template = named["manager"] = {**template, "kind": kind}
        _check_names(template, "manager", source)
    else:
        template, kind = {}, DEFAULT_KIND
    contexts = named.get("context")
    if not isinstance(contexts, Mapping):
        return
    made = named["context"] = dict(contexts)
    for name, context in contexts.items():
        own = context.get("manager") if isinstance(context, Mapping) else None
        if isinstance(own, Mapping):
            path = f"context.{name}.manager"
            own = {**own, "kind": _kind(own, kind, path, source)}
            _check_names(own, path, source)
            made[name] = {**context, "manager": {**_inherited(template, own), **own}}


def _inherited(template: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    is_alike = own["kind"] == template.get("kind", DEFAULT_KIND)
    left_out = _STORES if _STORES & own.keys() else frozenset()
    return {
        key: value
        for key, value in template.items()
        if (is_alike or key in _SHARED) and key not in left_out
    }


def _kind(table: Mapping[str, Any], default: str, path: str, source: str) -> str:
    try:
        return kind_name(table.get("kind", default))
    except ValueError as why:
        raise ConfigError(str(why), key=f"{path}.kind", source=source) from None


def _check_names(table: Mapping[str, Any], path: str, source: str) -> None:
    kind = table["kind"]
    fields = MANAGER_KINDS[kind].__struct_fields__
    for key in table:
        if key == "kind" or key in fields:
            continue
        others = [each for each, of in MANAGER_KINDS.items() if key in of.__struct_fields__]
        what = f"is no setting of a manager of kind {kind!r}"
        if others:
            what += f"; it is one of kind {' and '.join(map(repr, others))}"
        raise ConfigError(what, key=f"{path}.{key}", source=source)
