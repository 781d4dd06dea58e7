"""What protection and compression cost: processor time of all members per message, beside none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.outcomes import OURS, Goal, Outcome, Sample
from bench.runner import Bench, Measure, Row
from bench.turns import stream

if TYPE_CHECKING:
    from bench.processes import Team

ASYNC = 8
SIZE = 1024


def measure(bench: Bench, outcome: Outcome) -> None:
    """By kind of protection; each run is one without and one with it."""
    folder = str(bench.certificates())
    cases: dict[str, tuple[dict[str, Any], dict[str, Any] | str]] = {
        "group key (Tribes: EncryptInterceptor, GCM)": (
            {"key": True},
            {"interceptors": "encrypt,gcm"},
        ),
        "TLS": ({"tls": folder}, "it has no TLS between members"),
        "EncryptInterceptor, CBC": ({"interceptors": "encrypt"}, {"interceptors": "encrypt"}),
        "GzipInterceptor": ({"interceptors": "gzip"}, {"interceptors": "gzip"}),
    }
    for name, (ours, theirs) in cases.items():
        contenders: dict[str, Measure | str] = {
            OURS: lambda: _tax(bench, bench.team(OURS, native=True), _ours(bench, ours)),
            "tribes": theirs
            if isinstance(theirs, str)
            else lambda: _tax(
                bench,
                bench.team("tribes", manager="none"),
                bench.team("tribes", manager="none", **theirs),
            ),
        }
        bench.compare(outcome, name, contenders)
        if bench.size.only_main:
            return


def _ours(bench: Bench, settings: dict[str, Any]) -> Team:
    return bench.team(OURS, native=True, **settings)


def _tax(bench: Bench, plain: Team, protected: Team) -> Sample:
    """How many times the processor time."""
    found = [stream(team, SIZE, ASYNC, bench.size.seconds) for team in (plain, protected)]
    without, with_it = (each.cpu_s / each.updates for each in found)
    more = {"us_without": without * 1e6, "us_with": with_it * 1e6, "rate_with": found[1].value}
    return Sample(with_it / (without or 1e-9), more=more)


ROW = Row(
    "encryption",
    "processor time of an asynchronous message of 1 KB with a group key, over that without",
    "×",
    Goal("reported", float("inf")),
    measure,
)
