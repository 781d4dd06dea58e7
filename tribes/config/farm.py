"""The settings of farm deployment."""

from __future__ import annotations

import os
from typing import Final

import msgspec

from tribes.errors import ConfigError

__all__ = ["FarmConfig", "check_farm"]

_MIB: Final = 1024 * 1024
_CLASS: Final = "FarmWarDeployer"
_ARCHIVE_MAX: Final = 2**40
_DIRECTORIES: Final = ("temp_dir", "deploy_dir", "watch_dir")


class FarmConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Deploying archives on all members (Tomcat: ``FarmWarDeployer``, tomcat-sessions §12), see
    ``docs/farm.md``.

    Attributes:
        enabled: Whether this node takes part. Unset: in a group with a key or mutual TLS it does,
            and in any other it does not, because there whoever reaches a port could deploy.
        deploy_dir: Directory in which applications appear (``deployDir``). It belongs to the farm:
            what else is in it stays, and keeps an application of that name from being deployed.
        temp_dir: Directory for archives on their way (``tempDir``); the farm's alone.
        watch_dir: Directory that is watched for archives (``watchDir``).
        watch_enabled: Whether it is (``watchEnabled``). Usually on one member only.
        process_deploy_frequency: Ticks between two looks at it (``processDeployFrequency``); with
            the extra ``farm`` changes are seen at once besides.
        tick_s: Seconds of a tick (``backgroundProcessorDelay`` of Tomcat's engine).
        settle_s: Seconds for which a file must not have changed before it is taken.
        max_valid_time_s: Seconds without a new piece after which a transfer is given up and its
            pieces are deleted (``maxValidTime``); negative: never.
        archive_max_bytes: Largest archive that this member takes.
        unpacked_max_bytes: How large it may become when it is unpacked.
        ratio_max: How many times larger than the archive that may be.
        entries_max: How many files and directories it may hold.
        disk_max_bytes: What all archives may take here, packed and unpacked, the versions before
            included.
        hook: Command and its arguments that run when an application was deployed or undeployed
            here; none: nothing runs. There is no shell.
        hook_timeout_s: Seconds after which it is killed.
        class_name: Accepted for Tomcat's sake (``className``): there is one kind of deployer.
    """

    enabled: bool | None = None
    deploy_dir: str = ""
    temp_dir: str = ""
    watch_dir: str = ""
    watch_enabled: bool = False
    process_deploy_frequency: int = 2
    tick_s: float = 10.0
    settle_s: float = 1.0
    max_valid_time_s: float = 300.0
    archive_max_bytes: int = 256 * _MIB
    unpacked_max_bytes: int = 1024 * _MIB
    ratio_max: int = 100
    entries_max: int = 10_000
    disk_max_bytes: int = 4096 * _MIB
    hook: tuple[str, ...] = ()
    hook_timeout_s: float = 60.0
    class_name: str = ""

    @property
    def scan_interval_s(self) -> float:
        """Seconds between two looks at the watch directory."""
        return self.process_deploy_frequency * self.tick_s

    def is_on(self, *, is_protected: bool) -> bool:
        """Whether the node takes part.

        Args:
            is_protected: Whether only those who prove something are members of the group.
        """
        return is_protected if self.enabled is None else self.enabled


def check_farm(config: FarmConfig) -> None:
    """Refuse values that cannot work.

    Raises:
        ConfigError: Names the key, what was found and what to write instead.
    """
    for name in _DIRECTORIES[: 3 if config.watch_enabled else 2]:
        if not getattr(config, name):
            raise ConfigError("is missing; write the path of a directory", key=f"farm.{name}")
    _check_apart(config)
    for name in ("tick_s", "hook_timeout_s"):
        if not 0.05 <= getattr(config, name) <= 1e9:
            found = getattr(config, name)
            raise ConfigError(f"must be seconds, at least 0.05, found {found}", key=f"farm.{name}")
    if not 0 <= config.settle_s <= 3600:
        what = f"must be from 0 to 3600 seconds, found {config.settle_s}"
        raise ConfigError(what, key="farm.settle_s")
    for name in ("archive_max_bytes", "unpacked_max_bytes", "disk_max_bytes"):
        if not 1 <= getattr(config, name) <= _ARCHIVE_MAX:
            what = f"must be from 1 to {_ARCHIVE_MAX}, found {getattr(config, name)}"
            raise ConfigError(what, key=f"farm.{name}")
    for name in ("ratio_max", "entries_max", "process_deploy_frequency"):
        if not 1 <= getattr(config, name) <= 10**6:
            what = f"must be from 1 to 1000000, found {getattr(config, name)}"
            raise ConfigError(what, key=f"farm.{name}")
    if config.class_name and config.class_name.rpartition(".")[2] != _CLASS:
        what = f"found {config.class_name[:80]!r}; there is {_CLASS} only, or leave it out"
        raise ConfigError(what, key="farm.class_name")
    if config.hook and (not config.hook[0] or any("\0" in each for each in config.hook)):
        what = 'must name a command, like ["/usr/local/bin/reload", "--now"]'
        raise ConfigError(what, key="farm.hook")


def _check_apart(config: FarmConfig) -> None:
    """What is put in one directory must not appear in another one, nor by a symbolic link."""
    named = {
        name: os.path.realpath(getattr(config, name))
        for name in _DIRECTORIES
        if getattr(config, name)
    }
    for name, path in named.items():
        for other, around in named.items():
            if name != other and os.path.commonpath((path, around)) == around:
                where = "is" if path == around else "lies in"
                what = f"{where} farm.{other}, {around!r}; give it a directory of its own"
                raise ConfigError(what, key=f"farm.{name}")
