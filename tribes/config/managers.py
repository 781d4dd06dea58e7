"""The session managers' settings: one record per kind, told apart by ``kind``.

A context's manager is described by one of these. Each holds what all managers share, and what only
its kind has. To add a kind: a subclass of `ManagerConfig` with its tag, its name in `AnyManager`,
and a factory for it in :mod:`tribes.runtime.managers`. Everything else (TOML, environment, Tomcat's
XML, ``tribes config``) goes by the records.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, TypeAlias, get_args

import msgspec

from tribes.config.bounds import check_positive
from tribes.config.cookies import CookieConfig
from tribes.config.manager import DEFAULT_KIND, ManagerConfig, waits_for_members
from tribes.config.memcached import MemcachedConfig, check_memcached
from tribes.config.patterns import compiled
from tribes.config.session_rules import check_session_rules
from tribes.config.stores import (
    EnvelopeConfig,
    FileStoreConfig,
    SQLStoreConfig,
    check_file_store,
    check_sql_store,
)
from tribes.errors import ConfigError

__all__ = [
    "DEFAULT_KIND",
    "MANAGER_KINDS",
    "AnyManager",
    "AttributesConfig",
    "BackupConfig",
    "ContextConfig",
    "ManagerConfig",
    "MemcachedConfig",
    "PersistentConfig",
    "StandardConfig",
    "check_manager",
    "check_persistent",
    "kind_of",
    "shared_settings",
    "waits_for_members",
]


WEIGHT_MAX: Final = 16
ZONE_MAX_CHARS: Final = 64
"""Greater ones the members would not tell each other."""


class BackupConfig(ManagerConfig, frozen=True, tag="backup"):
    """One copy of each session beside its first, or more (Tomcat: ``BackupManager``).

    Attributes:
        backup_count: Copies of each session on other members.
        map_send_options: Guarantee of a commit instead of ``channel_send_options``, as in Tomcat
            (``mapSendOptions``).
        rpc_timeout: Milliseconds to wait for an answer to a question (``rpcTimeout``).
        access_timeout: Milliseconds without a sign of the other's manager after which it is taken
            for gone (``accessTimeout``).
        terminate_on_start_failure: Fail the start of the node when the others' sessions cannot be
            had (``terminateOnStartFailure``); false: serve, and get them later.
        weight: How many sessions this member takes, compared with others, 0 to 16; 0: none.
        zone: What fails together with this member beside its host, such as a rack: copies lie in
            others, if there are any.
        cache_max: Sessions of other members that are kept here while requests use them.
    """

    backup_count: int = 1
    map_send_options: int = 6
    rpc_timeout: int = 15_000
    access_timeout: int = 5000
    terminate_on_start_failure: bool = False
    weight: int = 1
    zone: str = ""
    cache_max: int = 10_000

    @property
    def send_options(self) -> int:
        """Guarantee of a commit, as this kind has it."""
        return self.map_send_options


class StandardConfig(ManagerConfig, frozen=True, tag="standard"):
    """The sessions of one process, in no group (Tomcat: ``StandardManager``).

    Attributes:
        envelope: How they are protected in their file, ``pathname``.
    """

    in_group: ClassVar[bool] = False

    envelope: EnvelopeConfig = EnvelopeConfig()


class PersistentConfig(ManagerConfig, frozen=True, tag="persistent"):
    """The sessions of one process and a store (Tomcat: ``PersistentManager``, ``PersistentValve``).

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
        block_on_acquire: With ``per_request`` and ``lock = "local"``, a request waits while
            another one of its session runs here, ``lock_timeout`` at most; false: it is answered
            429 at once (``semaphoreBlockOnAcquire``).
        filter: Regular expression; requests whose path matches in full have no session
            (``filter``).
        envelope: How values are protected in the store.
    """

    in_group: ClassVar[bool] = False

    file: FileStoreConfig | None = None
    sql: SQLStoreConfig | None = None
    save_on_restart: bool = True
    max_idle_backup_s: int = -1
    min_idle_swap_s: int = -1
    max_idle_swap_s: int = -1
    check_interval_s: int = 60
    per_request: bool = False
    block_on_acquire: bool = True
    filter: str = ""
    envelope: EnvelopeConfig = EnvelopeConfig()


AnyManager: TypeAlias = (
    ManagerConfig | BackupConfig | StandardConfig | PersistentConfig | MemcachedConfig
)
"""Every kind of manager that a context can have."""


def kind_of(kind: type[ManagerConfig]) -> str:
    """How a record's kind is written: ``"delta"``."""
    return str(kind.__struct_config__.tag)


MANAGER_KINDS: Final[dict[str, type[ManagerConfig]]] = {
    kind_of(each): each for each in get_args(AnyManager)
}
"""The records by the names of their kinds."""


class AttributesConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Attributes of the application, which its members share (Tomcat: ``ReplicatedContext``).

    Attributes:
        map_send_options: What setting one waits for (``mapSendOptions``).
    """

    map_send_options: int = 2


class ContextConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one context has otherwise than the others (Tomcat: ``Context``).

    Attributes:
        manager: Its manager, whole; unset: the node's. In TOML and the environment, what it does
            not say is the node's.
        distributable: Whether the group's members share its sessions (``<distributable/>``). If
            not, and it has no manager of its own, it has a Standard one.
        attributes: Attributes of the application, shared by its members; unset: it has none.
        cookie: Its session cookie, over what the application says; unset: as that says.
    """

    manager: AnyManager | None = None
    distributable: bool = True
    attributes: AttributesConfig | None = None
    cookie: CookieConfig | None = None


def shared_settings(manager: ManagerConfig) -> dict[str, Any]:
    """What a manager's record says of what all kinds have."""
    return {name: getattr(manager, name) for name in ManagerConfig.__struct_fields__}


_POSITIVE: Final = (
    *("commit_timeout", "lock_timeout", "inbox_max_bytes", "dirty_max"),
    *("send_all_sessions_size", "expiry_interval"),
)


def check_manager(manager: ManagerConfig, key: str) -> None:
    """Refuse values that cannot work.

    Args:
        manager: Of any kind.
        key: Where it stands.

    Raises:
        ConfigError: Names the key and what to write.
    """
    for name in _POSITIVE:
        check_positive(f"{key}.{name}", getattr(manager, name))
    transfer_s = manager.state_transfer_timeout_s
    if transfer_s < 0 and transfer_s != -1:
        raise ConfigError(
            "must be 0 or more seconds, or -1 (wait until all sessions are here), found "
            f"{transfer_s:g}",
            key=f"{key}.state_transfer_timeout_s",
        )
    if manager.queue_timeout < 0:
        raise ConfigError(
            f"must be 0 (never wait) or more, found {manager.queue_timeout}",
            key=f"{key}.queue_timeout",
        )
    check_session_rules(manager, key)
    if isinstance(manager, MemcachedConfig):
        try:
            check_memcached(manager)
        except ConfigError as why:
            raise ConfigError(why.message, key=f"{key}.{why.key}") from None
    if isinstance(manager, PersistentConfig):
        _check_semaphore(manager, key)
    if not manager.in_group:
        # There it is the store that a commit waits for, whatever the send options say.
        return
    _check_unreplicated(manager, key)
    if isinstance(manager, BackupConfig):
        _check_backup(manager, key)


def _check_backup(manager: BackupConfig, key: str) -> None:
    for name in ("backup_count", "rpc_timeout", "access_timeout", "cache_max"):
        check_positive(f"{key}.{name}", getattr(manager, name))
    if not 0 <= manager.weight <= WEIGHT_MAX:
        raise ConfigError(
            f"must be 0 (hold nothing) to {WEIGHT_MAX}, found {manager.weight}",
            key=f"{key}.weight",
        )
    if len(manager.zone) > ZONE_MAX_CHARS:
        raise ConfigError(
            f"must have at most {ZONE_MAX_CHARS} characters, found {len(manager.zone)}",
            key=f"{key}.zone",
        )


def check_persistent(config: PersistentConfig, *, has_store: bool, key: str = "") -> None:
    """Refuse values that cannot work together.

    Args:
        config: What is checked.
        has_store: A store of the caller's own is there beside it.
        key: Where it stands.

    Raises:
        ConfigError: Names the key and what to write.
    """
    at = f"{key}." if key else ""
    if (config.file is not None) + (config.sql is not None) + has_store != 1:
        raise ConfigError(
            "needs exactly one store: file (FileStore), sql (JDBCStore), or one of your own",
            key=key or "PersistentManager",
        )
    backup, least, most = config.max_idle_backup_s, config.min_idle_swap_s, config.max_idle_swap_s
    if 0 <= most < least:
        raise ConfigError(
            f"is {most} s, less than the min_idle_swap_s of {least}; write at least that",
            key=f"{at}max_idle_swap_s",
        )
    if 0 <= most < backup:
        raise ConfigError(
            f"is {backup} s, more than the max_idle_swap_s of {most}, so no backup would be made; "
            f"write at most {most}",
            key=f"{at}max_idle_backup_s",
        )
    if config.check_interval_s < 1:
        raise ConfigError(
            f"must be 1 or more, found {config.check_interval_s}", key=f"{at}check_interval_s"
        )
    compiled(config.filter, f"{at}filter")
    if config.file is not None:
        check_file_store(config.file, f"{at}file")
    if config.sql is not None:
        check_sql_store(config.sql, f"{at}sql")


def _check_semaphore(config: PersistentConfig, key: str) -> None:
    if config.per_request and config.lock == "cluster":
        raise ConfigError(
            "is 'cluster', but several processes may use the store and it has no locks; write "
            "'local' (one request at a time in each process; changes of several are merged)",
            key=f"{key}.lock",
        )
    if not config.block_on_acquire and (not config.per_request or config.lock == "none"):
        raise ConfigError(
            "is false, but no request waits for another one; write per_request = true and "
            "lock = 'local' as well",
            key=f"{key}.block_on_acquire",
        )


def _check_unreplicated(manager: ManagerConfig, key: str) -> None:
    if manager.on_unreplicated not in ("serve", "error"):
        raise ConfigError(
            f"must be 'serve' or 'error', found {manager.on_unreplicated!r}; a function can be "
            "given to SessionMiddleware or to a commit, not in the configuration",
            key=f"{key}.on_unreplicated",
        )
    if manager.min_copies < 0:
        raise ConfigError(f"must be 0 or more, found {manager.min_copies}", key=f"{key}.min_copies")
    if waits_for_members(manager):
        return
    # These would be ignored in silence: without waiting nobody knows who has a commit.
    name = "map_send_options" if isinstance(manager, BackupConfig) else "channel_send_options"
    remedy = (
        f"but with {name} = {manager.send_options} no commit waits for the members; "
        f"write {name} = 6 (2: received is enough)"
    )
    if manager.on_unreplicated == "error":
        raise ConfigError(
            f"is 'error', {remedy}, or on_unreplicated = 'serve'", key=f"{key}.on_unreplicated"
        )
    if manager.min_copies:
        raise ConfigError(
            f"is {manager.min_copies}, {remedy}, or min_copies = 0", key=f"{key}.min_copies"
        )
