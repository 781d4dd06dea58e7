"""Groups in which members are killed or stopped, and when the others notice: two rows need it."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from tests.ports import free_udp_port

if TYPE_CHECKING:
    from bench.processes import Child
    from bench.runner import Bench

APART_S = 1.0
"""Between two victims: each is noticed by itself."""
TOGETHER_S = 40.0


class Group:
    """Two observers, of whom each can confirm what the other sees, and some victims by name."""

    def __init__(self, bench: Bench, kind: str) -> None:
        self._bench = bench
        self._kind = kind
        self._number = free_udp_port()
        self._count = 0
        self.victims: dict[str, Child] = {}
        self._observers: list[Child] = []
        try:
            self._observers = [self._start(f"observer{number}") for number in range(2)]
            for child in self._observers:
                child.await_start()
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def observer(self) -> Child:
        return self._observers[0]

    def _start(self, name: str) -> Child:
        return self._bench.member(self._kind, self._number, name=name, waits=False, manager="none")

    def add(self, count: int) -> None:
        """Start victims, and wait until all know all."""
        new = {}
        for _ in range(count):
            name = f"victim{self._count}"
            self._count += 1
            new[name] = self.victims[name] = self._start(name)
        for child in new.values():
            child.await_start()
        self.await_all()

    def await_all(self) -> None:
        """Wait until observers and victims see each other."""
        everybody = [*self._observers, *self.victims.values()]
        for child in everybody:
            child.await_others(len(everybody) - 1, TOGETHER_S)
        time.sleep(APART_S)

    def kill(self, name: str) -> float:
        """End one, as a crash does; when that was."""
        at = time.time()
        self.victims.pop(name).end()
        return at

    def stop(self, name: str) -> float:
        """Have one hang; when that was."""
        at = time.time()
        self.victims[name].signal(signal.SIGSTOP)
        return at

    def end(self) -> None:
        """End all."""
        for child in (*self._observers, *self.victims.values()):
            child.end()
