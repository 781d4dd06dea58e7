"""What a member of a farm does and says, without sockets, files, clock or threads.

**Two phases.** A member that is given an archive takes it into its own store, then proposes it. All
others fetch it from whoever has it, verify its digest and unpack it beside the old version; only
then do they say that they are ready. One member decides: the proposer, or, if that is gone, the one
with the lowest unique id. It decides to deploy when every member of its view that takes part is
ready, and to refuse when one has failed. A decision to deploy is final; each member that learns of
it puts the archive in place by one rename. What is promised when a member dies in between is in
``docs/farm.md``.

**State, not events.** Members tell each other everything they know (:mod:`tribes.farm.catalogue`),
whenever it changes and when they meet, and compare hashes every `COMPARE_S`. So a lost message, a
restart, a split and a late joiner are one case, and nothing depends on the order of messages.

It is one file, for every input may change any of what is known, and is answered by the same steps.

Inputs: the view, messages, the time, what became of the outputs that touch the disk. Outputs are
performed in order; those of the disk one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from math import inf
from typing import TYPE_CHECKING, Final, final

from tribes.errors import FarmError
from tribes.farm.catalogue import APPS_MAX, Catalogue, Entry, Phase
from tribes.farm.deciding import Standpoint, decide, is_decider
from tribes.farm.messages import (
    CHUNK_BYTES,
    WHY_MAX_CHARS,
    WINDOW,
    Chunk,
    Digest,
    Fetch,
    Lack,
    Message,
    Report,
    Standing,
    State,
    encode,
)
from tribes.farm.outputs import (
    DropPart,
    FarmOutput,
    Forget,
    Install,
    Prepare,
    ReadChunk,
    Save,
    Send,
    Tell,
    WriteChunk,
)
from tribes.farm.records import FarmStatistics, Kept, Peer
from tribes.farm.transfer import Transfer

if TYPE_CHECKING:
    from tribes.farm.names import ArchiveName

__all__ = ["FarmCore"]

HELLO_S: Final = 2.0
"""A new member of the view is taken to have no farm when it has said nothing for so long."""
HELLO_AGAIN_S: Final = 0.5
HELLO_RARELY_S: Final = 30.0
COMPARE_S: Final = 5.0
PROGRESS_S: Final = 2.0
AGAIN_S: Final = 10.0
"""Seconds until something that failed on the disk, or that nobody had, is tried again."""
AHEAD_MAX_MS: Final = 24 * 3600 * 1000
"""An entry that is further in the future is not taken in: nothing could follow it."""
STEP_S: Final = 0.05
"""The timer is wanted no sooner after the last input."""
SPARED_S: Final = 60.0
"""A content that this member was ready to deploy is kept for so long after a newer proposal: it may
have been decided meanwhile."""
CORRUPT_MAX: Final = 3
"""So often a content is fetched anew whose digest was wrong."""


@final
class FarmCore:
    """One member's part in the farm.

    Args:
        local: Its unique id.
        label: Its name, for people.
        kept: What an earlier process has left.
        wall_ms: Wall clock, in milliseconds since 1970.
        now: Monotonic seconds.
        max_valid_time_s: Seconds without a piece after which a transfer is given up; negative:
            never.
        archive_max_bytes: Largest archive that is fetched.
        chunk_bytes: Of a piece.

    Attributes:
        statistics: Counters.
    """

    def __init__(
        self,
        local: bytes,
        label: str,
        kept: Kept,
        *,
        wall_ms: Callable[[], int],
        now: float,
        max_valid_time_s: float,
        archive_max_bytes: int,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self._local = local
        self._label = label
        self._wall_ms = wall_ms
        self._limit_s = inf if max_valid_time_s < 0 else max_valid_time_s
        self._archive_max = archive_max_bytes
        self._chunk_bytes = chunk_bytes
        self.statistics = FarmStatistics()
        self.peers: dict[bytes, Peer] = {}
        self._catalogue = Catalogue()
        for entry in kept.entries:
            self._catalogue.merge(entry)
        self._keys = set(kept.keys)
        self._installed = dict(kept.installed)
        self._previous = dict(kept.previous)
        self._parts = {key: (part, now) for key, part in kept.parts.items()}
        self._transfer: Transfer | None = None
        self._preparing: bytes | None = None
        self._sources: set[bytes] = set()
        self._installing: str | None = None
        self._failed: dict[tuple[int, bytes, bytes], tuple[str, float]] = {}
        self._corrupt: dict[bytes, int] = {}
        self._bad: dict[bytes, set[bytes]] = {}
        self._known: dict[tuple[int, bytes, bytes], float] = {}
        self._spared: dict[bytes, float] = {}
        self._ahead: set[tuple[int, bytes, bytes]] = set()
        self._has_changed = True
        self._told_received = 0
        self._told_at = self._shown_at = now
        self._compare_at = now + COMPARE_S
        self._started = self._stepped_at = now
        self._outputs: list[FarmOutput] = []
        self._step(now)

    # ---- what others look at ---------------------------------------------------------------------

    @property
    def next_deadline(self) -> float:
        """Monotonic seconds at which `timer` wants to be called."""
        waits = [self._compare_at]
        if self._transfer is not None:
            waits += [self._transfer.next_deadline, self._transfer.progress_at + self._limit_s]
        waits += [
            max(peer.moved_at, self._known[slot.open.order]) + self._limit_s
            for _, slot in self._catalogue
            if slot.open is not None
            for peer in self.peers.values()
            if _report_of(peer, slot.open).standing is Standing.LACKS
        ]
        waits += [at for _, at in self._failed.values()]
        waits += [each.hello_at for each in self.peers.values() if not each.has_farm]
        waits += [since + self._limit_s for _, since in self._parts.values()]
        # What is over may still be among them: nothing is to be done for it more often than this.
        return max(min(waits), self._stepped_at + STEP_S)

    @property
    def catalogue(self) -> Catalogue:
        """All entries; not to be changed."""
        return self._catalogue

    @property
    def installed(self) -> Mapping[str, bytes]:
        """Key of what is in place, by application."""
        return self._installed

    @property
    def previous(self) -> Mapping[str, bytes]:
        """Key of what was in place before, by application."""
        return self._previous

    def is_settled(self, now: float) -> bool:
        """Whether every member of the view has told what it knows, or has had the time to."""
        is_old = now - self._started >= HELLO_S
        return is_old and not any(self._is_unknown(each, now) for each in self.peers.values())

    def reports(self) -> tuple[Report, ...]:
        """How this member stands, to every entry."""
        return tuple(self._report(entry) for entry in self._catalogue.entries)

    def has(self, key: bytes) -> bool:
        """Whether a content is here, verified and unpacked."""
        return key in self._keys

    def take_outputs(self) -> list[FarmOutput]:
        """The outputs since the last call."""
        outputs, self._outputs = self._outputs, []
        return outputs

    # ---- inputs ----------------------------------------------------------------------------------

    def members(self, view: Mapping[bytes, str], now: float) -> None:
        """The other members of the view, their names by their unique ids."""
        for gone in self.peers.keys() - view.keys():
            del self.peers[gone]
            if self._transfer is not None:
                self._transfer.avoid(gone)
        for member, label in view.items():
            if member not in self.peers:
                self.peers[member] = Peer(label, now, moved_at=now)
        self._step(now)

    def message(self, source: bytes, message: Message, now: float) -> None:
        """A message of a member. One that is not in the view is not listened to."""
        peer = self.peers.get(source)
        if peer is None:
            return
        match message:
            case State():
                self._state(source, peer, message, now)
            case Digest():
                if message.digest != self._digest():
                    self._send(source, self._snapshot(ask=True))
            case Fetch():
                self._fetch(source, peer, message)
            case Chunk():
                self._chunk(message, now)
            case Lack():
                peer.keys -= {message.key}
                if self._transfer is not None and self._transfer.key == message.key:
                    self._transfer.avoid(source)
        self._step(now)

    def timer(self, now: float) -> None:
        """Time has passed."""
        if now >= self._compare_at:
            self._compare_at = now + COMPARE_S
            self._catalogue.prune(self._wall_ms())
            self._to_farm(Digest(self._digest()))
        for order, (_, at) in list(self._failed.items()):
            if now >= at:
                del self._failed[order]
        self._step(now)

    def propose(
        self, name: ArchiveName, digest: bytes, size: int, modified_ms: int, now: float
    ) -> Entry:
        """Propose to deploy an archive whose content is in the own store; an empty digest:
        to undeploy.

        Returns:
            The entry; that of before where nothing would change.

        Raises:
            FarmError: There are too many applications, or the application is not there to be
                undeployed.
        """
        slot = self._catalogue.get(name.app)
        newest = slot.newest
        entry = Entry(name, 0, self._local, digest, size, modified_ms, 0)
        if newest is not None and newest.key == entry.key and newest.name == name:
            return newest
        if not digest and (newest is None or not newest.digest):
            raise FarmError(f"{name.app!r} is not deployed")
        if not self._catalogue.has_room(name.app):
            self.collect(entry.key)
            raise FarmError("there are too many applications; undeploy one, and wait for a day")
        counter = max(self._wall_ms(), self._catalogue.highest + 1)
        base = 0 if newest is None else newest.counter
        entry = Entry(name, counter, self._local, digest, size, modified_ms, base)
        if digest:
            self._keys.add(entry.key)
        self.statistics.proposed += 1
        self._merge(entry, now)
        self._step(now)
        return entry

    def collect(self, key: bytes) -> None:
        """A content was put into the store, and will not be proposed."""
        if key and key not in self._keys:
            self._outputs.append(Forget(key))

    def wrote(self, key: bytes, index: int, error: str, now: float) -> None:
        """A `WriteChunk` is done; an empty error: it is on the disk."""
        transfer = self._transfer
        if transfer is None or transfer.key != key:
            return
        if error:
            self._give_up(transfer, error, now)
        else:
            transfer.wrote(index, now)
        self._step(now)

    def read(self, member: bytes, count: int) -> None:
        """A `ReadChunk` is done; so many bytes were sent."""
        self.statistics.served_bytes += count
        peer = self.peers.get(member)
        if peer is not None:
            peer.serving -= 1

    def prepared(self, key: bytes, error: str, now: float, *, is_corrupt: bool = False) -> None:
        """A `Prepare` is done; an empty error: the content is verified and unpacked."""
        self._preparing = None
        self._has_changed = True
        if not error:
            self._keys.add(key)
            self._tell_all(key, "archive ready")
            self._bad.pop(key, None)
            self._corrupt.pop(key, None)
        elif is_corrupt and self._corrupt.get(key, 0) + 1 < CORRUPT_MAX:
            # Somebody's copy or disk: fetched anew, if possible from another one.
            self._corrupt[key] = self._corrupt.get(key, 0) + 1
            self._bad.setdefault(key, set()).update(self._sources)
            self.statistics.corrupt += 1
            self._tell("archive corrupt", key=key.hex()[:16], why=error)
        else:
            self._fail_all(key, error, now)
        self._step(now)

    def installed_now(self, entry: Entry, error: str, now: float) -> None:
        """An `Install` is done; an empty error: it is in place, or gone."""
        self._installing = None
        app = entry.name.app
        if error:
            self._fail(entry, error, now)
        else:
            self._set_installed(app, entry)
        self._step(now)

    def _set_installed(self, app: str, entry: Entry) -> None:
        self._has_changed = True
        before = self._installed.pop(app, None)
        self._previous.pop(app, None)
        if entry.digest:
            self._installed[app] = entry.key
            if before is not None and before != entry.key:
                self._previous[app] = before
            self.statistics.deployed += 1
        else:
            self.statistics.undeployed += 1
        what = "archive deployed" if entry.digest else "archive undeployed"
        self._tell(what, **_named(entry))
        self._save()

    # ---- messages --------------------------------------------------------------------------------

    def _state(self, source: bytes, peer: Peer, state: State, now: float) -> None:
        newest = self._wall_ms() + AHEAD_MAX_MS
        for entry in state.entries:
            if entry.counter > newest:
                self.statistics.rejected += 1
                self._tell_ahead(entry, peer)
            else:
                self._merge(entry, now)
        for key in state.keys - peer.keys:
            # Somebody has what nobody had: what was given up for that is tried again.
            self._retry(key)
        reports = {report.order: report for report in state.reports}
        if reports != peer.reports or not peer.has_farm:
            peer.moved_at = now
        peer.keys, peer.reports, peer.has_farm = state.keys, reports, True
        if state.ask:
            self._send(source, self._snapshot(ask=False))

    def _tell_ahead(self, entry: Entry, peer: Peer) -> None:
        """Once: members tell each other all they know every few seconds."""
        if entry.order in self._ahead:
            return
        if len(self._ahead) >= APPS_MAX:
            self._ahead.clear()
        self._ahead.add(entry.order)
        self._tell("clock ahead", member=peer.label, **_named(entry))

    def _retry(self, key: bytes) -> None:
        for _, slot in self._catalogue:
            entry = slot.deployed
            if entry is not None and entry.key == key:
                self._failed.pop(entry.order, None)

    def _fetch(self, source: bytes, peer: Peer, fetch: Fetch) -> None:
        if fetch.key not in self._keys:
            self._send(source, Lack(fetch.key))
            return
        for index in fetch.indices:
            # Who asks for more than a window gets no more: the rest is asked for again.
            if peer.serving < 2 * WINDOW:
                peer.serving += 1
                self._outputs.append(ReadChunk(source, fetch.key, fetch.chunk_bytes, index))

    def _chunk(self, chunk: Chunk, now: float) -> None:
        transfer = self._transfer
        if transfer is None or chunk.key != transfer.key or not transfer.arrived(chunk, now):
            self.statistics.duplicates += 1
            return
        self.statistics.fetched_bytes += len(chunk.data)
        self._outputs.append(
            WriteChunk(chunk.key, transfer.size, chunk.chunk_bytes, chunk.index, chunk.data)
        )

    def _merge(self, entry: Entry, now: float) -> None:
        before = self._catalogue.get(entry.name.app).entries
        merged = self._catalogue.merge(entry)
        if not merged.is_new:
            return
        self._has_changed = True
        loser = merged.superseded
        if loser is not None:
            self._spared[loser.key] = now + SPARED_S
        elif merged.replaced is not None and entry.base < merged.replaced.counter:
            # Whoever proposed this did not know of that: in another part of the group, or at the
            # same moment.
            loser = merged.replaced
        if loser is not None:
            self.statistics.superseded += 1
            self._tell("archive superseded", winner=entry.version, **_named(loser))
        if entry.phase is Phase.REFUSED:
            self.statistics.refused += 1
            self._tell("archive refused", why=entry.why, **_named(entry))
        elif all(entry.order != each.order for each in before):
            self._tell("archive offered", bytes=entry.size, **_named(entry))
        self._save()

    # ---- what is to be done ----------------------------------------------------------------------

    def _step(self, now: float) -> None:
        self._stepped_at = now
        self._note_known(now)
        self._decide(now)
        self._install()
        self._bring(now)
        self._collect(now)
        self._clean(now)
        self._greet(now)
        self._announce(now)

    def _note_known(self, now: float) -> None:
        entries = {entry.order: entry for entry in self._catalogue.entries}
        self._known = {order: self._known.get(order, now) for order in entries}
        self._failed = {
            # What others have decided all the same is tried again.
            order: (why, now + AGAIN_S if at == inf and _is_decided(entries[order]) else at)
            for order, (why, at) in self._failed.items()
            if order in entries
        }

    def _is_unknown(self, peer: Peer, now: float) -> bool:
        return not peer.has_farm and now - peer.since < HELLO_S

    def _decide(self, now: float) -> None:
        """Decide on open proposals, where that is this member's to do."""
        farm = {member: peer for member, peer in self.peers.items() if peer.has_farm}
        for _, slot in self._catalogue:
            entry = slot.open
            if entry is None or not is_decider(self._local, entry, farm):
                continue
            if any(self._is_unknown(each, now) for each in self.peers.values()):
                continue
            since = self._known[entry.order]
            standings = [Standpoint(self._label, self._report(entry), since, is_own=True)]
            standings += [
                Standpoint(peer.label, _report_of(peer, entry), max(peer.moved_at, since))
                for peer in farm.values()
            ]
            phase, why = decide(standings, now, self._limit_s)
            if phase is Phase.PROPOSED:
                continue
            self._merge(entry.at(phase, why), now)
            self._note_known(now)

    def _install(self) -> None:
        """Put in place what is decided, one after the other."""
        for app, slot in self._catalogue:
            entry = slot.deployed
            if entry is None or self._installing is not None or entry.order in self._failed:
                continue
            is_there = self._installed.get(app, b"") == entry.key
            if not is_there and (not entry.digest or entry.key in self._keys):
                self._installing = app
                self._outputs.append(Install(entry))

    def _wanted(self) -> list[Entry]:
        """What is to be fetched, what is decided first."""
        slots = [slot for _, slot in self._catalogue]
        entries = [slot.deployed for slot in slots] + [slot.open for slot in slots]
        return [
            entry
            for entry in entries
            if entry is not None
            and entry.digest
            and entry.key not in self._keys
            and entry.order not in self._failed
        ]

    def _bring(self, now: float) -> None:
        """Fetch what is wanted, one content at a time."""
        wanted = self._wanted()
        for entry in wanted:
            if entry.size > self._archive_max:
                limit = f"it has {entry.size} bytes, more than archive_max_bytes of this member"
                self._fail(entry, limit, now)
        wanted = [entry for entry in wanted if entry.order not in self._failed]
        keys = {entry.key for entry in wanted}
        if self._transfer is not None and self._transfer.key not in keys:
            self._drop(self._transfer.key)
        if self._preparing is None and wanted:
            self._choose(wanted, now)
        transfer = self._transfer
        if transfer is None:
            return
        if now - transfer.progress_at > self._limit_s:
            self.statistics.abandoned += 1
            why = f"no piece of it came for {self._limit_s:g} s"
            self._tell(
                "transfer abandoned", key=transfer.key.hex()[:16], received=transfer.received
            )
            self._give_up(transfer, why, now)
        elif transfer.is_complete:
            self._transfer, self._has_changed = None, True
            self._preparing = transfer.key
            self._sources = transfer.sources
            entry = next(each for each in wanted if each.key == transfer.key)
            self._outputs.append(Prepare(entry.key, entry.name, transfer.size))
        else:
            indices = transfer.ask(self._holders(transfer.key), now)
            if indices and transfer.source is not None:
                self._send(transfer.source, Fetch(transfer.key, transfer.chunk_bytes, indices))

    def _choose(self, wanted: list[Entry], now: float) -> None:
        """Fetch what somebody has; what nobody has any more waits with the pieces there are."""
        transfer = self._transfer
        if transfer is not None and (self._holders(transfer.key) or transfer.is_complete):
            return
        first = next((entry for entry in wanted if self._holders(entry.key)), wanted[0])
        if transfer is not None:
            if first.key == transfer.key or not self._holders(first.key):
                return
            self._parts[transfer.key] = (transfer.part, transfer.progress_at)
        self._begin(first, now)

    def _holders(self, key: bytes) -> list[bytes]:
        holders = [member for member, peer in self.peers.items() if key in peer.keys]
        # Those whose copy was wrong only where there is nobody else.
        bad = self._bad.get(key, set())
        return [member for member in holders if member not in bad] or holders

    def _begin(self, entry: Entry, now: float) -> None:
        part, since = self._parts.pop(entry.key, (None, now))
        resumes = part is not None and (part.size, part.chunk_bytes) == (
            entry.size,
            self._chunk_bytes,
        )
        have = part.have if part is not None and resumes else None
        if part is not None and not resumes:
            self._outputs.append(DropPart(entry.key))
        self._transfer = Transfer(entry.key, entry.size, self._chunk_bytes, have, since)
        self._told_received, self._has_changed = 0, True
        self._shown_at = now
        if have is not None:
            self.statistics.resumed += 1
            self._tell("transfer resumed", received=self._transfer.received, **_named(entry))

    def _give_up(self, transfer: Transfer, why: str, now: float) -> None:
        self._fail_all(transfer.key, why, now)
        self._drop(transfer.key)

    def _drop(self, key: bytes) -> None:
        self._transfer, self._has_changed = None, True
        self._outputs.append(DropPart(key))

    def _tell_all(self, key: bytes, event: str, **fields: object) -> None:
        for entry in self._catalogue.entries:
            if entry.key == key:
                self._tell(event, **_named(entry), **fields)

    def _fail_all(self, key: bytes, why: str, now: float) -> None:
        for entry in self._catalogue.entries:
            if entry.key == key:
                self._fail(entry, why, now)

    def _fail(self, entry: Entry, why: str, now: float) -> None:
        # A proposal fails once: the decision rests on it. What is decided is tried again.
        again = now + AGAIN_S if entry.phase is Phase.DEPLOYED else inf
        if entry.order not in self._failed:
            self._tell("archive failed", why=why, **_named(entry))
        self._failed[entry.order] = (why[:WHY_MAX_CHARS], again)
        self._has_changed = True

    def _collect(self, now: float) -> None:
        """Forget contents that no entry needs, and that were not in place just before."""
        self._spared = {key: until for key, until in self._spared.items() if until > now}
        needed = {entry.key for entry in self._catalogue.entries if entry.phase != Phase.REFUSED}
        needed |= set(self._installed.values()) | set(self._previous.values()) | set(self._spared)
        for key in sorted(self._keys - needed):
            self._keys.discard(key)
            self._has_changed = True
            self._outputs.append(Forget(key))

    def _clean(self, now: float) -> None:
        """Delete pieces that an earlier process has left, and that nobody wants any more."""
        for key, (_, since) in list(self._parts.items()):
            if key in self._keys:
                del self._parts[key]
                self._outputs.append(DropPart(key))
            elif now - since > self._limit_s:
                del self._parts[key]
                self.statistics.abandoned += 1
                self._outputs.append(DropPart(key))
                self._tell("transfer abandoned", key=key.hex()[:16], received=0)

    # ---- what is told ----------------------------------------------------------------------------

    def _report(self, entry: Entry) -> Report:
        file, order, app = entry.name.file, entry.order, entry.name.app
        if entry.order in self._failed:
            return Report(file, order, Standing.FAILED, why=self._failed[entry.order][0])
        if entry.phase is Phase.DEPLOYED and self._installed.get(app, b"") == entry.key:
            return Report(file, order, Standing.DEPLOYED, entry.size)
        if not entry.digest or entry.key in self._keys:
            return Report(file, order, Standing.READY, entry.size)
        transfer = self._transfer
        received = transfer.received if transfer is not None and transfer.key == entry.key else 0
        return Report(file, order, Standing.LACKS, received)

    def _snapshot(self, *, ask: bool) -> State:
        entries = tuple(self._catalogue.entries)
        return State(ask, entries, frozenset(self._keys), self.reports())

    def _digest(self) -> bytes:
        return sha256(
            encode(State(False, tuple(self._catalogue.entries), frozenset(), ()))
        ).digest()

    def _greet(self, now: float) -> None:
        for member, peer in self.peers.items():
            if peer.has_farm or now < peer.hello_at:
                continue
            # Whoever has said nothing for so long has no farm, or has not opened it yet.
            is_new = self._is_unknown(peer, now)
            peer.hello_at = now + (HELLO_AGAIN_S if is_new else HELLO_RARELY_S)
            self._send(member, self._snapshot(ask=True))

    def _announce(self, now: float) -> None:
        """Tell everybody what has changed; of a transfer's progress, now and then."""
        transfer = self._transfer
        if transfer is not None and transfer.received > self._told_received:
            step = transfer.received - self._told_received
            self._has_changed |= step * 16 >= transfer.size or now - self._told_at >= PROGRESS_S
        if self._has_changed:
            self._has_changed, self._told_at = False, now
            self._told_received = 0 if transfer is None else transfer.received
            if transfer is not None and now - self._shown_at >= PROGRESS_S:
                self._shown_at = now
                self._tell_all(
                    transfer.key,
                    "archive progress",
                    received=transfer.received,
                    bytes=transfer.size,
                )
            self._to_farm(self._snapshot(ask=False))

    def _to_farm(self, message: Message) -> None:
        for member, peer in self.peers.items():
            if peer.has_farm:
                self._send(member, message)

    def _send(self, member: bytes, message: Message) -> None:
        self._outputs.append(Send(member, message))

    def _save(self) -> None:
        self._outputs.append(Save(tuple(self._catalogue.entries), dict(self._previous)))

    def _tell(self, event: str, **fields: object) -> None:
        self._outputs.append(Tell(event, fields))


def _report_of(peer: Peer, entry: Entry) -> Report:
    return peer.reports.get(entry.order) or Report(entry.name.file, entry.order, Standing.LACKS)


def _is_decided(entry: Entry) -> bool:
    return entry.phase is Phase.DEPLOYED


def _named(entry: Entry) -> dict[str, object]:
    named: dict[str, object] = {"archive": entry.name.file, "version": entry.version}
    if not entry.digest:
        named["undeploys"] = True
    return named
