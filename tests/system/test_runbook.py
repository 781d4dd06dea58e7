"""The runbook tells what is seen: its incidents are made, and their lines compared with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.system.runbook import INCIDENTS, made

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]

GUIDE = Path(__file__).parent.parent.parent / "docs" / "operations.md"


def told(name: str) -> list[str]:
    """The lines that the guide has for an incident."""
    text = GUIDE.read_text().split("## Runbook")[1].split("\n## ")[0]
    entry = text.split(f"(`{name}`)")[1]
    block = str(re.findall(r"```\n(.*?)```", entry, re.DOTALL)[0])
    return block.strip().split("\n")


def essence(line: str) -> str:
    """A line without what differs from run to run: what happened, and the names of its fields."""
    line = re.sub(r"^\S+Z ", "", line)
    head = re.match(r"\[(\w+) *\] (.*?)(?= \w+=|$)", line)
    if head:
        fields = re.findall(r" (\w+)=", line)
        return f"{head[1]} {head[2]} {' '.join(fields)}"
    line = re.sub(r"\S*/(?=[\w-]+\.toml)", "", line)
    return re.sub(r"\d+", "N", line)[:60]


@pytest.mark.parametrize("name", INCIDENTS)
def test_an_incident_is_as_the_runbook_tells(name: str) -> None:
    """Each line of it was really printed, with these fields."""
    with made() as place:
        seen = INCIDENTS[name](place)
    printed = [essence(line) for line in seen.log]
    missing = [line for line in told(name) if essence(line) not in printed]
    assert missing == [], printed
    if name in ("hang",):
        assert any(member["is_suspected"] for member in seen.page["members"])
    if name in ("crash", "other key"):
        assert seen.page["members"] == []
        assert seen.page["failures"][-1]["event"] in told(name)[-1]
    if name in ("alone", "bad reload"):
        assert seen.page["failures"] == []


def test_the_runbook_has_no_other_incidents() -> None:
    """Ten, each of which can be made."""
    text = GUIDE.read_text().split("## Runbook")[1].split("\n## ")[0]
    assert re.findall(r"^\*\*.*?\*\* \(`([a-z ]+)`\)", text, re.MULTILINE) == list(INCIDENTS)
