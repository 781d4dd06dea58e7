"""What passes is counted and told."""

from __future__ import annotations

import pytest

from tribes.errors import ConfigError
from tribes.interceptors import Throughput, ThroughputInterceptor
from tribes.testing.stage import Stage, stage_member

A, B = stage_member(1), stage_member(2)


def test_counts_both_ways() -> None:
    """Messages, bytes for each destination, failures, and the time something was on its way."""
    stage = Stage(interceptor := ThroughputInterceptor())
    stage.start()
    stage.holds = True
    first, second = stage.send(bytes(10), A, B), stage.send(bytes(5), A)
    stage.sent[0].ticket.settle(A, None, 1.0)
    stage.sent[1].ticket.settle(A, OSError(), 2.0)
    assert second.faulty.keys() == {A}
    assert interceptor.statistics(2.5).busy_s == 2.5
    stage.sent[0].ticket.settle(B, None, 3.0)
    assert first.is_settled
    assert not first.faulty
    stage.arrive(bytes(7))
    assert interceptor.statistics(4.0) == Throughput(
        sent_messages=2,
        sent_bytes=15,
        sent_to_all_bytes=25,
        failures=1,
        busy_s=3.0,
        received_messages=1,
        received_bytes=7,
        seconds=4.0,
    )


def test_told_every_interval_of_each_way() -> None:
    """With rates in MB per second."""
    stage = Stage(ThroughputInterceptor(interval=2))
    stage.start()
    stage.pass_time(1)
    for _ in range(3):
        stage.arrive(bytes(500_000))
    for _ in range(2):
        stage.send(bytes(1_000_000))
    told = stage.told("throughput")
    assert [(each["sent"], each["received"]) for each in told] == [(0, 2), (2, 3)]
    assert told[1]["received_mb_per_s"] == 1.5
    assert told[1]["sent_mb_per_s"] == 2.0


def test_released_means_released() -> None:
    """A caller that may go on before the outcome does so through the counter too."""
    stage = Stage(ThroughputInterceptor())
    stage.holds = True
    ticket = stage.send(b"x")
    stage.sent[0].ticket.release(0.0)
    assert ticket.is_released
    assert not ticket.is_settled


def test_interval_must_be_positive() -> None:
    """The error names the setting."""
    with pytest.raises(ConfigError) as error:
        ThroughputInterceptor(interval=0)
    assert error.value.key == "interval"
