"""Checks of messages that interceptors send to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tribes.interceptors import (
    StaticMembershipInterceptor,
    TcpPingInterceptor,
    TwoPhaseCommitInterceptor,
)
from tribes.testing.stage import Stage
from tribes.testing.vector_checks.frame import expect_data_frame
from tribes.testing.vector_checks.notation import member_of
from tribes.testing.vector_checks.registry import NotBuilt, check, expect
from tribes.wire.member import Member
from tribes.wire.probes import FAILURE_DETECTOR_PAYLOAD

if TYPE_CHECKING:
    from collections.abc import Callable

    from tribes.channel.chain import Interceptor
    from tribes.testing.vector_checks.registry import Vector
    from tribes.wire.data import ChannelData

_OTHER: Final = Member(host=b"\x7f\x00\x00\x01", port=4999, unique_id=bytes(range(16)))


@check("control")
def check_control(vector: Vector) -> None:
    """What an interceptor says of its own is the frame that Tomcat sends."""
    sent = _SENT.get(vector["name"].removesuffix("-read-test"))
    if sent is None:
        raise NotBuilt(vector["name"])
    inputs = vector["inputs"]
    message = sent(vector)
    expect("message", vector["message_hex"], message.hex())
    expect_data_frame(vector, inputs, message)


def _failure_test(vector: Vector) -> bytes:
    del vector
    return FAILURE_DETECTOR_PAYLOAD


def _own_message(vector: Vector, interceptor: Interceptor, act: Callable[[Stage], object]) -> bytes:
    """The last message of a member of the vector's address with one other member."""
    stage = Stage(interceptor, local=member_of(vector["inputs"]["member"]))
    stage.start()
    stage.add(_OTHER)
    act(stage)
    data: ChannelData = stage.sent[-1].data
    expect("options", vector["inputs"]["options"], data.options)
    expect("source", stage.local, data.source)
    expect("destinations", (_OTHER,), stage.sent[-1].destinations)
    return data.message


def _static_start(vector: Vector) -> bytes:
    interceptor = StaticMembershipInterceptor(members=[_OTHER])
    return _own_message(vector, interceptor, lambda stage: None)


def _static_stop(vector: Vector) -> bytes:
    return _own_message(vector, StaticMembershipInterceptor(), Stage.stop)


def _ping(vector: Vector) -> bytes:
    return _own_message(vector, TcpPingInterceptor(), Stage.heartbeat)


def _two_phases(vector: Vector, index: int) -> bytes:
    inputs = vector["inputs"]
    stage = Stage(TwoPhaseCommitInterceptor(), local=member_of(inputs["member"]))
    unique_id = bytes.fromhex("11111111111141118111111111111111")
    stage.send(
        b"commit me",
        _OTHER,
        options=inputs["options"],
        timestamp=inputs["timestamp"],
        unique_id=unique_id,
    )
    data = stage.sent[index].data
    expect("options", inputs["options"], data.options)
    expect("timestamp", inputs["timestamp"], data.timestamp)
    return data.message


_SENT: Final[dict[str, Callable[[Vector], bytes]]] = {
    "tcp-failure-detect": _failure_test,
    "static-member-start": _static_start,
    "static-member-stop": _static_stop,
    "tcp-ping": _ping,
    "two-phase-original": lambda vector: _two_phases(vector, 0),
    "two-phase-confirm": lambda vector: _two_phases(vector, 1),
}
"""What is sent, by the name of the vector."""
