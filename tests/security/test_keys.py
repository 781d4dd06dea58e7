"""Group keys: text that notices typing errors, rings that rotate, secrets that never show."""

from __future__ import annotations

import base64
import hmac
import stat
import traceback
import zlib

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from tribes.errors import ConfigError, LocalProtocolError
from tribes.security import keys
from tribes.security.keys import (
    KEYS_MAX,
    NONCE_BYTES,
    GroupKey,
    KeyRing,
    check_file_mode,
    hkdf_sha256,
)

SECRET = bytes(range(100, 132))
OTHER = bytes(range(32))
KEY = GroupKey(7, SECRET)
LINE = "tribes-key:v1:7:ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1-f4CBgoM:3b3eacf2"
NONCES = bytes(NONCE_BYTES), bytes([1]) * NONCE_BYTES

secrets = st.binary(min_size=32, max_size=32)
ids = st.integers(1, 255)


def line_of(middle: str) -> str:
    """Return a line whose check fits, whatever is in it."""
    return f"{middle}:{zlib.crc32(middle.encode()):08x}"


def test_the_text_of_a_key_is_what_it_always_was() -> None:
    """Key files outlive releases."""
    assert KEY.to_text() == LINE
    assert KeyRing.parse(LINE).current == KEY


def test_derived_keys_are_what_they_always_were() -> None:
    """Members of different releases must derive the same; made with other code than ours."""

    def derived(info: bytes, secret: bytes = SECRET, salt: bytes = b"") -> bytes:
        return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)

    def tag(key: bytes, message: bytes) -> bytes:
        return hmac.new(key, message, "sha256").digest()[:16]

    assert KEY.heartbeat_tag(b"beat") == tag(derived(b"tribes v1 heartbeat"), b"beat")
    assert KEY.hello_tag(b"hello") == tag(derived(b"tribes v1 hello"), b"hello")
    link, salt = derived(b"tribes v1 link"), NONCES[0] + NONCES[1]
    assert KEY.link_key(*NONCES, from_client=True) == derived(
        b"tribes v1 link: client to server", link, salt
    )
    assert KEY.link_key(*NONCES, from_client=False) == derived(
        b"tribes v1 link: server to client", link, salt
    )


@given(ids, secrets)
def test_a_key_is_read_from_its_text(key_id: int, secret: bytes) -> None:
    """Parsing and writing give the same key."""
    key = GroupKey(key_id, secret)
    assert KeyRing.parse(key.to_text()).current == key


# Published vectors ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secret", "salt", "info", "length", "expected"),
    [
        pytest.param(
            "0b" * 22,
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            42,
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
            id="A.1",
        ),
        pytest.param(
            bytes(range(0x50)).hex(),
            bytes(range(0x60, 0xB0)).hex(),
            bytes(range(0xB0, 0x100)).hex(),
            82,
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c6"
            "5e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
            id="A.2",
        ),
        pytest.param(
            "0b" * 22,
            "",
            "",
            42,
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
            id="A.3",
        ),
    ],
)
def test_hkdf_gives_the_results_of_rfc_5869(
    secret: str, salt: str, info: str, length: int, expected: str
) -> None:
    """The RFC's test cases for SHA-256."""
    derived = hkdf_sha256(
        bytes.fromhex(secret), salt=bytes.fromhex(salt), info=bytes.fromhex(info), length=length
    )
    assert derived.hex() == expected


@given(
    st.binary(max_size=100), st.binary(max_size=100), st.binary(max_size=50), st.integers(1, 8160)
)
def test_hkdf_agrees_with_the_library(secret: bytes, salt: bytes, info: bytes, length: int) -> None:
    """Ours exists to save an import, so it must be the same function."""
    theirs = HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(secret)
    assert hkdf_sha256(secret, salt=salt, info=info, length=length) == theirs


@pytest.mark.parametrize("length", [0, 8161])
def test_hkdf_gives_no_more_than_it_can(length: int) -> None:
    """RFC 5869 §2.3 bounds the length."""
    with pytest.raises(LocalProtocolError):
        hkdf_sha256(SECRET, info=b"", length=length)


@pytest.mark.parametrize(
    ("key", "data", "expected"),
    [
        pytest.param(
            "0b" * 20,
            b"Hi There".hex(),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            id="1",
        ),
        pytest.param(
            b"Jefe".hex(),
            b"what do ya want for nothing?".hex(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            id="2",
        ),
        pytest.param(
            "aa" * 131,
            b"Test Using Larger Than Block-Size Key - Hash Key First".hex(),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            id="6",
        ),
    ],
)
def test_hmac_gives_the_results_of_rfc_4231(key: str, data: str, expected: str) -> None:
    """The standard library's function, as it is called here."""
    assert hmac.digest(bytes.fromhex(key), bytes.fromhex(data), "sha256").hex() == expected


def test_every_purpose_has_a_key_of_its_own() -> None:
    """What is made for one purpose, direction, link or group key fits no other."""
    one, two = NONCES
    made = {
        KEY.heartbeat_tag(b"x"),
        KEY.hello_tag(b"x"),
        KEY.link_key(one, two, from_client=True),
        KEY.link_key(one, two, from_client=False),
        KEY.link_key(two, one, from_client=True),
        KEY.link_key(two, one, from_client=False),
        GroupKey(7, OTHER).heartbeat_tag(b"x"),
        GroupKey(7, OTHER).hello_tag(b"x"),
        GroupKey(7, OTHER).link_key(one, two, from_client=True),
    }
    assert len(made) == 9


@pytest.mark.parametrize("sizes", [(15, 17), (17, 15), (0, 32), (16, 15)])
def test_nonces_of_other_lengths_are_refused(sizes: tuple[int, int]) -> None:
    """Cut at another place, two other nonces would make the same salt."""
    with pytest.raises(LocalProtocolError, match="16 bytes each"):
        KEY.link_key(bytes(sizes[0]), bytes(sizes[1]), from_client=True)


# Text -------------------------------------------------------------------------------------------


def test_a_file_may_hold_comments_blank_lines_and_other_ends_of_lines() -> None:
    """As an editor, on any system, leaves it."""
    old = GroupKey(1, OTHER)
    text = f"\ufeff# the group's keys\r\n\r\n  {LINE}  # since May\r\n\t\n{old.to_text()}"
    ring = KeyRing.parse(text)
    assert ring.ids == (7, 1)
    assert list(ring) == [KEY, old]
    assert len(ring) == 2
    assert ring.current == KEY
    assert ring.get(1) == old
    assert ring.get(2) is None


def test_every_single_typing_error_is_noticed() -> None:
    """Each character replaced by each other one, left out, doubled, or swapped with the next."""
    alphabet = "ABCXYZabcxyz0189-_:# ~\u00e9"
    for at in range(len(LINE)):
        before, letter, after = LINE[:at], LINE[at], LINE[at + 1 :]
        wrong = [before + other + after for other in alphabet if other != letter]
        wrong += [before + after, before + letter + letter + after]
        if after and after[0] != letter:
            wrong.append(before + after[0] + letter + after[1:])
        for line in wrong:
            if line.strip() != LINE:
                with pytest.raises(ConfigError):
                    KeyRing.parse(line)


B64 = "ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1-f4CBgoM"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param("hunter2", "found 7 characters that don't begin with tribes-key:", id="word"),
        pytest.param(B64, "found 43 characters that don't begin", id="secret alone"),
        pytest.param(f"tribes-key:{B64}", "found 2 parts between colons", id="too few parts"),
        pytest.param(f"{LINE}:x", "found 6 parts between colons", id="too many parts"),
        pytest.param(LINE.replace(":v1:", ":v2:"), "found v2 where", id="later version"),
        pytest.param(f"tribes-key:{B64}:v1:7:0", "found something else where", id="swapped"),
        pytest.param(LINE.replace("ZGVm", "ZGV"), "a secret of 42 characters", id="short"),
        pytest.param(LINE.replace("ZGVm", "ZGVn"), "the check at its end", id="mistyped"),
        pytest.param(LINE.replace(":7:", ":8:"), "the check at its end", id="other id"),
        pytest.param(LINE[:-1], "the check at its end", id="cut"),
        pytest.param(line_of(f"tribes-key:v1:0:{B64}"), "an id that is not 1 to 255", id="id 0"),
        pytest.param(line_of(f"tribes-key:v1:256:{B64}"), "an id that is not", id="id 256"),
        pytest.param(line_of(f"tribes-key:v1:07:{B64}"), "an id that is not", id="id 07"),
        pytest.param(line_of(f"tribes-key:v1:{B64}:{B64}"), "an id that", id="secret as id"),
        pytest.param(
            line_of(f"tribes-key:v1:7:{B64[:-1]}="), "not 32 bytes in base64url", id="padding"
        ),
        pytest.param(
            line_of(f"tribes-key:v1:7:{B64[:-1]}N"), "not 32 bytes in base64url", id="spare bits"
        ),
        pytest.param(
            line_of(f"tribes-key:v1:7:+{B64[1:]}"), "not 32 bytes in base64url", id="alphabet"
        ),
    ],
)
def test_a_wrong_line_is_named_and_not_shown(line: str, says: str) -> None:
    """The error has file, line, what was found and what to write, and nothing of the key."""
    with pytest.raises(ConfigError) as caught:
        KeyRing.parse(f"# keys\n\n{line}\n", source="/etc/keys", key="channel.key")
    error = caught.value
    assert error.source == "/etc/keys, line 3"
    assert error.key == "channel.key"
    assert says in error.message
    assert "write the whole line that `tribes keygen` printed" in error.message
    assert B64[:6] not in str(error)
    assert "hunter2" not in str(error)


@given(st.text(max_size=200))
def test_any_text_gives_keys_or_a_config_error(text: str) -> None:
    """Whatever a file holds."""
    for wrong in (text, f"tribes-key:v1:{text}", f"tribes-key:v1:7:{text}:00000000"):
        with pytest.raises(ConfigError):
            KeyRing.parse(wrong)


@pytest.mark.parametrize("text", ["", "\n\n", "# tribes-key:v1: to come"])
def test_no_key_is_an_error(text: str) -> None:
    """A file that protects nothing must not pass for one that does."""
    with pytest.raises(ConfigError, match="found no key; write") as caught:
        KeyRing.parse(text, source="keys")
    assert caught.value.source == "keys"
    with pytest.raises(ConfigError, match="found no key"):
        KeyRing([])


def test_keys_that_conflict_are_refused() -> None:
    """Two with one id can't be told apart, one with two ids is a mistake, many are forgotten."""
    again = GroupKey(7, OTHER)
    with pytest.raises(ConfigError, match=r"second key with the id 7.*keygen --id 1") as caught:
        KeyRing.parse(f"{LINE}\n{again.to_text()}")
    assert caught.value.source == "line 2"
    with pytest.raises(ConfigError, match="found the key 7 again with the id 8"):
        KeyRing([KEY, GroupKey(8, SECRET)])
    many = [GroupKey(number, bytes([number]) * 32) for number in range(1, KEYS_MAX + 2)]
    assert len(KeyRing(many[:-1])) == KEYS_MAX
    with pytest.raises(ConfigError, match="more than 16 keys"):
        KeyRing(many)


@pytest.mark.parametrize(("key_id", "size"), [(0, 32), (256, 32), (-1, 32), (1, 31), (1, 33)])
def test_ids_and_sizes_out_of_range_are_refused(key_id: int, size: int) -> None:
    """The id has one byte and 0 has a meaning."""
    with pytest.raises(LocalProtocolError):
        GroupKey(key_id, bytes(size))


# Secrecy ----------------------------------------------------------------------------------------


def shows_a_key(text: str) -> bool:
    """Tell whether any 8 characters of the secret, in the usual spellings, are in ``text``."""
    spelled = (
        base64.urlsafe_b64encode(SECRET).decode(),
        SECRET.hex(),
        repr(SECRET)[2:-1],
        SECRET.decode("latin-1"),
        repr(list(SECRET))[1:-1],
    )
    return any(form[at : at + 8] in text for form in spelled for at in range(len(form) - 7))


def test_the_check_for_shown_keys_works() -> None:
    """Or the next tests would prove nothing."""
    for text in (LINE, repr(SECRET), SECRET.hex(), str(list(SECRET)), LINE[25:40]):
        assert shows_a_key(text)


def test_keys_never_show_themselves() -> None:
    """Not in the texts that logs are made of."""
    ring = KeyRing([KEY, GroupKey(1, OTHER)])
    assert repr(KEY) == "<GroupKey id=7>"
    assert repr(ring) == "<KeyRing ids=[7, 1]>"
    for thing in (KEY, ring, [KEY], {"key": KEY}):
        for text in (repr(thing), str(thing), f"{thing}", f"{thing} {thing!r}"):
            assert not shows_a_key(text)
    assert not hasattr(KEY, "__dict__")


@pytest.mark.parametrize("line", [LINE[:-1], LINE.replace("ZGVm", "ZGV"), f"{LINE}\n{LINE}", B64])
def test_errors_carry_no_key_in_their_tracebacks(line: str) -> None:
    """Loggers that print local variables find none in our frames, nor in a hidden cause."""
    with pytest.raises(ConfigError) as caught:
        KeyRing.parse(line)
    error: BaseException | None = caught.value
    looked_at = 0
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename == keys.__file__:
                looked_at += 1
                assert not shows_a_key(repr(frame.f_locals))
        assert not shows_a_key(repr(error) + str(error))
        error = error.__cause__ or error.__context__
    assert looked_at


def test_keys_are_compared_whole() -> None:
    """By id and secret, and with nothing else."""
    assert GroupKey(7, SECRET) == KEY
    assert hash(GroupKey(7, SECRET)) == hash(KEY)
    assert GroupKey(8, SECRET) != KEY
    assert GroupKey(7, OTHER) != KEY
    assert KEY != SECRET


# File modes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_private_file_passes(mode: int) -> None:
    """Its owner may do anything."""
    check_file_mode(stat.S_IFREG | mode, "keys")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666])
def test_a_file_that_others_may_open_is_refused(mode: int) -> None:
    """The error says the mode and the command that mends it."""
    with pytest.raises(ConfigError) as caught:
        check_file_mode(stat.S_IFREG | mode, "/etc/keys")
    assert str(caught.value) == (
        f"/etc/keys: others may open this key file (its mode is {mode:04o}); "
        "run: chmod 600 /etc/keys"
    )


def test_what_is_no_file_is_refused() -> None:
    """A directory, a pipe or a terminal."""
    for kind in (stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR):
        with pytest.raises(ConfigError, match="not a regular file"):
            check_file_mode(kind | 0o600, "x")
