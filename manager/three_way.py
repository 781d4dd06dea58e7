"""Two changes of one attribute at the same time, on one node: both are kept where that is clear.

Parallel requests of one browser change the same shopping cart; the later one must not undo the
earlier one (DESIGN §5.3).  Both began with the same value, the *base*, so each change is known:
keys of a dict, members of a set, what was put at the end of a list.  Everything else has no merge
that is right for every application: there the later write wins, and is counted as a conflict.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["ABSENT", "merge_values"]


class _Absent:
    """No value: not there yet, or removed."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = _Absent()


def merge_values(base: Any, mine: Any, theirs: Any) -> tuple[Any, bool]:
    """Join two changes of one value.

    Args:
        base: What both writers had seen, or `ABSENT`.
        mine: The later writer's value, or `ABSENT`.
        theirs: The earlier writer's value, or `ABSENT`.

    Returns:
        The joined value, and whether it has both changes; if not, it is ``mine`` where they clash.
    """
    if _same(mine, theirs) or _same(base, theirs):
        return mine, True
    if _same(base, mine):
        return theirs, True
    kind = type(mine)
    if type(theirs) is not kind or (base is not ABSENT and type(base) is not kind):
        return mine, False
    if kind is dict:
        return _merge_dicts({} if base is ABSENT else base, mine, theirs)
    if kind is set or kind is frozenset:
        known = kind() if base is ABSENT else base
        return kind((mine & theirs) | (mine - known) | (theirs - known)), True
    if kind is list:
        known = [] if base is ABSENT else base
        length = len(known)
        if _same(mine[:length], known) and _same(theirs[:length], known):
            return theirs + mine[length:], True
    return mine, False


def _merge_dicts(
    base: dict[Any, Any], mine: dict[Any, Any], theirs: dict[Any, Any]
) -> tuple[dict[Any, Any], bool]:
    merged = {}
    is_clean = True
    for key in theirs | mine:
        value, clean = merge_values(
            base.get(key, ABSENT), mine.get(key, ABSENT), theirs.get(key, ABSENT)
        )
        is_clean = is_clean and clean
        if value is not ABSENT:
            merged[key] = value
    return merged, is_clean


def _same(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and bool(a == b))
