"""Somebody on the network of a simulated group with a key: hears all of it, and has no key.

It makes, without end, what such a one can make: heartbeats, farewells, connections that say HELLO,
START and sealed records or plain frames, and answers on connections that were meant for somebody
else. All of it is invented, heard before, or something heard with changes.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from tribes.links.own_wire import CONTROL_MARK, OwnSide, Start, encode_hello, encode_start
from tribes.security.keys import GroupKey, KeyRing
from tribes.security.mark import MARK_BYTES, Mark, Marker, split
from tribes.wire.data import encode_data_frame
from tribes.wire.frame import FRAME_START, encode_frame
from tribes.wire.member import SHUTDOWN_COMMAND, Member, decode_member, encode_member
from tribes.wire.outputs import Close, Connect, Write

if TYPE_CHECKING:
    from random import Random

    from tribes.channel.core import Output
    from tribes.testing.sim import SimNode, World

__all__ = ["FIRST_LINK", "KINDS", "Forger", "Victim"]

FIRST_LINK: Final = 10**9
"""Connections of the forger have numbers from here on."""

_BODY_AT: Final = 11
_HEARD_MAX: Final = 400
_COUNTER_AT: Final = 16 - MARK_BYTES


class Victim:
    """A node, and the connections that it takes for those of its network but that end here."""

    def __init__(self, node: SimNode) -> None:
        self.node = node
        self.core = node.core.channel
        self.hijacked: set[tuple[str, int]] = set()
        """Addresses at which the forger accepts what this node connects."""
        self.attempts: list[int] = []
        self.closed: set[int] = set()
        self._take = self.core.take_outputs
        self.core.take_outputs = self._filtered  # type: ignore[method-assign]

    def _filtered(self) -> list[Output]:
        return [output for output in self._take() if not self._is_ours(output)]

    def _is_ours(self, output: Output) -> bool:
        if isinstance(output, Connect) and output.address in self.hijacked:
            self.attempts.append(output.attempt)
            return True
        if isinstance(output, Write | Close) and output.link >= FIRST_LINK:
            if isinstance(output, Close):
                self.closed.add(output.link)
            return True
        return False

    @property
    def now(self) -> float:
        return self.node.clock.monotonic()


class Forger:
    """Makes forgeries.

    Args:
        world: The simulated network; what is sent on it is heard.
        random: Makes its choices.
    """

    def __init__(self, world: World, random: Random) -> None:
        self.made: Counter[str] = Counter()
        """Forgeries so far, by kind."""
        self.proved: list[object] = []
        """What a victim took for a proof: must stay empty."""
        self._random = random
        self._links = itertools.count(FIRST_LINK)
        self._open: list[tuple[Victim, int]] = []
        self._datagrams: list[bytes] = []
        self._heard: dict[tuple[str, int], list[bytes]] = {}
        self._openings: dict[str, list[list[bytes]]] = {}
        self._answers: list[list[bytes]] = []
        self._lives: dict[bytes, Mark] = {}
        """The latest mark of each member; that it is heard by everybody is no secret of its own."""
        world.watch(("datagram", "bytes"), self._hear)

    # What it hears.

    def _hear(self, time: float, node: str, kind: str, detail: Any) -> None:
        del time
        if kind == "datagram":
            self._datagrams.append(detail)
            record, mark = split(detail)
            if mark is not None:
                self._lives[decode_member(record).unique_id] = mark
            if len(self._datagrams) > _HEARD_MAX:
                # Old ones too: of the dead, and of what was sent long ago.
                del self._datagrams[self._random.randrange(_HEARD_MAX)]
            return
        link, data = detail
        known = self._heard.get((node, link))
        if known is None:
            known = self._heard[node, link] = []
            is_answer = data[_BODY_AT : _BODY_AT + 4] == CONTROL_MARK + b"\x02"
            where = self._answers if is_answer else self._openings.setdefault(node, [])
            where.append(known)
            if len(where) > _HEARD_MAX:
                del where[self._random.randrange(_HEARD_MAX)]
        if len(known) < 16:
            known.append(data)

    # What it makes.

    def strike(self, victim: Victim, kind: str, members: list[Member]) -> None:
        """Make one forgery of a kind in `KINDS` against a node, of things that these have sent."""
        self.made[kind] += 1
        if kind in _DATAGRAMS:
            data = _DATAGRAMS[kind](self, members)
            victim.core.datagram(data, ("10.9.9.9", 45564), victim.now)
        elif kind in _STREAMS:
            self._connect(victim, _STREAMS[kind](self, members, victim.core.local))
        else:
            self._answer(victim, kind, self._random.choice(members))

    def hang_up(self) -> None:
        """Close every connection that was left open."""
        for victim, link in self._open:
            if link not in victim.closed:
                victim.core.link_closed(link, None, victim.now)
        self._open.clear()

    def _connect(self, victim: Victim, data: bytes) -> None:
        random, core, link = self._random, victim.core, next(self._links)
        core.link_opened(link, victim.now, peer=(f"10.{link % 251}.{link % 241}.{link % 239}", 1))
        cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.randrange(3)))
        for begin, end in itertools.pairwise((0, *cuts, len(data))):
            if begin < end:
                core.link_bytes(link, data[begin:end], victim.now)
        if random.randrange(40):
            core.link_closed(link, None, victim.now)
        else:
            self._open.append((victim, link))

    def _answer(self, victim: Victim, kind: str, member: Member) -> None:
        """Answer the question to a member in its place."""
        results: list[Exception | None] = []
        victim.hijacked.add(member.address)
        victim.core._roster.probe(
            member,
            b"",
            options=0,
            expect_reply=True,
            connect_timeout=1.0,
            reply_timeout=1.0,
            answer=lambda error, now: results.append(error),
        )
        victim.node.pump()
        victim.hijacked.discard(member.address)
        for attempt in victim.attempts:
            link = next(self._links)
            core, now = victim.core, victim.now
            core.link_opened(link, now, peer=member.address, attempt=attempt)
            data = _ANSWERS[kind](self)
            core.link_bytes(link, data, now)
            core.link_closed(link, None, now)
        victim.attempts.clear()
        self.proved += [kind for result in results if result is None]

    # Changes.

    def _flip(self, data: bytes) -> bytes:
        if not data:
            return b"?"
        changed = bytearray(data)
        for _ in range(self._random.choice((1, 1, 1, 2, 8))):
            bit = self._random.randrange(8 * len(changed))
            changed[bit >> 3] ^= 1 << (bit & 7)
        return bytes(changed)

    def _cut(self, data: bytes) -> bytes:
        return data[: self._random.randrange(len(data) or 1)]

    def _datagram(self) -> bytes:
        return self._random.choice(self._datagrams)

    def _stream(self, heard: list[list[bytes]]) -> bytes:
        return b"".join(self._random.choice(heard))

    def _opening(self, target: Member) -> bytes:
        """What somebody has said on a link, mostly one to this member."""
        names = list(self._openings)
        name = target.label if self._random.randrange(5) else self._random.choice(names)
        return self._stream(self._openings[name])

    def _patched(self, members: list[Member]) -> bytes:
        """Another counter, incarnation, key id or record under a tag that was true."""
        del members
        data = bytearray(self._datagram())
        at = self._random.choice((_COUNTER_AT + 7, _COUNTER_AT, _COUNTER_AT - 1, -17))
        data[at] = (data[at] + 1) & 0xFF
        return bytes(data)

    def _spliced(self, members: list[Member]) -> bytes:
        del members
        return self._datagram()[:-MARK_BYTES] + self._datagram()[-MARK_BYTES:]

    def _record(self, members: list[Member]) -> Member:
        member = self._random.choice(members)
        if self._random.randrange(4):
            return member
        port = self._random.randrange(1, 65536)
        return Member(member.host, port, self._random.randbytes(16), payload=b"ghost")

    def _heartbeat(self, members: list[Member]) -> bytes:
        return self._signed(self._record(members).replace(alive=self._random.getrandbits(40)))

    def _farewell(self, members: list[Member]) -> bytes:
        return self._signed(self._record(members).replace(command=SHUTDOWN_COMMAND, alive=2**40))

    def _signed(self, record: Member) -> bytes:
        """With the next counter of its true incarnation, mostly, and a key that is none of ours."""
        random, known, data = self._random, self._lives.get(record.unique_id), encode_member(record)
        key_id = random.choice((0, 1, 1, 2, 200))
        keys = KeyRing([GroupKey(key_id, bytes([99]) * 32)]) if key_id else None
        if known is None or not random.randrange(4):
            known = Mark(0, random.getrandbits(64) | 1, 1 << 40)
        marker = Marker(known.incarnation, keys=keys)
        marker.counter = known.counter + random.randrange(3)
        return marker.mark(data) if random.randrange(5) else data

    def _plain(self, members: list[Member], target: Member) -> bytes:
        del target
        frame = encode_data_frame(
            self._random.choice((0, 2, 6, 8, 10)),
            0,
            self._random.randbytes(16),
            encode_member(self._record(members)),
            self._random.randbytes(self._random.randrange(60)),
        )
        return frame * self._random.choice((1, 1, 3))

    def _hello(self, members: list[Member], target: Member) -> bytes:
        record = self._record(members)
        hello = encode_hello(
            OwnSide(encode_member(record), record.unique_id),
            incarnation=self._random.getrandbits(64),
            attempt=self._random.getrandbits(32),
            target=target.unique_id,
            nonce=self._random.randbytes(16),
            key_id=self._random.choice((0, 1, 1, 1, 2)),
        )
        start = Start(self._random.choice((1, 1, 5)), self._random.randbytes(16))
        rest = self._opening(target)
        rest = rest[rest.find(FRAME_START, 1) :] if self._random.randrange(2) else rest[-200:]
        return encode_frame(hello) + encode_frame(encode_start(start)) + rest

    def _sealed_alone(self, members: list[Member], target: Member) -> bytes:
        """A true HELLO, and then records without START, or with that of another link."""
        del members
        one, two = self._opening(target), self._opening(target)
        end = one.find(FRAME_START, 1)
        return one[: end if end > 0 else len(one)] + two[-self._random.randrange(1, 300) :]


Make = Callable[[Forger, list[Member]], bytes]

_DATAGRAMS: Final[dict[str, Make]] = {
    "heartbeat made up": Forger._heartbeat,
    "farewell made up": Forger._farewell,
    "datagram again": lambda self, members: self._datagram(),
    "datagram, bits flipped": lambda self, members: self._flip(self._datagram()),
    "datagram cut": lambda self, members: self._cut(self._datagram()),
    "datagram and more": lambda self, members: self._datagram()[:-1] + self._random.randbytes(9),
    "record and mark of two": Forger._spliced,
    "number changed": Forger._patched,
    "mark taken off": lambda self, members: self._datagram()[:-MARK_BYTES],
}

_STREAMS: Final[dict[str, Callable[[Forger, list[Member], Member], bytes]]] = {
    "plain frames": Forger._plain,
    "hello made up": Forger._hello,
    "link again": lambda self, members, target: self._opening(target),
    "link, bits flipped": lambda self, members, target: self._flip(self._opening(target)),
    "link cut": lambda self, members, target: self._cut(self._opening(target)),
    "two links": lambda self, members, target: (
        self._cut(self._opening(target)) + self._opening(target)
    ),
    "records of another link": Forger._sealed_alone,
    "answers sent back": lambda self, members, target: self._stream(self._answers),
    "junk": lambda self, members, target: (
        self._random.choice((b"", FRAME_START, FRAME_START + b"\0\0\0\x30"))
        + self._random.randbytes(self._random.randrange(1, 90))
    ),
}

_ANSWERS: Final[dict[str, Callable[[Forger], bytes]]] = {
    "answer again": lambda self: self._stream(self._answers),
    "answer, bits flipped": lambda self: self._flip(self._stream(self._answers)),
    "answer cut": lambda self: self._cut(self._stream(self._answers)),
    "question sent back": lambda self: self._stream(
        self._random.choice(list(self._openings.values()))
    ),
    "refusal": lambda self: encode_frame(b"TPY\x03" + bytes((self._random.randrange(6), 0))),
}

KINDS: Final = (*_DATAGRAMS, *_STREAMS, *_ANSWERS)
