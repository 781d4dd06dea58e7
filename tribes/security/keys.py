"""Group keys: their text, the ring that holds several of them, and what is derived from one.

A group key is 32 random bytes that every member of a group has and nobody else. Its text is one
line, of a key file or of a configuration::

    tribes-key:v1:<id>:<secret>:<check>

    id      1..255, decimal; travels in the clear and says which key something was made with
    secret  the 32 bytes in base64url without padding (RFC 4648 §5), 43 characters
    check   CRC-32 of everything before its colon, 8 hexadecimal digits in lower case

The check notices typing errors and cut lines; a CRC finds every single wrong character and every
swap of neighbours. It protects nothing, and needs not: it is as secret as the key.

No key is used directly. HKDF-SHA256 (RFC 5869) makes one sub-key per purpose, each with a label of
its own, so a tag made for one purpose is worthless for another::

    group key ─┬─ "tribes v1 heartbeat" ─ HMAC of heartbeats and farewells (see `mark`)
               ├─ "tribes v1 hello" ───── HMAC of the handshake on a link
               ├─ "tribes v1 store" ───── AES-256-GCM of what a member keeps in files
               └─ "tribes v1 link" ─┬──── + both nonces, "client to server" ─ AES-256-GCM
                                    └──── + both nonces, "server to client" ─ AES-256-GCM

A key never shows itself: not in ``repr`` and ``str``, not in errors, and no error is raised from
where a local variable holds its text, since some loggers print those.
"""

from __future__ import annotations

import base64
import hmac
import re
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, final

from tribes.errors import ConfigError, LocalProtocolError

__all__ = [
    "KEYS_MAX",
    "KEY_BYTES",
    "NONCE_BYTES",
    "TAG_BYTES",
    "GroupKey",
    "KeyRing",
    "check_file_mode",
    "hkdf_sha256",
    "remedy_for",
]

KEY_BYTES: Final = 32
"""A key is as long as SHA-256's output and AES-256's key."""

KEY_ID_MAX: Final = 255
"""Ids travel in one byte; 0 says "no key"."""

KEYS_MAX: Final = 16
"""Keys in one ring. Rotation needs two; a ring that grows is a rotation that nobody ended."""

NONCE_BYTES: Final = 16
"""Random bytes that each side of a link adds. One side's alone make its keys unique."""

TAG_BYTES: Final = 16
"""Tags are HMAC-SHA256 cut to half, the least that RFC 2104 §5 allows: 2^-128 for a guess."""

_PREFIX: Final = "tribes-key"
_VERSION: Final = "v1"
_SECRET_CHARACTERS: Final = 43
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_ID: Final = re.compile(r"[1-9][0-9]{0,2}")
_MAKE_ONE: Final = "write the whole line that `tribes keygen` printed"


def hkdf_sha256(secret: bytes, *, salt: bytes = b"", info: bytes, length: int) -> bytes:
    """Derive ``length`` bytes from ``secret`` (RFC 5869 with SHA-256).

    Here and not from the package `cryptography`, so that heartbeats need the standard library only;
    the tests compare both.

    Raises:
        LocalProtocolError: More than 255 blocks of 32 bytes are asked for.
    """
    if not 0 < length <= 255 * 32:
        raise LocalProtocolError(f"HKDF-SHA256 gives 1 to 8160 bytes, not {length}")
    extracted = hmac.digest(salt, secret, "sha256")
    block = output = b""
    for number in range(1, -(-length // 32) + 1):
        block = hmac.digest(extracted, block + info + bytes((number,)), "sha256")
        output += block
    return output[:length]


@final
class GroupKey:
    """One key of a group, with what is derived from it.

    Args:
        key_id: 1..255; says to others which key this is.
        secret: 32 random bytes.

    Raises:
        LocalProtocolError: The id or the length is out of range.
    """

    __slots__ = ("_heartbeat", "_hello", "_link", "_secret", "id", "store")

    def __init__(self, key_id: int, secret: bytes) -> None:
        if not 1 <= key_id <= KEY_ID_MAX:
            raise LocalProtocolError(f"a key's id is 1 to {KEY_ID_MAX}, not {key_id}")
        if len(secret) != KEY_BYTES:
            raise LocalProtocolError(f"a key has {KEY_BYTES} bytes, not {len(secret)}")
        self.id: Final = key_id
        self._secret: Final = bytes(secret)
        self._heartbeat: Final = self._sub_key(b"tribes v1 heartbeat")
        self._hello: Final = self._sub_key(b"tribes v1 hello")
        self._link: Final = self._sub_key(b"tribes v1 link")
        self.store: Final = self._sub_key(b"tribes v1 store")
        """Encrypts what a member keeps in files."""

    def _sub_key(self, label: bytes) -> bytes:
        return hkdf_sha256(self._secret, info=label, length=KEY_BYTES)

    def heartbeat_tag(self, message: bytes) -> bytes:
        """Return the 16 bytes that prove that a holder of this key made ``message``."""
        return hmac.digest(self._heartbeat, message, "sha256")[:TAG_BYTES]

    def hello_tag(self, transcript: bytes) -> bytes:
        """Return the 16 bytes that prove that a holder of this key saw ``transcript``."""
        return hmac.digest(self._hello, transcript, "sha256")[:TAG_BYTES]

    def link_key(self, client_nonce: bytes, server_nonce: bytes, *, from_client: bool) -> bytes:
        """Return the first AES-256 key of one direction of a link.

        Raises:
            LocalProtocolError: A nonce has not `NONCE_BYTES`; others could be cut differently.
        """
        if len(client_nonce) != NONCE_BYTES or len(server_nonce) != NONCE_BYTES:
            raise LocalProtocolError(
                f"a link's nonces have {NONCE_BYTES} bytes each, "
                f"not {len(client_nonce)} and {len(server_nonce)}"
            )
        way = b"client to server" if from_client else b"server to client"
        return hkdf_sha256(
            self._link,
            salt=client_nonce + server_nonce,
            info=b"tribes v1 link: " + way,
            length=KEY_BYTES,
        )

    def to_text(self) -> str:
        """Return the key's line, which `KeyRing.parse` reads. This is the secret itself."""
        secret = base64.urlsafe_b64encode(self._secret).rstrip(b"=").decode()
        line = f"{_PREFIX}:{_VERSION}:{self.id}:{secret}"
        return f"{line}:{_check_of(line)}"

    def same_secret(self, other: GroupKey) -> bool:
        """Tell whether two keys are the same but for their ids."""
        return hmac.compare_digest(self._secret, other._secret)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GroupKey):
            return NotImplemented
        return self.id == other.id and self.same_secret(other)

    def __hash__(self) -> int:
        return hash((GroupKey, self.id))

    def __repr__(self) -> str:
        return f"<GroupKey id={self.id}>"


@final
class KeyRing:
    """The keys that a member accepts; it signs and seals with the first of them.

    So a key is replaced without a moment in which two members don't understand each other: add the
    new one behind the old one on every member, then make it the first on every member, then take
    the old one away on every member.

    Args:
        keys: 1 to `KEYS_MAX` keys with different ids.

    Raises:
        ConfigError: There are none, too many, or two with the same id or secret.
    """

    __slots__ = ("_by_id", "current")

    def __init__(self, keys: Iterable[GroupKey]) -> None:
        self._by_id: Final[dict[int, GroupKey]] = {}
        for key in keys:
            if problem := _conflict(key, self._by_id):
                raise ConfigError(problem)
            self._by_id[key.id] = key
        if not self._by_id:
            raise ConfigError(f"found no key; {_MAKE_ONE}")
        self.current: Final = next(iter(self._by_id.values()))
        """The key that signs and seals."""

    @classmethod
    def parse(cls, text: str, *, source: str = "", key: str = "") -> KeyRing:
        """Read keys, one per line; blank lines and what follows a ``#`` are left out.

        Args:
            text: The lines.
            source: The file they came from, for errors.
            key: The setting they came from, for errors.

        Raises:
            ConfigError: Names file and line, what was found, without the key, and what to write.
        """
        known: dict[int, GroupKey] = {}
        problem, where = "", source
        for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
            line = line.partition("#")[0].strip()
            if not line:
                continue
            found = _read_line(line)
            problem = _conflict(found, known) if isinstance(found, GroupKey) else found
            if problem:
                where = f"{source}, line {number}" if source else f"line {number}"
                break
            assert isinstance(found, GroupKey)
            known[found.id] = found
        # From here on no local holds key text: some loggers print the locals of a traceback.
        text = line = ""
        if problem:
            raise ConfigError(problem, key=key, source=where)
        if not known:
            raise ConfigError(f"found no key; {_MAKE_ONE}", key=key, source=source)
        return cls(known.values())

    def get(self, key_id: int) -> GroupKey | None:
        """Return the key with this id, or None: whoever used it knows a key that we don't."""
        return self._by_id.get(key_id)

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids, the one in use first."""
        return tuple(self._by_id)

    def __iter__(self) -> Iterator[GroupKey]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def __repr__(self) -> str:
        return f"<KeyRing ids={list(self._by_id)}>"


def remedy_for(why: OSError, otherwise: str) -> str:
    """What to do about a secret file that cannot be read.

    Args:
        why: What the operating system said.
        otherwise: What helps where it is no matter of rights.
    """
    if isinstance(why, PermissionError):
        return "give it, and its directory, to the user that this process runs as (chown)"
    return otherwise


def check_file_mode(mode: int, path: str, what: str = "key file") -> None:
    """Refuse a secret file that others than its owner may read or change.

    Only for systems whose mode bits mean something: not for Windows.

    Args:
        mode: ``st_mode`` of the file.
        path: Its path, for the error.
        what: What people call it.

    Raises:
        ConfigError: Says how to mend it.
    """
    if not stat.S_ISREG(mode):
        raise ConfigError(f"is not a regular file; write the path of a {what}", source=path)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"others may open this {what} (its mode is {stat.S_IMODE(mode):04o}); "
            f"run: chmod 600 {path}",
            source=path,
        )


def _conflict(key: GroupKey, known: Mapping[int, GroupKey]) -> str:
    """Return why ``key`` can't be in a ring with the known ones; empty if it can."""
    if key.id in known:
        free = next(number for number in range(1, KEY_ID_MAX + 1) if number not in known)
        return (
            f"found a second key with the id {key.id}; give the new one another id: "
            f"tribes keygen --id {free}"
        )
    for other in known.values():
        if key.same_secret(other):
            return f"found the key {other.id} again with the id {key.id}; keep one of the two"
    if len(known) >= KEYS_MAX:
        return f"found more than {KEYS_MAX} keys; take away those that no member uses any more"
    return ""


def _read_line(line: str) -> GroupKey | str:
    """Return the key, or what is wrong with the line; quotes nothing that may be a key's part."""
    prefix, *fields = line.split(":")
    if prefix != _PREFIX:
        return f"found {len(line)} characters that don't begin with {_PREFIX}:; {_MAKE_ONE}"
    if len(fields) != 4:
        return f"found {len(fields) + 1} parts between colons, a key has 5; {_MAKE_ONE}"
    version, key_id, secret, check = fields
    if version != _VERSION:
        shown = version if re.fullmatch(r"v[0-9]{1,3}", version) else "something else"
        return f"found {shown} where a key that this release knows has {_VERSION}; {_MAKE_ONE}"
    if len(secret) != _SECRET_CHARACTERS:
        return (
            f"found a secret of {len(secret)} characters where {_SECRET_CHARACTERS} belong: "
            f"something was lost or added; {_MAKE_ONE}"
        )
    if not hmac.compare_digest(
        check.encode(errors="replace"), _check_of(line.rpartition(":")[0]).encode()
    ):
        return f"the check at its end doesn't fit: a character was mistyped; {_MAKE_ONE}"
    # What follows can't be a typing error, only a line that something else made.
    if not _ID.fullmatch(key_id) or int(key_id) > KEY_ID_MAX:
        return f"found an id that is not 1 to {KEY_ID_MAX}; {_MAKE_ONE}"
    raw = base64.urlsafe_b64decode(secret + "=") if _SECRET.fullmatch(secret) else b""
    key = GroupKey(int(key_id), raw) if len(raw) == KEY_BYTES else None
    if key is None or key.to_text() != line:
        return f"found a secret that is not {KEY_BYTES} bytes in base64url; {_MAKE_ONE}"
    return key


def _check_of(line: str) -> str:
    return f"{zlib.crc32(line.encode(errors='replace')):08x}"
