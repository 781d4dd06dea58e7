"""What a large world costs: 200 members, 10 virtual minutes, one core.

python bench/sim_reach.py [--members 200] [--minutes 10] [--seed 1]

Each minute a member crashes and is started again, one leaves and comes back, and one is stopped for
five seconds; from the second minute on one datagram and one segment in a hundred is lost. Five
clients use sessions, on any node, about two and a half times a second together; each change goes to
all members, acknowledged (6). All invariants are checked, twice a virtual second and at the end.

Printed are CPU seconds of this process, which others on the machine disturb less than the clock on
the wall; where nothing else runs both are the same.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

from tribes.testing.execute import run_plan
from tribes.testing.plan import Plan, Step

SETTLE_S = 20.0
AWAY_S = 5.0
START_S = 1.5
"""What a run adds before its plan."""


def plan_of(members: int, seconds: float, seed: int) -> Plan:
    """A plan that lasts so many virtual seconds, with its start and its end."""
    busy = seconds - SETTLE_S - START_S
    steps = []
    if busy > 60.0:
        steps.append(Step(60.0, "drop", value=0.01, seconds=busy - 60.0))
    for minute in range(int(busy // 60) + 1):
        for second, action in ((20.0, "crash"), (35.0, "leave"), (50.0, "pause")):
            at = 60.0 * minute + second
            node = (7 * minute + int(second)) % members
            if at + AWAY_S < busy:
                steps.append(Step(at, action, (node,), seconds=AWAY_S))
    return Plan(
        seed=seed,
        members=members,
        seconds=busy,
        settle=SETTLE_S,
        clients=5,
        think=2.0,
        messages_per_s=0.5 / members,
        steps=tuple(steps),
    )


def main() -> None:
    """Run it once; print every tenth of it, and the whole as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    begin, wall = time.process_time(), time.perf_counter()
    told = 0.0

    def progress(share: float) -> None:
        nonlocal told
        if share >= told:
            told += 0.1
            print(f"{share:4.0%} after {time.process_time() - begin:6.1f} CPU s", flush=True)

    outcome = run_plan(plan_of(args.members, 60.0 * args.minutes, args.seed), progress=progress)
    for violation in outcome.violations:
        print(violation)
    spent = time.process_time() - begin
    print(
        json.dumps(
            {
                "row": "sim-reach",
                "members": args.members,
                "virtual_s": round(outcome.virtual_s, 1),
                "events": outcome.events,
                "cpu_s": round(spent, 1),
                "wall_s": round(time.perf_counter() - wall, 1),
                "cpu_s_per_virtual_s": round(spent / outcome.virtual_s, 3),
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                "violations": len(outcome.violations),
            }
        )
    )
    if outcome.violations:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
