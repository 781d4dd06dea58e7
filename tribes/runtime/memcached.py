"""From the configuration of a Memcached manager to the manager, its servers and its threads.

Two kinds of threads serve it, none of them a request's: one asks the servers for signs of life and
renews locks, and where copies are written after the answer some write them.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import quote, urlsplit, urlunsplit

import structlog

from tribes.config.memcached import (
    MemcachedConfig,
    NodeSpec,
    check_memcached,
    compiled,
    parse_locking,
    parse_nodes,
    storage_prefix,
)
from tribes.errors import ConfigError, StoreError
from tribes.manager.copies import Copies
from tribes.manager.node_locks import NodeLocks
from tribes.manager.record import deciseconds
from tribes.manager.roaming import RoamingManager
from tribes.manager.sticky import StickyManager
from tribes.manager.stored import StoredForm
from tribes.runtime.managers import wall_ms
from tribes.stores.ring import Ring, RingNode

if TYPE_CHECKING:
    from tribes.manager.clock import Clock
    from tribes.manager.memcached import MemcachedManager
    from tribes.manager.table import SessionTable
    from tribes.stores.cache import CacheNode
    from tribes.stores.envelope import Envelope

__all__ = ["MemcachedService", "make_memcached"]

PENDING_MAX: Final = 100_000
"""Sessions that wait to be written; of more, the next look at all sessions finds them."""
STOP_S: Final = 20.0
"""For all that a stop writes and waits for."""
END_S: Final = 2.0
"""Of that for threads that are in the middle of something."""
LOCK_PAUSE_S: Final = (0.005, 0.1)
MERGE_PAUSE_S: Final = (0.001, 0.02)

log = structlog.get_logger("tribes")


@final
class MemcachedService:
    """The servers of one manager, and the threads that look after them.

    Args:
        context: Name of the application, for logs.
        config: Its settings.
        ring: The servers.
    """

    def __init__(self, context: str, config: MemcachedConfig, ring: Ring) -> None:
        self._context = context
        self._config = config
        self._ring = ring
        self._nodes = "".join(config.memcached_nodes)
        self._failover = config.failover_nodes
        self._threads: list[threading.Thread] = []
        self.upkeep: Callable[[], None] = lambda: None
        """Renews locks."""
        self.write: Callable[[str], object] = lambda key: None
        """Stores one session."""
        self.start_over()

    def start_over(self) -> None:
        """In a forked child: there are no threads yet."""
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._pending: OrderedDict[str, None] = OrderedDict()
        self._busy = 0
        self._end = inf
        self._threads = []

    def start(self) -> None:
        """Ask every server once, and begin to look after them."""
        if self._config.enabled:
            self._ring.probe()
        self._begin("nodes", self._look)
        if self._config.session_backup_async and self._config.sticky:
            for number in range(self._config.backup_thread_count or os.cpu_count() or 1):
                self._begin(f"backup-{number}", self._write_all)

    def stop(self) -> None:
        """Write what is waiting, and end the threads, within `STOP_S`. What is not written by then
        is dropped here, and for `MemcachedManager.stop` to tell of.
        """
        self._end = time.monotonic() + STOP_S
        with self._changed:
            while (self._pending or self._busy) and self._threads:
                left = self._end - END_S - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(min(0.1, left))
            self._pending.clear()
            self._stopping.set()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, self._end - time.monotonic()))
        self._threads = []

    def has_time(self) -> bool:
        """Whether what a stop has to write may still be written."""
        return time.monotonic() < self._end

    def later(self, key: str) -> None:
        """Store a session after its request is answered."""
        with self._changed:
            if len(self._pending) < PENDING_MAX:
                self._pending[key] = None
                self._changed.notify()

    # At run time.

    def set_nodes(self, nodes: str) -> None:
        """Go on with other servers (``memcachedNodes``). Sessions move as they are used.

        Raises:
            ConfigError: It is no list of nodes, or lacks a failover node.
        """
        self._replace(nodes, self._failover)

    def set_failover_nodes(self, failover: str) -> None:
        """Use other nodes only when no other one answers (``failoverNodes``).

        Raises:
            ConfigError: One of them is not in the list of nodes, or all are, or sessions are not
                sticky.
        """
        if failover.strip() and not self._config.sticky:
            raise ConfigError("cannot be used with sticky = false", key="failoverNodes")
        self._replace(self._nodes, failover)

    def _replace(self, nodes: str, failover: str) -> None:
        specs = parse_nodes(nodes, failover)
        self._ring.replace([_ring_node(spec, self._config) for spec in specs])
        self._nodes, self._failover = nodes, failover

    # Threads.

    def _begin(self, name: str, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, name=f"tribes-{self._context}-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _look(self) -> None:
        interval_s = self._config.probe_interval / 1000
        step_s = min(interval_s, 0.1, self._config.lock_expiration / 10)
        probed_at = time.monotonic()
        while not self._stopping.wait(step_s):
            try:
                self.upkeep()
                if time.monotonic() - probed_at >= interval_s:
                    self._ring.probe()
                    probed_at = time.monotonic()
            except Exception as error:
                log.error("looking after the session servers failed", exc_info=error)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                while not self._pending and not self._stopping.is_set():
                    self._changed.wait()
                if not self._pending:
                    return
                key, _ = self._pending.popitem(last=False)
                self._busy += 1
            try:
                self.write(key)
            except StoreError as error:
                # It is remembered, and written when a server takes it.
                _report(self._context, "save", error)
            except Exception as error:
                log.error("writing a session failed", exc_info=error)
            finally:
                with self._changed:
                    self._busy -= 1
                    self._changed.notify_all()


def make_memcached(
    context: str,
    config: MemcachedConfig,
    envelope: Envelope,
    *,
    table: SessionTable,
    clock: Clock,
    settings: dict[str, Any],
) -> MemcachedManager:
    """Make the manager.

    Args:
        context: Name of the application.
        config: Its settings.
        envelope: Protects the values.
        table: For what is in memory.
        clock: The process's.
        settings: What all managers share, see `SessionManager`.

    Raises:
        ConfigError: A value cannot work, or a library is not installed.
    """
    check_memcached(config)
    _warn(context, config)
    nodes = "".join(config.memcached_nodes)
    specs = parse_nodes(nodes, config.failover_nodes)
    ring = Ring(
        [_ring_node(spec, config) for spec in specs],
        monotonic=time.monotonic,
        choose=random.randrange,
        on_change=lambda name, why: _tell(context, name, why),
        doubt_s=max(config.max_inactive_s, 60),
    )
    service = MemcachedService(context, config, ring)
    prefix = storage_prefix(config, context)
    wait_s = config.operation_timeout / 1000
    report = _Report(context)
    copies = Copies(
        ring,
        StoredForm(envelope, wall_ms=wall_ms, now_ds=_now_ds),
        clock,
        prefix=prefix,
        copies=1 if config.sticky else 2,
        default_limit_s=config.max_inactive_s,
        is_spare=config.sticky,
        wait_s=wait_s,
        monotonic=time.monotonic,
        now_ds=_now_ds,
        pause=_pause(*MERGE_PAUSE_S),
        attribute_filter=compiled(config.session_attribute_filter, "sessionAttributeFilter"),
        on_error=report,
    )
    mode = parse_locking("none" if config.sticky else config.locking_mode)
    locks = NodeLocks(
        mode.kind,
        mode.pattern,
        ring,
        prefix=prefix,
        expiration_s=config.lock_expiration,
        wait_s=wait_s,
        must_have=config.on_lock_timeout == "error",
        monotonic=time.monotonic,
        pause=_pause(*LOCK_PAUSE_S),
        entropy=os.urandom,
        lock=threading.Lock(),
        on_error=report,
    )
    parts: dict[str, Any] = {
        "copies": copies,
        "locks": locks,
        "ignored": compiled(config.request_uri_ignore_pattern, "requestUriIgnorePattern"),
        "service": service,
        **settings,
    }
    service.upkeep = locks.upkeep
    if not config.sticky:
        return RoamingManager(context, table, clock, on_conflict=config.on_conflict, **parts)
    manager = StickyManager(
        context,
        table,
        clock,
        new_lock=threading.Lock,
        later=service.later if config.session_backup_async else None,
        **parts,
    )
    manager.enabled = config.enabled
    service.write = manager.store_key
    return manager


def _ring_node(spec: NodeSpec, config: MemcachedConfig) -> RingNode:
    return RingNode(spec.name, _client(spec, config), spec.is_failover)


def _client(spec: NodeSpec, config: MemcachedConfig) -> CacheNode:
    timeout_s = config.session_backup_timeout / 1000
    limit = config.value_max_bytes
    try:
        if spec.kind == "redis":
            from tribes.stores.redis import RedisNode

            url = _with_account(spec.url, config)
            return RedisNode(url, timeout_s=timeout_s, value_max_bytes=limit)
        from tribes.stores.memcached import MemcachedNode
    except ModuleNotFoundError as why:
        raise ConfigError(
            f"{why.name} is not installed; pip install 'tribes[{spec.kind}]'", key="memcachedNodes"
        ) from why
    server = (spec.host, spec.port) if spec.port else spec.host
    return MemcachedNode(server, timeout_s=timeout_s, value_max_bytes=limit)


def _with_account(url: str, config: MemcachedConfig) -> str:
    """The URL with the account of the configuration, if it has none itself."""
    parts = urlsplit(url)
    if "@" in parts.netloc or not (config.username or config.password):
        return url
    password = "".join(config.password)
    account = f"{quote(config.username, safe='')}:{quote(password, safe='')}@"
    return urlunsplit(parts._replace(netloc=account + parts.netloc))


def _warn(context: str, config: MemcachedConfig) -> None:
    """Say what is accepted and does something else here, once."""
    if config.sticky and parse_locking(config.locking_mode).kind != "none":
        log.warning(
            "sticky sessions have no locks", context=context, lockingMode=config.locking_mode
        )
    if not config.sticky and config.session_backup_async:
        log.warning(
            "sessions that are not sticky are always stored before the answer",
            context=context,
            sessionBackupAsync=True,
        )


def _pause(least_s: float, most_s: float) -> Callable[[int], None]:
    def pause(attempt: int) -> None:
        bound = min(least_s * 2 ** min(attempt, 16), most_s)
        time.sleep(random.uniform(bound / 2, bound))  # noqa: S311 - spreads attempts, no secret

    return pause


class _Report:
    """Logs what could not be done, at most once a second of each kind."""

    def __init__(self, context: str) -> None:
        self._context = context
        self._told: dict[str, float] = {}

    def __call__(self, verb: str, error: Exception) -> None:
        now = time.monotonic()
        if now - self._told.get(verb, -1.0) >= 1.0:
            self._told[verb] = now
            _report(self._context, verb, error)


def _report(context: str, verb: str, error: Exception) -> None:
    log.error("session server", context=context, could_not=verb, error=str(error))


def _tell(context: str, name: str, why: str | None) -> None:
    if why is None:
        log.info("session server answers again", context=context, node=name)
    else:
        log.error("session server is down", context=context, node=name, why=why)


def _now_ds() -> int:
    return deciseconds(time.monotonic())
