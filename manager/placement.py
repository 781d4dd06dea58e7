"""Where things lie that not every member holds: a rule that each computes for itself (DESIGN §5.5).

What is to be placed is cut into `PARTS`. The candidates are ordered by a hash of their unique id
and the part (rendezvous hashing): when one comes or goes only the parts move that gain or lose it.
The first ones hold it, on different hosts as long as there are any, and in different zones. Which
of them owns it costs nothing to change, so owning is shared out evenly.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from .session_ids import PARTITIONS, partition_of

if TYPE_CHECKING:
    from tribes.wire.member import Member

__all__ = [
    "PARTS",
    "PER_PART",
    "WEIGHT_MAX",
    "Candidate",
    "order_of",
    "part_of",
    "place_all",
    "placed_on",
]

PARTS: Final = 64
"""Each is placed as a whole: 64 of the 4,096 partitions by which digests are kept."""

PER_PART: Final = PARTITIONS // PARTS
"""Partitions of a part, which lie one behind the other."""

WEIGHT_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Candidate:
    """A member that may hold parts.

    Attributes:
        member: Who.
        weight: How much of everything it takes, compared with the others'; 0: nothing more.
        zone: What fails together with it, beside its host: a rack, a data centre.
    """

    member: Member
    weight: int = 1
    zone: str = ""


def part_of(session_id: str) -> int:
    """Return the part that a session lies in, by its key or any other of its ids."""
    return partition_of(session_id) * PARTS // PARTITIONS


def order_of(part: int, candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the candidates in the order in which they hold a part; equal on all members."""
    return sorted(candidates, key=lambda each: (_rank(part, each), each.member.unique_id))


def _rank(part: int, candidate: Candidate) -> bytes:
    # The best of as many draws as it has weight.
    mark = candidate.member.unique_id + part.to_bytes(2, "big")
    draws = [mark + (bytes((i,)) if i else b"") for i in range(max(candidate.weight, 1))]
    return min(blake2b(draw, digest_size=8).digest() for draw in draws)


def placed_on(part: int, candidates: Iterable[Candidate], copies: int) -> list[Member]:
    """Return the members that should hold a part, in their order.

    Args:
        part: Which.
        candidates: Who can. Without any whose weight is not 0, all of them.
        copies: How many beside the owner.
    """
    known = list(candidates)
    rest = order_of(part, [each for each in known if each.weight > 0] or known)
    chosen: list[Candidate] = []
    while rest and len(chosen) <= copies:
        hosts = {each.member.host for each in chosen}
        zones = {each.zone for each in chosen}
        best = min(rest, key=lambda each: (each.member.host in hosts, each.zone in zones))
        rest.remove(best)
        chosen.append(best)
    return [each.member for each in chosen]


def place_all(candidates: Iterable[Candidate], copies: int) -> list[list[Member]]:
    """Return for each part the members that should hold it, its owner first.

    The owner is the one of them that owns least so far, by its weight.
    """
    known = list(candidates)
    weights = {each.member: max(each.weight, 1) for each in known}
    owned = dict.fromkeys(weights, 0)
    places = []
    for part in range(PARTS):
        placed = placed_on(part, known, copies)
        if placed:
            owner = min(placed, key=lambda member: (owned[member] + 1) / weights[member])
            owned[owner] += 1
            placed.remove(owner)
            placed.insert(0, owner)
        places.append(placed)
    return places
