"""Plans for broken own links and broken suspicion.

A reset alone is made good by what is kept, a stop alone by the suspicion; so each plan makes one of
them necessary, and nothing behind it can help. Times: who does not answer is suspected after 1 s to
2 s and removed after 3 s to 5 s; a frame is late after 3 s.
"""

from __future__ import annotations

from typing import Final

from tribes.testing.plan import Plan, Step

__all__ = [
    "answers_lost",
    "cut_one_way",
    "deaf_to_heartbeats",
    "failing_resets",
    "hung",
    "many_resets",
    "old_data_late",
    "quiet",
    "removed_and_back",
    "reset_while_stopped",
    "slow",
    "stopped",
    "stopped_often",
    "successors",
    "torn",
    "unreached_by_one",
    "unreached_for_long",
    "witness_stopped",
]

_MANY: Final = {"write": 4.0, "append": 1.0, "abandon": 3.0}
_PAIRS: Final = ((0, 1), (1, 2), (0, 2))


def many_resets(seed: int) -> Plan:
    """Connections are reset while frames are on their way, and nothing else is wrong."""
    return Plan(
        seed=seed,
        members=3,
        seconds=14.0,
        settle=6.0,
        send_options=(6, 8)[seed % 2],
        clients=4,
        think=0.1,
        messages_per_s=40.0,
        message_options=(0, 2, 6, 8, 10, 14),
        steps=tuple(Step(1.0 + 1.2 * i, "reset", _PAIRS[i % 3]) for i in range(10)),
    )


def torn(seed: int) -> Plan:
    """The same, over ways so long that much is under way each time, and with halves of frames."""
    kinds = ("reset", "reset_mid_frame", "half_open")
    return Plan(
        seed=seed,
        members=3,
        seconds=10.0,
        settle=8.0,
        send_options=(6, 8)[seed % 2],
        clients=4,
        think=0.1,
        messages_per_s=40.0,
        message_options=(0, 2, 6, 8, 10, 14),
        steps=(
            *(Step(1.0, "delay", pair, value=0.03, seconds=9.0) for pair in _PAIRS),
            *(Step(1.5 + 0.7 * i, kinds[i % 3], _PAIRS[i % 3]) for i in range(11)),
        ),
    )


def failing_resets(seed: int) -> Plan:
    """The same, and only messages whose outcome is told: some fail at their listeners."""
    return Plan(
        seed=seed,
        members=2,
        seconds=12.0,
        settle=6.0,
        clients=1,
        think=1.0,
        messages_per_s=60.0,
        message_options=(6, 14),
        steps=(
            Step(1.0, "delay", (0, 1), value=0.03, seconds=10.0),
            *(Step(1.5 + 0.45 * i, "reset", (0, 1)) for i in range(20)),
        ),
    )


def quiet(seed: int) -> Plan:
    """Nothing is wrong, and little to do: no later word makes up for one that is missing."""
    return Plan(
        seed=seed,
        members=3,
        seconds=20.0,
        settle=4.0,
        send_options=(6, 8)[seed % 2],
        clients=1,
        think=1.5,
        messages_per_s=0.5,
    )


def slow(seed: int) -> Plan:
    """Listeners that cannot follow: what is received at once is not processed in time."""
    return Plan(
        seed=seed,
        members=2,
        seconds=12.0,
        settle=14.0,
        clients=1,
        think=0.5,
        messages_per_s=6.0,
        message_options=(6, 14),
        steps=(Step(1.0, "slow_listeners", (1,), value=0.5, seconds=9.0),),
    )


def cut_one_way(seed: int) -> Plan:
    """What one node sends does not arrive, and what it is told does: until one side forgets."""
    return Plan(
        seed=seed,
        members=2,
        seconds=10.0,
        settle=8.0,
        send_options=(6, 8)[seed % 2],
        clients=2,
        think=0.3,
        messages_per_s=6.0,
        message_options=(2, 6, 10, 14),
        steps=(Step(2.0, "cut", (0, 1), seconds=4.0 + 0.05 * (seed % 24)),),
    )


def answers_lost(seed: int) -> Plan:
    """Frames arrive and their acknowledgements do not, until the receiver has forgotten them."""
    return Plan(
        seed=seed,
        members=2,
        seconds=10.0,
        settle=8.0,
        send_options=(6, 8)[seed % 2],
        clients=2,
        think=0.3,
        messages_per_s=4.0,
        message_options=(2, 6, 10, 14),
        steps=(
            Step(2.0, "cut", (1, 0), seconds=4.6 + 0.03 * (seed % 12)),
            Step(4.5, "reset", (0, 1)),
        ),
    )


def removed_and_back(seed: int) -> Plan:
    """A member that was removed and knows nothing of it, in the midst of sending."""
    return Plan(
        seed=seed,
        members=3,
        seconds=14.0,
        settle=8.0,
        send_options=(6, 8)[seed % 2],
        clients=4,
        think=0.1,
        messages_per_s=20.0,
        message_options=(0, 2, 6, 8, 10, 14),
        steps=(
            Step(1.0, "delay", (0, 1), value=0.15, seconds=10.0),
            Step(2.0, "pause", (1,), seconds=5.5),
        ),
    )


def old_data_late(seed: int) -> Plan:
    """A connection is given up while what was written on it is still on its way for a second.

    Nothing arrives in less than 3.65 s for a while, and then in 100 ms: the member answers a
    question while its connection has not answered for 3 s, and the new one overtakes the old.
    """
    return Plan(
        seed=seed,
        members=2,
        seconds=11.0,
        settle=8.0,
        send_options=8,
        clients=1,
        think=1.0,
        messages_per_s=100.0,
        message_options=(2, 8, 10),
        steps=(
            Step(2.0, "delay", (0, 1), value=3.65, seconds=2.95),
            Step(4.96, "delay", (0, 1), value=0.1, seconds=5.0),
        ),
    )


def hung(seed: int) -> Plan:
    """TCP is cut between two members, and their heartbeats arrive; one removes the other late."""
    return Plan(
        seed=seed,
        members=3,
        seconds=12.0,
        settle=6.0,
        clients=4,
        think=0.1,
        messages_per_s=5.0,
        message_options=(2, 6, 10, 14),
        mix=_MANY,
        steps=(Step(2.0, "no_tcp", _PAIRS[seed % 3], seconds=5.0),),
    )


def unreached_by_one(seed: int) -> Plan:
    """Two members do not reach each other, in one direction or both; a third reaches both."""
    action = ("cut", "no_tcp", "bridge")[seed % 3]
    pair = _PAIRS[seed // 3 % 3]
    third = 3 - sum(pair)
    nodes = (third, *pair) if action == "bridge" else pair
    return Plan(
        seed=seed,
        members=3,
        seconds=16.0,
        settle=6.0,
        clients=4,
        think=0.1,
        messages_per_s=5.0,
        message_options=(2, 6, 10, 14),
        steps=(Step(7.0, action, nodes, seconds=7.0),),
    )


def unreached_for_long(seed: int) -> Plan:
    """The same, one way and until nobody can go on hoping."""
    return Plan(
        seed=seed,
        members=3,
        seconds=36.0,
        settle=8.0,
        clients=2,
        think=0.3,
        messages_per_s=2.0,
        message_options=(2, 6),
        steps=(Step(1.0, "cut", _PAIRS[seed % 3][:: 1 if seed % 2 else -1], seconds=34.0),),
    )


def reset_while_stopped(seed: int) -> Plan:
    """Somebody is stopped for less than it may be silent, and its connections are reset."""
    steps: list[Step] = []
    for i in range(4):
        node = (seed + i) % 3
        at = 7.0 + 8.0 * i
        steps += [
            Step(at, "pause", (node,), seconds=2.4),
            *(Step(at + 0.2, "reset", (other, node)) for other in range(3) if other != node),
        ]
    return Plan(
        seed=seed,
        members=3,
        seconds=40.0,
        settle=6.0,
        clients=2,
        think=0.3,
        messages_per_s=2.0,
        message_options=(2, 6),
        steps=tuple(steps),
    )


def witness_stopped(seed: int) -> Plan:
    """A member dies, and the only other one that could be asked about it was just stopped."""
    second, third = ((seed + i) % 3 for i in range(2))
    return Plan(
        seed=seed,
        members=3,
        seconds=30.0,
        settle=8.0,
        clients=2,
        think=0.3,
        routing="sticky",
        messages_per_s=2.0,
        message_options=(2, 6),
        steps=(
            Step(2.0, "pause", (second,), seconds=24.0),
            Step(2.1, "crash", (third,), seconds=24.0),
        ),
    )


def deaf_to_heartbeats(seed: int) -> Plan:
    """Heartbeats of one member are lost, and there is nothing to do: only PING finds it well."""
    return Plan(
        seed=seed,
        members=3,
        seconds=14.0,
        settle=5.0,
        clients=1,
        think=4.0,
        messages_per_s=0.1,
        steps=(Step(1.0, "no_multicast", (seed % 3,), seconds=11.0),),
    )


def stopped(seed: int) -> Plan:
    """A member is stopped for less time than it takes until it is removed."""
    return Plan(
        seed=seed,
        members=3,
        seconds=8.0,
        settle=6.0,
        send_options=(6, 2)[seed % 2],
        clients=30,
        think=0.1,
        routing="sticky",
        messages_per_s=5.0,
        message_options=(2, 6, 10, 14),
        mix=_MANY,
        soon_s=2.0,
        steps=(Step(2.0, "pause", (seed % 3,), seconds=3.4),),
    )


def stopped_often(seed: int) -> Plan:
    """Members are stopped one after the other, each for a while that nobody is removed for."""
    return Plan(
        seed=seed,
        members=3,
        seconds=24.0,
        settle=6.0,
        clients=4,
        think=0.1,
        messages_per_s=5.0,
        message_options=(2, 6, 10, 14),
        steps=tuple(Step(1.0 + 3.1 * i, "pause", (i % 3,), seconds=2.5) for i in range(7)),
    )


def successors(seed: int) -> Plan:
    """Processes die while the others are busy sending to them, and others take their ports."""
    return Plan(
        seed=seed,
        members=3,
        seconds=12.0,
        settle=6.0,
        send_options=(6, 8)[seed % 2],
        clients=4,
        think=0.1,
        messages_per_s=40.0,
        message_options=(0, 2, 6, 8, 10, 14),
        steps=(
            *(Step(0.5, "delay", pair, value=0.03, seconds=11.0) for pair in _PAIRS),
            *(Step(1.0 + 1.3 * i, "crash", (1 + i % 2,), seconds=0.0005) for i in range(7)),
        ),
    )
