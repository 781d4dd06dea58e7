"""The configuration of managers without a channel, and of their stores, as typed data.

Every docstring line gives Tomcat's attribute where there is one; `local_config_from` takes both.
Times are seconds, as in Tomcat, and sizes bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from tribes.config.load import add_aliases, convert_named
from tribes.config.model import ManagerConfig
from tribes.config.secret import Secret
from tribes.errors import ConfigError

__all__ = [
    "EnvelopeConfig",
    "FileStoreConfig",
    "PersistentConfig",
    "SQLStoreConfig",
    "StandardConfig",
    "check_persistent",
    "local_config_from",
]


class _Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Shared settings of the configuration records: immutable, by keyword, strict."""


class EnvelopeConfig(_Config, frozen=True):
    """How values are protected; Tomcat has nothing like it.

    Attributes:
        keys: Secrets as 64 hexadecimal digits or more; the first seals, all open. None: values are
            checked against damage only.
        encrypt: Encrypt too.
        compress: Compress where that makes a value shorter.
    """

    keys: tuple[str, ...] = ()
    encrypt: bool = False
    compress: bool = False

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "keys", tuple(Secret(key) for key in self.keys))


class FileStoreConfig(_Config, frozen=True):
    """Tomcat's FileStore.

    Attributes:
        directory: One file per session in it (``directory``).
        fsync: What a save waits for: ``"off"``, ``"data"`` or ``"full"``.
        value_max_bytes: A longer session is not stored.
    """

    directory: str
    fsync: Literal["off", "data", "full"] = "data"
    value_max_bytes: int = 16 * 1024 * 1024


class SQLStoreConfig(_Config, frozen=True):
    """Tomcat's JDBCStore and DataSourceStore.

    Attributes:
        url: The database, SQLAlchemy's way or Tomcat's (``connectionURL``).
        driver_name: The Java driver's class, if you like (``driverName``).
        user: Instead of the URL's (``connectionName``).
        password: Instead of the URL's (``connectionPassword``).
        app: What marks this application's rows; empty: the context's name.
        table: ``sessionTable``.
        id_col: ``sessionIdCol``.
        app_col: ``sessionAppCol``.
        data_col: ``sessionDataCol``.
        valid_col: ``sessionValidCol``.
        max_inactive_col: ``sessionMaxInactiveCol``.
        last_accessed_col: ``sessionLastAccessedCol``.
        version_col: The column of the version.
        create_table: Make the table if it is not there.
        pool_size: Connections that the process keeps open.
        timeout_s: Seconds that a connection, and an answer, may take.
        value_max_bytes: A longer session is not stored.
    """

    url: str
    driver_name: str = ""
    user: str = ""
    password: str = ""
    app: str = ""
    table: str = "tribes_sessions"
    id_col: str = "id"
    app_col: str = "app"
    data_col: str = "data"
    valid_col: str = "valid"
    max_inactive_col: str = "maxinactive"
    last_accessed_col: str = "lastaccess"
    version_col: str = "version"
    create_table: bool = True
    pool_size: int = 5
    timeout_s: int = 10
    value_max_bytes: int = 16 * 1024 * 1024

    def __post_init__(self) -> None:
        # A password may stand in the URL, too.
        for name in ("url", "password"):
            msgspec.structs.force_setattr(self, name, Secret(getattr(self, name)))


class StandardConfig(_Config, frozen=True):
    """Tomcat's StandardManager.

    Attributes:
        pathname: File that keeps the sessions from a clean stop to the next start (``pathname``);
            empty: they end with the process.
        envelope: How they are protected in it.
        manager: What all managers share.
    """

    pathname: str = ""
    envelope: EnvelopeConfig = EnvelopeConfig()
    manager: ManagerConfig = ManagerConfig()


class PersistentConfig(_Config, frozen=True):
    """Tomcat's PersistentManager, and its PersistentValve.

    Attributes:
        file: The store is a directory (``FileStore``).
        sql: The store is a database (``JDBCStore``, ``DataSourceStore``).
        save_on_restart: Save every session at stop; false: they end (``saveOnRestart``).
        max_idle_backup_s: Idle for so long, a session gets a copy in the store; -1: never
            (``maxIdleBackup``).
        min_idle_swap_s: Only what is idle for so long leaves the memory; -1: sessions never leave
            it to reduce their number (``minIdleSwap``).
        max_idle_swap_s: Idle for so long, a session leaves the memory; -1: never
            (``maxIdleSwap``).
        check_interval_s: Seconds between two looks for what expired in the store
            (``checkInterval``).
        per_request: Load before and save after every request (``PersistentValve``).
        filter: Regular expression; requests whose path matches in full have no session
            (``filter``).
        envelope: How values are protected in the store.
        manager: What all managers share.
    """

    file: FileStoreConfig | None = None
    sql: SQLStoreConfig | None = None
    save_on_restart: bool = True
    max_idle_backup_s: int = -1
    min_idle_swap_s: int = -1
    max_idle_swap_s: int = -1
    check_interval_s: int = 60
    per_request: bool = False
    filter: str = ""
    envelope: EnvelopeConfig = EnvelopeConfig()
    manager: ManagerConfig = ManagerConfig()


add_aliases(
    {
        PersistentConfig: {
            "FileStore": "file",
            "JDBCStore": "sql",
            "DataSourceStore": "sql",
            "maxIdleBackup": "max_idle_backup_s",
            "minIdleSwap": "min_idle_swap_s",
            "maxIdleSwap": "max_idle_swap_s",
            "checkInterval": "check_interval_s",
        },
        SQLStoreConfig: {
            "connectionURL": "url",
            "connectionName": "user",
            "connectionPassword": "password",
            "sessionTable": "table",
            "sessionIdCol": "id_col",
            "sessionAppCol": "app_col",
            "sessionDataCol": "data_col",
            "sessionValidCol": "valid_col",
            "sessionMaxInactiveCol": "max_inactive_col",
            "sessionLastAccessedCol": "last_accessed_col",
        },
    }
)


def local_config_from(
    found: Mapping[str, Any], *, source: str = ""
) -> StandardConfig | PersistentConfig:
    """Make a configuration of one table: ``[StandardManager]`` or ``[PersistentManager]``.

    Args:
        found: A mapping with one of these two names; under it our names or Tomcat's.
        source: Where it comes from, for errors.

    Raises:
        ConfigError: It has not exactly one of them, or a key is not known or has a wrong value.
    """
    if len(found) != 1 or next(iter(found)) not in ("StandardManager", "PersistentManager"):
        raise ConfigError(
            f"write one table, StandardManager or PersistentManager; found {', '.join(found)}",
            source=source,
        )
    [(name, table)] = found.items()
    if name == "StandardManager":
        return convert_named(table, StandardConfig, path=name, source=source)
    made = convert_named(table, PersistentConfig, path=name, source=source)
    check_persistent(made, has_store=False)
    return made


def check_persistent(config: PersistentConfig, *, has_store: bool) -> None:
    """Refuse values that cannot work together.

    Args:
        config: What is checked.
        has_store: A store of the caller's own is there beside it.

    Raises:
        ConfigError: Names the key and what to write.
    """
    if (config.file is not None) + (config.sql is not None) + has_store != 1:
        raise ConfigError(
            "needs exactly one store: file (FileStore), sql (JDBCStore), or one of your own",
            key="PersistentManager",
        )
    backup, least, most = config.max_idle_backup_s, config.min_idle_swap_s, config.max_idle_swap_s
    if 0 <= most < least:
        raise ConfigError(
            f"is {most} s, less than the min_idle_swap_s of {least}; write at least that",
            key="max_idle_swap_s",
        )
    if 0 <= most < backup:
        raise ConfigError(
            f"is {backup} s, more than the max_idle_swap_s of {most}, so no backup would be made; "
            f"write at most {most}",
            key="max_idle_backup_s",
        )
    if config.check_interval_s < 1:
        raise ConfigError(
            f"must be 1 or more, found {config.check_interval_s}", key="checkInterval"
        )
