"""Messages are encrypted as Tomcat does, copies are noticed, keys can be replaced."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.config.secret import Secret
from tribes.errors import ConfigError, RemoteProtocolError
from tribes.interceptors import EncryptInterceptor, TcpFailureDetector
from tribes.interceptors.cipher import DEFAULT_ALGORITHM, UndecipherableError, make_cipher
from tribes.interceptors.encrypt import ReplayMemory
from tribes.interceptors.registry import build_interceptors
from tribes.interceptors.rules import check_stack
from tribes.testing.stage import Stage, stage_member

KEY = "cafebabedeadbeefbeefcafecafebabe"
OTHER_KEY = "ab" * 16
FOX = b"The quick brown fox jumps over the lazy dog."
ALGORITHMS = (
    DEFAULT_ALGORITHM,
    "AES/CBC/PKCS5Padding",
    "AES/CFB/PKCS5Padding",
    "AES/OFB/PKCS5Padding",
)
TIMELESS = "plain"


def stage(**settings: Any) -> Stage:
    made = Stage(EncryptInterceptor(**({"encryption_key": KEY} | settings)))
    made.start()
    return made


def interceptor(of: Stage) -> EncryptInterceptor:
    found = of.chain.interceptors[0]
    assert isinstance(found, EncryptInterceptor)
    return found


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("key", [KEY, KEY + "cafebabedeadbeef", KEY * 2])
@pytest.mark.parametrize("message", [FOX, b"x", b"", bytes(1024 * 1024)], ids=len)
def test_round_trips(algorithm: str, key: str, message: bytes) -> None:
    """Upstream TestEncryptInterceptor: the fox, "x", a megabyte of zeros; keys of 128, 192 and 256
    bits.
    """
    settings = {"encryption_algorithm": algorithm, "encryption_key": key}
    sender = stage(**settings)
    sender.send(message)
    assert message[:20] not in sender.wire[0] or len(message) < 4
    assert sender.carry_to(stage(**settings)) == [message]


def test_five_messages_and_their_bytes_apart_from_the_channel() -> None:
    """Upstream TestEncryptInterceptor: the fox five times; and encrypted bytes that were kept
    outside, as in a file, are read by another channel.
    """
    sender, receiver = stage(), stage()
    for _ in range(5):
        sender.send(FOX)
    assert sender.carry_to(receiver) == [FOX] * 5
    kept = [bytes(bytearray(message)) for message in sender.wire]
    assert stage().arrive(kept[0]) == [FOX]


def test_named_provider_makes_no_difference() -> None:
    """Upstream TestEncryptInterceptor, explicit provider: accepted, said to have no effect, and the
    bytes are read.
    """
    table = {"class": "EncryptInterceptor", "encryptionKey": KEY, "providerName": "SunJCE"}
    built = build_interceptors([table])
    assert len(built.ignored) == 1
    sender = Stage(*built.interceptors)
    sender.send(FOX)
    assert sender.carry_to(stage()) == [FOX]


def test_large_message() -> None:
    """Upstream TestEncryptInterceptorLargeHeap encrypts 1 GiB. A frame here has 16 MiB at most, so
    this takes what fits twice.
    """
    message = bytes(32 * 1024 * 1024)
    sender = stage()
    sender.send(message)
    assert sender.carry_to(stage()) == [message]


def test_two_encryptions_of_one_message_differ() -> None:
    """Upstream TestEncryptInterceptor: nobody sees that the same was said twice."""
    sender = stage()
    sender.send(FOX)
    sender.send(FOX)
    assert sender.wire[0] != sender.wire[1]


def test_copy_is_delivered_once() -> None:
    """Upstream TestEncryptInterceptor: a duplicate. It is dropped in silence: it was processed."""
    sender, receiver = stage(), stage()
    sender.send(FOX)
    assert sender.carry_to(receiver, [0, 0]) == [FOX]
    assert interceptor(receiver).replayed == 1


def test_old_message_is_refused() -> None:
    """Upstream TestEncryptInterceptor: a window of 50 ms and a message 1000 ms old. The reference
    drops it and says it was processed; here its sender learns that it was not.
    """
    sender, receiver = stage(), stage(replay_window_time=50)
    sender.send(FOX)
    receiver.pass_time(1)
    with pytest.raises(RemoteProtocolError, match="1000 ms old"):
        sender.carry_to(receiver)
    assert receiver.got == []


def test_count_of_two_remembers_two() -> None:
    """Upstream TestEncryptInterceptor: with a count of 2 four messages in order are accepted, then
    the first again is not.
    """
    sender, receiver = stage(), stage(replay_window_message_count=2)
    for number in range(4):
        sender.send(bytes([number]), timestamp=10**12 + number)
    assert len(sender.carry_to(receiver)) == 4
    with pytest.raises(RemoteProtocolError):
        sender.carry_to(receiver, [0])
    assert len(receiver.got) == 4
    assert len(interceptor(receiver).memory) == 2


def test_times_out_of_order_are_accepted() -> None:
    """Upstream TestEncryptInterceptor: count 2, timestamps +300, +100, +200, +225, +250: all 5."""
    sender, receiver = stage(), stage(replay_window_message_count=2)
    for offset in (300, 100, 200, 225, 250):
        sender.send(FOX, timestamp=10**12 + offset)
    assert len(sender.carry_to(receiver)) == 5


def test_a_hundred_senders_of_ten() -> None:
    """Upstream TestEncryptInterceptor, 100 threads of 10 messages: all arrive intact, in whatever
    order they come.
    """
    sender, receiver = stage(), stage()
    sent = [f"{thread}/{number}".encode() for number in range(10) for thread in range(100)]
    for message in sent:
        sender.send(message)
    backwards = list(reversed(range(1000)))
    assert sender.carry_to(receiver, backwards) == sent[::-1]


def test_failure_detector_above_is_a_configuration_error() -> None:
    """Upstream TestEncryptInterceptor: refused at start, with what to write instead."""
    stack = [TcpFailureDetector(), EncryptInterceptor(encryption_key=KEY)]
    with pytest.raises(ConfigError, match="write EncryptInterceptor before TcpFailureDetector"):
        check_stack(stack, local=stage_member(0))
    check_stack(stack[::-1], local=stage_member(0))


MODES = [
    "NONE",
    "CBC",
    "CCM",
    "CFB",
    "CFB8",
    "CFB16",
    "CTR",
    "CTS",
    "ECB",
    "GCM",
    "KW",
    "KWP",
    "OFB",
    "OFB8",
    "OFB16",
    "PCBC",
]


@pytest.mark.parametrize("padding", ["NoPadding", "PKCS5Padding"])
@pytest.mark.parametrize("mode", MODES)
def test_only_four_of_all_modes_are_accepted(mode: str, padding: str) -> None:
    """Upstream TestEncryptInterceptorAlgorithms: of 32 pairs, four succeed."""
    algorithm = f"AES/{mode}/{padding}"
    if algorithm in ALGORITHMS:
        make_cipher(algorithm.lower(), bytes(16))
        return
    with pytest.raises(ConfigError, match="AES/GCM/NoPadding"):
        make_cipher(algorithm, bytes(16))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_wrong_key_is_not_read(algorithm: str) -> None:
    """With GCM the sender learns it. Without authentication it does not: whoever hears that a
    padding was wrong can decrypt by asking.
    """
    sender = stage(encryption_algorithm=algorithm)
    receiver = stage(encryption_algorithm=algorithm, encryption_key=OTHER_KEY)
    for _ in range(300):
        sender.send(FOX)
    for number in range(300):
        if algorithm == DEFAULT_ALGORITHM:
            with pytest.raises(RemoteProtocolError):
                sender.carry_to(receiver, [number])
        else:
            sender.carry_to(receiver, [number])
    assert receiver.got == []
    assert interceptor(receiver).refused == 300


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_too_short_is_refused(algorithm: str) -> None:
    """A message without a whole vector is an error in the reference too."""
    with pytest.raises(RemoteProtocolError):
        stage(encryption_algorithm=algorithm).arrive(bytes(11))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(data=st.binary(max_size=100))
def test_any_bytes_are_refused(algorithm: str, data: bytes) -> None:
    """Random bytes raise nothing but RemoteProtocolError, and nothing comes of them."""
    receiver = stage(encryption_algorithm=algorithm)
    try:
        got = receiver.arrive(data)
    except RemoteProtocolError:
        return
    assert got == []


@given(st.binary(min_size=1, max_size=100), st.data())
def test_every_changed_bit_is_noticed(message: bytes, data: st.DataObject) -> None:
    """GCM: whichever bit on the way is flipped, the message is refused."""
    sender, receiver = stage(), stage()
    sender.send(message)
    wire = bytearray(sender.wire[0])
    bit = data.draw(st.integers(0, len(wire) * 8 - 1))
    wire[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RemoteProtocolError):
        receiver.arrive(bytes(wire))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_older_generation_has_no_time_and_no_replay_check(algorithm: str) -> None:
    """Tomcat up to 10.1.55: the vector and the encrypted message, nothing else; copies pass."""
    settings = {"encryption_algorithm": algorithm, "generation": TIMELESS}
    sender = stage(**settings)
    sender.send(FOX)
    cipher = make_cipher(algorithm, bytes.fromhex(KEY))
    iv, encrypted = sender.wire[0][: cipher.iv_bytes], sender.wire[0][cipher.iv_bytes :]
    assert cipher.decrypt(iv, encrypted) == FOX
    assert sender.carry_to(stage(**settings), [0, 0]) == [FOX, FOX]


def test_generations_do_not_understand_each_other() -> None:
    """A group where one member is older than 10.1.56 is refused with the setting to write."""
    sender = stage(generation=TIMELESS)
    sender.send(b"short")
    with pytest.raises(RemoteProtocolError, match="generation = 'plain'"):
        sender.carry_to(stage())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_keys_are_replaced_while_the_group_runs(algorithm: str) -> None:
    """New key accepted everywhere, then used, then the old one taken away: all is read always."""
    old, new = {"encryption_key": KEY}, {"encryption_key": OTHER_KEY}
    steps: list[dict[str, Any]] = [
        old,
        old | {"decryption_keys": [OTHER_KEY]},
        new | {"decryption_keys": [KEY]},
        new,
    ]
    for before, after in pairwise(steps):
        for sender_has, receiver_has in ((before, after), (after, before)):
            sender = stage(encryption_algorithm=algorithm, **sender_has)
            receiver = stage(encryption_algorithm=algorithm, **receiver_has)
            for _ in range(300):
                sender.send(FOX)
            assert sender.carry_to(receiver) == [FOX] * 300


def test_keys_that_could_not_be_told_apart_are_refused() -> None:
    """Without a time and without authentication a wrong key gives a wrong message now and then."""
    with pytest.raises(ConfigError) as error:
        stage(encryption_algorithm=ALGORITHMS[1], generation=TIMELESS, decryption_keys=[OTHER_KEY])
    assert error.value.key == "decryption_keys"


@pytest.mark.parametrize("text", ["", "zz" * 16, KEY[:-1], KEY + "00", " ".join(KEY), "0x" + KEY])
def test_text_that_is_no_key_is_refused_without_showing_it(text: str) -> None:
    """A wrong length too, which the reference notices only at the first message."""
    with pytest.raises(ConfigError) as error:
        stage(encryption_key=text)
    assert error.value.key == "encryption_key"
    assert len(text) < 4 or text not in str(error.value)


def test_key_text_is_read_as_tomcat_reads_it() -> None:
    """Blanks around it and capital letters do not matter, and a hidden text is the text."""
    sender = stage(encryption_key=f"  {KEY.upper()}\n")
    sender.send(FOX)
    assert sender.carry_to(stage(encryption_key=Secret(KEY))) == [FOX]


@pytest.mark.parametrize(
    "settings",
    [
        {"replay_window_time": 0},
        {"replay_window_message_count": 0},
        {"generation": "new"},
        {"encryption_algorithm": "AES"},
        {"decryption_keys": ["00"]},
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any]) -> None:
    """The error names the setting."""
    with pytest.raises(ConfigError) as error:
        stage(**settings)
    assert error.value.key in settings


def test_message_without_a_time_gets_the_present_one() -> None:
    """As in the reference, so that it is not refused as too old."""
    sender = stage()
    sender.send(FOX, timestamp=0)
    assert sender.carry_to(stage()) == [FOX]


@given(st.lists(st.tuples(st.integers(-30, 30), st.integers(0, 20)), max_size=60))
def test_memory_is_bounded_and_never_takes_a_copy(messages: list[tuple[int, int]]) -> None:
    """Whatever the times, at most ``count`` are remembered, and no vector passes twice."""
    memory = ReplayMemory(window=20, count=5, begin=1000)
    passed: set[tuple[int, bytes]] = set()
    for offset, number in messages:
        # A vector belongs to one message, so to one time.
        timestamp, iv = 1000 + number * 7 % 20, bytes([number])
        if memory.check_time(timestamp, 1010 + offset) or not memory.add(timestamp, iv):
            continue
        assert (timestamp, iv) not in passed
        passed.add((timestamp, iv))
        assert len(memory) <= 5


def test_unauthenticated_bytes_of_no_block_are_refused() -> None:
    """A length that no padding can have."""
    with pytest.raises(UndecipherableError):
        make_cipher(ALGORITHMS[1], bytes(16)).decrypt(bytes(16), bytes(15))


def test_worn_key_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long before random vectors may repeat."""
    monkeypatch.setattr("tribes.interceptors.encrypt.MESSAGES_PER_KEY_MAX", 3)
    sender = stage()
    for _ in range(5):
        sender.send(b"")
    assert sender.told("encryption key is worn") == [{"messages": 3}]


def test_room_for_what_is_added() -> None:
    """What the interceptor adds fits in the frame together with the longest message."""
    sender = stage()
    longest = interceptor(sender).message_max_bytes(1000)
    assert longest > 900
    sender.send(bytes(longest))
    assert len(sender.wire[0]) <= 1000
