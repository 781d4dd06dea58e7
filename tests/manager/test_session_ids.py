"""Session ids: their form, their partition, and what a rotation keeps."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.errors import ConfigError
from tribes.manager.session_ids import PARTITIONS, SessionIds, is_possible_id, partition_of
from tribes.web.cookies import join_route, split_route

COUNT = int(os.environ.get("TRIBES_IDS", "50000"))
"""Ids that are made; ten million with the environment variable take minutes and a GB."""


def entropy(length: int) -> bytes:
    return bytes(range(0xA0, 0xA0 + length))


def test_an_id_is_upper_case_hexadecimal_like_tomcats() -> None:
    assert SessionIds(entropy).new() == "A0A1A2A3A4A5A6A7A8A9AAABACADAEAF"
    assert SessionIds(entropy, 2).new() == "A0A1"


@pytest.mark.parametrize("length", [-1, 0, 1, 65])
def test_a_length_out_of_range_is_a_configuration_error(length: int) -> None:
    with pytest.raises(ConfigError, match="2 to 64") as caught:
        SessionIds(entropy, length)
    assert caught.value.key == "manager.session_id_length"


@pytest.mark.parametrize(
    ("session_id", "partition"),
    [("000F", 0), ("FFFF", 4095), ("12CD", 0x12C), ("12cD", 0x12C), ("A0A1" * 8, 0xA0A)],
)
def test_the_first_three_digits_are_the_partition(session_id: str, partition: int) -> None:
    assert partition_of(session_id) == partition


@given(st.text())
def test_any_text_has_a_partition(text: str) -> None:
    assert 0 <= partition_of(text) < PARTITIONS


@pytest.mark.parametrize(
    ("text", "partition"),
    [
        ("", 0),
        ("1", 4023),
        ("-1F", 4022),
        ("1_2", 1710),
        (" 1A", 2374),
        ("0x1", 3910),
        ("\ud800ab", 3172),
        ("xyz123", 1673),
    ],
)
def test_what_only_looks_like_a_number_is_hashed(text: str, partition: int) -> None:
    """To the same partition on every node, of every release."""
    assert partition_of(text) == partition


@given(st.text(min_size=1))
def test_a_rotated_id_keeps_the_partition(key: str) -> None:
    rotated = SessionIds(entropy).rotated(key)
    assert partition_of(rotated) == partition_of(key)
    assert is_possible_id(rotated)
    assert len(rotated) == 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A0A1", True),
        ("0" * 128, True),
        ("A0A", False),
        ("0" * 129, False),
        ("a0a1", False),
        ("A0A1.n0", False),
        ("A0A1\n", False),
        ("", False),
    ],
)
def test_an_impossible_id_is_told_without_a_look_up(text: str, expected: bool) -> None:
    assert is_possible_id(text) is expected


def test_t97_ids_are_random_upper_case_hexadecimal_with_a_route_behind() -> None:
    """16 bytes are 32 digits; length from 2; ``.route`` behind; each bit is as often 0 as 1."""
    ids = SessionIds(os.urandom)
    made = {ids.new() for _ in range(COUNT)}
    assert len(made) == COUNT
    assert all(re.fullmatch("[0-9A-F]{32}", each) for each in made)
    for length in (2, 3, 64):
        assert re.fullmatch(f"[0-9A-F]{{{2 * length}}}", SessionIds(os.urandom, length).new())
    with pytest.raises(ConfigError):
        SessionIds(os.urandom, 1)
    session_id = ids.new()
    assert join_route(session_id, "n0") == f"{session_id}.n0"
    assert split_route(f"{session_id}.n0") == (session_id, "n0")
    # Each of 128 bits within six standard deviations of half.
    numbers = [int(each, 16) for each in made]
    for bit in range(128):
        ones = sum(number >> bit & 1 for number in numbers)
        assert abs(ones - COUNT / 2) < 6 * (COUNT**0.5) / 2
