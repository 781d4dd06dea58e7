"""How many events per second the simulator runs, with all invariants checked.

python bench/sim_speed.py

The plans are those that `tribes sim --seeds 1-40` draws. An event is one entry of the world's heap:
a datagram, a piece of a stream, a timer, a client's next request. The first pass warms the caches
and is not counted.
"""

from __future__ import annotations

import json
import statistics

from tribes.testing.execute import run_plan
from tribes.testing.generator import draw_plan

RUNS = 5
SEEDS = range(1, 41)


def one_run() -> tuple[int, float]:
    """Run every plan once; return the events and the seconds of this machine."""
    events, seconds = 0, 0.0
    for seed in SEEDS:
        outcome = run_plan(draw_plan(seed))
        if outcome.violations:
            raise SystemExit(f"seed {seed} broke a promise: {outcome.violations[0]}")
        events += outcome.events
        seconds += outcome.real_s
    return events, seconds


def main() -> None:
    """Print what every run took, and the median as one line of JSON."""
    one_run()
    rates = []
    for _ in range(RUNS):
        events, seconds = one_run()
        rates.append(events / seconds)
        print(f"{events} events in {seconds:.2f} s: {rates[-1]:.0f} events/s")
    ours = round(statistics.median(rates))
    print(json.dumps({"row": "sim-speed", "ours": ours, "unit": "events/s", "runs": RUNS}))


if __name__ == "__main__":
    main()
