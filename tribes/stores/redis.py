"""One Redis or Valkey server, or what stands for one (a proxy, a managed service), by redis-py.

A value is eight random bytes, its version, and the data.  What must be one step on the server,
comparing and writing, is a script there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast, final
from urllib.parse import urlsplit

from redis import BlockingConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from tribes.errors import StoreConflictError, StoreError, StoreNodeError

from .protocol import VALUE_MAX_BYTES, Stored, check_size

__all__ = ["RedisNode"]

CONNECTIONS_MAX: Final = 64
TTL_MAX_S: Final = 10 * 365 * 24 * 3600
"""Ten years: Redis refuses what overflows its clock."""

_VERSION_BYTES: Final = 8

_SAVE: Final = """
if redis.call('GETRANGE', KEYS[1], 0, 7) ~= ARGV[1] then return 0 end
if ARGV[3] == '0' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end
return 1
"""
_PEEK: Final = """
local version = redis.call('GETRANGE', KEYS[1], 0, 7)
if version ~= '' and ARGV[1] ~= '' then
  if ARGV[1] == '0' then redis.call('PERSIST', KEYS[1])
  else redis.call('EXPIRE', KEYS[1], ARGV[1]) end
end
return version
"""
_DELETE: Final = """
if redis.call('GETRANGE', KEYS[1], 0, 7) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
_RENEW: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('EXPIRE', KEYS[1], ARGV[2])
"""
_UNLOCK: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""

_T = TypeVar("_T")


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
        pool = BlockingConnectionPool.from_url(
            self._url,
            max_connections=CONNECTIONS_MAX,
            timeout=self._timeout_s,
            socket_timeout=self._timeout_s,
            socket_connect_timeout=self._timeout_s,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            **self._options,
        )
        self._redis = Redis(connection_pool=pool)
        self._save = self._redis.register_script(_SAVE)
        self._peek = self._redis.register_script(_PEEK)
        self._delete = self._redis.register_script(_DELETE)
        self._renew = self._redis.register_script(_RENEW)
        self._unlock = self._redis.register_script(_UNLOCK)

    @property
    def address(self) -> str:
        """See `CacheNode`."""
        return self._address

    def load(self, key: str, ttl_s: int | None = None) -> Stored | None:
        """See `CacheNode`."""
        if ttl_s is None:
            value = self._do(lambda: self._redis.get(key))
        elif ttl_s <= 0:
            value = self._do(lambda: self._redis.getex(key, persist=True))
        else:
            value = self._do(lambda: self._redis.getex(key, ex=min(ttl_s, TTL_MAX_S)))
        if value is None:
            return None
        data = cast("bytes", value)
        return Stored(data[_VERSION_BYTES:], int.from_bytes(data[:_VERSION_BYTES], "big"))

    def peek(self, key: str, ttl_s: int | None = None) -> int | None:
        """See `CacheNode`."""
        ttl = "" if ttl_s is None else _ttl(ttl_s)
        version = cast("bytes", self._do(lambda: self._peek(keys=[key], args=[ttl])))
        return int.from_bytes(version, "big") if version else None

    def save(self, key: str, data: bytes, *, expected: int, ttl_s: int) -> int:
        """See `CacheNode`."""
        check_size(self.address, data, self.value_max_bytes)
        version = os.urandom(_VERSION_BYTES)
        arguments: list[bytes | str] = [_version(expected), version + data, _ttl(ttl_s)]
        if not self._do(lambda: self._save(keys=[key], args=list(arguments))):
            raise StoreConflictError(f"{self.address} has another version of the session")
        return int.from_bytes(version, "big")

    def delete(self, key: str, *, expected: int | None = None) -> bool:
        """See `CacheNode`."""
        if expected is None:
            return bool(self._do(lambda: self._redis.delete(key)))
        return bool(self._do(lambda: self._delete(keys=[key], args=[_version(expected)])))

    def lock(self, key: str, token: str, ttl_s: int) -> int:
        """See `CacheNode`."""
        if self._do(lambda: self._redis.set(key, token, nx=True, ex=ttl_s)):
            return 1
        # It may be ours: of a request whose answer was lost.
        return int(self._do(lambda: self._redis.get(key)) == token.encode())

    def renew(self, key: str, token: str, held: int, ttl_s: int) -> int:
        """See `CacheNode`."""
        del held
        return int(bool(self._do(lambda: self._renew(keys=[key], args=[token, ttl_s]))))

    def unlock(self, key: str, token: str, held: int) -> bool:
        """See `CacheNode`."""
        del held
        return bool(self._do(lambda: self._unlock(keys=[key], args=[token])))

    def probe(self) -> str:
        """See `CacheNode`."""
        self._do(self._redis.ping)
        return ""

    def start_over(self) -> None:
        """See `CacheNode`. The connections of the old pool know their process."""
        self._connect()

    def close(self) -> None:
        """See `CacheNode`."""
        self._redis.connection_pool.disconnect(inuse_connections=False)

    def _do(self, work: Callable[[], _T]) -> _T:
        """Do something; once more on a new connection if the server had closed the one there."""
        for is_last in (False, True):
            try:
                return work()
            except (RedisTimeoutError, TimeoutError) as why:
                raise StoreNodeError(f"{self.address} does not answer in time") from why
            except (AuthenticationError, ResponseError) as why:
                raise StoreError(f"{self.address}: {_reason(why)}") from why
            except (RedisConnectionError, OSError) as why:
                if is_last:
                    raise StoreNodeError(f"{self.address}: {_reason(why)}") from why
                self.close()  # The others are as old.
            except RedisError as why:
                raise StoreError(f"{self.address}: {_reason(why)}") from why
        raise AssertionError


def _version(number: int) -> bytes:
    return number.to_bytes(_VERSION_BYTES, "big") if number else b""


def _ttl(ttl_s: int) -> str:
    return str(min(max(ttl_s, 0), TTL_MAX_S))


def _reason(why: BaseException) -> str:
    lines = str(why).splitlines() or [type(why).__name__]
    return lines[0][:200]
