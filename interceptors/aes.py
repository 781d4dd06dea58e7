"""AES by the package ``cryptography``, which is imported when the first cipher is made."""

from __future__ import annotations

from typing import Any, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.padding import PKCS7

from tribes.interceptors.cipher import BLOCK_BYTES, GCM_IV_BYTES, UndecipherableError

try:
    from cryptography.hazmat.decrepit.ciphers.modes import CFB, OFB
except ImportError:
    # Older releases have them with the others.
    from cryptography.hazmat.primitives.ciphers.modes import CFB, OFB

__all__ = ["Gcm", "Padded"]


@final
class Gcm:
    """AES/GCM/NoPadding."""

    iv_bytes = GCM_IV_BYTES
    is_authenticated = True

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def encrypt(self, iv: bytes, plain: bytes) -> bytes:
        """See :class:`AesCipher`."""
        return self._cipher.encrypt(iv, plain, None)

    def decrypt(self, iv: bytes, data: bytes) -> bytes:
        """See :class:`AesCipher`."""
        try:
            return self._cipher.decrypt(iv, data, None)
        except InvalidTag as why:
            raise UndecipherableError("wrong key, or changed on the way") from why


@final
class Padded:
    """AES/CBC, CFB or OFB with PKCS5Padding."""

    iv_bytes = BLOCK_BYTES
    is_authenticated = False

    def __init__(self, key: bytes, mode: str) -> None:
        self._key = algorithms.AES(key)
        self._mode: Any = {"CBC": modes.CBC, "CFB": CFB, "OFB": OFB}[mode]

    def encrypt(self, iv: bytes, plain: bytes) -> bytes:
        """See :class:`AesCipher`."""
        padder = PKCS7(BLOCK_BYTES * 8).padder()
        worker = Cipher(self._key, self._mode(iv)).encryptor()
        padded = padder.update(plain) + padder.finalize()
        result: bytes = worker.update(padded) + worker.finalize()
        return result

    def decrypt(self, iv: bytes, data: bytes) -> bytes:
        """See :class:`AesCipher`."""
        if not data or len(data) % BLOCK_BYTES:
            raise UndecipherableError(f"{len(data)} bytes are no whole blocks")
        worker = Cipher(self._key, self._mode(iv)).decryptor()
        unpadder = PKCS7(BLOCK_BYTES * 8).unpadder()
        padded = worker.update(data) + worker.finalize()
        try:
            result: bytes = unpadder.update(padded) + unpadder.finalize()
        except ValueError as why:
            raise UndecipherableError("wrong key, or changed on the way") from why
        return result
