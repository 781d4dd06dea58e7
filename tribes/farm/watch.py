"""The watch directory: which archives came, changed or went.

`Watch` decides, with the time handed in; `look` reads a directory. A file is taken when it has not
changed for a while, so one that is still being copied is left alone; one that vanishes is missed
for as long before it counts as removed, so one that is replaced is not undeployed in between.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from tribes.errors import FarmError
from tribes.farm.catalogue import APPS_MAX
from tribes.farm.names import SUFFIXES, ArchiveName

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Found", "Look", "Stamp", "Watch", "look"]

Stamp = tuple[int, int]
"""Size, and when it was modified in ns: what tells that a file has changed."""


@final
@dataclass(frozen=True, slots=True)
class Look:
    """What is in the directory.

    Attributes:
        place: Which directory it is: another one when something is mounted over it, or not.
        files: The archives by name.
        refused: Names that are not taken, and why.
        is_whole: Whether nothing else is in it. Which files are left out of too many is chance.
    """

    place: int
    files: Mapping[str, Stamp]
    refused: Mapping[str, str]
    is_whole: bool = True


@final
@dataclass(frozen=True, slots=True)
class Found:
    """What is to be done.

    Attributes:
        taken: Files that came or changed, and are whole.
        gone: Files that were taken and are there no more, with the digests that they had.
        refused: Names that are not taken, and why; each is told once.
        is_other: The directory is another one than before: what is not in it counts for nothing.
    """

    taken: Mapping[str, Stamp]
    gone: Mapping[str, bytes]
    refused: Mapping[str, str]
    is_other: bool = False


@final
@dataclass(slots=True)
class _Known:
    stamp: Stamp
    digest: bytes
    missed_at: float | None = None


@final
class Watch:
    """Tells what happened between two looks.

    Args:
        settle_s: Seconds for which a file must stay as it is.
        kept: What `kept` gave in an earlier process.
    """

    def __init__(self, settle_s: float, kept: Mapping[str, Any]) -> None:
        self._settle_s = settle_s
        place = kept.get("place")
        self._place = place if isinstance(place, int) else None
        self._known = dict(_read(kept.get("files")))
        self._waiting: dict[str, tuple[Stamp, float]] = {}
        self._refused: dict[str, str] = {}

    @property
    def kept(self) -> dict[str, Any]:
        """What the next process needs to know."""
        files = [[name, *known.stamp, known.digest] for name, known in self._known.items()]
        return {"place": self._place or 0, "files": files}

    @property
    def is_waiting(self) -> bool:
        """Whether a look is due soon: a file has just changed or vanished."""
        return bool(self._waiting) or any(
            each.missed_at is not None for each in self._known.values()
        )

    def is_known(self, name: str) -> bool:
        """Whether a file of that name was taken before."""
        return name in self._known

    def took(self, name: str, stamp: Stamp, digest: bytes) -> None:
        """A file was dealt with; an empty digest: it could not be taken as it is."""
        self._known[name] = _Known(stamp, digest)

    def see(self, look: Look, now: float) -> Found:
        """Compare with what was there before."""
        is_other = self._place is not None and self._place != look.place
        self._place = look.place
        if is_other:
            # Unmounted, say: nobody has removed what is not in it.
            self._known = {n: k for n, k in self._known.items() if n in look.files}
        taken = {}
        for name, stamp in look.files.items():
            known = self._known.get(name)
            if known is not None and known.stamp == stamp:
                known.missed_at = None
                self._waiting.pop(name, None)
                continue
            before, since = self._waiting.get(name, (None, now))
            if before != stamp:
                since = now
            self._waiting[name] = (stamp, since)
            if now - since >= self._settle_s:
                del self._waiting[name]
                taken[name] = stamp
        gone = dict(self._gone(look, now))
        self._waiting = {n: w for n, w in self._waiting.items() if n in look.files}
        new = {n: why for n, why in look.refused.items() if self._refused.get(n) != why}
        self._refused = dict(look.refused)
        return Found(taken, gone, new, is_other)

    def _gone(self, look: Look, now: float) -> list[tuple[str, bytes]]:
        gone: list[tuple[str, bytes]] = []
        if not look.is_whole:
            return gone
        for name, known in list(self._known.items()):
            if name in look.files:
                continue
            if known.missed_at is None:
                known.missed_at = now
            if now - known.missed_at >= self._settle_s:
                del self._known[name]
                gone.append((name, known.digest))
        return gone


def _read(files: Any) -> list[tuple[str, _Known]]:
    found = []
    for each in files if isinstance(files, list) else []:
        match each:
            case [str() as name, int() as size, int() as modified, bytes() as digest]:
                found.append((name, _Known((size, modified), digest)))
            case _:
                pass
    return found


def look(directory: str) -> Look:
    """Read a directory. Names that begin with a dot, or are none of an archive, are not looked at.

    Raises:
        OSError: It cannot be read.
    """
    files: dict[str, Stamp] = {}
    refused: dict[str, str] = {}
    is_whole = True
    place = os.stat(directory)
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not entry.name.lower().endswith(SUFFIXES):
                continue
            if len(files) + len(refused) >= APPS_MAX:
                refused[entry.name] = f"there are more than {APPS_MAX} archives here"
                is_whole = False
                break
            try:
                found = entry.stat(follow_symlinks=False)
                ArchiveName.parse(entry.name)
            except FileNotFoundError:
                continue
            except FarmError as why:
                refused[entry.name] = str(why)
                continue
            if stat.S_ISREG(found.st_mode):
                files[entry.name] = (found.st_size, found.st_mtime_ns)
            else:
                refused[entry.name] = "it is no plain file; links are not followed"
    return Look(hash((place.st_dev, place.st_ino)) & 0x7FFFFFFF, files, refused, is_whole)
