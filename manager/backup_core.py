"""The side of a Backup manager that lives in the core: whose sessions go where.

To the group it is the replicator of its context, by which members find out who runs the
application; only who does is told anything. The sessions themselves are replicated part by part, by
the replicators that :class:`~tribes.manager.placed.PlacedCore` runs. What is done once for all
parts is here: commits find their part, idle sessions are looked for by their owners, uses are told
to the holders, and copies that were fetched are forgotten again.

It is longer than other files because it answers everything that a group asks of a replicator; what
has a rule of its own is elsewhere (`placed`, `seeks`, `part`, `losers`), and called from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tribes.channel.outputs import Notice
from tribes.errors import RemoteProtocolError
from tribes.wire.options import SendOptions

from .drain import Drain, Lacking
from .expiry import Expiry
from .losers import Losers, on_lost
from .messages import ExpireAnswer, ExpireAsk, Lock, Pairs
from .part import PartReplicator, PartView
from .placed import PlacedCore, Placing
from .placed_messages import Lost, Places, PlaceState, Seek, Sought, Stale, part_context
from .placement import PER_PART, part_of
from .record import deciseconds, to_wire
from .replication import BATCH_MAX, Replicator
from .seeks import Done, Seeks
from .transfer import Transfer

if TYPE_CHECKING:
    from tribes.channel.core import ChannelCore
    from tribes.config.managers import BackupConfig
    from tribes.wire.member import Member

    from .backup import BackupManager
    from .group import SessionGroup
    from .inbox import Commit, Question
    from .messages import ManagerMessage

__all__ = ["BackupReplicator", "PlacedReceipts"]

CACHED_S: Final = 60.0
"""How long a fetched copy is kept after its last use."""

_UNSURE_S: Final = 30.0
"""Older changes have long been compared by those who hold them."""

_TICK_S: Final = 1.0
_PARTIAL_S: Final = 0.1
_PARTIAL_MAX: Final = 10_000
_ASYNC = int(SendOptions.ASYNCHRONOUS)


class _Presence(Transfer):
    """Nothing to compare: joined is who knows what all others hold."""

    core: BackupReplicator

    def peer_up(self, member: Member, now: float) -> None:
        """Nothing is asked for."""

    def _compare(self, now: float) -> None:
        """Nothing is compared."""

    def resync(self, now: float) -> int:
        """Nothing: the parts do that."""
        return 0

    def _look(self, now: float) -> None:
        if self.is_joined or not self._may_end(now):
            return
        core = self.core
        if not core.placed.knows_all and now < self._started + core.start_timeout_s:
            self._channel.timers.at(now + 0.05, self._look)
            return
        self.is_complete = core.placed.knows_all
        self.is_joined = True
        self.progress.end(now)
        core.begin(now)


class PlacedReceipts(Drain):
    """What is still to be given to others before this node goes."""

    placed: PlacedCore

    def lacking(self) -> list[Lacking]:
        """Which parts nobody else has confirmed to have whole, and what was changed on visits."""
        placed, context = self.placed, self._manager.context
        if not placed.is_draining:
            return []
        found = []
        if not placed.is_drained:
            held = placed.held
            live = sum(self._manager.table.live_in[number] for number in held)
            why = "not all who should have it do"
            found.append(Lacking(context, "*", len(held) * PER_PART, live, why))
        owing = [p for p in placed.parts.values() if not (p.is_held or p.is_idle)]
        if owing:
            changed = sum(part.changes for part in owing)
            why = "not all who hold it have what was changed here"
            found.append(Lacking(context, "*", len(owing) * PER_PART, changed, why))
        return found


class BackupReplicator(Replicator):
    """Copies the sessions of one context to some of the members that run it.

    Args:
        manager: The request side.
        channel: Where messages go.
        config: Copies, options, times.
        group: Where the parts are run.
        settings: See `Replicator`.

    Attributes:
        placed: Where the parts lie.
        seeks: The sessions that requests here ask others for.
        has_failed: It could not start, and the configuration says that the node must not either.
    """

    manager: BackupManager
    _transfer_type = _Presence
    transfer: _Presence

    def __init__(
        self,
        manager: BackupManager,
        channel: ChannelCore,
        config: BackupConfig,
        *,
        group: SessionGroup,
        **settings: Any,
    ) -> None:
        config = msgspec.structs.replace(config, channel_send_options=config.send_options)
        super().__init__(manager, channel, config, **settings)
        self.transfer.core = self
        self.receipts: PlacedReceipts = PlacedReceipts(manager, channel)
        self.has_failed = False
        self.start_timeout_s = config.rpc_timeout / 1000
        self._config = config
        self._group = group
        self._settings = settings
        self._cached: dict[str, tuple[float, Member | None]] = {}
        """Copies of sessions that lie on others: when they were last used, and who gave them."""
        self._partial: dict[str, None] = {}
        self.placed = PlacedCore(
            manager.context,
            self,
            channel=channel,
            group=group,
            placing=Placing(
                copies=config.backup_count,
                weight=config.weight,
                zone=config.zone,
                silence_s=config.access_timeout / 1000,
            ),
        )
        book = self.placed.book
        self.seeks = Seeks(
            manager,
            channel,
            book,
            timeout_s=config.rpc_timeout / 1000,
            merged=self._note,
            lacking=lambda key, now: self._bring([key], now),
            wakes=self._wakes,
        )
        self.expiry = Expiry(
            manager,
            channel,
            interval=config.expiry_interval / 1000,
            spread=self._spread,
            owns=lambda key: book.is_owner(part_of(key)),
        )
        self.receipts.placed = self.placed
        group.placed[manager.context] = self.placed
        manager.book = book
        manager.ask_max_s = config.rpc_timeout / 1000
        manager.comparing = self._is_comparing
        manager.on_partial = self._complete_soon
        manager.lost = lambda: self.placed.statistics.sessions_lost

    # Life.

    def start(self, now: float) -> None:
        """Begin to replicate."""
        super().start(now)
        self._channel.timers.at(now + _TICK_S, self._tick)

    def begin(self, now: float) -> None:
        """All members have said what they hold, or it was waited for long enough."""
        if not self.transfer.is_complete and self._config.terminate_on_start_failure:
            self.has_failed = True
        self.placed.begin(now)
        self.seeks.is_open = True
        fields: dict[str, object] = {
            "context": self.manager.context,
            "members": len(self._targets),
            "complete": self.transfer.is_complete,
        }
        self._channel.event(Notice("joined", fields))

    def stop(self) -> None:
        """No more timers; commits are answered without copies."""
        super().stop()
        self.placed.stop()
        self.seeks.stop()

    def resync(self, now: float) -> int:
        """Compare all parts that lie here with the other holders now."""
        asked: set[Member] = set()
        for number in self.placed.held:
            part = self.placed.parts[number]
            part.transfer.resync(now)
            asked.update(part.targets)
        return len(asked)

    def drain(self, now: float) -> None:
        """Give every part to others, with their receipts."""
        self.placed.drain(now)

    @property
    def is_drained(self) -> bool:
        """True when nothing is here that others should have."""
        return self.is_quiet and (not self.placed.is_draining or self.placed.is_drained)

    @property
    def is_quiet(self) -> bool:
        """True when every change known here was taken by those who hold its session."""
        return all(part.is_idle for part in self._visited())

    def _visited(self) -> list[PartReplicator]:
        return [part for part in self.placed.parts.values() if not part.is_held]

    # Who is there.

    def peer_up(self, member: Member, now: float) -> None:
        """A member runs the application."""
        if member not in self._target_set:
            self._target_set.add(member)
            self._targets = (*self._targets, member)
            self.expiry.peer_up(member)
            self.placed.member_up(member, now)
            self.locks.members(self._targets, now)

    def peer_draining(self, member: Member, now: float) -> None:
        """A member is about to leave: it gives its parts away and decides nothing any more."""
        if member in self._target_set:
            self._draining[member] = None
            self.expiry.peer_draining(member)

    def peer_down(self, member: Member, now: float) -> None:
        """A member is gone, or does not run the application any more."""
        if member in self._target_set:
            self._target_set.discard(member)
            self._targets = tuple(target for target in self._targets if target != member)
            is_orderly = member in self._draining
            self._draining.pop(member, None)
            self.locks.members(self._targets, now)
            self.expiry.peer_down(member, now)
            held = self.placed.book.held_by(member)
            self.placed.member_down(member, now)
            self.seeks.member_down(member, now)
            if not is_orderly:
                self._bring_lately_given(member, now)
            elif not self.placed.book.weight:
                # It had no heir in this member, and perhaps saw no other one.
                self._bring([key for key in self._cached if part_of(key) in held], now)

    def peer_forgot(self, member: Member, now: float) -> None:
        """A member had taken this node for gone."""
        self.placed.member_forgot(member, now)

    def peer_lost(self, now: float) -> None:
        """A member went: the parts see to it."""

    def suspicion(self, member: Member, is_suspected: bool, now: float) -> None:
        """A member stopped answering, or answers again."""
        for part in self._visited():
            part.suspicion(member, is_suspected, now)
        if is_suspected:
            self.seeks.member_down(member, now)

    def room(self, member: Member, now: float) -> None:
        """There is room again in the live queue of a member."""
        for part in self._visited():
            part.room(member, now)

    # What goes out.

    def commits(self, batch: list[Commit], now: float) -> None:
        """Spread what request threads committed."""
        self.statistics.commits += len(batch)
        for part, commits in self._by_part(batch, lambda commit: commit.key, now):
            part.commits(commits, now)
        self._note_visits((commit.key for commit in batch), now)

    def mark_dirty(self, keys: list[str], now: float) -> None:
        """Changes that found no room in the inbox."""
        for part, group in self._by_part(keys, str, now):
            part.mark_dirty(group, now)
        self._note_visits(keys, now)

    def overflowed(self, commits: list[Commit]) -> None:
        """Commits that found no room in the inbox: they are on no other member yet."""
        now = self._channel.now
        for part, group in self._by_part(commits, lambda commit: commit.key, now):
            part.overflowed(group)

    def _spread(self, pairs: Pairs, now: float, then: Callable[[float], None]) -> None:
        groups = list(self._by_part(pairs, lambda pair: pair[0], now))
        left = len(groups)

        def spread(when: float) -> None:
            nonlocal left
            left -= 1
            if not left:
                then(when)

        for part, group in groups:
            part._spread(group, now, spread)

    def _send_touches(self, now: float) -> None:
        if not self._is_running:
            return
        self._touch_later(now)
        now_ds = deciseconds(now)
        touches = self.manager.take_touches(now_ds)
        for part, group in self._by_part(touches, lambda touch: touch[0], now):
            pairs = [(key, to_wire(touch, now_ds)) for key, touch in group]
            for start in range(0, len(pairs), BATCH_MAX):
                # A lost one costs an objection when somebody wants to expire the session.
                part.tell(pairs[start : start + BATCH_MAX], _ASYNC, now)

    def _by_part(
        self, items: Iterable[Any], key_of: Callable[[Any], str], now: float
    ) -> Iterator[tuple[PartReplicator, list[Any]]]:
        groups: dict[int, list[Any]] = {}
        for item in items:
            groups.setdefault(part_of(key_of(item)), []).append(item)
        for number, group in groups.items():
            yield self.placed.part(number, now), group

    # What comes in.

    def message(self, source: Member, message: ManagerMessage, now: float) -> None:
        """A member's message for this context as a whole.

        Raises:
            RemoteProtocolError: It is malformed, or for a manager of another kind.
        """
        self.manager.traffic.count_received(message)
        match message:
            case Places():
                self.placed.on_places(source, message, now)
            case Stale():
                self.placed.on_stale(source, message, now)
            case Seek():
                self.seeks.on_seek(source, message, now)
            case Sought():
                self.seeks.on_sought(source, message, now)
            case Lost():
                on_lost(self.manager, self._channel, message)
            case ExpireAsk():
                self.expiry.on_ask(source, message, now)
            case ExpireAnswer():
                self.expiry.on_answer(source, message, now)
            case Lock():
                self.locks.message(source, message, now)
            case _:
                raise RemoteProtocolError(
                    f"{self.manager.context!r} has a Backup manager here, another one there"
                )

    def fetch(self, session_id: str, done: Done, now: float) -> None:
        """Get a session from its holders into the table, see `Seeks.fetch`."""
        self.seeks.fetch(session_id, done, now)

    def ask(self, question: Question, now: float) -> None:
        """A request needs a session that is not here, or not with what its client has written."""
        self.seeks.ask(question, now)

    def seen(self, key: str) -> None:
        """A session has changed here: perhaps a request waits for that."""
        self.seeks.seen(key)

    @property
    def settled(self) -> dict[str, tuple[int, int, float]]:
        """By session, the write last asked for, and until when the answer holds."""
        return self.seeks.settled

    # Parts.

    def make_part(self, number: int) -> PartReplicator:
        """Make the replicator of a part."""
        context = part_context(self.manager.context, number)
        return PartReplicator(
            PartView(self.manager, context, number),
            self._channel,
            self._config,
            part=number,
            host=self.placed,
            is_view=True,
            losers=Losers(self.manager, self._channel),
            **self._settings,
        )

    def place_changed(self, number: int, state: PlaceState) -> None:
        """Requests see it in the book."""

    def entries_of(self, number: int) -> int:
        """Return how many live sessions a part has here."""
        return self.manager.table.live_in[number]

    def part_released(self, number: int, now: float) -> None:
        """A part lies on others: its sessions are forgotten, and fetched when a request comes. Not
        those that requests have just fetched: they have yet to look, and would find that there is
        no session. These are copies like any other, see `_forget`.
        """
        del now
        table = self.manager.table
        for partition in range(number * PER_PART, (number + 1) * PER_PART):
            for key in table.keys_of(partition):
                record = table.get(key)
                if record is not None and key not in self._cached:
                    table.drop(key, record)

    def _is_comparing(self, number: int) -> bool:
        part = self.placed.parts.get(number)
        return part is not None and part.transfer.is_comparing

    # Sessions of which only changes have come.

    def _complete_soon(self, key: str) -> None:
        if self.placed.book.states[part_of(key)] and len(self._partial) < _PARTIAL_MAX:
            if not self._partial:
                now = self._channel.now
                self._channel.timers.at(now + _PARTIAL_S, self._complete)
            self._partial[key] = None

    def _complete(self, now: float) -> None:
        """Ask for what is still not whole: usually it has come by itself."""
        partial, self._partial = self._partial, {}
        for key in partial:
            record = self.manager.table.get(key)
            if record is not None and not self.manager.is_whole(key):
                self.seeks.fetch(key, lambda error: None, now)

    # Copies.

    def _note_visits(self, keys: Iterable[str], now: float) -> None:
        for key in keys:
            self._note(key, now)

    def _note(self, key: str, now: float, giver: Member | None = None) -> None:
        """Somebody uses a copy of a session that does not lie here."""
        if not self.placed.book.states[part_of(key)]:
            _, known = self._cached.pop(key, (now, None))
            self._cached[key] = now, giver or known

    def _bring_lately_given(self, member: Member, now: float) -> None:
        """A holder has died: what it gave lately, perhaps nobody else has, and a client has seen
        it.
        """
        keys = [
            key
            for key, (used, giver) in self._cached.items()
            if giver == member and now - used < _UNSURE_S
        ]
        self._bring(keys, now)

    def _bring(self, keys: list[str], now: float) -> None:
        for part, group in self._by_part(keys, str, now):
            part.bring(group, now)

    def _tick(self, now: float) -> None:
        if self._is_running:
            self._channel.timers.at(now + _TICK_S, self._tick)
            if not self.transfer.is_complete:
                # Not all had said what they hold when this node went on.
                self.transfer.is_complete = self.placed.knows_all
            self._forget(now)

    def _forget(self, now: float) -> None:
        """Forget copies that are not used any more, the least recently used first."""
        table, cached = self.manager.table, self._cached
        kept: dict[str, tuple[float, Member | None]] = {}
        for key, (used, giver) in list(cached.items()):
            if now - used < CACHED_S and len(cached) <= self._config.cache_max:
                break
            del cached[key]
            number = part_of(key)
            part = self.placed.parts.get(number)
            record = table.get(key)
            if record is None or (part is not None and part.is_held):
                continue
            if part is not None and not part.is_idle:
                # A holder has still to get it from here.
                kept[key] = now, giver
                continue
            table.drop(key, record)
            if part is not None:
                part.forget(key)
        cached.update(kept)
