"""What docs/ shows works as shown."""

from __future__ import annotations

import re
import socket
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import trio

from tribes import GroupChannel, RpcChannel
from tribes.config import (
    DnsConfig,
    KubernetesConfig,
    MembershipConfig,
    StaticMemberConfig,
    check_config,
    config_from,
    read_config_bytes,
)
from tribes.config.model import ChannelConfig, NodeConfig, ReceiverConfig
from tribes.gauges import NodeGauges, PeerGauges
from tribes.testing.plan import ACTIONS

CONFIGURATION = Path(__file__).parent.parent / "docs" / "configuration.md"
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
    assert len(examples) == 4
    for example in examples:
        check_config(config_from(tomllib.loads(example)))


async def test_rpc_and_maps_work_as_shown() -> None:
    """The three examples, on two members of one group."""
    names = _examples("rpc-and-maps.md")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    settings = ChannelConfig(
        membership=MembershipConfig(port=port, frequency=50), receiver=ReceiverConfig(port=0)
    )
    async with (
        GroupChannel(NodeConfig(name="a", channel=settings)) as a,
        GroupChannel(NodeConfig(name="b", channel=settings)) as b,
    ):
        with trio.fail_after(20):
            while not (a.members and b.members):  # noqa: ASYNC110 - nothing tells
                await trio.sleep(0.01)
            RpcChannel(b, b"prices", names["answer"])
            assert (await names["ask_everybody"](a)).bodies == [b"42"]
            ours, theirs = await names["share_prices"](a), await names["share_prices"](b)
            while dict(ours) != {"apple": 3, "pear": 4} or dict(theirs) != dict(ours):  # noqa: ASYNC110
                await trio.sleep(0.01)
            for channel in (a, b):
                assert await names["keep_orders"](channel) == {"state": "new"}


def _examples(page: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    path = TESTING.with_name(page)
    for code in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL):
        exec(compile(code, str(path), "exec"), names)
    return names


def test_files_of_the_configuration_guide_load() -> None:
    """The examples in TOML, XML and of the environment."""
    text = CONFIGURATION.read_text()
    [toml] = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    [xml] = re.findall(r"```xml\n(.*?)```", text, re.DOTALL)
    [shell] = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    check_config(read_config_bytes(toml.encode()).config)
    loaded = read_config_bytes(xml.encode())
    check_config(loaded.config)
    assert loaded.config.manager.channel_send_options == 6
    environ = dict(line.split("=", 1) for line in shell.splitlines())
    environ = {name: value.strip("'") for name, value in environ.items()}
    config = read_config_bytes(toml.encode(), environ=environ).config
    assert config.channel.receiver.port == 4001
    assert config.contexts == ("shop", "blog")
    assert config.channel.membership.static == (StaticMemberConfig(host="10.0.0.2"),)
