"""Sealed records: only the next one of this stream can be opened."""

from __future__ import annotations

import random
import struct

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from tribes.errors import LocalProtocolError, RemoteProtocolError
from tribes.security.keys import GroupKey, hkdf_sha256
from tribes.security.seal import RECORD_MAX_BYTES, LinkKeys, Opener, Sealer
from tribes.testing.strategies import mutations, pieces

KEY = bytes(range(32))
OVERHEAD = 20
CLIENT, SERVER = bytes(range(16)), bytes(range(16, 32))

writes = st.lists(st.binary(max_size=200), max_size=12)


def opened(stream: bytes, **options: int) -> list[bytes]:
    return Opener(KEY, **options).feed(stream)


def sealed(*parts: bytes) -> list[bytes]:
    sealer = Sealer(KEY)
    return [sealer.seal(part) for part in parts]


def test_layout_of_records() -> None:
    """Length, ciphertext and tag, made by the library alone."""
    cipher = AESGCM(KEY)
    expected = b""
    for number, plain in enumerate((b"one", b"three")):
        length = struct.pack(">I", len(plain) + 16)
        nonce = struct.pack(">IQ", 0, number)
        expected += length + cipher.encrypt(nonce, plain, length)
    assert b"".join(sealed(b"one", b"three")) == expected
    assert expected[:8].hex() == "0000001361d2d0a2"


def test_the_cipher_gives_a_published_result() -> None:
    """AES-256-GCM, test case 14 of McGrew and Viega's GCM specification."""
    made = AESGCM(bytes(32)).encrypt(bytes(12), bytes(16), None)
    assert made.hex() == "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"


@given(writes, st.data())
@settings(max_examples=200)
def test_any_split_of_the_stream_gives_the_same(parts: list[bytes], data: st.DataObject) -> None:
    """Contents don't depend on how the network cuts."""
    stream = b"".join(sealed(*parts))
    opener = Opener(KEY, records_per_key=1 << 18)
    contents = [record for piece in data.draw(pieces(stream)) for record in opener.feed(piece)]
    assert contents == [part for part in parts if part]
    assert opener.pending_bytes == 0


def test_byte_by_byte() -> None:
    """The finest split; a record comes out with its last byte."""
    stream = b"".join(sealed(b"a", b"bc"))
    opener = Opener(KEY)
    results = [opener.feed(stream[at : at + 1]) for at in range(len(stream))]
    assert [(at, result) for at, result in enumerate(results) if result] == [
        (20, [b"a"]),
        (42, [b"bc"]),
    ]


def test_nothing_gives_nothing() -> None:
    """An empty write is no record, and takes no number."""
    sealer = Sealer(KEY)
    assert sealer.seal(b"") == b""
    assert opened(sealer.seal(b"x")) == [b"x"]
    assert Opener(KEY).feed(b"") == []


@pytest.mark.parametrize("size", [RECORD_MAX_BYTES, RECORD_MAX_BYTES + 1, 3 * RECORD_MAX_BYTES + 5])
def test_long_writes_are_cut(size: int) -> None:
    """Into records of at most 256 KiB."""
    data = random.Random(size).randbytes(size)
    stream = Sealer(KEY).seal(data)
    records = opened(stream)
    assert b"".join(records) == data
    assert [len(record) for record in records[:-1]] == [RECORD_MAX_BYTES] * (len(records) - 1)
    assert len(stream) == size + len(records) * OVERHEAD


# Attacks ----------------------------------------------------------------------------------------


def test_every_bit_counts() -> None:
    """No bit of a stream can be flipped; a longer length waits, and then can't be opened."""
    stream = sealed(b"hello, world")[0]
    for bit in range(len(stream) * 8):
        forged = bytearray(stream)
        forged[bit // 8] ^= 1 << bit % 8
        opener = Opener(KEY)
        try:
            assert opener.feed(bytes(forged)) == []
        except RemoteProtocolError:
            continue
        size = int.from_bytes(forged[:4], "big")
        with pytest.raises(RemoteProtocolError):
            opener.feed(bytes(size - len(stream) + 4))


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=5), st.data())
@settings(max_examples=300)
def test_any_change_gives_a_beginning_of_what_was_sealed(
    parts: list[bytes], data: st.DataObject
) -> None:
    """Flipped, lost and added bytes: what comes out before the error is genuine and in order."""
    stream = b"".join(sealed(*parts))
    changed = data.draw(mutations(stream))
    opener = Opener(KEY)
    contents: list[bytes] = []
    try:
        for at in range(len(changed)):
            contents += opener.feed(changed[at : at + 1])
    except RemoteProtocolError:
        pass
    assert contents == parts[: len(contents)]
    if not changed.startswith(stream):
        assert len(contents) < len(parts)


@pytest.mark.parametrize(
    "order", [(1,), (0, 2), (0, 0), (0, 1, 1), (1, 0), (0, 2, 1), (0, 1, 2, 0)], ids=str
)
def test_records_left_out_repeated_or_reordered_are_refused(order: tuple[int, ...]) -> None:
    """Only the next record can be opened."""
    records = sealed(b"same", b"same", b"same")
    with pytest.raises(RemoteProtocolError, match="not the next one"):
        opened(b"".join(records[number] for number in order))


def test_a_stream_that_was_cut_says_so() -> None:
    """Inside a record. Between two records it can't know."""
    stream = b"".join(sealed(b"one", b"two"))
    opener = Opener(KEY)
    assert opener.feed(stream[:-1]) == [b"one"]
    assert opener.pending_bytes == 22
    opener = Opener(KEY)
    assert opener.feed(stream[:23]) == [b"one"]
    assert opener.pending_bytes == 0


def test_records_that_lost_bytes_at_their_end_are_refused() -> None:
    """With a length that fits what is left."""
    stream = sealed(b"hello")[0]
    for left in range(17, 21):
        with pytest.raises(RemoteProtocolError, match="can't be opened"):
            opened(struct.pack(">I", left) + stream[4 : 4 + left])


@pytest.mark.parametrize("size", [0, 1, 15, 16, RECORD_MAX_BYTES + 17, 2**31, 2**32 - 1])
def test_lengths_out_of_bounds_are_refused_at_once(size: int) -> None:
    """With the fourth byte of the length, before anything of the record was kept."""
    opener = Opener(KEY)
    assert opener.feed(struct.pack(">I", size)[:3]) == []
    with pytest.raises(RemoteProtocolError, match=f"claims {size} bytes"):
        opener.feed(struct.pack(">I", size)[3:] + bytes(100_000))
    assert opener.pending_bytes == 0


def test_after_an_error_nothing_is_taken() -> None:
    """Not even the record that was expected."""
    first, second = sealed(b"one", b"two")
    opener = Opener(KEY)
    with pytest.raises(RemoteProtocolError):
        opener.feed(second)
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="not the next one"):
            opener.feed(first)
    assert opener.pending_bytes == 0


def test_an_incomplete_record_is_all_that_is_kept() -> None:
    """However much came before it and in whatever pieces."""
    sealer = Sealer(KEY)
    stream = sealer.seal(bytes(9 * RECORD_MAX_BYTES))
    opener = Opener(KEY)
    for at in range(0, len(stream), 100_001):
        opener.feed(stream[at : at + 100_001])
        assert opener.pending_bytes < RECORD_MAX_BYTES + OVERHEAD


@pytest.mark.timeout(120)
def test_a_hundred_thousand_forgeries() -> None:
    """None of them is opened."""
    chance = random.Random(21)
    genuine = sealed(*(bytes([number]) * 8 for number in range(200)))
    opener = Opener(KEY)
    assert opener.feed(genuine[0]) == [bytes(8)]
    for _ in range(100_000):
        forged = bytearray(chance.choice(genuine))
        if forged == genuine[1] or chance.random() < 0.5:
            forged[chance.randrange(4, len(forged))] ^= 1 << chance.randrange(8)
        # A failed opener stays so; its insides are wound back to be fooled again.
        opener._failure = ""
        opener._direction._number = 1
        with pytest.raises(RemoteProtocolError):
            opener.feed(bytes(forged))
    opener._failure = ""
    opener._direction._number = 1
    assert opener.feed(genuine[1]) == [bytes([1]) * 8]


# Keys and numbers -------------------------------------------------------------------------------


def test_the_key_is_replaced_by_count() -> None:
    """On both sides alike, with numbers that go on."""
    sealer = Sealer(KEY, records_per_key=3)
    records = [sealer.seal(b"x") for _ in range(10)]
    assert opened(b"".join(records), records_per_key=3) == [b"x"] * 10

    key = KEY
    for number, record in enumerate(records):
        if number in (3, 6, 9):
            key = hkdf_sha256(key, info=b"tribes v1 next link key", length=32)
        nonce = struct.pack(">IQ", 0, number)
        assert AESGCM(key).decrypt(nonce, record[4:], record[:4]) == b"x"

    with pytest.raises(RemoteProtocolError):
        opened(b"".join(records))


def test_numbers_do_not_begin_again() -> None:
    """After the last one the link is over, for both sides."""
    sealer, opener = Sealer(KEY), Opener(KEY)
    sealer._direction._number = opener._direction._number = 2**64 - 2
    assert opener.feed(sealer.seal(b"last")) == [b"last"]
    with pytest.raises(LocalProtocolError, match="used up: connect anew"):
        sealer.seal(b"more")
    with pytest.raises(RemoteProtocolError, match="used up"):
        opener.feed(struct.pack(">I", 17) + bytes(17))


# Links ------------------------------------------------------------------------------------------


def link_pair(
    client: LinkKeys, server: LinkKeys
) -> tuple[tuple[Sealer, Opener], tuple[Sealer, Opener]]:
    ends = []
    for keys, is_client in ((client, True), (server, False)):
        seal, opener = keys.sealers(CLIENT, SERVER, is_client=is_client)
        ends.append((seal.__self__, opener))  # type: ignore[attr-defined]
    return ends[0], ends[1]


GROUP = GroupKey(3, KEY)


def test_two_members_with_the_key_understand_each_other() -> None:
    """In both directions, many times."""
    (to_server, from_server), (to_client, from_client) = link_pair(LinkKeys(GROUP), LinkKeys(GROUP))
    for turn in range(5):
        assert from_client.feed(to_server.seal(b"ask %d" % turn)) == [b"ask %d" % turn]
        assert from_server.feed(to_client.seal(b"say %d" % turn)) == [b"say %d" % turn]


def test_a_record_sent_back_is_refused() -> None:
    """Directions have different keys."""
    (to_server, from_server), _ = link_pair(LinkKeys(GROUP), LinkKeys(GROUP))
    with pytest.raises(RemoteProtocolError):
        from_server.feed(to_server.seal(b"echo"))


@pytest.mark.parametrize(
    ("group", "client", "server"),
    [
        pytest.param(GroupKey(3, bytes(32)), CLIENT, SERVER, id="group key"),
        pytest.param(GROUP, bytes(16), SERVER, id="client nonce"),
        pytest.param(GROUP, CLIENT, bytes(16), id="server nonce"),
        pytest.param(GROUP, SERVER, CLIENT, id="nonces swapped"),
    ],
)
def test_another_key_or_nonce_opens_nothing(group: GroupKey, client: bytes, server: bytes) -> None:
    """A recorded link can't be played again: one nonce is always new."""
    seal, _ = LinkKeys(GROUP).sealers(CLIENT, SERVER, is_client=True)
    _, opener = LinkKeys(group).sealers(client, server, is_client=False)
    with pytest.raises(RemoteProtocolError):
        opener.feed(seal(b"x"))


def test_a_peer_that_sends_our_nonce_back_is_refused() -> None:
    """It would let an answer be made of our own bytes."""
    with pytest.raises(RemoteProtocolError, match="nonce is ours"):
        LinkKeys(GROUP).sealers(CLIENT, CLIENT, is_client=True)


def test_hello_tags() -> None:
    """Fit their transcript and key, whole, and nothing else."""
    keys, tag = LinkKeys(GROUP), LinkKeys(GROUP).hello_tag(b"transcript")
    assert len(tag) == 16
    assert keys.key_id == 3
    assert keys.check(b"transcript", tag)
    assert not keys.check(b"Transcript", tag)
    assert not LinkKeys(GroupKey(3, bytes(32))).check(b"transcript", tag)
    for wrong in (b"", tag[:15], tag + b"\0", bytes(16), bytes([tag[0] ^ 1]) + tag[1:]):
        assert not keys.check(b"transcript", wrong)


def test_no_key_in_any_repr() -> None:
    """Nor anything that was made from one."""
    keys = LinkKeys(GROUP)
    seal, opener = keys.sealers(CLIENT, SERVER, is_client=True)
    assert repr(keys) == "<LinkKeys of <GroupKey id=3>>"
    for text in (repr(seal), repr(opener), repr(opener._direction)):
        assert "\\x" not in text
        assert "b'" not in text
