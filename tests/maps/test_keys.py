"""Keys of maps: every key has a name of its own and comes back from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.errors import LocalProtocolError
from tribes.maps.keys import KEY_MAX_CHARS, MapKey, decode_key, encode_key

KEYS = st.one_of(st.text(max_size=60), st.binary(max_size=60), st.integers(-(2**200), 2**200))


@given(KEYS)
def test_a_key_comes_back(key: MapKey) -> None:
    """With its type, from a name that a record can have."""
    name = encode_key(key)
    back = decode_key(name)
    assert (type(back), back) == (type(key), key)
    assert len(name) <= 256
    assert name.encode().decode() == name


@given(KEYS, KEYS)
def test_different_keys_have_different_names(one: MapKey, other: MapKey) -> None:
    """Also the text "1", the bytes b"1" and the number 1."""
    same = type(one) is type(other) and one == other
    assert (encode_key(one) == encode_key(other)) == same


@pytest.mark.parametrize(
    "key", ["x" * (KEY_MAX_CHARS + 1), bytes(KEY_MAX_CHARS + 1), 16**KEY_MAX_CHARS, "\ud800"]
)
def test_keys_have_bounds(key: MapKey) -> None:
    """Too long, or no text: refused at the writer."""
    with pytest.raises(LocalProtocolError, match="map key"):
        encode_key(key)


@pytest.mark.parametrize("key", [None, 1.5, True, ("a",), bytearray(b"x")])
def test_other_types_are_no_keys(key: object) -> None:
    """What msgpack or Python would take for another key is none."""
    with pytest.raises(LocalProtocolError, match="str, bytes or int"):
        encode_key(key)


@pytest.mark.parametrize("name", ["", "s", "zz:1", "0123ABCD", "n:", "n:G", "n:0x1", "n:01", "y:€"])
def test_foreign_names_are_no_keys(name: str) -> None:
    """A record that no map of ours made is not shown."""
    assert decode_key(name) is None
