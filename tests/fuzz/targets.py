"""What is fuzzed: a function per way in, which takes any bytes and neither raises nor costs much.

Every input meets a node of its own, and is therefore enough to show again what it found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz.speech import (
    Piece,
    answer_seeds,
    channel_data,
    datagram_seeds,
    hello,
    manager_seeds,
    open_seeds,
    opened,
    opening_seeds,
    pieces,
    plain_answer_seeds,
    plain_seeds,
    welcome,
)
from tests.fuzz.stacked import (
    Wrap,
    encrypt_seeds,
    encrypted,
    fragment_seeds,
    gzip_seeds,
    gzipped,
    java,
    java_seeds,
    java_stand,
    order_seeds,
    plain_message,
    stacked,
    talk,
)
from tests.fuzz.stand import CONTEXT, FRIEND, KEY, STRANGER, Stand, cost_bounded
from tribes.links.own_wire import (
    Start,
    decode_welcome,
    encode_start,
    proven,
)
from tribes.manager.messages import (
    Deltas,
    Digests,
    ExpireAnswer,
    ExpireAsk,
    Hello,
    Lack,
    Records,
    Summary,
    Want,
)
from tribes.security.mark import Marker
from tribes.security.seal import LinkKeys
from tribes.wire.frame import encode_frame
from tribes.wire.member import encode_member

__all__ = ["TARGETS", "Target"]

INPUT_MAX_BYTES = 64 * 1024
_PAUSES_S = (0.01, 0.3, 1.1, 6.0)


@dataclass(frozen=True)
class Target:
    """A way in.

    Attributes:
        name: What the command calls it.
        make: Makes a node.
        talk: Gives an input to a node; raises when something does not hold.
        seeds: Inputs to begin with.
        words: Pieces of bytes that mean something there.
    """

    name: str
    make: Callable[[], Stand]
    talk: Callable[[Stand, bytes], None]
    seeds: Callable[[], list[bytes]]
    words: tuple[bytes, ...] = ()

    def run(self, data: bytes) -> None:
        """Give an input to a node of its own, and look at what it cost."""
        data = data[:INPUT_MAX_BYTES]
        stand = self.make()
        with cost_bounded(data):
            self.talk(stand, data)
            stand.check()
            stand.sleep(0.05)
            stand.check()


def _stream(stand: Stand, data: bytes, opening: Callable[[int], bytes] = lambda _: b"") -> None:
    links: dict[int, int] = {}
    for kind, part in pieces(data):
        number = kind & 3
        if kind & 28 == Piece.WAIT:
            stand.sleep(_PAUSES_S[number])
            continue
        if number not in links:
            links[number] = stand.open()
            stand.feed(links[number], opening(number))
        link = links[number]
        match kind & 28:
            case Piece.FRAMED:
                stand.feed(link, encode_frame(part))
            case Piece.DATA:
                stand.feed(link, encode_frame(channel_data(part)))
            case Piece.NEXT:
                stand.feed(link, encode_frame(channel_data(b"\x00TPY\x01" + part)))
            case Piece.CLOSE:
                stand.close(link)
                del links[number]
            case _:
                stand.feed(link, part)


def _sealed(stand: Stand, data: bytes) -> None:
    """One link that was opened with the key, so that what it brings gets as far as without one."""
    link, said = stand.open(), hello(0, key_id=KEY.id)
    stand.feed(link, encode_frame(said))
    answer = stand.said[link][11:-7]
    keys = LinkKeys(KEY)
    nonce = decode_welcome(answer).nonce
    seal, _ = keys.sealers(b"n" * 16, nonce, is_client=True)
    proof = keys.hello_tag(proven(b"client", said, answer, encode_start(Start(1))))
    stand.feed(link, encode_frame(encode_start(Start(1, proof))))
    for kind, part in pieces(data):
        match kind & 28:
            case Piece.FRAMED:
                stand.feed(link, seal(encode_frame(part)))
            case Piece.DATA:
                stand.feed(link, seal(encode_frame(channel_data(part))))
            case Piece.NEXT:
                stand.feed(link, seal(part))
            case Piece.WAIT:
                stand.sleep(_PAUSES_S[kind & 3])
            case Piece.CLOSE:
                # Sealed, and then changed in one place.
                record = bytearray(seal(encode_frame(part[1:])))
                record[int.from_bytes(part[:1], "big") % len(record)] ^= 1 << (kind & 3)
                stand.feed(link, bytes(record))
            case _:
                stand.feed(link, part)


class _Answered(Stand):
    """A node whose connections to the stranger are made, for the input to answer on."""

    def __init__(self, *, is_marked: bool) -> None:
        super().__init__(reaches=(STRANGER,))
        record = encode_member(STRANGER)
        self.datagram(Marker(9, keys=None).mark(record) if is_marked else record)
        for number in range(8):
            self.core.send([STRANGER], bytes((number,)) * 10, 6, self.now)
            self.perform()


def _answers(stand: Stand, data: bytes, *, is_own: bool) -> None:
    for kind, part in pieces(data):
        link = stand.outgoing(STRANGER)
        if kind & 28 == Piece.WAIT:
            stand.sleep(_PAUSES_S[kind & 3])
        elif link is not None:
            if is_own and kind & 2:
                stand.feed(link, encode_frame(welcome()))
            stand.feed(link, part if kind & 28 == Piece.RAW else encode_frame(part))
            if kind & 28 == Piece.CLOSE:
                stand.close(link)


def _datagrams(stand: Stand, data: bytes) -> None:
    for kind, part in pieces(data):
        stand.datagram(part, FRIEND if kind & 1 else STRANGER)
        if kind & 2:
            stand.sleep(_PAUSES_S[kind >> 2 & 3])


def _manager_messages(stand: Stand, data: bytes) -> None:
    for kind, part in pieces(data):
        if kind & 15 == 7:
            stand.sleep(_PAUSES_S[kind >> 4 & 3])
        else:
            stand.hear(b"\x00TPY\x01" + part if kind & 15 == 6 else _message(kind, part, stand))
    stand.read_sessions()


def _message(kind: int, part: bytes, stand: Stand) -> bytes:
    """A message that is well-formed around the piece, which is what a record or digest says."""
    keys = [*stand.manager(CONTEXT).table.keys()[:3], "NEW"]
    key = keys[kind >> 4 & 3]
    match kind & 15:
        case 0:
            return Deltas(CONTEXT, [(key, part)]).encode()
        case 1:
            return Records(CONTEXT, kind >> 6, [(key, part)], bool(kind & 32)).encode()
        case 2:
            digests = {
                int.from_bytes(part[i : i + 2], "big") % 4096: int.from_bytes(part[i + 2 : i + 10])
                for i in range(0, len(part) - 9, 10)
            }
            numbers = list(digests.values())
            match kind >> 4 & 3:
                case 0:
                    return Digests(CONTEXT, kind >> 6, 9, list(range(64)), digests).encode()
                case 1:
                    return Summary(CONTEXT, kind >> 6, (numbers + [0] * 64)[:64]).encode()
                case 2:
                    have = {p: [d] for p, d in digests.items()}
                    return Want(CONTEXT, kind >> 6, bool(kind & 64), have).encode()
                case _:
                    return Lack(CONTEXT, kind >> 6, numbers).encode()
        case 3:
            versions = [int.from_bytes(part[i : i + 8]) for i in range(0, len(part), 8)]
            return ExpireAsk(CONTEXT, 1, [(key, version) for version in versions]).encode()
        case 4:
            return ExpireAnswer(CONTEXT, kind >> 4, [(key, part)]).encode()
        case 5:
            return Hello("friend", [CONTEXT] if kind & 16 else [], bool(kind & 32)).encode()
        case _:
            return part


_GCM, _CBC = "AES/GCM/NoPadding", "AES/CBC/PKCS5Padding"


def _stack(name: str, seeds: Callable[[], list[bytes]], wrap: Wrap) -> Target:
    """The way in through one interceptor."""
    return Target(
        name,
        lambda: stacked(name),
        lambda stand, data: talk(stand, data, wrap),
        seeds,
    )


def _encryption(name: str, algorithm: str) -> Target:
    wrap = encrypted(algorithm)
    return Target(
        name,
        lambda: stacked("encrypt", algorithm),
        lambda stand, data: talk(stand, data, wrap),
        encrypt_seeds,
    )


_JAVA_WORDS = (b"\xac\xed\0\x05", b"sr\0", b"ur\0\x02[B", b"\x71\0\x7e\0\x05", b"t\0\x02[B", b"xp")
_FRAME_WORDS = (b"FLT2002", b"TLF2003", b"TPY", b"TPYD", b"TRIBES-B\x01\0", b"TRIBES-E\x01\0")

TARGETS = {
    target.name: target
    for target in (
        Target("plain", Stand, _stream, plain_seeds, _FRAME_WORDS),
        Target("opening", Stand, _stream, opening_seeds, _FRAME_WORDS),
        Target(
            "opening-keyed",
            lambda: Stand(is_keyed=True),
            _stream,
            opening_seeds,
            _FRAME_WORDS,
        ),
        Target(
            "open",
            Stand,
            lambda stand, data: _stream(stand, data, opened),
            open_seeds,
            _FRAME_WORDS,
        ),
        Target("sealed", lambda: Stand(is_keyed=True), _sealed, open_seeds, _FRAME_WORDS),
        Target(
            "answers",
            lambda: _Answered(is_marked=True),
            lambda stand, data: _answers(stand, data, is_own=True),
            answer_seeds,
            _FRAME_WORDS,
        ),
        Target(
            "plain-answers",
            lambda: _Answered(is_marked=False),
            lambda stand, data: _answers(stand, data, is_own=False),
            plain_answer_seeds,
            _FRAME_WORDS,
        ),
        Target("datagrams", Stand, _datagrams, datagram_seeds, _FRAME_WORDS),
        Target(
            "datagrams-keyed",
            lambda: Stand(is_keyed=True),
            _datagrams,
            datagram_seeds,
            _FRAME_WORDS,
        ),
        _stack("gzip", gzip_seeds, gzipped),
        _encryption("encrypt-gcm", _GCM),
        _encryption("encrypt-cbc", _CBC),
        _stack("fragments", fragment_seeds, plain_message),
        _stack("order", order_seeds, plain_message),
        Target("java", java_stand, java, java_seeds, _JAVA_WORDS),
        Target("managers", lambda: Stand(sessions=4), _manager_messages, manager_seeds),
    )
}
