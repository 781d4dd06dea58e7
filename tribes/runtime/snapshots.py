"""The sessions of a whole group in files, from a stop of all members to the next start.

Nobody stays that could hold them: each member that goes last, or together with all others, writes
what it has. At the next start every member merges what its file says into its empty memory, before
it joins; from there on the group compares and merges as ever. So it does no harm that several files
say the same, that they differ, that one is loaded on several members, or that live members know
newer things (DESIGN §5.5).

Ended sessions are saved too, as tombstones: another member's older file must not bring them back.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, final
from urllib.parse import quote, unquote

import structlog

from tribes.errors import (
    RemoteProtocolError,
    SessionLimitError,
    StoreDataError,
    StoreError,
    StoreLimitError,
)
from tribes.manager.merge import merge
from tribes.manager.record import Life, deciseconds, header
from tribes.manager.session_ids import is_possible_id
from tribes.manager.stored import Link, StoredForm
from tribes.stores.envelope import Envelope
from tribes.stores.snapshot import SnapshotFile

if TYPE_CHECKING:
    from tribes.manager.base import SessionManager
    from tribes.manager.record import Record
    from tribes.security.keys import KeyRing

__all__ = ["PLACEHOLDER", "Loaded", "Snapshots"]

log = structlog.get_logger("tribes")

PLACEHOLDER: Final = "{context}"
_ROOT: Final = "%"
"""What stands for the context without a name; no quoted name is like it."""
_LOCK_S: Final = 10.0
_POLL_S: Final = 0.02


class Loaded(NamedTuple):
    """What was in a file: live sessions that were taken in, and records that could not be."""

    sessions: int
    damaged: int


@final
class Snapshots:
    """The files of one node, one per context.

    Args:
        pathname: Where; ``{context}`` in it stands for the context's name. Directories must exist.
        keys: The group's keys: with them the sessions are encrypted, else only checked for damage.
    """

    def __init__(self, pathname: str, keys: KeyRing | None = None) -> None:
        self._pathname = pathname
        self._keys = keys

    def path(self, context: str) -> Path:
        """The file of a context."""
        name = quote(context, safe="") or _ROOT
        return Path(self._pathname.replace(PLACEHOLDER, name)).absolute()

    def check(self) -> None:
        """See whether sessions could be saved.

        Raises:
            StoreError: The directory is not there, or this user may not write into it.
        """
        parent = Path(self._pathname).absolute().parent
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise StoreError(
                f"{parent} is no directory that can be written, so nothing would be saved when the "
                "last member stops; make it for this user, or set another manager.pathname"
            )

    def contexts(self) -> list[str]:
        """The contexts that have a file now."""
        pattern = Path(self._pathname).absolute()
        before, found, after = pattern.name.partition(PLACEHOLDER)
        if not found or not pattern.parent.is_dir():
            return []
        names = [path.name for path in pattern.parent.iterdir()]
        quoted = [
            name[len(before) : len(name) - len(after)]
            for name in names
            if name.startswith(before)
            and name.endswith(after)
            and len(name) > len(before) + len(after)
        ]
        contexts = ["" if each == _ROOT else unquote(each) for each in sorted(quoted)]
        return [each for each in contexts if self.path(each).name in names]

    def save(self, manager: SessionManager) -> Path:
        """Write all sessions of a context.

        Workers of one host may share a file: what is in it already is merged, not replaced.

        Raises:
            StoreError: They cannot be written; what was there stays.
        """
        path = self.path(manager.context)
        with _lock_of(path):
            file, form = SnapshotFile(path), self._form(manager)
            known = self._known(file, form)
            file.save(self._merged(manager, form, known))
        return path

    def _known(self, file: SnapshotFile, form: StoredForm) -> dict[str, Record]:
        known, damaged = _read(file, form)
        if damaged:
            log.error("saved sessions were damaged", file=str(file.refuse()), damaged=damaged)
        return known

    def _merged(
        self, manager: SessionManager, form: StoredForm, known: dict[str, Record]
    ) -> Iterator[tuple[str, bytes]]:
        table = manager.table
        for key in {**dict.fromkeys(table.keys()), **known}:
            copies = [each for each in (table.get(key), known.get(key)) if each is not None]
            try:
                yield key, form.pack(key, reduce(merge, copies))
            except (StoreLimitError, SessionLimitError) as error:
                log.error(
                    "session not saved", context=manager.context, session=key[:8], error=str(error)
                )

    def load(self, manager: SessionManager) -> Loaded:
        """Merge the sessions that were saved into those that are here, and remove the file.

        After a crash the file would bring sessions back that have ended since. One that is damaged
        is kept under another name; what can be read of it is loaded.

        Raises:
            StoreError: It cannot be read, renamed or removed.
        """
        path = self.path(manager.context)
        if not path.exists():
            return Loaded(0, 0)
        with _lock_of(path):
            file = SnapshotFile(path)
            records, damaged = _read(file, self._form(manager))
            sessions = 0
            now_ds = deciseconds(time.monotonic())
            for key, record in records.items():
                try:
                    manager.clock.observe(header(record).access)
                    _, after, _ = manager.table.merge_in(key, record, now_ds)
                except RemoteProtocolError:
                    damaged += 1
                    continue
                sessions += header(after).life == Life.LIVE
            fields = {"context": manager.context, "sessions": sessions}
            if damaged:
                kept = str(file.refuse())
                log.error("saved sessions were damaged", **fields, damaged=damaged, file=kept)
            else:
                file.remove()
                if records:
                    log.info("saved sessions loaded", **fields, file=str(path))
        return Loaded(sessions, damaged)

    def _form(self, manager: SessionManager) -> StoredForm:
        secrets = [] if self._keys is None else [key.store for key in self._keys]
        envelope = Envelope(manager.context, keys=secrets, encrypt=bool(secrets))
        return StoredForm(
            envelope,
            wall_ms=manager.clock.wall_ms,
            now_ds=lambda: deciseconds(time.monotonic()),
        )


def _read(file: SnapshotFile, form: StoredForm) -> tuple[dict[str, Record], int]:
    contents = file.load()
    damaged = contents.damaged
    records: dict[str, Record] = {}
    for key, sealed in contents.values:
        try:
            record = form.unpack(key, sealed)
        except StoreDataError:
            damaged += 1
            continue
        if isinstance(record, Link) or not is_possible_id(key):
            damaged += 1
            continue
        records[key] = record
    return records, damaged


@contextmanager
def _lock_of(path: Path) -> Iterator[None]:
    """Keep other processes of this host from the files of this directory."""
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as why:
        raise StoreError(f"cannot open {path.parent}: {why.strerror}") from why
    try:
        deadline = time.monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as why:
                if time.monotonic() >= deadline:
                    text = f"another process has kept {path.parent} locked for {_LOCK_S:g} s"
                    raise StoreError(text) from why
                time.sleep(_POLL_S)
        yield
    finally:
        os.close(directory)
