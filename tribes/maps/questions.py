"""Using entries of a lazy map from where they do not lie: asking the holders, and answering.

Who does not hold a partition asks its holders in their order, each for `TRY_S` at first, so one
hung member costs little. A member that has not got all of the partition yet says so. Then all are
asked again, with more patience, as long as there is time.

A write that nobody answers is tried at the next holder, and may then have been done twice; the
second has the later version.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tribes.errors import (
    ChannelClosedError,
    LocalProtocolError,
    MemberUnreachableError,
    QueueFullError,
    RemoteProtocolError,
)
from tribes.manager.inbox import CommitResult
from tribes.maps.lazy_messages import Get, MapReply, Put, decode_reply, decode_request
from tribes.maps.placement import partition_of_entry
from tribes.rpc.calls import RpcMode
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from tribes.channel.core import ChannelCore
    from tribes.maps.manager import MapManager
    from tribes.rpc.calls import RpcResult
    from tribes.rpc.core import RpcCore
    from tribes.wire.member import Member
    from tribes.wire.rpc import RpcEnvelope

__all__ = ["TRY_S", "LazyParts", "Questions"]

TRY_S: Final = 0.2
"""How long a holder is waited for before the next one is asked."""

ASKED_MAX: Final = 8
"""Members asked for one entry: the holders, then those who may still hold it after a change."""

ASKS_MAX: Final = 4096
"""Questions that this member has open at once; one more is an error of its caller."""

_AGAIN_S: Final = 0.1

_USE_ACK = int(SendOptions.USE_ACK)


@dataclass(slots=True)
class LazyParts:
    """What the core and the users' threads share of one lazy map.

    Attributes:
        presence: A context without entries, by which members find out who has the map.
        copies: Backups of each entry.
        make: Makes the manager of a partition.
        held: The partitions that lie here; threads read it, the core changes it.
    """

    presence: MapManager
    copies: int
    make: Callable[[int], MapManager]
    held: dict[int, MapManager] = field(default_factory=dict)

    @property
    def rpc_id(self) -> bytes:
        """Of the RPC channel on which members ask each other."""
        return self.presence.context.encode()


class _Ask:
    """One question, put to whoever may hold the entry, until one of them knows or time is over."""

    __slots__ = ("deadline", "done", "left", "patience", "request", "why")

    def __init__(
        self,
        request: Get | Put,
        deadline: float,
        done: Callable[[MapReply | Exception], None],
    ) -> None:
        self.request = request
        self.deadline = deadline
        self.done = done
        self.patience = TRY_S
        self.left: list[Member] = []
        self.why: dict[str, str] = {}


class Questions:
    """What members of one lazy map ask each other, and reply.

    Args:
        parts: What lies here.
        order: The members that have the map, for a partition, its holders first.
        channel: Gives the local member and timers.
        rpc: By which members ask each other.
    """

    takes_requests = True
    takes_left_over = False

    def __init__(
        self,
        parts: LazyParts,
        order: Callable[[int], list[Member]],
        *,
        channel: ChannelCore,
        rpc: RpcCore,
    ) -> None:
        self.parts = parts
        self._order = order
        self._channel = channel
        self._rpc = rpc
        self._asks: dict[_Ask, None] = {}

    def ask(
        self,
        request: Get | Put,
        timeout: float,
        now: float,
        done: Callable[[MapReply | Exception], None],
    ) -> None:
        """Ask the holders of an entry.

        Args:
            request: What to ask.
            timeout: Seconds, for all of them together.
            now: Monotonic seconds.
            done: Gets the reply, `MemberUnreachableError` when nobody who has it replied, or
                `LocalProtocolError` when it cannot be written here. Called inside the core.

        Raises:
            QueueFullError: `ASKS_MAX` questions are open.
        """
        if len(self._asks) >= ASKS_MAX:
            raise QueueFullError(f"{ASKS_MAX} questions to members with the map are open already")
        ask = _Ask(request, now + timeout, done)
        self._asks[ask] = None
        self._ask_all(ask, now)

    def stop(self) -> None:
        """Tell all who wait that the channel was stopped."""
        for ask in list(self._asks):
            self._finish(ask, ChannelClosedError("the channel was stopped"))

    def _finish(self, ask: _Ask, reply: MapReply | Exception) -> None:
        if ask in self._asks:
            del self._asks[ask]
            ask.done(reply)

    def _ask_all(self, ask: _Ask, now: float) -> None:
        """Look here, then go through the others; again, with more patience, while there is time."""
        if ask not in self._asks or self._take_local(ask):
            return
        local, order = self._channel.local, self._order(partition_of_entry(ask.request.name))
        ask.left = [member for member in order if member != local][:ASKED_MAX]
        self._ask_next(ask, now)

    def _take_local(self, ask: _Ask) -> bool:
        request = ask.request
        manager = self.parts.held.get(partition_of_entry(request.name))
        if manager is None or not _knows(manager, request):
            return False
        reply = _done_at_once(manager, request)
        if reply is not None:
            self._finish(ask, reply)
        else:
            assert isinstance(request, Put)
            waiter = _Waiter(lambda result: self._finish(ask, MapReply(result=result)))
            try:
                manager.write(request.name, request.value, waiter)
            except LocalProtocolError as error:
                self._finish(ask, error)
        return True

    def _ask_next(self, ask: _Ask, now: float) -> None:
        left = ask.deadline - now
        if ask not in self._asks:
            return
        if left <= 0:
            why = "; ".join(f"{name}: {text}" for name, text in ask.why.items())
            error = MemberUnreachableError(f"no member gave the entry: {why or 'there is none'}")
            self._finish(ask, error)
            return
        if not ask.left:
            # Members that join, or that had little time: soon again.
            ask.patience *= 2
            self._channel.timers.at(
                min(now + _AGAIN_S, ask.deadline), lambda then: self._ask_all(ask, then)
            )
            return
        target = ask.left.pop(0)

        def replied(result: RpcResult) -> None:
            reply = _reply_in(result)
            if reply is not None and reply.is_here:
                self._finish(ask, reply)
                return
            ask.why[target.label] = "it does not hold it now"
            for error in result.missing.values():
                ask.why[target.label] = f"{type(error).__name__}: {error}"
            # Not from within: a member that is known not to answer is told of at once.
            self._channel.timers.at(self._channel.now, lambda then: self._ask_next(ask, then))

        try:
            self._rpc.call(
                self.parts.rpc_id,
                (target,),
                ask.request.encode(),
                mode=RpcMode.FIRST_REPLY,
                timeout=min(ask.patience, left),
                options=_USE_ACK,
                now=now,
                done=replied,
            )
        except QueueFullError as error:
            self._finish(ask, error)

    # Answering.

    def handle(self, source: Member, envelope: RpcEnvelope, now: float) -> None:
        """Another member asks for an entry.

        Raises:
            RemoteProtocolError: The request is malformed, or wants what cannot be done.
        """
        request = decode_request(envelope.body())
        manager = self.parts.held.get(partition_of_entry(request.name))
        if manager is None or not _knows(manager, request):
            self._answer(source, envelope, MapReply(is_here=False), now)
            return
        reply = _done_at_once(manager, request)
        if reply is not None:
            self._answer(source, envelope, reply, now)
            return
        assert isinstance(request, Put)

        def told(result: CommitResult) -> None:
            acked = (self._channel.local.label, *result.acked)
            whole = CommitResult(result.version, acked, result.missing)
            self._answer(source, envelope, MapReply(result=whole), self._channel.now)

        try:
            manager.write(request.name, request.value, _Waiter(told))
        except LocalProtocolError as error:
            # What stands under this name came from another member, not from this program.
            raise RemoteProtocolError(str(error)) from error

    def _answer(self, source: Member, envelope: RpcEnvelope, reply: MapReply, now: float) -> None:
        self._rpc.answer(source, envelope, reply.encode(), options=0, now=now)


class _Waiter:
    """Waits, in the core, for the other holders of an entry."""

    __slots__ = ("_tell",)

    def __init__(self, tell: Callable[[CommitResult], None]) -> None:
        self._tell = tell

    def resolve(self, result: CommitResult) -> None:
        """Called in the core, once."""
        self._tell(result)


def _knows(manager: MapManager, request: Get | Put) -> bool:
    """Whether a holder may answer: it has the entry, or all that there is.

    To write it must have all: else its version might be older than one that it has not seen.
    """
    return manager.is_joined or (
        isinstance(request, Get) and manager.entry_of(request.name) is not None
    )


def _done_at_once(manager: MapManager, request: Get | Put) -> MapReply | None:
    """The reply that needs no waiting; None for a write that is to be done."""
    entry = manager.entry_of(request.name)
    if isinstance(request, Get):
        return MapReply(value=None if entry is None else entry.value)
    if entry is not None:
        return None
    if request.value is None:
        return MapReply()
    return MapReply(is_full=True) if manager.table.live >= manager.max_entries else None


def _reply_in(result: RpcResult) -> MapReply | None:
    for body in result.bodies:
        try:
            return decode_reply(body)
        except RemoteProtocolError:
            return None
    return None
