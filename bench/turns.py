"""One run of one contender: what several rows measure in the same way."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from bench.outcomes import Sample

if TYPE_CHECKING:
    from bench.processes import Child, Team

HEARD_S = 20.0


def latency(team: Team, how: str, size: int, options: int, seconds: float) -> Sample:
    """Median microseconds of a message that waits for its acknowledgement."""
    return timed(team, "latency", how, size, options, seconds)


def timed(team: Team, *command: object) -> Sample:
    """Median microseconds of what a command does one by one."""
    before = team.cpu_s()
    found = team.first.ask(*command)
    return Sample(found["p50"], found["n"], team.cpu_s() - before, {"p99": found["p99"]})


def flood(team: Team, how: str, senders: int, options: int, size: int, seconds: float) -> Sample:
    """Acknowledged messages per second."""
    return rated(team, "flood", how, size, options, senders, seconds)


def rated(team: Team, *command: object) -> Sample:
    """What a command does per second, when it waits for the end by itself."""
    before = team.cpu_s()
    found = team.first.ask(*command)
    return Sample(found["n"] / found["seconds"], found["n"], team.cpu_s() - before)


def stream(team: Team, size: int, options: int, seconds: float) -> Sample:
    """Messages per second, until the last receiver has processed the last one that came."""
    for child in team.others:
        child.ask("forget")
    before = team.cpu_s()
    sent = team.first.ask("stream", size, options, seconds)
    found = [_heard(child, sent["n"]) for child in team.others]
    took = max(each["last"] for each in found) - sent["began"]
    more = {
        "disordered": sum(each["inversions"] for each in found) / len(found) / sent["n"],
        "lost": sum(sent["n"] - each["n"] for each in found) / len(found) / sent["n"],
    }
    return Sample(sent["n"] / took, sent["n"], team.cpu_s() - before, more)


def _heard(child: Child, wanted: int) -> dict[str, Any]:
    """What it heard when all is there, or nothing more comes."""
    found, at, end = child.ask("heard"), time.monotonic(), time.monotonic() + HEARD_S
    while found["n"] < wanted and time.monotonic() < end:
        time.sleep(0.01)
        now = child.ask("heard")
        if now["n"] > found["n"]:
            at = time.monotonic()
        elif time.monotonic() > at + 2:
            break
        found = now
    return found


def prepare(team: Team, count: int, size: int, attributes: int = 1) -> None:
    """Create sessions once in a team's life."""
    if not team.is_prepared:
        team.first.ask("sessions", count, size, attributes)
        team.is_prepared = True


def updates(team: Team, how: str, senders: int, size: int, seconds: float) -> Sample:
    """Session updates per second, until the last member has applied them.

    ``stale`` is the share of sessions that are not what was written last, when no more comes.
    """
    for child in team.others:
        child.ask("forget")
    before = team.cpu_s()
    made = team.first.ask("update", how, senders, size, seconds)
    wanted = json.dumps(made["finals"])
    found = [child.ask("settle", wanted) for child in team.others]
    took = max(made["ended"], *(each["last"] for each in found)) - made["began"]
    stale = sum(each["stale"] for each in found) / len(found) / max(1, len(made["finals"]))
    return Sample(made["n"] / took, made["n"], team.cpu_s() - before, {"stale": stale})
