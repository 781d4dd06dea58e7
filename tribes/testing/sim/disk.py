"""The disk of a simulated machine: files that survive the process, and no space left on demand."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["Disk"]


class Disk(dict[str, bytes]):
    """Files by name. While ``is_full``, everything that would write raises ``ENOSPC``."""

    def __init__(self) -> None:
        super().__init__()
        self.is_full = False
        """Whether writing fails; reading and deleting go on."""
        self.refused = 0
        """Writes that found no room."""

    def _check(self) -> None:
        if self.is_full:
            self.refused += 1
            raise OSError(errno.ENOSPC, "No space left on device")

    def __setitem__(self, name: str, data: bytes) -> None:
        self._check()
        super().__setitem__(name, data)

    def setdefault(self, name: str, data: bytes = b"") -> bytes:
        """As a dictionary's; a write when the file is new."""
        if name not in self:
            self[name] = data
        return self[name]

    def update(  # type: ignore[override]
        self, files: Mapping[str, bytes] | Iterable[tuple[str, bytes]] = (), **more: bytes
    ) -> None:
        """As a dictionary's; a write."""
        self._check()
        super().update(files, **more)

    def __ior__(self, files: Any) -> Disk:  # type: ignore[override, misc]
        self.update(files)
        return self
