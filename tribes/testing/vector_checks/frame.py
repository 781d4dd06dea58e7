"""Checks of frames, channel data, acknowledgements, datagrams and the decoding of streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tribes.errors import RemoteProtocolError
from tribes.testing.vector_checks.notation import (
    expect_bytes,
    expect_member,
    input_bytes,
    member_of,
)
from tribes.testing.vector_checks.registry import Mismatch, check, expect
from tribes.wire.data import decode_body, encode_body, encode_data_frame
from tribes.wire.frame import (
    ACK_BODY,
    ACK_FRAME,
    FAIL_ACK_BODY,
    FAIL_ACK_FRAME,
    FRAME_END,
    FRAME_OVERHEAD,
    FRAME_START,
    FrameDecoder,
    encode_frame,
)
from tribes.wire.limits import FRAME_BODY_MAX_BYTES
from tribes.wire.member import MEMBER_BEGIN, decode_member, encode_member
from tribes.wire.options import wire_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tribes.testing.vector_checks.registry import Vector


@check("frame")
def check_frame(vector: Vector) -> None:
    """Channel data gives the frame, and the frame gives the channel data."""
    inputs = vector["inputs"]
    if "requested_options" in inputs:
        is_bytes = inputs["message_kind"] == "ByteMessage"
        options = wire_options(inputs["requested_options"], is_bytes=is_bytes)
        expect("options on the wire", inputs["options"], options)
    expect_data_frame(vector, inputs, input_bytes(inputs, "message"))


def expect_data_frame(vector: Vector, inputs: Mapping[str, Any], message: bytes) -> None:
    """Check the frame of ``message`` with these options, timestamp, id and source, both ways."""
    unique_id = bytes.fromhex(inputs["unique_id_hex"])
    record = encode_member(member_of(inputs["member"]))
    fields = (inputs["options"], inputs["timestamp"], unique_id, record, message)
    frame = encode_data_frame(*fields)
    expect_bytes(vector, frame)
    expect("frame made in two steps", frame.hex(), encode_frame(encode_body(*fields)).hex())

    data = decode_body(_only_body(bytes.fromhex(vector["hex"]) if "hex" in vector else frame))
    expect("decoded options", inputs["options"], data.options)
    expect("decoded timestamp", inputs["timestamp"], data.timestamp)
    expect("decoded id", unique_id.hex(), data.unique_id.hex())
    expect_member("decoded source", inputs["member"], data.source)
    expect("decoded message", message.hex(), data.message.hex())
    expect("trailer", b"", data.trailer)


@check("raw_frame")
def check_raw_frame(vector: Vector) -> None:
    """A body gives its frame, and the frame gives its body."""
    body = input_bytes(vector["inputs"], "body")
    frame = encode_frame(body)
    expect_bytes(vector, frame)
    expect("decoded body", body.hex(), _only_body(frame).hex())


@check("ack")
def check_ack(vector: Vector) -> None:
    """The two acknowledgements are the frames that we have as constants."""
    body = input_bytes(vector["inputs"], "body")
    expect_bytes(vector, encode_frame(body))
    constant = {ACK_BODY: ACK_FRAME, FAIL_ACK_BODY: FAIL_ACK_FRAME}.get(body)
    if constant is None:
        raise Mismatch("body", expected="that of an ack or fail-ack", got=body.hex())
    expect_bytes(vector, constant)


@check("multicast")
def check_multicast(vector: Vector) -> None:
    """A datagram of the membership group is one member record or one frame."""
    inputs = vector["inputs"]
    if "message" in inputs:
        expect_data_frame(vector, inputs, input_bytes(inputs, "message"))
        return
    record = encode_member(member_of(inputs))
    expect_bytes(vector, record)
    expect("begin marker", MEMBER_BEGIN.hex(), record[: len(MEMBER_BEGIN)].hex())
    expect_member("decoded", inputs, decode_member(record))


@check("stream_behaviour")
def check_stream_behaviour(vector: Vector) -> None:
    """Chunks give the bodies and leave the bytes that Tomcat's receiver does.

    Where the stream breaks the format Tomcat goes on in one way or another and we close instead;
    whether it does is decided from its bytes. What came before the break still has to come out.
    """
    decoder = FrameDecoder()
    stream = b""
    bodies: list[str] = []
    chunks = [bytes.fromhex(chunk) for chunk in vector["inputs"]["chunks_hex"]]
    for number, (chunk, after) in enumerate(
        zip(chunks, vector["after_each_chunk"], strict=True), start=1
    ):
        stream += chunk
        expected_bodies, left, conforms = _read_stream(stream)
        found = [body.hex() for body in decoder.feed(chunk)]
        bodies += found
        expect(f"bodies up to chunk {number}", [body.hex() for body in expected_bodies], bodies)
        expect(f"broken after chunk {number}", not conforms, decoder.broken is not None)
        if not conforms:
            _expect_poisoned(decoder)
            return
        expect(f"bodies of chunk {number}", after["frame_bodies_hex"], found)
        expect(f"left after chunk {number}", after["left_in_buffer"], decoder.buffered_bytes)
        expect(f"left by the format after chunk {number}", left, decoder.buffered_bytes)


def _read_stream(stream: bytes) -> tuple[list[bytes], int, bool]:
    """Read a whole stream at once, as the specification says it and with no thought for speed.

    Returns:
        The bodies of its whole frames, how many bytes are left over, and whether those can still
        become a frame.
    """
    bodies: list[bytes] = []
    while stream:
        if not FRAME_START.startswith(stream[:7]):
            return bodies, len(stream), False
        if len(stream) < 11:
            break
        size = int.from_bytes(stream[7:11], "big", signed=True)
        if not 0 <= size <= FRAME_BODY_MAX_BYTES:
            return bodies, len(stream), False
        if len(stream) < size + FRAME_OVERHEAD:
            break
        if stream[11 + size : 18 + size] != FRAME_END:
            return bodies, len(stream), False
        bodies.append(stream[11 : 11 + size])
        stream = stream[18 + size :]
    return bodies, len(stream), True


def _expect_poisoned(decoder: FrameDecoder) -> None:
    try:
        found = decoder.feed(encode_frame(b""))
    except RemoteProtocolError:
        return
    raise Mismatch("feed after the stream broke", expected="RemoteProtocolError", got=found)


def _only_body(frame: bytes) -> bytes:
    """Return the body of the one frame that these bytes are."""
    decoder = FrameDecoder()
    bodies = decoder.feed(frame)
    expect(
        "frames, bytes left, error",
        (1, 0, None),
        (len(bodies), decoder.buffered_bytes, decoder.broken),
    )
    return bodies[0]
