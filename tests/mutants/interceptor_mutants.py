"""Broken interceptors: order, pieces, compression, encryption, two phases."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from tests.mutants.registry import LINKS, MESSAGES, STALL, add, every, nothing
from tribes.channel.core import ChannelCore, Held
from tribes.channel.inbound import Inbound
from tribes.channel.tickets import Ticket, divide
from tribes.interceptors import compress, fragment
from tribes.interceptors.compress import GzipInterceptor
from tribes.interceptors.encrypt import EncryptInterceptor, ReplayMemory
from tribes.interceptors.fragment import FragmentationInterceptor
from tribes.interceptors.order import OrderInterceptor
from tribes.interceptors.two_phase import TwoPhaseCommitInterceptor

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tribes.wire.member import Member

_DISPATCH: Final = {"class": "MessageDispatchInterceptor"}
_DETECTOR: Final = {"class": "TcpFailureDetector"}


def _with(name: str, **attributes: Any) -> dict[str, Any]:
    table = {"class": name, **attributes}
    return {
        **MESSAGES,
        "soon_s": 20.0,
        "message_options": (2, 6),
        "interceptors": (_DISPATCH, table, _DETECTOR),
    }


_ORDER: Final = _with("OrderInterceptor", expire=1000)
_PIECES: Final = _with("FragmentationInterceptor", maxSize=300)
_GZIP: Final = _with("GzipInterceptor")
_CIPHER: Final = _with("EncryptInterceptor", encryptionKey="ab" * 16)
_TWO_PHASES: Final = _with("TwoPhaseCommitInterceptor")


# ---- order -------------------------------------------------------------------------------------


def _not_held(self: Any) -> Held:
    # Nobody waits for what becomes of it.
    held = Held(self, None, Inbound())
    held.inbound.pending += 1
    return held


_count = OrderInterceptor._count


def _one_count(self: Any, member: Member) -> int:
    _count(self, member)
    self.mutant_sent = getattr(self, "mutant_sent", 0) + 1
    return int(self.mutant_sent)


def _skip_one(self: Any, member: Member) -> int:
    _count(self, member)
    return _count(self, member)


add(
    "order: one count for all",
    "All destinations share one count, so each sees gaps.",
    (OrderInterceptor, "_count", _one_count),
    changes=_ORDER,
)
add(
    "order: held counts as processed",
    "What is held because a number is missing is acknowledged at once, as in the reference.",
    (ChannelCore, "hold", _not_held),
    every(OrderInterceptor, "_count", 15, _skip_one),
    changes=_ORDER,
)
add(
    "order: nothing expires",
    "What waits for a lost message waits for ever.",
    (OrderInterceptor, "_overdue", lambda self, source, now: []),
    (OrderInterceptor, "_arm", nothing),
    faults=(*LINKS, *STALL),
    changes=_ORDER,
)
add(
    "order: one lost",
    "Each twenty-fifth message is dropped on receipt.",
    every(OrderInterceptor, "receive", 25, nothing),
    changes=_ORDER,
)


# ---- pieces ------------------------------------------------------------------------------------


def _first_part_ends(ticket: Ticket, parts: Sequence[Iterable[Member]]) -> list[Ticket]:
    made = divide(ticket, parts)
    for part in made[1:]:
        for member in list(part.waiting):
            part.settle(member, None, 0.0)
    return [made[0], *(Ticket(part) for part in parts[1:])]


add(
    "pieces: first ends the send",
    "A send is over when the first piece is acknowledged.",
    (fragment, "divide", _first_part_ends),
    faults=STALL,
    changes=_PIECES,
)
add(
    "pieces: one lost",
    "Each fiftieth message or piece is dropped on receipt.",
    every(FragmentationInterceptor, "receive", 50, nothing),
    changes=_PIECES,
)
_place = fragment._place


def _one_less(body: bytes) -> tuple[int, int]:
    index, count = _place(body)
    return index, max(1, count - 1)


add(
    "pieces: complete too soon",
    "A message counts as whole when all but its last piece are there.",
    (fragment, "_place", _one_less),
    changes=_PIECES,
)


# ---- compression and encryption ----------------------------------------------------------------

_decompress = compress.decompress


def _one_byte_less(data: bytes, *, max_bytes: int) -> bytes:
    return _decompress(data, max_bytes=max_bytes)[:-1]


add(
    "gzip: last byte lost",
    "What was compressed comes out one byte short.",
    (
        compress,
        "decompress",
        lambda data, *, max_bytes: _decompress(data, max_bytes=max_bytes)[:-1],
    ),
    changes=_GZIP,
)
_gzip_send = GzipInterceptor.send


def _unmarked(self: Any, message: Any, now: float, next: Any) -> None:  # noqa: A002
    def strip(sent: Any, then: float) -> None:
        sent.data.options &= ~self.option_flag
        next(sent, then)

    _gzip_send(self, message, now, strip)


add(
    "gzip: mark forgotten",
    "Each twentieth message is compressed and does not say so.",
    every(GzipInterceptor, "send", 20, _unmarked),
    changes=_GZIP,
)
add(
    "encrypt: fresh is a copy",
    "Each thirtieth message is taken for a copy and dropped.",
    every(ReplayMemory, "add", 30, lambda self, timestamp, iv: False),
    changes=_CIPHER,
)
add(
    "encrypt: window of nothing",
    "Each fortieth message is taken for too old.",
    every(ReplayMemory, "check_time", 40, lambda self, timestamp, now: "it is old"),
    changes=_CIPHER,
)
add(
    "encrypt: refusal not told",
    "What cannot be read is dropped, and its sender told that it was processed.",
    every(ReplayMemory, "check_time", 40, lambda self, timestamp, now: "it is old"),
    (EncryptInterceptor, "_refuse", nothing),
    changes=_CIPHER,
)
_encrypt_send = EncryptInterceptor.send


def _same_vector(self: Any, message: Any, now: float, next: Any) -> None:  # noqa: A002
    context = self.context
    self.context = SimpleNamespace(wall_ms=context.wall_ms, event=context.event, entropy=bytes)
    try:
        _encrypt_send(self, message, now, next)
    finally:
        self.context = context


add(
    "encrypt: one vector for all",
    "Every message has the same vector, so that all but the first are copies.",
    (EncryptInterceptor, "send", _same_vector),
    changes=_CIPHER,
)


# ---- two phases --------------------------------------------------------------------------------


def _ends_well(self: Any, sending: Any, now: float) -> None:
    for member in sending.message.destinations:
        sending.message.ticket.settle(member, sending.faulty.get(member), now)


add(
    "two phases: no second one",
    "Each tenth message is not confirmed, and its send ends well all the same.",
    every(TwoPhaseCommitInterceptor, "_second_phase", 10, _ends_well),
    changes=_TWO_PHASES,
)
