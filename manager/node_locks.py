"""Locks of sessions, for applications that want one request of a session at a time (msm §8.3).

A lock lies beside its session's home copy, with a token that only its holder knows, and is renewed
while the request runs, however long that is.  A holder that was killed renews no more, so its lock
is free after ``expiration``.  What a lock cannot do, mutual exclusion while servers fail, the
conditional saves do: a request that goes on without its lock loses nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, final

from tribes.errors import StoreError, StoreLockedError

if TYPE_CHECKING:
    import re
    from contextlib import AbstractContextManager
    from weakref import ref

    from tribes.stores.ring import Ring, RingNode

    from .held import Held
    from .request_line import RequestLine

__all__ = ["NodeLock", "NodeLocks", "ReadOnlyRequests"]

READ_ONLY_MAX: Final = 1000
MODIFYING_MAX: Final = 50_000
PATTERN_WARNING_AFTER: Final = 1000
"""Requests none of which the pattern has matched, after which that is told."""


@final
@dataclass(eq=False, slots=True)
class NodeLock:
    """One lock that a request of this process holds."""

    node: RingNode
    key: str
    token: str
    held: int
    renewed_at: float
    holder: ref[Held] | None = field(default=None)


@final
class ReadOnlyRequests:
    """Which kinds of requests have been seen to change nothing. For any thread.

    Args:
        lock: Guards both lists.
    """

    def __init__(self, lock: AbstractContextManager[Any]) -> None:
        self._lock = lock
        self._read_only: OrderedDict[str, None] = OrderedDict()
        self._modifying: OrderedDict[str, None] = OrderedDict()

    def is_read_only(self, question: str) -> bool:
        """Whether such requests are known to change nothing."""
        return question in self._read_only and question not in self._modifying

    def learn(self, question: str, *, has_written: bool) -> None:
        """Take note of what a request did. One that wrote counts for ever."""
        with self._lock:
            if has_written:
                self._modifying[question] = None
                self._modifying.move_to_end(question)
                self._read_only.pop(question, None)
                if len(self._modifying) > MODIFYING_MAX:
                    self._modifying.popitem(last=False)
            elif question not in self._modifying:
                self._read_only[question] = None
                self._read_only.move_to_end(question)
                if len(self._read_only) > READ_ONLY_MAX:
                    self._read_only.popitem(last=False)


@final
class NodeLocks:
    """Takes, keeps and releases locks. For any thread.

    Args:
        kind: ``none``, ``all``, ``auto`` or ``pattern``.
        pattern: For the last.
        ring: Where they lie.
        prefix: Stands before every key.
        expiration_s: After how long the lock of a dead process is free.
        wait_s: How long a request waits for one.
        must_have: Without it the request is refused; else it goes on.
        monotonic: Reads the monotonic clock in seconds.
        pause: Waits before the next attempt, of the number given.
        entropy: Returns n random bytes fit for secrets.
        lock: Guards the list of those held.
        on_error: Told what was done in vain.
    """

    def __init__(
        self,
        kind: str,
        pattern: re.Pattern[str] | None,
        ring: Ring,
        *,
        prefix: str,
        expiration_s: int,
        wait_s: float,
        must_have: bool,
        monotonic: Callable[[], float],
        pause: Callable[[int], None],
        entropy: Callable[[int], bytes],
        lock: AbstractContextManager[Any],
        on_error: Callable[[str, Exception], None] | None = None,
    ) -> None:
        self.kind = kind
        self._pattern = pattern
        self._ring = ring
        self._prefix = prefix
        self._expiration_s = expiration_s
        self._wait_s = wait_s
        self._must_have = must_have
        self._monotonic = monotonic
        self._pause = pause
        self._entropy = entropy
        self._lock = lock
        self._on_error = on_error or (lambda verb, error: None)
        self._mine: dict[str, NodeLock] = {}
        self.known = ReadOnlyRequests(lock)
        self.acquired = self.waited = self.timeouts = self.failures = self.lost = self.renewed = 0
        self.wait_total_s = 0.0
        self.asked = self.matched = 0

    def wants(self, request: RequestLine | None, question: str) -> bool:
        """Whether a request locks its session."""
        match self.kind:
            case "all":
                return True
            case "auto":
                is_learned = bool(question) and self.known.is_read_only(question)
                self.matched += is_learned
                return not is_learned
            case "pattern" if request is not None and self._pattern is not None:
                self.asked += 1
                is_match = request.matches(self._pattern)
                self.matched += is_match
                if self.asked == PATTERN_WARNING_AFTER and not self.matched:
                    why = StoreError(f"the pattern has matched none of {self.asked} requests")
                    self._on_error("lock", why)
                return is_match
        return False

    def acquire(self, key: str, home: RingNode | None) -> NodeLock | None:
        """Take the lock of a session; None if it cannot be had, and the request may go on.

        Raises:
            StoreLockedError: Somebody had it all the time, and the request must have it.
        """
        token = self._entropy(16).hex()
        name = f"lock:{self._prefix}{key}"
        began = self._monotonic()
        for attempt in range(1_000_000):
            node = self._node(home)
            if node is None:
                return None
            try:
                held = self._ring.call(
                    node, lambda client: client.lock(name, token, self._expiration_s)
                )
            except StoreError as why:
                self.failures += 1
                self._on_error("lock", why)
                return None
            if held:
                lock = NodeLock(node, name, token, held, self._monotonic())
                with self._lock:
                    self._mine[token] = lock
                    self.acquired += 1
                    self.waited += attempt > 0
                    self.wait_total_s += self._monotonic() - began
                return lock
            if self._monotonic() - began >= self._wait_s:
                break
            self._pause(attempt + 1)
        with self._lock:
            self.timeouts += 1
        if self._must_have:
            raise StoreLockedError(f"another request held the session for {self._wait_s:g} s")
        return None

    def _node(self, home: RingNode | None) -> RingNode | None:
        nodes = (*(() if home is None else (home,)), *self._ring.after(home))
        return next((node for node in nodes if node.is_up), None)

    def release(self, lock: NodeLock) -> None:
        """Give a lock back; a second time, nothing happens."""
        with self._lock:
            if self._mine.pop(lock.token, None) is None:
                return
        try:
            is_released = self._ring.call(
                lock.node, lambda client: client.unlock(lock.key, lock.token, lock.held)
            )
        except StoreError as why:
            self.failures += 1
            self._on_error("unlock", why)
            return
        if not is_released:
            self.lost += 1

    def upkeep(self) -> None:
        """Renew what is held for a third of its time; release what no request holds any more."""
        for lock in list(self._mine.values()):
            if lock.holder is not None and lock.holder() is None:
                self.release(lock)
            elif self._monotonic() - lock.renewed_at >= self._expiration_s / 3:
                self._renew(lock)

    def _renew(self, lock: NodeLock) -> None:
        try:
            held = self._ring.call(
                lock.node,
                lambda client: client.renew(lock.key, lock.token, lock.held, self._expiration_s),
            )
        except StoreError as why:
            self.failures += 1
            self._on_error("renew", why)
            return
        if held:
            lock.held, lock.renewed_at = held, self._monotonic()
            self.renewed += 1
            return
        with self._lock:
            if self._mine.pop(lock.token, None) is not None:
                self.lost += 1

    def start_over(self) -> None:
        """In a forked child: the locks are the parent's."""
        self._mine = {}

    def release_all(self) -> None:
        """At the stop of the process."""
        for lock in list(self._mine.values()):
            self.release(lock)
