"""What docs/ shows works as shown."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

from tribes.config import (
    DnsConfig,
    KubernetesConfig,
    MembershipConfig,
    StaticMemberConfig,
    check_config,
    config_from,
)
from tribes.config.model import NodeConfig
from tribes.gauges import NodeGauges, PeerGauges
from tribes.testing.plan import ACTIONS

BACKPRESSURE = Path(__file__).parent.parent / "docs" / "backpressure.md"
MEMBERSHIP = Path(__file__).parent.parent / "docs" / "membership.md"
TESTING = Path(__file__).parent.parent / "docs" / "testing.md"


def test_fault_test_of_the_guide_passes() -> None:
    """The example is a test, so it is run."""
    [code] = re.findall(r"```python\n(.*?)```", TESTING.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(TESTING), "exec"), names)
    names["test_my_handler_survives_a_hung_node"]()


def test_every_fault_is_in_the_guide() -> None:
    """The table names each action that a plan may have."""
    shown = set(re.findall(r"`([a-z_]+)`", TESTING.read_text()))
    assert set(ACTIONS) <= shown


def test_every_gauge_is_in_the_guide_and_no_other() -> None:
    """The tables name each number that a node shows."""
    tables = BACKPRESSURE.read_text().split("## Watching it")[1]
    shown = set(re.findall(r"`([a-z_]+)`", tables))
    kept = {field.name for kind in (NodeGauges, PeerGauges) for field in fields(kind)}
    assert shown == kept


def test_bounds_in_the_guide_are_the_defaults() -> None:
    """Each setting that it names is one, with that value."""
    text, sizes = BACKPRESSURE.read_text(), {"MiB": 1024 * 1024, "s": 1000, "": 1}
    config = NodeConfig()
    found = re.findall(r"`(channel\.sender|manager)\.(\w+)`,? \(?([\d,]+)\b ?(MiB|s\b)?", text)
    assert len(found) >= 7
    for part, name, number, unit in found:
        owner = config.manager if part == "manager" else config.channel.sender
        assert getattr(owner, name) == int(number.replace(",", "")) * sizes[unit], name


def test_every_setting_of_membership_is_in_the_guide() -> None:
    """Under its name; what the guide shows as TOML can be loaded and used."""
    text = MEMBERSHIP.read_text()
    shown = set(re.findall(r"`([a-z_]+)`", text))
    for kind in (MembershipConfig, StaticMemberConfig, DnsConfig, KubernetesConfig):
        assert set(kind.__struct_fields__) - {"static", "dns", "kubernetes", "refresh"} <= shown
    examples = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        check_config(config_from(tomllib.loads(example)))
