"""What docs/ shows works as shown."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import msgspec

from tests.ports import free_udp_port
from tests.snippets import DOCS, blocks, run
from tests.waiting import until
from tribes import GroupChannel, RpcChannel
from tribes.config import (
    DnsConfig,
    KubernetesConfig,
    MembershipConfig,
    StaticMemberConfig,
    check_config,
    config_from,
    read_config_bytes,
    value_at,
)
from tribes.config.http import HttpConfig
from tribes.config.local import local_config_from
from tribes.config.managers import ManagerConfig, PersistentConfig, StandardConfig
from tribes.config.model import ChannelConfig, NodeConfig, ReceiverConfig
from tribes.config.stores import EnvelopeConfig, FileStoreConfig, SQLStoreConfig
from tribes.gauges import NodeGauges, PeerGauges
from tribes.testing.plan import ACTIONS

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

BACKPRESSURE = DOCS / "backpressure.md"
MEMBERSHIP = DOCS / "membership.md"
OPERATIONS = DOCS / "operations.md"
STORES = DOCS / "stores.md"
TESTING = DOCS / "testing.md"


def test_fault_test_of_the_guide_passes() -> None:
    """The example is a test, so it is run."""
    [code] = blocks("testing.md")
    names = run(code)
    names["test_my_handler_survives_a_hung_node"]()


def test_settings_of_the_page_about_stops_work() -> None:
    """The TOML is read, and names what it is said to name."""
    texts = blocks("operations.md", "toml")
    config = read_config_bytes("\n".join(reversed(texts)).encode()).config
    check_config(config)
    assert config.http == HttpConfig(token_file="/etc/tribes/http.token")
    assert config.manager.pathname == "/var/lib/shop/{context}.sessions"


def test_settings_that_can_be_tuned_are_settings() -> None:
    """Each that these tables name is one; the default bounds are those told."""
    text = OPERATIONS.read_text().split("# Sizing and tuning")[1].split("\n## ")[0]
    named = re.findall(r"`((?:channel|manager)\.[a-z_.]+)`", text)
    assert len(named) >= 8
    for key in named:
        if key != "manager.kind":
            value_at(NodeConfig(), key)
    sender = NodeConfig().channel.sender
    bounds = sender.queue_max_bytes, sender.live_queue_max_bytes, sender.unacked_max_bytes
    assert bounds == (4 * 1024 * 1024,) * 3
    assert "4 MiB each" in text


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
    examples = blocks("membership.md", "toml")
    assert len(examples) == 4
    for example in examples:
        check_config(config_from(tomllib.loads(example)))


async def test_rpc_and_maps_work_as_shown() -> None:
    """The three examples, on two members of one group."""
    names = _examples("rpc-and-maps.md")
    settings = ChannelConfig(
        membership=MembershipConfig(port=free_udp_port(), frequency=50),
        receiver=ReceiverConfig(port=0),
    )
    async with (
        GroupChannel(NodeConfig(name="a", channel=settings)) as a,
        GroupChannel(NodeConfig(name="b", channel=settings)) as b,
    ):
        await until(lambda: a.members and b.members)
        RpcChannel(b, b"prices", names["answer"])
        assert (await names["ask_everybody"](a)).bodies == [b"42"]
        ours, theirs = await names["share_prices"](a), await names["share_prices"](b)
        await until(lambda: dict(ours) == dict(theirs) == {"apple": 3, "pear": 4})
        for channel in (a, b):
            assert await names["keep_orders"](channel) == {"state": "new"}


def _examples(page: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for code in blocks(page):
        run(code, names)
    return names


def test_files_of_the_configuration_guide_load() -> None:
    """The examples in TOML, XML and of the environment."""
    contexts, toml = blocks("configuration.md", "toml")
    check_config(read_config_bytes(contexts.encode()).config)
    [python] = blocks("configuration.md")
    run(python)
    [xml] = blocks("configuration.md", "xml")
    [shell] = blocks("configuration.md", "sh")
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


def test_every_setting_of_stores_is_in_the_guide_with_its_default() -> None:
    """Under its name, and Tomcat's; what the guide shows as TOML can be loaded."""
    text = STORES.read_text()
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| (.*?) \| (.*?) \|", text, re.MULTILINE)
    shown = {name: " ".join(row[1:]) for row in rows for name in re.findall(r"[a-z_]+", row[0])}
    for kind in (
        EnvelopeConfig,
        FileStoreConfig,
        PersistentConfig,
        SQLStoreConfig,
        StandardConfig,
    ):
        for field in msgspec.structs.fields(kind):
            if field.name == "envelope" or field.name in ManagerConfig.__struct_fields__:
                continue
            assert field.name in shown, field.name
            if isinstance(field.default, int) and not field.name.endswith("bytes"):
                assert str(field.default).lower() in shown[field.name], field.name
    [example] = blocks("stores.md", "toml")
    config = local_config_from(tomllib.loads(example))
    assert isinstance(config, PersistentConfig)
    assert config.sql is not None


def test_the_first_example_of_stores_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sessions are in the directory that it names after a stop."""
    code, memcached = blocks("stores.md")
    run(memcached)  # asks no server before it is started
    monkeypatch.chdir(tmp_path)
    names = run(code, {"app": None})
    sessions = names["sessions"]
    sessions.start()
    sessions.commit(sessions.manager("shop").create())
    sessions.stop()
    assert len(list((tmp_path / "sessions").glob("*.session"))) == 1
