"""The five hottest paths, each run by itself inside a call that an instruction counter can find.

``operator.countOf`` is C, has a name in every build of CPython, calls back into Python, and nobody
else calls it: `bench.guard` has callgrind count inside ``PySequence_Count`` only, and write down
what it has at each ``PySequence_Index``, which `cut` calls. Two simulated nodes do the work, so
that it is the same instructions every time: production's core, without sockets and clocks.

Each argument is a measurement: a path's name has that do half as much again, ``all`` each of them,
to see that the guard notices; an empty one, as none, has them as they are.
"""

from __future__ import annotations

import gc
import operator
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

import msgpack

from tribes.channel.core import ChannelCore
from tribes.config.model import ManagerConfig, NodeConfig
from tribes.testing.sim import World

MESSAGES = 32
REQUESTS = 100
ROUNDS = 4
"""Of which the last one counts: CPython's adaptive interpreter settles before."""
ASYNC = 8
SIZE = 1024

REFERENCES = 1000

COUNTS = {
    "reference": REFERENCES,
    "send": MESSAGES,
    "receive": MESSAGES,
    "commit": REQUESTS,
    "apply": REQUESTS,
    "read": REQUESTS,
}
"""What is done between two cuts, in their order, and how often."""


class _Calls:
    """An iterator that does something so often."""

    def __init__(self, work: Callable[[], object], count: int) -> None:
        self._work, self._left = work, count

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if not self._left:
            raise StopIteration
        self._left -= 1
        self._work()
        return 0


def counted(work: Callable[[], object], count: int = 1) -> None:
    """Do it so often, with the counter on."""
    operator.countOf(_Calls(work, count), 1)


def cut() -> None:
    """Write down what has been counted, and begin at nought."""
    operator.indexOf((1,), 1)


def reference() -> None:
    """What depends on nothing of ours: simple things, to measure this Python by."""
    packed = msgpack.packb([7, "name", b"value" * 10])
    number, name, value = msgpack.unpackb(packed)
    found = {name: value, number: packed}
    struct.unpack(">IQ", struct.pack(">IQ", len(found), len(value)))


class Paths:
    """Two members of one group, and what is done with them."""

    def __init__(self) -> None:
        self.slower = ""
        self.world = World(1)
        config = NodeConfig(contexts=("app",), manager=ManagerConfig(channel_send_options=ASYNC))
        self.a, self.b = (self.world.start(name, config) for name in "ab")
        self.world.run(6)
        self.ids = [self._created() for _ in range(REQUESTS)]
        self._turn = 0
        self._counting = ""
        self.world.run(2)
        self._wrap()

    def _created(self) -> str:
        session = self.a.manager().create()
        session["a"] = "x" * SIZE
        self.a.manager().commit(session)
        return str(session.id)

    def _wrap(self) -> None:
        """Have what the driver calls counted while a path wants it."""
        take, receive = ChannelCore.take_outputs, self.b.core.link_bytes
        sender, receiver = self.a.core.channel, self.b.core.channel

        def taking(core: ChannelCore) -> Any:
            wanted = {"send": sender, "receive": receiver, "apply": receiver}.get(self._counting)
            if core is not wanted:
                return take(core)
            found: list[Any] = []
            counted(lambda: found.append(take(core)))
            return found[0]

        def receiving(link: int, data: bytes, now: float) -> None:
            if self._counting in ("receive", "apply"):
                counted(lambda: receive(link, data, now))
            else:
                receive(link, data, now)

        ChannelCore.take_outputs = taking  # type: ignore[assignment, method-assign]
        self.b.core.link_bytes = receiving

    def _often(self, *names: str) -> int:
        """Percent of the work that is done."""
        return 150 if self.slower in (*names, "all") else 100

    def run(self) -> None:
        """Each path once, each with its cut at the end."""
        # Or a look at all that is there falls into some path's share, by chance.
        gc.freeze()
        cut()
        counted(reference, REFERENCES)
        cut()
        self._messages("send")
        cut()
        self._messages("receive")
        cut()
        counted(self._commit, REQUESTS * self._often("commit") // 100)
        cut()
        self._apply()
        cut()
        counted(self._read, REQUESTS * self._often("read") // 100)
        cut()

    def _messages(self, path: str) -> None:
        core, to = self.a.core, (self.b.core.local,)
        data, now = bytes(SIZE), self.a.clock.monotonic()

        def send() -> None:
            core.send(to, data, ASYNC, now)

        self._counting = path
        count = MESSAGES * self._often(path) // 100
        if path == "send":
            counted(send, count)
        else:
            for _ in range(count):
                send()
        self.a.pump()
        self.world.run(0.05)
        self._counting = ""

    def _commit(self) -> None:
        self._turn += 1
        session = self.a.manager().find(self.ids[self._turn % REQUESTS])
        assert session is not None
        session["a"] = f"{self._turn:x<{SIZE}}"
        self.a.manager().commit(session)

    def _apply(self) -> None:
        """What `_commit` has left, and another half of it where the path is to be slower."""
        for _ in range(REQUESTS * self._often("apply") // 100 - REQUESTS):
            self._commit()
        self._counting = "apply"
        self.world.run(0.05)
        self._counting = ""

    def _read(self) -> None:
        self._turn += 1
        session = self.b.manager().find(self.ids[self._turn % REQUESTS])
        assert session is not None
        assert len(session["a"]) == SIZE


def main() -> None:
    paths = Paths()
    for paths.slower in sys.argv[1:] or [""]:
        for _ in range(ROUNDS):
            paths.run()


if __name__ == "__main__":
    main()
