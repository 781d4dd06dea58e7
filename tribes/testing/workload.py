"""Clients and senders that keep a simulated cluster busy and write down what they see.

::

    world = World(seed=1)
    nodes = [world.start(name, config) for name in "abc"]
    world.run(3)
    work = Workload(world, clients=8, seed=1)
    work.start()
    world.run(20)
    work.stop()
    world.run(10)
    assert not check_history(work.history, WorldState.of(world))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import ceil
from random import Random
from typing import TYPE_CHECKING, Final, Literal

from tribes.manager.backup import BackupManager
from tribes.manager.backup_core import BackupReplicator
from tribes.manager.merge import is_whole as is_whole_record
from tribes.testing.backup_checks import is_whole
from tribes.testing.history import History, Op
from tribes.testing.lock_checks import check_locks
from tribes.testing.observer import Observer, incarnation
from tribes.testing.requests import MERGED_MIX, MIX, Browser, Client, use, use_merged
from tribes.testing.sim import SimNode, SimWaiter, World
from tribes.testing.violation import Violation

if TYPE_CHECKING:
    from tribes.manager.inbox import CommitResult
    from tribes.manager.session import Session

__all__ = ["MERGED_MIX", "MIX", "Workload"]

_HOLD_S: Final = 0.2
"""How long a request holds a lock, on average."""

_TURN_S: Final = 0.003
"""Until a request's thread has its turn, on average."""

_FAILING_SHARE: Final = 0.1


class _Waiter(SimWaiter):
    """Tells the workload the result of a commit the moment it comes."""

    def __init__(self, workload: Workload, op: Op) -> None:
        super().__init__()
        self.workload = workload
        self.op = op
        self.names = {n.name: incarnation(n) for n in workload.world.nodes.values()}

    def resolve(self, result: CommitResult) -> None:
        super().resolve(result)
        self.workload._resolved(self.op, result, self.names)


class Workload:
    """Clients of one web application and senders of raw messages.

    Args:
        world: The cluster; nodes may come and go.
        clients: How many; each asks, waits for the answer, thinks, asks again.
        context: The web application.
        mix: Weights of what clients do, see `MIX`; a client without a session creates one.
        routing: ``sticky`` keeps to a node until that refuses; ``random`` asks any.
        think_s: Seconds between answer and next question, on average.
        send_options: Options of the raw messages.
        messages_per_s: Raw messages of the whole cluster.
        seed: Everything random comes from it; the world's randomness is not used.
        tabs: Clients that share one session and do not wait for each other.
        client_timeout_s: After which a client gives up.
        short_limit_s: Idle limit of the sessions that may expire during the run.
        short_share: The share of such sessions.
        tick: Requests come at multiples of so many seconds, so that some come in one moment; 0: at
            any time.
        large_share: The share of the plain writes whose value is long.
        history: To go on with one; None: a new one.
        is_second: There is another one, which sends the raw messages.
    """

    def __init__(
        self,
        world: World,
        *,
        clients: int,
        context: str = "app",
        mix: Mapping[str, float] | None = None,
        routing: Literal["sticky", "random"] = "sticky",
        think_s: float = 0.2,
        send_options: Sequence[int] = (0, 2, 6, 8, 10, 14),
        messages_per_s: float = 10.0,
        seed: int = 0,
        tabs: int = 1,
        client_timeout_s: float = 3.0,
        short_limit_s: int = 5,
        short_share: float = 0.2,
        tick: float = 0.0,
        large_share: float = 0.0,
        history: History | None = None,
        is_second: bool = False,
    ) -> None:
        self.world = world
        self.history = History() if history is None else history
        self.observer = Observer(world, self.history, context, is_second=is_second)
        self.observer.is_whole = is_whole
        self.observer.died.append(self._died)
        self.context = self._context = context
        mix = MIX if mix is None else mix
        self._kinds, self._weights = list(mix), list(accumulate(mix.values()))
        self._routing = routing
        self._think = think_s
        self._send_options = tuple(send_options)
        self._messages_per_s = messages_per_s
        self._random = Random(seed)
        self._turns = Random(f"turns of {seed}")
        self._timeout = client_timeout_s
        self._short = short_limit_s, short_share
        self._tick = tick
        self._large_share = large_share
        browsers = [Browser() for _ in range(-(-clients // tabs))]
        self._clients = [Client(f"c{i}", browsers[i // tabs]) for i in range(clients)]
        self._under_way: dict[int, tuple[Client, str]] = {}
        self._is_running = False
        self._round = 0
        self.violations: list[Violation] = []
        """What was found at the moment it happened: of locks granted, of sessions forgotten."""

    def start(self) -> None:
        """Begin; each client within its first think time."""
        self._is_running = True
        self._round += 1
        for client in self._clients:
            self._think_then_ask(client)
        if self._messages_per_s > 0 and self._send_options:
            self._pause_then_send()

    def stop(self) -> None:
        """No more questions and messages; those under way end as they will."""
        self._is_running = False
        self._round += 1

    # Clients.

    def _think_then_ask(self, client: Client) -> None:
        turn = self._round

        def ask() -> None:
            if self._is_running and turn == self._round:
                self._ask(client)

        delay = self._random.expovariate(1 / self._think)
        if self._tick:
            now = self.world.now
            # In the middle of a millisecond, so that rounding puts none into another one.
            delay = max(0.0, ceil((now + delay) / self._tick) * self._tick + 0.0005 - now)
        self.world.at(delay, ask)

    def _ask(self, client: Client) -> None:
        browser = client.browser
        kind = "create"
        if browser.id is not None:
            kind = self._random.choices(self._kinds, cum_weights=self._weights)[0]
        if kind == "abandon":
            browser.forget()
            kind = "create"
        node = self._route(client)
        if node is None or not node.is_alive or node.is_paused:
            self._refused(client, kind, node)
        elif kind == "create":
            self._create(client, node)
        else:
            self._serve(client, node, kind)

    def _route(self, client: Client) -> SimNode | None:
        nodes = [node for node in self.world.nodes.values() if node.runs(self._context)]
        if not nodes:
            return None
        if self._routing == "random" or client.home is None:
            client.home = nodes[self._random.randrange(len(nodes))]
        return client.home

    def _refused(self, client: Client, kind: str, node: SimNode | None) -> None:
        client.home = None
        where = "" if node is None else incarnation(node)
        now = self.world.now
        op = self.history.op(client.name, where, kind, client.browser.key, now)
        op.missing = {"": "refused"}
        self.history.finish(op, "failed", now)
        self._think_then_ask(client)

    def _create(self, client: Client, node: SimNode) -> None:
        browser, manager = client.browser, node.manager(self._context)
        session = manager.create()
        limit, share = self._short
        if self._random.random() < share:
            session.max_inactive = limit
        browser.forget()
        browser.id, browser.key = session.id, session.key
        browser.limit = max(session.max_inactive, 0)
        op = self._op(client, node, "create")
        self._commit(client, node, op, session)

    def _serve(self, client: Client, node: SimNode, kind: str) -> None:
        browser, manager = client.browser, node.manager(self._context)
        assert browser.id is not None
        if kind == "lock":
            self._lock(client, node)
            return
        if not isinstance(manager, BackupManager):
            self._serve_here(client, node, kind, browser.id, None)
            return
        begin, session_id = self.world.now, browser.id
        where, is_open = incarnation(node), True

        def fetched(error: Exception | None) -> None:
            nonlocal is_open
            # One that waited for too long has gone away, perhaps to another node.
            if is_open and browser.id == session_id and error is None:
                is_open = False
                self._look_soon(client, node, kind, session_id, begin)
            elif is_open:
                is_open = False
                self._refused(client, kind, node)

        def over() -> None:
            nonlocal is_open
            if is_open:
                is_open = False
                self._refused(client, kind, None if incarnation(node) != where else node)

        if not manager.is_elsewhere(session_id):
            fetched(None)
            return
        replicator = node.core.sessions.replicators[self._context]
        self.world.at(self._timeout, over)
        assert isinstance(replicator, BackupReplicator)
        replicator.fetch(session_id, fetched, node.clock.monotonic())
        node.pump()

    def _look_soon(
        self, client: Client, node: SimNode, kind: str, session_id: str, asked: float
    ) -> None:
        """Let a request go on whose session is here now: its thread has to get its turn first, and
        meanwhile nothing may forget the session.
        """
        browser, manager, where = client.browser, node.manager(self._context), incarnation(node)
        key = browser.key
        was_here = is_whole_record(manager.table.get(key))

        def look() -> None:
            is_same = incarnation(node) == where
            can_look = is_same and node.is_alive and not node.is_paused
            if not can_look or browser.id != session_id:
                self._refused(client, kind, node if is_same else None)
                return
            if was_here and manager.table.get(key) is None:
                text = f"{where} forgot {key} before the request that it was brought for looked"
                self.violations.append(Violation("forgotten session", text, (), self.world.now))
            self._serve_here(client, node, kind, session_id, asked)

        self.world.at(self._turns.expovariate(1 / _TURN_S), look)

    def _serve_here(
        self, client: Client, node: SimNode, kind: str, session_id: str, asked: float | None
    ) -> None:
        browser, manager = client.browser, node.manager(self._context)
        session = manager.find(session_id)
        if session is None:
            op = self._op(client, node, "lost", asked)
            self.history.finish(op, "failed", self.world.now)
            browser.forget()
            self._think_then_ask(client)
            return
        op = self._op(client, node, kind, asked)
        if kind == "rotate":
            session.rotate_id(grace_s=0)
            session.principal = f"user of {client.name}"
            browser.id = session.id
            browser.generation += 1
            op.value = browser.generation
        elif kind == "invalidate":
            session.invalidate()
            browser.forget()
        elif kind.startswith("merged_"):
            use_merged(client, session, op, self._random)
        elif kind != "touch":
            use(client, session, op, self._random, self._large_share)
        self._commit(client, node, op, session)

    def _lock(self, client: Client, node: SimNode) -> None:
        """Hold the session's lock for a while, or give up waiting for it."""
        op = self._op(client, node, "lock")
        locks = node.core.sessions.replicators[self._context].locks
        self._under_way[op.number] = client, op.node
        numbers: list[int] = []

        def give_back() -> None:
            locks.release(numbers[0], node.clock.monotonic())
            node.pump()

        def release() -> None:
            if incarnation(node) == op.node and node.is_alive and numbers:
                node.enter(give_back)
            self._end(op, "ok")

        def granted() -> None:
            op.settled = self.world.now
            self.violations += check_locks(self.world, self.world.nodes.values(), self._context)
            self.world.at(self._random.expovariate(1 / _HOLD_S), release)

        def give_up() -> None:
            if op.settled is None:
                release()

        numbers.append(locks.acquire(op.key, granted, node.clock.monotonic()))
        node.pump()
        self.world.at(self._timeout, give_up)

    def _op(self, client: Client, node: SimNode, kind: str, asked: float | None = None) -> Op:
        browser = client.browser
        op = self.history.op(
            client.name,
            incarnation(node),
            kind,
            browser.key,
            self.world.now,
            generation=browser.generation,
            limit=browser.limit,
        )
        op.asked = asked
        manager = node.manager(self._context)
        if isinstance(manager, BackupManager):
            op.is_holder = manager.is_held(browser.key)
        return op

    def _commit(self, client: Client, node: SimNode, op: Op, session: Session) -> None:
        history, now = self.history, self.world.now
        manager = node.manager(self._context)
        self._under_way[op.number] = client, op.node
        history.waiting[op.number] = op
        outcome = manager.commit(session, _Waiter(self, op))
        if outcome.version is None:
            # Nothing changed, or it had ended: nobody waits.
            history.waiting.pop(op.number, None)
            if outcome.is_gone:
                op.missing = {"": "gone"}
            self._end(op, "failed" if outcome.is_gone else "ok")
            return
        op.version = outcome.version, manager.clock.actor
        self.world.at(max(0.0, now + self._timeout - self.world.now), lambda: self._give_up(op))

    def _resolved(self, op: Op, result: CommitResult, names: dict[str, str]) -> None:
        missing = dict(result.missing)
        acked = tuple(names.get(n, f"{n}#?") for n in result.acked if n not in missing)
        self.history.settle(op, acked, missing, self.world.now)
        self._end(op, "ok")

    def _give_up(self, op: Op) -> None:
        if op.end is None:
            self._end(op, "unknown")

    def _died(self, ended: str) -> None:
        for number, (_, node) in list(self._under_way.items()):
            if node == ended:
                op = self.history.ops[number]
                self.history.waiting.pop(number, None)
                self._end(op, "unknown")
        for number, op in list(self.history.waiting.items()):
            if op.node == ended:
                del self.history.waiting[number]

    def _end(self, op: Op, outcome: str) -> None:
        known = self._under_way.pop(op.number, None)
        if known is None:
            return
        client = known[0]
        self.history.finish(op, outcome, self.world.now)
        if outcome == "unknown":
            client.home = None
            if op.kind in ("create", "rotate") and client.browser.key == op.key:
                # Its cookie never came.
                client.browser.forget()
        self._think_then_ask(client)

    # Raw messages.

    def _pause_then_send(self) -> None:
        turn = self._round

        def send() -> None:
            if self._is_running and turn == self._round:
                self._send()
                self._pause_then_send()

        self.world.at(self._random.expovariate(self._messages_per_s), send)

    def _send(self) -> None:
        chance = self._random
        nodes = list(self.world.nodes.values())
        senders = [node for node in nodes if node.is_alive and not node.is_paused]
        if not senders or len(nodes) < 2:
            return
        sender = chance.choice(senders)
        others = [node for node in nodes if node is not sender]
        targets = chance.sample(others, chance.randint(1, len(others)))
        failing: tuple[str, ...] = ()
        if chance.random() < _FAILING_SHARE:
            failing = (chance.choice(targets).name,)
        self.observer.send(sender, targets, chance.choice(self._send_options), failing)
