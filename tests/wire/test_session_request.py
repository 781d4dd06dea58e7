"""A Tomcat's request for all sessions: its bytes, what is read of it, and what is not."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.errors import RemoteProtocolError
from tribes.wire.java import encode_java
from tribes.wire.session_request import (
    CONTEXT_MAX_CHARS,
    encode_no_context,
    encode_request,
    requested_context,
)

BY_TOMCAT = bytes.fromhex(
    "aced0005737200316f72672e6170616368652e636174616c696e612e68612e73657373696f6e2e5365737369"
    "6f6e4d657373616765496d706c00000000000000020200074900086d457674547970654a001673657269616c"
    "697a6174696f6e54696d657374616d705a000c74696d657374616d705365744c000c6d436f6e746578744e61"
    "6d657400124c6a6176612f6c616e672f537472696e673b5b00086d53657373696f6e7400025b424c000a6d53"
    "657373696f6e494471007e00014c0008756e69717565496471007e0001787200296f72672e6170616368652e"
    "636174616c696e612e68612e436c75737465724d6573736167654261736500000000000000010200014a0009"
    "74696d657374616d70787000000000000000000000000401020304050607080174000e6c6f63616c686f7374"
    "232f617070707400074745542d414c4c7400164745542d414c4c2d6c6f63616c686f7374232f617070"
)
"""What Java writes for such a request (Tomcat 10.1.60), with a made-up time."""

CONTEXTS = st.text(min_size=1, max_size=CONTEXT_MAX_CHARS)


def test_the_bytes_are_those_of_tomcat() -> None:
    """Of the class description, which is compared whole, and of what follows."""
    assert encode_request("localhost#/app", 0x0102030405060708) == BY_TOMCAT
    assert requested_context(BY_TOMCAT) == "localhost#/app"


def test_the_answer_differs_in_event_time_and_names_alone() -> None:
    """Event 16, no time, and the names that Tomcat gives it; it is no request itself."""
    answer = encode_no_context("localhost#/app")
    context = BY_TOMCAT.index(b"t\0\x0elocalhost")
    numbers = bytes(8) + b"\0\0\0\x10" + bytes(9)
    assert answer[: context - len(numbers)] == BY_TOMCAT[: context - len(numbers)]
    assert answer[context - len(numbers) : context] == numbers
    names = b"t\0\x12NO-CONTEXT-MANAGERt\0\x20NO-CONTEXT-MANAGERlocalhost#/app"
    assert answer[context:] == b"t\0\x0elocalhost#/appp" + names
    assert requested_context(answer) is None


@given(CONTEXTS, st.integers(-(2**63), 2**63 - 1))
def test_any_context_comes_back(context: str, timestamp: int) -> None:
    """Whatever its characters."""
    assert requested_context(encode_request(context, timestamp)) == context


@pytest.mark.parametrize("context", ["", "x" * (CONTEXT_MAX_CHARS + 1)])
def test_a_name_that_nobody_has_is_refused(context: str) -> None:
    """It would be sent back."""
    with pytest.raises(RemoteProtocolError):
        requested_context(encode_request(context, 0))


@given(st.integers(0, len(BY_TOMCAT) - 1), st.integers(0, 255))
def test_spoiled_and_cut_bytes_are_refused_or_read(at: int, byte: int) -> None:
    """With the one error, or as another message; never anything else."""
    spoiled = BY_TOMCAT[:at] + bytes((byte,)) + BY_TOMCAT[at + 1 :]
    for stream in (spoiled, BY_TOMCAT[:at], BY_TOMCAT + spoiled[at:]):
        with suppress(RemoteProtocolError):
            found = requested_context(stream)
            assert found is None or isinstance(found, str)


def test_other_messages_are_left_alone() -> None:
    """Other Java objects, and other events of the same class."""
    assert requested_context(encode_java("text")) is None
    assert requested_context(b"") is None
    created = BY_TOMCAT.replace(b"\0\0\0\x04\x01\x02", b"\0\0\0\x01\x01\x02")
    assert created != BY_TOMCAT
    assert requested_context(created) is None
