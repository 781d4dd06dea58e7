"""Managers without a channel by our names and by Tomcat's."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from tribes.config.local import local_config_from
from tribes.config.managers import PersistentConfig, StandardConfig, check_persistent
from tribes.config.stores import EnvelopeConfig, FileStoreConfig, SQLStoreConfig
from tribes.errors import ConfigError

TOMCAT = """
[PersistentManager]
saveOnRestart = false
maxIdleBackup = 60
minIdleSwap = 120
maxIdleSwap = 300
maxActiveSessions = 500
maxInactiveInterval = 900
[PersistentManager.JDBCStore]
driverName = "com.mysql.jdbc.Driver"
connectionURL = "jdbc:mysql://db/tomcat"
connectionName = "tomcat"
connectionPassword = "secret"
sessionTable = "tomcat$sessions"
sessionIdCol = "session_id"
sessionAppCol = "app_name"
sessionDataCol = "session_data"
sessionValidCol = "valid_session"
sessionMaxInactiveCol = "max_inactive"
sessionLastAccessedCol = "last_access"
"""


def test_tomcats_names_are_understood() -> None:
    config = local_config_from(tomllib.loads(TOMCAT))
    assert config == PersistentConfig(
        save_on_restart=False,
        max_idle_backup_s=60,
        min_idle_swap_s=120,
        max_idle_swap_s=300,
        max_active_sessions=500,
        max_inactive_s=900,
        sql=SQLStoreConfig(
            driver_name="com.mysql.jdbc.Driver",
            url="jdbc:mysql://db/tomcat",
            user="tomcat",
            password="secret",
            table="tomcat$sessions",
            id_col="session_id",
            app_col="app_name",
            data_col="session_data",
            valid_col="valid_session",
            max_inactive_col="max_inactive",
            last_accessed_col="last_access",
        ),
    )
    assert "secret" not in repr(config)


def test_our_names_are_understood() -> None:
    assert local_config_from({"StandardManager": {"pathname": "/s"}}) == StandardConfig(
        pathname="/s"
    )
    found = {"PersistentManager": {"file": {"directory": "/s", "fsync": "full"}}}
    wanted = PersistentConfig(file=FileStoreConfig(directory="/s", fsync="full"))
    assert local_config_from(found) == wanted


def test_keys_do_not_show_themselves() -> None:
    assert "ab" * 32 not in repr(EnvelopeConfig(keys=("ab" * 32,)))


@pytest.mark.parametrize(
    ("found", "match"),
    [
        ({}, "write one table"),
        ({"DeltaManager": {}}, "found DeltaManager"),
        ({"StandardManager": {"pathnam": "x"}}, r"StandardManager.pathnam: .* pathname meant"),
        (
            {"StandardManager": {"pathname": 1}},
            "StandardManager.pathname: must be a text, found a whole number",
        ),
        ({"PersistentManager": {}}, "exactly one store"),
        (
            {"PersistentManager": {"FileStore": {"directory": "a"}, "JDBCStore": {"url": "b"}}},
            "exactly one store",
        ),
        ({"PersistentManager": {"FileStore": {}}}, "directory"),
    ],
)
def test_what_cannot_be_is_named(found: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        local_config_from(found, source="tribes.toml")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"max_idle_swap_s": 5, "min_idle_swap_s": 6}, "max_idle_swap_s: is 5 s, less than"),
        ({"max_idle_swap_s": 5, "max_idle_backup_s": 6}, "max_idle_backup_s: is 6 s, more than"),
        ({"check_interval_s": 0}, "check_interval_s: must be 1 or more"),
    ],
)
def test_times_that_contradict_each_other_are_refused(settings: dict[str, int], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        check_persistent(PersistentConfig(**settings), has_store=True)  # type: ignore[arg-type]
