"""What is said to a node under test: inputs as pieces, and the seeds that each target begins with.

An input is a list of pieces, each a byte that says what it is and a u16 length; so one input is a
whole conversation, with time passing in it.
"""

from __future__ import annotations

import enum
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fuzz.stand import CONTEXT, FRIEND, KEY, LOCAL, STRANGER, WALL_MS
from tribes.links.own_acks import PING_FRAME, Ack, encode_ack, encode_seen
from tribes.links.own_wire import (
    CONTROL_MARK,
    OwnSide,
    Start,
    Welcome,
    encode_hello,
    encode_start,
    encode_welcome,
)
from tribes.manager.clock import ms_to_hlc
from tribes.manager.messages import (
    Deltas,
    Digests,
    ExpireAnswer,
    ExpireAsk,
    Fetch,
    Fetched,
    Hello,
    Lack,
    Records,
    Summary,
    Want,
)
from tribes.manager.record import Entry, Kind, Life, Namespace, Parsed, pack, to_wire
from tribes.security.keys import KeyRing
from tribes.security.mark import Marker
from tribes.wire.codec import pack as msgpack
from tribes.wire.data import encode_body
from tribes.wire.frame import ACK_BODY, FAIL_ACK_BODY, encode_frame
from tribes.wire.member import encode_member
from tribes.wire.probes import FAILURE_DETECTOR_PAYLOAD

__all__ = [
    "Piece",
    "answer_seeds",
    "channel_data",
    "datagram_seeds",
    "hello",
    "manager_seeds",
    "open_seeds",
    "opened",
    "opening_seeds",
    "pieces",
    "plain_answer_seeds",
    "plain_seeds",
    "to_input",
    "vector_bytes",
    "welcome",
]

PIECES_MAX = 64
_VECTORS = Path(__file__).resolve().parents[1] / "data" / "tribes-vectors.json"
_RECORD = encode_member(STRANGER)
_SIDE = OwnSide(_RECORD, STRANGER.unique_id)


class Piece(enum.IntEnum):
    """Kinds of pieces for connections; the two low bits say on which one, or how long to wait."""

    RAW = 0
    FRAMED = 4
    DATA = 8
    NEXT = 12
    WAIT = 16
    CLOSE = 20


RAW, FRAMED, DATA, NEXT, WAIT, CLOSE = Piece


def pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Cut an input into its pieces; a last one that is cut short is taken as it is."""
    at = 0
    for _ in range(PIECES_MAX):
        if at >= len(data):
            return
        size = int.from_bytes(data[at + 1 : at + 3], "big")
        yield data[at], data[at + 3 : at + 3 + size]
        at += 3 + size


def to_input(*parts: tuple[int, bytes]) -> bytes:
    """Return the input with these pieces."""
    return b"".join(bytes((kind,)) + struct.pack(">H", len(part)) + part for kind, part in parts)


def channel_data(part: bytes) -> bytes:
    """A body of a stranger's: one byte of options, one of the id, and the message."""
    options, unique_id = (part + b"\0\0")[:2]
    return encode_body(options, WALL_MS, bytes((unique_id,)) * 16, _RECORD, part[2:])


def vector_bytes(*groups: str) -> list[bytes]:
    """Return the bytes of the vectors in these groups."""
    vectors: list[dict[str, Any]] = json.loads(_VECTORS.read_bytes())["vectors"]
    found = [v["hex"] for v in vectors if v["group"] in groups and v.get("hex")]
    for vector in vectors:
        if vector["group"] == "stream_behaviour" and "stream_behaviour" in groups:
            found += vector["inputs"].get("chunks_hex", [])
        if vector["group"] == "member_reject" and "member_reject" in groups:
            found += [vector["inputs"]["hex"]] if "hex" in vector["inputs"] else []
    return [bytes.fromhex(text) for text in found]


def plain_seeds() -> list[bytes]:
    raw = vector_bytes(
        "frame", "raw_frame", "ack", "stream_behaviour", "rpc", "map_message", "control"
    )
    seeds = [to_input((RAW, data)) for data in raw if len(data) < 4096]
    framed = [
        channel_data(b"\x07\x01hello"),
        channel_data(b"\x03\x02" + FAILURE_DETECTOR_PAYLOAD),
    ]
    return [
        *seeds,
        *(to_input((FRAMED, body), (FRAMED + 1, body), (WAIT + 1, b"")) for body in framed),
        to_input(
            (DATA, b"\x07\x01a"), (DATA + 1, b"\x07\x01a"), (CLOSE, b""), (DATA, b"\x0f\x03b")
        ),
        to_input((RAW, b"FLT2002\x7f\xff\xff\xff"), (WAIT + 2, b"")),
    ]


def hello(number: int, *, key_id: int = 0) -> bytes:
    return encode_hello(
        _SIDE,
        incarnation=5,
        attempt=number + 1,
        target=LOCAL.unique_id,
        nonce=b"n" * 16,
        key_id=key_id,
    )


def opened(number: int) -> bytes:
    return encode_frame(hello(number)) + encode_frame(encode_start(Start(1)))


def opening_seeds() -> list[bytes]:
    start = encode_start(Start(1))
    return [
        to_input((FRAMED, hello(0)), (FRAMED, start), (DATA, b"\x07\x01x")),
        to_input((FRAMED, hello(0)), (FRAMED, start), (FRAMED + 1, hello(1)), (FRAMED + 1, start)),
        to_input((FRAMED, hello(3)), (FRAMED, encode_start(Start(7)))),
        to_input((FRAMED, hello(0, key_id=1)), (FRAMED, start)),
        to_input((RAW, encode_frame(hello(0))[:60]), (WAIT + 2, b""), (RAW + 1, b"F")),
    ]


def open_seeds() -> list[bytes]:
    escaped = CONTROL_MARK + b"\x09" + channel_data(b"\x07\x01escaped")
    return [
        to_input((DATA, b"\x07\x01one"), (DATA, b"\x07\x02two"), (FRAMED, PING_FRAME[11:-7])),
        to_input((FRAMED, escaped), (FRAMED, encode_seen(0)), (FRAMED, encode_seen(3))),
        to_input((DATA, b"\x07\x01x"), (DATA + 1, b"\x07\x01x"), (WAIT + 1, b""), (CLOSE + 1, b"")),
        to_input((NEXT, b"\x07\x01" + msgpack([0, "s", [CONTEXT], True]))),
        to_input((FRAMED, encode_ack(Ack(1, 1)))),
        to_input((DATA, b"\x07\x01x"), (CLOSE, b"\x20TPY\x07"), (DATA, b"\x07\x02y")),
    ]


def welcome() -> bytes:
    return encode_welcome(
        Welcome(1, 0, 77, STRANGER.unique_id, b"w" * 16, 0, received=0, body_max_bytes=1 << 20)
    )


def answer_seeds() -> list[bytes]:
    acks = [
        Ack(9, 9),
        Ack(3, 1),
        Ack(8, 2, early=((4, 5), (7, 7))),
        Ack(4, 4, failures=((2, "no"), (3, "nein")), serial=2),
        Ack(99, 1),
    ]
    return [
        *(to_input((FRAMED + 2, encode_ack(ack)), (WAIT + 1, b"")) for ack in acks),
        to_input((FRAMED, welcome()), (FRAMED, encode_ack(Ack(9, 9))), (WAIT, b"")),
        to_input((FRAMED, CONTROL_MARK + b"\x03\x01\x02no"), (WAIT + 1, b"")),
        to_input((FRAMED + 2, CONTROL_MARK + b"\x08")),
    ]


def plain_answer_seeds() -> list[bytes]:
    return [
        to_input(*((FRAMED, ACK_BODY),) * 9),
        to_input((FRAMED, ACK_BODY), (FRAMED, FAIL_ACK_BODY), (CLOSE, ACK_BODY), (WAIT + 1, b"")),
        to_input((RAW, encode_frame(ACK_BODY)[:5]), (WAIT + 3, b""), (FRAMED, FAIL_ACK_BODY)),
    ]


def datagram_seeds() -> list[bytes]:
    friend, stranger = encode_member(FRIEND.replace(alive=5)), encode_member(STRANGER)
    marks = [Marker(9, keys=None), Marker(9, keys=KeyRing([KEY]))]
    bye = encode_member(STRANGER.replace(command=b"BABY-ALEX", alive=9))
    records = [friend, stranger, bye, *(m.mark(r) for m in marks for r in (stranger, bye))]
    signed = [marks[1].mark(stranger) for _ in range(2)]
    raw = [*vector_bytes("multicast", "member", "member_reject"), *records]
    return [
        *(to_input((0, data), (2, data)) for data in raw if len(data) < 4096),
        to_input((0, signed[0]), (6, signed[1]), (0, signed[0]), (0, marks[1].mark(bye))),
        to_input((1, friend), (3 + 12, b""), (1, friend)),
    ]


def a_record(*, life: Life = Life.LIVE, entries: int = 1) -> bytes:
    hlc = ms_to_hlc(WALL_MS)
    is_gone = life is Life.DESTROYED
    parsed = Parsed(life, 0, hlc + 9 if is_gone else hlc, hlc + 9, 0)
    for number in range(0 if is_gone else entries):
        name = b"n%d" % number
        parsed.put(Entry(Namespace.ATTRIBUTE, Kind.LAST_WRITER, name, b"\x05", hlc + 3, 9, 0))
    return to_wire(pack(parsed), 0)


def manager_seeds() -> list[bytes]:
    live, many = a_record(), a_record(entries=5)
    gone, expired = a_record(life=Life.DESTROYED), a_record(life=Life.EXPIRED)
    records = [live, many, gone, expired]
    return [
        *(to_input((0, record), (16, record), (48, record)) for record in records),
        *(to_input((1, record), (0x71, record), (7, b"")) for record in records),
        to_input((0x42, b"\0\x01" + b"d" * 8), (0xD2, b"\0\x02" + b"d" * 8), (0x17, b"")),
        to_input((3, b"\0" * 16), (4, live), (0x14, gone), (0x27, b"")),
        *(to_input((each, record), (0x17, b"")) for each in (2, 18, 34, 50) for record in records),
        to_input((5, b""), (0x35, b""), (0x15, b""), (0x17, b"")),
        *(
            to_input((6, message.encode()[5:]))
            for message in (
                Hello("x", [CONTEXT], True),
                Deltas(CONTEXT, [("NEW", live)]),
                Digests(CONTEXT, 3, 9, [0, 1], {1: 2}),
                Summary(CONTEXT, 3, [5] * 64),
                Want(CONTEXT, 4, True, {1: [2], 2: []}),
                Want(CONTEXT, 5, True, {partition: [] for partition in range(4096)}),
                Lack(CONTEXT, 4, [2]),
                Fetch(CONTEXT, 5, "ABCDEF", 7, 8),
                Fetched(CONTEXT, 1, [("NEW", live)], True),
                Records(CONTEXT, 1, [("NEW", many)], True),
                ExpireAsk(CONTEXT, 1, [("NEW", 5)]),
                ExpireAnswer(CONTEXT, 1, [("NEW", live)]),
            )
        ),
    ]
