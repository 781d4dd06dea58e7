"""Ways in that lie behind the frames: interceptors, RPC, and the Java objects of Tomcat's maps.

The conversation is that of the other targets, pieces on connections of a stranger's. A piece here
begins with its message's options, two bytes, and its id, one. One of kind NEXT is first made valid
for the interceptors, so that what is inside is reached, however often it changes.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.fuzz.speech import NEXT, WAIT, Piece, pieces, to_input, vector_bytes
from tests.fuzz.stand import FRIEND, LOCAL, STRANGER, WALL_MS, FoundError, Stand
from tribes.errors import RemoteProtocolError
from tribes.interceptors import (
    EncryptInterceptor,
    FragmentationInterceptor,
    GzipInterceptor,
    OrderInterceptor,
)
from tribes.interceptors.cipher import make_cipher
from tribes.rpc.endpoints import RpcEndpoints
from tribes.wire.data import encode_body
from tribes.wire.frame import encode_frame
from tribes.wire.java import STREAM_HEADER, JavaValue, encode_java
from tribes.wire.java_reader import decode_java
from tribes.wire.map_message import MapMessage, MapMessageKind, decode_map_message, decode_map_state
from tribes.wire.member import encode_member
from tribes.wire.member_message import (
    MemberMessage,
    MemberMessageKind,
    decode_member_message,
    encode_member_message,
    static_membership_id,
)
from tribes.wire.options import SendOptions
from tribes.wire.rpc import RpcEnvelope, RpcKind, decode_envelope, encode_no_channel, encode_rpc

if TYPE_CHECKING:
    from tribes.channel.chain import Interceptor

__all__ = [
    "Wrap",
    "encrypt_seeds",
    "encrypted",
    "fragment_seeds",
    "gzip_seeds",
    "gzipped",
    "java",
    "java_seeds",
    "java_stand",
    "order_seeds",
    "plain_message",
    "stacked",
    "talk",
]

Wrap = Callable[[bytes], bytes]
"""Makes a message valid for an interceptor."""

KEY_TEXT = "cafebabedeadbeefbeefcafecafebabe"
GZIP_FLAG = 0x100
MESSAGE_MAX_BYTES = 256 * 1024
"""What a message may become, inflated or put together."""

RPC_ID = b"fuzz"
SERVICE = "catalina-Channel"

_SOURCE = encode_member(STRANGER)
_PAUSES_S = (0.01, 0.3, 1.1, 6.0)
_OPTIONS = b"\x00\x07\x01"
"""Bytes, acknowledged when processed; the id."""


def stacked(name: str, algorithm: str = "") -> Stand:
    """A node with one interceptor, whose bounds are small enough to be met."""
    interceptor: Interceptor
    match name:
        case "gzip":
            interceptor = GzipInterceptor(
                option_flag=GZIP_FLAG, max_inflated_size=MESSAGE_MAX_BYTES, stats_enabled=True
            )
        case "encrypt":
            interceptor = EncryptInterceptor(
                encryption_key=KEY_TEXT,
                encryption_algorithm=algorithm,
                replay_window_message_count=64,
            )
        case "fragments":
            interceptor = FragmentationInterceptor(
                max_message_size=MESSAGE_MAX_BYTES, max_pending_size=2 * MESSAGE_MAX_BYTES
            )
        case _:
            interceptor = OrderInterceptor(max_queue=16, max_queue_bytes=MESSAGE_MAX_BYTES)
    return Stand(interceptors=(interceptor,))


def plain_message(message: bytes) -> bytes:
    """Nothing is to be done."""
    return message


def gzipped(message: bytes) -> bytes:
    """What GzipInterceptor takes."""
    return gzip.compress(message, 1, mtime=0)


def encrypted(algorithm: str) -> Wrap:
    """What EncryptInterceptor takes; a vector by the message, so that a copy is one."""
    cipher = make_cipher(algorithm, bytes.fromhex(KEY_TEXT))
    size = 12 if "GCM" in algorithm else 16

    def wrap(message: bytes) -> bytes:
        iv = (message + bytes(size))[:size]
        return iv + cipher.encrypt(iv, WALL_MS.to_bytes(8, "big") + message)

    return wrap


def talk(stand: Stand, data: bytes, wrap: Wrap) -> None:
    """One conversation; a connection that was closed is opened anew."""
    link = stand.open()
    for kind, part in pieces(data):
        if kind & 28 == WAIT:
            stand.sleep(_PAUSES_S[kind & 3])
            continue
        if link in stand.closed:
            link = stand.open()
        if kind & 28 == Piece.RAW:
            stand.feed(link, part)
            continue
        head, message = (part + _OPTIONS)[:3], part[3:]
        options = int.from_bytes(head[:2], "big")
        message = wrap(message) if kind & 28 == NEXT else message
        source = encode_member(FRIEND) if kind & 1 else _SOURCE
        body = encode_body(options, WALL_MS, head[2:] * 16, source, message)
        stand.feed(link, encode_frame(body))
        delivered = stand.delivered_bytes
        if delivered > MESSAGE_MAX_BYTES * 2:
            raise FoundError(f"a message of {delivered} bytes was handed on")


_KINDS = (NEXT, NEXT, Piece.DATA)
"""Made valid, the same with another id, and as it is; what is refused ends the connection."""


def _seeds(*messages: bytes, options: int = 7) -> list[bytes]:
    """Each message alone, as it is and made valid, and all in one conversation."""
    head = options.to_bytes(2, "big")
    short = [message for message in messages if len(message) < 8192]
    return [
        *(
            to_input(*((kind, head + bytes((at,)) + each) for at, kind in enumerate(_KINDS)))
            for each in short
        ),
        to_input(
            *((NEXT, head + bytes((at,)) + each) for at, each in enumerate(short[:20])),
            (WAIT + 3, b""),
        ),
    ]


def gzip_seeds() -> list[bytes]:
    """Compressed, twice so, cut, with a longer end than there is, not compressed at all."""
    bomb = gzipped(bytes(4 * MESSAGE_MAX_BYTES))
    known = vector_bytes("gzip", "gzip_message")
    messages = (b"", b"hello", gzipped(b"hello"), gzipped(b"a") * 3, gzipped(b"x")[:-4], bomb)
    return [*_seeds(*messages, *known, options=7 | GZIP_FLAG), *_seeds(b"hello", options=7)]


def encrypt_seeds() -> list[bytes]:
    """With and without the key; the same twice is a copy."""
    return _seeds(b"", b"hello", bytes(15), bytes(16), bytes(200), *vector_bytes("encrypt"))


def _fragment(identity: int, index: int, count: int, piece: bytes, *, options: int = 7) -> bytes:
    place = b"".join(number.to_bytes(4, "big") for number in (index, count))
    return options.to_bytes(2, "big") + bytes((identity,)) + piece + place + b"\x01"


def fragment_seeds() -> list[bytes]:
    """In order, out of it, twice, with other counts, too many, and never complete."""
    sets = [
        [(0, 0, 1), (1, 0, 2), (1, 1, 2)],
        [(2, 2, 3), (2, 0, 3), (2, 0, 3), (2, 1, 3)],
        [(3, 0, 2), (3, 1, 5), (3, 9, 2), (3, -1, 2), (3, 0, -1), (3, 0, 0)],
        [(4, 0, 2**31 - 1), (4, 2**30, 2**31 - 1)],
        [(number, 0, 2) for number in range(40)],
    ]
    return [
        to_input(
            *(
                (NEXT, _fragment(identity, index % 2**32, count % 2**32, bytes(20) * identity))
                for identity, index, count in each
            ),
            (WAIT + 3, b""),
        )
        for each in sets
    ] + _seeds(*vector_bytes("fragment"), b"", b"\x00", b"whole\x00", b"\x00" * 7 + b"\x01")


def order_seeds() -> list[bytes]:
    """Numbers in order, with gaps, twice, far ahead, below zero, and too short for one."""
    runs = [(1, 2, 3), (3, 2, 1), (2, 2, 2), (2**31 - 1, 1), (-1, 0, -(2**31)), (*range(2, 50),)]
    inputs = []
    for run in runs:
        messages = [b"m%d" % number + (number % 2**32).to_bytes(4, "big") for number in run]
        parts = [
            (NEXT + (at & 1), b"\x00\x07" + bytes((at,)) + message)
            for at, message in enumerate(messages)
        ]
        inputs.append(to_input(*parts, (WAIT + 3, b"")))
    return [*inputs, *_seeds(b"", b"abc")]


# Java objects.


class _Endpoint:
    """An RPC channel of somebody's: what it gets is read when it is delivered."""

    takes_requests = True
    takes_left_over = True


def java_stand() -> Stand:
    """A node with an RPC channel, among members of Tomcat's that ask whether it is there."""
    endpoints = RpcEndpoints()
    endpoints.add(RPC_ID, _Endpoint())
    return Stand(endpoints=endpoints, static_service_name=SERVICE)


def java(stand: Stand, data: bytes) -> None:
    """Messages that are Java objects: to the node, and to every reader that it has for them."""
    talk(stand, data, plain_message)
    for _, part in pieces(data):
        stream = part[3:]
        readers: tuple[Callable[[bytes], object], ...] = (
            decode_java,
            decode_map_message,
            decode_member_message,
            decode_map_state,
            _envelope,
        )
        for read in readers:
            with suppress(RemoteProtocolError):
                read(stream)


def _envelope(stream: bytes) -> RpcEnvelope:
    envelope = decode_envelope(stream)
    if envelope.kind is not RpcKind.NO_CHANNEL:
        for read in (envelope.body, envelope.map_body, envelope.membership_body):
            with suppress(RemoteProtocolError):
                read()
    return envelope


def java_seeds() -> list[bytes]:
    """Every Java stream of the vectors, and each thing that we say ourselves."""
    ids = bytes(16)
    service = static_membership_id(SERVICE)
    ping, stop = (
        MemberMessage(kind, STRANGER, service)
        for kind in (MemberMessageKind.PING, MemberMessageKind.STOP)
    )
    map_ping = MapMessage(MapMessageKind.PING, RPC_ID, primary=STRANGER, nodes=(LOCAL, None))
    values: tuple[JavaValue, ...] = (None, "text", b"bytes", 5, 2**40, STRANGER)
    messages = [
        *vector_bytes("rpc", "java_serial", "map_message", "static_service"),
        *(encode_java(value) for value in values),
        *(
            encode_rpc(RPC_ID, ids, body, is_reply=is_reply)
            for body in (*values, ping, map_ping)
            for is_reply in (False, True)
        ),
        encode_rpc(service, ids, ping, is_reply=False),
        STREAM_HEADER + encode_member_message(stop),
        encode_rpc(b"nobody's", ids, None, is_reply=False),
        encode_no_channel(RPC_ID, ids),
    ]
    return _seeds(*messages, options=int(SendOptions.USE_ACK | SendOptions.SYNCHRONIZED_ACK))
