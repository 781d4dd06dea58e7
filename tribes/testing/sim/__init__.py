"""A simulated world: real node cores on an event heap instead of sockets and clocks.

The same :class:`NodeCore` that the trio shell drives runs here, so a whole cluster lives in one
thread, thousands of times faster than real time, and the same seed gives the same events, byte for
byte (``World.digest``). Simulated are the multicast group, TCP connections, clocks, processors,
disks, and every fault of DESIGN §8 that the world can have.

::

    world = World(seed=1)
    a, b, c = (world.start(name) for name in "abc")
    world.run(3)
    b.crash()
    world.run(1)
    assert a.names() == ["a", "c"]
"""

from tribes.testing.sim.clocks import EPOCH_MS, MachineClock
from tribes.testing.sim.disk import Disk
from tribes.testing.sim.network import Link
from tribes.testing.sim.node import SimNode
from tribes.testing.sim.probes import Stranger
from tribes.testing.sim.process import SimWaiter
from tribes.testing.sim.rpc import SimRpc, SimRpcCall
from tribes.testing.sim.world import Observer, World

__all__ = [
    "EPOCH_MS",
    "Disk",
    "Link",
    "MachineClock",
    "Observer",
    "SimNode",
    "SimRpc",
    "SimRpcCall",
    "SimWaiter",
    "Stranger",
    "World",
]
