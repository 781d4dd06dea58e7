"""Whatever the network does, an own link delivers once, in order, and tells each outcome once."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.links.own_pair import Frame, Pair
from tribes.errors import RemoteProcessError, SendTimeoutError
from tribes.links.base import Need, QueueBounds

QUEUE_BYTES = 20_000
WINDOW_BYTES = 15_000
FRAME_MAX_BYTES = 6_000


class Chaos:
    """A pair, a model of what may be true, and a random hand."""

    def __init__(self, seed: int, *, sealed: bool, use_wake: bool) -> None:
        self.rng = random.Random(seed)
        self.pair = Pair(
            rng=self.rng,
            sealed=sealed,
            use_wake=use_wake,
            bounds=QueueBounds(QUEUE_BYTES, QUEUE_BYTES, WINDOW_BYTES),
            hellos_unanswered_max=None,
        )
        self.sealed = sealed
        self.pair.auto_done = False
        self.outcome: dict[int, str | None] = {}
        self.checked = 0
        self.ended: dict[int, Exception | None] = {}

    def step(self) -> None:
        rng, pair = self.rng, self.pair
        wires = list(pair.wires.values())
        wire = rng.choice(wires[-3:]) if wires else None
        size = rng.choice([1, 7, 60, 500, 5_000, None])
        match rng.choices(
            ["put", "connect", "take", "up", "down", "done", "flush", "cut", "sleep", "ping"],
            [30, 20, 10, 40, 25, 30, 15, 4, 6, 1],
        )[0]:
            case "put":
                for _ in range(rng.choice([1, 1, 3, 12])):
                    pair.put(
                        rng.choice(list(Need)),
                        size=rng.choice([0, 10, 300, FRAME_MAX_BYTES]),
                        high=rng.choice([0, 0, 0x54505900]),
                    )
            case "connect" if pair.attempts:
                pair.connect(works=rng.random() < 0.8)
            case "take" if wire:
                pair.take(wire, size)
            case "up" if wire:
                pair.move_up(wire, size)
            case "down" if wire:
                pair.move_down(wire, size)
            case "done" if pair.open:
                self.end_one(rng.randrange(len(pair.open)))
            case "flush" if wire:
                pair.flush(wire)
            case "cut" if wire:
                who = rng.choice(["both", "sender", "receiver"])
                pair.cut(wire, sender=who != "receiver", receiver=who != "sender")
            case "sleep":
                pair.sleep(rng.choice([0.01, 0.1, 0.5, 1.1, 3.5]))
            case "ping":
                pair.sender.idle_ping(pair.now)
                pair.perform()
            case _:
                pass
        self.check()

    def end_one(self, index: int) -> None:
        number = self.pair.open[index][2]
        reason = self.rng.choice([None, None, f"reason {number}"])
        # Noted first: the outcome is true from when it is given, not from when it is told.
        self.outcome[number] = reason
        self.pair.done(index, reason)

    def check(self) -> None:
        pair = self.pair
        assert pair.arrived == sorted(set(pair.arrived)), "delivered once, in order"
        arrived = set(pair.arrived)
        for frame, error in pair.settled[self.checked :]:
            assert frame.number not in self.ended, "settled once"
            self.ended[frame.number] = error
            if error is None:
                self.check_success(frame, arrived)
            elif isinstance(error, RemoteProcessError):
                assert frame.need is Need.PROCESSED
                assert self.outcome[frame.number] == f"reason {frame.number}"
                assert str(error).endswith(f"reason {frame.number}")
            else:
                assert isinstance(error, SendTimeoutError)
        self.checked = len(pair.settled)
        assert pair.sender.load.unacked <= WINDOW_BYTES
        assert pair.sender.queued_bytes == sum(pair.sender.load)
        # A START that was under way when its sender gave the connection up may come late.
        late = "a newer connection of this sender was first"
        assert all(str(why) == late for why in pair.broken), pair.broken
        assert not pair.refusals

    def check_success(self, frame: Frame, arrived: set[int]) -> None:
        number = frame.number
        if frame.need is Need.PROCESSED:
            assert number in self.outcome
            assert self.outcome[number] is None
        elif frame.need is Need.RECEIVED or self.sealed:
            assert number in arrived or frame.need is Need.NOTHING
        else:
            taken = (bytes(w.sent[: w.taken]) for w in self.pair.wires.values())
            marks = frame.data[11:19]
            assert number in arrived or any(marks in stream for stream in taken)

    def heal(self) -> None:
        pair = self.pair
        pair.sender.connect(pair.now)
        pair.perform()
        for _ in range(200):
            pair.settle_down()
            while pair.open:
                self.end_one(self.rng.randrange(len(pair.open)))
            pair.settle_down()
            self.check()
            # Frames that need nothing may be done for the sender while they are open here.
            is_told = pair.sender.outbox.counts == (0, 0, 0) and not pair.open
            if is_told and pair.sender.link is not None:
                break
            pair.sleep(0.3)
        assert pair.sender.outbox.counts == (0, 0, 0)
        assert pair.sender.queued_bytes == 0
        assert pair.sender.is_idle
        assert len(self.ended) == len(pair.frames)
        if pair.arrived:
            inbox = pair.inbox
            assert (inbox.open_count, inbox.unconfirmed) == (0, 0)
            assert inbox.floor == inbox.received == len(pair.arrived)
        arrived = set(pair.arrived)
        for frame in pair.frames:
            if frame.number not in arrived:
                # Past its deadline before it was ever written.
                assert isinstance(self.ended[frame.number], SendTimeoutError)


def run(seed: int, steps: int, *, sealed: bool, use_wake: bool) -> None:
    chaos = Chaos(seed, sealed=sealed, use_wake=use_wake)
    for _ in range(steps):
        chaos.step()
    chaos.heal()


@given(st.integers(0, 2**32), st.integers(1, 300), st.booleans())
@settings(max_examples=150)
def test_every_frame_arrives_once_and_in_order(seed: int, steps: int, use_wake: bool) -> None:
    """Random cuts at any byte, in either direction; then all is delivered, told and forgotten."""
    run(seed, steps, sealed=False, use_wake=use_wake)


@given(st.integers(0, 2**32), st.integers(1, 300), st.booleans())
@example(seed=795, steps=283, use_wake=False)
@settings(max_examples=100)
def test_the_same_holds_sealed(seed: int, steps: int, use_wake: bool) -> None:
    """With a key every write is one record; nothing else changes."""
    run(seed, steps, sealed=True, use_wake=use_wake)


@pytest.mark.parametrize("sealed", [False, True])
def test_a_hundred_thousand_frames_survive_two_cuts(sealed: bool) -> None:
    """All arrive, in order, none twice; two connections break in the middle of a frame."""
    pair = Pair(use_wake=True, sealed=sealed)
    pair.up()
    count = 0
    for burst in range(100):
        for _ in range(1_000):
            count += 1
            pair.put(Need(count % 3), size=60, perform=False)
        pair.perform()
        if burst in (30, 70):
            wire = pair.live
            pair.move_up(wire, 33_333)
            pair.cut(wire)
        pair.settle_down()
    assert pair.arrived == list(range(1, 100_001))
    assert len(pair.settled) == 100_000
    assert all(error is None for _, error in pair.settled)
    assert len(pair.wires) == 3
    assert pair.sender.is_idle
