"""What sessions add to a request, under uvicorn and gunicorn, ours and others', in one run.

    python bench/web_cost.py                       # needs wrk, redis-server and flask-session
    python bench/web_cost.py --json web-cost.json --rounds 9

Each kind of session is a server process with one worker, all run at the same time, and each of
ours has one other member in a process of its own. Loads take turns, a second each, so a noisy
moment hits all: ``/none`` touches no session, ``/read`` reads a number out of a session of 1 kB,
``/write`` adds one to it. Two loads: one connection, which shows what a request takes; and eight
connections with eight sessions, which shows what a process can do. The client is wrk, on loopback.

A request's time is that of the clock, which others on the machine stretch, and processor time of
the server's processes, which they don't. Rows are medians of the rounds; ratios are to the same
framework without a session, of the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

import httpx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.ports import free_tcp_port, free_udp_port  # noqa: E402
from tests.servers.caches import cache_servers  # noqa: E402 - the path first
from tests.waiting import wait_until  # noqa: E402

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
CONNECTIONS = (1, 8)
START_S = 180.0
"""On a machine that does much else."""

SERVERS = {
    "starlette": "uvicorn web_cost_app:application --port PORT --no-access-log --log-level warning",
    "flask": "gunicorn --threads 8 --bind 127.0.0.1:PORT web_cost_app:application",
    "django": "gunicorn --threads 8 --bind 127.0.0.1:PORT web_cost_app:application",
}
OURS = ("ours 8", "ours 2", "ours 6")
KINDS = {
    "starlette": ("none", "cookie", *OURS),
    "flask": ("none", "cookie", "redis", *OURS),
    "django": ("none", "redis", *OURS),
}
NAMES = {
    "cookie": "the framework's cookie session",
    "redis": "on Redis",
    "ours 8": "ours, asynchronous (8)",
    "ours 2": "ours, received by the other (2)",
    "ours 6": "ours, applied by the other (6)",
}


def program(*names: str) -> str:
    """Where a program is; the tests' fixture does the same."""
    beside = Path(sys.executable).parent / names[0]
    if beside.exists():
        return str(beside)
    return next(path for each in names if (path := shutil.which(each)))


@dataclass
class Row:
    """One kind of request to one server.

    Attributes:
        wall_us: Of each round, microseconds per request.
        cpu_us: The same, processor time of the server.
    """

    framework: str
    sessions: str
    path: str
    connections: int
    wall_us: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)


class Server:
    """One framework with one kind of sessions, and where needed another member."""

    def __init__(self, framework: str, sessions: str, redis_port: int, log: TextIO) -> None:
        self.framework, self.sessions = framework, sessions
        self.port = free_tcp_port()
        self.cookies: list[str] = []
        environment = {
            **os.environ,
            "KIND": f"{framework}/{sessions}",
            "GROUP_PORT": str(free_udp_port()),
            "REDIS_PORT": str(redis_port),
            "PYTHONPATH": str(ROOT),
        }
        name, *arguments = SERVERS[framework].replace("PORT", str(self.port)).split()
        folder = Path(__file__).parent
        self.processes = [
            subprocess.Popen(
                [program(name), *arguments],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        ]
        if sessions.startswith("ours"):
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "web_cost_app.py"],
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                )
            )

    def wait_ready(self) -> None:
        """Until it answers and has its other member; then begin the sessions."""
        with httpx.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False) as http:

            def answers() -> bool:
                try:
                    return http.get("/none").status_code == 200
                except httpx.TransportError:
                    return False

            try:
                wait_until(answers, START_S)
            except AssertionError as why:
                why.add_note(f"{self.framework}/{self.sessions} does not answer")
                raise
            for _ in range(max(CONNECTIONS)):
                http.cookies.clear()
                if self.sessions != "none":
                    http.get("/write").raise_for_status()
                    sent = http.get("/write").raise_for_status()
                    assert sent.text == "2", "the session is not kept"
                self.cookies.append("; ".join(f"{k}={v}" for k, v in http.cookies.items()))
            if self.sessions.startswith("ours"):
                wait_until(lambda: http.get("/members").text == "1", START_S)

    def cpu_s(self) -> float:
        """Processor time of the server and its workers so far, without the other member's."""
        return sum(map(_cpu_s, _tree(self.processes[0].pid)))


def close(servers: Iterable[Server]) -> None:
    """End all: first what serves, then the other members, so that nobody is the last of a group."""
    made = list(servers)
    for which in (0, 1):
        ended = [process for server in made for process in server.processes[which : which + 1]]
        for process in ended:
            process.terminate()
        for process in ended:
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _tree(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += _tree(int(child))
    return found


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def load(server: Server, row: Row, folder: Path) -> None:
    """One round of one row."""
    cookies = server.cookies[: row.connections]
    script = folder / "cookies.lua"
    quoted = ", ".join(f"'{each}'" for each in cookies)
    script.write_text(
        f"local cookies = {{{quoted}}}\nlocal n = 0\n"
        "request = function()\n"
        "  n = n + 1\n"
        "  return wrk.format('GET', nil, {['Cookie'] = cookies[n % #cookies + 1]})\n"
        "end\n"
    )
    connections = str(row.connections)
    command = [program("wrk"), "-t1", "-c", connections, "-d1s", "-s", str(script)]
    before = server.cpu_s()
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{server.port}{row.path}"],
        capture_output=True,
        text=True,
        check=True,
    )
    cpu_s = server.cpu_s() - before
    told = re.search(r"(\d+) requests in ([\d.]+)(m?s)", done.stdout)
    assert told is not None, done.stdout
    assert "Non-2xx" not in done.stdout, done.stdout
    requests = int(told[1])
    seconds = float(told[2]) / (1000 if told[3] == "ms" else 1)
    row.wall_us.append(seconds / requests * 1e6)
    row.cpu_us.append(cpu_s / requests * 1e6)


def rows_of(framework: str, connections: int) -> list[Row]:
    """Without a session; each kind read, where that differs, and written."""
    rows = []
    for sessions in KINDS[framework]:
        paths = ["/none"] if sessions == "none" else ["/read", "/write"]
        if sessions in OURS[1:]:
            paths.remove("/read")  # as with 8
        rows += [Row(framework, sessions, path, connections) for path in paths]
    return rows


def measure(rounds: int) -> list[Row]:
    """All rows; each round goes through all of them."""
    rows = [row for n in CONNECTIONS for framework in KINDS for row in rows_of(framework, n)]
    servers: dict[tuple[str, str], Server] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        [redis] = stack.enter_context(cache_servers("redis", 1, program))
        log = stack.enter_context((folder / "log").open("w"))
        stack.callback(lambda: close(servers.values()))
        try:
            for framework, kinds in KINDS.items():
                for sessions in kinds:
                    server = Server(framework, sessions, redis.port, log)
                    servers[framework, sessions] = server
                    server.wait_ready()
            for number in range(-1, rounds):
                for row in rows:
                    load(servers[row.framework, row.sessions], row, folder)
                    if number < 0:  # to get warm
                        row.wall_us.clear()
                        row.cpu_us.clear()
                print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        except BaseException:
            lines = (folder / "log").read_text().splitlines()
            print(
                *[each for each in lines if "[INFO]" not in each][-40:], sep="\n", file=sys.stderr
            )
            raise
    return rows


def base_of(row: Row, rows: list[Row]) -> Row:
    """The same framework's request without a session."""
    return next(
        each
        for each in rows
        if (each.framework, each.connections) == (row.framework, row.connections)
        and each.sessions == "none"
    )


def summed(row: Row, rows: list[Row]) -> dict[str, object]:
    """What is told of a row."""
    base = base_of(row, rows)
    ratios = [one / other for one, other in zip(row.cpu_us, base.cpu_us, strict=True)]
    walls = [one / other for one, other in zip(row.wall_us, base.wall_us, strict=True)]
    more = [one - other for one, other in zip(row.cpu_us, base.cpu_us, strict=True)]
    return {
        "framework": row.framework,
        "sessions": row.sessions,
        "path": row.path,
        "connections": row.connections,
        "wall_us": statistics.median(row.wall_us),
        "cpu_us": statistics.median(row.cpu_us),
        "cpu_us_more": statistics.median(more),
        "cpu_ratio": statistics.median(ratios),
        "cpu_ratio_range": [min(ratios), max(ratios)],
        "wall_ratio": statistics.median(walls),
        "wall_ratio_range": [min(walls), max(walls)],
    }


def table(found: list[dict[str, object]]) -> str:
    """The rows in Markdown."""
    lines = [
        "| connections | request | µs | times | processor µs | more | times |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in found:
        what = f"{row['framework']}, no session"
        if row["sessions"] != "none":
            verb = "read" if row["path"] == "/read" else "write"
            what = f"{row['framework']}, {verb}: {NAMES[str(row['sessions'])]}"
        numbers = [
            f"{row['wall_us']:.0f}",
            f"{row['wall_ratio']:.2f} ({_range(row['wall_ratio_range'])})",
            f"{row['cpu_us']:.0f}",
            f"{row['cpu_us_more']:.0f}",
            f"{row['cpu_ratio']:.2f} ({_range(row['cpu_ratio_range'])})",
        ]
        lines.append(f"| {row['connections']} | {what} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def _range(found: object) -> str:
    assert isinstance(found, list)
    return f"{found[0]:.2f}-{found[1]:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="of one second per row")
    parser.add_argument("--json", type=Path, help="also write everything there")
    arguments = parser.parse_args()
    before, began = os.getloadavg(), time.strftime("%Y-%m-%d %H:%M")
    rows = measure(arguments.rounds)
    found = [summed(row, rows) for row in rows]
    packages = ("uvicorn", "gunicorn", "starlette", "flask", "django", "flask-session", "redis")
    about = {
        "began": began,
        "rounds": arguments.rounds,
        "load_before": before,
        "load_after": os.getloadavg(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "versions": {name: version(name) for name in packages},
    }
    print(table(found))
    print(json.dumps(about))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"about": about, "rows": found}, indent=1))


if __name__ == "__main__":
    main()
