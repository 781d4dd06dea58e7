"""Sealed values open for their key, whole, and for nobody else."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.errors import ConfigError, StoreDataError, StoreLimitError
from tribes.stores import envelope
from tribes.stores.envelope import Envelope

ONE, TWO = b"1" * 32, b"2" * 32
KINDS = {
    "plain": Envelope("shop"),
    "compressed": Envelope("shop", compress=True),
    "authenticated": Envelope("shop", keys=[ONE]),
    "both": Envelope("shop", keys=[ONE], compress=True),
    "encrypted": Envelope("shop", keys=[ONE], encrypt=True, compress=True),
}
CONTENT = b"a session of some length, " * 40


@pytest.mark.parametrize("kind", KINDS)
@given(content=st.binary(max_size=600), key=st.text(max_size=40))
def test_what_is_sealed_opens(kind: str, content: bytes, key: str) -> None:
    sealer = KINDS[kind]
    assert sealer.open(key, sealer.seal(key, content)) == content


@pytest.mark.parametrize("kind", KINDS)
def test_every_changed_byte_is_noticed(kind: str) -> None:
    sealer = KINDS[kind]
    sealed = sealer.seal("A1", CONTENT)
    for at in range(len(sealed)):
        broken = sealed[:at] + bytes((sealed[at] ^ 0x40,)) + sealed[at + 1 :]
        with pytest.raises(StoreDataError):
            sealer.open("A1", broken)


@pytest.mark.parametrize("kind", KINDS)
def test_every_cut_and_every_addition_is_noticed(kind: str) -> None:
    sealer = KINDS[kind]
    sealed = sealer.seal("A1", CONTENT)
    for broken in [sealed[:end] for end in range(len(sealed))] + [sealed + b"\0"]:
        with pytest.raises(StoreDataError):
            sealer.open("A1", broken)


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_is_bound_to_its_key_and_application(kind: str) -> None:
    """So nobody who can write to the store can make one user's session another's."""
    sealed = KINDS[kind].seal("A1", CONTENT)
    with pytest.raises(StoreDataError):
        KINDS[kind].open("A2", sealed)
    settings = {"keys": [ONE]} if kind in ("authenticated", "both", "encrypted") else {}
    with pytest.raises(StoreDataError):
        Envelope("other", **settings).open("A1", sealed)  # type: ignore[arg-type]


def test_nothing_moves_between_purpose_and_key() -> None:
    with pytest.raises(StoreDataError):
        Envelope("ab", keys=[ONE]).open("c", Envelope("a", keys=[ONE]).seal("bc", CONTENT))


def test_with_a_key_unauthenticated_values_are_refused() -> None:
    with pytest.raises(StoreDataError, match="not authenticated"):
        KINDS["authenticated"].open("A1", KINDS["plain"].seal("A1", CONTENT))


@pytest.mark.parametrize("kind", ["authenticated", "encrypted"])
def test_without_the_key_they_are_refused(kind: str) -> None:
    sealed = KINDS[kind].seal("A1", CONTENT)
    with pytest.raises(StoreDataError, match="no key is set"):
        KINDS["plain"].open("A1", sealed)
    with pytest.raises(StoreDataError, match="no key here"):
        Envelope("shop", keys=[TWO]).open("A1", sealed)


@pytest.mark.parametrize("encrypt", [False, True])
def test_keys_are_changed_by_putting_the_new_one_in_front(encrypt: bool) -> None:
    old = Envelope("shop", keys=[ONE], encrypt=encrypt)
    both = Envelope("shop", keys=[TWO, ONE], encrypt=encrypt)
    assert both.open("A1", old.seal("A1", CONTENT)) == CONTENT
    assert Envelope("shop", keys=[TWO]).open("A1", both.seal("A1", CONTENT)) == CONTENT


def test_encryption_hides_the_content_and_never_repeats() -> None:
    sealer = Envelope("shop", keys=[ONE], encrypt=True)
    sealed = sealer.seal("A1", CONTENT)
    assert b"session" not in sealed
    assert sealer.seal("A1", CONTENT) != sealed


def test_compression_is_used_only_where_it_helps() -> None:
    assert len(KINDS["compressed"].seal("A1", CONTENT)) < len(CONTENT) // 4
    noise = zlib.compress(bytes(range(256)) * 3)
    assert len(KINDS["compressed"].seal("A1", noise)) == len(KINDS["plain"].seal("A1", noise))


def test_a_bomb_stops_at_the_length_it_claims() -> None:
    """A forged value without a key cannot fill the memory."""
    bomb = zlib.compress(bytes(50_000_000))
    data = envelope._HEAD.pack(b"\x89TSV", 1, 1, 100) + bomb
    check = zlib.crc32(KINDS["plain"]._bound("A1", data))
    with pytest.raises(StoreDataError, match="does not decompress to its 100"):
        KINDS["plain"].open("A1", data + check.to_bytes(4, "big"))


def test_newer_formats_and_foreign_bytes_are_told_apart() -> None:
    sealed = KINDS["plain"].seal("A1", CONTENT)
    with pytest.raises(StoreDataError, match="newer version"):
        KINDS["plain"].open("A1", sealed[:4] + b"\x02" + sealed[5:])
    with pytest.raises(StoreDataError, match="no stored session"):
        KINDS["plain"].open("A1", b"\xac\xed\x00\x05 a serialised object of Java")


def test_content_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "CONTENT_MAX_BYTES", 10)
    with pytest.raises(StoreLimitError):
        KINDS["plain"].seal("A1", b"x" * 11)


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 32 bytes"):
        Envelope("shop", keys=[b"short"])
    with pytest.raises(ConfigError, match="no key to encrypt with"):
        Envelope("shop", encrypt=True)
