"""Several contexts on a node, each with a manager of its own kind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import pytest

from tests.waiting import wait_until
from tribes.config.managers import (
    BackupConfig,
    ContextConfig,
    ManagerConfig,
    PersistentConfig,
    StandardConfig,
)
from tribes.config.model import NodeConfig
from tribes.config.stores import FileStoreConfig
from tribes.errors import ConfigError, LocalProtocolError
from tribes.manager.backup import BackupManager
from tribes.manager.backup_core import BackupReplicator
from tribes.manager.delta import DeltaManager
from tribes.manager.persistent import PersistentManager
from tribes.manager.standard import StandardManager
from tribes.runtime.background import BackgroundNode
from tribes.runtime.group_channel import GroupChannel
from tribes.runtime.parts import Sessions
from tribes.web.freshness import bring

from .test_replicated_map import running

if TYPE_CHECKING:
    from pathlib import Path

    from tribes.manager.base import SessionManager

MakeConfig = Callable[..., NodeConfig]


def new(node: BackgroundNode, context: str, **values: object) -> str:
    session = node.manager(context).create()
    session.update(values)
    node.commit(session)
    return session.id


def test_t01_sessions_of_a_distributable_application_are_shared_and_of_another_are_not(
    make_config: MakeConfig,
) -> None:
    """By the kinds of their managers, and by what another member finds."""
    config = msgspec.structs.replace(
        make_config("a", contexts=("shop",), send_options=6),
        context={"blog": ContextConfig(distributable=False)},
    )
    a = BackgroundNode(config)
    b = BackgroundNode(msgspec.structs.replace(config, name="b"))
    assert type(a.manager("shop")) is DeltaManager
    assert type(a.manager("blog")) is StandardManager
    with running(a, b):
        wait_until(lambda: a.manager("shop").copies_on == ("b",))
        shared, own = new(a, "shop", x=1), new(a, "blog", x=1)
        found = b.manager("shop").find(shared)
        assert found is not None
        assert found["x"] == 1
        assert b.manager("blog").find(own) is None
        assert a.manager("blog").find(own) is not None
        assert a.manager("blog").copies_on == ()
        assert a.manager("blog").is_joined


def test_t02_kinds_are_mixed_on_one_node(make_config: MakeConfig, tmp_path: Path) -> None:
    """Each context's sessions are where its kind keeps them, over a stop too, and what a commit
    waits for is the context's own.
    """
    own = PersistentConfig(file=FileStoreConfig(directory=str(tmp_path / "wiki")))
    queued = ContextConfig(manager=ManagerConfig(channel_send_options=8))
    config = msgspec.structs.replace(
        make_config("a", contexts=("shop",), send_options=6),
        context={"wiki": ContextConfig(manager=own), "chat": queued},
    )
    plain = msgspec.structs.replace(config, name="b", contexts=("shop",), context={"chat": queued})
    a, b = BackgroundNode(config), BackgroundNode(plain)
    assert type(a.manager("wiki")) is PersistentManager
    with running(a, b):
        wait_until(lambda: a.manager("shop").copies_on == a.manager("chat").copies_on == ("b",))
        acked = {}
        for context in config.contexts:
            session = a.manager(context).create()
            session["x"] = context
            acked[context] = a.commit(session).acked
        assert acked == {"shop": ("b",), "chat": (), "wiki": ()}
        kept = new(a, "wiki", x=2)

        async def main() -> None:
            session = a.manager("wiki").find(kept)
            assert session is not None
            session["x"] = 3
            assert (await a.acommit(session)).missing == {}

        asyncio.run(main())
        with pytest.raises(LocalProtocolError, match="wiki"):
            b.manager("wiki")
    again = Sessions(config)
    again.start_local()
    found = again.listed_manager("wiki").find(kept)
    assert found is not None
    assert found["x"] == 3
    again.stop_local()


def test_t02_one_application_has_all_copies_and_another_some(make_config: MakeConfig) -> None:
    """Delta and Backup managers on the same three nodes: both replicate, each as its kind does, and
    each waits for its own members.
    """
    backup = ContextConfig(manager=BackupConfig(map_send_options=6))
    config = msgspec.structs.replace(
        make_config("a", contexts=("all",), send_options=6), context={"some": backup}
    )
    nodes = [BackgroundNode(msgspec.structs.replace(config, name=name)) for name in "abc"]
    a, b, _ = nodes

    def some(node: BackgroundNode) -> BackupManager:
        manager = node.manager("some")
        assert isinstance(manager, BackupManager)
        return manager

    def is_settled(node: BackgroundNode) -> bool:
        core = some(node).replicator
        return isinstance(core, BackupReplicator) and core.placed.is_settled

    with running(*nodes):
        wait_until(lambda: all(len(node.manager("all").copies_on) == 2 for node in nodes))
        wait_until(lambda: all(len(some(node).copies_on) == 2 for node in nodes))
        wait_until(lambda: all(map(is_settled, nodes)))
        acked = {}
        for context in config.contexts:
            session = a.manager(context).create()
            session["x"] = context
            acked[context] = len(a.commit(session).acked)
        assert acked == {"all": 2, "some": 1}
        keys = [new(a, "some", x=number) for number in range(20)]
        everywhere = [new(a, "all", x=number) for number in range(20)]
        for key in keys:
            assert sum(key in some(node).table for node in nodes) == 2
        for key in everywhere:
            assert all(node.manager("all").find(key) for node in nodes)
        for number, key in enumerate(keys):
            bring(some(b), (key,), None)
            found = some(b).find(key)
            assert found is not None
            assert found["x"] == number
            found["y"] = number
            assert b.commit(found).missing == {}
        for number, key in enumerate(keys):
            bring(some(a), (key,), None)
            found = some(a).find(key)
            assert found is not None
            assert found["y"] == number


async def test_a_channel_looks_after_them_too(make_config: MakeConfig, tmp_path: Path) -> None:
    """And saves them when it is left."""
    own = StandardConfig(pathname=str(tmp_path / "sessions"))
    config = msgspec.structs.replace(make_config("a"), context={"blog": ContextConfig(manager=own)})
    async with GroupChannel(config) as channel:
        session = channel.manager("blog").create()
        session["x"] = 1
        await channel.acommit(session)
    assert (tmp_path / "sessions").exists()
    async with GroupChannel(config) as channel:
        found = channel.manager("blog").find(session.id)
        assert found is not None
        assert found["x"] == 1


def test_a_context_that_a_member_lacks_is_not_there(make_config: MakeConfig) -> None:
    """Members give each other only what both have; the third has all of it."""
    a = BackgroundNode(make_config("a", contexts=("x", "y"), send_options=6))
    b = BackgroundNode(make_config("b", contexts=("y", "z"), send_options=6))
    c = BackgroundNode(make_config("c", contexts=("x", "y", "z"), send_options=6))
    with running(a, b, c):
        wait_until(lambda: set(c.manager("y").copies_on) == {"a", "b"})
        wait_until(lambda: a.manager("x").copies_on == ("c",))
        wait_until(lambda: b.manager("z").copies_on == ("c",))
        new(a, "x", n=1)
        new(a, "y", n=2)
        new(b, "z", n=3)
        held = {
            (node.config.name, context): len(node.manager(context).table)
            for node in (a, b, c)
            for context in node.config.contexts
        }
        assert set(held.values()) == {1}
        assert len(held) == 7


def test_settings_that_cannot_work_are_refused_before_a_start() -> None:
    with pytest.raises(ConfigError, match=r"context\.a\.manager: needs exactly one store"):
        Sessions(NodeConfig(context={"a": ContextConfig(manager=PersistentConfig())}))


def test_t03_every_manager_is_made_of_the_templates_settings() -> None:
    """Each application's manager and table, not only its record."""
    template = ManagerConfig(max_inactive_s=7, session_id_length=9, max_active_sessions=3)
    sessions = Sessions(NodeConfig(contexts=("a", "b"), manager=template))
    for context in ("a", "b"):
        manager: SessionManager = sessions.listed_manager(context)
        assert manager.table.max_inactive_s == 7
        assert manager.max_active_sessions == 3
        assert len(manager.create().id) == 2 * 9
