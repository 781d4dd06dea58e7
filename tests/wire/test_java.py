"""Java objects: what is spoken comes back, everything else is refused, and nothing is trusted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.errors import LocalProtocolError, RemoteProtocolError
from tribes.wire.java import JavaByteArray, JavaLong, JavaUniqueId, JavaValue, encode_java
from tribes.wire.java_reader import decode_java
from tribes.wire.member import Member, host_octets

MEMBER = Member(host_octets("127.0.0.1"), 4000, bytes(range(16)), domain=b"d")
VALUES = st.one_of(
    st.none(),
    st.text(),
    st.binary(max_size=5000),
    st.binary(max_size=50).map(JavaByteArray),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(2**63), 2**63 - 1).map(JavaLong),
    st.binary(max_size=50).map(JavaUniqueId),
    st.binary(max_size=3000).map(lambda payload: MEMBER.replace(payload=payload)),
)


@given(VALUES)
def test_what_is_written_is_read_back(value: JavaValue) -> None:
    """The value comes back, and bytes, byte arrays and longs stay what they are."""
    back = decode_java(encode_java(value))
    assert back == value
    if type(value) is not int or -(2**31) <= value < 2**31:
        # A longer number is a Long in Java, whoever wrote it.
        assert type(back) is type(value)


@pytest.mark.parametrize("size", [0xFFFF, 0x10000])
def test_text_changes_its_form_at_64_kib(size: int) -> None:
    """Java counts a short text in 16 bits, a longer one in 64."""
    stream = encode_java("x" * size)
    assert stream[4] == (0x74 if size <= 0xFFFF else 0x7C)
    assert decode_java(stream) == "x" * size


def test_text_is_javas_modified_utf8() -> None:
    """NUL takes two bytes; a character beyond 16 bits is written as two halves of three bytes."""
    assert encode_java("\0").hex() == "aced0005740002c080"
    assert encode_java("\U0001f600").hex() == "aced0005740006eda0bdedb880"
    assert decode_java(bytes.fromhex("aced0005740006eda0bdedb880")) == "\U0001f600"


def test_zero_bytes_are_null() -> None:
    """As in Tomcat (TestXByteBuffer): an empty message holds no object."""
    assert decode_java(b"") is None


@pytest.mark.parametrize("value", [2**63, True, 1.5, [b"x"], {}])
def test_other_types_do_not_travel(value: object) -> None:
    """What Java would not read as the same is refused at the sender."""
    with pytest.raises(LocalProtocolError):
        encode_java(value)  # type: ignore[arg-type]


@given(VALUES, st.data())
def test_a_spoiled_stream_is_refused_or_read(value: JavaValue, data: st.DataObject) -> None:
    """Cut anywhere, or with any byte changed, it gives a value or a RemoteProtocolError."""
    stream = encode_java(value)
    cut = data.draw(st.integers(0, len(stream) - 1))
    if cut:
        with pytest.raises(RemoteProtocolError):
            decode_java(stream[:cut])
    changed = bytearray(stream)
    changed[cut] ^= data.draw(st.integers(1, 255))
    try:
        decode_java(bytes(changed))
    except RemoteProtocolError:
        pass


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_read(data: bytes) -> None:
    """No other exception leaves the reader."""
    for stream in (data, b"\xac\xed\x00\x05" + data):
        try:
            decode_java(stream)
        except RemoteProtocolError:
            pass


def test_an_unknown_class_is_refused_by_its_name() -> None:
    """Nothing of it is made; the error says what it was."""
    stream = bytes.fromhex("aced00057372") + b"\x00\x0ejava.util.Date" + bytes(8) + b"\x03\0\0xp"
    with pytest.raises(RemoteProtocolError, match=r"java\.util\.Date"):
        decode_java(stream)


def test_claimed_lengths_allocate_nothing() -> None:
    """A text of 2**62 bytes in a stream of 13 is refused."""
    with pytest.raises(RemoteProtocolError, match="cut short"):
        decode_java(bytes.fromhex("aced00057c4000000000000000"))


@pytest.mark.parametrize(
    "nested",
    [
        pytest.param("73720001780000000000000000020001" + "5b000161", id="types of fields"),
        pytest.param("72000178000000000000000002000078", id="superclasses"),
        pytest.param("757200025b42acf317f8060854e002000078", id="superclasses of an array"),
    ],
)
def test_nothing_nests_without_end(nested: str) -> None:
    """A stream of a million beginnings is refused, not followed until Python gives up."""
    stream = bytes.fromhex("aced000573") + bytes.fromhex(nested) * 50_000
    with pytest.raises(RemoteProtocolError):
        decode_java(stream)
    with pytest.raises(RemoteProtocolError):
        decode_java(stream[:4] + stream[5:])


@pytest.mark.parametrize("reference", ["007e0000", "007e0001", "007e0002", "7fffffff", "80000000"])
def test_a_reference_to_what_is_not_there_is_refused(reference: str) -> None:
    """Neither backwards out of the stream, nor to what is only being read."""
    whole = encode_java(JavaUniqueId(b"x"))
    at = whole.index(bytes.fromhex("757200025b42"))
    with pytest.raises(RemoteProtocolError):
        decode_java(whole[:at] + b"\x71" + bytes.fromhex(reference))


def test_a_static_member_is_a_member() -> None:
    """Tomcat's configured members are written as a subclass, with the same data."""
    name = b"org.apache.catalina.tribes.membership.StaticMember"
    plain = encode_java(MEMBER)
    static = plain[:5] + b"\x72\x00\x32" + name + bytes(8) + b"\x0c\0\0\x78" + plain[5:]
    back = decode_java(static)
    assert (back, getattr(back, "domain", None)) == (MEMBER, b"d")
