r"""How a stored value proves that it is whole, ours, and meant for its key.

::

    magic   89 54 53 56 ("\x89TSV")
    format  u8, 1
    flags   u8: 1 compressed with zlib, 2 authenticated, 4 encrypted (and so authenticated)
    length  u32, of the content
    body    the content; encrypted: salt (16), nonce (12), AES-256-GCM ciphertext with its tag
    check   not encrypted only: HMAC-SHA256 (32 bytes) if authenticated, else CRC-32 (4 bytes)

The check covers everything before it, the *purpose* (application) and the key, so one session's
value cannot stand for another's.  What it cannot show is age: whoever may write to the store can
put back an older value of the same session.

With keys, only what a key authenticates is opened: taking the flag away does not help a forger.
Without keys, authenticated values are refused too, because nobody can say whether they are whole.
"""

from __future__ import annotations

import hmac
import os
import zlib
from collections.abc import Sequence
from hashlib import sha256
from struct import Struct
from typing import Final, final

from tribes.errors import ConfigError, StoreDataError, StoreLimitError

__all__ = ["CONTENT_MAX_BYTES", "KEY_MIN_BYTES", "Envelope"]

CONTENT_MAX_BYTES: Final = 64 * 1024 * 1024
"""Of a value before compression; a longer one is refused both ways."""
KEY_MIN_BYTES: Final = 32

_MAGIC: Final = b"\x89TSV"
_FORMAT: Final = 1
_HEAD: Final = Struct(">4sBBI")
_U32: Final = Struct(">I")
_COMPRESSED: Final = 1
_AUTHENTICATED: Final = 2
_ENCRYPTED: Final = 4
_MAC_BYTES: Final = 32
_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_COMPRESS_MIN_BYTES: Final = 128
"""Shorter contents do not get shorter."""


@final
class Envelope:
    """Seals and opens the values of one application.

    Args:
        purpose: Name of the application; a value of another one does not open.
        keys: Secrets of at least 32 bytes; the first seals, all open, so a key is changed by
            putting the new one in front. None: values are checked against damage only.
        encrypt: Encrypt too, with the first key.
        compress: Compress, where that makes a value shorter.

    Raises:
        ConfigError: A key is too short, or there is none to encrypt with.
    """

    def __init__(
        self,
        purpose: str = "",
        *,
        keys: Sequence[bytes] = (),
        encrypt: bool = False,
        compress: bool = False,
    ) -> None:
        for number, key in enumerate(keys):
            if len(key) < KEY_MIN_BYTES:
                raise ConfigError(
                    f"a key has at least {KEY_MIN_BYTES} bytes, this one has {len(key)}; "
                    "python -c 'import secrets; print(secrets.token_hex(32))' makes one",
                    key=f"store.keys[{number}]",
                )
        if encrypt and not keys:
            raise ConfigError("there is no key to encrypt with; set store.keys", key="encrypt")
        self._purpose = purpose.encode()
        self._mac_keys = [_derive(key, b"tribes store authentication 1") for key in keys]
        self._cipher_keys = [_derive(key, b"tribes store encryption 1") for key in keys]
        self._encrypt = encrypt
        self._compress = compress

    @property
    def is_authenticated(self) -> bool:
        """Whether a key protects the values."""
        return bool(self._mac_keys)

    def seal(self, key: str, content: bytes) -> bytes:
        """Return the bytes to store under a key.

        Raises:
            StoreLimitError: The content is longer than `CONTENT_MAX_BYTES`.
        """
        if len(content) > CONTENT_MAX_BYTES:
            raise StoreLimitError(
                f"a session of {len(content)} bytes cannot be stored; the most is "
                f"{CONTENT_MAX_BYTES}"
            )
        body, flags = content, 0
        if self._compress and len(content) >= _COMPRESS_MIN_BYTES:
            shorter = zlib.compress(content)
            if len(shorter) < len(content):
                body, flags = shorter, _COMPRESSED
        if self._encrypt:
            head = _HEAD.pack(_MAGIC, _FORMAT, flags | _ENCRYPTED, len(content))
            salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
            # Whoever has no key needs no cryptography.
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            cipher = AESGCM(_derive(self._cipher_keys[0], salt))
            return head + salt + nonce + cipher.encrypt(nonce, body, self._bound(key, head))
        if self._mac_keys:
            flags |= _AUTHENTICATED
        sealed = _HEAD.pack(_MAGIC, _FORMAT, flags, len(content)) + body
        if self._mac_keys:
            return sealed + self._mac(self._mac_keys[0], key, sealed)
        return sealed + _U32.pack(zlib.crc32(self._bound(key, sealed)))

    def open(self, key: str, sealed: bytes) -> bytes:
        """Return the content of what `seal` made for this key.

        Raises:
            StoreDataError: Says what is wrong; never with any of the content.
        """
        if len(sealed) < _HEAD.size:
            raise StoreDataError(f"{len(sealed)} bytes are too few for a stored session")
        magic, version, flags, length = _HEAD.unpack_from(sealed)
        if magic != _MAGIC:
            raise StoreDataError("these bytes are no stored session of Tribes for Python")
        if version != _FORMAT or flags & ~(_COMPRESSED | _AUTHENTICATED | _ENCRYPTED):
            raise StoreDataError(
                f"a newer version wrote this session (format {version}, flags {flags})"
            )
        if length > CONTENT_MAX_BYTES:
            raise StoreDataError(f"it claims {length} bytes; the most is {CONTENT_MAX_BYTES}")
        if flags & _ENCRYPTED:
            body = self._decrypted(key, sealed)
        else:
            body = self._checked(key, sealed, is_authenticated=bool(flags & _AUTHENTICATED))
        content = _inflated(body, length) if flags & _COMPRESSED else body
        if len(content) != length:
            raise StoreDataError(f"{length} bytes were stored, {len(content)} are here")
        return content

    def _bound(self, key: str, data: bytes) -> bytes:
        """What a check covers: length-prefixed, so that nothing can move from one to the other."""
        name = key.encode("utf-8", "surrogatepass")
        lengths = _U32.pack(len(self._purpose)) + _U32.pack(len(name))
        return b"".join((lengths, self._purpose, name, data))

    def _mac(self, mac_key: bytes, key: str, data: bytes) -> bytes:
        return hmac.digest(mac_key, self._bound(key, data), "sha256")

    def _checked(self, key: str, sealed: bytes, *, is_authenticated: bool) -> bytes:
        if is_authenticated != bool(self._mac_keys):
            raise StoreDataError(
                "it is authenticated, and no key is set here"
                if is_authenticated
                else "it is not authenticated, and a key is set here"
            )
        end = len(sealed) - (_MAC_BYTES if is_authenticated else _U32.size)
        if end < _HEAD.size:
            raise StoreDataError("it is cut short")
        data, check = sealed[:end], sealed[end:]
        if not is_authenticated:
            if check != _U32.pack(zlib.crc32(self._bound(key, data))):
                raise StoreDataError("it is damaged, or another session's")
        elif not any(
            hmac.compare_digest(check, self._mac(each, key, data)) for each in self._mac_keys
        ):
            raise StoreDataError("no key here authenticates it: tampered with, or another key's")
        return data[_HEAD.size :]

    def _decrypted(self, key: str, sealed: bytes) -> bytes:
        if not self._cipher_keys:
            raise StoreDataError("it is encrypted, and no key is set here")
        head, rest = sealed[: _HEAD.size], sealed[_HEAD.size :]
        salt, rest = rest[:_SALT_BYTES], rest[_SALT_BYTES:]
        nonce, body = rest[:_NONCE_BYTES], rest[_NONCE_BYTES:]
        if len(nonce) < _NONCE_BYTES:
            raise StoreDataError("it is cut short")
        bound = self._bound(key, head)
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        for each in self._cipher_keys:
            try:
                return AESGCM(_derive(each, salt)).decrypt(nonce, body, bound)
            except InvalidTag:
                continue
        raise StoreDataError("no key here opens it: tampered with, or another key's")


def _derive(key: bytes, label: bytes) -> bytes:
    return hmac.digest(key, label, sha256)


def _inflated(body: bytes, length: int) -> bytes:
    """Decompress, never further than the length that was claimed."""
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(body, length + 1)
    except zlib.error as why:
        raise StoreDataError(f"it does not decompress: {why}") from why
    if not inflater.eof or inflater.unused_data:
        raise StoreDataError(f"it does not decompress to its {length} bytes")
    return content
