"""Where a configuration's group keys and certificates are read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tribes.errors import ConfigError
from tribes.security.keys import KeyRing, check_file_mode, remedy_for

if TYPE_CHECKING:
    from tribes.config.model import ChannelConfig
    from tribes.runtime.tls import Tls

__all__ = ["KEY_FILE_MAX_BYTES", "read_keys", "read_tls"]

KEY_FILE_MAX_BYTES = 64 * 1024
"""A key has 70 characters and a ring 16 keys: the rest is for comments."""

_KEY = "channel.key_file"


def read_keys(config: ChannelConfig) -> KeyRing | None:
    """Return the group's keys, or None when the configuration names none.

    Raises:
        ConfigError: The keys can't be read or used; names the file, the line and what to do.
    """
    if config.keys:
        return KeyRing.parse(config.keys, key="channel.keys")
    if not config.key_file:
        return None
    # The text is nobody's local variable while an error may be raised: some loggers print those.
    return KeyRing.parse(_text_of(config.key_file), source=config.key_file, key=_KEY)


def read_tls(config: ChannelConfig) -> Tls | None:
    """Return the certificates, or None when the configuration has no ``tls``.

    Raises:
        ConfigError: A file can't be read or used; names it, its key and what to do.
    """
    if config.tls is None:
        return None
    # The library costs 10 ms and memory, for those who have no TLS as well.
    from tribes.runtime.tls import load_tls

    return load_tls(config.tls)


def _text_of(path: str) -> str:
    data = b""
    try:
        # A pipe in its place must not hang the start; what was opened is what is looked at.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            if os.name == "posix":
                check_file_mode(os.fstat(descriptor).st_mode, path)
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(KEY_FILE_MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as why:
        raise ConfigError(
            f"this key file can't be read: {why.strerror}; "
            + remedy_for(why, f"make one with: tribes keygen --output {path}"),
            key=_KEY,
            source=path,
        ) from None
    if len(data) > KEY_FILE_MAX_BYTES:
        data = b""
        raise ConfigError(
            f"this file has more than {KEY_FILE_MAX_BYTES} bytes; name the file that "
            "`tribes keygen` made",
            key=_KEY,
            source=path,
        )
    return data.decode("utf-8", "replace")
