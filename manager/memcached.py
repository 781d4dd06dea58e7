"""The Memcached manager: sessions on memcached or Redis, as memcached-session-manager keeps them.

Two kinds: `StickyManager`, where the process's memory is the authority and a node has a spare
copy, and `RoamingManager`, where the nodes are the authority and memory is empty between requests.
Here is what they have in common.

What blocks is in `find`, `store` and `stop`; commits never do (msm-sessions §7, §8, §19).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from tribes.errors import ConfigError, StoreError, StoreLimitError

from .clock import hlc_to_ms
from .container import ID_ACTIVE, active_ids, facts_of, id_entry_name
from .held import Held
from .local import LocalManager
from .memcached_statistics import MemcachedCounters, MemcachedStatistics
from .node_ids import split_node, suffix_of
from .reading import Reading
from .recent import remember
from .record import Kind, Life, Namespace, Record, header

if TYPE_CHECKING:
    import re

    from tribes.stores.ring import Ring

    from .base import CommitOutcome
    from .clock import Clock
    from .copies import Copies
    from .inbox import CommitResult
    from .node_locks import NodeLocks
    from .request_line import RequestLine
    from .session import Session
    from .stored import Link
    from .table import SessionTable

__all__ = ["MemcachedManager", "Service", "held_of"]

LINKS_MAX: Final = 10_000
"""Later ids of sessions that are remembered; of others the nodes are asked once more."""


class Service(Protocol):
    """What looks after the nodes; see `tribes.runtime.memcached`."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def has_time(self) -> bool: ...
    def start_over(self) -> None: ...
    def set_nodes(self, nodes: str) -> None: ...
    def set_failover_nodes(self, failover: str) -> None: ...


class MemcachedManager(LocalManager):
    """See the module.

    Args:
        context: As every manager's, like what follows.
        table: See `SessionManager`.
        clock: See `SessionManager`.
        copies: Finds and saves them.
        locks: Of sessions.
        ignored: Requests that have no session unless the application asks for it.
        service: Started and stopped with the manager.
        settings: See `SessionManager`.

    Attributes:
        later: Gets the key of a session that is to be stored after the answer; None: each is
            stored before it.
    """

    wants_request = True
    sticky: ClassVar[bool]

    def __init__(
        self,
        context: str,
        table: SessionTable,
        clock: Clock,
        *,
        copies: Copies,
        locks: NodeLocks,
        ignored: re.Pattern[str] | None = None,
        service: Service | None = None,
        **settings: Any,
    ) -> None:
        self.copies = copies
        self.locks = locks
        self.later: Callable[[str], None] | None = None
        self.counters = MemcachedCounters()
        self._enabled = True
        self._ignored = ignored
        self.service = service
        super().__init__(context, table, clock, **settings)

    def start_over(self, table: SessionTable, clock: Clock, *args: Any) -> None:
        """See `SessionManager.start_over`."""
        super().start_over(table, clock, *args)
        self.copies.clock = clock
        self.copies.ring.start_over()
        self.locks.start_over()
        if self.service is not None:
            self.service.start_over()
        self._links: OrderedDict[str, str] = OrderedDict()
        self._linked: OrderedDict[str, tuple[str, int]] = OrderedDict()

    @property
    def ring(self) -> Ring:
        """The nodes."""
        return self.copies.ring

    @property
    def enabled(self) -> bool:
        """Whether the nodes are used at all; may be set at any time, for sticky sessions."""
        return self._enabled

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        if not enabled and not self.sticky:
            raise ConfigError(
                "must be true with sticky = false: nothing else has them", key="enabled"
            )
        self._enabled = enabled

    # Requests.

    def ignores(self, request: RequestLine) -> bool:
        """See `SessionManager.ignores`."""
        if self._ignored is None or not request.matches(self._ignored):
            return False
        self.counters.ignored += 1
        return True

    def find(
        self, session_id: str, *, partial: bool = False, request: RequestLine | None = None
    ) -> Session | None:
        """See `SessionManager.find`.

        Raises:
            StoreNodeError: No node answers, and the memory does not have it either.
            StoreLockedError: Another request has the session.
        """
        token, name = split_node(session_id)
        if not token:
            return None
        if not self._enabled:
            return super().find(token)
        found = self._find(token, name, request)
        self.counters.found += found is not None
        self.counters.not_found += found is None
        return found

    def _find(self, token: str, name: str, request: RequestLine | None) -> Session | None:
        raise NotImplementedError

    def must_store(self, session: Session, outcome: CommitOutcome) -> bool:
        """Tell whether the request must wait for `store` after this commit. Does not block."""
        if not self._enabled:
            return False
        if outcome.version is None:
            self.counters.unchanged += 1
        return self._must_store(session, outcome)

    def _must_store(self, session: Session, outcome: CommitOutcome) -> bool:
        raise NotImplementedError

    def store(self, session: Session) -> CommitResult:
        """Write what a request has done, as `must_store` says. Blocks.

        Raises:
            StoreError: No node has it; of a session that is not sticky nobody has.
            StoreConflictError: Another request was faster, and that is to be an error.
        """
        raise NotImplementedError

    def _place(self, session: Session) -> None:
        home = self.ring.pick() if self._enabled else None
        session.held = Held(session.key, home)
        session.suffix = "" if home is None else suffix_of(home.name)

    def _load(self, key: str, home: Any) -> Held | Link | None:
        self.counters.loads += 1
        try:
            return self.copies.load(key, home)
        except StoreError:
            self.counters.load_failures += 1
            raise

    def _is_known(self, key: str, record: Record | None, token: str) -> bool:
        """Whether a session lives, and the token is one of its ids at this moment."""
        if record is None or header(record).life != Life.LIVE:
            return False
        if self.idleness.is_old(header(record).created):
            return False
        entry = Reading(record).entry(int(Namespace.CONTAINER), id_entry_name(token))
        if entry is None:
            return token == key
        if entry.value == ID_ACTIVE and entry.kind != Kind.TOMBSTONE:
            return True
        grace_s = facts_of(record).ids.get(token) or 0
        return self.clock.wall_ms() < hlc_to_ms(entry.hlc) + 1000 * grace_s

    def _write_links(self, held: Held) -> None:
        """Make the later ids of a session lead to it, on the nodes where it is."""
        record = held.record
        if record is None or held.home is None:
            return
        now_ds = self.now_ds()
        limit_s = self.copies.limit_of(record)
        life_ds = 10 * self.copies.link_life_of(limit_s)
        for session_id in active_ids(held.key, record):
            if session_id == held.key:
                continue
            self._note_link(session_id, held.key)
            home, since = self._linked.get(session_id, ("", -life_ds))
            if home == held.home.name and now_ds - since < life_ds // 4:
                continue
            self.copies.save_link(session_id, held.key, held.home, limit_s)
            remember(self._linked, session_id, (held.home.name, now_ds), LINKS_MAX)

    def _note_link(self, session_id: str, key: str) -> None:
        """A later id leads to a session's key."""
        remember(self._links, session_id, key, LINKS_MAX)

    def loses(self, error: StoreError) -> bool:
        """Tell whether what a request changed is nowhere after this error of `store`."""
        self.counters.oversize += isinstance(error, StoreLimitError)
        self.counters.save_failures += 1
        return not self.sticky

    # Background, and the end.

    def start(self) -> None:
        """See `LocalManager.start`."""
        if self.service is not None:
            self.service.start()

    def stop(self) -> None:
        """Write what is not written, give the locks back, and close all connections."""
        if self.service is not None:
            self.service.stop()
        self._write_rest()
        self.locks.release_all()
        self.ring.close()

    def _write_rest(self) -> None:
        """Write what could not be written before."""

    def memcached_statistics(self) -> MemcachedStatistics:
        """Return the numbers of the nodes, of copies and of locks as they are now."""
        return MemcachedStatistics.of(self)


def held_of(session: Session) -> Held:
    """What is known of the copies of a session that a manager of nodes has found or made."""
    assert session.held is not None
    return session.held
