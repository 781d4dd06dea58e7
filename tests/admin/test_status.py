"""What operators are shown: status, metrics, readiness, failures and rates."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from tribes.admin import desk as desk_module
from tribes.admin.metrics import Family, exposition, families
from tribes.admin.recorder import FAILURES_MAX, SAMPLES_MAX, Failures, Rates
from tribes.admin.status import status_of
from tribes.channel.outputs import MemberRemoved, MemberSuspected, Notice
from tribes.membership.change import RemovalReason
from tribes.web.freshness import abring
from tribes.wire.member import Member

if TYPE_CHECKING:
    from tribes.runtime.group_channel import GroupChannel

METRICS = Path(__file__).parent.parent.parent / "docs" / "metrics.md"
MEMBER = Member(bytes([127, 0, 0, 1]), 4000, bytes(16))


@pytest.mark.usefixtures("no_kept_status")
async def test_status_tells_of_members_contexts_links_and_transfers(
    operate: Callable[..., Any],
) -> None:
    """Members as they are seen, sessions by manager, and nothing of what is in them."""
    async with operate() as node:
        manager = node.other.manager("shop")
        session = manager.create()
        session["card"] = "4111-secret"
        await node.other.acommit(session)
        shown = (await node.http.get("/status")).json()
        assert (shown["node"], shown["config"], shown["is_ready"]) == ("n1", "shop.toml", True)
        [member] = shown["members"]
        assert (member["name"], member["is_suspected"]) == ("n2", False)
        assert 0 < member["alive_s"] < 60
        assert 0 < shown["uptime_s"] < 60
        [context] = shown["contexts"]
        assert (context["context"], context["kind"], context["sessions"]) == ("shop", "delta", 1)
        assert (context["copies_on"], context["under_replicated"]) == (["n2"], 0)
        assert context["transfer"]["is_complete"] is True
        assert {link["name"] for link in shown["links"]} == {"n2"}
        assert shown["links"][0]["raw_bytes"] == 0
        text = json.dumps(shown)
        assert "secret" not in text
        assert session.id not in text


@pytest.mark.usefixtures("no_kept_status")
async def test_a_member_that_goes_is_shown_and_ready_ends_with_the_node(
    operate: Callable[..., Any],
) -> None:
    """Readiness is the node's own, and stays answered."""
    async with operate() as node:
        assert (await node.http.get("/ready")).status_code == 200
        node.channel.retire()
        assert (await node.http.get("/ready")).status_code == 503
        assert (await node.http.get("/live")).status_code == 200
        assert (await node.http.get("/status")).json()["is_ready"] is False


async def test_a_status_is_kept_for_a_moment(
    operate: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many look."""
    made: list[object] = []

    def counted(channel: GroupChannel) -> dict[str, Any]:
        made.append(channel)
        return status_of(channel)

    monkeypatch.setattr(desk_module, "status_of", counted)
    monkeypatch.setattr(desk_module, "KEPT_S", 60.0)
    async with operate() as node:
        for path in ("/status", "/metrics", "/status"):
            assert (await node.http.get(path)).status_code == 200
        assert len(made) == 1
        monkeypatch.setattr(desk_module, "KEPT_S", 0.0)
        await node.http.get("/status")
        assert len(made) == 2


async def test_who_looks_delays_no_commit(operate: Callable[..., Any]) -> None:
    """Twenty lookers, and a commit on all members in between."""
    async with operate() as node, trio.open_nursery() as nursery:

        async def look() -> None:
            while True:
                await node.http.get("/status")

        for _ in range(20):
            nursery.start_soon(look)
        manager = node.channel.manager("shop")
        with trio.fail_after(20):
            for _ in range(20):
                session = manager.create()
                session["a"] = 1
                assert (await node.channel.acommit(session)).acked == ("n2",)
        nursery.cancel_scope.cancel()


async def test_metrics_are_what_prometheus_reads(operate: Callable[..., Any]) -> None:
    """Its own parser reads them; each family is there once; each series too."""
    async with operate() as node:
        session = node.channel.manager("shop").create()
        session["a"] = "secret"
        await node.channel.acommit(session)
        answer = await node.http.get("/metrics")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        found = list(text_string_to_metric_families(answer.text))
        names = [family.name for family in found]
        assert len(names) == len(set(names))
        series = [(s.name, *sorted(s.labels.items())) for family in found for s in family.samples]
        assert len(series) == len(set(series))
        values = {s.name: s.value for family in found for s in family.samples}
        assert values["tribes_ready"] == 1
        assert values["tribes_members"] == 1
        assert values["tribes_sessions_commits_total"] == 1
        assert values["tribes_sessions_copies"] == 1
        assert all(family.documentation for family in found)
        assert "secret" not in answer.text
        assert session.id not in answer.text


@pytest.mark.usefixtures("no_kept_status")
async def test_requests_that_asked_other_members_are_counted(operate: Callable[..., Any]) -> None:
    """Here one in vain: of a write that nobody has."""
    async with operate() as node:
        manager = node.channel.manager("shop")
        session = manager.create()
        await node.channel.acommit(session)
        await abring(manager, [session.id], (2**40, 1))
        [context] = (await node.http.get("/status")).json()["contexts"]
        asked = {"asked": 1, "arrived": 0, "fetched": 0, "unknown": 1, "refused": 0}
        assert context["fetches"] == asked
        found = text_string_to_metric_families((await node.http.get("/metrics")).text)
        [sample] = [s for f in found for s in f.samples if s.name == "tribes_fetches_unknown_total"]
        assert (sample.value, sample.labels) == (1, {"context": "shop", "kind": "delta"})


@pytest.mark.usefixtures("no_kept_status")
async def test_every_metric_is_in_the_guide_and_no_other(operate: Callable[..., Any]) -> None:
    """Under its name."""
    async with operate() as node:
        session = node.channel.manager("shop").create()
        await node.channel.acommit(session)
        text = (await node.http.get("/metrics")).text
    shown = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    told = set(re.findall(r"`(tribes_[a-z_]+)`", METRICS.read_text()))
    # This node has no farm; test_farm compares those.
    assert {name for name in told if not name.startswith("tribes_farm_")} == shown


def test_labels_of_others_cannot_break_the_text() -> None:
    """A member may call itself whatever it likes."""
    evil = 'a"} 1\ntribes_ready 0\n\\'
    status = {
        "node": evil,
        "version": "1",
        "address": "x",
        "is_ready": True,
        "is_joined": True,
        "uptime_s": 1.5,
        "members": [],
        "view": 3,
        "failures_seen": 0,
        "channel": {},
        "queues": {},
        "links": [],
        "contexts": [],
    }
    text = exposition(families(status)).decode()
    found = {f.name: f for f in text_string_to_metric_families(text)}
    assert found["tribes_info"].samples[0].labels["node"] == evil
    assert [sample.value for sample in found["tribes_ready"].samples] == [1]


def test_numbers_are_written_whole() -> None:
    """Large ones too."""
    family = Family("x", "one\\two\nthree", "gauge", [({}, 2.0**53), ({"a": "b"}, 0.1)])
    [read] = text_string_to_metric_families(exposition([family]).decode())
    assert [sample.value for sample in read.samples] == [2.0**53, 0.1]


def test_failures_are_kept_up_to_a_bound() -> None:
    """The last ones; all are counted. What is no failure is not among them."""
    failures = Failures(wall=lambda: 12.5)
    failures.watch(MemberSuspected(MEMBER, 1.5))
    for number in range(FAILURES_MAX + 4):
        failures.watch(Notice("message refused", {"why": "x" * 1000, "number": number}))
    for fine in ("member draining", "joined"):
        failures.watch(Notice(fine, {"member": "n2"}))
    failures.watch(MemberRemoved(MEMBER, RemovalReason.LEFT, 2))
    assert failures.seen == FAILURES_MAX + 5
    assert len(failures.last) == FAILURES_MAX
    assert failures.last[-1]["at_ms"] == 12500
    assert failures.last[-1]["fields"]["number"] == FAILURES_MAX + 3
    assert len(failures.last[-1]["fields"]["why"]) == 301
    failures.watch(MemberRemoved(MEMBER, RemovalReason.CRASHED, 2))
    assert failures.last[-1]["event"] == "member removed"


def test_rates_are_per_second_and_bounded() -> None:
    """A counter that begins again at zero is no negative rate."""
    values = iter([0, 10, 40, 0, 5])
    rates = Rates(lambda: {"sent": next(values)})
    for now in (0.0, 1.0, 3.0, 4.0, 4.5):
        rates.sample(now)
    assert rates.series == {"sent": [10, 15, 0, 10]}
    many = Rates(lambda: {"sent": 1})
    for second in range(3 * SAMPLES_MAX):
        many.sample(float(second))
    assert len(many.series["sent"]) == SAMPLES_MAX
