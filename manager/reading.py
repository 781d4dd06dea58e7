"""A record while it is being read: its entries are found once, when they are first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from .layout import index_attributes, walk
from .record import read_entry

if TYPE_CHECKING:
    from .layout import Span
    from .record import Entry, Record

__all__ = ["Reading"]


@final
class Reading:
    """One immutable record and where its entries lie.

    Args:
        record: Of this process, packed or checked.
    """

    __slots__ = ("_attributes", "_spans", "attributes_end", "main", "record")

    def __init__(self, record: Record) -> None:
        self.record = record
        self.main = record if isinstance(record, bytes) else record[0]
        self.attributes_end = 0
        self._attributes: dict[bytes, Span] | None = None
        self._spans: list[Span] | None = None

    @property
    def attributes(self) -> dict[bytes, Span]:
        """Where the attributes lie in ``main``, up to ``attributes_end``, which it sets."""
        found = self._attributes
        if found is None:
            found, self.attributes_end = index_attributes(self.main)
            self._attributes = found
        return found

    @property
    def spans(self) -> list[Span]:
        """Where all entries lie in ``main``."""
        if self._spans is None:
            self._spans = walk(self.main)
        return self._spans

    def index(self, namespace: int) -> dict[bytes, Span]:
        """Return where the entries of one namespace lie, by name."""
        if namespace == 0:
            return self.attributes
        main = self.main
        return {
            main[span[1] : span[2]]: span for span in self.spans if main[span[0]] >> 4 == namespace
        }

    def entry(self, namespace: int, name: bytes) -> Entry | None:
        """Decode one entry, if it is there."""
        span = self.index(namespace).get(name)
        return None if span is None else read_entry(self.record, span)
