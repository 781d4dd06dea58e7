"""How often the first read on another member, right after the answer, does not see the write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.outcomes import OURS, Goal, Outcome, Sample
from bench.runner import Bench, Row
from bench.turns import prepare

if TYPE_CHECKING:
    from bench.processes import Team

ASYNC, ACKED = 8, 2
READS = 500


def measure(bench: Bench, outcome: Outcome) -> None:
    """By option; ours with the token that the answer's cookie carries, and without it."""
    for options in (ASYNC, ACKED):

        def reads(kind: str, *, with_token: bool) -> Sample:
            team = bench.team(kind, manager="delta", options=options)
            prepare(team, 1, 100)
            return _stale(team, 20 if bench.size.is_quick else READS, with_token=with_token)

        bench.compare(
            outcome,
            f"option {options}",
            {
                OURS: lambda: reads(OURS, with_token=True),
                "ours, no token": lambda: reads(OURS, with_token=False),
                "tribes": lambda: reads("tribes", with_token=False),
                "redis": "one copy: it has no other member",
            },
            warm=False,
        )
        if bench.size.only_main:
            return


def _stale(team: Team, count: int, *, with_token: bool) -> Sample:
    """Percent of reads that show an older value."""
    reader, stale = team.others[0], 0
    for _ in range(count):
        written = team.first.ask("change")
        token = [written["token"]] if with_token else []
        stale += reader.ask("value", written["id"], *token)["number"] < written["number"]
    return Sample(100 * stale / count)


ROW = Row(
    "stale-reads",
    "first reads on another node right after the answer that are stale, option 8",
    "%",
    Goal("0 with the token", 0),
    measure,
)
