"""What SIGHUP does to a running node: keys, certificates, log level and static members.

The configuration is read as at the start, the command line over it. One that cannot be used changes
nothing at all. What can only be changed by a restart is named, and stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import msgspec
import structlog

from tribes.cli.logs import set_log_level
from tribes.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tribes.config.model import NodeConfig, StaticMemberConfig
    from tribes.runtime.group_channel import GroupChannel

__all__ = ["Reload", "changed_keys"]

log = structlog.get_logger("tribes")

_LEVEL: Final = "log_level"
_STATIC: Final = "channel.membership.static"


@final
class Reload:
    """Reads again what may change.

    Args:
        channel: The node.
        config: What it was started with.
        read: Reads the configuration anew; raises `ConfigError`.
        read_token: Reads the operators' token anew, and says what came of it.
    """

    def __init__(
        self,
        channel: GroupChannel,
        config: NodeConfig,
        *,
        read: Callable[[], NodeConfig],
        read_token: Callable[[], None],
    ) -> None:
        self._channel = channel
        self._started = config
        self._level = config.log_level
        self._static = config.channel.membership.static
        self._read = read
        self._read_token = read_token

    def again(self) -> None:
        """Do it; the log says what changed, and what did not."""
        try:
            config = self._read()
        except ConfigError as error:
            log.error("configuration stays as it was", error=str(error))
            return
        self._set_level(config.log_level)
        self._keys()
        self._certificates()
        self._read_token()
        self._members(config.channel.membership.static)
        kept = [k for k in changed_keys(self._started, config) if k not in (_LEVEL, _STATIC)]
        if kept:
            log.warning("settings need a restart", keys=kept)

    def _set_level(self, level: str) -> None:
        before, self._level = self._level, level
        if level == before:
            return
        # Told at both levels: nobody should wonder where the lines have gone.
        log.warning("log level changed", before=before, level=level)
        set_log_level(level)

    def _keys(self) -> None:
        if not self._channel.config.channel.key_file:
            return
        try:
            log.info("keys read again", ids=self._channel.reload_keys())
        except ConfigError as error:
            log.error("keys stay as they were", error=str(error))

    def _certificates(self) -> None:
        if self._channel.config.channel.tls is None:
            return
        try:
            self._channel.reload_certificates()
            log.info("certificates read again")
        except ConfigError as error:
            log.error("certificates stay as they were", error=str(error))

    def _members(self, static: tuple[StaticMemberConfig, ...]) -> None:
        before, self._static = self._static, static
        if static == before:
            return
        self._channel.set_static_members(static)
        log.info(
            "static members changed",
            added=_named(each for each in static if each not in before),
            removed=_named(each for each in before if each not in static),
        )


def _named(members: Iterable[StaticMemberConfig]) -> list[str]:
    return [f"{each.host}:{each.port}" for each in members]


def changed_keys(old: msgspec.Struct, new: msgspec.Struct, path: str = "") -> Iterator[str]:
    """The paths of the settings that are not the same; never their values."""
    if type(old) is not type(new):
        yield path
        return
    for name in old.__struct_fields__:
        one, other = getattr(old, name), getattr(new, name)
        where = f"{path}.{name}" if path else name
        if isinstance(one, msgspec.Struct) and isinstance(other, msgspec.Struct):
            yield from changed_keys(one, other, where)
        elif one != other:
            yield where
