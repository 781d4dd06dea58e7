"""Messages are compressed, marked and read again, within bounds."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from tribes.interceptors import GzipInterceptor, GzipStatistics
from tribes.interceptors.compress import compress, decompress
from tribes.testing.stage import Stage


@pytest.mark.parametrize("size", [1024, 2047, 2048, 2049, 4096, 8192, 21480])
def test_round_trip_of_ones(size: int) -> None:
    """Upstream TestGzipInterceptor: compress and decompress arrays of the byte 1 of these sizes."""
    message = b"\x01" * size
    assert decompress(compress(message), max_bytes=size) == message


@given(st.binary(max_size=5000))
def test_round_trip_of_anything(message: bytes) -> None:
    """What is compressed here any gzip reads, and the reverse."""
    made = compress(message)
    assert gzip.decompress(made) == message
    assert made[:10].hex() == "1f8b08000000000000ff"
    assert decompress(gzip.compress(message), max_bytes=5000) == message


@given(st.binary(max_size=300), st.integers(0, 0x3FF))
def test_any_options_survive_and_the_mark_stays(message: bytes, options: int) -> None:
    """Options of the application pass; the mark is set on what is compressed, and stays for the
    layers above.
    """
    options &= ~0x100
    sender, receiver = Stage(GzipInterceptor()), Stage(GzipInterceptor())
    sender.send(message, options=options)
    assert sender.carry_to(receiver) == [message]
    assert receiver.got[0].options == (options | 0x100 if message else options)


def test_bomb_is_refused_before_it_goes_off() -> None:
    """Less than 100 KB that hold 64 MiB end at the bound, with the memory of the bound."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(1 << 20)
    bomb = b"".join([*(squeeze.compress(block) for _ in range(64)), squeeze.flush()])
    assert len(bomb) < 100_000
    stage = Stage(interceptor := GzipInterceptor(max_inflated_size=1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            stage.arrive(bomb, options=0x101)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
    assert interceptor.statistics().refused == 1


def test_exactly_the_bound_is_allowed() -> None:
    """One byte more is not, alone or in a second stream."""
    message = bytes(1000)
    assert decompress(compress(message), max_bytes=1000) == message
    with pytest.raises(RemoteProtocolError):
        decompress(compress(message), max_bytes=999)
    with pytest.raises(RemoteProtocolError):
        decompress(compress(message) + compress(b"x"), max_bytes=1000)


def test_streams_in_one_message_are_bounded() -> None:
    """Java joins them; thousands would only burn time."""
    assert decompress(compress(b"ab") * 3, max_bytes=10) == b"ababab"
    with pytest.raises(RemoteProtocolError):
        decompress(compress(b"") * 1000, max_bytes=10)


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_any_bytes_are_a_message_or_refused(data: bytes, message: bytes) -> None:
    """Random bytes, and streams that are cut or changed, give bytes or RemoteProtocolError."""
    stream = compress(message)
    for bad in (data, stream[: len(data) % len(stream)], bytes([*stream[:12], *data])):
        try:
            decompress(bad, max_bytes=1000)
        except RemoteProtocolError:
            continue


def test_too_long_to_be_taken_is_not_sent() -> None:
    """Whoever has the same bound would refuse it: the sender hears it at once."""
    stage = Stage(GzipInterceptor(max_inflated_size=100))
    with pytest.raises(LocalProtocolError):
        stage.send(bytes(101))
    assert stage.sent == []
    assert GzipInterceptor(max_inflated_size=100).message_max_bytes(10**6) == 100
    assert 990_000 < GzipInterceptor().message_max_bytes(10**6) < 10**6


def test_statistics_count_and_are_told_every_interval() -> None:
    """Off by default; with ``interval`` an event tells them."""
    sender = Stage(counting := GzipInterceptor(stats_enabled=True, interval=2))
    sender.send(bytes(1000))
    assert sender.told("gzip statistics") == []
    sender.send(b"")
    told = sender.told("gzip statistics")
    assert len(told) == 1
    wire = len(sender.wire[0])
    assert counting.statistics() == GzipStatistics(
        sent=2, sent_compressed=1, sent_size=1000, sent_wire_size=wire
    )
    sender.carry_to(Stage(silent := GzipInterceptor()))
    assert silent.statistics() == GzipStatistics()
    sender.carry_to(Stage(counting := GzipInterceptor(stats_enabled=True)))
    assert counting.statistics() == GzipStatistics(
        received=2, received_compressed=1, received_size=1000, received_wire_size=wire
    )


@pytest.mark.parametrize(
    "setting", ["compression_min_size", "interval", "max_inflated_size", "option_flag"]
)
def test_settings_that_cannot_work_are_refused(setting: str) -> None:
    """The error names the setting."""
    with pytest.raises(ConfigError) as error:
        GzipInterceptor(**{setting: -1})  # type: ignore[arg-type]
    assert error.value.key == setting
