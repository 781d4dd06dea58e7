"""A member of a PySyncObj group to be driven: ``python -m bench.raft OWN-PORT OTHER-PORT…``.

PySyncObj replicates objects by Raft: a write is a command in the leader's log. Sessions are a
dictionary. The leader is measured; a follower's write goes by the leader and takes longer.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any

from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.batteries import ReplDict

from bench import workload
from bench.workload import MANY, text

WAIT_S = 10.0


class Commands:
    """The dictionary and what is done with it."""

    def __init__(self, own: int, others: list[int]) -> None:
        self._sessions = ReplDict()
        address = "127.0.0.1:{}".format
        self._group = SyncObj(
            address(own),
            [address(port) for port in others],
            consumers=[self._sessions],
            # Its queue is bounded, and drops what finds no room.
            conf=SyncObjConf(commandsQueueSize=1_000_000),
        )

    def members(self) -> dict[str, Any]:
        ready = self._group.isReady()
        others = self._group.getStatus()["partner_nodes_count"] if ready else 0
        return {"members": others}

    def role(self) -> dict[str, Any]:
        return {"leads": self._group._isLeader()}

    def _put(self, key: str, value: str) -> None:
        self._sessions.set(key, value, sync=True, timeout=WAIT_S)

    def latency(self, how: str, size: str, options: str, seconds: str) -> dict[str, Any]:
        value = text(int(size), 0)
        return workload.each_timed(float(seconds), lambda: self._put("s0", value))

    def flood(
        self, how: str, size: str, options: str, senders: str, seconds: str
    ) -> dict[str, Any]:
        value = text(int(size), 0)

        def put(index: int, turn: int) -> None:
            self._put(f"s{index}", value)

        return workload.rated(float(seconds), int(senders), put)

    def update(self, how: str, senders: str, size: str, seconds: str) -> dict[str, Any]:
        """Asynchronous: until the last one has been applied, at the leader."""
        done, sent = [0], 0
        begin = time.perf_counter()

        def applied(result: object, error: object) -> None:
            done[0] += 1

        set_later = partial(self._sessions.set, callback=applied)
        while time.perf_counter() < begin + float(seconds):
            set_later(f"s{sent % MANY}", text(int(size), sent))
            sent += 1
        end = time.perf_counter() + WAIT_S
        while done[0] < sent and time.perf_counter() < end:
            time.sleep(0.001)
        return {"n": done[0], "seconds": time.perf_counter() - begin}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("own", type=int)
    parser.add_argument("others", type=int, nargs="+")
    arguments = parser.parse_args()
    commands = Commands(arguments.own, arguments.others)
    names = ("members", "role", "latency", "flood", "update")
    workload.serve({name: getattr(commands, name) for name in names})


if __name__ == "__main__":
    main()
