"""Runs ``tribes doctor`` as a process, and members for it to find."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.system.conftest import READY_S

__all__ = ["Run", "doctor_command", "examine", "member"]

MEMBER = """
import json, os, signal, sys
signal.alarm(90)
said = json.loads(sys.argv[1])
from functools import partial
from tribes.runtime import assembly, managers, parts
ahead = said["ahead_ms"]
parts.Sources = partial(parts.Sources, wall_ms=lambda: managers.wall_ms() + ahead)
if said["version"]:
    assembly.product_version = lambda: said["version"]
if said["protocol"]:
    from tribes.links import own_wire
    own_wire.OwnSide.__init__.__defaults__ = (
        (said["protocol"], said["protocol"]), *own_wire.OwnSide.__init__.__defaults__[1:])
import trio
from tribes import GroupChannel
from tribes.config import config_from

async def main():
    async with GroupChannel(config_from(said["config"])) as channel:
        print(channel.local.port, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)

trio.run(main)
"""
"""A member whose clock, release or protocol may be another one. Ends with its standard input."""


@dataclass
class Run:
    """What an examination said.

    Attributes:
        status: Its exit status.
        findings: Check, state, text and fix of each.
    """

    status: int
    findings: list[dict[str, str]]

    def one(self, check: str, state: str) -> dict[str, str]:
        """The first finding of a check in that state."""
        for each in self.findings:
            if (each["check"], each["state"]) == (check, state):
                return each
        raise AssertionError(f"no {state} of {check!r} among {self.findings}")

    def wrong(self) -> list[str]:
        """What is not as it should be."""
        return [each["check"] for each in self.findings if each["state"] != "ok"]


def doctor_command(*arguments: str) -> list[str]:
    """The command line of an examination."""
    return [sys.executable, "-m", "tribes", "doctor", *arguments]


def examine(
    *arguments: str, prefix: Sequence[str] = (), seconds: float = 0.5, **settings: Any
) -> Run:
    """Run it to its end."""
    done = subprocess.run(
        [*prefix, *doctor_command("--json", "--seconds", str(seconds), *arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **settings,
    )
    assert done.stdout.startswith("{"), done.stderr
    return Run(done.returncode, json.loads(done.stdout)["findings"])


@contextmanager
def member(
    config: dict[str, Any],
    *,
    prefix: Sequence[str] = (),
    ahead_ms: int = 0,
    version: str = "",
    protocol: int = 0,
) -> Iterator[int]:
    """Run a member; gives its port."""
    said = {"config": config, "ahead_ms": ahead_ms, "version": version, "protocol": protocol}
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", MEMBER, json.dumps(said)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, "the member did not start"
        yield int(line)
    finally:
        process.stdin.close()
        try:
            process.wait(READY_S)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
