"""All members stop: what becomes of the sessions, what the log says, and the exit statuses.

``tribes node`` members, as an operator runs them, and web nodes beside them.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.standstill import Stopwatch

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

STATUS_NOT_DRAINED = 3


class Keepers:
    """``tribes node`` processes in the group of the web nodes."""

    def __init__(self, web: Any, directory: Path) -> None:
        self._web = web
        self._directory = directory
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, **environment: str) -> None:
        """Start one and wait until it is a member; settings as TRIBES_ variables."""
        command = [sys.executable, "-m", "tribes", "node", "--name", name, "--log-format", "json"]
        command += ["--multicast-port", str(self._web.multicast_port), "--auto-bind", "1000"]
        with open(self._directory / f"{name}.log", "ab") as out:
            self.processes[name] = subprocess.Popen(
                command, stdout=out, stderr=out, env={**self._web.environment, **environment}
            )
        self.await_said(name, "joined")

    def await_said(self, name: str, event: str, within: float = 15.0, **fields: object) -> Any:
        deadline = time.monotonic() + within
        while True:
            found = [x for x in self.said(name, event) if fields.items() <= x.items()]
            if found:
                return found[-1]
            assert time.monotonic() < deadline, (self._directory / f"{name}.log").read_text()
            time.sleep(0.02)

    def said(self, name: str, event: str = "", level: str = "") -> list[dict[str, Any]]:
        lines = (self._directory / f"{name}.log").read_text().splitlines()
        told = [json.loads(line) for line in lines]
        return [x for x in told if event in ("", x["event"]) and level in ("", x["level"])]

    def signal(self, *names: str, number: int = signal.SIGTERM) -> None:
        for name in names:
            self.processes[name].send_signal(number)

    def wait(self, *names: str, within: float = 40.0) -> list[int]:
        return [self.processes.pop(name).wait(within) for name in names]

    def stop(self, *names: str) -> list[int]:
        self.signal(*names)
        return self.wait(*names)

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


@pytest.fixture
def keepers(web: Any, tmp_path: Path) -> Iterator[Keepers]:
    """Members without a web application; none is left behind."""
    made = Keepers(web, tmp_path)
    try:
        yield made
    finally:
        made.close()


def fill(web: Any, name: str, count: int = 20) -> list[str]:
    """Sessions, each counted once; their cookies."""
    return [web.request(name, "POST", "/count").cookie for _ in range(count)]


def counts(web: Any, name: str, cookies: list[str]) -> list[int | None]:
    shown = [web.request(name, "GET", "/show", each).values["values"] for each in cookies]
    return [each.get("count") for each in shown]


def test_t41_keeper_that_stops_ends_no_session_and_has_its_receipts(web: Any, keepers: Any) -> None:
    """Status 0, no event of an end anywhere, and the others serve everything."""
    web.start("n1")
    keepers.start("k1")
    cookies = fill(web, "n1")
    assert keepers.stop("k1") == [0]
    [drained] = keepers.said("k1", "drained")
    assert drained["sessions"] == {"app": 20}
    assert keepers.said("k1", "session expired") == []
    assert keepers.said("k1", level="warning") == keepers.said("k1", level="error") == []
    assert web.facts("n1")["destroyed"] == 0
    assert counts(web, "n1", cookies) == [1] * 20
    assert [x["reason"] for x in web.logs("n1", "member removed")] == ["left"]


def test_node_that_hands_over_is_the_only_one_that_has_it(web: Any, keepers: Any) -> None:
    """A web node serves, stops, and a keeper has all of it for the web node that comes later."""
    web.start("n1")
    keepers.start("k1")
    cookies = fill(web, "n1", 200)
    assert web.stop("n1") == [0]
    web.start("n2")
    assert counts(web, "n2", cookies) == [1] * 200


def test_all_stop_together_and_their_snapshots_are_one_again(
    web: Any, keepers: Any, tmp_path: Path
) -> None:
    """Nobody waits; each saves; at the start all of it is there on every node, once."""
    pathname = str(tmp_path / "saved-{name}-{{context}}")
    for name in ("n1", "n2"):
        web.start(name, pathname=pathname.format(name=name))
    keepers.start("k1", TRIBES_MANAGER__PATHNAME=pathname.format(name="k1"))
    cookies = fill(web, "n1")
    for name in ("n1", "n2"):
        web.wait_members(name, "k1", "n1", "n2")
    begin = time.monotonic()
    keepers.signal("k1")
    assert web.stop("n1", "n2") == [0, 0]
    assert keepers.wait("k1") == [0]
    assert time.monotonic() - begin < 10
    saved = sorted(path.name for path in tmp_path.glob("saved-*"))
    assert "saved-n1-app" in saved or "saved-n2-app" in saved
    for name in ("n2", "n1"):
        web.start(name, pathname=pathname.format(name=name))
    web.wait_equal("n1", "n2")
    for name in ("n1", "n2"):
        assert counts(web, name, cookies) == [1] * 20
        assert web.facts(name)["live"] == 20
    for name in ("n1", "n2"):
        assert not (tmp_path / f"saved-{name}-app").exists()
    assert web.complaints() == []


def test_last_one_out_saves_for_all_and_a_keeper_brings_it_back(
    web: Any, keepers: Any, tmp_path: Path
) -> None:
    """The keeper knows no context of its own; the file's name tells it."""
    pathname = str(tmp_path / "{context}.saved")
    web.start("n1")
    keepers.start("k1", TRIBES_MANAGER__PATHNAME=pathname)
    cookies = fill(web, "n1")
    assert web.stop("n1") == [0]
    keepers.await_said("k1", "member removed")
    assert keepers.stop("k1") == [0]
    [said] = keepers.said("k1", "sessions saved")
    assert (said["sessions"], said["file"]) == (20, str(tmp_path / "app.saved"))
    keepers.start("k2", TRIBES_MANAGER__PATHNAME=pathname)
    assert keepers.said("k2", "saved sessions loaded")[0]["sessions"] == 20
    web.start("n2")
    assert counts(web, "n2", cookies) == [1] * 20


def test_without_pathname_the_log_says_that_sessions_end(web: Any, keepers: Any) -> None:
    """And how to keep them; the status is 0, as nothing was asked for."""
    web.start("n1")
    keepers.start("k1")
    fill(web, "n1", 3)
    assert web.stop("n1") == [0]
    keepers.await_said("k1", "member removed")
    assert keepers.stop("k1") == [0]
    [said] = keepers.said("k1", level="warning")
    assert said["event"] == "sessions end with the last member"
    assert (said["context"], said["sessions"]) == ("app", 3)
    assert "manager.pathname" in said["to_keep_them"]


def test_hung_member_is_named_with_what_it_lacks_and_the_status_is_3(
    web: Any, keepers: Any, tmp_path: Path
) -> None:
    """It is the only other one, and stays a member for longer than the drain may take."""
    web.start("n1")
    keepers.start("k1", TRIBES_DRAIN_TIMEOUT_S="1")
    cookies = fill(web, "n1")
    keepers.await_said("k1", "member added", member="n1")
    web.pause("n1")
    begin, watch = time.monotonic(), Stopwatch()
    assert keepers.stop("k1") == [STATUS_NOT_DRAINED]
    seconds = watch.seconds
    stood_still = time.monotonic() - begin - seconds
    assert seconds < 5
    [said] = keepers.said("k1", level="warning")
    assert said["event"] == "left without receipt"
    assert (said["context"], said["member"], said["sessions"]) == ("app", "n1", 20)
    assert "answer" in said["why"]
    assert 1 <= said["after_s"] < 2 + stood_still
    web.resume("n1")
    assert counts(web, "n1", cookies) == [1] * 20


def test_second_signal_ends_it_at_once(web: Any, keepers: Any) -> None:
    """Nobody waits 25 seconds for a member that hangs if he does not want to."""
    web.start("n1")
    keepers.start("k1")
    fill(web, "n1", 1)
    keepers.await_said("k1", "member added", member="n1")
    web.pause("n1")
    keepers.signal("k1")
    keepers.await_said("k1", "draining")
    time.sleep(0.2)
    keepers.signal("k1")
    assert keepers.wait("k1", within=5) == [STATUS_NOT_DRAINED]
    assert keepers.said("k1", "node leaves at once")
    web.resume("n1")


def test_directory_that_is_missing_is_an_error_with_status_3(
    web: Any, keepers: Any, tmp_path: Path
) -> None:
    """The sessions were to be kept, and are not."""
    web.start("n1", pathname=str(tmp_path / "missing" / "s"))
    fill(web, "n1", 2)
    assert web.stop("n1") == [STATUS_NOT_DRAINED]
    [said] = web.logs("n1", "sessions not saved")
    assert said["sessions"] == 2
    assert "missing" in said["error"]
