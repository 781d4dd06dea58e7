"""Where entries of lazy maps lie: the same for all, evenly, and moving little."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tribes.maps.placement import PARTITIONS, order_of, partition_of_entry
from tribes.wire.member import Member


def members(count: int, seed: int = 0) -> list[Member]:
    random = Random(seed)
    return [
        Member(host=b"\x7f\x00\x00\x01", port=4000 + i, unique_id=random.randbytes(16))
        for i in range(count)
    ]


@given(st.integers(1, 9), st.integers(0, 1000), st.randoms(use_true_random=False))
def test_all_members_compute_the_same_order(count: int, seed: int, random: Random) -> None:
    """In whatever order they know each other."""
    known = members(count, seed)
    mixed = known[:]
    random.shuffle(mixed)
    for partition in range(0, PARTITIONS, 7):
        assert order_of(partition, known) == order_of(partition, mixed)


@given(st.integers(2, 9), st.integers(0, 1000))
def test_a_member_that_goes_moves_only_what_it_held(count: int, seed: int) -> None:
    """The order of the others stays: their primaries stay, and backups move up by one."""
    known = members(count, seed)
    gone = known[0]
    for partition in range(PARTITIONS):
        before = order_of(partition, known)
        assert order_of(partition, known[1:]) == [m for m in before if m != gone]


def test_partitions_are_shared_evenly() -> None:
    """Over many groups of four, each member is primary of a quarter, more or less."""
    shares = Counter(
        known.index(order_of(partition, known)[0])
        for seed in range(50)
        for known in [members(4, seed)]
        for partition in range(PARTITIONS)
    )
    assert all(700 < share < 900 for share in shares.values())


@given(st.text(max_size=50))
def test_every_entry_has_a_partition(name: str) -> None:
    """A number below 64, also of names that nobody can make."""
    assert 0 <= partition_of_entry(name.encode("utf-8", "replace").decode()) < PARTITIONS
