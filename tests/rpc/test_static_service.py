"""A node among members of Tomcat with StaticMembershipService: it answers, lists, and leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fuzz.stand import FRIEND, LOCAL, STRANGER, WALL_MS, Stand
from tribes.config.model import ChannelConfig, MembershipConfig, NodeConfig, check_config
from tribes.errors import ConfigError
from tribes.wire.data import decode_body, encode_body
from tribes.wire.frame import FrameDecoder, encode_frame
from tribes.wire.java import STREAM_HEADER
from tribes.wire.member import SHUTDOWN_COMMAND, Member, encode_member
from tribes.wire.member_message import (
    MemberMessage,
    MemberMessageKind,
    decode_member_message,
    encode_member_message,
    static_membership_id,
)
from tribes.wire.rpc import RpcEnvelope, RpcKind, decode_envelope, encode_rpc

if TYPE_CHECKING:
    from tribes.rpc.static_service import StaticService
    from tribes.wire.outputs import Write

NAME = "catalina-Channel"
ID = static_membership_id(NAME)
CORRELATION = b"c" * 16


class Noting(Stand):
    """Remembers the messages of Java objects that it wrote."""

    def __init__(self, *, name: str = NAME, is_keyed: bool = False) -> None:
        self.java: list[bytes] = []
        super().__init__(reaches=(STRANGER,), static_service_name=name, is_keyed=is_keyed)

    def _written(self, output: Write) -> None:
        decoder = FrameDecoder()
        for body in decoder.feed(b"".join(output.chunks)):
            message = b"" if len(body) <= 3 else decode_body(body).message
            if message.startswith(STREAM_HEADER):
                self.java.append(message)
        super()._written(output)


def stand(*, is_keyed: bool = False) -> Noting:
    return Noting(is_keyed=is_keyed)


def service(of: Stand) -> StaticService:
    assert of.core.static_service is not None
    return of.core.static_service


def tell(node: Stand, message: bytes, source: Member = STRANGER, *, uid: int = 1) -> None:
    link = node.open(source)
    body = encode_body(0, WALL_MS, uid.to_bytes(16, "big"), encode_member(source), message)
    node.feed(link, encode_frame(body))
    node.sleep(0.1)


def ask(
    node: Stand,
    kind: MemberMessageKind = MemberMessageKind.PING,
    *,
    member: Member = STRANGER,
    membership_id: bytes = ID,
    source: Member = STRANGER,
    uid: int = 1,
) -> None:
    message = MemberMessage(kind, member, membership_id)
    tell(node, encode_rpc(ID, CORRELATION, message, is_reply=False), source, uid=uid)


def answer(node: Noting) -> RpcEnvelope:
    (message,) = node.java
    return decode_envelope(message)


@pytest.mark.parametrize("kind", [MemberMessageKind.START, MemberMessageKind.PING])
def test_a_question_is_answered_and_its_asker_is_a_member(kind: MemberMessageKind) -> None:
    """The answer is the same message with the own record; who asked is there for us too."""
    node = stand()
    assert STRANGER not in node.core.view
    ask(node, kind)
    envelope = answer(node)
    assert (envelope.kind, envelope.correlation) == (RpcKind.REPLY, CORRELATION)
    message = envelope.membership_body()
    assert (message.kind, message.member, message.membership_id) == (kind, LOCAL, ID)
    assert message.member.payload == LOCAL.payload
    assert STRANGER in node.core.view


def test_a_member_that_says_stop_has_left() -> None:
    """It is no request, and nobody answers it."""
    node = stand()
    ask(node)
    stop = MemberMessage(MemberMessageKind.STOP, STRANGER.replace(command=SHUTDOWN_COMMAND), ID)
    tell(node, STREAM_HEADER + encode_member_message(stop), uid=2)
    assert STRANGER not in node.core.view
    assert FRIEND in node.core.view
    assert len(node.java) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"membership_id": b"other-StaticMembership"},
        {"member": FRIEND},
        {"kind": MemberMessageKind.STOP},
    ],
    ids=["another service", "for another member", "a stop that asks"],
)
def test_what_does_not_count_is_told_that_there_is_no_channel(wrong: dict[str, object]) -> None:
    """Nobody becomes a member by it, and nobody waits."""
    node = stand()
    ask(node, **wrong)  # type: ignore[arg-type]
    assert answer(node).kind is RpcKind.NO_CHANNEL
    assert STRANGER not in node.core.view
    assert service(node).refused == 1


def test_nobody_can_say_stop_for_another() -> None:
    """Neither by the member it names, nor with another id."""
    node = stand()
    ask(node)
    for uid, (member, membership_id) in enumerate(((FRIEND, ID), (STRANGER, b"other")), 2):
        stop = MemberMessage(MemberMessageKind.STOP, member, membership_id)
        tell(node, STREAM_HEADER + encode_member_message(stop), uid=uid)
    assert FRIEND in node.core.view
    assert STRANGER in node.core.view
    assert service(node).refused == 2


def test_the_node_says_stop_when_it_leaves() -> None:
    """To those who asked, so that they need not wait until it has been silent."""
    node = stand()
    ask(node, member=FRIEND, source=FRIEND)
    node.java.clear()
    node.core.stop(node.now)
    node.perform()
    stops = [decode_member_message(message) for message in node.java]
    assert [(stop.kind, stop.member) for stop in stops] == [(MemberMessageKind.STOP, LOCAL)]
    assert all(stop.member.is_shutdown for stop in stops)


def test_with_a_group_key_only_plain_peers_may_ask() -> None:
    """Others are not even heard."""
    node = stand(is_keyed=True)
    ask(node)
    assert STRANGER not in node.core.view
    assert service(node).answered == 0
    ask(node, member=FRIEND, source=FRIEND, uid=2)
    assert service(node).answered == 1


def test_without_a_name_there_is_no_such_service() -> None:
    """As before: who asks is told so."""
    node = Noting(name="")
    ask(node)
    assert answer(node).kind is RpcKind.NO_CHANNEL
    assert node.core.static_service is None


@pytest.mark.parametrize("name", ["x" * 256, "Gruppe-Ω"])
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    """With its key."""
    membership = MembershipConfig(static_service_name=name)
    with pytest.raises(ConfigError) as error:
        check_config(NodeConfig(channel=ChannelConfig(membership=membership)))
    assert error.value.key == "channel.membership.static_service_name"
