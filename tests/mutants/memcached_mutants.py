"""Broken Memcached managers; each names the test, on real servers, that notices it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.mutants import registry
from tests.mutants.registry import Patch, nothing
from tests.servers.caches import CacheServer, cache_servers
from tests.session_server import test_failures, test_locks, test_requests
from tests.session_server import test_pieces as pieces
from tests.session_server import test_values as values
from tests.session_server.conftest import Backend, node_list
from tests.session_server.site import Site, site_on
from tribes.manager import held
from tribes.manager.copies import Copies
from tribes.manager.inbox import CommitResult
from tribes.manager.memcached import MemcachedManager
from tribes.manager.node_locks import NodeLocks, ReadOnlyRequests
from tribes.manager.request_line import RequestLine
from tribes.manager.roaming import RoamingManager
from tribes.manager.sticky import StickyManager
from tribes.stores import memcached
from tribes.stores.memcached import MemcachedNode
from tribes.stores.protocol import Stored
from tribes.stores.ring import Ring, RingNode

if TYPE_CHECKING:
    from tribes.stores.cache import CacheNode


def add(name: str, text: str, *patches: Patch, test: Callable[[], object]) -> None:
    """Register a mutant that a test must notice."""
    registry.add(f"session server: {name}", text, *patches, test=test)


def _program(*names: str) -> str:
    return next(path for name in names if (path := shutil.which(name)))


@contextmanager
def nodes(count: int) -> Iterator[tuple[dict[str, CacheServer], Site]]:
    """Memcached servers by name, and instances on them."""
    with cache_servers("memcached", count, _program) as servers:
        for server in servers:
            server.mark()
        named = {f"n{number}": server for number, server in enumerate(servers, 1)}
        with site_on(node_list(named)) as site:
            yield named, site


def on(count: int, test: Callable[..., object], *more: Any) -> Callable[[], object]:
    """A test of servers by name and a site."""

    def run() -> None:
        with nodes(count) as (named, site):
            test(named, site, *more)

    return run


def on_site(count: int, test: Callable[..., object], *more: Any) -> Callable[[], object]:
    """A test of a site."""

    def run() -> None:
        with nodes(count) as (_, site):
            test(site, *more)

    return run


def on_backend(test: Callable[..., object], *more: Any, count: int = 2) -> Callable[[], object]:
    """A test of a kind of server; here memcached."""

    def run() -> None:
        with nodes(count) as (named, site):
            test(Backend("memcached", list(named.values()), site), *more)

    return run


# ---- copies --------------------------------------------------------------------------------------

_store = MemcachedNode._store


def _careless(self: Any, key: str, data: bytes, expected: int, ttl_s: int, flags: int = 0) -> int:
    """Replaces whatever is there."""
    there = None if key.startswith("lock:") else self.peek(key)
    return _store(self, key, data, expected if there is None else there, ttl_s, flags)


add(
    "no condition on saves",
    "Who saves second replaces what he has not seen.",
    (MemcachedNode, "_store", _careless),
    test=on_backend(test_locks.test_f45_f06_without_locks_disjoint_writes_survive),
)
add(
    "ends are not kept",
    "A logout deletes the session, and leaves nothing that a late save would meet.",
    (
        RoamingManager,
        "_end_stored",
        lambda self, session, held: (
            [
                self.ring.call(node, lambda client: client.delete(self.copies.prefix + held.key))
                for node in self.ring.nodes
            ],
            CommitResult(1, (), {}),
        )[1],
    ),
    test=on_backend(test_requests.test_f23_logout_leaves_the_end_on_every_node, False),
)
add(
    "second copies not read",
    "When the first node has nothing, there is no session.",
    (Ring, "after", lambda self, node: [] if node is not None else list(self.nodes)),
    test=on(2, test_failures.test_f40_an_empty_first_node_gets_its_copy_back),
)
add(
    "no second copy",
    "One node has a session, also where there are two.",
    (Ring, "targets", lambda self, home, copies: [home or self.pick()]),
    test=on(2, test_failures.test_f38_both_copies_stand_before_the_answer),
)
add(
    "missing copies stay missing",
    "Who finds a session on its second node leaves it so.",
    (RoamingManager, "_must_write", lambda self, held, record: False),
    test=on(2, test_failures.test_f40_an_empty_first_node_gets_its_copy_back),
)
add(
    "nodes that were away are trusted",
    "An old copy on a node that hung counts as the newest.",
    (Ring, "is_doubted", lambda self, node: False),
    test=on(2, test_failures.test_f43_an_old_copy_on_a_node_that_was_away_does_not_win),
)
add(
    "lives not extended",
    "Reading a session does not keep it alive on its node.",
    (
        MemcachedNode,
        "load",
        lambda self, key, ttl_s=None, load=MemcachedNode.load: load(self, key, None),
    ),
    (Copies, "slack_of", lambda self, limit_s: 10 * limit_s),
    # With two nodes the second copy would save it, and be repaired.
    test=on_backend(
        test_requests.test_f19_f20_reading_keeps_copies_alive_and_idle_sessions_expire, count=1
    ),
)
add(
    "long lives as they are",
    "memcached is told 31 days as a number of seconds, and takes it for a date in 1970.",
    (memcached, "expiry_of", lambda ttl_s, now_s: ttl_s),
    test=on_backend(test_requests.test_f22_long_limits_do_not_end_at_once, False),
)


def _unchecked(self: Any, key: str, data: bytes, *, expected: int, ttl_s: int) -> int:
    version: int = _store(self, key, data, expected, ttl_s)
    return version


add(
    "sizes not checked",
    "The server is asked to refuse what is too large, and removes the old value.",
    (MemcachedNode, "save", _unchecked),
    test=on(2, values.test_f58_what_is_too_large_is_refused_before_it_is_sent, False),
)


def _closing(check: Callable[[dict[str, CacheServer]], None]) -> Callable[..., None]:
    def run(named: dict[str, CacheServer], site: Site) -> None:
        del site
        try:
            check(named)
        finally:
            pieces.close_all()

    return run


add(
    "pieces stay",
    "Pieces of a value that was replaced are not removed.",
    (MemcachedNode, "_remove", nothing),
    test=on(1, _closing(pieces.test_f59_old_pieces_are_removed)),
)
add(
    "torn values",
    "Of a value in pieces those are given that are there.",
    (
        MemcachedNode,
        "_load_pieces",
        lambda self, key, found, version, ttl_s: Stored(
            b"".join(self._call(f"mg {name} v c\r\n".encode())[1] for name in found.keys(key)),
            version,
        ),
    ),
    test=on(1, _closing(pieces.test_f59_a_torn_value_is_no_value)),
)
add(
    "pieces that die first",
    "Asking for a version prolongs the list's life, and not that of its pieces.",
    (
        MemcachedNode,
        "peek",
        lambda self, key, ttl_s=None: memcached._cas(
            self._call(f"mg {key} c{memcached._longer(ttl_s)}\r\n".encode())[0]
        ),
    ),
    test=on(1, _closing(pieces.test_f59_pieces_live_as_long_as_their_list)),
)


def _with_folder(named: dict[str, CacheServer], site: Site) -> None:
    with tempfile.TemporaryDirectory() as path:
        values.test_f61_pickles_are_bytes_like_any_others(named, site, Path(path))


add(
    "unreadable bytes overwritten",
    "What cannot be read is taken for nothing.",
    (
        MemcachedNode,
        "load",
        lambda self, key, ttl_s=None, load=MemcachedNode.load: (
            found
            if (found := load(self, key, ttl_s)) is None or found.data[0] == held.FORMAT
            else (self.delete(key), None)[1]
        ),
    ),
    test=on(2, _with_folder),
)

# ---- health --------------------------------------------------------------------------------------


def _blocking(self: Any, node: RingNode, work: Callable[[CacheNode], Any]) -> Any:
    """Probes in the request, as the original does."""
    node.client.probe()
    return work(node.client)


add(
    "probes block",
    "Every request asks its node for a sign of life first.",
    (Ring, "call", _blocking),
    test=on(2, test_failures.test_f43_a_hung_node_costs_each_request_little, False),
)
add(
    "failures forgotten",
    "A node that does not answer is asked again by the next request.",
    (Ring, "_failed", nothing),
    test=on(2, test_failures.test_f43_a_hung_node_costs_each_request_little, False),
)
add(
    "failover nodes like others",
    "New sessions go to failover nodes too.",
    (
        Ring,
        "pick",
        lambda self, *, avoid=None: next(
            (node for node in reversed(self.nodes) if node.is_up and node is not avoid), None
        ),
    ),
    test=on(3, test_failures.test_f31_failover_nodes_are_used_last_and_left_again),
)
add(
    "one node for all",
    "New sessions go to the first node.",
    (Ring, "pick", lambda self, *, avoid=None: self.nodes[0]),
    test=on_site(3, test_failures.test_f32_new_sessions_spread_evenly),
)

# ---- locks ---------------------------------------------------------------------------------------

add(
    "lock without owner check",
    "A release deletes whatever lock is there.",
    (MemcachedNode, "unlock", lambda self, key, token, held: self.delete(key)),
    test=on_backend(test_locks.test_f50_a_dead_holders_lock_is_free_after_its_time),
)
add(
    "locks not renewed",
    "A request that takes longer than its lock has none any more.",
    (NodeLocks, "_renew", nothing),
    test=on_backend(test_locks.test_f49_a_lock_outlives_its_time_while_the_request_runs),
)
add(
    "locks not taken",
    "The mode is read, and nothing is ever locked.",
    (NodeLocks, "wants", lambda self, request, question: False),
    test=on(
        2, test_locks.test_f47_patterns_lock_what_they_match, "uriPattern:/set.*", ("/set",), ()
    ),
)
add(
    "patterns match with the method only",
    "As in the original, whose documentation says the path.",
    (
        RequestLine,
        "matches",
        lambda self, pattern: pattern.fullmatch(f"{self.method} {self.path}") is not None,
    ),
    test=on(2, test_locks.test_f47_patterns_lock_what_they_match, "uriPattern:/a|/b", ("/a",), ()),
)
add(
    "writers forgotten",
    "A kind of request that wrote once counts as read-only again.",
    (
        ReadOnlyRequests,
        "is_read_only",
        lambda self, question: question in self._read_only or question in self._modifying,
    ),
    test=on(2, test_locks.test_f48_auto_learns_who_only_reads),
)

# ---- sticky sessions -----------------------------------------------------------------------------

add(
    "memory always trusted",
    "A balancer that roams gets what this process last had.",
    (StickyManager, "_refresh", nothing),
    test=on_backend(test_failures.test_f37_memory_that_is_stale_is_noticed),
)
add(
    "sessions stay on dead nodes",
    "The home of a session is never another one.",
    (
        StickyManager,
        "_attach",
        lambda self, session: setattr(session, "held", self._spare_of(session.key)),
    ),
    test=on(3, test_failures.test_f28_f29_sessions_move_when_nodes_die, True),
)
add(
    "everything written",
    "A sticky session is stored by every request.",
    (StickyManager, "_must_store", lambda self, session, outcome: True),
    (StickyManager, "_touch_copy", lambda self, held: setattr(held, "must_copy", True)),
    test=on(2, test_requests.test_f11_f12_f13_t116_sticky_sessions_are_stored_when_they_change),
)
add(
    "rotated ids for ever",
    "An id that a login retired goes on working.",
    (MemcachedManager, "_is_known", lambda self, key, record, token: record is not None),
    test=on_backend(test_requests.test_f69_rotation_keeps_the_data_and_ends_the_old_id, False),
)
