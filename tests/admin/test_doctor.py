"""What is made of answers and datagrams: the judgements of ``tribes doctor`` alone."""

from __future__ import annotations

from typing import Any

from tribes.admin.doctor.asking import Answer, Outcome
from tribes.admin.doctor.findings import Finding, State
from tribes.admin.doctor.group import judge_answers
from tribes.admin.doctor.listening import Heard, Listening
from tribes.config import with_value
from tribes.config.model import NodeConfig
from tribes.links.challenge import About, Introduction, Life
from tribes.wire.member import Member

HERE, THERE = ("10.0.0.1", 4000), ("10.0.0.2", 4000)
RECORD = Member(bytes([10, 0, 0, 2]), 4000, b"u" * 16, payload=b"n2")


def met(version: str | None = "1", **fields: Any) -> Answer:
    about = None if version is None else About(0, version)
    return Answer(
        THERE, Outcome.MEMBER, met=Introduction(Life(0, 0), RECORD, about), unsure_ms=1, **fields
    )


def judged(*answers: Answer, heard: bool = True) -> dict[str, Finding]:
    listening = Listening(sent=5, returned=5)
    if heard:
        listening.members[RECORD.unique_id] = Heard(RECORD, 0, None)
    found = judge_answers(NodeConfig(), listening, answers, version="1", own=(HERE[0],))
    return {each.check: each for each in found}


def test_a_clock_an_hour_off_is_a_failure_and_less_a_warning() -> None:
    """Whichever way it is off."""
    for ahead_ms, state in (
        (1_500, State.OK),
        (-2_500, State.WARN),
        (3_500_000, State.WARN),
        (-3_700_000, State.FAIL),
    ):
        assert judged(met(ahead_ms=ahead_ms))["clock"].state is state, ahead_ms


def test_a_slow_answer_is_no_wrong_clock() -> None:
    """Half of its round trip is not known."""
    answer = Answer(THERE, Outcome.MEMBER, met=met().met, ahead_ms=4000, unsure_ms=2500)
    assert judged(answer)["clock"].state is State.OK


def test_the_own_node_need_not_run() -> None:
    """All members share one file, and this one is in it; another one must run."""
    assert judged(Answer(HERE, Outcome.REFUSED))["members"].state is State.WARN
    assert judged(Answer(THERE, Outcome.REFUSED))["members"].state is State.FAIL


def test_who_answers_and_is_not_heard_is_named() -> None:
    """Multicast does not arrive from it."""
    assert judged(met())["multicast"].state is State.OK
    assert "n2" in judged(met(), heard=False)["multicast"].text
    assert judged(met(), heard=False)["multicast"].state is State.FAIL


def test_releases_are_compared() -> None:
    """One that tells none is an earlier one."""
    assert judged(met("1"))["versions"].state is State.OK
    assert "2: n2" in judged(met("2"))["versions"].text
    assert "earlier" in judged(met(None))["versions"].text
    assert "clock" not in judged(met(None))


def test_tomcats_members_are_told_apart_from_silence() -> None:
    """They close a connection that asks who is there."""
    assert judged(Answer(THERE, Outcome.NOT_OURS))["members"].state is State.WARN
    assert judged(Answer(THERE, Outcome.SILENT))["members"].state is State.FAIL


def test_the_own_node_is_no_other_member() -> None:
    """It runs already: that is told, and whoever hears only itself is alone."""
    config = with_value(NodeConfig(name="n2"), "channel.receiver.address", THERE[0])
    listening = Listening(sent=5, returned=5)
    listening.members[RECORD.unique_id] = Heard(RECORD, 0, None)
    found = list(judge_answers(config, listening, [met()], version="1", own=(THERE[0],)))
    assert [(each.check, each.state) for each in found] == [
        ("node", State.OK),
        ("multicast", State.WARN),
        ("members", State.WARN),
    ]
