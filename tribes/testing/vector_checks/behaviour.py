"""Decisions: what a membership, a receiver and a sender do with what they are given.

The machines run here with a scripted other side and a clock that jumps from deadline to deadline.
"""

from __future__ import annotations

from typing import Any

from tribes.channel.core import ChannelCore, Output
from tribes.channel.outputs import Deliver
from tribes.config.model import ChannelConfig, SenderConfig
from tribes.errors import (
    MemberUnreachableError,
    RemoteProcessError,
    SendTimeoutError,
)
from tribes.links.base import OutFrame
from tribes.links.plain import PlainSender
from tribes.membership.change import ChangeKind
from tribes.membership.table import MembershipTable
from tribes.testing.vector_checks.registry import NotBuilt, Vector, check, expect
from tribes.timers import Timers
from tribes.wire.frame import FRAME_OVERHEAD, FrameDecoder, encode_frame
from tribes.wire.member import Member, decode_member
from tribes.wire.outputs import Close, Connect, NetworkOutput, UdpDatagram, Write

_PEER = Member(host=b"\x7f\x00\x00\x01", port=4001, unique_id=bytes(range(16)))
_UDP_PORT = 4010
_SOURCE = ("127.0.0.1", 4002)
"""Where frames come from: a port of nobody's, to which answers go by UDP."""
_LOCAL = Member(host=b"\x7f\x00\x00\x01", port=4000, unique_id=bytes(16))

_CAUSES: dict[type[Exception], str] = {
    RemoteProcessError: "RemoteProcessException",
    MemberUnreachableError: "IOException",
    SendTimeoutError: "ChannelException",
}
"""Our errors, by what the reference calls them (tribes-wire §4.4)."""


@check("membership_behaviour")
def membership_behaviour(vector: Vector) -> None:
    """A sequence of heartbeat records leaves the membership that the reference has."""
    inputs = vector["inputs"]
    table = MembershipTable(decode_member(bytes.fromhex(inputs["local_record_hex"])), drop_time=1e9)
    for step, (heartbeat, after) in enumerate(
        zip(inputs["heartbeats"], vector["after_each"], strict=True)
    ):
        changes = table.heard(decode_member(bytes.fromhex(heartbeat["record_hex"])), float(step))
        is_new = any(change.kind is ChangeKind.ADDED for change in changes)
        expect(f"heartbeat {step}: reported as new", after["reported_as_new"], is_new)
        members = [
            {
                "port": member.port,
                "alive": member.alive,
                "payload": member.payload.decode("latin-1"),
                "domain": member.domain.decode("latin-1"),
                "udp_port": member.udp_port,
            }
            for member in table.members()
        ]
        expect(f"members after heartbeat {step}", after["members"], members)


@check("receiver_behaviour")
def receiver_behaviour(vector: Vector) -> None:
    """One frame on a connection, and what comes back before and after the listener."""
    inputs = vector["inputs"]
    by_udp = inputs.get("transport", "tcp") == "udp"
    core = ChannelCore(
        _LOCAL.replace(udp_port=_UDP_PORT),
        ChannelConfig(),
        wall_ms=lambda: 0,
        entropy=lambda n: bytes(n),
        consume=None,
    )
    frame = bytes.fromhex(inputs["frame_hex"])
    if by_udp:
        core.udp_datagram(frame, _SOURCE, 0.0)
    else:
        core.link_opened(1, 0.0, peer=_SOURCE)
        core.link_bytes(1, frame, 0.0)
    outputs: list[Output] = []
    while more := core.take_outputs():
        outputs += more
    before = _written(outputs)
    deliveries = [output for output in outputs if isinstance(output, Deliver)]
    expect("deliveries", 1, len(deliveries))
    listener = inputs["listener"]
    if listener not in ("ok", "throws", "not-accepted", "undecodable"):
        raise NotBuilt(f"a listener that behaves as {listener!r}")
    error = RuntimeError("as told") if listener == "throws" else None
    core.delivered(deliveries[0].token, error, 0.1)
    after = _written(core.take_outputs())
    expect("reply", vector["reply_hex"], (before + after).hex())
    when = vector.get("reply_time", "")
    if when.startswith("before"):
        expect("reply before the listener ran", vector["reply_hex"], before.hex())
    elif when.startswith("after"):
        expect("reply before the listener ran", "", before.hex())


def _written(outputs: list[Any]) -> bytes:
    written = [output for output in outputs if isinstance(output, Write)]
    datagrams = [output for output in outputs if isinstance(output, UdpDatagram)]
    expect("datagrams elsewhere", [], [each for each in datagrams if each.address != _SOURCE])
    return b"".join([chunk for output in written for chunk in output.chunks]) + b"".join(
        [each.data for each in datagrams]
    )


class _ScriptedPeer:
    """Accepts connections and answers the n-th frame as told."""

    def __init__(self, replies: list[str]) -> None:
        self._replies = replies
        self.frames: list[bytes] = []
        self.connections = 0

    def reply(self, frame: bytes) -> str:
        """Hex to send back, ``close``, or nothing. The last one repeats."""
        self.frames.append(frame)
        return self._replies[min(len(self.frames), len(self._replies)) - 1]


@check("sender_behaviour")
def sender_behaviour(vector: Vector) -> None:
    """A scripted peer: the outcome, and how many frames and connections it took.

    Where the reference reports silence after about 5 s, whatever its timeout, the configured
    timeout is expected here (tribes-wire §8.6 asks for that). A fail-ack is retried as the
    reference does, which is a setting here.
    """
    inputs = vector["inputs"]
    config = SenderConfig(
        timeout=inputs["timeout"],
        max_retry_attempts=inputs["max_retry_attempts"],
        throw_on_failed_ack=inputs["throw_on_failed_ack"],
        retry_failed_ack=True,
    )
    settled: list[tuple[Exception | None, float]] = []
    timers, outputs = Timers(), list[NetworkOutput]()
    sender = PlainSender(
        _PEER,
        config,
        timers=timers,
        emit=outputs.append,
        connect=lambda member: 1,
        lost=lambda member, why, now: None,
    )
    frame = OutFrame(
        encode_frame(b"message"),
        needs_ack=bool(inputs["options"] & 2),
        settle=lambda error, now: settled.append((error, now)),
    )
    peer = _ScriptedPeer(inputs["peer_reply_to_frame_n"])
    sender.enqueue(frame, 0.0)
    now = 0.0
    for _ in range(1000):
        if outputs:
            now += 0.001
            _perform(sender, peer, outputs.pop(0), now)
        elif not settled and timers.next_deadline < 60:
            now = timers.next_deadline
            timers.run_due(now)
        else:
            break
    expect("settled once", 1, len(settled))
    error, elapsed = settled[0]
    expect("outcome", vector["outcome"], "ok" if error is None else "ChannelException")
    causes = [] if error is None else [_CAUSES[type(error)]]
    expect("causes", vector["faulty_causes"], causes)
    expect("frames", vector["frames_received_by_peer"], len(peer.frames))
    expect("identical frames", vector["frames_identical"], len(set(peer.frames)) <= 1)
    expect("connections", vector["connections"], peer.connections)
    if vector["elapsed_class"].startswith("under"):
        expect("settled in under 1.5 s", True, elapsed < 1.5)
    else:
        expect("seconds until settled", inputs["timeout"] / 1000, round(elapsed, 3))


def _perform(sender: PlainSender, peer: _ScriptedPeer, output: NetworkOutput, now: float) -> None:
    if isinstance(output, Connect):
        peer.connections += 1
        sender.link_opened(peer.connections, now)
    elif isinstance(output, Write):
        data = b"".join(output.chunks)
        sender.writable(len(data), now)
        for body in FrameDecoder(body_max_bytes=len(data) - FRAME_OVERHEAD).feed(data):
            reply = peer.reply(body)
            if reply == "close":
                sender.link_closed(None, now)
                return
            if reply:
                sender.received(bytes.fromhex(reply), now)
    else:
        assert isinstance(output, Close)
