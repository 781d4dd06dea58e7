"""Where entries of lazy maps lie: the same for all, evenly, and moving little."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tribes.manager.placement import Candidate, order_of, part_of, placed_on
from tribes.maps.placement import PARTITIONS, partition_of_entry
from tribes.wire.member import Member


def members(count: int, seed: int = 0) -> list[Candidate]:
    random = Random(seed)
    return [
        Candidate(Member(host=b"\x7f\x00\x00\x01", port=4000 + i, unique_id=random.randbytes(16)))
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


def test_copies_lie_on_other_hosts_and_in_other_zones() -> None:
    """As long as there are any: two members of one machine don't hold the same sessions."""
    known = [
        Candidate(
            Member(host=bytes((10, 0, 0, i // 2)), port=4000 + i, unique_id=bytes([i]) * 16),
            zone="east" if i < 4 else "west",
        )
        for i in range(8)
    ]
    zone_of = {each.member: each.zone for each in known}
    for part in range(PARTITIONS):
        placed = placed_on(part, known, 1)
        assert len({member.host for member in placed}) == 2
        assert {zone_of[member] for member in placed} == {"east", "west"}
        assert len({member.host for member in placed_on(part, known, 3)}) == 4
        assert len(placed_on(part, known, 7)) == 8


def test_weights_share_the_parts() -> None:
    """Twice the weight, about twice the parts; without weight none, unless nobody has any."""
    shares: Counter[int] = Counter()
    for seed in range(30):
        plain = members(3, seed)
        known = [
            Candidate(each.member, weight) for each, weight in zip(plain, (0, 1, 2), strict=True)
        ]
        places = [each.member for each in known]
        shares.update(places.index(placed_on(p, known, 0)[0]) for p in range(PARTITIONS))
        assert placed_on(0, [Candidate(each.member, 0) for each in plain], 1)
    assert shares[0] == 0
    assert 1.8 < shares[2] / shares[1] < 2.2


@given(st.integers(2, 9), st.integers(0, 1000))
def test_t86_a_join_moves_less_than_two_nths(count: int, seed: int) -> None:
    """Of all copies, whatever their number; and none but to the newcomer."""
    known = members(count + 1, seed)
    for copies in (1, 2):
        moved = 0
        for part in range(PARTITIONS):
            before = set(placed_on(part, known[1:], copies))
            after = set(placed_on(part, known, copies))
            assert after - before <= {known[0].member}
            moved += len(after - before)
        assert moved < PARTITIONS * 2 * (1 + copies) / count


def test_every_id_of_a_session_is_in_its_part() -> None:
    """It is told from the first three digits, which a rotated id keeps."""
    assert part_of("000" + "F" * 29) == 0
    assert part_of("FFF" + "0" * 29) == 63
    assert part_of("040") == 1
