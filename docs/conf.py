"""How Sphinx makes the site of these pages: ``make docs``.

The pages are Markdown that reads as well where they lie; nothing in them is for Sphinx only, except
the lists in ``index.md`` and ``howto.md``. The reference is made from docstrings, one page per
public module of ``tests/public/surface.toml``, so what is public is documented and the reverse.
"""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

project = "Tribes for Python"
author = "The Tribes for Python maintainers"
release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "_static"]
html_theme = "furo"
html_title = f"Tribes for Python {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False

myst_heading_anchors = 3
myst_links_external_new_tab = False

# Docstrings name things in `single` backticks, whether Sphinx knows them or not.
default_role = "py:obj"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "inherited-members": False}
python_maximum_signature_line_length = 80

GENERATED = HERE / "reference"


def write_reference(app: Sphinx) -> None:
    """Write one page per public module; a name that stands in two is described in the first."""
    surface: dict[str, list[str]] = tomllib.loads(
        (ROOT / "tests" / "public" / "surface.toml").read_text()
    )
    GENERATED.mkdir(exist_ok=True)
    described: dict[int, str] = {}
    for module, names in surface.items():
        page = [
            f"# {module}",
            "",
            "```{eval-rst}",
            f".. automodule:: {module}",
            "   :no-members:",
            "",
        ]
        owner = importlib.import_module(module)
        for name in names:
            value = getattr(owner, name)
            full = f"{module}.{name}"
            first = described.setdefault(id(value), full)
            if first != full:
                page += [f"``{name}``", f"   See :py:obj:`{first}`.", ""]
            else:
                page += [f".. {directive(value)}:: {full}", ""]
        write(GENERATED / f"{module}.md", "\n".join([*page, "```", ""]))


def directive(value: object) -> str:
    """Name the directive that documents a value."""
    if isinstance(value, type):
        return "autoexception" if issubclass(value, BaseException) else "autoclass"
    return "autofunction" if callable(value) and hasattr(value, "__code__") else "autodata"


def write(path: Path, text: str) -> None:
    """Write what has changed, so that Sphinx reads only that again."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def list_the_rest(app: Sphinx, page: str, source: list[str]) -> None:
    """Put pages that no list names into howto.md, so that a new page needs no other edit."""
    if page != "howto":
        return
    lists = "".join(path.read_text() for path in (HERE / "index.md", HERE / "howto.md"))
    named = set(re.findall(r"^([\w/.-]+)$", lists, re.MULTILINE))
    found = {
        path.relative_to(HERE).with_suffix("").as_posix()
        for path in [*HERE.glob("*.md"), *HERE.glob("embedding/*.md")]
    }
    source[0] = source[0].replace("THE-REST", "\n".join(sorted(found - named - {"index"})))


def unlink(app: Sphinx, page: str, source: list[str]) -> None:
    """Take away links that lead nowhere on a site: to folders, and to texts outside docs/."""

    def shown(link: re.Match[str]) -> str:
        target = HERE.joinpath(page).parent.joinpath(link[2]).resolve()
        is_outside = not target.is_relative_to(HERE) and target.suffix == ".md"
        return link[1] if target.is_dir() or is_outside else link[0]

    source[0] = re.sub(r"\[([^\]]+)\]\((?!\w+:)([^)#]+)[^)]*\)", shown, source[0])


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", write_reference)
    app.connect("source-read", list_the_rest)
    app.connect("source-read", unlink)
