"""What a manager's configuration says of sessions and their attributes, ready to be asked.

A filter names what may leave this process; everything else stays here and is served here only.
Names and types are compared whole.  A type is named as Python prints it (``str``,
``shop.models.Cart``); the built-in types also answer to the names that Java has for them, so a
filter written for Tomcat still lets texts and numbers pass.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, final

from tribes.errors import ConfigError

if TYPE_CHECKING:
    from tribes.config.model import ManagerConfig

__all__ = ["LOCAL_NAMES", "Rules"]

LOCAL_NAMES: Final = frozenset({"org.apache.catalina.valves.CrawlerSessionManagerValve"})
"""Attributes that never leave a process, whatever the filters say: crawlers' common sessions."""

_JAVA_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "str": ("java.lang.String",),
    "int": ("java.lang.Integer", "java.lang.Long", "java.lang.Number", "java.math.BigInteger"),
    "float": ("java.lang.Double", "java.lang.Float", "java.lang.Number"),
    "bool": ("java.lang.Boolean",),
    "bytes": ("[B",),
    "list": ("java.util.ArrayList", "java.util.List"),
    "dict": ("java.util.HashMap", "java.util.Map", "java.util.LinkedHashMap"),
    "set": ("java.util.HashSet", "java.util.Set"),
    "decimal.Decimal": ("java.math.BigDecimal", "java.lang.Number"),
    "datetime.datetime": ("java.util.Date", "java.time.LocalDateTime"),
    "uuid.UUID": ("java.util.UUID",),
}


@final
@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of one manager; those of `ManagerConfig` under shorter names.

    Attributes:
        evicts: A full manager ends the least recently used sessions (``on_full``).
        max_lifetime_s: Seconds a session may live; 0: for ever.
        attribute_max_bytes: Of one encoded attribute; 0: no limit.
        session_max_bytes: Of a whole record; 0: no limit.
        warns_of_size: What is too large is committed all the same, and reported.
        name_filter: Names of attributes that may leave the process; None: all.
        type_filter: Names of types that may; None: all.
        warns_of_filters: Report what stays as a warning.
        tracks_in_place: Look for values that were changed without being assigned.
        checks_activity: A session whose request runs never expires.
        access_at_start: Idle time counts from the beginning of a request.
        tells_unchanged: Attribute listeners hear when the same value is set again.
        binds_unchanged: The value hears of it too.
        tells_attributes: Attribute listeners hear of other members' changes.
        tells_sessions: Session listeners hear of other members' sessions.
        tells_container: Container listeners do.
        ends_on_shutdown: A stop in good order ends all sessions everywhere.
        counts_messages: Count messages by type.
        announces: Members hear of a session when it is made, not with its first commit.
    """

    evicts: bool = False
    max_lifetime_s: int = 0
    attribute_max_bytes: int = 0
    session_max_bytes: int = 0
    warns_of_size: bool = False
    name_filter: re.Pattern[str] | None = None
    type_filter: re.Pattern[str] | None = None
    warns_of_filters: bool = False
    tracks_in_place: bool = True
    checks_activity: bool = False
    access_at_start: bool = False
    tells_unchanged: bool = True
    binds_unchanged: bool = False
    tells_attributes: bool = False
    tells_sessions: bool = False
    tells_container: bool = False
    ends_on_shutdown: bool = False
    counts_messages: bool = True
    announces: bool = False

    @classmethod
    def of(cls, config: ManagerConfig) -> Self:
        """Read them from a configuration.

        Raises:
            ConfigError: A filter is no regular expression.
        """
        return cls(
            evicts=config.on_full == "evict",
            max_lifetime_s=config.max_lifetime_s,
            attribute_max_bytes=config.attribute_max_bytes,
            session_max_bytes=config.session_max_bytes,
            warns_of_size=config.on_oversize == "warn",
            name_filter=_pattern(
                config.session_attribute_name_filter, "session_attribute_name_filter"
            ),
            type_filter=_pattern(
                config.session_attribute_value_class_name_filter,
                "session_attribute_value_class_name_filter",
            ),
            warns_of_filters=config.warn_on_session_attribute_filter_failure,
            tracks_in_place=config.track_in_place,
            checks_activity=config.session_activity_check,
            access_at_start=config.session_last_access_at_start,
            tells_unchanged=config.notify_attribute_listener_on_unchanged_value,
            binds_unchanged=config.notify_binding_listener_on_unchanged_value,
            tells_attributes=config.notify_listeners_on_replication,
            tells_sessions=config.notify_session_listeners_on_replication,
            tells_container=config.notify_container_listeners_on_replication,
            ends_on_shutdown=config.expire_sessions_on_shutdown,
            counts_messages=config.enable_statistics,
            announces=config.announce_created,
        )

    @property
    def has_filters(self) -> bool:
        """Whether some attributes may have to stay."""
        return self.name_filter is not None or self.type_filter is not None

    @property
    def has_size_limits(self) -> bool:
        """Whether attributes or sessions may be too large."""
        return self.attribute_max_bytes > 0 or self.session_max_bytes > 0

    def stays_here(self, name: str, value: object) -> bool:
        """Tell whether an attribute with this value must not leave the process."""
        if name in LOCAL_NAMES:
            return True
        if self.name_filter is not None and not self.name_filter.fullmatch(name):
            return True
        return self.type_filter is not None and not any(
            map(self.type_filter.fullmatch, _type_names(value))
        )


def _type_names(value: object) -> tuple[str, ...]:
    kind = type(value)
    own = kind.__qualname__
    if kind.__module__ != "builtins":
        own = f"{kind.__module__}.{own}"
    return (own, *_JAVA_NAMES.get(own, ()))


def _pattern(text: str, key: str) -> re.Pattern[str] | None:
    if not text:
        return None
    try:
        return re.compile(text)
    except re.error as why:
        raise ConfigError(
            f"{text!r} is no regular expression: {why}", key=f"manager.{key}"
        ) from None
