"""In which line of a TOML file a key stands: the standard library's reader does not say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["line_of", "nearest_line"]

_HEADER: Final = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_.\- \"]+?)\s*\]\]?")
_PAIR: Final = re.compile(r"\s*([A-Za-z0-9_.\-\"]+)\s*=")
_INDEX: Final = re.compile(r"\[\d+\]$")


def line_of(text: str, key: str) -> int | None:
    """The line of a key, or of the nearest table around it; None: neither was found.

    Args:
        text: The file.
        key: Path of the key, ``channel.membership.static[1].host``, as the file names it.
    """
    found: dict[str, int] = {}
    counts: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.split("\n"), 1):
        if header := _HEADER.match(line):
            table = _plain(header[2])
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = f"{table}[{counts[table]}]"
            found.setdefault(table, number)
        elif pair := _PAIR.match(line):
            name = _plain(pair[1])
            found.setdefault(f"{table}.{name}" if table else name, number)
    return nearest_line(found, key)


def nearest_line(lines: Mapping[str, int], key: str) -> int | None:
    """The line of a key, or of the nearest table around it; None: neither is there."""
    while key:
        if key in lines:
            return lines[key]
        shorter = _INDEX.sub("", key)
        key = shorter if shorter != key else key.rpartition(".")[0]
    return None


def _plain(name: str) -> str:
    return name.replace('"', "").replace(" ", "")
