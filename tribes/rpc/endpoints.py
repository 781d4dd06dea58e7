"""Which RPC channels there are in this process, by id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tribes.errors import LocalProtocolError
from tribes.wire.rpc import check_rpc_id

if TYPE_CHECKING:
    from tribes.wire.member import Member
    from tribes.wire.rpc import RpcEnvelope

__all__ = ["CoreEndpoint", "RpcEndpoint", "RpcEndpoints"]

ENDPOINTS_MAX = 1024
"""RPC channels of one process."""


class RpcEndpoint(Protocol):
    """One RPC channel, as far as the core needs to know it."""

    @property
    def takes_requests(self) -> bool:
        """Whether it answers requests; else others are told that there is no such channel."""

    @property
    def takes_left_over(self) -> bool:
        """Whether it wants the replies that no call waits for."""


class CoreEndpoint(Protocol):
    """An RPC channel of this package itself, whose requests are handled inside the core."""

    @property
    def takes_requests(self) -> bool:
        """True."""

    @property
    def takes_left_over(self) -> bool:
        """Whether it wants the replies that no call waits for."""

    def handle(self, source: Member, envelope: RpcEnvelope, now: float) -> None:
        """Read a request and handle it, now or later, by ``RpcCore.answer``.

        Raises:
            RemoteProtocolError: The request is malformed.
        """


class RpcEndpoints:
    """The RPC channels of one process.

    Shared by the threads that make channels and the one that runs the core: each method is one
    operation on a dictionary.
    """

    __slots__ = ("_by_id", "get", "in_core")

    def __init__(self) -> None:
        self._by_id: dict[bytes, RpcEndpoint] = {}
        self.in_core: dict[bytes, CoreEndpoint] = {}
        """Those among them that are handled inside the core."""
        self.get = self._by_id.get

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, rpc_id: bytes, endpoint: RpcEndpoint) -> None:
        """Open a channel.

        Raises:
            LocalProtocolError: The id is taken or cannot be one, or there are too many channels.
        """
        check_rpc_id(rpc_id)
        if len(self._by_id) >= ENDPOINTS_MAX:
            raise LocalProtocolError(f"{ENDPOINTS_MAX} RPC channels are open already")
        if self._by_id.setdefault(rpc_id, endpoint) is not endpoint:
            raise LocalProtocolError(f"an RPC channel with the id {rpc_id!r} is open already")

    def put_in_core(self, rpc_id: bytes, endpoint: CoreEndpoint) -> None:
        """Open a channel of this package itself, in place of that of an earlier core."""
        check_rpc_id(rpc_id)
        self._by_id[rpc_id] = endpoint
        self.in_core[rpc_id] = endpoint

    def remove(self, rpc_id: bytes, endpoint: RpcEndpoint) -> None:
        """Close a channel; from here on others are told that there is none."""
        if self._by_id.get(rpc_id) is endpoint:
            del self._by_id[rpc_id]
            self.in_core.pop(rpc_id, None)
