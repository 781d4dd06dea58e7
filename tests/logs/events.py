"""Every event of the log, found in the sources: what docs/logs.md lists.

``python -m tests.logs.events`` writes the list anew. A name is for machines: renaming one is a
change of the interface, which the list makes visible.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
GUIDE: Final = ROOT / "docs" / "logs.md"
_BEGIN: Final = "<!-- generated: events -->\n"
_END: Final = "<!-- end -->"
_LEVELS: Final = {"debug", "info", "warning", "error", "exception"}
_REPORTS: Final = {"_report", "report"}


def sources() -> list[Path]:
    """All that ships, but for the test tools."""
    found = []
    for folder in ("tribes", "manager", "interceptors"):
        found += [path for path in (ROOT / folder).rglob("*.py") if not path.is_symlink()]
    return sorted(
        path
        for path in {path.resolve() for path in found}
        if "testing" not in path.relative_to(ROOT).parts
    )


def events() -> dict[str, tuple[str, set[str]]]:
    """Level and fields by event."""
    found: dict[str, tuple[str, set[str]]] = {}
    for path in sources():
        for name, level, fields in _of(ast.parse(path.read_text())):
            known = found.setdefault(name, (level, set()))
            known[1].update(fields)
    return found


def _of(tree: ast.Module) -> Iterator[tuple[str, str, set[str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            name = _event_class(node)
            if name:
                yield name, "info", set()
        elif isinstance(node, ast.Call):
            yield from _call(node)


def _call(node: ast.Call) -> Iterator[tuple[str, str, set[str]]]:
    called = node.func
    texts = [_text(each) for each in node.args]
    if isinstance(called, ast.Name) and called.id == "Notice" and texts and texts[0]:
        fields = node.args[1] if len(node.args) > 1 else None
        keys = fields.keys if isinstance(fields, ast.Dict) else []
        yield texts[0], "info", {text for key in keys if key and (text := _text(key))}
    elif isinstance(called, ast.Attribute):
        given = {each.arg for each in node.keywords if each.arg}
        is_log = isinstance(called.value, ast.Name) and called.value.id == "log"
        if is_log and called.attr in _LEVELS and texts and texts[0]:
            level = "error" if called.attr == "exception" else called.attr
            yield texts[0], level, given
        elif called.attr in _REPORTS and len(texts) > 2 and texts[1]:
            yield texts[1], texts[0] or "debug or warning", set()


def _event_class(node: ast.ClassDef) -> str:
    if not any(isinstance(base, ast.Name) and base.id.endswith("Event") for base in node.bases):
        return ""
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "name":
            for each in ast.walk(method):
                if isinstance(each, ast.Return) and each.value is not None:
                    return _text(each.value)
    return ""


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def table() -> str:
    """The list as Markdown."""
    lines = ["| event | level | fields that the source names |", "| --- | --- | --- |"]
    for name, (level, fields) in sorted(events().items()):
        shown = ", ".join(f"`{field}`" for field in sorted(fields)) or "-"
        lines.append(f"| `{name}` | {level} | {shown} |")
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """The guide with the list as it is now."""
    head, rest = text.split(_BEGIN, 1)
    _, tail = rest.split(_END, 1)
    return f"{head}{_BEGIN}\n{table()}\n{_END}{tail}"


if __name__ == "__main__":
    GUIDE.write_text(written(GUIDE.read_text()))
