"""Java streams: the few objects that are spoken here, and the envelope of requests and replies."""

from __future__ import annotations

from typing import Any

from tribes.testing.vector_checks.notation import expect_bytes, rule_bytes
from tribes.testing.vector_checks.registry import NotBuilt, Vector, check, expect
from tribes.wire.java import JavaByteArray, JavaLong, JavaValue, decode_java, encode_java
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
        case "ByteMessage" if rest.startswith("with "):
            return rule_bytes(int(rest.split()[1]))
        case "ByteMessage":
            return rest.encode()
        case _:
            raise NotBuilt(f"a body of class {kind}")
