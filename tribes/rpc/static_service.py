"""Members of Tomcat that use its StaticMembershipService, as a guest among them sees it (§6.2).

They ask every configured member whether it is there, START when they begin and PING from then on,
and list who answers. So a node that answers with its own record is a member for them, without
heartbeats. Who asks is a member here too, while the failure detector has answers from it; who says
STOP has left. The node asks nobody itself: all of them ask it, every few seconds.

A message counts when it speaks for the member that sent it and carries the id of this service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from tribes.errors import LocalProtocolError, RemoteProtocolError
from tribes.membership.table import MEMBERS_MAX
from tribes.wire.java import STREAM_HEADER
from tribes.wire.member import SHUTDOWN_COMMAND, Member, decode_member
from tribes.wire.member_message import (
    MemberMessage,
    MemberMessageKind,
    decode_member_message,
    encode_member_message,
    is_member_message,
    static_membership_id,
)

if TYPE_CHECKING:
    from tribes.channel.core import ChannelCore
    from tribes.rpc.core import RpcCore
    from tribes.wire.data import ChannelData
    from tribes.wire.rpc import RpcEnvelope

__all__ = ["StaticService"]


@final
class StaticService:
    """Answers the questions of one such service; implements ``CoreEndpoint``.

    Args:
        channel_name: Of the others' channels: ``<cluster name>-Channel`` in a Tomcat.
        channel: The own channel.
        rpc: By which answers go.
    """

    takes_requests = True
    takes_left_over = False

    def __init__(self, channel_name: str, *, channel: ChannelCore, rpc: RpcCore) -> None:
        self.membership_id: Final = static_membership_id(channel_name)
        self.answered = 0
        """Questions that were answered."""
        self.refused = 0
        """Messages that were malformed, or spoke for somebody else."""
        self._askers: dict[Member, None] = {}
        self._channel = channel
        self._rpc = rpc

    def handle(self, source: Member, envelope: RpcEnvelope, now: float) -> None:
        """A member asks whether this one is there.

        Raises:
            RemoteProtocolError: The message is malformed, or not of this service.
        """
        try:
            message = envelope.membership_body()
            self._check(source, message)
            if message.kind is MemberMessageKind.STOP:
                raise RemoteProtocolError("a member that leaves asks for no answer")
        except RemoteProtocolError:
            self.refused += 1
            raise
        self._channel.discovery.introduced(message.member, now)
        self.answered += 1
        self._askers[source] = None
        if len(self._askers) > MEMBERS_MAX:
            del self._askers[next(iter(self._askers))]
        record = decode_member(self._channel.membership.record(now))
        answer = MemberMessage(message.kind, record, self.membership_id)
        self._rpc.answer(source, envelope, answer, options=0, now=now)

    def consume(self, data: ChannelData, now: float) -> bool:
        """Take a message if it is a member's STOP, which is no request.

        Returns:
            Whether it was such a message, a malformed one included.
        """
        if not is_member_message(data.message):
            return False
        try:
            message = decode_member_message(data.message)
            self._check(data.source, message)
        except RemoteProtocolError:
            self.refused += 1
            return True
        if message.kind is MemberMessageKind.STOP and data.source in self._channel.view:
            self._channel.membership.said_farewell(data.source, now)
        return True

    def stop(self, now: float) -> None:
        """Tell those who have asked that this member leaves. Who has no connection any more is not
        waited for: its next question will be refused.
        """
        askers = [member for member in self._askers if member in self._channel.view]
        if not askers:
            return
        local = self._channel.local.replace(command=SHUTDOWN_COMMAND)
        stop = MemberMessage(MemberMessageKind.STOP, local, self.membership_id)
        payload = STREAM_HEADER + encode_member_message(stop)
        try:
            self._channel.post(askers, payload, 0, now, is_bytes=False)
        except LocalProtocolError:
            self.refused += 1

    def _check(self, source: Member, message: MemberMessage) -> None:
        if message.membership_id != self.membership_id:
            raise RemoteProtocolError("a message of another membership service")
        if message.member != source:
            raise RemoteProtocolError(f"{source.name} speaks for {message.member.name}")
