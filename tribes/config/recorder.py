"""The settings of the flight recorder."""

from __future__ import annotations

import msgspec

from tribes.errors import ConfigError

__all__ = ["RecorderConfig", "check_recorder"]


class RecorderConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a node keeps of its last minutes, see ``docs/recorder.md``.

    Attributes:
        directory: Where ``tribes record``, and a crash of the core, write files. It must exist.
        seconds: So far back a recording reaches at least, where ``max_bytes`` has room for it.
        max_bytes: Memory for what is kept. Inputs get two thirds of it. A node whose sessions have
            more bytes than a third is recorded without its state: there is a timeline then, and
            nothing to run again.
        files_max: Recordings in the directory, of all nodes; further ones are refused.
    """

    directory: str
    seconds: float = 120.0
    max_bytes: int = 96 * 1024 * 1024
    files_max: int = 20


def check_recorder(config: RecorderConfig) -> None:
    """Refuse values that cannot work.

    Raises:
        ConfigError: Names the key, what was found and what to write instead.
    """
    if not config.directory:
        raise ConfigError("name a directory that exists", key="recorder.directory")
    if not 1 <= config.seconds <= 3600:
        raise ConfigError(f"must be from 1 to 3600, found {config.seconds}", key="recorder.seconds")
    if not 1 << 20 <= config.max_bytes <= 1 << 30:
        raise ConfigError(
            f"must be from {1 << 20} (1 MiB) to {1 << 30} (1 GiB), found {config.max_bytes}",
            key="recorder.max_bytes",
        )
    if config.files_max < 1:
        raise ConfigError(f"must be 1 or more, found {config.files_max}", key="recorder.files_max")
