"""One Redis or Valkey server, or what stands for one (a proxy, a managed service), by redis-py.

A value is eight random bytes, its version, and the data.  What must be one step on the server,
comparing and writing, is a script there.

redis-py makes the connections, and reads and writes them; its client and its pool are left out,
which cost more per command than a session of 2 kB does here.

**A connection with a half-read answer is closed**, whatever the reason: the next request would get
another user's session from it.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from hashlib import sha1
from typing import Any, Final, Protocol, cast, final
from urllib.parse import urlsplit

from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoScriptError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from tribes.errors import StoreConflictError, StoreError, StoreNodeError

from .protocol import VALUE_MAX_BYTES, Stored, check_size

__all__ = ["RedisNode"]

IDLE_CONNECTIONS_MAX: Final = 64
TTL_MAX_S: Final = 10 * 365 * 24 * 3600
"""Ten years: Redis refuses what overflows its clock."""

_VERSION_BYTES: Final = 8


@final
class _Script:
    """What runs on the server in one step; sent once, named by its digest from then on."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = sha1(text.encode()).hexdigest()  # noqa: S324 - as Redis names scripts


_SAVE: Final = _Script("""
if redis.call('GETRANGE', KEYS[1], 0, 7) ~= ARGV[1] then return 0 end
if ARGV[3] == '0' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end
return 1
""")
_PEEK: Final = _Script("""
local version = redis.call('GETRANGE', KEYS[1], 0, 7)
if version ~= '' and ARGV[1] ~= '' then
  if ARGV[1] == '0' then redis.call('PERSIST', KEYS[1])
  else redis.call('EXPIRE', KEYS[1], ARGV[1]) end
end
return version
""")
_DELETE: Final = _Script("""
if redis.call('GETRANGE', KEYS[1], 0, 7) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")
_RENEW: Final = _Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('EXPIRE', KEYS[1], ARGV[2])
""")
_UNLOCK: Final = _Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")


class _Connection(Protocol):
    """What is used of redis-py's connections, which have no types."""

    def send_command(self, *words: bytes | str | int) -> None: ...
    def read_response(self) -> object: ...
    def disconnect(self) -> None: ...


@final
class RedisNode:
    """See `tribes.stores.cache.CacheNode`.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with user, password and database.
        timeout_s: Seconds that an answer, and a connection, may take.
        value_max_bytes: A longer value is refused; 0: 16 MiB.
        options: Further arguments of redis-py's connections, such as ``ssl_ca_certs``.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 0.15,
        value_max_bytes: int = 0,
        options: dict[str, Any] | None = None,
    ) -> None:
        parts = urlsplit(url)
        self._address = parts.path if parts.scheme == "unix" else parts.netloc.rpartition("@")[2]
        self._url = url
        self._timeout_s = timeout_s
        self.value_max_bytes = value_max_bytes or VALUE_MAX_BYTES
        self._options = options or {}
        self._connect()

    def _connect(self) -> None:
        # It reads the URL; its connections are made here.
        self._pool = ConnectionPool.from_url(
            self._url,
            socket_timeout=self._timeout_s,
            socket_connect_timeout=self._timeout_s,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            **self._options,
        )
        self._lock = threading.Lock()
        self._idle: deque[_Connection] = deque()
        self._generation = 0
        """Connections of an earlier one are closed instead of kept."""

    @property
    def address(self) -> str:
        """See `CacheNode`."""
        return self._address

    def load(self, key: str, ttl_s: int | None = None) -> Stored | None:
        """See `CacheNode`."""
        if ttl_s is None:
            value = self._call("GET", key)
        elif ttl_s <= 0:
            value = self._call("GETEX", key, "PERSIST")
        else:
            value = self._call("GETEX", key, "EX", min(ttl_s, TTL_MAX_S))
        if value is None:
            return None
        data = cast("bytes", value)
        return Stored(data[_VERSION_BYTES:], int.from_bytes(data[:_VERSION_BYTES], "big"))

    def peek(self, key: str, ttl_s: int | None = None) -> int | None:
        """See `CacheNode`."""
        ttl = "" if ttl_s is None else _ttl(ttl_s)
        version = cast("bytes", self._run(_PEEK, key, ttl))
        return int.from_bytes(version, "big") if version else None

    def save(self, key: str, data: bytes, *, expected: int, ttl_s: int) -> int:
        """See `CacheNode`."""
        check_size(self.address, data, self.value_max_bytes)
        version = os.urandom(_VERSION_BYTES)
        if not self._run(_SAVE, key, _version(expected), version + data, _ttl(ttl_s)):
            raise StoreConflictError(f"{self.address} has another version of the session")
        return int.from_bytes(version, "big")

    def delete(self, key: str, *, expected: int | None = None) -> bool:
        """See `CacheNode`."""
        if expected is None:
            return bool(self._call("DEL", key))
        return bool(self._run(_DELETE, key, _version(expected)))

    def lock(self, key: str, token: str, ttl_s: int) -> int:
        """See `CacheNode`."""
        if self._call("SET", key, token, "EX", ttl_s, "NX"):
            return 1
        # It may be ours: of a request whose answer was lost.
        return int(self._call("GET", key) == token.encode())

    def renew(self, key: str, token: str, held: int, ttl_s: int) -> int:
        """See `CacheNode`."""
        del held
        return int(bool(self._run(_RENEW, key, token, ttl_s)))

    def unlock(self, key: str, token: str, held: int) -> bool:
        """See `CacheNode`."""
        del held
        return bool(self._run(_UNLOCK, key, token))

    def probe(self) -> str:
        """See `CacheNode`."""
        connection = self._new()
        try:
            connection.send_command("PING")
            connection.read_response()
        except (RedisError, OSError) as why:
            raise self._failure(why) from why
        finally:
            connection.disconnect()
        return ""

    def start_over(self) -> None:
        """See `CacheNode`. The connections of the old pool know their process."""
        self._connect()

    def close(self) -> None:
        """See `CacheNode`."""
        with self._lock:
            idle, self._idle = self._idle, deque()
            self._generation += 1
        for connection in idle:
            connection.disconnect()

    def _new(self) -> _Connection:
        return cast("_Connection", self._pool.connection_class(**self._pool.connection_kwargs))

    def _run(self, script: _Script, key: str, *arguments: bytes | str | int) -> object:
        try:
            return self._call("EVALSHA", script.digest, 1, key, *arguments)
        except StoreError as why:
            if not isinstance(why.__cause__, NoScriptError):
                raise
        return self._call("EVAL", script.text, 1, key, *arguments)

    def _call(self, *command: bytes | str | int) -> object:
        """Do a command; once more on a new connection if the server had closed the one there."""
        while True:
            generation = self._generation
            try:
                connection, is_new = self._idle.pop(), False
            except IndexError:
                connection, is_new = self._new(), True
            try:
                connection.send_command(*command)
                answer = connection.read_response()
            except (RedisError, OSError) as why:
                connection.disconnect()
                if is_new or not _was_closed(why):
                    raise self._failure(why) from why
                self.close()  # The others are as old.
                continue
            except BaseException:
                connection.disconnect()
                raise
            with self._lock:
                if generation == self._generation and len(self._idle) < IDLE_CONNECTIONS_MAX:
                    self._idle.append(connection)
                    return answer
            connection.disconnect()
            return answer

    def _failure(self, why: Exception) -> StoreError:
        """Tell a server that is not there from one that does not want to."""
        if isinstance(why, RedisTimeoutError | TimeoutError):
            return StoreNodeError(f"{self.address} does not answer in time")
        said = f"{self.address}: {_reason(why)}"
        if isinstance(why, AuthenticationError | ResponseError):
            return StoreError(said)
        is_away = isinstance(why, RedisConnectionError | OSError)
        return StoreNodeError(said) if is_away else StoreError(said)


def _was_closed(why: Exception) -> bool:
    if isinstance(why, RedisTimeoutError | TimeoutError | AuthenticationError):
        return False
    return isinstance(why, RedisConnectionError | OSError)


def _version(number: int) -> bytes:
    return number.to_bytes(_VERSION_BYTES, "big") if number else b""


def _ttl(ttl_s: int) -> str:
    return str(min(max(ttl_s, 0), TTL_MAX_S))


def _reason(why: BaseException) -> str:
    lines = str(why).splitlines() or [type(why).__name__]
    return lines[0][:200]
