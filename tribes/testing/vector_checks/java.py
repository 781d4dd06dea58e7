"""Java streams: the few objects that are spoken here, and the envelope of requests and replies."""

from __future__ import annotations

from typing import Any

from tribes.testing.vector_checks.notation import (
    expect_bytes,
    expect_member,
    input_bytes,
    member_of,
    rule_bytes,
)
from tribes.testing.vector_checks.registry import NotBuilt, Vector, check, expect
from tribes.wire.java import (
    STREAM_HEADER,
    JavaByteArray,
    JavaLong,
    JavaUniqueId,
    JavaValue,
    encode_java,
)
from tribes.wire.java_reader import decode_java
from tribes.wire.map_message import (
    MapMessage,
    MapMessageKind,
    MapState,
    decode_map_message,
    decode_map_state,
    encode_map_message,
    encode_map_state,
)
from tribes.wire.member import Member
from tribes.wire.member_message import (
    MemberMessage,
    MemberMessageKind,
    decode_member_message,
    encode_member_message,
)
from tribes.wire.rpc import RpcKind, decode_envelope, encode_no_channel, encode_rpc, is_rpc


@check("java_serial")
def java_serial(vector: Vector) -> None:
    """A value becomes the stream that Java writes, and comes back from it."""
    inputs = vector["inputs"]
    value = _value(inputs)
    stream = encode_java(value)
    expect_bytes(vector, stream)
    back = decode_java(stream)
    expect("value read back", value, back)
    expect("type read back", type(value), type(back))
    if isinstance(back, Member):
        expect_member("read back", inputs["member"], back)


def _value(inputs: dict[str, Any]) -> JavaValue:
    match inputs["java"]:
        case "String":
            return str(inputs["value"])
        case "Integer":
            return int(inputs["value"])
        case "Long":
            return JavaLong(inputs["value"])
        case "byte[]":
            return JavaByteArray(bytes.fromhex(inputs["hex"]))
        case "ByteMessage":
            return bytes.fromhex(inputs["hex"])
        case "UniqueId":
            return JavaUniqueId(bytes.fromhex(inputs["hex"]))
        case "MemberImpl":
            return member_of(inputs["member"])
        case other:
            raise NotBuilt(f"Java objects of class {other}")


@check("rpc")
def rpc(vector: Vector) -> None:
    """The envelope and its body, in both directions; for the other checks see ``java_serial``."""
    inputs = vector["inputs"]
    rpc_id = bytes.fromhex(inputs["rpc_id_hex"])
    correlation = bytes.fromhex(inputs["correlation_id_hex"])
    if "body" not in inputs:
        stream = encode_no_channel(rpc_id, correlation)
        kind = RpcKind.NO_CHANNEL
    else:
        is_reply = inputs["reply"]
        stream = encode_rpc(rpc_id, correlation, _body(inputs["body"]), is_reply=is_reply)
        kind = RpcKind.REPLY if is_reply else RpcKind.REQUEST
    expect_bytes(vector, stream)
    expect("recognised", True, is_rpc(stream))
    envelope = decode_envelope(stream)
    expect("kind", kind, envelope.kind)
    expect("rpc id", rpc_id, envelope.rpc_id)
    expect("correlation id", correlation, envelope.correlation)
    if "body" in inputs:
        expect("body", _body(inputs["body"]), envelope.body())


def _body(text: str) -> JavaValue:
    kind, _, rest = text.partition(" ")
    match kind:
        case "null":
            return None
        case "String":
            return rest
        case "Integer":
            return int(rest)
        case "Long":
            return JavaLong(rest)
        case "ByteMessage" if rest.startswith("with "):
            return rule_bytes(int(rest.split()[1]))
        case "ByteMessage":
            return rest.encode()
        case _:
            raise NotBuilt(f"a body of class {kind}")


@check("map_message")
def map_message(vector: Vector) -> None:
    """The message of a replicated map becomes Java's stream, and is read from it."""
    inputs = vector["inputs"]
    message = MapMessage(
        MapMessageKind(inputs["type"]),
        inputs["map_id"].encode("latin-1"),
        _blob(inputs["key"]),
        _blob(inputs["value"]),
        None if inputs["diff_hex"] is None else input_bytes(inputs, "diff"),
        inputs["diff"],
        None if inputs["primary"] is None else member_of(inputs["primary"]),
        None if inputs["nodes"] is None else tuple(map(member_of, inputs["nodes"])),
    )
    expect("name of the type", inputs["type_name"], f"MSG_{message.kind.name}")
    stream = STREAM_HEADER + encode_map_message(message)
    expect_bytes(vector, stream)
    back = decode_map_message(stream)
    expect("message read back", message, back)
    if back.primary is not None:
        expect_member("primary", inputs["primary"], back.primary)
    for number, node in enumerate(back.nodes or ()):
        assert node is not None, "none was written"
        expect_member(f"node {number}", inputs["nodes"][number], node)
    if back.key is not None:
        expect("key read", _body(inputs["key"]), decode_java(back.key))
    if back.value is not None:
        kind, _, name = inputs["value"].partition(" ")
        if kind == "State":
            expect("state read", MapState[name], decode_map_state(back.value))
        else:
            expect("value read", _body(inputs["value"]), decode_java(back.value))


def _blob(text: str | None) -> bytes | None:
    """The stream of a key or a value, which a message carries as bytes."""
    if text is None:
        return None
    kind, _, name = text.partition(" ")
    return encode_map_state(MapState[name]) if kind == "State" else encode_java(_body(text))


@check("static_service")
def static_service(vector: Vector) -> None:
    """A message between members of a StaticMembershipService, in both directions."""
    inputs = vector["inputs"]
    message = MemberMessage(
        MemberMessageKind(inputs["type"]),
        member_of(inputs["member"]),
        inputs["membership_id"].encode("latin-1"),
    )
    stream = STREAM_HEADER + encode_member_message(message)
    expect_bytes(vector, stream)
    back = decode_member_message(stream)
    expect("message read back", message, back)
    expect_member("member", inputs["member"], back.member)
