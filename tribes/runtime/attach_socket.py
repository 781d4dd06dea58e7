"""The unix socket between a node and the workers of its host: who may make it, and who may use it.

Only processes of the same user can connect: the file has mode 0600, and each side asks the kernel
who is on the other one.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from contextlib import suppress
from typing import Final
from weakref import WeakKeyDictionary

from tribes.errors import ConfigError
from tribes.runtime.sockets import open_socket

__all__ = ["check_path", "close_socket", "connect", "is_trusted", "listen_unix"]

BACKLOG: Final = 256
CONNECT_S: Final = 1.0
"""For the kernel to accept; nothing but a full backlog makes it wait."""
PATH_MAX_BYTES: Final = 100
"""The kernel's bound is 107, and the file has a longer name while it is made."""

_CREDENTIALS: Final = struct.Struct("3i")
_KEY: Final = "attach"


def listen_unix(path: str) -> socket.socket:
    """Make the socket and its file; one that nobody serves any more is replaced.

    Raises:
        ConfigError: There is another node, or something else, or it cannot be made.
    """
    check_path(path)
    _refuse_taken(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Under another name first: nobody can connect before it has its mode, and the rename replaces
    # what is stale in one step.
    new = f"{path}.{os.getpid():x}"
    try:
        with suppress(FileNotFoundError):
            os.unlink(new)
        made.bind(new)
        os.chmod(new, 0o600)
        _own_inode[made] = _inode(new)
        made.listen(BACKLOG)
        made.setblocking(False)
        os.rename(new, path)
    except OSError as why:
        made.close()
        with suppress(OSError):
            os.unlink(new)
        raise ConfigError(
            f"{path} cannot be made: {why.strerror or why}; name a file in a directory that this "
            "user may write to, such as /run/tribes",
            key=_KEY,
        ) from None
    return made


def close_socket(sock: socket.socket, path: str) -> None:
    """Close it, and remove its file unless another node has put its own there."""
    is_mine = _inode(path) == _own_inode.pop(sock, None)
    sock.close()
    if is_mine:
        with suppress(OSError):
            os.unlink(path)


_own_inode: WeakKeyDictionary[socket.socket, int | None] = WeakKeyDictionary()
"""Of the file of each listening socket of this process."""


def _inode(path: str) -> int | None:
    try:
        return os.lstat(path).st_ino
    except OSError:
        return None


def check_path(path: str) -> None:
    """Refuse a path that the kernel does not take.

    Raises:
        ConfigError: Says what to write.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigError("this system has no unix sockets", key=_KEY)
    if "\0" in path or len(os.fsencode(path)) > PATH_MAX_BYTES:
        raise ConfigError(
            f"a socket's path has at most {PATH_MAX_BYTES} bytes, this one has "
            f"{len(os.fsencode(path))}: write a shorter one, such as /run/tribes/node.sock",
            key=_KEY,
        )


def _refuse_taken(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(
            f"{path} is there and no socket; remove it, or write another path", key=_KEY
        )
    try:
        connect(path).close()
    except OSError:
        return  # nobody serves it any more
    raise ConfigError(
        f"a node serves {path} already; stop it, or write another path for this one", key=_KEY
    )


def connect(path: str) -> socket.socket:
    """Connect to a node, by a socket that a forked child closes.

    Raises:
        OSError: Nobody is there, or somebody else's process is.
    """
    made = open_socket(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    try:
        made.settimeout(CONNECT_S)
        made.connect(path)
        if not is_trusted(made):
            raise PermissionError(f"{path} is served by another user's process")
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


def is_trusted(sock: socket.socket) -> bool:
    """Whether the process on the other side is this user's, or root's.

    Where the kernel does not say (anywhere but on Linux) the file's mode has to do.
    """
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True
    _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    return uid in (os.geteuid(), 0)
