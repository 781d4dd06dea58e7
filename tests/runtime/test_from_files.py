"""Nodes that are started from files of Tomcat, and from what they are converted to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runtime.test_group_channel import together
from tribes.config import NodeConfig, as_toml, read_config_bytes
from tribes.runtime.group_channel import GroupChannel

DATA = Path(__file__).parent.parent / "data"


@pytest.mark.parametrize("name", ["seeds-xml/000-cluster.xml", "seeds-xml/001-cluster.xml"])
async def test_a_published_cluster_and_its_toml_are_one_group(
    make_config: Callable[..., NodeConfig], name: str
) -> None:
    """With the addresses of this machine, and a group of the test's own."""
    environ = {
        "TRIBES_CHANNEL__RECEIVER__ADDRESS": "127.0.0.1",
        "TRIBES_CHANNEL__RECEIVER__PORT": "0",
        "TRIBES_CHANNEL__MEMBERSHIP__BIND": "127.0.0.1",
        "TRIBES_CHANNEL__MEMBERSHIP__PORT": str(make_config("x").channel.membership.port),
    }
    xml = read_config_bytes((DATA / name).read_bytes())
    first = read_config_bytes((DATA / name).read_bytes(), environ=environ).config
    second = read_config_bytes(as_toml(xml.config).encode(), environ=environ).config
    assert first == second
    got: list[bytes] = []
    async with GroupChannel(first) as a, GroupChannel(second) as b:
        b.add_message_listener(lambda message: got.append(message.message), inline=True)
        await together(a, b)
        await a.send(b"hello", options=6)
    assert got == [b"hello"]
