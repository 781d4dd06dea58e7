"""Messages are encrypted with a key that all members share.

Tomcat's ``EncryptInterceptor`` (tribes-wire §7.5), for groups with Tomcat's own members: between
our own a group key (``channel.key_file``) protects more, since this leaves options, ids, sources
and acknowledgements as they are.

On the wire: initialization vector, then the encrypted timestamp and message. The timestamp came
with 10.1.56; ``generation`` says which of the two forms the group speaks: the bytes don't tell.

Where Tomcat drops what it cannot read and tells the sender that it was processed, this refuses it:
a member with another key must not count as one that has the message. Only without authentication
(CBC, CFB, OFB) it is dropped in silence too: to answer bad padding otherwise would let whoever can
send bytes decrypt messages by asking.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from tribes.channel.chain import Interceptor, ReceiveNext, SendNext
from tribes.channel.outputs import Notice
from tribes.channel.tickets import Outgoing
from tribes.errors import ConfigError, RemoteProtocolError
from tribes.interceptors.cipher import (
    DEFAULT_ALGORITHM,
    AesCipher,
    UndecipherableError,
    make_cipher,
    parse_key,
)

if TYPE_CHECKING:
    from tribes.wire.data import ChannelData

__all__ = ["EncryptInterceptor", "ReplayMemory"]

_TIMESTAMP = struct.Struct(">q")

_LONGEST_ADDITION = 64
"""Initialization vector, timestamp, and tag or padding."""

MESSAGES_PER_KEY_MAX = 2**31
"""Messages after which a key ought to be replaced: with 2^32 random vectors of 96 bits a repeated
one, which would undo GCM, is no longer out of the question."""


class ReplayMemory:
    """Which messages were received: a copy of one is refused.

    Remembers the vectors of the last messages by their timestamps. What it forgets, oldest first,
    moves the time from which on messages are taken (tribes-wire §7.5).

    Args:
        window: Milliseconds by which a timestamp may differ from the own clock.
        count: Messages that are remembered.
        begin: Wall clock at the start, in ms.
    """

    def __init__(self, window: int, count: int, begin: int) -> None:
        self._window = window
        self._count = count
        self._last_removed = begin - window
        self._seen: set[bytes] = set()
        self._by_time: list[tuple[int, int, bytes]] = []
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._seen)

    def check_time(self, timestamp: int, now: int) -> str:
        """Why a message of that time is refused; empty when it may be taken."""
        if timestamp < now - self._window:
            return f"it is {now - timestamp} ms old"
        if timestamp > now + self._window:
            return f"it is {timestamp - now} ms in the future"
        if timestamp <= self._last_removed:
            return "it is older than what is remembered of others"
        return ""

    def add(self, timestamp: int, iv: bytes) -> bool:
        """Remember a message; False when it was there before."""
        if iv in self._seen:
            return False
        self._seen.add(iv)
        self._sequence += 1
        heapq.heappush(self._by_time, (timestamp, self._sequence, iv))
        if len(self._by_time) > self._count:
            self._last_removed, _, forgotten = heapq.heappop(self._by_time)
            self._seen.discard(forgotten)
        return True


class EncryptInterceptor(Interceptor):
    """Encrypts what goes out, decrypts what comes in, refuses copies.

    Args:
        encryption_key: AES key of 16, 24 or 32 bytes in hexadecimal (``encryptionKey``).
        decryption_keys: Further keys that are accepted, while a key is replaced: add the new one
            here on every member, then make it the ``encryption_key`` and keep the old one here,
            then take the old one away.
        encryption_algorithm: ``AES/GCM/NoPadding``, or ``AES/CBC/PKCS5Padding``, ``AES/CFB/…``,
            ``AES/OFB/…`` (``encryptionAlgorithm``).
        replay_window_time: Milliseconds by which clocks and ways may differ
            (``replayWindowTime``).
        replay_window_message_count: Messages remembered (``replayWindowMessageCount``).
        generation: ``"timestamp"`` as Tomcat 10.1.56 and later, or ``"plain"`` as before: without
            timestamps, so without protection from copies.
        option_flag: Has no effect (``optionFlag``): everything is encrypted.

    Raises:
        ConfigError: A key or the algorithm cannot be used.
    """

    def __init__(
        self,
        *,
        encryption_key: str,
        decryption_keys: Sequence[str] = (),
        encryption_algorithm: str = DEFAULT_ALGORITHM,
        replay_window_time: int = 10_000,
        replay_window_message_count: int = 8192,
        generation: Literal["timestamp", "plain"] = "timestamp",
        option_flag: int = 0,
    ) -> None:
        for key, value in (
            ("replay_window_time", replay_window_time),
            ("replay_window_message_count", replay_window_message_count),
        ):
            if value < 1:
                raise ConfigError(f"must be at least 1, found {value}", key=key)
        if generation not in ("timestamp", "plain"):
            raise ConfigError(
                f"{generation!r} is unknown; write 'timestamp' for Tomcat 10.1.56 and later, or "
                "'plain' for older ones",
                key="generation",
            )
        self.encryption_algorithm = encryption_algorithm
        self.replay_window_time = replay_window_time
        self.replay_window_message_count = replay_window_message_count
        self.generation = generation
        self.option_flag = option_flag
        self.refused = 0
        """Messages that could not be read, or were too old."""
        self.replayed = 0
        """Copies of messages received before."""
        self._sent = 0
        self._memory: ReplayMemory | None = None
        own = _cipher(encryption_algorithm, encryption_key, "encryption_key")
        others = [_cipher(encryption_algorithm, k, "decryption_keys") for k in decryption_keys]
        self._ciphers: list[AesCipher] = [own, *others]
        if others and generation == "plain" and not own.is_authenticated:
            raise ConfigError(
                f"cannot be told apart with {encryption_algorithm} and generation = 'plain': a "
                "wrong key would give wrong messages now and then; write AES/GCM/NoPadding, or "
                "replace the key on all members at once",
                key="decryption_keys",
            )

    @property
    def is_authenticated(self) -> bool:
        """Whether a changed message is noticed."""
        return self._ciphers[0].is_authenticated

    def start(self, now: float) -> None:
        """From here on copies are noticed."""
        del now
        self._memory = self._new_memory()

    def message_max_bytes(self, below: int) -> int:
        """What is left for a message when the vector, the time and the tag are added."""
        return below - _LONGEST_ADDITION

    def send(self, message: Outgoing, now: float, next: SendNext) -> None:  # noqa: A002
        """Encrypt a message, once for all destinations."""
        data, cipher = message.data, self._ciphers[0]
        plain = data.message
        if self.generation == "timestamp":
            stamp = data.timestamp if data.timestamp > 0 else self.context.wall_ms()
            plain = _TIMESTAMP.pack(stamp) + plain
        iv = self.context.entropy(cipher.iv_bytes)
        data = data.with_message(iv + cipher.encrypt(iv, plain))
        self._sent += 1
        if self._sent % MESSAGES_PER_KEY_MAX == 0:
            self.context.event(Notice("encryption key is worn", {"messages": self._sent}))
        next(Outgoing(data, message.destinations, message.ticket), now)

    def receive(self, message: ChannelData, now: float, next: ReceiveNext) -> None:  # noqa: A002
        """Decrypt a message that is no copy.

        Raises:
            RemoteProtocolError: It is too short, or the key is another one, or it was changed, or
                its time is out of the window.
        """
        plain = self._decrypt(message)
        if plain is not None:
            next(message.with_message(plain), now)

    def _decrypt(self, message: ChannelData) -> bytes | None:
        data = message.message
        iv_bytes = self._ciphers[0].iv_bytes
        if len(data) < iv_bytes:
            self.refused += 1
            raise RemoteProtocolError(f"an encrypted message of {len(data)} bytes")
        iv, encrypted = data[:iv_bytes], data[iv_bytes:]
        why = ""
        for cipher in self._ciphers:
            try:
                plain = cipher.decrypt(iv, encrypted)
            except UndecipherableError as error:
                why = why or str(error)
                continue
            if self.generation == "plain":
                return plain
            fault = self._fault(plain)
            if not fault:
                return self._unless_copy(message, plain, iv)
            # With an unauthenticated cipher, only the time tells a wrong key from the right one.
            why = fault
            if cipher.is_authenticated:
                break
        self._refuse(message, why)
        return None

    def _fault(self, plain: bytes) -> str:
        if len(plain) < _TIMESTAMP.size:
            return "it holds no time; Tomcat before 10.1.56 needs generation = 'plain'"
        (timestamp,) = _TIMESTAMP.unpack_from(plain)
        return self.memory.check_time(timestamp, self.context.wall_ms())

    def _unless_copy(self, message: ChannelData, plain: bytes, iv: bytes) -> bytes | None:
        (timestamp,) = _TIMESTAMP.unpack_from(plain)
        if self.memory.add(timestamp, iv):
            return plain[_TIMESTAMP.size :]
        # It was processed; that it came twice is the network's doing, or an attacker's.
        self.replayed += 1
        self._tell("copy of a message dropped", message, "")
        return None

    def _refuse(self, message: ChannelData, why: str) -> None:
        self.refused += 1
        if self._ciphers[0].is_authenticated:
            raise RemoteProtocolError(f"an encrypted message of {message.source.label}: {why}")
        self._tell("encrypted message dropped", message, why)

    def _tell(self, text: str, message: ChannelData, why: str) -> None:
        details: dict[str, object] = {"member": message.source.label}
        if why:
            details["why"] = why
        self.context.event(Notice(text, details))

    @property
    def memory(self) -> ReplayMemory:
        """What was received lately."""
        if self._memory is None:
            self._memory = self._new_memory()
        return self._memory

    def _new_memory(self) -> ReplayMemory:
        return ReplayMemory(
            self.replay_window_time, self.replay_window_message_count, self.context.wall_ms()
        )


def _cipher(algorithm: str, text: str, key: str) -> AesCipher:
    try:
        secret = parse_key(text)
    except ConfigError as error:
        raise ConfigError(str(error), key=key) from None
    try:
        return make_cipher(algorithm, secret)
    except ConfigError as error:
        raise ConfigError(str(error), key="encryption_algorithm") from None
