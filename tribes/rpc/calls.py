"""One request to some members: who has replied, who never will, and when that is enough."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, TypeAlias

from tribes.errors import NoRpcChannelError
from tribes.wire.java import JavaValue

if TYPE_CHECKING:
    from tribes.timers import Timer
    from tribes.wire.member import Member

__all__ = ["RpcBody", "RpcCall", "RpcMode", "RpcReply", "RpcResult"]

RpcBody: TypeAlias = JavaValue
"""What a request or a reply holds: bytes, text, a number of up to 64 bits, or None."""


class RpcMode(IntEnum):
    """How many replies a call waits for (Tomcat's numbers)."""

    FIRST_REPLY = 1
    """The first one."""
    MAJORITY_REPLY = 2
    """Those of half of the members that have the channel, as in Tomcat: of two, one is enough."""
    ALL_REPLY = 3
    """One of each member."""
    NO_REPLY = 4
    """None: returns when the request was sent as its options say."""


@dataclass(frozen=True, slots=True)
class RpcReply:
    """What one member replied."""

    source: Member
    body: RpcBody


@dataclass(frozen=True, slots=True)
class RpcResult:
    """The outcome of a call.

    Attributes:
        replies: In the order in which they arrived.
        missing: The members without a reply, and why. They may have done what was asked all the
            same: a request or its reply can be late or lost.
        is_complete: As many members replied as the mode asks for. Members without such an RPC
            channel don't count.
    """

    replies: tuple[RpcReply, ...] = ()
    missing: Mapping[Member, Exception] = field(default_factory=dict)
    is_complete: bool = True

    @property
    def bodies(self) -> list[RpcBody]:
        """What the replies hold."""
        return [reply.body for reply in self.replies]


class RpcCall:
    """A call that waits for its replies.

    Args:
        rpc_id: Of the channel.
        destinations: Who was asked.
        mode: Not ``NO_REPLY``.
        done: Told the result, once, inside the core.
    """

    __slots__ = ("_done", "_missing", "_mode", "_pending", "_replies", "rpc_id", "timer")

    def __init__(
        self,
        rpc_id: bytes,
        destinations: Iterable[Member],
        mode: RpcMode,
        done: Callable[[RpcResult], None],
    ) -> None:
        self.rpc_id = rpc_id
        self.timer: Timer | None = None
        self._mode = mode
        self._done = done
        self._pending = dict.fromkeys(destinations)
        self._replies: list[RpcReply] = []
        self._missing: dict[Member, Exception] = {}

    def waits_for(self, member: Member) -> bool:
        """Whether this member may still reply."""
        return member in self._pending

    def reply(self, source: Member, body: RpcBody) -> None:
        """A member that the call waits for has replied."""
        del self._pending[source]
        self._replies.append(RpcReply(source, body))

    def lose(self, member: Member, why: Exception) -> None:
        """A member will not reply, or nobody waits for it any more."""
        if member in self._pending:
            del self._pending[member]
            self._missing[member] = why

    @property
    def is_over(self) -> bool:
        """True when there are enough replies, or nobody is left who could reply."""
        return not self._pending or (self._mode is not RpcMode.ALL_REPLY and self._is_enough)

    @property
    def _is_enough(self) -> bool:
        without = sum(isinstance(why, NoRpcChannelError) for why in self._missing.values())
        expected = len(self._replies) + len(self._pending) + len(self._missing) - without
        match self._mode:
            case RpcMode.FIRST_REPLY:
                return len(self._replies) >= min(1, expected)
            case RpcMode.MAJORITY_REPLY:
                return 2 * len(self._replies) >= expected
            case _:
                return len(self._replies) == expected

    def end(self, why: Callable[[Member], Exception]) -> None:
        """Tell the result as it is now.

        Args:
            why: Says what to tell of the members that have not replied.
        """
        if self.timer is not None:
            self.timer.cancel()
        is_enough = self._is_enough
        missing = self._missing | {member: why(member) for member in self._pending}
        self._done(RpcResult(tuple(self._replies), missing, is_enough))
