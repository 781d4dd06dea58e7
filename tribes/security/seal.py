"""Sealed links: what two members that share a key write to each other.

The stream of each direction is a row of records::

    offset  size  field
         0     4  length n of what follows, unsigned, big endian: 17 to 256 KiB + 16
         4     n  AES-256-GCM of 1 byte to 256 KiB, its 16-byte tag last

Key and nonce (NIST SP 800-38D; the same shape as in TLS 1.3, RFC 8446 §5.3):

- Each direction has a key of its own, made from the group key and a nonce of each side (see
  `tribes.security.keys`). So no two links share a key while either side's nonce is new, and a
  record sent back to its maker can't be opened.
- The nonce is 4 zero bytes and the record's number, 8 bytes big endian, from 0. It isn't sent: a
  record that is left out, repeated or out of order can't be opened, and nothing after it can.
- The length is authenticated with the record.
- After every 2^18 records (64 GiB at most) the key is replaced by one made from it, on both sides
  by count. Under one key AES-GCM must not do much more: 2^32 blocks leave a chance below 2^-60 to
  tell it from noise, RFC 8446 §5.5 allows 2^-57. The numbers go on; after 2^64 - 1 the link ends.

A stream that ends between two records can't be told from one that was cut there. What is written
must say itself when it is complete; the links' acknowledgements do.

There is no forward secrecy: who records a link and gets the group key later can read it. Where that
matters, TLS is the better choice.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from tribes.errors import LocalProtocolError, RemoteProtocolError
from tribes.security.keys import KEY_BYTES, hkdf_sha256

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from tribes.security.keys import GroupKey

__all__ = ["RECORDS_PER_KEY", "RECORD_MAX_BYTES", "LinkKeys", "Opener", "Sealer"]

RECORD_MAX_BYTES: Final = 256 * 1024
"""Plain bytes in one record. As much can be made to wait here by bytes that nobody has proved.
Longer ones would save nothing: at this size the fixed cost of one is a twentieth of the whole."""

RECORDS_PER_KEY: Final = 1 << 18
"""Records sealed with one key, see above."""

_TAG_BYTES: Final = 16
_SEALED_MAX_BYTES: Final = RECORD_MAX_BYTES + _TAG_BYTES
_LENGTH: Final = struct.Struct(">I")
_NONCE: Final = struct.Struct(">IQ")
_RECORD_NUMBER_MAX: Final = (1 << 64) - 2


class _Direction:
    """Keys and nonces of one direction, in the order of its records."""

    __slots__ = ("_cipher", "_key", "_number", "_records_per_key")

    def __init__(self, key: bytes, records_per_key: int) -> None:
        self._key = key
        self._cipher = _cipher_of(key)
        self._number = 0
        self._records_per_key = records_per_key

    def next(self) -> tuple[AESGCM, bytes]:
        """Return what the next record is sealed with. No pair ever comes twice.

        Raises:
            OverflowError: All numbers are used up.
        """
        number = self._number
        if number > _RECORD_NUMBER_MAX:
            raise OverflowError("all record numbers of this link are used up")
        if number and number % self._records_per_key == 0:
            self._key = hkdf_sha256(self._key, info=b"tribes v1 next link key", length=KEY_BYTES)
            self._cipher = _cipher_of(self._key)
        self._number = number + 1
        return self._cipher, _NONCE.pack(0, number)


def _cipher_of(key: bytes) -> AESGCM:
    # Here, so that members without a key don't load it: it costs 14 ms.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


@final
class Sealer:
    """Seals what is written in one direction.

    Args:
        key: 32 bytes that were never used before.
        records_per_key: For tests: after how many records the key is replaced.
    """

    __slots__ = ("_direction",)

    def __init__(self, key: bytes, *, records_per_key: int = RECORDS_PER_KEY) -> None:
        self._direction = _Direction(key, records_per_key)

    def seal(self, data: bytes) -> bytes:
        """Return ``data`` as records, to be written in the order of the calls.

        No data gives no bytes; more than `RECORD_MAX_BYTES` gives several records. A record costs
        20 bytes and about 2 µs, so seal once per write, not once per message.

        Raises:
            LocalProtocolError: The link has used up its record numbers; make a new one.
        """
        parts: list[bytes] = []
        for start in range(0, len(data), RECORD_MAX_BYTES):
            piece = data[start : start + RECORD_MAX_BYTES]
            try:
                cipher, nonce = self._direction.next()
            except OverflowError as why:
                raise LocalProtocolError(f"{why}: connect anew") from None
            length = _LENGTH.pack(len(piece) + _TAG_BYTES)
            parts += (length, cipher.encrypt(nonce, piece, length))
        return b"".join(parts)


@final
class Opener:
    """Opens what arrives in one direction. It holds less than one record and what it is fed.

    Args:
        key: The sealer's.
        records_per_key: The sealer's.
    """

    __slots__ = ("_buffer", "_direction", "_failure")

    def __init__(self, key: bytes, *, records_per_key: int = RECORDS_PER_KEY) -> None:
        self._direction = _Direction(key, records_per_key)
        self._buffer = bytearray()
        self._failure = ""

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes of the stream; returns the contents of the records that they complete.

        Where records begin and end has no meaning: the contents joined are what was sealed.

        Raises:
            RemoteProtocolError: A record is not the next one of this stream, or its length is out
                of bounds, which is said before its contents are awaited. What came before it in the
                same call is lost with the link. Every later call fails too.
        """
        if self._failure:
            raise RemoteProtocolError(self._failure)
        buffer = self._buffer
        try:
            if not buffer:
                records, used = self._open_all(data)
                buffer += memoryview(data)[used:]
                return records
            buffer += data
            records, used = self._open_all(buffer)
            del buffer[:used]
        except RemoteProtocolError as why:
            self._failure = str(why)
            self._buffer = bytearray()
            raise
        return records

    def _open_all(self, data: bytes | bytearray) -> tuple[list[bytes], int]:
        records: list[bytes] = []
        at, end = 0, len(data)
        view = memoryview(data)
        while end - at >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(view, at)
            if not _TAG_BYTES < size <= _SEALED_MAX_BYTES:
                raise RemoteProtocolError(
                    f"sealed record claims {size} bytes, allowed are {_TAG_BYTES + 1} to "
                    f"{_SEALED_MAX_BYTES}"
                )
            start = at + _LENGTH.size
            if end - start < size:
                break
            records.append(self._open(view[at:start], view[start : start + size]))
            at = start + size
        return records, at

    def _open(self, length: memoryview, sealed: memoryview) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            cipher, nonce = self._direction.next()
            return cipher.decrypt(nonce, sealed, length)
        except InvalidTag:
            raise RemoteProtocolError(
                "sealed record can't be opened: forged, damaged, or not the next one"
            ) from None
        except OverflowError as why:
            raise RemoteProtocolError(str(why)) from None

    @property
    def pending_bytes(self) -> int:
        """Bytes of a record that isn't complete; a stream that ends above 0 was cut."""
        return len(self._buffer)


@final
class LinkKeys:
    """What the handshake of a link needs of one group key.

    Both sides must take the same key: the one that the connecting side's mark names.

    A tag proves that the other side holds the key and saw the transcript. That it isn't our own tag
    sent back, or one of an earlier link, the transcript must see to: it has to hold who speaks
    (client or server), both nonces, and for each side its unique id and incarnation.
    """

    __slots__ = ("_key",)

    def __init__(self, key: GroupKey) -> None:
        self._key = key

    @property
    def key_id(self) -> int:
        """Id of the group key."""
        return self._key.id

    def is_of(self, key: GroupKey) -> bool:
        """Whether it was made from this group key."""
        return self._key == key

    def hello_tag(self, transcript: bytes) -> bytes:
        """Return the 16 bytes that prove that we hold the key and saw ``transcript``."""
        return self._key.hello_tag(transcript)

    def check(self, transcript: bytes, tag: bytes) -> bool:
        """Tell whether ``tag`` proves the same of the other side; takes the same time for all."""
        return hmac.compare_digest(self._key.hello_tag(transcript), tag)

    def sealers(
        self, client_nonce: bytes, server_nonce: bytes, *, is_client: bool
    ) -> tuple[Callable[[bytes], bytes], Opener]:
        """Return what seals our direction and what opens the other one.

        Args:
            client_nonce: Random bytes of the side that connected, `NONCE_BYTES`.
            server_nonce: Random bytes of the side that accepted, as many.
            is_client: Which of the two we are.

        Raises:
            RemoteProtocolError: The two nonces are the same: the peer sent ours back.
            LocalProtocolError: A nonce has another length; the handshake has checked that.
        """
        if client_nonce == server_nonce:
            raise RemoteProtocolError("the peer's nonce is ours")
        mine = self._key.link_key(client_nonce, server_nonce, from_client=is_client)
        theirs = self._key.link_key(client_nonce, server_nonce, from_client=not is_client)
        return Sealer(mine).seal, Opener(theirs)

    def __repr__(self) -> str:
        return f"<LinkKeys of {self._key!r}>"
