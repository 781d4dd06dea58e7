"""One node core that a fuzzer talks to, without sockets, and what it may cost.

The stand performs the core's outputs as a machine would on which everything works: connections to
the one well-known member are made, its acknowledgements come at once, and everybody else's are
refused. So whatever goes wrong here is the doing of the bytes that were put in.
"""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from tribes.channel.outputs import Deliver, Notice
from tribes.config.model import (
    ChannelConfig,
    ManagerConfig,
    MembershipConfig,
    NodeConfig,
    ReceiverConfig,
)
from tribes.errors import RemoteProtocolError, TribesError
from tribes.interceptors import MessageDispatchInterceptor, TcpFailureDetector
from tribes.manager.clock import Clock
from tribes.manager.delta import DeltaManager
from tribes.manager.inbox import Inbox
from tribes.manager.messages import Hello
from tribes.manager.table import SessionTable
from tribes.manager.values import ValueCodec
from tribes.membership.table import MEMBERS_MAX
from tribes.node import NodeCore
from tribes.security.keys import GroupKey, KeyRing
from tribes.wire.data import ChannelData, decode_body
from tribes.wire.frame import ACK_FRAME, FrameDecoder
from tribes.wire.member import Member, encode_member, host_octets
from tribes.wire.options import SendOptions
from tribes.wire.outputs import Close, Connect, Probe, Write

if TYPE_CHECKING:
    from tribes.channel.chain import Interceptor
    from tribes.channel.core import Output
    from tribes.rpc.endpoints import RpcEndpoints

__all__ = ["CONTEXT", "FRIEND", "KEY", "LOCAL", "STRANGER", "FoundError", "Stand", "cost_bounded"]

CONTEXT = "shop"
LOCAL = Member(host_octets("127.0.0.1"), 4000, b"L" * 16, payload=b"local")
FRIEND = Member(host_octets("127.0.0.2"), 4001, b"F" * 16, payload=b"friend")
"""A member of the group, for as long as it is not removed."""
STRANGER = Member(host_octets("127.0.0.3"), 4002, b"S" * 16, payload=b"stranger")
"""Whoever connects."""
KEY = GroupKey(1, bytes(range(32)))

START_S = 1000.0
WALL_MS = 1_700_000_000_000

INPUT_MAX_S = 1.0
"""Processor seconds that one input may take, whatever it says."""
INPUT_MAX_BYTES = 48 * 1024 * 1024
"""By how much one input may raise the highest memory use of the process."""
WRITTEN_MAX_BYTES = 2 * 1024 * 1024
"""What one input may make a node say."""


class FoundError(Exception):
    """A promise that did not hold."""


class Stand:
    """A node with some sessions and one member beside it.

    Args:
        is_keyed: Whether the group has a key; its member is then one that may come without.
        sessions: How many sessions there are.
        reaches: Members to whom connections can be made, beside the one.
        interceptors: What its messages pass before the others.
        endpoints: Its RPC channels.
        static_service_name: Of the service of Tomcat whose questions it answers.
    """

    def __init__(
        self,
        *,
        is_keyed: bool = False,
        sessions: int = 0,
        reaches: tuple[Member, ...] = (),
        interceptors: tuple[Interceptor, ...] = (),
        endpoints: RpcEndpoints | None = None,
        static_service_name: str = "",
    ) -> None:
        random = Random(1)
        self._reached = {member.address for member in (FRIEND, *reaches)}
        self.now = START_S
        self.written = 0
        self.delivered_bytes = 0
        """The longest message that the listeners got."""
        self.delivered = 0
        """Messages that they got."""
        self.closed: set[int] = set()
        """Connections that the node has ended."""
        self._inbox = Inbox(nullcontext())
        self._clock = Clock(self.wall_ms, 7, nullcontext())
        self._random = random
        self._managers: dict[str, DeltaManager] = {}
        self._links = 0
        self.said: dict[int, bytes] = {}
        """What was written last on each connection."""
        self._outgoing: dict[tuple[str, int], int] = {}
        self._taken: Counter[int] = Counter()
        self._friends: dict[int, FrameDecoder] = {}
        config = NodeConfig(
            name="local",
            contexts=(CONTEXT,),
            channel=ChannelConfig(
                receiver=ReceiverConfig(frame_max_bytes=1024 * 1024),
                plain_peers=(FRIEND.host_text,) if is_keyed else (),
                keys="tribes-key" if is_keyed else "",
                membership=MembershipConfig(static_service_name=static_service_name),
            ),
            manager=ManagerConfig(channel_send_options=6),
        )
        self.core = NodeCore(
            config,
            LOCAL,
            interceptors=[*interceptors, MessageDispatchInterceptor(), TcpFailureDetector()],
            endpoints=endpoints,
            make_manager=self.manager,
            wall_ms=self.wall_ms,
            entropy=random.randbytes,
            randrange=random.randrange,
            keys=KeyRing([KEY]) if is_keyed else None,
        )
        self.core.start(self.now)
        self.perform()
        self.datagram(encode_member(FRIEND), FRIEND)
        if sessions:
            self.say(Hello("friend", [CONTEXT], is_first=True).encode())
            self._fill(sessions)
        self.written = 0

    def wall_ms(self) -> int:
        """The node's wall clock."""
        return WALL_MS + int((self.now - START_S) * 1000)

    def manager(self, context: str) -> DeltaManager:
        """The session manager of a context."""
        manager = self._managers.get(context)
        if manager is None:
            manager = self._managers[context] = DeltaManager(
                context,
                SessionTable(nullcontext(), self._inbox),
                self._clock,
                inbox=self._inbox,
                codec=ValueCodec(),
                entropy=self._random.randbytes,
                monotonic=lambda: self.now,
            )
        return manager

    def _fill(self, count: int) -> None:
        for number in range(count):
            session = self.manager(CONTEXT).create()
            session["n"] = number
            self.manager(CONTEXT).commit(session)
        while (batch := self._inbox.take()) is not None:
            self.core.commits(batch, self.now)
            self.perform()

    # What arrives.

    def datagram(self, data: bytes, source: Member = STRANGER) -> None:
        """One datagram of the group."""
        self.core.datagram(data, (source.host_text, 45564), self.now)
        self.perform()

    def open(self, source: Member = STRANGER) -> int:
        """Somebody connects."""
        self._links += 1
        self.core.link_opened(self._links, self.now, peer=(source.host_text, 50000))
        self.perform()
        return self._links

    def feed(self, link: int, data: bytes) -> None:
        """Bytes on a connection, if it is still there."""
        if data and link not in self.closed:
            self.core.link_bytes(link, data, self.now)
            self.perform()

    def close(self, link: int) -> None:
        """Its other end closes a connection."""
        if link not in self.closed:
            self.closed.add(link)
            self.core.link_closed(link, None, self.now)
            self.perform()

    def say(self, payload: bytes) -> None:
        """The member sends a message, as an own link would bring it up."""
        options = int(SendOptions.BYTE_MESSAGE) | 6
        self.core.sessions.consume(
            ChannelData(options, WALL_MS, bytes(16), FRIEND, payload, b""), self.now
        )
        self.perform()

    def hear(self, payload: bytes) -> None:
        """The same of one that may say nonsense: that is refused, whatever it is."""
        with suppress(RemoteProtocolError):
            self.say(payload)
        self.perform()

    def read_sessions(self) -> None:
        """What every session says is read: it may be refused, and nothing else."""
        manager = self.manager(CONTEXT)
        for key in manager.table.keys():  # noqa: SIM118 - it is no mapping
            with suppress(TribesError):
                session = manager.find(key)
                for name in list(session or ()):
                    with suppress(TribesError):
                        assert session is not None
                        session[name]

    def outgoing(self, member: Member) -> int | None:
        """The newest connection that the node has made to a member, while it is there."""
        return self._outgoing.get(member.address)

    def sleep(self, seconds: float) -> None:
        """Time passes, and what is due is done."""
        end = self.now + seconds
        while self.core.next_deadline <= end:
            self.now = max(self.now, self.core.next_deadline)
            self.core.timer(self.now)
            self.perform()
        self.now = end

    # What the node wants.

    def perform(self) -> None:
        """Do what the core asks for, until it asks for nothing."""
        while outputs := self.core.take_outputs():
            for output in outputs:
                self._perform(output)

    def _perform(self, output: Output) -> None:
        match output:
            case Write():
                self._written(output)
            case Deliver():
                self.delivered += 1
                self.delivered_bytes = max(self.delivered_bytes, len(output.message.message))
                self.core.delivered(output.token, None, self.now)
            case Probe():
                error = None if output.address in self._reached else ConnectionRefusedError()
                self.core.probe_result(output.probe, error, self.now)
            case Connect():
                self._connect(output)
            case Close():
                self.closed.add(output.link)
                self._friends.pop(output.link, None)
                self._outgoing = {a: n for a, n in self._outgoing.items() if n != output.link}
            case Notice() if output.text == "message not processed":
                raise FoundError(f"an error of our own: {output.details}")
            case _:
                pass

    def _connect(self, output: Connect) -> None:
        if output.address not in self._reached:
            self.core.connect_failed(output.attempt, ConnectionRefusedError(), self.now)
            return
        self._links += 1
        self._outgoing[output.address] = self._links
        if output.address == FRIEND.address:
            self._friends[self._links] = FrameDecoder()
        self.core.link_opened(self._links, self.now, peer=output.address, attempt=output.attempt)

    def _written(self, output: Write) -> None:
        self.said[output.link] = said = b"".join(output.chunks)
        size = len(said)
        self.written += size
        self._taken[output.link] += size
        self.core.writable(output.link, self._taken[output.link], self.now)
        decoder = self._friends.get(output.link)
        if decoder is None:
            return
        acks = b"".join(
            ACK_FRAME
            for body in decoder.feed(said)
            if decode_body(body).options & SendOptions.USE_ACK
        )
        if acks:
            self.core.link_bytes(output.link, acks, self.now)

    # What must hold.

    def check(self) -> None:
        """Raise FoundError if something here is larger than its bound."""
        channel = self.core.channel
        if len(channel.membership.table) > MEMBERS_MAX:
            raise FoundError(f"{len(channel.membership.table)} members")
        links = len(channel.accepted.receivers) + len(channel.accepted.door)
        if links > channel.config.receiver.max_connections:
            raise FoundError(f"{links} connections")
        if self.written > WRITTEN_MAX_BYTES:
            raise FoundError(f"{self.written} bytes were said")
        self.written = 0


@contextmanager
def cost_bounded(data: bytes) -> Iterator[None]:
    """Raise FoundError if what is done here with an input takes too long or too much memory."""
    with suppress(OSError):
        # Linux forgets the peak: else an input would be hidden by one that took more, or a test.
        Path("/proc/self/clear_refs").write_bytes(b"5")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    yield
    spent = time.process_time() - begin
    if spent > INPUT_MAX_S:
        raise FoundError(f"{spent:.2f} s for {len(data)} bytes")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024
    if grown > INPUT_MAX_BYTES:
        raise FoundError(f"{grown} bytes of memory for {len(data)} bytes")
