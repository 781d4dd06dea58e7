"""Read your writes: what a client has written, as a token that it carries to whichever node.

The token is a version, the hlc and actor of the client's last write, in a second cookie beside the
session's.  It is written only with a write, and only when the answer did not wait until every
member had applied that.  A node whose copy lacks the write waits for it, or fetches it, before the
request sees the session; see :mod:`tribes.manager.fetch`.

The token is no secret and proves nothing.  Whoever forges one makes his own requests wait, for
`ask_max_s` seconds at most, and costs the group one bounded question.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from struct import Struct, error
from typing import TYPE_CHECKING, Final

from tribes.errors import SessionUnreachableError
from tribes.runtime.waiters import ThreadWaiter, async_waiter, running_loop
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tribes.config.model import ManagerConfig
    from tribes.manager.base import SessionManager
    from tribes.manager.inbox import CommitResult

__all__ = [
    "TOKEN_SUFFIX",
    "Written",
    "abring",
    "acks_all",
    "bring",
    "decode_token",
    "encode_token",
]

TOKEN_SUFFIX: Final = "-seen"  # noqa: S105 - no secret, see above
"""Added to the session cookie's name, for the token's."""

Written = tuple[int, int]
"""A write: hlc and actor."""

_TOKEN: Final = Struct(">QI")
_TOKEN_CHARS: Final = 16
_BACKSTOP_S: Final = 0.5
"""The channel's thread answers within that, or it is dead."""

_SYNCHRONIZED = int(SendOptions.USE_ACK | SendOptions.SYNCHRONIZED_ACK)
_ASYNC = int(SendOptions.ASYNCHRONOUS)


def encode_token(hlc: int, actor: int) -> str:
    """The value of the cookie."""
    return urlsafe_b64encode(_TOKEN.pack(hlc, actor)).decode()


def decode_token(text: str) -> Written | None:
    """Read what a client sent; None if that is no token."""
    if len(text) != _TOKEN_CHARS or not text.isascii():
        return None
    try:
        hlc, actor = _TOKEN.unpack(urlsafe_b64decode(text))
    except (Error, ValueError, error):
        return None
    return (hlc, actor) if hlc else None


def acks_all(config: ManagerConfig) -> bool:
    """Whether a commit waits until every member has applied it: then no token is needed."""
    options = config.send_options
    return options & _SYNCHRONIZED == _SYNCHRONIZED and not options & _ASYNC


def bring(manager: SessionManager, session_ids: Iterable[str], written: Written | None) -> None:
    """Have the sessions of a request brought here, as far as they are not; blocks this thread.

    In an event loop, which must not be blocked, nothing is waited for.

    Raises:
        SessionUnreachableError: Those that hold a session do not answer, see `BackupManager`.
    """
    for session_id in manager.wanted(session_ids, written):
        if running_loop() is None:
            waiter = ThreadWaiter()
            if manager.ask(session_id, written, waiter):
                _check(waiter.wait(manager.ask_max_s + _BACKSTOP_S))


async def abring(
    manager: SessionManager, session_ids: Iterable[str], written: Written | None
) -> None:
    """The same in a task of asyncio or trio."""
    for session_id in manager.wanted(session_ids, written):
        waiter = async_waiter()
        if manager.ask(session_id, written, waiter):
            _check(await waiter.wait(manager.ask_max_s + _BACKSTOP_S))


def _check(result: CommitResult | None) -> None:
    if result is not None and result.missing:
        raise SessionUnreachableError("; ".join(result.missing.values()))
