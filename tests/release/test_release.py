"""The lists that a release is made from are complete; `make release` does the rest."""

from __future__ import annotations

import re

from packaging.requirements import Requirement
from packaging.version import Version

from tests.release.extras import ROOT, TOOLS, USES, extras


def pins() -> dict[str, Version]:
    """Return what constraints.txt pins, for this machine or another."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith(("#", " "))]
    return {
        each.name.lower(): Version(next(iter(each.specifier)).version)
        for each in found
        if each.specifier
    }


def test_every_extra_is_tried_alone() -> None:
    """An extra without an entry would be released untried."""
    assert {name for name in USES if name} == set(extras()) - TOOLS


def test_an_extra_of_users_has_two_requirements_at_most() -> None:
    """One library, and perhaps another extra or a second library that it is of no use without."""
    assert {name for name, wanted in extras().items() if len(wanted) > 2} <= TOOLS


def test_all_is_all() -> None:
    [line] = extras()["all"]
    named = re.fullmatch(r"tribes\[(.*)\]", line)
    assert named is not None
    assert set(named[1].split(",")) == set(extras()) - TOOLS - {"all"}


def test_the_lock_pins_every_direct_requirement_within_its_bounds() -> None:
    """`make lock` was run after the last change of pyproject.toml."""
    known = pins()
    for wanted in (Requirement(line) for lines in extras().values() for line in lines):
        if wanted.name == "tribes" or (wanted.marker and not wanted.marker.evaluate()):
            continue
        assert wanted.name.lower() in known, wanted
        assert known[wanted.name.lower()] in wanted.specifier, wanted
