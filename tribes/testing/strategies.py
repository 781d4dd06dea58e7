"""Hypothesis strategies for everything that crosses the wire.

They give what our own encoders accept, with sizes that keep an example readable. For what a peer
may send besides that, damage the encoding with `mutations`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from tribes.ids import UNIQUE_ID_BYTES
from tribes.wire.data import ChannelData
from tribes.wire.limits import HOST_MAX_BYTES, UNIQUE_ID_MAX_BYTES
from tribes.wire.member import SHUTDOWN_COMMAND, Member

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

__all__ = [
    "channel_data",
    "control_values",
    "frame_bodies",
    "hosts",
    "i32",
    "i64",
    "members",
    "mutations",
    "pieces",
]


def i32() -> SearchStrategy[int]:
    """Return signed 32-bit numbers."""
    return st.integers(-(2**31), 2**31 - 1)


def i64() -> SearchStrategy[int]:
    """Return signed 64-bit numbers."""
    return st.integers(-(2**63), 2**63 - 1)


def hosts() -> SearchStrategy[bytes]:
    """Return host octets: mostly addresses, sometimes none, sometimes any number of them."""
    return st.one_of(
        st.binary(min_size=4, max_size=4),
        st.binary(min_size=16, max_size=16),
        st.binary(max_size=HOST_MAX_BYTES),
    )


def members() -> SearchStrategy[Member]:
    """Return members with any values that a record can hold."""
    port = st.one_of(st.integers(-1, 65_535), i32())
    text = st.one_of(st.just(b""), st.binary(max_size=40))
    return st.builds(
        Member,
        host=hosts(),
        port=port,
        unique_id=st.binary(min_size=UNIQUE_ID_BYTES, max_size=UNIQUE_ID_BYTES),
        alive=i64(),
        secure_port=port,
        udp_port=port,
        command=st.one_of(st.just(SHUTDOWN_COMMAND), text),
        domain=text,
        payload=text,
    )


def channel_data() -> SearchStrategy[ChannelData]:
    """Return messages as they are between channels, with and without a trailer."""
    return st.builds(
        ChannelData,
        options=i32(),
        timestamp=i64(),
        unique_id=st.one_of(
            st.binary(min_size=UNIQUE_ID_BYTES, max_size=UNIQUE_ID_BYTES),
            st.binary(max_size=UNIQUE_ID_MAX_BYTES),
        ),
        source=members(),
        message=st.binary(max_size=200),
        trailer=st.one_of(st.just(b""), st.binary(max_size=20)),
    )


def frame_bodies() -> SearchStrategy[list[bytes]]:
    """Return the bodies of some frames, with markers inside them now and then."""
    markers = st.lists(
        st.sampled_from([b"FLT2002", b"TLF2003", b"\0\0\0\3", b"FLT", b"x"]), max_size=5
    )
    body = st.one_of(st.binary(max_size=80), markers.map(b"".join))
    return st.lists(body, max_size=6)


@st.composite
def pieces(draw: DrawFn, data: bytes) -> list[bytes]:
    """Return ``data`` cut into pieces, some of them empty, as reads of a stream may cut it."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@st.composite
def mutations(draw: DrawFn, data: bytes) -> bytes:
    """Return ``data`` with a few bytes changed, inserted, taken out, or its end cut off."""
    damaged = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(damaged)))
        match draw(st.sampled_from(["change", "insert", "remove", "cut"])):
            case "change":
                damaged[at : at + 1] = draw(st.binary(min_size=1, max_size=4))
            case "insert":
                damaged[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "remove":
                del damaged[at : at + draw(st.integers(1, 8))]
            case _:
                del damaged[at:]
    return bytes(damaged)


def control_values() -> SearchStrategy[Any]:
    """Return values that a control message can hold."""
    text = st.text(st.characters(codec="utf-8"), max_size=20)
    keys = st.one_of(text, st.integers(0, 100), st.binary(max_size=8))
    scalars = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False),
        st.binary(max_size=40),
        text,
    )
    return st.recursive(
        scalars,
        lambda values: st.lists(values, max_size=4) | st.dictionaries(keys, values, max_size=4),
        max_leaves=20,
    )
