"""A simulated worker, attached to a simulated node by a wire that loses what a test says."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

from tribes.manager.attach_calls import Calls
from tribes.manager.attach_service import AttachService, WorkerLine
from tribes.manager.attach_wire import HELLO, VERSION, WELCOME, FrameReader, decode, encode
from tribes.manager.attached import AttachedManager
from tribes.manager.clock import Clock
from tribes.manager.inbox import Inbox
from tribes.manager.rules import Rules
from tribes.manager.table import SessionTable
from tribes.manager.values import ValueCodec
from tribes.testing.sim import SimNode, SimWaiter

if TYPE_CHECKING:
    from tribes.manager.attach_calls import Done
    from tribes.manager.attached_work import Work
    from tribes.manager.base import CommitOutcome
    from tribes.manager.session import Session

TIMEOUT_S = 2.0


class NoLocks:
    """A locker for tests without locks."""

    def lock(self, number: int, context: str, key: str, mode: str, timeout_ms: int) -> None:
        raise AssertionError("nobody wants a lock here")

    def unlock(self, number: int) -> None:
        raise AssertionError("nobody has a lock here")


class Host:
    """What serves the workers of one simulated node, for the life of its process."""

    def __init__(self, node: SimNode, seed: int = 7) -> None:
        self.node = node
        actors = random.Random(seed)
        self.service = AttachService(
            node.name,
            lambda context: node.manager(context) if context == "app" else None,
            node.manager().clock,
            lambda: actors.getrandbits(32),
        )


class Worker:
    """One process: its manager, its questions, and its connection."""

    def __init__(self, host: Host, *, seed: int = 1, **rules: Any) -> None:
        self.world = host.node.world
        self.calls = Calls("the node")
        self.line: WorkerLine | None = None
        self.loses_questions = False
        self.loses_answers = False
        self.reader = FrameReader()
        clock = Clock(host.node.wall_ms, seed, threading.Lock())
        inbox = Inbox(threading.Lock())
        self.manager = AttachedManager(
            "app",
            SessionTable(threading.Lock(), inbox),
            clock,
            inbox=inbox,
            codec=ValueCodec(),
            entropy=random.Random(seed).randbytes,
            monotonic=lambda: self.world.now,
            rules=Rules(**rules),
            remote=self,
        )
        self.connect(host)

    # The connection.

    def connect(self, host: Host) -> None:
        self.line = WorkerLine(host.service, self._answered, lambda: None, NoLocks())
        self.reader = FrameReader()
        self._send(encode(HELLO, 0, VERSION, VERSION, ["app"]))
        for frame in self.calls.connected():
            self._send(frame)

    def lose(self, *, is_gone: bool = False) -> None:
        """The connection breaks."""
        line, self.line = self.line, None
        if line is not None:
            line.closed(self.world.now)
        self._perform(self.calls.disconnected("it broke", is_gone=is_gone))

    def _send(self, frame: bytes) -> None:
        if frame and self.line is not None and not self.loses_questions:
            self.line.receive(decode(frame[4:]), self.world.now)

    def _answered(self, frame: bytes) -> None:
        if self.loses_answers:
            return
        self.reader.feed(frame)
        while (body := self.reader.next()) is not None:
            message = decode(body)
            if message.kind == WELCOME:
                self.manager.clock.actor = message.fields[1]
                self.manager.clock.observe(message.fields[2])
            self._perform(self.calls.received(message))

    def _perform(self, calls: Any) -> None:
        for call in calls:
            call()

    # Remote.

    def call(
        self,
        kind: int,
        fields: tuple[object, ...],
        done: Done,
        *,
        timeout_s: float,
        again: tuple[object, ...] | None = None,
    ) -> None:
        deadline = self.world.now + timeout_s
        self._send(self.calls.begin(kind, fields, deadline=deadline, done=done, again=again))

    def post(self, kind: int, *fields: object) -> bool:
        self._send(encode(kind, 0, *fields))
        return self.line is not None

    def bring(self, manager: AttachedManager, session_id: str) -> None:
        waiter = SimWaiter()
        manager.ask(session_id, None, waiter)
        self.world.run_until(self.world.now + TIMEOUT_S, lambda: waiter.is_done)

    # Requests.

    def find(self, session_id: str) -> Session:
        found = self.manager.find(session_id)
        assert found is not None
        return found

    def send(self, session: Session, *, waits: bool = False) -> tuple[Work, SimWaiter]:
        """Begin a commit."""
        work, waiter = self.manager.prepare(session), SimWaiter()
        assert work is not None
        self.manager.send(work, waiter, timeout_s=TIMEOUT_S, waits=waits)
        return work, waiter

    def commit(self, session: Session, *, waits: bool = False) -> CommitOutcome:
        """Commit, and go on from there."""
        work, waiter = self.send(session, waits=waits)
        self.world.run_until(self.world.now + TIMEOUT_S, lambda: waiter.is_done)
        return self.manager.finish(session, work)

    def expire(self) -> None:
        """Let the time of what is open end."""
        self.world.run(TIMEOUT_S)
        self._perform(self.calls.tick(self.world.now))
