"""Where sessions lie on five real nodes with one copy each, and that nothing is lost on the way."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos.backup.cluster import FIVE, Answer, Cluster
from tests.standstill import Stopwatch
from tests.system.test_operators import Node, token_file
from tribes.manager.placement import PARTS, part_of

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["token_file"]

ROUNDS = 300
ROUNDS_OF_PROOF = 10_000
DIP_S = 1.0
"""So long a part may have less than all its copies while a node leaves in good order: one whose
new holder dies or hangs meanwhile."""
SIX = (*FIVE, "n6")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def _numbered(made: list[Answer], **more: str) -> dict[str, dict[str, str]]:
    """What each session must hold, by its cookie."""
    return {each.cookie: {"n": str(i), **more} for i, each in enumerate(made)}


def _moves(five: Cluster) -> dict[str, Any]:
    """Whatever changes when something moves."""
    kept = ("states", "claims", "moves")
    found = five.all_places(FIVE)
    return {name: {what: each[what] for what in kept} for name, each in found.items()}


def _moves_at_rest(five: Cluster) -> dict[str, Any]:
    """The same when nothing moves: for three times as long as nodes take to look for it."""
    deadline = time.monotonic() + 15
    seen = _moves(five)
    while True:
        time.sleep(1.5)
        if (now := _moves(five)) == seen:
            return seen
        assert time.monotonic() < deadline, "it does not come to rest"
        seen = now


def _epoch(places: dict[str, Any], key: str) -> int:
    """The latest epoch of a session's part that any node knows."""
    return max(int(each["epochs"][part_of(key)]) for each in places.values())


def _until_counted(cluster: Cluster, names: tuple[str, ...], count: int) -> None:
    """Wait until all know how many sessions there are."""
    deadline = time.monotonic() + 10
    while {each["all_known"] for each in cluster.all_places(names).values()} != {count}:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_t76_two_first_accesses_at_once_leave_one_owner_on_real_nodes(
    five: Cluster, is_proof: bool, figure: Any
) -> None:
    """Two nodes that have not seen a session write to it at once: both writes are in it, it has one
    owner and one copy, and none is without.
    """
    rounds = ROUNDS_OF_PROOF if is_proof else ROUNDS
    keys = {}
    places = five.all_places(FIVE)
    for i in range(rounds):
        made = five.ask(FIVE[i % 5], f"/write?n={i}")
        away = [name for name in FIVE if name not in five.holders(places, made.id)]
        first, second = away[i % 3], away[(i + 1) % 3]
        both = five.ask_all([(name, f"/write?{name}={i}", made.cookie) for name in (first, second)])
        assert {each.id for each in both} == {made.id}
        keys[made.cookie] = {"n": str(i), first: str(i), second: str(i)}
        if i % 100 == 99 or i == rounds - 1:
            # Whether the last hundred are as they should be, asked for on a node in turn.
            some = dict(list(keys.items())[-100:])
            five.expect([FIVE[i // 100 % 5]], some)
    found = five.ask_all((name, "/ids", "") for name in FIVE)
    owned = Counter(key for each in found for key in each["owned"])
    held = Counter(key for each in found for key in each["held"])
    ids = {cookie.partition(".")[0] for cookie in keys}
    assert {owned[key] for key in ids} == {1}
    assert {held[key] for key in ids} == {2}
    figure(f"{rounds} first accesses of two nodes at once: one owner each")


def test_t73_t74_any_node_serves_any_session_and_management_moves_nothing(
    five: Cluster, tmp_path: Path, token_file: Path
) -> None:
    """Reads and writes on every node; ``tribes sessions list`` and ``show``, and counts."""
    made = five.make(FIVE, 20)
    with closing(_operated(five, tmp_path, token_file)) as node:
        node.read_until("joined")
        five.wait_whole(*FIVE, others=1)
        before = _moves_at_rest(five)
        listed = _tribes(node, token_file, "list", "shop", "--limit", "1000")["sessions"]
        assert listed
        for each in listed[:2]:
            shown = _tribes(node, token_file, "show", "shop", each["session"])
            assert shown["attributes"][0]["name"] == "n"
        five.expect(FIVE, _numbered(made))
        assert _moves(five) == before
        for name in FIVE:
            five.ask_all((name, f"/write?{name}=1", each.cookie) for each in made)
        five.expect(FIVE, _numbered(made, **dict.fromkeys(FIVE, "1")))
        assert _moves(five) == before
    five.wait_whole(*FIVE)


def _operated(five: Cluster, directory: Path, token_file: Path) -> Node:
    """A ``tribes node`` of the same group, with a port for operators."""
    more = f'token_file = "{token_file}"\n[manager]\nkind = "backup"\nmap_send_options = 6\n'
    return Node(directory, "operated", five.nodes.place.multicast_port(), more)


def _tribes(node: Node, token_file: Path, *arguments: str) -> Any:
    """What an operator's command says."""
    asked = ("--url", node.url, "--token-file", str(token_file), "--json")
    command = [sys.executable, "-m", "tribes", "sessions", *arguments, *asked]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_t75_t80_t86_a_joiner_serves_all_and_takes_little_while_long_requests_run(
    five: Cluster, figure: Any
) -> None:
    """It knows the sessions of before and those that are made while it joins. Less than two nths of
    all copies move. Requests that began when their node owned the session, and end when another one
    does, lose nothing: their writes are merged, and it is counted.
    """
    made = five.make(FIVE, 20)
    before = five.all_places(FIVE)
    owners = [five.owners(before, each.id)[0] for each in made]
    counts = {name: five.total(name, FIVE) for name in ("stale_commits", "overwritten", "held")}
    long = [
        five.begin(name, f"/write?hold=1&long={i}&both=long", each.cookie)
        for i, (name, each) in enumerate(zip(owners, made, strict=True))
    ]
    while five.total("held", FIVE) < counts["held"] + len(made):
        time.sleep(0.02)
    with ThreadPoolExecutor(1) as beside:
        started = beside.submit(five.start, "n6")
        while not started.done():
            time.sleep(0.2)
            made.append(five.ask(FIVE[len(made) % 5], f"/write?n={len(made)}"))
        started.result()
    five.expect(["n6"], _numbered(made))
    five.wait_whole(*SIX)
    after = five.all_places(SIX)

    keys = [each.id for each in made]
    moved = sum(len(five.holders(after, key) - five.holders(before, key)) for key in keys)
    parts = sum(
        len(
            {n for n, e in after.items() if e["states"][p]}
            - {n for n, e in before.items() if e["states"][p]}
        )
        for p in range(PARTS)
    )
    assert 0 < parts < 2 / len(SIX) * 2 * PARTS
    figure(f"a sixth node took {parts} of {2 * PARTS} copies of parts, {moved} of these sessions'")

    former = sum(_epoch(before, each.id) < _epoch(after, each.id) for each in made[:20])
    assert former
    others = [SIX[(SIX.index(name) + 1) % 5] for name in owners]
    five.ask_all(
        (name, "/write?short=1&both=short", each.cookie)
        for name, each in zip(others, made, strict=False)
    )
    for name in FIVE:
        five.ask(name, "/go_on")
    for each in long:
        each.result()
    wanted = _numbered(made)
    for i, session in enumerate(made[:20]):
        wanted[session.cookie] |= {"long": str(i), "short": "1", "both": "long"}
    five.expect(SIX, wanted)
    assert five.total("stale_commits", SIX) - counts["stale_commits"] == former
    assert five.total("overwritten", SIX) - counts["overwritten"] == 20
    figure(f"{former} of 20 long requests ended on former owners: merged, and counted")


def test_t81_a_node_that_drains_hands_over_everything_with_receipts(
    five: Cluster, make_load: Any, figure: Any, describe: Any
) -> None:
    """Under load: it ends with status 0, which says that others have confirmed all; no session ends
    or lacks an answered write, and every part has its copies all the time.
    """
    five.start("n6")
    five.wait_whole(*SIX)
    made = five.make(SIX, 60)
    ended = five.total("ended", SIX)
    load = make_load(five.nodes, 20, SIX)
    load.warm_up()
    load.direct(*FIVE)
    process = five.nodes.processes["n6"]
    process.terminate()
    short: Stopwatch | None = None
    longest = 0.0
    deadline = time.monotonic() + 30
    while process.poll() is None:
        assert time.monotonic() < deadline, "it drains for ever"
        watch = Stopwatch()
        if min(five.places("n1")["copies"]) >= 2:
            short = None
        else:
            short = short or watch
            longest = max(longest, short.seconds)
    assert process.returncode == 0
    five.nodes.kill("n6")
    five.wait_whole(*FIVE)
    load.end()
    assert load.unanswered() == []
    load.check(*FIVE)
    five.expect(FIVE, _numbered(made))
    assert five.total("sessions_lost", FIVE) == 0
    assert five.total("ended", FIVE) == ended
    assert longest < DIP_S
    figure(f"drained, {describe(load.ops())}; at most {longest:.2f} s with a copy less")


def test_t70_t78_t85_counts_by_part_of_what_is_there_and_of_what_is_lost(
    five: Cluster, figure: Any
) -> None:
    """Two of five die at once. What lay on both only is counted as lost, once, and nobody has a
    rest of it. What is there is shared evenly by the three that are left, and so counted.
    """
    made = five.make(FIVE, 100)
    before = five.all_places(FIVE)
    _until_counted(five, FIVE, five.total("owned", FIVE))
    dead, left = FIVE[3:], FIVE[:3]
    lost_before = five.total("sessions_lost", left)
    ids = five.ask_all((name, "/ids", "") for name in FIVE)
    there = {key for each in ids for key in each["held"]}
    gone = {key for key in there if five.holders(before, key) == set(dead)}
    # Of what was used elsewhere lately there is still a copy.
    gone -= {key for each in ids[:3] for key in each["cached"]}
    five.nodes.kill(*dead)
    five.nodes.wait_members(left, within=5)
    five.wait_whole(*left)
    deadline = time.monotonic() + 10
    while (lost := five.total("sessions_lost", left) - lost_before) < len(gone):
        assert time.monotonic() < deadline, f"{lost} are counted of {len(gone)}"
        time.sleep(0.1)
    kept = {c: v for c, v in _numbered(made).items() if c.partition(".")[0] not in gone}
    five.expect(left, kept)
    found = five.ask_all((name, "/ids", "") for name in left)
    held = Counter(key for each in found for key in each["held"])
    assert held == dict.fromkeys(there - gone, 2)
    assert five.total("sessions_lost", left) - lost_before == len(gone)
    figure(f"two of five died: {len(gone)} of {len(there)} sessions lost, and counted")

    more = five.make(left, 300)
    new = {each.id for each in more}
    found = five.ask_all((name, "/ids", "") for name in left)
    owned = [sum(key in new for key in each["owned"]) for each in found]
    copies = [sum(key in new for key in each["held"]) for each in found]
    assert owned == [100, 100, 100]
    assert sum(copies) == 600
    assert all(133 <= count <= 267 for count in copies), copies
    _until_counted(five, left, len(there - gone) + 300)
    assert five.total("owned", left) == len(there - gone) + 300
    assert five.total("with_replicas", left) == 2 * (len(there - gone) + 300)


@pytest.fixture
def stranger(five: Cluster) -> Iterator[str]:
    """A member of the group that runs another application."""
    five.start("x", context="other")
    yield "x"
    five.nodes.kill("x")


def test_t84_a_node_without_the_application_receives_nothing(five: Cluster, stranger: str) -> None:
    """While sessions are made, used everywhere, and a node dies: no message names them there."""
    five.nodes.wait_members((*FIVE, stranger), within=10)
    made = five.make(FIVE, 30)
    five.expect(FIVE, _numbered(made))
    five.nodes.kill("n5")
    five.wait_whole(*FIVE[:4])
    five.expect(FIVE[:4], _numbered(made))
    received = five.ask(stranger, "/messages")
    assert received["ours"] == 0
    assert five.ask("n1", "/messages")["ours"] > 60
