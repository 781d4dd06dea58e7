"""The configuration of the stores behind managers without a channel, as typed data.

Every docstring line gives Tomcat's attribute where there is one. Times are seconds, as in Tomcat,
and sizes bytes.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from tribes.config.bounds import check_positive
from tribes.config.secret import Secret
from tribes.errors import ConfigError

__all__ = [
    "EnvelopeConfig",
    "FileStoreConfig",
    "SQLStoreConfig",
    "check_file_store",
    "check_sql_store",
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


def check_file_store(config: FileStoreConfig, key: str) -> None:
    """Refuse values that cannot work.

    Raises:
        ConfigError: Names the key and what to write.
    """
    if not config.directory:
        raise ConfigError("is empty; write the path of a directory", key=f"{key}.directory")
    check_positive(f"{key}.value_max_bytes", config.value_max_bytes)


def check_sql_store(config: SQLStoreConfig, key: str) -> None:
    """Refuse values that cannot work. The URL is looked at when the database is opened.

    Raises:
        ConfigError: Names the key and what to write.
    """
    for name in ("pool_size", "timeout_s", "value_max_bytes"):
        check_positive(f"{key}.{name}", getattr(config, name))
