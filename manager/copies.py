"""The copies of sessions on a ring of servers: found, saved with a merge, repaired.

A value is what `held.wrapped` makes: the name and the version of the other copy, and the record.

**Saving** writes the second copy first and the home's last, each on condition that it still has the
version that this process saw.  The home's value says which version the second one has, so both
cost one round trip.  Whoever finds another version there loads it, merges (`merge` is commutative,
so nobody's change is lost), builds its own changes on top, and tries again.  A process that dies
in between leaves a second copy that is newer; who finds it merges it.

**Loading** asks the home, which the id names.  If it does not answer, has nothing (restarted,
flushed, or evicted) or was away lately, the others are asked too, and the copies are made good with
the next save.

**Life** of a value is the server's business: reading the home extends it.  The second copy is
extended with every save, at the latest when an eighth of the limit is over.

It is longer than other files because loading and saving each rely on what the other one leaves in
`Held.versions`: which order of writes is safe can only be seen with both in view.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, final

from tribes.errors import (
    RemoteProtocolError,
    StoreConflictError,
    StoreDataError,
    StoreError,
    StoreNodeError,
)

from .container import facts_of
from .held import Held, Written, unwrapped, wrapped
from .merge import merge
from .record import Life, Namespace, Record, equal_state, header, pack, parse
from .stored import Link, StoredForm

if TYPE_CHECKING:
    import re

    from tribes.stores.ring import Ring, RingNode

    from .clock import Clock

__all__ = ["Copies"]

TRIES_MAX: Final = 200
ENDED_KEPT_S: Final = 3600
"""How long the end of a session without limit is remembered."""

Build: TypeAlias = Callable[[Record | None], Record | None]
"""Makes the record to save of what is stored; None: it ended, so nothing is."""


class _Found(NamedTuple):
    record: Record
    version: int
    partner: str
    partner_version: int


@final
class Copies:
    """See the module. For any thread.

    Args:
        ring: The nodes.
        form: Packs and unpacks.
        clock: Told of the times in records.
        prefix: Stands before every key.
        copies: How many a session has.
        default_limit_s: Seconds that sessions may be idle that do not say their own.
        is_spare: The process's memory has the sessions; reading it does not ask a node.
        wait_s: How long a save goes on meeting others'.
        monotonic: Reads the monotonic clock in seconds.
        now_ds: The same in deciseconds.
        pause: Waits a moment before the next attempt, of the number given.
        attribute_filter: Names of the attributes that are stored; None: all.
        on_error: Told what was done in vain, and of bytes that cannot be used.
    """

    def __init__(
        self,
        ring: Ring,
        form: StoredForm,
        clock: Clock,
        *,
        prefix: str,
        copies: int,
        default_limit_s: int,
        is_spare: bool,
        wait_s: float,
        monotonic: Callable[[], float],
        now_ds: Callable[[], int],
        pause: Callable[[int], None],
        attribute_filter: re.Pattern[str] | None = None,
        on_error: Callable[[str, Exception], None] | None = None,
    ) -> None:
        self.ring = ring
        self.clock = clock
        self.prefix = prefix
        self.copies = copies
        self.default_limit_s = default_limit_s
        self._form = form
        self._is_spare = is_spare
        self._wait_s = wait_s
        self._monotonic = monotonic
        self._now_ds = now_ds
        self._pause = pause
        self._filter = attribute_filter
        self.tell = on_error or (lambda verb, error: None)
        # Of the last record that was asked for: each request asks several times.
        self._limit: tuple[Record | None, int] = (None, 0)
        self.conflicts = 0
        self.refused = 0
        self.repaired = 0
        self.node_failovers = 0

    def limit_of(self, record: Record) -> int:
        """Return how many seconds the session may be idle; 0 or less: for ever."""
        known, limit_s = self._limit
        if known is record:
            return limit_s
        own = facts_of(record).max_inactive_s
        limit_s = self.default_limit_s if own is None else own
        self._limit = record, limit_s
        return limit_s

    def slack_of(self, limit_s: int) -> int:
        """Return after how many seconds at the latest the second copy's life is extended."""
        return max(limit_s // 8, 1)

    def _ttl(self, limit_s: int, *, is_home: bool) -> int:
        if limit_s <= 0:
            return 0
        # One more: the servers count whole seconds, and the first one may be nearly over.
        if is_home and not self._is_spare:
            return limit_s + 1
        return limit_s + self.slack_of(limit_s) + 1

    # Loading.

    def load(self, key: str, home: RingNode | None) -> Held | Link | None:
        """Find a session, on its home or elsewhere.

        Args:
            key: Its key, or one of its later ids.
            home: The node that the id names, if there is one.

        Raises:
            StoreNodeError: No node answers, so nobody knows whether there is a session.
        """
        held = Held(key, None)
        name = self.prefix + key
        ttl_s = self._ttl(self.default_limit_s, is_home=True)
        failed: StoreNodeError | None = None
        is_certain = False
        for node in (*(() if home is None else (home,)), *self.ring.after(home)):
            is_home = node is home or home is None
            try:
                found = self._open(node, key, name, ttl_s if is_home else None)
            except StoreNodeError as why:
                failed = why
                continue
            except StoreDataError:
                held.must_copy = True
                continue
            is_certain = True
            if found is None:
                held.versions[node] = 0
                held.must_copy = True
                continue
            if isinstance(found, Link):
                return found
            if not is_home and self._is_over(found.record):
                held.versions[node] = found.version
                continue
            self._add(held, node, found)
            if not self.ring.is_doubted(node):
                break
        if held.record is None:
            if failed is not None and not is_certain:
                raise StoreNodeError(f"no server answers: {failed}") from failed
            return None
        self._settle(held, home, has_failed=failed is not None)
        self._extend(held, ttl_s)
        return held

    def _add(self, held: Held, node: RingNode, found: _Found) -> None:
        held.versions[node] = found.version
        partner = self.ring.get(found.partner) if found.partner else None
        if partner is not None:
            held.versions.setdefault(partner, found.partner_version)
        if held.record is None:
            held.record = found.record
            held.home = node
            return
        merged = merge(held.record, found.record)
        if merged is not held.record or not equal_state(merged, found.record):
            held.must_copy = True
        held.record = merged

    def _settle(self, held: Held, home: RingNode | None, *, has_failed: bool) -> None:
        """Choose the home of a session that was found elsewhere."""
        if home is None or home is held.home:
            # Nodes before it in the order that have none are as they should be.
            held.must_copy = held.must_copy and (home is not None or has_failed)
            return
        if home.is_up and held.versions.get(home) == 0:
            held.home = home  # It is empty: it gets its copy back.
        else:
            self.node_failovers += 1
            held.must_copy = self.copies > 1 or held.must_copy

    def _extend(self, held: Held, ttl_s: int) -> None:
        """Correct the life of a session that has a limit of its own."""
        assert held.record is not None
        wanted = self._ttl(self.limit_of(held.record), is_home=True)
        node = held.home
        if wanted == ttl_s or node is None or not held.versions.get(node):
            return
        try:
            self.ring.call(node, lambda client: client.peek(self.prefix + held.key, wanted))
        except StoreError as why:
            self.tell("extend", why)

    def _is_over(self, record: Record) -> bool:
        """Whether a second copy is of a session that expired: its home was extended, not this."""
        limit_s = self.limit_of(record)
        known = header(record)
        if limit_s <= 0 or known.life != Life.LIVE:
            return False
        return self._now_ds() - known.last_seen > 10 * (limit_s + self.slack_of(limit_s))

    def version(self, held: Held) -> int | None:
        """Ask the home for the version that it has, and extend its life.

        Raises:
            StoreError: It does not answer.
        """
        assert held.home is not None
        limit_s = self.default_limit_s if held.record is None else self.limit_of(held.record)
        ttl_s = self._ttl(limit_s, is_home=True)
        name = self.prefix + held.key
        found = self.ring.call(held.home, lambda client: client.peek(name, ttl_s))
        held.touched_ds = self._now_ds()
        return found

    def _open(self, node: RingNode, key: str, name: str, ttl_s: int | None) -> _Found | Link | None:
        stored = self.ring.call(node, lambda client: client.load(name, ttl_s))
        if stored is None:
            return None
        try:
            partner, partner_version, sealed = unwrapped(stored.data)
            found = self._form.unpack(key, sealed)
            if isinstance(found, Link):
                return found
            self.clock.observe(header(found).access)
        except RemoteProtocolError as why:
            self._refuse(StoreDataError(str(why)))
            raise StoreDataError(str(why)) from why
        except StoreDataError as why:
            self._refuse(why)
            raise
        return _Found(found, stored.version, partner, partner_version)

    def _refuse(self, why: StoreDataError) -> None:
        self.refused += 1
        self.tell("use", why)

    # Saving.

    def save(self, held: Held, build: Build, *, home_first: bool = False) -> Written | None:
        """Write the home's copy and the second one, merged with whatever lies there unseen.

        Args:
            held: What is known; brought up to date.
            build: See `Build`; called again whenever something unseen was found.
            home_first: Write no second copy of what the home may refuse; costs round trips.

        Returns:
            None if the session had ended.

        Raises:
            StoreNodeError: No node took it.
            StoreConflictError: Others were faster for as long as this may take.
            StoreLimitError: It is too large; the old copies stay.
        """
        deadline = self._monotonic() + self._wait_s
        record = self._built(build, held.record)
        written: dict[RingNode, Record] = {}
        missing: dict[str, str] = {}
        unusable: set[RingNode] = set()
        for attempt in range(TRIES_MAX):
            if record is None:
                return None
            wanted = self.ring.targets(held.home, self.copies + len(unusable))
            targets = [node for node in wanted if node not in unusable][: self.copies]
            if not targets:
                why = "; ".join(f"{name}: {text}" for name, text in missing.items())
                raise StoreNodeError(f"no server takes the session: {why or 'all are down'}")
            held.home = targets[0]
            node = held.home
            try:
                for node in targets if home_first else reversed(targets):
                    if written.get(node) is not record:
                        self._put(node, held, record, targets)
                        written[node] = record
            except StoreNodeError as error:
                missing[node.name or node.client.address] = str(error)
            except StoreConflictError as error:
                self.conflicts += 1
                if self._monotonic() > deadline:
                    raise
                if attempt:
                    self._pause(attempt)
                try:
                    record = self._merged(node, held, build, record, written)
                except StoreDataError:
                    # Kept for people. The session goes elsewhere.
                    missing[node.name or node.client.address] = str(error)
                    unusable.add(node)
                except StoreNodeError as why_not:
                    missing[node.name or node.client.address] = str(why_not)
            else:
                return self._done(held, record, targets, missing)
        raise StoreConflictError("others were faster again and again")

    def _merged(
        self,
        node: RingNode,
        held: Held,
        build: Build,
        record: Record,
        written: dict[RingNode, Record],
    ) -> Record | None:
        """Look what is on a node instead of what was expected; return the record to save."""
        found = self._open(node, held.key, self.prefix + held.key, None)
        if found is None:
            held.versions[node] = 0
            return record
        if isinstance(found, Link):
            raise StoreDataError("a link lies in the place of a session")
        held.versions[node] = found.version
        partner = self.ring.get(found.partner) if found.partner else None
        if partner is not None and partner not in written:
            held.versions[partner] = found.partner_version
        held.record = found.record if held.record is None else merge(held.record, found.record)
        built = self._built(build, held.record)
        if built is not None and equal_state(built, found.record):
            written[node] = built
        return built

    def _built(self, build: Build, current: Record | None) -> Record | None:
        record = build(current)
        return record if record is None or self._filter is None else self._filtered(record)

    def _filtered(self, record: Record) -> Record:
        """Leave out the attributes that are not to be stored."""
        assert self._filter is not None
        parsed = parse(record)
        dropped = [
            place
            for place in parsed.entries
            if place[0] == Namespace.ATTRIBUTE
            and not self._filter.fullmatch(place[1].decode("utf-8", "replace"))
        ]
        for place in dropped:
            del parsed.entries[place]
        return pack(parsed) if dropped else record

    def _put(self, node: RingNode, held: Held, record: Record, targets: list[RingNode]) -> None:
        partner = targets[1] if len(targets) > 1 and node is targets[0] else None
        hint = ("", 0) if partner is None else (partner.name, held.versions.get(partner, 0))
        data = wrapped(*hint, self._form.pack(held.key, record))
        limit_s = self.limit_of(record)
        if header(record).life == Life.DESTROYED:
            limit_s = max(self.default_limit_s, 60) if self.default_limit_s > 0 else ENDED_KEPT_S
        ttl_s = self._ttl(limit_s, is_home=node is targets[0])
        expected = held.versions.get(node, 0)
        name = self.prefix + held.key
        held.versions[node] = self.ring.call(
            node, lambda client: client.save(name, data, expected=expected, ttl_s=ttl_s)
        )

    def _done(
        self, held: Held, record: Record, targets: list[RingNode], missing: dict[str, str]
    ) -> Written:
        if held.must_copy:
            self.repaired += 1
        held.record = record
        held.must_copy = False
        held.touched_ds = self._now_ds()
        primaries = [node for node in self.ring.nodes if not node.is_failover]
        if len(targets) >= min(self.copies, len(primaries)):
            missing = {}
        else:
            for node in primaries:
                if node not in targets:
                    missing.setdefault(node.name, "is down")
        names = tuple(node.name or node.client.address for node in targets)
        return Written(names, missing)

    def save_link(self, session_id: str, key: str, home: RingNode | None, limit_s: int) -> None:
        """Make a later id lead to its session's key. What cannot be done is told.

        Args:
            session_id: The id.
            key: The session's key.
            home: The node that the id names.
            limit_s: Of the session.
        """
        data = wrapped("", 0, self._form.pack_link(session_id, key))
        name = self.prefix + session_id
        ttl_s = 0 if limit_s <= 0 else self.link_life_of(limit_s)
        for node in self.ring.targets(home, self.copies):
            try:
                if self.ring.call(node, lambda client: client.peek(name, ttl_s)) is None:
                    self.ring.call(
                        node, lambda client: client.save(name, data, expected=0, ttl_s=ttl_s)
                    )
            except StoreConflictError:
                continue  # Another request has just done it.
            except StoreError as why:
                self.tell("link", why)

    def link_life_of(self, limit_s: int) -> int:
        """Return how long a link lives; it is renewed when a quarter of that is over."""
        return max(2 * limit_s, 3600)

    def delete(self, held: Held) -> bool:
        """Remove the home's copy if it is the known one; False if there is another.

        Raises:
            StoreError: The node does not answer.
        """
        home = held.home
        if home is None or not held.versions.get(home):
            return True
        name, version = self.prefix + held.key, held.versions[home]
        if self.ring.call(home, lambda client: client.delete(name, expected=version)):
            return True
        return self.ring.call(home, lambda client: client.peek(name)) is None
