"""This machine's addresses, and who listens on its ports, as the kernel of Linux tells it.

Elsewhere nothing is told: the checks that need it say less.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

__all__ = ["Interface", "Owner", "interface_of", "interfaces", "owner_of"]

_SIOCGIFCONF_ADDRESS: Final = 0x8915
_SIOCGIFMTU: Final = 0x8921
_NAME_BYTES: Final = 16
_REQUEST: Final = struct.Struct(f"{_NAME_BYTES}s24x")
_LISTEN: Final = "0A"
_SHOWN_MAX: Final = 120


@final
@dataclass(frozen=True, slots=True)
class Interface:
    """An address of this machine.

    Attributes:
        name: Of the interface, such as ``eth0``.
        address: The address.
        mtu: Longest packet, in bytes; 0: not known.
    """

    name: str
    address: str
    mtu: int


@final
@dataclass(frozen=True, slots=True)
class Owner:
    """A process that listens on a port.

    Attributes:
        pid: Its id.
        command: What it was started with, as far as it may be read.
    """

    pid: int
    command: str

    @property
    def is_tribes(self) -> bool:
        """Whether it looks like a node of ours."""
        return "tribes" in self.command


def interfaces() -> list[Interface]:
    """All addresses of this machine that the kernel tells; those beside the first of an interface
    only for IPv6.
    """
    try:
        import fcntl
    except ImportError:
        return []
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:

        def ask(request: int, name: str) -> bytes:
            return fcntl.ioctl(sock, request, _REQUEST.pack(name.encode()[: _NAME_BYTES - 1]))

        for _, name in socket.if_nameindex():
            mtu = 0
            with contextlib.suppress(OSError):
                mtu = int.from_bytes(ask(_SIOCGIFMTU, name)[16:20], "little")
            with contextlib.suppress(OSError):
                address = socket.inet_ntoa(ask(_SIOCGIFCONF_ADDRESS, name)[20:24])
                found.append(Interface(name, address, mtu))
            found += [Interface(name, each, mtu) for each in _v6_of(name)]
    return found


def _v6_of(name: str) -> list[str]:
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        return []
    return [
        str(ipaddress.IPv6Address(bytes.fromhex(line.split()[0])))
        for line in lines
        if line.split()[5] == name
    ]


def interface_of(address: str, found: list[Interface]) -> Interface | None:
    """The one that has an address; of 127.0.0.0/8 the loopback one."""
    wanted = ipaddress.ip_address(address.partition("%")[0])
    for each in found:
        own = ipaddress.ip_address(each.address)
        if own == wanted or (own.is_loopback and wanted.is_loopback and own.version == 4):
            return each
    return None


def owner_of(port: int) -> Owner | None:
    """Who listens on a TCP port; None: nobody, or who it is may not be read."""
    sockets = _listening(port)
    if not sockets:
        return None
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for handle in (directory / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(handle) in sockets:
                        raw = (directory / "cmdline").read_bytes().replace(b"\0", b" ")
                        command = raw.decode("utf-8", "replace").strip()[:_SHOWN_MAX]
                        return Owner(int(directory.name), command)
    return None


def _listening(port: int) -> set[str]:
    found = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path("/proc/net", name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{fields[9]}]")
    return found
