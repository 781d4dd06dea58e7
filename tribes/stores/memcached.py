"""One memcached server (1.6 or newer), through pymemcache.

Sessions need what the meta commands do in one round trip: value, version and longer life
(``mg``), or a conditional write that tells the new version (``ms``).  pymemcache has none of them,
and its ``raw_command`` loses what does not arrive in one piece, so a subclass of its client sends
them and reads the answers by their lengths.

A value that is longer than the server's items is cut in pieces (`pieces`), if ``value_max_bytes``
allows it.

**A connection with a half-read answer is closed**, whatever the reason: the next request would get
another user's session from it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar, final

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheError, MemcacheUnexpectedCloseError

from tribes.errors import StoreConflictError, StoreError, StoreLimitError, StoreNodeError

from .cache import expiry_of
from .pieces import FLAGS, PIECES_MAX, Pieces
from .protocol import Stored, check_size

if TYPE_CHECKING:
    import ssl

__all__ = ["ITEM_MAX_BYTES", "MemcachedNode"]

ITEM_MAX_BYTES: Final = 1024 * 1024
"""memcached's default for ``-I``; what a server says instead is learned from it."""
OVERHEAD_BYTES: Final = 512
"""Of an item beside its value, with room to spare: a store that the server refuses for its size
removes the old value, so it must never come to that."""
IDLE_CONNECTIONS_MAX: Final = 64
PIECES_OUTLIVE_S: Final = 60
"""Pieces live for so much longer than their list, which is touched before them."""
LISTS_MAX: Final = 1000
"""Lists that are remembered, to remove the pieces of what is replaced."""
READS_MAX: Final = 10
"""Attempts to read a value in pieces that others replace again and again."""

_CHUNK: Final = 256 * 1024
_LINE_MAX: Final = 2048

_T = TypeVar("_T")


@final
class _Connection(Client):  # type: ignore[misc]  # pymemcache has no types
    """A connection that speaks meta commands."""

    def call(self, request: bytes) -> tuple[list[bytes], bytes]:
        """Send a request; return the words of the answer, and its data."""
        if self.sock is None:
            self._connect()
        sock = self.sock
        assert sock is not None
        try:
            sock.sendall(request)
            received = bytearray()
            while (end := received.find(b"\r\n")) < 0:
                self._receive(received)
                if len(received) > _LINE_MAX and b"\r\n" not in received:
                    raise MemcacheError("it is no memcached server")
            line = bytes(received[:end])
            self._raise_errors(line, b"meta")
            words = line.split(b" ")
            if words[0] != b"VA":
                if len(received) != end + 2:
                    raise MemcacheError("it said more than it was asked")
                return words, b""
            whole = end + 2 + int(words[1]) + 2
            while len(received) < whole:
                self._receive(received)
            if len(received) != whole or received[-2:] != b"\r\n":
                raise MemcacheError("its answer is out of step")
            return words[2:], bytes(received[end + 2 : whole - 2])
        except BaseException:
            self.close()
            raise

    def _receive(self, received: bytearray) -> None:
        assert self.sock is not None
        chunk = self.sock.recv(_CHUNK)
        if not chunk:
            raise ConnectionResetError("the server closed the connection")
        received += chunk


@final
class MemcachedNode:
    """See `tribes.stores.cache.CacheNode`.

    Args:
        server: ``(host, port)``, or the path of a Unix socket.
        timeout_s: Seconds that an answer, and a connection, may take.
        value_max_bytes: A longer value is refused, and what is longer than an item is cut in
            pieces; 0: as long as one item, which the server is asked at the first use.
        tls: For servers with TLS.
    """

    def __init__(
        self,
        server: tuple[str, int] | str,
        *,
        timeout_s: float = 0.15,
        value_max_bytes: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._server = server
        self._timeout_s = timeout_s
        self._limit = value_max_bytes
        self._item_max = 0
        self._tls = tls
        self._lists: OrderedDict[str, tuple[int, Pieces]] = OrderedDict()
        self._lock = threading.Lock()
        self._idle: deque[_Connection] = deque()
        self._generation = 0
        """Connections of an earlier one are closed instead of kept."""

    @property
    def address(self) -> str:
        """See `CacheNode`."""
        return self._server if isinstance(self._server, str) else "{}:{}".format(*self._server)

    @property
    def value_max_bytes(self) -> int:
        """See `CacheNode`."""
        return min(self._limit or self._piece_bytes, PIECES_MAX * self._piece_bytes)

    @property
    def _piece_bytes(self) -> int:
        """The longest value of one item."""
        if not self._item_max:
            self._item_max = self._do(_item_size_max)
        return self._item_max - OVERHEAD_BYTES

    def load(self, key: str, ttl_s: int | None = None) -> Stored | None:
        """See `CacheNode`."""
        words, data = self._call(f"mg {key} v c f{_longer(ttl_s)}\r\n".encode())
        if words[0] == b"EN":
            return None
        if _flags(words) == FLAGS and (pieces := Pieces.read(data)) is not None:
            return self._load_pieces(key, pieces, _cas(words), ttl_s)
        return Stored(data, _cas(words))

    def _load_pieces(
        self, key: str, pieces: Pieces, version: int, ttl_s: int | None
    ) -> Stored | None:
        longer = _longer(_outliving(ttl_s))
        for _ in range(READS_MAX):
            found = []
            for name in pieces.keys(key):
                words, data = self._call(f"mg {name} v c{longer}\r\n".encode())
                if words[0] == b"EN":
                    break
                found.append(data)
            whole = b"".join(found)
            if len(found) == pieces.number and len(whole) == pieces.length:
                self._remember(key, version, pieces)
                return Stored(whole, version)
            words, data = self._call(f"mg {key} v c f\r\n".encode())
            if words[0] == b"EN":
                return None
            is_same, version = _cas(words) == version, _cas(words)
            if is_same:
                # A piece was evicted. What is left would stand in the way of a new copy.
                self.delete(key, expected=version)
                self._remove(key, pieces)
                return None
            other = Pieces.read(data) if _flags(words) == FLAGS else None
            if other is None:
                return Stored(data, version)
            pieces = other
        raise StoreError(f"{self.address}: a session is replaced faster than it can be read")

    def peek(self, key: str, ttl_s: int | None = None) -> int | None:
        """See `CacheNode`."""
        words, _ = self._call(f"mg {key} c f{_longer(ttl_s)}\r\n".encode())
        if words[0] == b"EN":
            return None
        if ttl_s is not None and _flags(words) == FLAGS:
            # Its pieces are to live as long; one that is missing makes it a value that is lost.
            found = self.load(key, ttl_s)
            return None if found is None else found.version
        return _cas(words)

    def save(self, key: str, data: bytes, *, expected: int, ttl_s: int) -> int:
        """See `CacheNode`."""
        check_size(self.address, data, self.value_max_bytes)
        old = self._lists.get(key)
        pieces = None
        if len(data) <= self._piece_bytes:
            version = self._store(key, data, expected, ttl_s)
        else:
            pieces = Pieces.of(data, self._piece_bytes)
            version = self._store_pieces(key, data, pieces, expected, ttl_s)
        if not version:
            raise StoreConflictError(f"{self.address} has another version of the session")
        if pieces is not None:
            self._remember(key, version, pieces)
        elif old is not None:
            self._lists.pop(key, None)
        if old is not None and old[0] == expected:
            self._remove(key, old[1])
        return version

    def _store_pieces(
        self, key: str, data: bytes, pieces: Pieces, expected: int, ttl_s: int
    ) -> int:
        """Write pieces, then their list if what it replaces is as expected; 0: it is not."""
        life, size = _outliving(ttl_s), self._piece_bytes
        assert life is not None
        for number, name in enumerate(pieces.keys(key)):
            if not self._store(name, data[number * size : (number + 1) * size], 0, life):
                raise StoreError(f"{self.address} has a piece of that name already")
        version = self._store(key, pieces.pack(), expected, ttl_s, FLAGS)
        if not version:
            # Only then: after an error nobody knows whether the list is there.
            self._remove(key, pieces)
        return version

    def _remember(self, key: str, version: int, pieces: Pieces) -> None:
        with self._lock:
            self._lists[key] = (version, pieces)
            self._lists.move_to_end(key)
            if len(self._lists) > LISTS_MAX:
                self._lists.popitem(last=False)

    def _remove(self, key: str, pieces: Pieces) -> None:
        """Remove pieces that nobody needs; if the server does not, their time ends them."""
        try:
            for name in pieces.keys(key):
                self._call(f"md {name}\r\n".encode())
        except StoreError:
            return

    def _store(self, key: str, data: bytes, expected: int, ttl_s: int, flags: int = 0) -> int:
        """Write a value that is as expected; 0: it is not."""
        condition = f"C{expected}" if expected else "ME"
        if flags:
            condition += f" F{flags}"
        life = expiry_of(ttl_s, time.time())
        head = f"ms {key} {len(data)} {condition} T{life} c\r\n".encode()
        words, _ = self._call(b"".join((head, data, b"\r\n")))
        return _cas(words) if words[0] == b"HD" else 0

    def delete(self, key: str, *, expected: int | None = None) -> bool:
        """See `CacheNode`."""
        condition = "" if expected is None else f" C{expected}"
        words, _ = self._call(f"md {key}{condition}\r\n".encode())
        is_deleted = words[0] == b"HD"
        if is_deleted and (old := self._lists.pop(key, None)) is not None:
            self._remove(key, old[1])
        return is_deleted

    def lock(self, key: str, token: str, ttl_s: int) -> int:
        """See `CacheNode`."""
        # One more: of the server's seconds the first one may be nearly over.
        held = self._store(key, token.encode(), 0, ttl_s + 1)
        if held:
            return held
        # It may be ours: of a request whose answer was lost.
        there = self.load(key)
        return there.version if there is not None and there.data == token.encode() else 0

    def renew(self, key: str, token: str, held: int, ttl_s: int) -> int:
        """See `CacheNode`. Nobody else can have the same version."""
        return self._store(key, token.encode(), held, ttl_s + 1)

    def unlock(self, key: str, token: str, held: int) -> bool:
        """See `CacheNode`."""
        if self.delete(key, expected=held):
            return True
        # Renewed in this very moment, it has another version.
        there = self.load(key)
        is_ours = there is not None and there.data == token.encode()
        return is_ours and self.delete(key, expected=there.version if there else 0)

    def probe(self) -> str:
        """See `CacheNode`."""
        connection = self._connect()
        try:
            return str(connection.version(), "ascii", "replace")
        except (OSError, MemcacheError, ValueError) as why:
            raise StoreNodeError(f"{self.address}: {_reason(why)}") from why
        finally:
            connection.close()

    def start_over(self) -> None:
        """See `CacheNode`."""
        self._lock = threading.Lock()
        for connection in self._idle:
            if connection.sock is not None:
                os.close(connection.sock.detach())
                connection.sock = None
        self._idle = deque()

    def close(self) -> None:
        """See `CacheNode`."""
        with self._lock:
            idle, self._idle = self._idle, deque()
            self._generation += 1
        for connection in idle:
            connection.close()

    def _connect(self) -> _Connection:
        return _Connection(
            self._server,
            connect_timeout=self._timeout_s,
            timeout=self._timeout_s,
            no_delay=not isinstance(self._server, str),
            tls_context=self._tls,
            default_noreply=False,
        )

    def _call(self, request: bytes) -> tuple[list[bytes], bytes]:
        return self._do(lambda connection: connection.call(request))

    def _do(self, work: Callable[[_Connection], _T]) -> _T:
        """Do something on a connection; once more on a new one if the server had closed it."""
        while True:
            generation = self._generation
            try:
                connection = self._idle.pop()
                is_new = False
            except IndexError:
                connection, is_new = self._connect(), True
            try:
                done = work(connection)
            except TimeoutError as why:
                connection.close()
                raise StoreNodeError(f"{self.address} does not answer in time") from why
            except (OSError, MemcacheError, ValueError, IndexError) as why:
                connection.close()
                if is_new or not isinstance(why, OSError | MemcacheUnexpectedCloseError):
                    raise _failure(self.address, why) from why
                self.close()  # The others are as old.
                continue
            except BaseException:
                connection.close()
                raise
            with self._lock:
                if generation == self._generation and len(self._idle) < IDLE_CONNECTIONS_MAX:
                    self._idle.append(connection)
                    return done
            connection.close()
            return done


def _failure(address: str, why: Exception) -> StoreError:
    """Tell a server that is not there from one that does not want to."""
    said = f"{address}: {_reason(why)}"
    if isinstance(why, OSError | MemcacheUnexpectedCloseError):
        return StoreNodeError(said)
    return StoreLimitError(said) if "too large" in said else StoreError(said)


def _item_size_max(connection: _Connection) -> int:
    settings = connection.stats("settings")
    value = settings.get(b"item_size_max", ITEM_MAX_BYTES)
    return int(value)


def _longer(ttl_s: int | None) -> str:
    return "" if ttl_s is None else f" T{expiry_of(ttl_s, time.time())}"


def _outliving(ttl_s: int | None) -> int | None:
    """How long a piece lives whose list lives for so long."""
    return ttl_s + PIECES_OUTLIVE_S if ttl_s is not None and ttl_s > 0 else ttl_s


def _flags(words: list[bytes]) -> int:
    return next((int(word[1:]) for word in words if word[:1] == b"f"), 0)


def _cas(words: list[bytes]) -> int:
    return next(int(word[1:]) for word in words if word[:1] == b"c")


def _reason(why: BaseException) -> str:
    lines = str(why).splitlines() or [type(why).__name__]
    return lines[0][:200]
