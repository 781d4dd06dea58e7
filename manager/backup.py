"""The Backup manager: each session lies on its owner and on k members more (Tomcat: BackupManager).

Requests use it as they use every manager. A member that holds a session reads it in its own memory.
On any other one the session is fetched when the request begins (`BackupManager.lacks`), and what
the request changes goes to all holders. Reading moves nothing, and neither does looking at it for
management: where a session lies follows from its key and the members alone.

New sessions get a key that this member owns, so a sticky client's requests stay local.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tribes.ids import SessionId

from .delta import DeltaManager
from .merge import is_whole, lost_updates
from .placed_messages import HOLDS
from .placement import PARTS, PER_PART, part_of
from .recent import remember
from .session_ids import is_possible_id, partition_of

if TYPE_CHECKING:
    from .base import CommitOutcome
    from .inbox import Waiter
    from .places import PlaceBook
    from .record import Entry, Record
    from .replication import Replicator
    from .request_line import RequestLine
    from .session import Session

__all__ = ["BackupManager", "BackupStatistics"]

LOST_MAX: Final = 10_000
"""Lost writes that are remembered, so that they are not counted again."""


class BackupStatistics(msgspec.Struct, frozen=True):
    """Counts by part, as they are now (Tomcat: ``activeSessions``, ``activeSessionsFull``).

    Attributes:
        owned: Live sessions that this member owns; ``max_active_sessions`` is about these.
        with_replicas: Live sessions that lie here, copies of others' included.
        cached: Sessions of others that are here because requests used them.
        all_known: Live sessions of all members, as their owners have counted them within seconds.
        under_replicated: Of the owned ones, those that lack a copy.
        sessions_lost: Sessions whose holders have all died, as this member found as the new owner.
        stale_commits: Commits of requests that had begun before another owner came; all merged.
    """

    owned: int
    with_replicas: int
    cached: int
    all_known: int
    under_replicated: int
    sessions_lost: int
    stale_commits: int


class BackupManager(DeltaManager):
    """Creates, finds and commits sessions that lie on some of the members.

    Attributes:
        book: Who holds what, once a node runs this manager. The core writes it.
        comparing: Tells whether a part that is held may lack what another holder has.
        on_partial: Told the key of a session of which only changes have arrived.
        lost: Counts sessions whose holders have all died.
    """

    book: PlaceBook | None = None
    comparing: Callable[[int], bool] | None = None
    on_partial: Callable[[str], None] | None = None
    lost: Callable[[], int] | None = None
    _lost: OrderedDict[tuple[int, bytes, int], None]
    """Lost writes of this process that were counted, the latest of them."""

    def start_over(self, *args: Any) -> None:
        """See `SessionManager.start_over`."""
        super().start_over(*args)
        self.book = None
        self._lost = OrderedDict()
        self.comparing = self.on_partial = self.lost = None
        self._stale_commits = 0

    def lacks(self, session_id: str, written: tuple[int, int] | None = None) -> bool:
        """See `DeltaManager.lacks`: of a session that does not lie here always, since its copy here
        may be old.
        """
        return self.is_elsewhere(session_id) or super().lacks(session_id, written)

    def _may_lack(self, replicator: Replicator) -> bool:
        # What `is_elsewhere` does not say is here.
        return False

    def is_primary(self, session_id: str) -> bool:
        """Tell whether this member owns the session of an id; safe from any thread."""
        book = self.book
        return (
            book is not None
            and is_possible_id(session_id)
            and bool(book.claims[part_of(session_id)])
        )

    def is_elsewhere(self, session_id: str) -> bool:
        """Tell whether another member must be asked for the session of this id."""
        book = self.book
        if book is None or not is_possible_id(session_id):
            return False
        part = part_of(session_id)
        if book.states[part] not in HOLDS:
            return True
        is_comparing = self.comparing
        if is_comparing is None or not is_comparing(part):
            return False
        key = self.table.resolve(session_id, self.now_ds())
        return key is None or not is_whole(self.table.get(key))

    def find(
        self, session_id: str, *, partial: bool = False, request: RequestLine | None = None
    ) -> Session | None:
        """See `SessionManager.find`. It looks here only, also for a session that lies on others:
        `lacks` and `ask` bring it before.
        """
        session = super().find(session_id, partial=partial, request=request)
        if session is not None and self.book is not None:
            session.epoch = self.book.epochs[part_of(session_id)]
        return session

    def commit(self, session: Session, waiter: Waiter | None = None) -> CommitOutcome:
        """See `SessionManager.commit`."""
        outcome = super().commit(session, waiter)
        book = self.book
        if outcome.version is not None and book is not None and session.epoch:
            epoch = book.epochs[part_of(session.key)]
            if session.epoch < epoch:
                self._stale_commits += 1
            session.epoch = epoch
        return outcome

    # For the core's thread.

    def overwritten(self, before: Record | None, after: Record) -> list[tuple[Entry, Entry]]:
        """See `SessionManager.overwritten`."""
        losses = () if before is None else lost_updates(before, after, self.clock.actor)
        return self.first_seen(losses)

    def first_seen(self, losses: Iterable[tuple[Entry, Entry]]) -> list[tuple[Entry, Entry]]:
        """Count those of some lost writes that this process made; each once, whoever tells it.

        Returns:
            Those that were counted now.
        """
        found = []
        for lost, won in losses:
            mark = (lost.namespace, lost.name, lost.hlc)
            if lost.actor == self.clock.actor and mark not in self._lost:
                remember(self._lost, mark, None, LOST_MAX)
                found.append((lost, won))
        self.counts.overwritten += len(found)
        return found

    def active_here(self) -> int:
        """Return how many sessions this member owns."""
        return sum(self.table.live_in[part] for part in self._owned())

    def new_key(self) -> SessionId:
        """Make the key of a new session: one that is owned here, if any is."""
        key = self.ids.new()
        owned = self._owned()
        if not owned:
            return key
        partition = partition_of(key)
        part = owned[partition // PER_PART % len(owned)]
        return SessionId(f"{part * PER_PART + partition % PER_PART:03X}{key[3:]}")

    def merged(self, key: str, before: Record | None, after: Record) -> None:
        """A peer's change was merged: one without what it changes asks for that."""
        super().merged(key, before, after)
        if self.on_partial is not None and not is_whole(after):
            self.on_partial(key)

    def is_held(self, session_id: str) -> bool:
        """Tell whether this member holds the session of an id, or would if there were one."""
        return self.book is not None and bool(self.book.states[part_of(session_id)])

    def is_whole(self, key: str) -> bool:
        """Tell whether there is a session of this key, and not only later changes of it."""
        return is_whole(self.table.get(key))

    def backup_statistics(self) -> BackupStatistics:
        """Return the counts by part. Asks nobody, and moves nothing."""
        book, live = self.book, self.table.live_in
        if book is None:
            return BackupStatistics(0, 0, sum(live), 0, 0, 0, self._stale_commits)
        owned = self._owned()
        entries = [live[p] if p in owned else book.entries[p] for p in range(PARTS)]
        return BackupStatistics(
            owned=sum(live[p] for p in owned),
            with_replicas=sum(live[p] for p in range(PARTS) if book.states[p]),
            cached=sum(live[p] for p in range(PARTS) if not book.states[p]),
            all_known=sum(entries),
            under_replicated=sum(live[p] for p in book.short),
            sessions_lost=0 if self.lost is None else self.lost(),
            stale_commits=self._stale_commits,
        )

    def _owned(self) -> list[int]:
        book = self.book
        return [] if book is None else [p for p, claim in enumerate(book.claims) if claim]
