"""The steps of a plan: what each does to the world, and how it is taken back.

Most are faults of the simulated world, which tells them to whoever watches. What is set directly is
in `UNTOLD`, with the words by which the run notes its begin and its end.

Longer than others and kept whole: one table, `PERFORM`, and a short function for each of its lines,
which know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from tribes.errors import RemoteProtocolError
from tribes.wire.member import SHUTDOWN_COMMAND, decode_member, encode_member

if TYPE_CHECKING:
    from tribes.testing.plan import Plan, Step
    from tribes.testing.sim import SimNode, World

__all__ = ["PERFORM", "UNTOLD", "Run", "Undo"]

Undo = Callable[[], None] | None

_DRAIN_S: Final = 2.0
_NOBODYS_PORT: Final = 3999
"""Below the first port of the simulated nodes."""

_LASTS: Final = ("disturb", "mend")
UNTOLD: Final = {
    "crash_keep_sockets": ("disturb", "jolt"),
    "throttle": ("slow", "quick"),
    "slow_listeners": _LASTS,
    "drop": _LASTS,
    "duplicate": _LASTS,
    "reorder": _LASTS,
    "delay": _LASTS,
    "no_multicast": _LASTS,
    "no_tcp": _LASTS,
    "clock_drift": _LASTS,
    "donor_hangs": _LASTS,
    "donor_refuses": _LASTS,
}
"""What is set directly, so that the world does not tell of it: how its begin and end are noted."""


class Run(Protocol):
    """What a step may touch of the run that it is a part of."""

    plan: Plan
    world: World
    nodes: list[SimNode]
    end_s: float

    def revive(self, node: SimNode) -> None:
        """Start a node if it is dead."""

    def watch_drained(self, node: SimNode) -> None:
        """A node says that it may go."""

    def watch_dying(self, node: SimNode) -> None:
        """A node will die in its next write."""


def _crash(run: Run, step: Step) -> Undo:
    node = run.nodes[step.nodes[0]]
    if not node.is_alive:
        return None
    node.crash(
        during_send=step.action == "crash_during_send",
        keep_sockets=step.action == "crash_keep_sockets",
    )
    if node.is_alive:
        run.watch_dying(node)
    return lambda: run.revive(node)


def _stop(run: Run, step: Step) -> Undo:
    node = run.nodes[step.nodes[0]]
    if not node.is_alive or node.is_paused:
        return None
    node.stop()
    if step.action == "restart":
        node.restart()
        return None
    return lambda: run.revive(node)


def _drain(run: Run, step: Step) -> Undo:
    node = run.nodes[step.nodes[0]]
    incarnation, give_up = node.incarnation, run.world.now + _DRAIN_S
    node.drain()

    def look() -> None:
        if node.incarnation != incarnation or not node.is_alive or node.is_paused:
            return
        if node.is_drained or run.world.now >= give_up:
            if node.is_drained:
                run.watch_drained(node)
            node.stop()
            run.world.at(max(step.seconds, _DRAIN_S), lambda: run.revive(node))
        else:
            run.world.at(0.05, look)

    look()
    return None


def _mass_restart(run: Run, step: Step) -> Undo:
    spared = run.nodes[step.nodes[0]]
    for node in run.nodes:
        if node is not spared and node.is_alive:
            node.crash()

    def start() -> None:
        for node in run.nodes:
            run.revive(node)

    return start


def _pause(run: Run, step: Step) -> Undo:
    node = run.nodes[step.nodes[0]]
    if not node.is_alive or node.is_paused:
        return None
    node.pause()
    incarnation = node.incarnation

    def resume() -> None:
        if node.is_alive and node.is_paused and node.incarnation == incarnation:
            node.resume()

    return resume


def _throttle(run: Run, step: Step) -> Undo:
    node = run.nodes[step.nodes[0]]
    node.throttle = max(step.value, 1.0)

    def undo() -> None:
        node.throttle = 1.0

    return undo


def _slow_listeners(run: Run, step: Step) -> Undo:
    node = run.nodes[step.nodes[0]]
    node.delivery_s = step.value

    def undo() -> None:
        node.delivery_s = 0.0

    return undo


def _every_link(name: str) -> Callable[[Run, Step], Undo]:
    def begin(run: Run, step: Step) -> Undo:
        def set_to(value: float) -> None:
            for link in run.world.every_link():
                setattr(link, name, value)

        set_to(step.value)
        return lambda: set_to(0.0)

    return begin


def _delay(run: Run, step: Step) -> Undo:
    a, b = _pair(run, step)
    links = (run.world.link(a, b), run.world.link(b, a))

    def set_to(value: float) -> None:
        for link in links:
            link.delay = value

    set_to(step.value)
    return lambda: set_to(0.0)


def _pair(run: Run, step: Step) -> tuple[SimNode, SimNode]:
    return run.nodes[step.nodes[0]], run.nodes[step.nodes[1]]


def _cut(run: Run, step: Step) -> Undo:
    a, b = _pair(run, step)
    run.world.cut(a, b)
    return lambda: run.world.uncut(a, b)


def _partition(run: Run, step: Step) -> Undo:
    inside = [run.nodes[number] for number in step.nodes]
    outside = [node for node in run.nodes if node not in inside]
    pairs = [(a, b) for a in inside for b in outside]
    for a, b in pairs:
        run.world.cut(a, b, both=True)

    def undo() -> None:
        for a, b in pairs:
            run.world.uncut(a, b)
            run.world.uncut(b, a)

    return undo


def _flap(run: Run, step: Step) -> Undo:
    a, b = _pair(run, step)
    world = run.world
    end = min(world.now + (step.seconds or run.plan.seconds), run.end_s)
    period = max(step.value, 0.05)

    def down() -> None:
        if world.now < end:
            world.cut(a, b, both=True)
            world.at(period, up)

    def up() -> None:
        world.uncut(a, b)
        world.uncut(b, a)
        if world.now + period < end:
            world.at(period, down)

    down()
    return None


def _bridge(run: Run, step: Step) -> Undo:
    a, b = run.nodes[step.nodes[1]], run.nodes[step.nodes[2]]
    run.world.cut(a, b, both=True)

    def undo() -> None:
        run.world.uncut(a, b)
        run.world.uncut(b, a)

    return undo


def _no_multicast(run: Run, step: Step) -> Undo:
    names = {run.nodes[number].name for number in step.nodes}
    run.world.multicast_blocked.update(names)
    return lambda: run.world.multicast_blocked.difference_update(names)


def _no_tcp(run: Run, step: Step) -> Undo:
    a, b = _pair(run, step)
    pairs = {(a.name, b.name), (b.name, a.name)}
    run.world.tcp_blocked.update(pairs)
    return lambda: run.world.tcp_blocked.difference_update(pairs)


def _clog(run: Run, step: Step) -> Undo:
    a, b = _pair(run, step)
    run.world.clog(a, b)
    return lambda: run.world.unclog(a, b)


def _half_open(run: Run, step: Step) -> Undo:
    a, b = _pair(run, step)
    run.world.half_open(a, b)
    return None


def _reset(run: Run, step: Step) -> Undo:
    a, b = _pair(run, step)
    run.world.reset(a, b, mid_frame=step.action == "reset_mid_frame")
    return None


def _corrupt(run: Run, step: Step) -> Undo:
    a, b = _pair(run, step)
    how = {"corrupt": "flip", "truncate": "truncate", "oversize": "oversize"}[step.action]
    run.world.corrupt_next(a, b, how)
    return None


def _replay(run: Run, step: Step) -> Undo:
    del step
    old = list(run.world.recorded_datagrams)
    for data in old[:: max(1, len(old) // 20)]:
        run.world.inject_datagram(data)
    return None


def _forge(run: Run, step: Step) -> Undo:
    del step
    world = run.world
    old = list(world.recorded_datagrams)
    if old:
        data = bytearray(world.random.choice(old))
        data[-30:-14] = world.random.randbytes(16)
        world.inject_datagram(bytes(data))
        record = decode_member(world.random.choice(old))
        stranger = record.replace(
            port=_NOBODYS_PORT, unique_id=world.random.randbytes(16), command=b"", payload=b"forged"
        )
        world.inject_datagram(encode_member(stranger))
        world.inject_datagram(encode_member(stranger.replace(command=SHUTDOWN_COMMAND)))
        # Again, and nobody says farewell: who believes it keeps it for some seconds.
        world.inject_datagram(encode_member(stranger.replace(alive=stranger.alive + 1)))
        # At an address where somebody is, who is not the one that is announced.
        squatter = record.replace(unique_id=world.random.randbytes(16), command=b"")
        world.inject_datagram(encode_member(squatter))
    world.inject_datagram(world.random.randbytes(100))
    for node in run.nodes:
        if node.is_alive:
            world.inject_stream(node, b"FLT2002" + world.random.randbytes(50))
    return None


def _clock_step(run: Run, step: Step) -> Undo:
    run.nodes[step.nodes[0]].clock.step(int(step.value))
    return None


def _clock_drift(run: Run, step: Step) -> Undo:
    clock = run.nodes[step.nodes[0]].clock
    clock.drift = step.value

    def undo() -> None:
        clock.drift = 1.0

    return undo


def _disk_full(run: Run, step: Step) -> Undo:
    node = run.nodes[step.nodes[0]]
    node.disk_full = True

    def undo() -> None:
        node.disk_full = False

    return undo


def _donor_hangs(run: Run, step: Step) -> Undo:
    node = run.nodes[step.nodes[0]]
    if not node.is_alive:
        return None
    donor: Any = node.core.sessions.replicators["app"].transfer.donor

    def answer(*_: object) -> None:
        if step.action == "donor_refuses":
            raise RemoteProtocolError("no context 'app' runs here")

    donor.on_summary = donor.on_want = answer

    def undo() -> None:
        # Two such steps may overlap; the first to end ends both.
        for name in ("on_summary", "on_want"):
            vars(donor).pop(name, None)

    run.world.at(max(0.0, run.end_s - run.world.now - 0.001), undo)
    return undo


def _donor_dies(run: Run, step: Step) -> Undo:
    node = run.nodes[step.nodes[0]]
    if not node.is_alive:
        return None
    donor: Any = node.core.sessions.replicators["app"].transfer.donor
    incarnation, send = node.incarnation, type(donor)._send

    def send_and_die(*args: Any) -> None:
        send(donor, *args)
        if donor.is_serving:
            run.world.at(0.0003, die)

    def die() -> None:
        if node.incarnation == incarnation and "_send" in vars(donor):
            node.crash()
            run.world.at(1.0, lambda: run.revive(node))

    donor._send = send_and_die

    def undo() -> None:
        vars(donor).pop("_send", None)

    # At the end of the faults nobody is to die any more.
    run.world.at(max(0.0, run.end_s - run.world.now - 0.001), undo)
    return undo


PERFORM: Final[dict[str, Callable[[Run, Step], Undo]]] = {
    "crash": _crash,
    "crash_during_send": _crash,
    "crash_keep_sockets": _crash,
    "restart": _stop,
    "leave": _stop,
    "drain": _drain,
    "mass_restart": _mass_restart,
    "pause": _pause,
    "throttle": _throttle,
    "slow_listeners": _slow_listeners,
    "drop": _every_link("loss"),
    "duplicate": _every_link("duplicate"),
    "reorder": _every_link("reorder"),
    "delay": _delay,
    "cut": _cut,
    "partition": _partition,
    "flap": _flap,
    "bridge": _bridge,
    "no_multicast": _no_multicast,
    "no_tcp": _no_tcp,
    "clog": _clog,
    "half_open": _half_open,
    "reset": _reset,
    "reset_mid_frame": _reset,
    "corrupt": _corrupt,
    "truncate": _corrupt,
    "oversize": _corrupt,
    "replay": _replay,
    "forge": _forge,
    "clock_step": _clock_step,
    "clock_drift": _clock_drift,
    "disk_full": _disk_full,
    "donor_hangs": _donor_hangs,
    "donor_refuses": _donor_hangs,
    "donor_dies": _donor_dies,
}
"""By action of the step."""
