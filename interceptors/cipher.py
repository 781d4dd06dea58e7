"""AES as Java's ``Cipher`` names and applies it: the algorithms of `EncryptInterceptor`.

What goes out is an initialization vector and the encrypted bytes (tribes-wire §7.5). Only GCM
notices that bytes were changed; the others are here because Tomcat's older releases use them.
"""

from __future__ import annotations

from typing import Final, Protocol

from tribes.errors import ConfigError

__all__ = [
    "BLOCK_BYTES",
    "DEFAULT_ALGORITHM",
    "GCM_IV_BYTES",
    "AesCipher",
    "UndecipherableError",
    "make_cipher",
    "parse_key",
]

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


def make_cipher(algorithm: str, key: bytes) -> AesCipher:
    """Return the cipher that Java calls so; upper and lower case are the same.

    Raises:
        ConfigError: It is none of the four that Tomcat accepts for AES.
    """
    # Whoever encrypts nothing here does not need the package that can.
    from tribes.interceptors.aes import Gcm, Padded

    parts = algorithm.upper().split("/")
    if parts == DEFAULT_ALGORITHM.upper().split("/"):
        return Gcm(key)
    if len(parts) == 3 and parts[0] == "AES" and parts[1] in _PADDED and parts[2] == "PKCS5PADDING":
        return Padded(key, parts[1])
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
