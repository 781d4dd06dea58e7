"""What is known of one attribute of Tomcat's configuration, and what it does here."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import final

__all__ = ["Attribute", "Table", "Use", "elsewhere", "honoured", "mapped", "refused", "unused"]


@final
class Use(enum.Enum):
    """What becomes of an attribute."""

    HONOURED = "honoured"
    """It sets the key that means the same."""
    MAPPED = "mapped"
    """It sets a key that means nearly the same; the reason says what differs."""
    NO_EFFECT = "no effect"
    """It is accepted: there is nothing here that it could change."""
    ELSEWHERE = "elsewhere"
    """The node's configuration has no place for it; the reason names that place."""
    NOT_SUPPORTED = "not supported"
    """Tomcat would do something that does not happen here."""


@final
@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute.

    Attributes:
        name: Tomcat's name.
        default: Tomcat's default, as text.
        meaning: What it is in Tomcat.
        use: What becomes of it here.
        key: Path of our key, for what is honoured or mapped.
        kind: How its text is read, see `tribes.config.tomcat.values`.
        reason: Why it is not simply honoured.
        same: The values with which nothing differs, so that nothing is to be said.
        is_secret: Whether its value may hold a password or a key, and is never shown.
    """

    name: str
    default: str
    meaning: str
    use: Use
    key: str = ""
    kind: str = "text"
    reason: str = ""
    same: tuple[str, ...] = ()
    is_secret: bool = False


Table = tuple[Attribute, ...]
"""The attributes of one class or element."""


def honoured(
    name: str, default: str, kind: str, key: str, meaning: str, *, is_secret: bool = False
) -> Attribute:
    """An attribute that sets a key."""
    return Attribute(name, default, meaning, Use.HONOURED, key, kind, is_secret=is_secret)


def mapped(
    name: str, default: str, kind: str, key: str, meaning: str, reason: str, *same: str
) -> Attribute:
    """An attribute that sets a key which is not quite the same."""
    return Attribute(name, default, meaning, Use.MAPPED, key, kind, reason, same)


def unused(name: str, default: str, meaning: str, reason: str, *same: str) -> Attribute:
    """An attribute without effect."""
    return Attribute(name, default, meaning, Use.NO_EFFECT, reason=reason, same=same)


def elsewhere(name: str, default: str, meaning: str, reason: str, *same: str) -> Attribute:
    """An attribute whose place is another than the node's configuration."""
    return Attribute(name, default, meaning, Use.ELSEWHERE, reason=reason, same=same)


def refused(
    name: str, default: str, meaning: str, reason: str, *same: str, is_secret: bool = False
) -> Attribute:
    """An attribute that is not supported."""
    return Attribute(
        name,
        default,
        meaning,
        Use.NOT_SUPPORTED,
        reason=reason,
        same=same,
        is_secret=is_secret,
    )
