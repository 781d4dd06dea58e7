"""The Standard manager: sessions in this process's memory, and perhaps a file between two runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from tribes.errors import RemoteProtocolError, StoreDataError, StoreError, StoreLimitError
from tribes.ids import SessionKey

from .local import LocalManager
from .record import Life, Record, header
from .session import Session
from .session_ids import is_possible_id
from .stored import Link, StoredForm

if TYPE_CHECKING:
    from tribes.stores.envelope import Envelope

    from .clock import Clock
    from .table import SessionTable

__all__ = ["Snapshot", "StandardManager"]


class _Contents(Protocol):
    @property
    def values(self) -> list[tuple[str, bytes]]: ...
    @property
    def damaged(self) -> int: ...


class Snapshot(Protocol):
    """Where all sessions wait for the next start; `tribes.stores.snapshot.SnapshotFile` is one."""

    def save(self, values: Iterable[tuple[str, bytes]]) -> None:
        """Replace everything."""

    def load(self) -> _Contents:
        """Return everything."""

    def remove(self) -> None:
        """Keep nothing."""

    def refuse(self) -> object:
        """Set everything aside, for people."""


class StandardManager(LocalManager):
    """Sessions that live as long as the process, or with a snapshot through a clean restart.

    After a crash there is nothing to load: what a snapshot held is removed when it is loaded, or
    it would bring back sessions that were ended since.

    Args:
        context: As every manager's, like what follows.
        table: See `SessionManager`.
        clock: See `SessionManager`.
        snapshot: Where the sessions are between stop and start (``pathname``); None: nowhere.
        envelope: Seals them; needed with a snapshot.
        on_store_error: Told what could not be saved or loaded.
        settings: See `SessionManager`.

    Attributes:
        loaded: Sessions that the last start brought back.
        damaged: Sessions, or places in the file, that it could not bring back.
    """

    def __init__(
        self,
        context: str,
        table: SessionTable,
        clock: Clock,
        *,
        snapshot: Snapshot | None = None,
        envelope: Envelope | None = None,
        on_store_error: Callable[[str, Exception], None] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(context, table, clock, **settings)
        assert snapshot is None or envelope is not None
        self._snapshot = snapshot
        self._envelope = envelope
        self._on_store_error = on_store_error or (lambda verb, error: None)
        self.loaded = 0
        self.damaged = 0

    def start(self) -> None:
        """Load what the last stop saved, expired sessions left out; an error costs no start."""
        if self._snapshot is None:
            return
        try:
            contents = self._snapshot.load()
        except StoreError as error:
            self._on_store_error("load", error)
            return
        self.damaged = contents.damaged
        for key, sealed in contents.values:
            try:
                self._load_one(key, sealed)
            except (StoreDataError, RemoteProtocolError) as error:
                self.damaged += 1
                self._on_store_error("load", error)
        try:
            if self.damaged:
                self._snapshot.refuse()
            else:
                self._snapshot.remove()
        except StoreError as error:
            self._on_store_error("remove", error)

    def stop(self) -> None:
        """Save every live session; if that fails, the error is told and the old file stays."""
        if self._snapshot is None:
            return
        live = [
            (key, record)
            for key, record in self._live_records()
            if not self.is_idle(record, self.now_ds())
        ]
        for key, record in live:
            self._listeners.passivating(Session(self, SessionKey(key), record))
        try:
            self._snapshot.save(self._packed(live))
        except StoreError as error:
            self._on_store_error("save", error)

    def _packed(self, live: list[tuple[str, Record]]) -> Iterator[tuple[str, bytes]]:
        form = self._form()
        for key, record in live:
            try:
                yield key, form.pack(key, record)
            except StoreLimitError as error:
                self._on_store_error("save", error)

    def _load_one(self, key: str, sealed: bytes) -> None:
        record = self._form().unpack(key, sealed)
        if isinstance(record, Link) or not is_possible_id(key):
            raise StoreDataError("it is no session of this manager")
        if self._is_worth_loading(record):
            self._admit(key, record, activate=True)
            self.loaded += 1

    def _is_worth_loading(self, record: Record) -> bool:
        return header(record).life == Life.LIVE and not self.is_idle(record, self.now_ds())

    def _form(self) -> StoredForm:
        assert self._envelope is not None
        return StoredForm(self._envelope, wall_ms=self.clock.wall_ms, now_ds=self.now_ds)
