"""Whatever arrives is refused or understood: no way in raises, hangs, or keeps what it was sent.

A short look with hypothesis; ``make fuzz`` runs the same targets for as long as it is told.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.speech import Piece, pieces, to_input
from tests.fuzz.stand import CONTEXT, FRIEND, STRANGER, FoundError, Stand
from tests.fuzz.targets import TARGETS, Target
from tribes.channel.chain import Interceptor
from tribes.interceptors import EncryptInterceptor, GzipInterceptor, OrderInterceptor
from tribes.links.own_receiver import OwnReceiver, ReceiverState
from tribes.wire.data import decode_body

if TYPE_CHECKING:
    from tribes.wire.data import ChannelData

KEPT_MAX_BYTES = 3 * 1024 * 1024
"""What a node may keep of all that strangers have said. Two bounded tables take most of it: the
outcomes of messages, by which repeated ones are known, and the members that were announced."""
CONVERSATIONS = 150

each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)


def changed(target: Target) -> st.SearchStrategy[bytes]:
    """Conversations made of the seeds' pieces, some of them damaged, in any order."""
    known = sorted({piece for seed in target.seeds() for piece in pieces(seed)})

    @st.composite
    def draw_one(draw: st.DrawFn) -> bytes:
        kind, part = draw(st.sampled_from(known))
        match draw(st.integers(0, 5)):
            case 0:
                part = part[: draw(st.integers(0, len(part)))]
            case 1 if part:
                at, bit = draw(st.integers(0, len(part) - 1)), draw(st.integers(0, 7))
                part = part[:at] + bytes((part[at] ^ 1 << bit,)) + part[at + 1 :]
            case 2:
                at = draw(st.integers(0, len(part)))
                part = part[:at] + draw(st.binary(max_size=9)) + part[at:]
            case 3:
                kind = draw(st.integers(0, 255))
            case _:
                pass
        return to_input((kind, part))

    return st.lists(draw_one() | st.binary(max_size=40), max_size=8).map(b"".join)


@each_target
def test_t118_damaged_conversations_do_no_harm(target: Target) -> None:
    """No exception leaves the node, and nothing costs more than its bound."""

    @settings(max_examples=120)
    @given(changed(target))
    def look(data: bytes) -> None:
        target.run(data)

    look()


@each_target
def test_seeds_do_no_harm(target: Target) -> None:
    """Neither whole, nor cut anywhere."""
    random = Random(1)
    for seed in target.seeds():
        target.run(seed)
        target.run(seed[: random.randrange(len(seed) + 1)])


def _heard(target: str) -> Iterator[Stand]:
    for seed in TARGETS[target].seeds():
        stand = TARGETS[target].make()
        TARGETS[target].talk(stand, seed)
        yield stand


def test_seeds_reach_what_they_are_for() -> None:
    """Else a target would only ever fuzz the first byte."""
    assert any(stand.core.channel.statistics.frames_received for stand in _heard("plain"))
    for name in ("open", "sealed", "opening"):
        states = [
            (receiver.state, stand.core.channel.statistics.frames_received)
            for stand in _heard(name)
            for receiver in stand.core.channel.accepted.receivers.values()
            if isinstance(receiver, OwnReceiver)
        ]
        assert any(state is ReceiverState.OPEN and frames for state, frames in states), name
    for name in ("answers", "plain-answers"):
        owed = [stand.core.channel.queued_bytes.get(STRANGER, 0) for stand in _heard(name)]
        assert 0 in owed, (name, owed)
    for name in ("datagrams", "datagrams-keyed"):
        counted = [stand.core.channel.membership.statistics for stand in _heard(name)]
        assert any(each.heartbeats_received > 1 for each in counted), name
        assert any(each.malformed for each in counted), name
    merged = [stand.core.sessions.replicators[CONTEXT].transfer for stand in _heard("managers")]
    assert any(each.statistics.records_received for each in merged)
    assert any(each.statistics.records_sent for each in merged)


def test_seeds_reach_what_lies_behind_the_frames() -> None:
    """Each interceptor, and RPC, gets good messages and bad ones of every kind that it knows."""
    for name in ("gzip", "encrypt-gcm", "encrypt-cbc", "fragments", "order", "java"):
        assert any(stand.delivered for stand in _heard(name)), name
    stands = list(_heard("gzip"))
    counts = [gzip.statistics() for gzip in _each(stands, GzipInterceptor)]
    assert any(each.refused for each in counts)
    assert any(each.received_compressed for each in counts)
    for name in ("encrypt-gcm", "encrypt-cbc"):
        ciphers = _each(list(_heard(name)), EncryptInterceptor)
        assert any(each.refused for each in ciphers), name
        assert any(each.replayed for each in ciphers), name
    orders = _each(list(_heard("order")), OrderInterceptor)
    assert any(each.expired for each in orders)
    assert any(each.overflows for each in orders)
    whole = [stand.delivered_bytes for stand in _heard("fragments")]
    assert max(whole) >= 120, "none was put together"
    rpc = [stand.core.rpc.statistics for stand in _heard("java")]
    for name in ("requests", "left_over", "no_channel_sent", "no_channel_received", "malformed"):
        assert any(getattr(each, name) for each in rpc), name
    services = [stand.core.static_service for stand in _heard("java")]
    assert any(each.answered for each in services if each)


_I = TypeVar("_I", bound=Interceptor)


def _each(stands: list[Stand], kind: type[_I]) -> list[_I]:
    found = [each for stand in stands for each in stand.core.channel.interceptors]
    return [each for each in found if isinstance(each, kind)]


@each_target
def test_nothing_is_kept_of_what_strangers_say(target: Target) -> None:
    """One node hears many conversations; when they are over it is about as large as before."""
    random = Random(2)
    seeds = target.seeds()
    stand = target.make()

    def talk(rounds: int) -> None:
        for _ in range(rounds):
            data = bytearray(random.choice(seeds))
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
            target.talk(stand, bytes(data))
            for link in list(stand.core.channel.accepted.receivers):
                stand.close(link)
            stand.sleep(0.2)
            stand.check()

    talk(30)  # Caches fill.
    gc.collect()
    tracemalloc.start()
    try:
        talk(CONVERSATIONS)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < KEPT_MAX_BYTES
    assert FRIEND in stand.core.view.members or target.name == "managers"


@pytest.mark.parametrize("name", ["plain", "opening", "open", "sealed", "answers", "plain-answers"])
def test_announced_bytes_are_not_allocated(name: str) -> None:
    """A frame says that it has 2 GiB: nothing is reserved before it is there."""
    target = TARGETS[name]
    stand = target.make()
    claim = b"FLT2002\x7f\xff\xff\xff"
    data = to_input((Piece.RAW, claim + b"x" * 1000), (Piece.NEXT, claim))
    tracemalloc.start()
    try:
        target.talk(stand, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1024 * 1024


def _errs(body: bytes) -> ChannelData:
    del body
    raise IndexError("an error of our own")


def _is_slow(body: bytes) -> ChannelData:
    sum(range(10_000_000))
    return decode_body(body)


def _is_greedy(body: bytes) -> ChannelData:
    assert b"x" * 100_000_000
    return decode_body(body)


@pytest.mark.parametrize(
    ("broken", "says"),
    [(_errs, "an error of our own"), (_is_slow, " s for "), (_is_greedy, "bytes of memory for ")],
)
def test_broken_node_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[[bytes], ChannelData], says: str
) -> None:
    """Each promise is really looked at: a build that breaks it does not pass."""
    assert b"x" * 200_000_000  # an earlier test took more
    monkeypatch.setattr("tribes.channel.receiving.decode_body", broken)
    if broken is _is_slow:
        monkeypatch.setattr("tests.fuzz.stand.INPUT_MAX_S", 0.05)
    with pytest.raises((FoundError, IndexError), match=says):
        TARGETS["open"].run(TARGETS["open"].seeds()[0])


def test_table_beyond_its_bound_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand counts what the node has."""
    monkeypatch.setattr("tests.fuzz.stand.MEMBERS_MAX", 0)
    with pytest.raises(FoundError, match="1 members"):
        TARGETS["plain"].run(b"")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_command_runs_a_target(tmp_path: Path) -> None:
    """``make fuzz``, for a moment."""
    pytest.importorskip("atheris", reason="not here: atheris has no build for this system")
    run = Path(__file__).with_name("run.py")
    done = subprocess.run(
        [sys.executable, str(run), "plain", "--seconds", "2", "--found", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert '"found": false' in done.stdout
