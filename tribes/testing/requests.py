"""What one request of a simulated client does with its session.

Every written value is unique, so whoever reads one knows which write it was; lists, sets and
counters are read and written back, so each shows which writes its own had seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from tribes.manager.merged import MergedCounter, MergedList, MergedSet
from tribes.manager.record import Namespace
from tribes.testing.history import plain

if TYPE_CHECKING:
    from random import Random

    from tribes.manager.session import Session
    from tribes.testing.history import Op, Version
    from tribes.testing.sim import SimNode

__all__ = ["MERGED", "MERGED_MIX", "MIX", "Browser", "Client", "use", "use_merged", "version_of"]

MIX: Final[Mapping[str, float]] = {
    "write": 4,
    "append": 3,
    "counter": 2,
    "set_add": 1,
    "read": 3,
    "touch": 1,
    "remove": 0.5,
    "rotate": 0.4,
    "invalidate": 0.3,
    "abandon": 0.3,
}
"""How often clients do what, relative to each other. ``abandon`` forgets the session."""

MERGED_MIX: Final[Mapping[str, float]] = {
    "merged_add": 3,
    "merged_put": 2,
    "merged_take": 1,
    "merged_append": 2,
    "merged_read": 1,
    "lock": 1,
}
"""The same for values that merge by element, and for the lock that a session has in the whole
group; not in `MIX`, so that a seed stays what it was."""

_NAMES: Final = 4
MERGED: Final[Mapping[str, Any]] = {
    "merged count": MergedCounter,
    "merged set": MergedSet,
    "merged list": MergedList,
}
_TAGS_MAX: Final = 30
"""Tags of one list or set; then the next one begins, so that checking stays linear."""
_LARGE_BYTES: Final = (20 * 1024, 100 * 1024)


class Browser:
    """What the tabs of one browser share: the session's cookie."""

    __slots__ = ("appends", "generation", "id", "key", "limit")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.id: str | None = None
        self.key = ""
        self.generation = 0
        self.limit = 0
        self.appends = 0


class Client:
    """Who asks: a tab, the node that it is sent to, and how much it has written."""

    __slots__ = ("browser", "home", "name", "number")

    def __init__(self, name: str, browser: Browser) -> None:
        self.name = name
        self.browser = browser
        self.home: SimNode | None = None
        self.number = 0


def use(client: Client, session: Session, op: Op, chance: Random, large_share: float) -> None:
    """Read an attribute and, unless the request only reads, write it.

    Args:
        client: Whose request it is; what it writes has its name and a number.
        session: What the node found.
        op: Says what is to be done, and gets what was seen and written.
        chance: Chooses.
        large_share: Of the writes, which have values of tens of kilobytes.
    """
    client.number += 1
    tag = f"{client.name}.{client.number}"
    browser = client.browser
    current = browser.appends // _TAGS_MAX
    kind = op.kind
    if kind == "read":
        names = [f"w{chance.randrange(_NAMES)}", "count", f"list{current}", f"set{current}"]
        op.name = chance.choice(names)
        op.seen, op.seen_version = plain(session.get(op.name)), version_of(session, op.name)
        return
    op.name = {
        "write": f"w{chance.randrange(_NAMES)}",
        "remove": f"w{chance.randrange(_NAMES)}",
        "counter": "count",
        "append": f"list{current}",
        "set_add": f"set{current}",
    }[kind]
    seen: Any = session.get(op.name)
    op.seen, op.seen_version = plain(seen), version_of(session, op.name)
    if kind == "remove":
        session.remove_attribute(op.name)
        return
    value: Any = tag
    if kind == "write" and large_share and chance.random() < large_share:
        value = f"{tag} ".ljust(chance.randint(*_LARGE_BYTES), ".")
    if kind == "counter":
        value = (seen or 0) + 1
    elif kind == "append":
        value = [*(seen or ()), tag]
        browser.appends += 1
    elif kind == "set_add":
        value = {*(seen or ()), tag}
        browser.appends += 1
    session[op.name] = value
    op.value = plain(value)


def use_merged(client: Client, session: Session, op: Op, chance: Random) -> None:
    """Read a value that merges by element and, unless the request only reads, change it."""
    client.number += 1
    tag = f"{client.name}.{client.number}"
    name = op.kind.removeprefix("merged_")
    made: tuple[str, Any] = {
        "add": ("merged count", MergedCounter),
        "append": ("merged list", MergedList),
    }.get(name, ("merged set", MergedSet))
    if name == "read":
        made = chance.choice(tuple(MERGED.items()))
    op.name = made[0]
    known: Any = session.get(op.name)
    op.seen, op.seen_version = plain(known), version_of(session, op.name)
    value = made[1]() if known is None else known
    if name == "read":
        return
    if name == "take":
        if not value:
            return
        op.value = chance.choice(sorted(value))
        value.discard(op.value)
    elif name == "add":
        op.value = chance.randint(1, 3)
        value.add(op.value)
    else:
        op.value = tag
        value.append(tag) if name == "append" else value.add(tag)
    if known is None:
        session[op.name] = value


def version_of(session: Session, name: str) -> Version | None:
    """Version of the attribute that a session read."""
    if session.reading is None:
        return None
    entry = session.reading.entry(int(Namespace.ATTRIBUTE), name.encode())
    return None if entry is None else (entry.hlc, entry.actor)
