"""Plans: what happens to a simulated cluster, and when.

A plan is data: the cluster, its load, and a timed list of steps. It is written by hand, drawn by
hypothesis (and then shrinks to the few steps that matter) or by :mod:`tribes.testing.generator`
from a seed, and the same plan always gives the same run, byte for byte.

A step is a fault or an operation. One with ``seconds`` is taken back by itself after that time, so
leaving a step out of a plan never leaves half of it behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from tribes.errors import ConfigError
from tribes.interceptors.registry import build_interceptors

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ACTIONS", "KINDS", "Extra", "Plan", "Step", "load_plan"]

ACTIONS: Final = {
    "crash": "kill -9: memory is lost, the disk stays; started again after `seconds`",
    "crash_during_send": "the same, in the middle of what it was writing",
    "crash_keep_sockets": "the process dies, a forked child keeps its sockets open",
    "restart": "stopped in good order and started again at once",
    "leave": "stopped in good order; started again after `seconds`",
    "drain": "stopped once everybody has what it sent; started again after `seconds`",
    "mass_restart": "everybody but the first node of the step crashes, and is started again",
    "pause": "SIGSTOP for `seconds`",
    "throttle": "its processor is `value` times slower",
    "slow_listeners": "its listeners take `value` seconds for a message",
    "drop": "a share `value` of all datagrams is lost",
    "duplicate": "a share `value` of all datagrams arrives twice",
    "reorder": "a share `value` of all datagrams overtakes others",
    "delay": "everything between two nodes takes `value` seconds longer",
    "cut": "nothing from the first node reaches the second; the other way works",
    "partition": "the nodes of the step are cut off from all others",
    "flap": "the link between two nodes is cut and restored every `value` seconds",
    "bridge": "the second and third node don't reach each other, the first reaches both",
    "no_multicast": "heartbeats of these nodes neither leave nor arrive; TCP works",
    "no_tcp": "no stream between two nodes; heartbeats pass",
    "clog": "the second node's window is full: the first can't write to it",
    "half_open": "the second node forgets its streams with the first, which doesn't know",
    "reset": "the streams between two nodes are reset",
    "reset_mid_frame": "the same, with half a frame delivered",
    "corrupt": "a bit of the next piece of a stream between two nodes is flipped",
    "truncate": "the next piece of a stream between two nodes loses its end",
    "oversize": "the next piece of a stream between two nodes announces a huge frame",
    "replay": "old datagrams are sent again",
    "forge": "somebody sends heartbeats and farewells of nodes that never were, and junk streams",
    "clock_step": "the wall clock of a node jumps by `value` milliseconds",
    "clock_drift": "the wall clock of a node runs `value` times as fast",
    "disk_full": "nothing can be written to a node's disk",
    "donor_hangs": "a node is asked for what others lack, and answers nothing",
    "donor_refuses": "the same, and it says that it does not run the application",
    "donor_dies": "crashes in the middle of the next transfer that it gives within `seconds`",
}
"""Every action with what it does. ``value`` and ``seconds`` are those of the step."""

KINDS: Final = frozenset(
    (
        "write",
        "append",
        "counter",
        "set_add",
        "read",
        "touch",
        "remove",
        "rotate",
        "invalidate",
        "abandon",
        "merged_add",
        "merged_put",
        "merged_take",
        "merged_append",
        "merged_read",
        "lock",
    )
)
"""What a client may do with the session that it has."""

PLAN_MAX_STEPS: Final = 10_000

SOON_S: Final = 8.0
"""Longer than a repair's longest pause (5 s) and one send that fails (3 s)."""


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One thing that happens.

    Attributes:
        at: Virtual seconds from the start of the plan.
        action: One of :data:`ACTIONS`.
        nodes: Indexes of the nodes that it happens to, in the order that the action names them.
        value: See the action.
        seconds: After which it is taken back; 0: at the end of the plan, or never where it is over
            at once.
    """

    at: float
    action: str
    nodes: tuple[int, ...] = ()
    value: float = 0.0
    seconds: float = 0.0


class Extra(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One more context beside ``app``, with sessions and clients of its own.

    Attributes:
        name: Of the context.
        nodes: Indexes of the nodes that have it; empty: all.
        send_options: Of its manager.
        clients: How many clients.
    """

    name: str
    nodes: tuple[int, ...] = ()
    send_options: int = 6
    clients: int = 2


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A cluster, its load, and what happens to it.

    Attributes:
        seed: Of everything random in the run: delays, ids, the clients' choices.
        members: How many nodes.
        seconds: Virtual seconds under faults; what is still broken then is mended.
        settle: Virtual seconds without faults or load, at whose end all must be well.
        send_options: Of the managers, see ``SendOptions``.
        clients: How many clients.
        think: Seconds between two requests of a client, on average.
        routing: ``sticky`` or ``random``.
        max_inactive_s: Idle limit of the sessions.
        messages_per_s: Raw messages that each node sends to others.
        steps: What happens.
        tabs: Clients that share one session, as the tabs of a browser do, and don't wait for each
            other.
        tick: Clients ask at multiples of so many seconds, so that some ask in one moment; 0: at
            any time.
        mix: How often clients do what, see ``workload.MIX``; what is left out is not done. Empty:
            the usual mix.
        large_share: The share of the plain writes whose value has 20 to 100 KiB.
        message_options: Of the raw messages, see ``SendOptions``.
        soon_s: Seconds without a fault after which all copies must have been equal at least once,
            load or no load. The last net, a comparison in the background, needs longer: a small
            value asks for the mechanism that is quick.
        links: What the nodes speak: ``own`` (the own link), ``plain`` (all as plain members do), or
            ``mixed`` (every other node is a plain one).
        suspect_after: Of all nodes, see ``MembershipConfig``; milliseconds.
        interceptors: Of all nodes, see ``ChannelConfig``; None: the default ones.
        multicast: Whether there is multicast. If not, the nodes find each other by the name of the
            first one, and after a split by looking for whom they lost: with pauses of up to 30 s,
            so ``settle`` and ``soon_s`` are to be longer. Their links must be ``own``.
        contexts: Further contexts; ``app`` is on all nodes.
        managers: ``delta``, ``backup``, or ``both``: then the cluster has two applications.
        copies: Of each session of a Backup manager, beside its owner's.
    """

    seed: int = 0
    members: int = 3
    seconds: float = 10.0
    settle: float = 10.0
    send_options: int = 6
    clients: int = 4
    think: float = 0.2
    routing: str = "random"
    max_inactive_s: int = 1800
    messages_per_s: float = 2.0
    steps: tuple[Step, ...] = ()
    tabs: int = 1
    tick: float = 0.0
    mix: dict[str, float] = {}
    large_share: float = 0.0
    message_options: tuple[int, ...] = (0, 2, 6, 8, 10, 14)
    soon_s: float = SOON_S
    links: str = "own"
    suspect_after: int = 1000
    interceptors: tuple[dict[str, Any], ...] | None = None
    multicast: bool = True
    contexts: tuple[Extra, ...] = ()
    managers: str = "delta"
    copies: int = 1

    def check(self, source: str = "") -> None:
        """Refuse what cannot be run.

        Raises:
            ConfigError: Names the key, what was found and what is allowed.
        """

        def refuse(key: str, message: str) -> None:
            raise ConfigError(message, key=key, source=source)

        if not 1 <= self.members <= 1000:
            refuse("members", f"must be from 1 to 1000, found {self.members}")
        if self.routing not in ("sticky", "random"):
            refuse("routing", f"must be 'sticky' or 'random', found {self.routing!r}")
        if self.links not in ("own", "plain", "mixed"):
            refuse("links", f"must be 'own', 'plain' or 'mixed', found {self.links!r}")
        if self.managers not in ("delta", "backup", "both"):
            refuse("managers", f"must be 'delta', 'backup' or 'both', found {self.managers!r}")
        if self.copies < 0:
            refuse("copies", f"must not be negative, found {self.copies}")
        if not self.multicast and self.links != "own":
            refuse("multicast", "without it the links must be 'own'")
        if self.suspect_after < 0:
            refuse("suspect_after", f"must not be negative, found {self.suspect_after}")
        build_interceptors(self.interceptors or (), key="interceptors")
        if self.tabs < 1:
            refuse("tabs", f"must be at least 1, found {self.tabs}")
        if unknown := sorted(set(self.mix) - KINDS):
            refuse("mix", f"{unknown[0]!r} is none of {', '.join(sorted(KINDS))}")
        if self.seconds < 0 or self.settle < 0:
            refuse("seconds", "must not be negative")
        names = ["app", *(extra.name for extra in self.contexts)]
        if len(set(names)) < len(names):
            refuse("contexts", f"names must differ, and not be 'app'; found {', '.join(names[1:])}")
        for number, extra in enumerate(self.contexts):
            if any(not 0 <= node < self.members for node in extra.nodes):
                refuse(f"contexts[{number}].nodes", f"nodes are 0 to {self.members - 1}")
        if len(self.steps) > PLAN_MAX_STEPS:
            refuse("steps", f"at most {PLAN_MAX_STEPS} steps, found {len(self.steps)}")
        for number, step in enumerate(self.steps):
            key = f"steps[{number}]"
            if step.action not in ACTIONS:
                refuse(f"{key}.action", f"{step.action!r} is none of {', '.join(sorted(ACTIONS))}")
            if any(not 0 <= node < self.members for node in step.nodes):
                refuse(f"{key}.nodes", f"nodes are numbered 0 to {self.members - 1}")
            if step.at < 0 or step.seconds < 0:
                refuse(key, "times must not be negative")

    def to_json(self) -> str:
        """The plan as JSON, one step a line, for people to read and to cut down."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1).decode()


def load_plan(path: Path) -> Plan:
    """Read a plan from a JSON file.

    Raises:
        ConfigError: The file cannot be read, or is no plan: says where and why.
    """
    try:
        plan = msgspec.json.decode(path.read_bytes(), type=Plan)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", source=str(path)) from error
    except msgspec.MsgspecError as error:
        raise ConfigError(str(error), source=str(path)) from error
    plan.check(str(path))
    return plan
