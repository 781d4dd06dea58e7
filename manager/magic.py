"""What byte messages of session managers begin with."""

from __future__ import annotations

from typing import Final

__all__ = ["MAGIC", "PREFIX", "VERSION"]

MAGIC: Final = b"\x00TPY"
VERSION: Final = 1
PREFIX: Final = MAGIC + bytes((VERSION,))
