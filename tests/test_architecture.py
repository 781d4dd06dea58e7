"""docs/architecture.md names files and functions that are there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "architecture.md").read_text()

NAMED = sorted(set(re.findall(r"`(\w+/[\w/]+\.py)(?:::([\w.]+))?`", TEXT)))


@cache
def names_of(path: str) -> frozenset[str]:
    """Name the functions, classes, methods and attributes that a file defines."""
    found: set[str] = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{each}" for each in members_of(node)}
    return frozenset(found)


def members_of(node: ast.ClassDef) -> set[str]:
    """Name the methods of a class, and what they set on ``self``."""
    methods = {e.name for e in node.body if isinstance(e, ast.FunctionDef | ast.AsyncFunctionDef)}
    return methods | {
        each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute)
        and isinstance(each.ctx, ast.Store)
        and isinstance(each.value, ast.Name)
        and each.value.id == "self"
    }


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_what_the_walk_names_is_there(path: str, name: str) -> None:
    assert (ROOT / path).is_file()
    assert not name or name in names_of(path)


def test_each_walk_is_there_and_names_its_steps() -> None:
    """A walk that is cut out is noticed."""
    walks = re.findall(r"^## One [\w ]+\n(.*?)(?=^## )", TEXT, re.DOTALL | re.MULTILINE)
    assert len(walks) == 3
    for walk in walks:
        assert len(re.findall(r"^\d+\. ", walk, re.MULTILINE)) >= 9
