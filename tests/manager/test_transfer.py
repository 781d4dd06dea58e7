"""Joining, resync and repair: who gets what from whom, what that costs, and what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest

from tests.manager.cluster import are_equal, config, fill, read, replicator, start, write
from tribes.config.model import check_config
from tribes.errors import AttributeUnreadableError, ConfigError
from tribes.manager import donor
from tribes.manager.delta import DeltaManager
from tribes.manager.messages import (
    Digests,
    Records,
    Summary,
    Want,
    decode_message,
    is_manager_message,
)
from tribes.manager.progress import JoinProgress
from tribes.manager.serving_budget import SERVING_STRANGERS_MAX
from tribes.testing.sim import SimNode, SimWaiter, World


class Wire:
    """Notes the managers' messages that a node posts, with their sizes."""

    def __init__(self, node: SimNode) -> None:
        self.messages: list[Any] = []
        self.bytes = 0
        channel: Any = node.core.channel
        post = channel.post

        def noting(to: Any, payload: bytes, *args: Any, **more: Any) -> Any:
            if is_manager_message(payload):
                self.messages.append(decode_message(payload))
                self.bytes += len(payload)
            return post(to, payload, *args, **more)

        channel.post = noting

    def of(self, kind: type) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kind)]


def sent(node: SimNode) -> int:
    return int(replicator(node).transfer.statistics.records_sent)


def joined(world: World, node: SimNode, seconds: float = 30.0) -> float:
    """Wait until a node has joined; returns after how long."""
    begin = world.now
    assert world.run_until(world.now + seconds, lambda: node.core.is_joined)
    return world.now - begin


def test_t45_joiner_has_ten_thousand_sessions_before_it_says_that_it_has_joined() -> None:
    """The first request for each of them is served at the moment of joining."""
    world = World(1)
    [a] = start(world, "a")
    ids = fill(a, 10_000)
    b = world.start("b", config())
    joined(world, b)
    assert all(b.manager().find(each) is not None for each in ids)


def test_t46_any_member_donates_and_several_share_the_work() -> None:
    """Of three members of different age each sends a part, and hardly a session comes twice."""
    world = World(2)
    nodes = start(world, "a")
    ids = fill(nodes[0], 3000)
    for name in "bc":
        nodes.append(world.start(name, config()))
        world.run(3)
    before = [sent(node) for node in nodes]
    d = world.start("d", config())
    joined(world, d)
    shares = [sent(node) - old for node, old in zip(nodes, before, strict=True)]
    assert min(shares) > 300, shares
    assert sum(shares) <= 1.1 * len(ids), shares
    assert are_equal(d, *nodes)


def test_t47_sessions_travel_in_messages_of_the_configured_number() -> None:
    """``sendAllSessionsSize``; none for no sessions; less than one is refused at the start."""
    world = World(3)
    small = config(send_all_sessions_size=10)
    a = world.start("a", small)
    world.run(3)
    wire = Wire(a)
    joined(world, world.start("b", small))
    assert wire.of(Records) == []
    fill(a, 250)
    wire.messages.clear()
    c = world.start("c", small)
    joined(world, c)
    sizes = [len(message.pairs) for message in wire.of(Records)]
    assert sizes
    assert max(sizes) == 10
    with pytest.raises(ConfigError, match="send_all_sessions_size"):
        check_config(config(send_all_sessions_size=0))


def test_t48_a_joiner_goes_on_after_the_timeout_says_so_and_counts_it() -> None:
    """A donor that hangs, and is not removed: after three seconds an event and a counter."""
    world = World(4)
    [a] = start(world, "a")
    fill(a, 100)
    begin = world.now
    b = world.start("b", config(state_transfer_timeout_s=3))
    assert world.run_until(world.now + 3, lambda: bool(replicator(b).targets))
    silence(a)
    joined(world, b)
    assert 2.9 < world.now - begin < 3.2
    assert replicator(b).transfer.statistics.no_state_transferred == 1
    assert [e.name for _, e in b.events if e.name.startswith("joined")] == [
        "joined without all sessions"
    ]


def test_a_joiner_that_went_on_is_complete_when_the_rest_has_come() -> None:
    """From then on a session that is not here is nowhere, and no request asks for it any more."""
    world = World(4)
    [a] = start(world, "a")
    fill(a, 100)
    b = world.start("b", config(state_transfer_timeout_s=3))
    assert world.run_until(world.now + 3, lambda: bool(replicator(b).targets))
    speak = silence(a)
    joined(world, b)
    manager, nowhere = b.manager(), "0" * 32
    assert isinstance(manager, DeltaManager)
    assert manager.lacks(nowhere)
    assert not replicator(b).transfer.is_complete
    speak()
    assert world.run_until(world.now + 30, lambda: are_equal(a, b))
    world.run(10)
    assert replicator(b).transfer.is_complete
    assert not manager.lacks(nowhere)


def test_who_cannot_be_served_now_is_tried_again() -> None:
    """As many members as are served at once want something: a comparison ends all the same."""
    world = World(41)
    a, b = start(world, "ab")
    ids = fill(a, 20)
    table = b.manager().table
    for key in ids:
        record = table.get(key)
        assert record is not None
        table.drop(key, record)
    servings: Any = replicator(a).transfer.donor._servings
    servings.update((number, {}) for number in range(SERVING_STRANGERS_MAX))
    replicator(a).compare_all(a.clock.monotonic())
    a.pump()
    world.run(0.5)
    servings.clear()
    assert not are_equal(a, b)
    world.run(15)
    assert are_equal(a, b)
    assert not replicator(a).transfer.is_comparing


def test_t48_minus_one_waits_until_all_is_here() -> None:
    """However long the only donor is silent; other negative times are refused."""
    world = World(5)
    [a] = start(world, "a")
    ids = fill(a, 100)
    b = world.start("b", config(state_transfer_timeout_s=-1))
    assert world.run_until(world.now + 3, lambda: bool(replicator(b).targets))
    speak = silence(a)
    world.run(100)
    assert not b.core.is_joined
    speak()
    joined(world, b)
    assert all(b.manager().find(each) for each in ids)
    assert replicator(b).transfer.statistics.no_state_transferred == 0
    with pytest.raises(ConfigError, match="state_transfer_timeout_s"):
        check_config(config(state_transfer_timeout_s=-2))


def silence(node: SimNode) -> Any:
    """Make a donor take questions and answer none, as one does whose code hangs."""
    serving: Any = replicator(node).transfer.donor
    serving.on_summary = serving.on_want = lambda *_: None

    def speak() -> None:
        del serving.on_summary, serving.on_want

    return speak


def test_t49_the_oldest_member_does_not_run_the_application() -> None:
    """It is asked for nothing, and the next one gives everything at once."""
    world = World(6)
    world.start("old", config().__class__(contexts=("other",)))
    world.run(3)
    [a] = start(world, "a")
    ids = fill(a, 500)
    b = world.start("b", config())
    assert joined(world, b) < 2
    assert all(b.manager().find(each) for each in ids)


@pytest.mark.parametrize("how", ["dies", "hangs", "forgets the application"])
def test_t49_a_donor_that_fails_in_the_middle_is_replaced(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed, stopped, or without the context after half of its share: the joiner has all sessions
    within seconds, from the others, and what had arrived is not sent again.
    """
    monkeypatch.setattr(donor, "RECORDS_MAX_BYTES", 2000)
    monkeypatch.setattr(donor, "OUTSTANDING_MAX_BYTES", 4000)
    world = World(7, latency=0.002)
    nodes = start(world, "abc")
    ids = fill(nodes[0], 3000)
    counts = [replicator(node).transfer.statistics for node in nodes]
    before = sum(each.records_sent for each in counts)
    d = world.start("d", config())
    assert world.run_until(
        world.now + 5, lambda: replicator(d).transfer.statistics.records_received >= 1500
    )
    assert not d.core.is_joined
    if how == "dies":
        nodes[0].crash()
    elif how == "hangs":
        nodes[0].pause()
    else:
        nodes[0].core.sessions.change((), ("app",), nodes[0].clock.monotonic())
        nodes[0].pump()
    survivors = nodes[1:]
    for node in survivors:
        replicator(node).transfer.stop()  # else a comparison of theirs may bring it first
    assert world.run_until(world.now + 3, lambda: len(d.manager().table) == len(ids))
    assert all(d.manager().find(each) is not None for each in ids), "the others have them"
    assert sum(each.records_sent for each in counts) - before < 1.4 * len(ids)
    joined(world, d)
    assert are_equal(d, *survivors)
    if how == "hangs":
        assert replicator(d).transfer.statistics.donors_replaced >= 1


@dataclass
class Colour:
    """A value of an application."""

    red: int


def test_t52_an_undecodable_attribute_costs_only_itself() -> None:
    """Five sessions, one with a value that the joiner has no codec for: five sessions arrive, all
    other attributes can be read, the one is counted, and it is there for those who know it.
    """
    world = World(8)
    [a] = start(world, "a")
    a.manager().codec.register(
        Colour, name="colour", encode=lambda c: c.red, decode=lambda red: Colour(red)
    )
    ids = [write(a, "plain", number) for number in range(5)]
    write(a, "colour", Colour(7), ids[2])
    b = world.start("b", config())
    joined(world, b)
    sessions = [b.manager().find(each) for each in ids]
    assert [session and session["plain"] for session in sessions] == list(range(5))
    unreadable = []
    for session in sessions:
        assert session is not None
        try:
            session["colour"]
        except AttributeUnreadableError:
            unreadable.append(session.id)
        except KeyError:
            pass
    assert unreadable == [ids[2]]
    assert b.manager().statistics().attributes_unreadable == 1
    assert a.manager().statistics().attributes_unreadable == 0
    write(b, "plain", "changed", ids[2])
    world.run(1)
    known = a.manager().find(ids[2])
    assert known is not None
    assert dict(known) == {"plain": "changed", "colour": Colour(7)}


def test_t53_resync_brings_what_is_missing_and_keeps_what_is_newer() -> None:
    """What a fault took from this node comes back; a change that only this node has stays."""
    world = World(9)
    a, b = start(world, "ab")
    ids = fill(a, 20)
    table = b.manager().table
    record = table.get(ids[0])
    assert record is not None
    assert table.drop(ids[0], record)
    world.cut(b, a)
    write(b, "value", "newer", ids[1])
    world.run(0.3)
    world.uncut(b, a)
    assert replicator(b).resync(b.clock.monotonic()) == 1
    b.pump()
    world.run(0.2)
    assert read(b, ids[0]) == {"value": 0}
    assert read(b, ids[1]) == {"value": "newer"}
    world.run(5)
    assert are_equal(a, b)


def test_a_lost_answer_to_a_comparison_is_asked_for_again() -> None:
    """After a second, not only when the member has been silent for as long as a busy one may be."""
    world = World(6)
    a, b = start(world, "ab")
    write(a, "first", 1)
    world.run(1)
    channel: Any = a.core.channel
    post = channel.post
    lost: list[bytes] = []

    def losing(to: Any, payload: bytes, *args: Any, **more: Any) -> Any:
        is_answer = is_manager_message(payload)
        if is_answer and isinstance(decode_message(payload), Digests) and not lost:
            lost.append(payload)
            return None
        return post(to, payload, *args, **more)

    channel.post = losing
    done: list[Exception | None] = []
    transfer = replicator(b).transfer
    transfer.pull(a.core.local, b.clock.monotonic(), done=lambda why, then: done.append(why))
    b.pump()
    world.run(1.5)
    assert lost
    assert done == [None]


@pytest.mark.parametrize("offset_ms", [3_600_000, -3_600_000])
def test_t54_join_is_right_with_clocks_an_hour_apart(offset_ms: int) -> None:
    """Plainly and under load, the joiner being ahead or behind: nothing is lost or too old."""
    world = World(10)
    [a] = start(world, "a", options=8)
    ids = fill(a, 200)
    b = world.start("b", config(8), clock_offset_ms=offset_ms)
    for number in range(100):
        ids.append(write(a, "value", number))
        write(a, "value", "late", ids[number])
        world.run(0.01)
    joined(world, b)
    write(b, "value", "from b", ids[0])
    world.run(1)
    write(a, "value", "then a", ids[0])
    world.run(1)
    assert are_equal(a, b)
    assert read(b, ids[0]) == read(a, ids[0]) == {"value": "then a"}
    assert all(b.manager().find(each) for each in ids)


def test_t55_a_donor_sends_large_sessions_in_bounded_memory_and_stays_a_member() -> None:
    """Two joiners at once, 60 MB each: never more than 16 MiB are encoded ahead, by the budget that
    all contexts share, and nobody is suspected. More is moved by ``make bench ROW=state-transfer``.
    """
    world = World(11)
    [a] = start(world, "a")
    fill(a, 400, bytes(150_000))
    joiners = [world.start(name, config()) for name in "bc"]
    for node in joiners:
        joined(world, node, 120)
    assert are_equal(a, *joiners)
    budget = a.core._budget
    assert 1024 * 1024 < budget.peak_bytes <= 16 * 1024 * 1024
    assert budget.bytes == 0
    names = {event.name for node in (a, *joiners) for _, event in node.events}
    assert not names & {"member suspected", "member removed", "state transfer given up"}


def test_t62_a_stalled_member_that_resumes_is_equal_within_seconds() -> None:
    """Stopped for a minute under writes, in every mode."""
    for options in (6, 2, 8):
        world = World(12)
        a, b, c = nodes = start(world, "abc", options=options)
        ids = fill(a, 50)
        c.pause()
        for number in range(60):
            write((a, b)[number % 2], "value", number, ids[number % 50])
            world.run(1)
        c.resume()
        world.run(5)
        assert are_equal(*nodes), options


def test_equal_members_exchange_about_half_a_kilobyte() -> None:
    """And of 2,000 sessions of which ten differ, the ten travel and little more."""
    world = World(13)
    a, b = start(world, "ab")
    ids = fill(a, 2000, "x" * 1000)
    for node in (a, b):
        replicator(node).transfer.stop()  # nothing else is compared
    wires = Wire(a), Wire(b)
    replicator(b).transfer.pull(a.core.local, b.clock.monotonic())
    b.pump()
    world.run(0.1)
    assert [len(each.messages) for each in wires] == [1, 1]
    assert sum(each.bytes for each in wires) < 640
    table = b.manager().table
    for each in ids[:10]:
        record = table.get(each)
        assert record is not None
        assert table.drop(each, record)
    for wire in wires:
        wire.messages.clear()
        wire.bytes = 0
    replicator(b).transfer.pull(a.core.local, b.clock.monotonic())
    b.pump()
    world.run(0.1)
    assert are_equal(a, b)
    [records] = wires[0].of(Records)
    assert len(records.pairs) == 10
    assert sum(each.bytes for each in wires) < 64 * 1024
    kinds = [type(message) for wire in wires for message in wire.messages]
    assert sorted(kinds, key=str) == sorted([Digests, Records, Summary, Want], key=str)


def test_what_the_other_lacks_is_given_in_the_same_comparison() -> None:
    """With an offer both are equal at its end, and until then nobody is drained."""
    world = World(14)
    a, b = start(world, "ab")
    ids = fill(a, 30)
    for node, lost in ((a, ids[:5]), (b, ids[5:10])):
        for each in lost:
            record = node.manager().table.get(each)
            assert record is not None
            assert node.manager().table.drop(each, record)
    ends: list[Any] = []
    transfer = replicator(a).transfer
    transfer.pull(
        b.core.local, a.clock.monotonic(), offers=True, done=lambda why, _: ends.append(why)
    )
    assert transfer.is_comparing
    a.pump()
    world.run(0.2)
    assert ends == [None]
    assert are_equal(a, b)
    assert not transfer.is_comparing


def test_progress_is_told_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known, received, rate and from whom; the last one when the join is over."""
    monkeypatch.setattr(donor, "RECORDS_MAX_BYTES", 10_000)
    monkeypatch.setattr(donor, "OUTSTANDING_MAX_BYTES", 40_000)
    world = World(15, latency=0.05)
    nodes = start(world, "ab")
    fill(nodes[0], 3000, "x" * 1000)
    c = world.start("c", config())
    joined(world, c)
    told = [(when, e) for when, e in c.events if isinstance(e, JoinProgress)]
    assert len(told) > 3
    last = told[-1][1]
    assert last.known == 3000
    assert last.received >= 3000
    assert {donor for _, each in told for donor in each.donors} == {"a", "b"}
    assert all(late - soon >= 0.9 for (soon, _), (late, _) in pairwise(told[:-1]))


def test_changes_go_before_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """While changes wait for a member, it gets one message of records now and then, no more."""
    world = World(16)
    [a] = start(world, "a", options=8)
    fill(a, 500, "x" * 1000)
    monkeypatch.setattr(donor, "RECORDS_MAX_BYTES", 20_000)
    waiting = 1024 * 1024
    monkeypatch.setattr(type(a.core.channel), "live_waiting", lambda self, member: waiting)
    wire = Wire(a)
    b = world.start("b", config(8))
    assert world.run_until(world.now + 5, lambda: bool(wire.of(Records)))
    wire.messages.clear()
    world.run(0.52)
    assert 5 <= len(wire.of(Records)) <= 12
    waiting = 0
    world.run(0.2)
    assert replicator(b).transfer.statistics.records_received >= 500


def test_a_session_that_is_not_here_yet_is_fetched_when_a_request_asks() -> None:
    """From a member that has it, hedged to the next; one that is nowhere is not there for long."""
    world = World(17)
    a, b = start(world, "ab")
    ids = fill(a, 20)
    fetcher = world.start("c", config(state_transfer_timeout_s=-1))
    joined(world, fetcher)
    for node in (a, b, fetcher):
        replicator(node).transfer.stop()  # nothing comes by itself
    table = fetcher.manager().table
    for each in ids:
        record = table.get(each)
        if record is not None:
            table.drop(each, record)
    replicator(fetcher).transfer.is_joined = False
    manager = fetcher.manager()
    assert manager.lacks(ids[3])
    a.pause()
    for each in ids[3:5]:
        # One of them asks the member first that hangs.
        waiter = SimWaiter()
        assert manager.ask(each, None, waiter)
        assert world.run_until(world.now + 0.2, lambda w=waiter: w.is_done)  # type: ignore[misc]
        assert waiter.result is not None
        assert waiter.result.version
        assert read(fetcher, each) == {"value": 0}
    a.resume()
    world.run(1)
    nowhere = SimWaiter()
    assert manager.ask("0" * 32, None, nowhere)
    assert world.run_until(world.now + 1.05, lambda: nowhere.is_done)
    assert nowhere.result is not None
    assert not nowhere.result.version
    assert not manager.lacks("no id at all")
    del b
