"""What is decided about a commit on too few members, counted, and told to the operator."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import msgspec
import pytest

from tribes.config.model import ManagerConfig, NodeConfig, check_config
from tribes.errors import ConfigError, SessionNotReplicatedError
from tribes.manager.inbox import CommitResult
from tribes.manager.policy import CommitPolicy, check_on_unreplicated

ALONE = CommitResult(1, (), {})
ALL = CommitResult(1, ("b", "c"), {})
LACKING = CommitResult(1, ("b",), {"c": "TimeoutError: no acknowledgement within 1000 ms"})


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make(**settings: Any) -> tuple[CommitPolicy, list[dict[str, object]], Clock]:
    reports: list[dict[str, object]] = []
    clock = Clock()
    policy = CommitPolicy("shop", nullcontext(), monotonic=clock, report=reports.append, **settings)
    return policy, reports, clock


def counters(policy: CommitPolicy) -> tuple[int, int, int]:
    return policy.incomplete, policy.served, policy.refused


@pytest.mark.parametrize(
    ("result", "min_copies", "expected"),
    [
        (ALONE, 0, False),
        (ALONE, 1, True),
        (ALL, 2, False),
        (ALL, 3, True),
        (LACKING, 0, True),
        (LACKING, 1, True),
    ],
)
def test_unreplicated_is_what_lacks_a_member_or_a_copy(
    result: CommitResult, min_copies: int, expected: bool
) -> None:
    """Nobody is missing on a node that is alone, but a copy may be."""
    policy, _, _ = make(min_copies=min_copies)
    assert policy.is_unreplicated(result) is expected
    policy.judge(result)
    assert policy.served == expected


def test_serving_counts_and_reports() -> None:
    """The default: the request goes on."""
    policy, reports, _ = make()
    policy.judge(ALL)
    assert (counters(policy), reports) == ((0, 0, 0), [])
    policy.judge(LACKING)
    assert counters(policy) == (1, 1, 0)
    assert reports == [
        {
            "context": "shop",
            "missing": {"c": "TimeoutError: no acknowledgement within 1000 ms"},
            "missing_count": 1,
            "acked_count": 1,
            "min_copies": 0,
            "refused": False,
            "like_it_since_last_line": 0,
        }
    ]


def test_error_is_raised_with_the_result() -> None:
    """And says who is missing and why; too late for an error, it is served and counted so."""
    policy, _, _ = make(on_unreplicated="error", min_copies=1)
    with pytest.raises(SessionNotReplicatedError, match="c: TimeoutError") as caught:
        policy.judge(LACKING)
    assert caught.value.result is LACKING
    with pytest.raises(SessionNotReplicatedError, match="too few members"):
        policy.judge(ALONE)
    policy.judge(LACKING, can_refuse=False)
    assert counters(policy) == (2, 1, 2)


def test_function_decides() -> None:
    """It serves by returning and refuses by raising; a call's own choice goes before."""
    asked: list[CommitResult] = []

    def choose(result: CommitResult) -> None:
        asked.append(result)
        if not result.acked:
            raise PermissionError("not without a copy")

    policy, _, _ = make(min_copies=1)
    policy.judge(LACKING, choose)
    with pytest.raises(PermissionError):
        policy.judge(ALONE, choose)
    policy.judge(ALL, choose)
    policy.judge(ALONE, choose, can_refuse=False)
    assert asked == [LACKING, ALONE, ALONE]
    assert counters(policy) == (1, 2, 1)


def test_reports_are_rare_and_bounded() -> None:
    """One line in ten seconds and context, which counts those it stands for."""
    policy, reports, clock = make()
    for _ in range(1000):
        policy.judge(LACKING)
    clock.now = 9.9
    policy.judge(LACKING)
    assert len(reports) == 1
    clock.now = 10.0
    many = CommitResult(1, (), {f"m{n}": "x" * 10_000 for n in range(500)})
    policy.judge(many)
    assert len(reports) == 2
    assert reports[1]["like_it_since_last_line"] == 1000
    assert reports[1]["missing_count"] == 500
    assert len(repr(reports[1])) < 3000
    assert policy.served == 1002


@pytest.mark.parametrize(
    ("settings", "key", "text"),
    [
        ({"on_unreplicated": "raise"}, "on_unreplicated", "'serve' or 'error', found 'raise'"),
        ({"min_copies": -1, "channel_send_options": 6}, "min_copies", "0 or more, found -1"),
        ({"min_copies": 1}, "min_copies", "write channel_send_options = 6"),
        (
            {"min_copies": 1, "channel_send_options": 10},
            "min_copies",
            "channel_send_options = 10 no commit waits",
        ),
        ({"on_unreplicated": "error"}, "on_unreplicated", "or on_unreplicated = 'serve'"),
        ({"commit_timeout": 0}, "commit_timeout", "greater than 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    settings: dict[str, Any], key: str, text: str
) -> None:
    """With the key and the remedy, also those that would be ignored in silence."""
    with pytest.raises(ConfigError, match=text) as caught:
        check_config(NodeConfig(manager=ManagerConfig(**settings)))
    assert caught.value.key == f"manager.{key}"


@pytest.mark.parametrize("options", [2, 6])
def test_settings_that_work_are_taken(options: int) -> None:
    """From Python and from a file alike."""
    settings = {"on_unreplicated": "error", "min_copies": 2, "channel_send_options": options}
    check_config(NodeConfig(manager=msgspec.convert(settings, ManagerConfig)))
    with pytest.raises(msgspec.ValidationError, match="on_unreplicated"):
        msgspec.convert({"on_unreplicated": "ask"}, ManagerConfig)


def test_argument_that_cannot_work_is_refused() -> None:
    """Neither word nor function; or one that nobody would ever ask."""
    for waits in (True, False):
        check_on_unreplicated(None, waits=waits)
        check_on_unreplicated("serve", waits=waits)
    check_on_unreplicated("error", waits=True)
    check_on_unreplicated(print, waits=True)
    with pytest.raises(ConfigError, match="found 'abort'"):
        check_on_unreplicated("abort", waits=True)
    with pytest.raises(ConfigError, match="channel_send_options = 6"):
        check_on_unreplicated(print, waits=False)
