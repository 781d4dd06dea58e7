"""Every exception that Tribes raises, in one tree.

::

    TribesError
    ├── ConfigError                  a setting is wrong: says which, where, and what to write
    ├── DiscoveryError               a service that names hosts does not answer, or not properly
    ├── ProtocolError
    │   ├── LocalProtocolError       this program misused an object
    │   └── RemoteProtocolError      a peer sent what the protocol forbids; costs it the connection
    ├── ChannelError
    │   ├── ChannelClosedError       the channel was stopped, here
    │   ├── QueueFullError           a bounded queue stayed full for as long as the caller may wait
    │   ├── SendTimeoutError         a member did not answer in time
    │   ├── MemberSuspectedError     a member does not answer now; nobody waits for it
    │   ├── MemberBehindError        a member reads too slowly; it gets this change later, merged
    │   ├── MemberUnreachableError   no connection to a member (``__cause__`` says why)
    │   ├── NoRpcChannelError        a member has no RPC channel of that id
    │   ├── RemoteProcessError       the member got the message, and its listener failed
    │   └── GroupSendError           some destinations of one send failed; ``faulty`` is exact
    ├── RecordingError               a flight recording cannot be read, or not be run here
    ├── FarmError                    an archive cannot be deployed: its name, its content, its size
    ├── MapFullError                 a replicated map has no room for one more entry
    ├── StoreError                   a session store cannot do what it was asked (``__cause__``)
    │   ├── SessionUnreachableError  the members that hold a session do not answer
    │   ├── StoreConflictError       somebody else has saved or deleted the value meanwhile
    │   ├── StoreDataError           stored bytes are damaged, tampered with or foreign; kept aside
    │   ├── StoreLimitError          a value is too large; nothing was sent, the old copy stays
    │   ├── StoreLockedError         another request holds the session's lock for too long
    │   └── StoreNodeError           a server of several does not answer, or not in time
    └── SessionError
        ├── SessionInvalidError      the session was invalidated or has expired
        ├── SessionLockTimeoutError  another request of the session had its lock for too long
        │   └── SessionInUseError    the same, where none shall wait
        ├── SessionLimitError        a limit of the manager (sessions, sizes) refused it
        ├── SessionNotReplicatedError  a commit is on fewer members than it must be; ``result``
        ├── AttributeNotEncodableError   a value has no registered codec (also a TypeError)
        └── AttributeUnreadableError     stored bytes cannot be decoded here (also a KeyError)

The branches follow what the caller can do: mend the configuration, mend the program, try again or
go on with the members that answered, go on without the store, or treat the session as gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "AttributeNotEncodableError",
    "AttributeUnreadableError",
    "ChannelClosedError",
    "ChannelError",
    "ConfigError",
    "DiscoveryError",
    "FarmError",
    "GroupSendError",
    "LocalProtocolError",
    "MapFullError",
    "MemberBehindError",
    "MemberSuspectedError",
    "MemberUnreachableError",
    "NoRpcChannelError",
    "ProtocolError",
    "QueueFullError",
    "RecordingError",
    "RemoteProcessError",
    "RemoteProtocolError",
    "SendTimeoutError",
    "SessionError",
    "SessionInUseError",
    "SessionInvalidError",
    "SessionLimitError",
    "SessionLockTimeoutError",
    "SessionNotReplicatedError",
    "SessionUnreachableError",
    "StoreConflictError",
    "StoreDataError",
    "StoreError",
    "StoreLimitError",
    "StoreLockedError",
    "StoreNodeError",
    "TribesError",
]


class TribesError(Exception):
    """Base of everything that Tribes raises on purpose."""


class RecordingError(TribesError):
    """A flight recording cannot be read, or not be run by this release; the text says why."""


class ConfigError(TribesError):
    """A setting cannot be used.

    Args:
        message: What is wrong and what to write instead, one sentence each.
        key: Path of the setting (``channel.receiver.port``), or empty.
        source: File (and line) it came from, or empty for settings made in Python.
    """

    def __init__(self, message: str, *, key: str = "", source: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.key = key
        self.source = source

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.source, self.key) if part)
        return f"{where}: {self.message}" if where else self.message


class DiscoveryError(TribesError):
    """A service that names hosts (DNS, Kubernetes) does not answer now, or not properly."""


class ProtocolError(TribesError):
    """Somebody broke a protocol: see the two subclasses for who."""


class LocalProtocolError(ProtocolError):
    """This program used an object in a way that its rules forbid. A bug here, not at the peer."""


class RemoteProtocolError(ProtocolError):
    """A peer sent bytes that the protocol forbids. The peer loses its connection, nothing else."""


class ChannelError(TribesError):
    """Sending to, or receiving from, the group did not work."""


class ChannelClosedError(ChannelError):
    """The channel was stopped on this side before or during the call."""


class QueueFullError(ChannelError):
    """A bounded queue stayed full for as long as the caller was allowed to wait."""


class SendTimeoutError(ChannelError):
    """A member did not answer within the sender's ``timeout``. The message may have arrived."""


class MemberSuspectedError(ChannelError):
    """A member has not answered for a while, so nobody waits for it. The message may arrive yet."""


class MemberBehindError(ChannelError):
    """A member takes changes more slowly than they are made: its live queue is full, and it gets
    the newest state of what it misses when it has caught up.
    """


class MemberUnreachableError(ChannelError):
    """No connection to a member could be made or kept; ``__cause__`` holds the system's error."""


class RemoteProcessError(ChannelError):
    """A member received the message, and the listener that processed it there failed."""


class NoRpcChannelError(ChannelError):
    """A member has no RPC channel of that id, or none that reads what it was sent."""


class GroupSendError(ChannelError):
    """Some destinations of one send failed; all others got the message.

    Attributes:
        faulty: The failed destinations with the reason of each. Members that are not listed
            completed in the sense of the send options that were used.
    """

    def __init__(self, faulty: Mapping[Any, Exception]) -> None:
        super().__init__(faulty)
        # Members; their type is defined above this module.
        self.faulty: dict[Any, Exception] = dict(faulty)

    def __str__(self) -> str:
        reasons = "; ".join(
            f"{getattr(member, 'name', member)}: {type(why).__name__}: {why}"
            for member, why in self.faulty.items()
        )
        return f"{len(self.faulty)} destination(s) failed: {reasons}"


class StoreError(TribesError):
    """A session store did not do what it was asked; ``__cause__`` holds the system's error."""


class SessionUnreachableError(StoreError):
    """The members that hold a session do not answer, so nobody here knows whether there is one."""


class StoreConflictError(StoreError):
    """The stored value is not the version that the caller had seen; nothing was changed."""


class StoreDataError(StoreError):
    """Stored bytes are damaged, tampered with, or nothing that this program can have written."""


class StoreLimitError(StoreError):
    """A value is larger than the store takes. Nothing was written; the old value stays."""


class StoreLockedError(StoreError):
    """Another request held the session's lock for as long as this one may wait."""


class StoreNodeError(StoreError):
    """A server does not answer, or not in time. Whether it did what it was asked is unknown."""


class SessionError(TribesError):
    """A session, or a value in it, cannot be used as asked."""


class SessionInvalidError(SessionError):
    """The session was invalidated, or has expired."""


class SessionLockTimeoutError(SessionError):
    """Another request of the session had its lock for too long; this one has not run."""


class SessionInUseError(SessionLockTimeoutError):
    """Another request of the session runs, and none shall wait for it; this one has not run."""


class SessionLimitError(SessionError):
    """A limit of the session manager refused the operation."""


class _Result(Protocol):
    """What the error tells of a ``CommitResult``."""

    @property
    def acked(self) -> tuple[str, ...]: ...
    @property
    def missing(self) -> Mapping[str, str]: ...


class SessionNotReplicatedError(SessionError):
    """A commit stands on this node and will reach the others, but not enough of them have said so.

    Attributes:
        result: The ``CommitResult``: who has it, who is missing and why.
    """

    def __init__(self, result: _Result) -> None:
        super().__init__(result)
        self.result = result

    def __str__(self) -> str:
        missing = "; ".join(f"{name}: {why}" for name, why in self.result.missing.items())
        return f"the session is on {len(self.result.acked)} other member(s); missing: " + (
            missing or "none, there are too few members"
        )


class FarmError(TribesError):
    """An archive cannot be deployed; says which, and what is wrong with it."""


class MapFullError(TribesError):
    """A replicated map has as many entries as it may have, and was given one more."""


class AttributeNotEncodableError(SessionError, TypeError):
    """A value has a type for which no codec is registered; the other attributes are unaffected."""


class AttributeUnreadableError(SessionError, KeyError):
    """An attribute's stored bytes cannot be decoded here. They stay stored and go on
    replicating.
    """

    def __str__(self) -> str:
        return Exception.__str__(self)
