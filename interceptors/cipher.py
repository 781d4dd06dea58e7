"""AES as Java's ``Cipher`` names and applies it: the algorithms of `EncryptInterceptor`.

What goes out is an initialization vector and the encrypted bytes (tribes-wire §7.5). Only GCM
notices that bytes were changed; the others are here because Tomcat's older releases use them.
"""

from __future__ import annotations

from typing import Any, Final, Protocol, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.padding import PKCS7

from tribes.errors import ConfigError

try:
    from cryptography.hazmat.decrepit.ciphers.modes import CFB, OFB
except ImportError:
    # Older releases have them with the others.
    from cryptography.hazmat.primitives.ciphers.modes import CFB, OFB

__all__ = ["DEFAULT_ALGORITHM", "AesCipher", "UndecipherableError", "make_cipher", "parse_key"]

DEFAULT_ALGORITHM: Final = "AES/GCM/NoPadding"
"""Tomcat's default since 10.1.58; before it was AES/CBC/PKCS5Padding."""

GCM_IV_BYTES: Final = 12
BLOCK_BYTES: Final = 16
KEY_BYTES: Final = (16, 24, 32)

_PADDED: Final = ("CBC", "CFB", "OFB")
_ALLOWED: Final = f"{DEFAULT_ALGORITHM}, or {', '.join(f'AES/{m}/PKCS5Padding' for m in _PADDED)}"


class UndecipherableError(Exception):
    """These bytes were not made with this key, or were changed."""


class AesCipher(Protocol):
    """One algorithm with one key."""

    iv_bytes: int
    is_authenticated: bool

    def encrypt(self, iv: bytes, plain: bytes) -> bytes:
        """Return the encrypted bytes, without the initialization vector."""

    def decrypt(self, iv: bytes, data: bytes) -> bytes:
        """Return the plain bytes.

        Raises:
            UndecipherableError: As it says. Without authentication most wrong bytes pass.
        """


@final
class _Gcm:
    iv_bytes = GCM_IV_BYTES
    is_authenticated = True

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def encrypt(self, iv: bytes, plain: bytes) -> bytes:
        return self._cipher.encrypt(iv, plain, None)

    def decrypt(self, iv: bytes, data: bytes) -> bytes:
        try:
            return self._cipher.decrypt(iv, data, None)
        except InvalidTag as why:
            raise UndecipherableError("wrong key, or changed on the way") from why


@final
class _Padded:
    iv_bytes = BLOCK_BYTES
    is_authenticated = False

    def __init__(self, key: bytes, mode: str) -> None:
        self._key = algorithms.AES(key)
        self._mode: Any = {"CBC": modes.CBC, "CFB": CFB, "OFB": OFB}[mode]

    def encrypt(self, iv: bytes, plain: bytes) -> bytes:
        padder = PKCS7(BLOCK_BYTES * 8).padder()
        worker = Cipher(self._key, self._mode(iv)).encryptor()
        padded = padder.update(plain) + padder.finalize()
        result: bytes = worker.update(padded) + worker.finalize()
        return result

    def decrypt(self, iv: bytes, data: bytes) -> bytes:
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


def make_cipher(algorithm: str, key: bytes) -> AesCipher:
    """Return the cipher that Java calls so; upper and lower case are the same.

    Raises:
        ConfigError: It is none of the four that Tomcat accepts for AES.
    """
    parts = algorithm.upper().split("/")
    if parts == DEFAULT_ALGORITHM.upper().split("/"):
        return _Gcm(key)
    if len(parts) == 3 and parts[0] == "AES" and parts[1] in _PADDED and parts[2] == "PKCS5PADDING":
        return _Padded(key, parts[1])
    raise ConfigError(f"{algorithm!r} is not supported; write {_ALLOWED}")


def parse_key(text: str) -> bytes:
    """Return the key that hexadecimal text gives; blanks around it are ignored.

    Raises:
        ConfigError: The text is no key. It is not repeated in the message.
    """
    text = text.strip()
    try:
        # What fromhex() skips, blanks between digits, Tomcat refuses.
        key = bytes.fromhex(text) if text.isalnum() else b""
    except ValueError:
        key = b""
    if len(key) not in KEY_BYTES:
        raise ConfigError(
            f"is no AES key: write 32, 48 or 64 hexadecimal digits, found {len(text)} characters; "
            "openssl rand -hex 32 makes one"
        )
    return key
