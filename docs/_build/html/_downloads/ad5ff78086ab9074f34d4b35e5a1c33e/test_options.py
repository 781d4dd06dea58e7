from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.errors import ConfigError
from tribes.testing.strategies import i32
from tribes.wire.options import SendOptions, format_send_options, parse_send_options, wire_options


def test_the_flags_are_tomcats() -> None:
    """Names and values are those of tribes-wire §4.1; the default is USE_ACK."""
    assert {option.name: option.value for option in SendOptions} == {
        "BYTE_MESSAGE": 1,
        "USE_ACK": 2,
        "SYNCHRONIZED_ACK": 4,
        "ASYNCHRONOUS": 8,
        "SECURE": 16,
        "UDP": 32,
        "MULTICAST": 64,
    }
    assert SendOptions(2) is SendOptions.DEFAULT


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", 0),
        ("8", 8),
        ("+8", 8),
        ("-8", -8),
        ("0008", 8),
        ("0" * 10_000, 0),
        ("2147483647", 2**31 - 1),
        ("-2147483648", -(2**31)),
        ("async", 8),
        ("asynchronous", 8),
        ("byte_message, use_ack", 3),
        ("sync,use_ack", 6),
        ("synchronized_ack\t,\n use_ack", 6),
        ("udp,udp", 32),
        ("secure,multicast,byte", 81),
        ("sync,", 4),
        ("sync , ,", 4),
        ("sync , ", 4),
        (",", 0),
        (" , ", 0),
        (",,,", 0),
        (",sync", None),
        ("sync,,udp", None),
        (" ", None),
        (" async", None),
        ("async ", None),
        (" 8", None),
        ("8 ", None),
        ("ASYNC", None),
        ("Async", None),
        ("0x8", None),
        ("1_0", None),
        ("٣", None),
        ("8,2", None),
        ("2147483648", None),
        ("-2147483649", None),
        ("9" * 10_000, None),
        ("sync use_ack", None),
        ("sync;use_ack", None),
        ("default", None),
    ],
)
def test_t05_a_text_is_read_as_tomcat_reads_it(text: str, value: int | None) -> None:
    """Numbers and names give their options; None stands for a refusal."""
    if value is not None:
        assert parse_send_options(text) == value
        return
    with pytest.raises(ConfigError, match="asynchronous, secure, udp, multicast"):
        parse_send_options(text)


@given(i32())
def test_names_cover_the_named_bits(value: int) -> None:
    """What is printed is read again as the named bits of the value."""
    assert parse_send_options(format_send_options(value)) == value & 0x7F


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (0, ""),
        (8, "async"),
        (72, "multicast, async"),
        (127, "multicast, udp, secure, async, sync, use_ack, byte"),
        (256, ""),
        (-8, "multicast, udp, secure, async"),
    ],
)
def test_names_come_from_the_highest_bit_down(value: int, names: str) -> None:
    """Names are the short ones, in Tomcat's order; bits without a name are left out."""
    assert format_send_options(value) == names


@given(i32(), st.booleans())
def test_the_kind_of_message_decides_its_flag(options: int, is_bytes: bool) -> None:
    """BYTE_MESSAGE says what the message is, and all other bits are left alone."""
    sent = wire_options(options, is_bytes=is_bytes)
    assert sent & 1 == is_bytes
    assert sent >> 1 == options >> 1


def test_flags_of_applications_survive_an_enum() -> None:
    """Bits without a name stay set when the options come as an enum."""
    options = SendOptions.BYTE_MESSAGE | SendOptions.USE_ACK | 0x4000_0000
    sent = wire_options(options, is_bytes=False)
    assert sent == 0x4000_0002
    assert type(sent) is int
