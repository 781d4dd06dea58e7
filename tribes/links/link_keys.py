"""The keys that own links are opened with: one to prove, several to accept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol, final

from tribes.security.seal import LinkKeys

if TYPE_CHECKING:
    from tribes.security.keys import KeyRing

__all__ = ["LinkKeyring", "Opener", "SealerFactory"]


class Opener(Protocol):
    """Turns the sealed bytes of one direction back into plain ones, however they are cut."""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the plain bytes of the records that ``data`` completes.

        Raises:
            RemoteProtocolError: A record was changed, repeated, left out, or is longer than the
                opener takes.
        """


class SealerFactory(Protocol):
    """One key of the group."""

    def hello_tag(self, transcript: bytes) -> bytes:
        """Return the 16 bytes that prove the key over what was said so far."""

    def check(self, transcript: bytes, tag: bytes) -> bool:
        """Whether ``tag`` is ``hello_tag(transcript)``, compared in constant time."""

    def sealers(
        self, client_nonce: bytes, server_nonce: bytes, *, is_client: bool
    ) -> tuple[Callable[[bytes], bytes], Opener]:
        """Return what seals the bytes that this side writes, and what opens the other side's.

        The client is who opened the connection. Each direction needs its own key.

        Raises:
            RemoteProtocolError: The nonces cannot be used: the peer sent ours back.
        """


@final
class LinkKeyring:
    """What the handshakes of all links of a member share; replaced in place when keys rotate.

    Args:
        ring: The group's keys.
    """

    def __init__(self, ring: KeyRing) -> None:
        self._accepted: Final[dict[int, LinkKeys]] = {}
        self.current: tuple[int, SealerFactory]
        """Id and key that this side proves."""
        self.set(ring)

    @property
    def accepted(self) -> Mapping[int, SealerFactory]:
        """The keys that others may prove, by id. Always the latest: it may be kept."""
        return self._accepted

    def set(self, ring: KeyRing) -> None:
        """Take other keys. A key that stays keeps its object, by which links know theirs."""
        known = dict(self._accepted)
        self._accepted.clear()
        for key in ring:
            old = known.get(key.id)
            self._accepted[key.id] = old if old is not None and old.is_of(key) else LinkKeys(key)
        self.current = (ring.current.id, self._accepted[ring.current.id])

    def accepts(self, key: SealerFactory) -> bool:
        """Whether links that were opened with this key may go on."""
        return any(each is key for each in self._accepted.values())
