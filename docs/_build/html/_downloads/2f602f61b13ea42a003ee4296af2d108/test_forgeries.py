"""Forged, replayed, damaged and spliced packets change nothing in a living group with a key.

``TRIBES_FORGERIES=1000000 make test ARGS=tests/sim/test_forgeries.py`` makes a million of them;
see docs/testing.md.
"""

from __future__ import annotations

import os
import time
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.sim.forger import FIRST_LINK, KINDS, Forger, Victim
from tests.sim.test_keys import config
from tribes.channel.outputs import MemberAdded, MemberRemoved, MemberSuspected, MemberUpdated
from tribes.membership.admission import Admission
from tribes.security.replay import REMEMBERED_MAX
from tribes.testing.sim import SimNode, SimWaiter, World

if TYPE_CHECKING:
    from tribes.wire.member import Member

FORGERIES = int(os.environ.get("TRIBES_FORGERIES", "20000"))
BATCH = 500
"""Made at one moment; then the group lives on for a while."""

_CHANGES = (MemberAdded, MemberRemoved, MemberSuspected, MemberUpdated)


class State:
    """All of a node that a forgery could be after."""

    def __init__(self, victim: Victim) -> None:
        core, node = victim.core, victim.node
        self.view = core.view
        self.table = [(m, m.alive, m.payload, m.command) for m in core.membership.table.members()]
        self.silent_at = core.membership.table.next_expiry
        self.accepted = {link for link in core.accepted.receivers if link < FIRST_LINK}
        self.links = {
            member: (repr(sender), sender.queued_bytes, sender.unanswered_since)
            for member, sender in core.senders._senders.items()
        }
        self.numbers = {link for link in core.senders._by_link if link < FIRST_LINK}
        self.inboxes = len(core._inboxes)
        self.delivered = len(node.messages), core.statistics.frames_received
        self.sessions = node.manager().table.root_digest(), len(node.manager().table)
        self.health = {
            member: (state.answered, state.heard, state.is_suspected)
            for member, state in core.health._states.items()
        }
        assert core.protection is not None
        assert isinstance(core.protection.admission, Admission)
        guard = core.protection.admission.guard
        self.members = {
            identity: (known.incarnation, known.highest)
            for identity, known in guard._members.items()
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return repr(vars(self))


def check_bounds(victim: Victim) -> None:
    """Whatever was remembered of the forgeries has a bound, and what was done for them an end."""
    core = victim.core
    protection = core.protection
    assert protection is not None
    assert isinstance(protection.admission, Admission)
    guard = protection.admission.guard
    assert max(len(guard._members), len(guard._strangers), len(guard._dead)) <= REMEMBERED_MAX
    assert len(protection.admission._under_question) <= 64
    assert len(protection.challenges._by_attempt) + len(protection.challenges._by_link) <= 128
    assert len(core._inboxes) <= 8
    assert len(core.senders._senders) <= 8
    assert len(core._receiving.outcomes._sources) == 0
    assert core.deliveries.waiting == 0
    assert len(core.accepted.receivers) + len(core.accepted.door) <= 1000


def prepare(world: World) -> tuple[list[SimNode], list[Member]]:
    """Three nodes with sessions; one that crashed, one that left, and one that knew neither."""
    nodes = [world.start(name, config()) for name in "abc"]
    gone = [world.start(name, config()) for name in "de"]
    world.run(3)
    write(nodes, 10)
    world.run(0.5)
    members = [node.core.local for node in (*nodes, *gone)]
    gone[0].crash()
    gone[1].stop()
    world.run(1)
    nodes.append(world.start("f", config()))
    world.run(2)
    return nodes, members


def write(nodes: list[SimNode], count: int) -> list[SimWaiter]:
    waiters = []
    for number in range(count):
        manager = nodes[number % len(nodes)].manager()
        session = manager.create()
        session["number"] = number
        waiters.append(SimWaiter())
        manager.commit(session, waiters[-1])
    return waiters


@pytest.mark.timeout(3600)
def test_t118_forgeries_and_replays_of_every_kind_change_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """View, table, links, health, sessions and bounds of four nodes stay as they are; meanwhile
    the group works, and nobody who was not there before is a member afterwards.
    """
    figure = strike(FORGERIES)
    if "TRIBES_FORGERIES" in os.environ:
        with capsys.disabled():
            print(f"\n{figure}")


def strike(forgeries: int) -> str:
    """Make so many forgeries; returns what they took."""
    random = Random(8)
    world = World(7)
    forger = Forger(world, random)
    nodes, members = prepare(world)
    names = ["a", "b", "c", "f"]
    assert [node.names() for node in nodes] == [names] * 4
    victims = [Victim(node) for node in nodes]
    told = {node.name: len(node.events) for node in nodes}
    waiters: list[SimWaiter] = []
    begin = time.process_time()
    spent = 0.0
    for batch in range(forgeries // BATCH):
        victim = victims[batch % len(victims)]
        before = State(victim)
        others = [member for member in members if member != victim.core.local]
        at = time.process_time()
        for number in range(BATCH):
            forger.strike(victim, KINDS[number % len(KINDS)], others)
            if not number % 50:
                victim.node.pump()
        victim.node.pump()
        spent += time.process_time() - at
        assert State(victim) == before
        check_bounds(victim)
        waiters += write(nodes, 1)
        world.run(0.05)
        if not batch % 20:
            world.run(1.0)
            forger.hang_up()
    forger.hang_up()
    world.run(5)
    assert forger.proved == []
    assert min(forger.made[kind] for kind in KINDS) >= forgeries // len(KINDS) * 0.9
    assert [node.names() for node in nodes] == [names] * 4
    for node in nodes:
        changes = [e for _, e in node.events[told[node.name] :] if isinstance(e, _CHANGES)]
        assert changes == []
    assert [waiter.result.missing for waiter in waiters if waiter.result] == [{}] * len(waiters)
    tables = [node.manager().table for node in nodes]
    assert {len(table) for table in tables} == {10 + len(waiters)}
    assert len({table.root_digest() for table in tables}) == 1
    for victim in victims:
        check_bounds(victim)
        assert not victim.core.accepted.door
    total = sum(forger.made.values())
    return (
        f"{total} forgeries of {len(KINDS)} kinds in {time.process_time() - begin:.0f} s of "
        f"processor time, {spent / total * 1e6:.0f} µs each"
    )


def test_the_state_that_is_compared_notices_a_change() -> None:
    """A heartbeat, a session and a connection that are true are all seen in it."""
    world = World(9)
    nodes, _ = prepare(world)
    victim = Victim(nodes[0])
    before = State(victim)
    assert State(victim) == before
    write(nodes[1:], 1)
    world.run(0.02)
    after = State(victim)
    assert after.sessions != before.sessions
    assert after.delivered != before.delivered
    world.run(1)
    assert State(victim).table != after.table
    assert State(victim).members != after.members
    nodes[2].crash()
    world.run(0.5)
    assert State(victim).view != after.view
    assert State(victim).links != after.links
