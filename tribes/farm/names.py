"""Names that may become names of files: of archives, and of what is in them.

A name comes from another member or out of an archive, so it is believed to be hostile. What is
allowed is listed; everything else is refused, on every platform alike: a group may have members
whose file system tells no case, or takes ``a:b`` for a drive.
"""

from __future__ import annotations

import enum
import re
import unicodedata
from dataclasses import dataclass
from typing import Final, final

from tribes.errors import FarmError

__all__ = ["SUFFIXES", "ArchiveName", "Kind", "entry_path", "same_path"]

_NAME_MAX_CHARS: Final = 128
_STEM: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+#-]*", re.ASCII)
_DEPTH_MAX: Final = 32
_PART_MAX_BYTES: Final = 255
_PATH_MAX_BYTES: Final = 1024
_DEVICES: Final = frozenset(
    [*("con", "prn", "aux", "nul", "conin$", "conout$")]
    + [f"{name}{digit}" for name in ("com", "lpt") for digit in "0123456789¹²³"]
)
_NEVER: Final = frozenset('<>:"|?*\\')


@final
class Kind(enum.IntEnum):
    """What becomes of an archive."""

    ZIP = 0
    """Unpacked: ``.zip`` and ``.war``."""
    TAR = 1
    """Unpacked: ``.tar.gz``."""
    FILE = 2
    """Stays a file: ``.whl`` and ``.pyz``, which are zip files inside."""


_SUFFIXES: Final = {
    ".tar.gz": Kind.TAR,
    ".zip": Kind.ZIP,
    ".war": Kind.ZIP,
    ".whl": Kind.FILE,
    ".pyz": Kind.FILE,
}
SUFFIXES: Final = tuple(_SUFFIXES)
"""How the name of an archive ends, in small letters."""


@final
@dataclass(frozen=True, slots=True)
class ArchiveName:
    """The name of an archive, which is safe as that of a file.

    Attributes:
        file: As it was given, the suffix in small letters.
        app: What it deploys: the name without its suffix, in small letters. Archives with the same
            one replace each other.
        target: Name in the deploy directory.
        kind: What becomes of it.
    """

    file: str
    app: str
    target: str
    kind: Kind

    @classmethod
    def parse(cls, text: str) -> ArchiveName:
        """Read a name.

        Raises:
            FarmError: It is none of an archive, or not safe everywhere.
        """
        lower = text.lower()
        suffix = next((each for each in _SUFFIXES if lower.endswith(each)), None)
        if suffix is None:
            raise FarmError(
                f"{text[:80]!r} is no archive by its name; allowed are {', '.join(_SUFFIXES)}"
            )
        stem = text[: -len(suffix)]
        if stem.lower().endswith(SUFFIXES):
            raise FarmError(f"{text[:80]!r} is an archive twice by its name; take one suffix away")
        is_plain = bool(_STEM.fullmatch(stem)) and not stem.endswith(".") and ".." not in stem
        if not is_plain or len(text) > _NAME_MAX_CHARS or _is_device(stem):
            raise FarmError(
                f"{text[:80]!r} is no safe name for an archive: up to {_NAME_MAX_CHARS} ASCII "
                "letters, digits and any of ._+#- without a dot at the beginning or two in a row"
            )
        kind = _SUFFIXES[suffix]
        target = stem + suffix if kind is Kind.FILE else stem
        return cls(stem + suffix, stem.lower(), target, kind)


def entry_path(name: str) -> tuple[str, ...]:
    """The parts of the path of an entry of an archive, below where it is unpacked.

    Raises:
        FarmError: It leads elsewhere, or would on some system.
    """
    shown = repr(name[:120])
    if not name or len(name.encode("utf-8", "replace")) > _PATH_MAX_BYTES:
        raise FarmError(f"entry {shown} has no name, or one of more than {_PATH_MAX_BYTES} bytes")
    if any(c in _NEVER or unicodedata.category(c) in ("Cc", "Cs", "Cf") for c in name):
        raise FarmError(f"entry {shown} has characters that are not allowed in names of files")
    if name.startswith("/"):
        raise FarmError(f"entry {shown} has an absolute path")
    parts = [part for part in name.rstrip("/").split("/") if part != "."]
    if len(parts) > _DEPTH_MAX:
        raise FarmError(f"entry {shown} is nested more than {_DEPTH_MAX} deep")
    for part in parts:
        if part == "..":
            raise FarmError(f"entry {shown} leads out of the archive")
        if not part or part[-1] in ". " or len(part.encode()) > _PART_MAX_BYTES:
            raise FarmError(f"entry {shown} has a part that is not allowed as name of a file")
        if _is_device(part):
            raise FarmError(f"entry {shown} names a device of Windows")
    return tuple(parts)


def same_path(parts: tuple[str, ...]) -> str:
    """What is equal for paths that some file system takes for the same one."""
    return unicodedata.normalize("NFC", "/".join(parts).casefold())


def _is_device(part: str) -> bool:
    return part.partition(".")[0].rstrip().lower() in _DEVICES
