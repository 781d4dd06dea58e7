"""Broken interceptors: order, pieces, compression, encryption, two phases."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.interceptors import (
    test_compress,
    test_dispatch,
    test_domain,
    test_election,
    test_encrypt,
    test_failure,
    test_fragment,
    test_order,
    test_static,
    test_two_phase,
)
from tests.mutants.registry import LINKS, MESSAGES, STALL, add, every, nothing
from tribes.channel.inbound import Inbound
from tribes.channel.receiving import Held, Receiving
from tribes.channel.tickets import Ticket, divide
from tribes.interceptors import compress, election, fragment
from tribes.interceptors.compress import GzipInterceptor
from tribes.interceptors.dispatch import MessageDispatchInterceptor
from tribes.interceptors.domain import DomainFilterInterceptor
from tribes.interceptors.election import NonBlockingCoordinator
from tribes.interceptors.encrypt import EncryptInterceptor, ReplayMemory
from tribes.interceptors.failure import TcpFailureDetector
from tribes.interceptors.fragment import FragmentationInterceptor
from tribes.interceptors.order import OrderInterceptor
from tribes.interceptors.static import StaticMembershipInterceptor
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
    (Receiving, "hold", _not_held),
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
    test=test_fragment.test_send_ends_when_every_piece_has,
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
    (compress, "decompress", _one_byte_less),
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


# ---- what no plan can show: bounds, strangers, elections ---------------------------------------


def _boundless(data: bytes, *, max_bytes: int) -> bytes:
    del max_bytes
    return _decompress(data, max_bytes=1 << 30)


add(
    "gzip: bomb goes off",
    "What a message may become has no bound.",
    (compress, "decompress", _boundless),
    test=test_compress.test_bomb_is_refused_before_it_goes_off,
)
add(
    "pieces: no bound on all",
    "Incomplete messages are kept without a bound on their bytes.",
    (FragmentationInterceptor, "_make_room", nothing),
    test=test_fragment.test_what_is_kept_in_all_is_bounded_and_the_oldest_goes_first,
)
add(
    "pieces: no expiry",
    "Incomplete messages are kept for ever.",
    (FragmentationInterceptor, "_arm", nothing),
    test=test_fragment.test_incomplete_message_expires_by_the_timer,
)
add(
    "order: strangers kept",
    "Everybody who ever sent something has a count for ever.",
    (OrderInterceptor, "_forget_strangers", lambda self, table: []),
    test=test_order.test_made_up_sources_cost_no_memory,
)
_admit_waiting = MessageDispatchInterceptor._admit_waiting


def _admit_inside(self: Any, now: float) -> None:
    self._is_admitting = False
    _admit_waiting(self, now)


def _forgotten_stranger() -> None:
    with pytest.MonkeyPatch.context() as patch:
        test_order.test_forgotten_stranger_s_messages_count_as_not_processed(patch)


add(
    "order: strangers dropped in silence",
    "What is held of a stranger goes with its count, and its sender waits for ever.",
    (OrderInterceptor, "_drop_held", nothing),
    test=_forgotten_stranger,
)
add(
    "pieces: refused and collected anew",
    "What follows a refused piece is acknowledged, and kept until it expires.",
    (FragmentationInterceptor, "_refuse", FragmentationInterceptor._drop),
    test=partial(
        test_fragment.test_further_pieces_of_a_message_that_was_refused_are_refused_too,
        test_fragment.piece(b"x", 1, 7),
    ),
)
add(
    "dispatch: one inside the other",
    "What fails at once lets the next message through in its own call.",
    (MessageDispatchInterceptor, "_admit_waiting", _admit_inside),
    test=test_dispatch.test_all_that_waited_for_a_member_that_is_gone_fail_with_what_is_wrong,
)
add(
    "detector: the gone stay",
    "Of members that left while they were tested something is kept.",
    (TcpFailureDetector, "_clear", nothing),
    test=partial(
        test_failure.test_nothing_is_kept_of_a_member_that_left_while_it_was_tested,
        ConnectionResetError("reset"),
        TimeoutError("no answer"),
    ),
)
add(
    "encrypt: copies pass",
    "A copy of a message is delivered again.",
    (ReplayMemory, "add", lambda self, timestamp, iv: True),
    test=test_encrypt.test_copy_is_delivered_once,
)
add(
    "two phases: no bound",
    "Unconfirmed messages are kept without a bound and for ever.",
    (TwoPhaseCommitInterceptor, "_drop_first", nothing),
    (TwoPhaseCommitInterceptor, "_arm", nothing),
    test=test_two_phase.test_unconfirmed_message_expires,
)
add(
    "two phases: nobody is first",
    "What is decided waits for others for ever.",
    (TwoPhaseCommitInterceptor, "_is_first", lambda self, sending: False),
    test=test_two_phase.test_messages_to_one_member_are_confirmed_in_order,
)
add(
    "domain: messages pass",
    "Messages of other domains are delivered.",
    (
        DomainFilterInterceptor,
        "receive",
        lambda self, message, now, following: following(message, now),
    ),
    test=test_domain.test_messages_of_other_domains_are_dropped_and_told_now_and_then,
)
add(
    "static: asked once",
    "A configured member that was not there is never asked again.",
    (StaticMembershipInterceptor, "_announce", nothing),
    test=test_static.test_member_that_is_not_there_is_asked_again,
)
add(
    "election: older view stays",
    "A member whose view is not what it sees does not ask.",
    (NonBlockingCoordinator, "on_heartbeat", nothing),
    test=test_election.test_member_with_an_older_view_is_told_the_newer_one,
)
add(
    "election: never given up",
    "A lost request blocks elections for ever.",
    (NonBlockingCoordinator, "_give_up", nothing),
    test=test_election.test_election_that_ends_nowhere_is_given_up,
)
add(
    "election: for ever round",
    "A request goes round as often as it comes by.",
    (election, "PASSES_MAX", 10**9),
    test=test_election.test_ten_passes_are_too_many,
)
