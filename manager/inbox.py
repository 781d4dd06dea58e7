"""Where request threads leave their commits for the core (DESIGN §5.4, "Backpressure").

Nothing blocks and nothing is lost: a commit that finds the inbox full leaves the key of its session
instead of its delta, and the core later sends the merged record from the table.  Who can wait may
ask for room before it commits (`Inbox.wait_for_room`).  The inbox wakes the core once when it gets
its first content, not once per commit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, final

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

__all__ = [
    "BATCH_ENTRIES",
    "COMMIT_OVERHEAD_BYTES",
    "INBOX_MAX_BYTES",
    "Batch",
    "Commit",
    "CommitResult",
    "Inbox",
    "Question",
    "Waiter",
    "Wakes",
    "resolve_all",
]

INBOX_MAX_BYTES: Final = 8 * 1024 * 1024

BATCH_ENTRIES: Final = 4096
"""Commits that one `Inbox.take` gives at most, so that the core sees to its network in between."""

OVERFLOWED_MAX: Final = 10_000
"""Waiters of commits that found no room; further ones are told so at once."""

HELD_BACK_MAX: Final = 10_000
"""Requests that may wait for room; further ones commit at once."""

COMMIT_OVERHEAD_BYTES: Final = 256
"""What a waiting commit is counted for beyond its delta: the objects around it."""

_FREE_SHARE: Final = 16
"""An inbox counts as full when less than this part of it is free: a sixteenth."""


@final
@dataclass(frozen=True, slots=True)
class CommitResult:
    """What became of a commit at the other members.

    If ``missing`` is empty, the write survives any ``len(acked)`` crashes: this node and the
    members in ``acked`` have it, and any one that is left brings it to every member that joins.

    Attributes:
        version: The hlc of the commit; 0 when nothing was written.
        acked: Names of the members that have it; none when the send options do not wait.
        missing: The members that should have it and did not say so, each with the reason.
    """

    version: int
    acked: tuple[str, ...]
    missing: Mapping[str, str]

    @property
    def replicated(self) -> bool:
        """True when no member is missing: the write survives any ``len(acked)`` crashes."""
        return not self.missing


class Waiter(Protocol):
    """Somebody who waits for a commit's result."""

    def resolve(self, result: CommitResult) -> Callable[[], None] | None:
        """Called in the core's thread, once; must not block.

        Returns:
            What wakes the waiter, to be called when all results of the moment are out, once for
            however many waiters return an equal one; None: it needs no waking.
        """


@final
@dataclass(slots=True)
class Commit:
    """One change of one session, on its way to the other members.

    Attributes:
        context: The web application.
        key: The session's key.
        version: The hlc of the change.
        delta: The change as a record in wire form; its age is as of the commit.
        waiter: Gets the result, unless nobody wants it.
        trace: The span that it belongs to; empty: none.
    """

    context: str
    key: str
    version: int
    delta: bytes
    waiter: Waiter | None = None
    trace: bytes = b""


@final
@dataclass(slots=True)
class Question:
    """A request that needs a session which is not here, or not with what its client has written.

    Attributes:
        context: The web application.
        session_id: Any id of the session.
        hlc: The write that must be in it; 0: it is the session that is not here.
        actor: Who made that write.
        waiter: Told when the table has it, or that it is not to be had: then `CommitResult.version`
            is 0.
    """

    context: str
    session_id: str
    hlc: int
    actor: int
    waiter: Waiter


@final
class Wakes:
    """The event loops to wake when the work of the moment is done, each once.

    Whoever collects in it calls it in the end, whatever happened: a loop that counts on being woken
    would sleep for ever.
    """

    __slots__ = ("_wakes",)

    def __init__(self) -> None:
        self._wakes: dict[Callable[[], None], None] = {}

    def __len__(self) -> int:
        return len(self._wakes)

    def tell(self, waiter: Waiter, result: CommitResult) -> None:
        """Tell a waiter its result, and note what wakes it."""
        wake = waiter.resolve(result)
        if wake is not None:
            self._wakes[wake] = None

    def __call__(self) -> None:
        """Wake them."""
        while self._wakes:
            wakes, self._wakes = self._wakes, {}
            for wake in wakes:
                wake()


def resolve_all(
    commits: Iterable[Commit],
    acked: tuple[str, ...],
    missing: Mapping[str, str],
    wakes: Wakes | None = None,
) -> None:
    """Tell the waiters of some commits their common outcome.

    Args:
        commits: Whose waiters.
        acked: The members that have them.
        missing: Those that should, and why they do not.
        wakes: Gets the event loops to wake; None: each is woken once, before this returns.
    """
    collected = Wakes() if wakes is None else wakes
    try:
        for commit in commits:
            waiter, commit.waiter = commit.waiter, None
            if waiter is not None:
                collected.tell(waiter, CommitResult(commit.version, acked, missing))
    finally:
        if wakes is None:
            collected()


@dataclass(slots=True)
class Batch:
    """What an inbox held, as the core takes it.

    Attributes:
        commits: Oldest first.
        overflowed: Commits without deltas whose waiters wait for a merged record.
        dirty: By context, the keys whose merged records must be sent from the table.
        questions: Of requests that need a session.
    """

    commits: list[Commit]
    overflowed: list[Commit]
    dirty: dict[str, list[str]]
    questions: list[Question] = field(default_factory=list)


_ROOM: Final = CommitResult(0, (), {})
"""What requests are told that were held back."""


@final
class Inbox:
    """Commits between the request threads and the core's thread.

    The core's side: after each wake-up, ``drain`` until it returns nothing, then ``take_dirty`` and
    ``take_overflowed`` (``take`` does all three).  The ``drain`` that leaves nothing disarms; the
    next content wakes again.

    Args:
        lock: Guards everything; held for a few instructions.
        max_bytes: Bound of the deltas that wait, each counted `COMMIT_OVERHEAD_BYTES` longer.
        wake: See the property.

    Attributes:
        appended: Commits that found room.
        overflowed: Commits that found none; their keys went to the dirty keys.
        waited: Requests that were held back before their commit.
        peak_bytes: The most that ever waited.
    """

    __slots__ = (
        "_commits",
        "_dirty",
        "_full_bytes",
        "_held_back",
        "_is_armed",
        "_lock",
        "_overflowed",
        "_questions",
        "_wake",
        "appended",
        "bytes",
        "max_bytes",
        "overflowed",
        "peak_bytes",
        "waited",
    )

    def __init__(
        self,
        lock: AbstractContextManager[Any],
        *,
        max_bytes: int = INBOX_MAX_BYTES,
        wake: Callable[[], None] | None = None,
    ) -> None:
        self._lock = lock
        self.max_bytes = max_bytes
        self._full_bytes = max_bytes - max(max_bytes // _FREE_SHARE, COMMIT_OVERHEAD_BYTES)
        self._commits: deque[Commit] = deque()
        self._dirty: dict[tuple[str, str], None] = {}
        self._overflowed: list[Commit] = []
        self._held_back: list[Waiter] = []
        self._questions: list[Question] = []
        self._wake = wake
        self._is_armed = False
        self.appended = 0
        self.overflowed = 0
        self.waited = 0
        self.bytes = 0
        self.peak_bytes = 0

    def __len__(self) -> int:
        return len(self._commits)

    @property
    def dirty(self) -> set[tuple[str, str]]:
        """The (context, key) of the sessions whose deltas found no room."""
        with self._lock:
            return set(self._dirty)

    @property
    def wake(self) -> Callable[[], None] | None:
        """Called, in the committing thread, when the inbox gets its first content.

        Must not block or raise.  While it is None the inbox only collects; whoever sets it drains
        once by himself, since what came before woke nobody.
        """
        return self._wake

    @wake.setter
    def wake(self, wake: Callable[[], None] | None) -> None:
        with self._lock:
            self._wake = wake
            self._is_armed = False

    @property
    def is_full(self) -> bool:
        """Whether a commit might find no room.

        A little before it is so: else, with the last bytes free, commits that are longer than these
        would go by as fast as requests make them, and nobody be held back.
        """
        return self.bytes > self._full_bytes

    def wait_for_room(self, waiter: Waiter) -> bool:
        """Ask to be told when the inbox is half empty.

        Returns:
            False when there is nothing to wait for: there is room, or nobody empties this inbox, or
            too many wait.
        """
        with self._lock:
            is_vain = self._wake is None or len(self._held_back) >= HELD_BACK_MAX
            if is_vain or not self.is_full:
                return False
            self.waited += 1
            self._held_back.append(waiter)
            return True

    def ask(self, question: Question) -> bool:
        """Leave a question; False, and its waiter is told nothing, when nobody would answer it."""
        with self._lock:
            if self._wake is None or len(self._questions) >= HELD_BACK_MAX:
                return False
            self._questions.append(question)
            must_wake, self._is_armed = not self._is_armed, True
        if must_wake:
            self.call_wake()
        return True

    def append(self, commit: Commit) -> None:
        """Leave a commit and wake the core if need be."""
        if self.put(commit):
            self.call_wake()

    def put(self, commit: Commit) -> bool:
        """Leave a commit; return whether the caller must `call_wake`, outside its own locks."""
        with self._lock:
            total = self.bytes + len(commit.delta) + COMMIT_OVERHEAD_BYTES
            if total <= self.max_bytes:
                self._commits.append(commit)
                self.appended += 1
                self.bytes = total
                if total > self.peak_bytes:
                    self.peak_bytes = total
            else:
                self.overflowed += 1
                self._dirty[commit.context, commit.key] = None
                if commit.waiter is not None and len(self._overflowed) < OVERFLOWED_MAX:
                    commit.delta = b""
                    self._overflowed.append(commit)
                elif commit.waiter is not None:
                    # Nobody seems to empty this inbox: its core is not running.
                    why = {"*": "the inbox is full and the channel does not empty it"}
                    resolve_all((commit,), (), why)
            if self._is_armed or self._wake is None:
                return False
            self._is_armed = True
            return True

    def call_wake(self) -> None:
        """Wake the core, as a `put` that returned True demands."""
        if self._wake is not None:
            self._wake()

    def drain(self, limit_entries: int) -> list[Commit]:
        """Take up to ``limit_entries`` commits, oldest first; empty when there are none."""
        with self._lock:
            commits = self._commits
            if len(commits) <= limit_entries:
                batch = list(commits)
                commits.clear()
                self._is_armed = False
                self.bytes = 0
            else:
                batch = [commits.popleft() for _ in range(limit_entries)]
                self.bytes -= sum(len(commit.delta) for commit in batch)
                self.bytes -= COMMIT_OVERHEAD_BYTES * len(batch)
            if not self._held_back or self.bytes > self.max_bytes // 2:
                return batch
            held_back, self._held_back = self._held_back, []
        wakes = Wakes()
        for waiter in held_back:
            wakes.tell(waiter, _ROOM)
        wakes()
        return batch

    def take(self, limit_entries: int = BATCH_ENTRIES) -> Batch | None:
        """Take up to ``limit_entries`` commits and all that found no room; None when empty."""
        commits = self.drain(limit_entries)
        overflowed = self.take_overflowed() if self._overflowed else []
        dirty = self.take_dirty() if self._dirty else {}
        questions: list[Question] = []
        if self._questions:
            with self._lock:
                questions, self._questions = self._questions, []
        if not (commits or overflowed or dirty or questions):
            return None
        return Batch(commits, overflowed, dirty, questions)

    def take_dirty(self) -> dict[str, list[str]]:
        """Take the keys, by context, whose merged records must be sent from the table."""
        with self._lock:
            dirty, self._dirty = self._dirty, {}
        keys: dict[str, list[str]] = {}
        for context, key in dirty:
            keys.setdefault(context, []).append(key)
        return keys

    def take_overflowed(self) -> list[Commit]:
        """Take the commits, without deltas, whose waiters wait for such a merged record."""
        with self._lock:
            overflowed, self._overflowed = self._overflowed, []
        return overflowed
