"""The Delta manager: every member that runs a context holds all its sessions (Tomcat's all-to-all).

Requests use it as they use every manager (:class:`SessionManager`). What is particular to it lives
in the core: the :class:`Replicator` that sends each commit to all members, gives a joiner
everything, repairs what a member missed, and expires idle sessions by their owner.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .base import SessionManager
from .fetch import FETCH_MAX_S, has_write
from .inbox import Commit, Question
from .layout import walk
from .marks import fired_mark, is_fired
from .merge import merge
from .record import WHOLE, Life, header, main_of, to_wire, write_of
from .session_ids import is_possible_id

if TYPE_CHECKING:
    from .inbox import Waiter
    from .record import Record
    from .replication import Replicator

__all__ = ["DeltaManager"]


class DeltaManager(SessionManager):
    """Creates, finds and commits sessions whose copies are on all members of the context.

    Attributes:
        replicator: The side in the core, once a node runs this manager; None before. From other
            threads only the properties here may be used.
    """

    replicator: Replicator | None = None
    ask_max_s: float = FETCH_MAX_S

    @property
    def copies_on(self) -> tuple[str, ...]:
        """Names of the other members that hold copies now; safe from any thread."""
        replicator = self.replicator
        return () if replicator is None else tuple(m.label for m in replicator.targets)

    @property
    def has_draining(self) -> bool:
        """Whether a member that is about to leave still serves, and no commit waits for it."""
        replicator = self.replicator
        return replicator is not None and replicator.has_draining

    def is_primary(self, session_id: str) -> bool:
        """Tell whether this node is the one that used the session last, as far as it knows.

        That is who made its last write, or has a later use that it did not tell the others yet
        (Tomcat: ``isPrimarySession``). It decides nothing here; safe from any thread.
        """
        key = self.table.resolve(session_id, self.now_ds())
        record = None if key is None else self.table.get(key)
        if key is None or record is None:
            return False
        main = main_of(record)
        last = max((write_of(main, span[0]) for span in walk(main)), default=(0, b""))
        return key in self.touches or self._is_mine(int.from_bytes(last[1], "big"))

    def _is_mine(self, actor: int) -> bool:
        return actor == self.clock.actor or actor in self.lent_actors

    # Sessions that a request needs now; safe from any thread.

    def wanted(self, session_ids: Iterable[str], written: tuple[int, int] | None) -> Iterable[str]:
        """See `SessionManager.wanted`."""
        return (each for each in session_ids if self.lacks(each, written))

    def lacks(self, session_id: str, written: tuple[int, int] | None = None) -> bool:
        """Tell whether a request should `ask` for a session before it uses it.

        Args:
            session_id: What the client sent, without the route; any text.
            written: The write that its client knows of: hlc and actor.
        """
        replicator = self.replicator
        if replicator is None or not is_possible_id(session_id):
            return False
        key = self.table.resolve(session_id, self.now_ds())
        record = None if key is None else self.table.get(key)
        if record is None:
            if self._may_lack(replicator):
                return True
        else:
            fixed = header(record)
            if fixed.life == Life.LIVE and not fixed.flags & WHOLE and self._may_lack(replicator):
                return True
        if written is None or self._is_mine(written[1]):
            return False
        # A session that was made a moment ago on another node is itself such a write.
        if record is not None and has_write(record, *written):
            return False
        known = replicator.settled.get(session_id if key is None else key)
        return known is None or known[:2] != written or known[2] < self._monotonic()

    def _may_lack(self, replicator: Replicator) -> bool:
        transfer = replicator.transfer
        return not (transfer.is_joined and transfer.is_complete) or transfer.is_comparing

    def ask(self, session_id: str, written: tuple[int, int] | None, waiter: Waiter) -> bool:
        """See `SessionManager.ask`."""
        hlc, actor = written or (0, 0)
        return self.inbox.ask(Question(self.context, session_id, hlc, actor, waiter))

    def merged(self, key: str, before: Record | None, after: Record) -> None:
        """A peer's delta or copy has changed a record: perhaps a request waits for it."""
        super().merged(key, before, after)
        if self.replicator is not None:
            self.replicator.seen(key)
            self.replicator.expiry.merged(key, after)

    def notify_destroyed(self, key: str, reason: str) -> None:
        """Tell the listeners that a session expired, and the other members that this is done."""
        super().notify_destroyed(key, reason)
        while True:
            current = self.table.get(key)
            if current is None or main_of(current)[1] != Life.EXPIRED or is_fired(current):
                break
            mark = fired_mark(current, self.clock.actor)
            data = to_wire(mark, self.now_ds())
            commit = Commit(self.context, key, header(current).access, data)
            if self.table.swap(key, current, merge(current, mark), commit):
                break
        if self.replicator is not None:
            self.replicator.expiry.fired(key)

    @property
    def is_joined(self) -> bool:
        """Whether this node has the sessions that the others had; safe from any thread."""
        replicator = self.replicator
        return replicator is not None and replicator.transfer.is_joined
