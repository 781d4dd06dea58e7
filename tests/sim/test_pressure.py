"""A member that hangs under load costs bounded memory, and nobody else anything."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tribes.config.model import (
    ChannelConfig,
    ManagerConfig,
    MembershipConfig,
    NodeConfig,
    SenderConfig,
)
from tribes.errors import MemberSuspectedError, QueueFullError
from tribes.testing.history import History
from tribes.testing.invariants import check_converged, check_now
from tribes.testing.sim import SimNode, World

if TYPE_CHECKING:
    from tribes.gauges import PeerGauges
    from tribes.manager.inbox import CommitResult

KIB = 1024
QUEUE = 128 * KIB
VALUE = 4 * KIB
SESSIONS = 60


def config(
    options: int,
    *,
    suspects: bool,
    own_link: bool = True,
    queue_timeout: int = 700,
    **manager: Any,
) -> NodeConfig:
    return NodeConfig(
        contexts=("app",),
        channel=ChannelConfig(
            membership=MembershipConfig(suspect_after=1000 if suspects else 0),
            sender=SenderConfig(
                queue_max_bytes=QUEUE,
                live_queue_max_bytes=QUEUE,
                unacked_max_bytes=QUEUE,
                queue_timeout=queue_timeout,
            ),
            own_link=own_link,
        ),
        manager=ManagerConfig(channel_send_options=options, **manager),
    )


class Load:
    """Three nodes, and sessions that node ``a`` writes again and again."""

    def __init__(self, options: int, *, suspects: bool = False, **settings: Any) -> None:
        self.world = World(1)
        node_config = config(options, suspects=suspects, **settings)
        self.nodes = [self.world.start(name, node_config) for name in "abc"]
        self.a, self.b, self.c = self.nodes
        self.world.run(3)
        self.history = History()
        self.results: list[tuple[float, CommitResult]] = []
        self.turn = 0
        self.ids: list[str] = []
        self.most = 0
        for _ in range(SESSIONS):
            session = self.a.manager().create()
            session["value"] = ""
            self.a.manager().commit(session)
            self.ids.append(session.id)
            self.world.run(0.01)
        self.world.run(1)

    def write(self) -> None:
        """Change one session; notes how long the others took to have it, and the bounds."""
        self.turn += 1
        session = self.a.manager().find(self.ids[self.turn % SESSIONS])
        assert session is not None
        session["value"] = f"{self.turn:{VALUE}}"
        begin = self.world.now
        self.a.manager().commit(
            session,
            SimpleNamespace(resolve=lambda r: self.results.append((self.world.now - begin, r))),
        )
        self.world.run(0.002)
        violations = check_now(self.world, self.history, message_max_bytes=2 * VALUE)
        assert violations == []
        self.most = max(self.most, sum(self.a.core.channel.senders.loads[self.c.core.local]))

    def peer(self, node: SimNode) -> PeerGauges:
        gauges = self.a.core.gauges(self.a.process.inbox, self.world.now)
        return next(peer for peer in gauges.peers if peer.member == node.core.local)

    def values(self, node: SimNode) -> list[str]:
        found = [node.manager().find(each) for each in self.ids]
        return [session["value"] for session in found if session is not None]


@pytest.mark.parametrize("own_link", [True, False])
@pytest.mark.parametrize("suspects", [True, False])
@pytest.mark.parametrize("options", [6, 8])
def test_hung_member_costs_bounded_memory_and_nobody_waits(
    options: int, suspects: bool, own_link: bool
) -> None:
    """Three megabytes are written while it hangs. At most the queue and the window are kept for it,
    the other member has every write at once, and afterwards all are equal.
    """
    load = Load(options, suspects=suspects, own_link=own_link)
    load.c.pause()
    for turn in range(800):
        load.write()
        assert load.b.manager().find(load.ids[load.turn % SESSIONS])["value"].strip() == str(  # type: ignore[index]
            load.turn
        ), f"write {turn} is late at the healthy member"
    assert load.most <= 2 * QUEUE + 3 * VALUE
    peer = load.peer(load.c)
    assert peer.is_behind or peer.is_suspected
    assert 0 < peer.dirty_keys <= SESSIONS
    assert load.peer(load.b).live_refused == 0
    if options == 6:
        late = load.results[-100:]
        assert all(list(r.missing) == ["c"] and len(r.acked) == 1 for _, r in late)
        assert max(waited for waited, _ in late) < 0.05
        why = "MemberSuspectedError" if peer.is_suspected else "MemberBehindError"
        assert all(r.missing["c"].startswith(why) for _, r in late)
    load.c.resume()
    healed = load.world.now
    load.world.run(2)
    assert check_converged(load.world, load.nodes, healed, 2) == []
    assert load.values(load.c) == load.values(load.a)
    assert load.peer(load.c).dirty_keys == 0
    assert not load.peer(load.c).is_behind


@pytest.mark.parametrize("options", [6, 8])
def test_member_that_misses_too_much_is_compared_whole(options: int) -> None:
    """Beyond ``dirty_max`` nothing is kept per session, and it is equal soon after it answers: much
    sooner than by what is compared in the background.
    """
    load = Load(options, dirty_max=SESSIONS // 3)
    load.c.pause()
    for _ in range(800):
        load.write()
    peer = load.peer(load.c)
    assert (peer.needs_sync, peer.dirty_keys, peer.needed_sync) == (True, 0, 1)
    if options == 6:
        assert "too many sessions" in load.results[-1][1].missing["c"]
    load.c.resume()
    healed = load.world.now
    load.world.run(1)
    assert check_converged(load.world, load.nodes, healed, 1) == []
    assert load.values(load.c) == load.values(load.a)
    assert not load.peer(load.c).needs_sync


def test_member_that_caught_up_gets_changes_directly_again() -> None:
    """And its acknowledgement counts again."""
    load = Load(6)
    load.c.pause()
    for _ in range(300):
        load.write()
    load.c.resume()
    load.world.run(2)
    load.write()
    load.world.run(1)
    assert load.results[-1][1].missing == {}
    assert load.peer(load.c).fell_behind == 1


def test_slow_member_gets_the_newest_state_once_and_not_each_change() -> None:
    """The way lets half of what is written through: it stays behind, but never by far, and is equal
    soon afterwards.
    """
    load = Load(8)
    for way in (load.world.link("a", "c"), load.world.link("c", "a")):
        way.delay = 0.06
    for _ in range(1500):
        load.write()
    peer = load.peer(load.c)
    assert peer.fell_behind >= 1
    assert min(int(value) for value in load.values(load.c)) > 1500 - 15 * SESSIONS
    healed = load.world.now
    load.world.run(3)
    assert check_converged(load.world, load.nodes, healed, 3) == []
    assert load.values(load.c) == load.values(load.a)
    received = load.c.core.sessions.replicators["app"].statistics.deltas_received
    assert received + load.peer(load.c).repaired < 1500


def test_two_contexts_share_the_live_queue_of_a_member() -> None:
    """Its bound is the member's, whichever sessions fill it; both contexts are repaired."""
    world = World(2)
    both = config(8, suspects=False)
    both = NodeConfig(contexts=("app", "shop"), channel=both.channel, manager=both.manager)
    a, b = (world.start(name, both) for name in "ab")
    world.run(3)
    b.pause()
    for turn in range(200):
        for context in ("app", "shop"):
            session = a.manager(context).create()
            session["value"] = "x" * VALUE
            a.manager(context).commit(session)
        world.run(0.005)
        if turn > 100:
            assert sum(a.core.channel.senders.loads[b.core.local]) <= 2 * QUEUE + 3 * VALUE
    [peer] = a.core.gauges(a.process.inbox, world.now).peers
    assert peer.is_behind
    b.resume()
    healed = world.now
    world.run(2)
    for context in ("app", "shop"):
        assert check_converged(world, [a, b], healed, 2, context=context) == []


@pytest.mark.parametrize("options", [0, 2, 6, 8, 10])
def test_users_send_to_a_hung_member_ends_within_the_queue_timeout(options: int) -> None:
    """It is named, the healthy member has the message at once, and what is kept is bounded."""
    load = Load(8)
    load.c.pause()
    tickets = []
    for number in range(150):
        tickets.append(load.a.send(bytes(VALUE), [load.b, load.c], options))
        load.world.run(0.004)
        assert len(load.b.messages) == number + 1
    load.world.run(0.7)
    peer = load.peer(load.c)
    assert peer.raw_bytes <= QUEUE
    assert peer.unacked_bytes <= QUEUE
    assert peer.sends_blocked > 0
    assert peer.sends_timed_out == peer.sends_blocked
    outcomes = [load.a.done.get(ticket) for ticket in tickets]
    blocked = [faulty for faulty in outcomes if faulty]
    assert {type(why) for faulty in blocked for why in faulty.values()} == {QueueFullError}
    assert all(list(faulty) == [load.c.core.local] for faulty in blocked)
    assert len(blocked) == peer.sends_blocked


def test_blocked_send_is_let_go_when_its_member_is_suspected() -> None:
    """Nobody waits for it; later sends fail at once while its queue is full."""
    load = Load(8, suspects=True, queue_timeout=3000)
    load.c.pause()
    first = [load.a.send(bytes(VALUE), [load.c], 8) for _ in range(100)]
    load.world.run(2.2)
    assert load.peer(load.c).is_suspected
    assert load.peer(load.c).sends_blocked > 0
    assert {type(w) for t in first for w in load.a.done[t].values()} == {MemberSuspectedError}
    assert load.peer(load.c).sends_timed_out == 0
    for options in (0, 8):
        ticket = load.a.send(bytes(VALUE), [load.b, load.c], options)
        load.world.run(0.001)
        assert {m.label: type(w) for m, w in load.a.done[ticket].items()} == {
            "c": MemberSuspectedError
        }


def test_synchronous_send_without_acknowledgement_to_a_suspected_member_ends() -> None:
    """Option 0 waits for the kernel, which may never take it: for ``timeout`` at most."""
    load = Load(8, suspects=True)
    load.world.clog(load.a, load.c)
    load.c.pause()
    load.world.run(2.2)
    assert load.peer(load.c).is_suspected
    ticket = load.a.send(bytes(VALUE), [load.c], 0)
    load.world.run(3.1)
    assert list(load.a.done[ticket]) == [load.c.core.local]


def test_dispatch_queue_is_free_for_others_while_one_hangs() -> None:
    """Asynchronous sends to the healthy member are done at once, whatever waits for the other."""
    load = Load(8)
    load.c.pause()
    for _ in range(100):
        load.a.send(bytes(VALUE), [load.c], 8)
        ticket = load.a.send(b"x", [load.b], 8)
        assert load.a.done[ticket] == {}
    gauges = load.a.core.gauges(load.a.process.inbox, load.world.now)
    assert gauges.dispatch_waiting == 0
    assert gauges.sends_blocked > 0
