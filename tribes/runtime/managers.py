"""Which session manager a configuration means: one factory per kind.

A new kind has its record in :mod:`tribes.config.managers` and is registered here. One whose
sessions are shared by a group's members is made by `Sessions`, and one that is alone with its
memory and perhaps a store by `LocalSessions`, which also looks after it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from tribes.config.managers import (
    BackupConfig,
    ManagerConfig,
    MemcachedConfig,
    PersistentConfig,
    StandardConfig,
    check_persistent,
    kind_of,
)
from tribes.errors import ConfigError
from tribes.manager.backup import BackupManager
from tribes.manager.delta import DeltaManager
from tribes.manager.persistent import PersistentManager
from tribes.manager.record import deciseconds
from tribes.manager.rules import Rules
from tribes.manager.shelf import Shelf
from tribes.manager.standard import StandardManager
from tribes.manager.stored import StoredForm
from tribes.runtime.session_news import report_listener, report_session
from tribes.stores.envelope import Envelope

if TYPE_CHECKING:
    from tribes.config.stores import EnvelopeConfig
    from tribes.manager.base import SessionManager
    from tribes.manager.clock import Clock
    from tribes.manager.inbox import Inbox
    from tribes.manager.policy import CommitPolicy
    from tribes.manager.table import SessionTable
    from tribes.manager.values import ValueCodec
    from tribes.stores.protocol import Store

__all__ = ["FACTORIES", "Factory", "ManagerParts", "make_manager", "wall_ms"]

log = structlog.get_logger("tribes")


@dataclass(frozen=True, slots=True)
class ManagerParts:
    """What a manager is made of.

    Attributes:
        context: Name of the application.
        config: Its settings; the factory of its class makes the manager.
        table: Where the sessions are.
        clock: The process's.
        inbox: Where the table leaves commits.
        codec: Encodes attribute values.
        policy: What to do about commits that are on too few members.
        store: A store of the caller's own, instead of the configuration's.
        monotonic: Reads the monotonic clock in seconds.
        entropy: Gives random bytes.
    """

    context: str
    config: Any
    table: SessionTable
    clock: Clock
    inbox: Inbox
    codec: ValueCodec
    policy: CommitPolicy
    store: Store | None = None
    monotonic: Callable[[], float] = time.monotonic
    entropy: Callable[[int], bytes] = os.urandom

    def settings(self) -> dict[str, Any]:
        """The arguments that every manager takes."""
        config: ManagerConfig = self.config
        return {
            "inbox": self.inbox,
            "codec": self.codec,
            "entropy": self.entropy,
            "monotonic": self.monotonic,
            "max_inactive_s": config.max_inactive_s,
            "session_id_length": config.session_id_length,
            "max_active_sessions": config.max_active_sessions,
            "policy": self.policy,
            "rules": Rules.of(config),
            "report": partial(report_session, self.context),
            "on_listener_error": partial(report_listener, self.context),
        }


Factory = Callable[[ManagerParts], "SessionManager"]


def make_manager(parts: ManagerParts) -> SessionManager:
    """Make the manager that a configuration means.

    Raises:
        ConfigError: A value cannot work, or what the kind needs is not installed.
        StoreError: The database does not answer.
    """
    factory = FACTORIES.get(type(parts.config))
    if factory is None:
        kind = kind_of(type(parts.config))
        raise ConfigError(f"there is no manager of kind {kind!r} here", key="manager.kind")
    return factory(parts)


def wall_ms() -> int:
    """Wall clock in milliseconds."""
    return time.time_ns() // 1_000_000


def _delta(parts: ManagerParts) -> DeltaManager:
    return DeltaManager(parts.context, parts.table, parts.clock, **parts.settings())


def _backup(parts: ManagerParts) -> BackupManager:
    return BackupManager(parts.context, parts.table, parts.clock, **parts.settings())


def _standard(parts: ManagerParts) -> StandardManager:
    config: StandardConfig = parts.config
    if parts.store is not None:
        raise ConfigError("only a Persistent manager has one", key="store")
    # The module of files needs what only Unix has; without a file it is not needed.
    snapshot = None
    if config.pathname:
        from tribes.stores.snapshot import SnapshotFile

        snapshot = SnapshotFile(config.pathname)
    return StandardManager(
        parts.context,
        parts.table,
        parts.clock,
        snapshot=snapshot,
        envelope=_envelope(parts.context, config.envelope),
        on_store_error=partial(_report, parts.context),
        **parts.settings(),
    )


def _persistent(parts: ManagerParts) -> PersistentManager:
    config: PersistentConfig = parts.config
    check_persistent(config, has_store=parts.store is not None)
    form = StoredForm(_envelope(parts.context, config.envelope), wall_ms=wall_ms, now_ds=_now_ds)
    shelf = Shelf(
        parts.store or _open_store(parts.context, config),
        form,
        wall_ms=wall_ms,
        now_ds=_now_ds,
        on_error=partial(_report, parts.context),
    )
    return PersistentManager(
        parts.context,
        parts.table,
        parts.clock,
        shelf=shelf,
        save_on_restart=config.save_on_restart,
        max_idle_backup_s=config.max_idle_backup_s,
        min_idle_swap_s=config.min_idle_swap_s,
        max_idle_swap_s=config.max_idle_swap_s,
        check_interval_s=config.check_interval_s,
        per_request=config.per_request,
        **parts.settings(),
    )


def _memcached(parts: ManagerParts) -> SessionManager:
    # Its module needs what only the extra has.
    from tribes.runtime.memcached import make_memcached

    if parts.store is not None:
        raise ConfigError("only a Persistent manager has one", key="store")
    return make_memcached(
        parts.context,
        parts.config,
        _envelope(parts.context, parts.config.envelope),
        table=parts.table,
        clock=parts.clock,
        settings=parts.settings(),
    )


FACTORIES: Final[dict[type[ManagerConfig], Factory]] = {
    ManagerConfig: _delta,
    BackupConfig: _backup,
    StandardConfig: _standard,
    PersistentConfig: _persistent,
    MemcachedConfig: _memcached,
}
"""By the record of the kind."""


def _open_store(context: str, config: PersistentConfig) -> Store:
    if config.file is not None:
        from tribes.stores.file import FileStore

        file = config.file
        return FileStore(file.directory, fsync=file.fsync, value_max_bytes=file.value_max_bytes)
    assert config.sql is not None
    try:
        from tribes.stores.sql import SQLStore
    except ModuleNotFoundError as why:
        raise ConfigError(
            f"{why.name} is not installed; pip install 'tribes[sql]'", key="sql"
        ) from why
    sql = config.sql
    names = {name: getattr(sql, name) for name in sql.__struct_fields__ if name != "url"}
    # Secrets hide themselves from whoever formats them, drivers among those.
    names |= {"app": sql.app or context, "password": "".join(sql.password)}
    return SQLStore("".join(sql.url), **names)


def _envelope(context: str, config: EnvelopeConfig) -> Envelope:
    keys = []
    for number, key in enumerate(config.keys):
        try:
            keys.append(bytes.fromhex("".join(key)))
        except ValueError:
            raise ConfigError("has other than hexadecimal digits", key=f"keys[{number}]") from None
    return Envelope(context, keys=keys, encrypt=config.encrypt, compress=config.compress)


def _report(context: str, verb: str, error: Exception) -> None:
    log.error("session store", context=context, could_not=verb, error=str(error))


def _now_ds() -> int:
    return deciseconds(time.monotonic())
