from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.errors import ConfigError
from tribes.wire.byte_array import parse_byte_array


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("{1,2,3}", b"\1\2\3"),
        ("{-1,-128,127}", b"\xff\x80\x7f"),
        ("{+5,-0,007}", b"\5\0\7"),
        ("{" + "0" * 10_000 + "1}", b"\1"),
        ("{}", b""),
        ("{", b""),
        ("{1,2", b"\1\2"),
        ("{1,,2,}", b"\1\2"),
        ("{1}{2}3", b"\1\2\3"),
    ],
)
def test_what_tomcat_reads_is_read(text: str, octets: bytes) -> None:
    """Braces and commas separate, missing elements are passed over; strict or not."""
    assert parse_byte_array(text, strict=True) == octets
    assert parse_byte_array(text) == octets


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("{216,123,12,3}", b"\xd8\x7b\x0c\x03"),
        ("{255,128,-128}", b"\xff\x80\x80"),
        ("{1, 2}", b"\1\2"),
        (" { 1 ,\t2\n} ", b"\1\2"),
        ("{ }", b""),
    ],
)
def test_what_tomcat_refuses_can_be_read_here(text: str, octets: bytes) -> None:
    """Unsigned bytes and blanks are read, unless Tomcat's own rules are asked for."""
    assert parse_byte_array(text) == octets
    with pytest.raises(ConfigError):
        parse_byte_array(text, strict=True)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "1,2", "}1{", "{x}", "{0x1}", "{256}", "{-129}", "{1 2}", "{1.0}", "{1_0}"),
        *("{٣}", "{-}", "{--1}", "{+ 1}", "{" + "9" * 10_000 + "}"),
    ],
)
def test_the_rest_is_refused(text: str, strict: bool) -> None:
    """What is no list of bytes is an error that says what to write."""
    with pytest.raises(ConfigError, match=r"like \{1,2,3\}"):
        parse_byte_array(text, strict=strict)


@given(st.binary(max_size=40))
def test_signed_and_unsigned_elements_mean_the_same_bytes(octets: bytes) -> None:
    """Each byte can be written in both ways."""
    signed = ",".join(str(b - 256 if b > 127 else b) for b in octets)
    assert parse_byte_array(f"{{{signed}}}", strict=True) == octets
    assert parse_byte_array(f"{{{', '.join(map(str, octets))}}}") == octets
