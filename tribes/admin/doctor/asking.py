"""Asks who is at an address, as a member does that has found one (:mod:`tribes.links.challenge`).

Who answers proves the key, and tells its clock and its version. It is asked twice: the second time
with a question longer than a packet, which does not arrive where long packets are lost on the way.
"""

from __future__ import annotations

import enum
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import trio

from tribes.errors import RemoteProtocolError
from tribes.ids import make_unique_id
from tribes.links.challenge import Introduction, decode_introduction
from tribes.links.own_opening import Opened, Opening
from tribes.links.own_wire import ANYBODY, OwnSide, Refusal, RefuseCode
from tribes.runtime.dialing import dial, send_all
from tribes.runtime.tls import TlsStream, shake_hands
from tribes.security.seal import LinkKeys
from tribes.wire.member import Member, encode_member, host_octets

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from tribes.admin.doctor.machine import Secrets

__all__ = ["Answer", "Outcome", "ask", "ask_all"]

_CONNECT_S: Final = 2.0
_ANSWER_S: Final = 2.0
_LONG_BYTES: Final = 16 * 1024
"""More than the packets of any usual network, jumbo ones included."""
_AT_ONCE: Final = 16
_READ_BYTES: Final = 64 * 1024


class Outcome(enum.Enum):
    """What came of a question."""

    MEMBER = "member"
    """A member of ours, which has proved the key if there is one."""
    REFUSED = "refused"
    """Nobody listens there."""
    SILENT = "silent"
    """No connection, or no answer."""
    OTHER_KEY = "other key"
    """A member of ours with other keys, or with one where there is none here."""
    OTHER_VERSION = "other version"
    """A member of ours that speaks no version of the protocol that is spoken here."""
    NOT_OURS = "not ours"
    """It closes the connection, or answers something else: a member of Tomcat, or no member."""
    TLS = "tls"
    """The handshake of TLS fails."""
    NO_ROUTE = "no route"
    """The kernel knows no way there."""


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of an address.

    Attributes:
        address: Host and port.
        outcome: What came of the question.
        why: In words, where it is no member.
        met: Who is there.
        ahead_ms: How far its clock is ahead of this machine's.
        unsure_ms: By how much that may be wrong: half of the round trip.
        takes_long: Whether a question longer than a packet was answered too.
    """

    address: tuple[str, int]
    outcome: Outcome
    why: str = ""
    met: Introduction | None = None
    ahead_ms: float = 0.0
    unsure_ms: float = 0.0
    takes_long: bool = True

    @property
    def label(self) -> str:
        """What people call it."""
        host, port = self.address
        at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return f"{self.met.record.label} at {at}" if self.met else at


async def ask_all(addresses: Iterable[tuple[str, int]], secrets: Secrets) -> list[Answer]:
    """Ask everybody, some at a time."""
    found: dict[tuple[str, int], Answer] = {}
    limiter = trio.CapacityLimiter(_AT_ONCE)
    wanted = list(dict.fromkeys(addresses))

    async def one(address: tuple[str, int]) -> None:
        async with limiter:
            found[address] = await ask(address, secrets)

    async with trio.open_nursery() as nursery:
        for address in wanted:
            nursery.start_soon(one, address)
    return [found[address] for address in wanted]


async def ask(address: tuple[str, int], secrets: Secrets) -> Answer:
    """Ask who is there, with a short question and a long one."""
    first = await _ask(address, secrets, 0)
    if first.outcome is not Outcome.MEMBER:
        return first
    second = await _ask(address, secrets, _LONG_BYTES)
    if second.outcome is Outcome.SILENT:
        return Answer(
            address,
            Outcome.MEMBER,
            second.why,
            first.met,
            first.ahead_ms,
            first.unsure_ms,
            takes_long=False,
        )
    return first


async def _ask(address: tuple[str, int], secrets: Secrets, payload: int) -> Answer:
    sock: socket.socket | None = None
    try:
        with trio.move_on_after(_CONNECT_S):
            sock = await dial(address)
        if sock is None:
            return Answer(address, Outcome.SILENT, f"no connection within {_CONNECT_S:g} s")
        with trio.move_on_after(_ANSWER_S):
            return await _talk(sock, address, secrets, payload)
        return Answer(address, Outcome.SILENT, f"no answer within {_ANSWER_S:g} s")
    except ConnectionRefusedError as why:
        return Answer(address, Outcome.REFUSED, why.strerror or str(why))
    except ConnectionAbortedError as why:
        return Answer(address, Outcome.TLS, str(why))
    except (RemoteProtocolError, ConnectionError) as why:
        return Answer(address, Outcome.NOT_OURS, str(why))
    except (OSError, OverflowError, ValueError) as why:
        return Answer(address, Outcome.NO_ROUTE, getattr(why, "strerror", None) or str(why))
    finally:
        if sock is not None:
            sock.close()


async def _talk(
    sock: socket.socket, address: tuple[str, int], secrets: Secrets, payload: int
) -> Answer:
    tls: TlsStream | None = None
    early = b""
    if secrets.tls is not None:
        tls = TlsStream(secrets.tls, address[0], is_server=False)
        early = await shake_hands(sock, tls)
    opening = _opening(sock.getsockname()[0], secrets, payload)
    began, began_ms = time.monotonic(), time.time() * 1000
    hello = opening.hello
    if tls is not None:
        tls.write(hello)
        hello = tls.take()
    await send_all(sock, hello)
    opened = opening.feed(early) if early else None
    while opened is None:
        await trio.lowlevel.wait_readable(sock)
        try:
            data = sock.recv(_READ_BYTES)
        except BlockingIOError:
            continue
        if not data:
            raise ConnectionResetError("it closes the connection instead of answering")
        opened = opening.feed(data if tls is None else tls.feed(data))
    half_ms = (time.monotonic() - began) * 1000 / 2
    if isinstance(opened, Refusal):
        return Answer(address, _OUTCOMES.get(opened.code, Outcome.NOT_OURS), opened.text)
    return _met(address, opened, began_ms + half_ms, half_ms)


_OUTCOMES: Final = {
    RefuseCode.KEY: Outcome.OTHER_KEY,
    RefuseCode.VERSION: Outcome.OTHER_VERSION,
}


def _met(address: tuple[str, int], opened: Opened, our_ms: float, half_ms: float) -> Answer:
    met = decode_introduction(opened.tail)
    ahead = 0.0 if met.about is None else met.about.wall_ms - our_ms
    return Answer(address, Outcome.MEMBER, "", met, ahead, half_ms)


def _opening(own: str, secrets: Secrets, payload: int) -> Opening:
    # Not a member's record: nobody asks back at port 1, and nothing of it is kept.
    record = Member(
        host=host_octets(own.partition("%")[0]),
        port=1,
        unique_id=make_unique_id(os.urandom(16)),
        payload=bytes(payload),
    )
    side = OwnSide(encode_member(record), record.unique_id)
    key = None
    if secrets.keys is not None:
        key = secrets.keys.current.id, LinkKeys(secrets.keys.current)
    return Opening(side, ANYBODY, key=key, incarnation=0, attempt=0, entropy=os.urandom)
