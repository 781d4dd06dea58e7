"""The public surface: which modules and names a user may rely on.

``surface.toml`` pins them; docs/versions.md says what that promises. The reference of the site is
made from the same list, so a public name is documented, and what is documented is public.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["SURFACE", "load", "names_of", "pinned", "text_of"]

SURFACE: Final = Path(__file__).with_name("surface.toml")


def pinned() -> dict[str, list[str]]:
    """Return the public modules and their names as they were last agreed on."""
    surface: dict[str, list[str]] = tomllib.loads(SURFACE.read_text())
    return surface


def load(module: str) -> ModuleType:
    """Import a public module."""
    return importlib.import_module(module)


def names_of(module: ModuleType) -> list[str]:
    """Return what a module offers: its ``__all__``, or what it imports ``as`` the same name."""
    if (listed := getattr(module, "__all__", None)) is not None:
        return sorted(listed)
    return sorted(
        alias.asname
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname is not None
    )


def text_of(owner: Any, name: str) -> str:
    """Return the docstring of an attribute of a class or a module; empty where it has none."""
    value = getattr(owner, name)
    own = value.__dict__.get("__doc__") if inspect.isclass(value) else inspect.getdoc(value)
    text = own or ""
    # What `dataclass` writes where the author wrote nothing.
    return "" if inspect.isclass(value) and text.startswith(f"{value.__name__}(") else text


if __name__ == "__main__":  # python -m tests.public.surface: pin what is there now
    lines = []
    for each in pinned():
        names = names_of(load(each))
        lines += [f'"{each}" = [', *(f'    "{name}",' for name in names), "]", ""]
    header = SURFACE.read_text().partition('\n"')[0]
    SURFACE.write_text(header + "\n" + "\n".join(lines))
