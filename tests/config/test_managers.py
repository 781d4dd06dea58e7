"""A manager for each context: the template, what goes over it, and what cannot be."""

from __future__ import annotations

import tomllib
from typing import Any

import msgspec
import pytest

from tribes.config import as_toml, config_from, read_config_bytes
from tribes.config.explain import explain
from tribes.config.managers import (
    MANAGER_KINDS,
    BackupConfig,
    ContextConfig,
    ManagerConfig,
    MemcachedConfig,
    PersistentConfig,
    StandardConfig,
)
from tribes.config.model import NodeConfig, check_values
from tribes.config.stores import FileStoreConfig, SQLStoreConfig
from tribes.errors import ConfigError

MIXED = """
contexts = ["shop", "blog"]
[manager]
channel_send_options = "use_ack, sync"
max_inactive_s = 60
[context.blog]
distributable = false
[context.wiki.manager]
kind = "PersistentManager"
maxIdleSwap = 600
[context.wiki.manager.FileStore]
directory = "/var/lib/wiki"
[context."a.example#intranet".manager]
kind = "backup"
backup_count = 2
mapSendOptions = "async"
"""


def load(text: str, **environ: str) -> NodeConfig:
    return read_config_bytes(text.encode(), source="node.toml", environ=environ).config


def test_t02_an_applications_own_manager_goes_over_the_template() -> None:
    """Kinds are mixed on one node; what a context does not say of what all share is the node's."""
    config = load(MIXED)
    check_values(config)
    assert config.contexts == ("shop", "blog", "wiki", "a.example#intranet")
    assert config.manager_of("shop") == ManagerConfig(channel_send_options=6, max_inactive_s=60)
    assert config.manager_of("blog") == StandardConfig(channel_send_options=6, max_inactive_s=60)
    assert config.manager_of("wiki") == PersistentConfig(
        channel_send_options=6,
        max_inactive_s=60,
        max_idle_swap_s=600,
        file=FileStoreConfig(directory="/var/lib/wiki"),
    )
    assert config.manager_of("a.example#intranet") == BackupConfig(
        channel_send_options=6, max_inactive_s=60, backup_count=2, map_send_options=8
    )
    assert config.replicated == ("shop", "a.example#intranet")


def _other(value: Any) -> Any:
    if value is True or value is False:
        return not value
    if value == "serve":
        return "error"
    return "x" if isinstance(value, str) else value + 7


def test_t03_every_attribute_of_the_template_is_every_contexts() -> None:
    """Each setting of each kind of template is set, and each application has it."""
    for kind in MANAGER_KINDS.values():
        plain = {
            field.name: _other(field.default)
            for field in msgspec.structs.fields(kind)
            if isinstance(field.default, int | float | str)
        }
        if kind is MemcachedConfig:
            plain["memcached_nodes"] = "n1:h:1"
        template = kind(**plain)
        config = NodeConfig(contexts=("a", "b"), manager=template)
        for context in config.contexts:
            for name, value in plain.items():
                assert getattr(config.manager_of(context), name) == value


@pytest.mark.parametrize("whole", [False, True])
def test_what_is_written_as_toml_loads_to_an_equal_configuration(whole: bool) -> None:
    config = load(MIXED)
    text = as_toml(config, whole=whole)
    assert config_from(tomllib.loads(text)) == config


def test_a_template_of_another_kind_is_written_and_read() -> None:
    config = NodeConfig(
        contexts=("a",),
        manager=PersistentConfig(file=FileStoreConfig(directory="/s/{context}"), max_inactive_s=9),
        context={
            "b": ContextConfig(manager=PersistentConfig(sql=SQLStoreConfig(url="sqlite://"))),
            "c": ContextConfig(manager=ManagerConfig(max_inactive_s=9)),
            "d": ContextConfig(manager=MemcachedConfig(memcached_nodes="h:1", sticky=False)),
        },
    )
    assert config_from(tomllib.loads(as_toml(config))) == config


def test_a_context_that_names_another_store_leaves_the_templates() -> None:
    config = load(
        """
        [manager]
        kind = "persistent"
        save_on_restart = false
        [manager.file]
        directory = "/s"
        [context.b.manager.sql]
        url = "sqlite:///b"
        """
    )
    assert config.manager_of("b") == PersistentConfig(
        save_on_restart=False, sql=SQLStoreConfig(url="sqlite:///b")
    )


def test_contexts_of_a_template_with_a_file_have_one_each() -> None:
    """Nothing in a context's name leads out of the directory."""
    template = StandardConfig(pathname="/var/{context}.sessions")
    config = NodeConfig(contexts=("shop", "../x"), manager=template)
    check_values(config)
    assert config.manager_of("shop") == StandardConfig(pathname="/var/shop.sessions")
    assert config.manager_of("../x") == StandardConfig(pathname="/var/%2e%2e%2fx.sessions")


def test_two_contexts_in_one_directory_are_refused() -> None:
    manager = PersistentConfig(file=FileStoreConfig(directory="/s"))
    config = NodeConfig(contexts=("a", "b"), manager=manager)
    with pytest.raises(ConfigError, match=r"manager.file.directory: '/s' is that of .*'a' and 'b'"):
        check_values(config)


def test_the_environment_goes_over_a_contexts_manager() -> None:
    """A name there has no capitals, dots or marks: the one that is known is meant."""
    config = load(
        MIXED,
        TRIBES_CONTEXT__A_EXAMPLE_INTRANET__MANAGER__BACKUP_COUNT="3",
        TRIBES_CONTEXT__NEW__MANAGER__KIND="backup",
        TRIBES_CONTEXT__NEW__MANAGER__MAP_SEND_OPTIONS="use_ack",
        TRIBES_MANAGER__MAX_INACTIVE_S="70",
    )
    assert config.manager_of("a.example#intranet") == BackupConfig(
        channel_send_options=6, max_inactive_s=70, backup_count=3, map_send_options=8
    )
    assert config.manager_of("new") == BackupConfig(
        channel_send_options=6, max_inactive_s=70, map_send_options=2
    )


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[manager]\nkind = 'bakup'", "manager.kind: found 'bakup'; is 'backup' meant"),
        ("[manager]\nbackup_count = 2", "manager.backup_count: .* kind 'delta'; .* 'backup'"),
        ("[context.a.manager]\nkind = 'x'", "context.a.manager.kind: .*allowed are delta, backup"),
        ("[context.a.manager]\nper_request = true", "no setting of a manager of kind 'delta'"),
        ("[context.a.manager]\nmax_inactve_s = 1", "is max_inactive_s meant"),
        ("[context.a]\ndistributabel = true", "context.a.distributabel: .*is distributable meant"),
        ("[context.a.manager]\nmax_inactive_s = 'x'", "must be a whole number, found a text"),
    ],
)
def test_what_cannot_be_is_named(text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        load(text)


@pytest.mark.parametrize(
    ("manager", "match"),
    [
        (BackupConfig(backup_count=0), "context.a.manager.backup_count: must be greater than 0"),
        (BackupConfig(cache_max=0), "context.a.manager.cache_max: must be greater than 0"),
        (BackupConfig(weight=17), "context.a.manager.weight: must be 0 .* to 16, found 17"),
        (BackupConfig(weight=-1), "context.a.manager.weight: must be 0 .* to 16, found -1"),
        (BackupConfig(zone="z" * 65), "context.a.manager.zone: .* 64 characters, found 65"),
        (
            BackupConfig(map_send_options=8, min_copies=1),
            "with map_send_options = 8 no commit waits",
        ),
        (PersistentConfig(), "context.a.manager: needs exactly one store"),
        (ManagerConfig(dirty_max=0), "context.a.manager.dirty_max"),
        (ManagerConfig(pathname="x"), "context.a.manager.pathname: .* manager.pathname"),
        (MemcachedConfig(memcached_nodes="x"), "memcachedNodes: 'x' is no node"),
    ],
)
def test_values_of_a_contexts_manager_are_checked(manager: Any, match: str) -> None:
    config = NodeConfig(context={"a": ContextConfig(manager=manager)})
    with pytest.raises(ConfigError, match=match):
        check_values(config)


def test_each_setting_of_each_kind_is_explained() -> None:
    for kind, record in MANAGER_KINDS.items():
        for name in record.__struct_fields__:
            found = "\n".join(explain(f"manager.{name}"))
            assert f"manager.{name} = " in found or name in ("file", "sql", "envelope"), name
            assert name in ManagerConfig.__struct_fields__ or not found or kind in found
