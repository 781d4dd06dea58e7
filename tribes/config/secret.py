"""Text that does not show itself."""

from __future__ import annotations

from typing import final

__all__ = ["Secret"]


@final
class Secret(str):
    """A string that ``repr``, ``str``, ``format`` and ``%`` hide; its methods work on the text.

    It keeps secrets out of logs and tracebacks, where configurations are shown whole. It protects
    them from nobody who wants to read them.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "<hidden>" if len(self) else "''"

    def __str__(self) -> str:
        return self.__repr__()

    def __format__(self, spec: str) -> str:
        return format(self.__repr__(), spec)
