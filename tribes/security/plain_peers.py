"""Who may come without a mark once a group has a key (DESIGN §4.2, ``plain_peers``).

It is decided by addresses, since plain Tribes can prove nothing else: the one that the operating
system says a datagram or a connection comes from, never one that a record claims. What a record
claims is held against the same list, not against the socket's very address: a machine with several
addresses advertises one and connects by another. Its operator lists all of them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final, final

__all__ = ["ANY", "PlainPeers"]

ANY: Final = "any"
"""Stands for every address."""


@final
class PlainPeers:
    """The addresses that may be used without a key.

    Args:
        addresses: IP addresses as text, or `ANY`.

    Raises:
        ValueError: One is neither.
    """

    __slots__ = ("_hosts", "_is_any")

    def __init__(self, addresses: Iterable[str]) -> None:
        listed = tuple(addresses)
        self._is_any: Final = ANY in listed
        self._hosts: Final = frozenset(_octets(text) for text in listed if text != ANY)

    def admits(self, host: bytes) -> bool:
        """Whether a record may claim this address without a signature."""
        return self._is_any or host in self._hosts

    def admits_address(self, text: str) -> bool:
        """Whether a socket's peer may go without a key."""
        if self._is_any or not self._hosts:
            return self._is_any
        try:
            return _octets(text) in self._hosts
        except ValueError:
            return False

    def __repr__(self) -> str:
        return f"<PlainPeers any={self._is_any} addresses={len(self._hosts)}>"


def _octets(text: str) -> bytes:
    address = ipaddress.ip_address(text)
    # A socket of both families shows IPv4 peers like this.
    mapped = getattr(address, "ipv4_mapped", None)
    return address.packed if mapped is None else bytes(mapped.packed)
