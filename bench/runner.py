"""Runs rows: starts the contenders, lets them take turns, and collects what they come to."""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import click
import trustme

from bench.outcomes import Case, Goal, Outcome, Sample
from bench.processes import Child, Team, cpu_of
from tests.ports import free_tcp_port, free_udp_port
from tests.servers.caches import CacheServer
from tests.servers.tomcat_jars import compile_beside, missing_jars

__all__ = ["FULL", "QUICK", "Bench", "Measure", "MissingError", "Row", "Size"]

Measure = Callable[[], Sample]
Store = Literal["redis", "memcached"]

JAVA_HEAP_MIB = 1024


class MissingError(Exception):
    """A peer is not installed here."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything.

    Attributes:
        runs: Of each contender, in turns.
        seconds: Of one run, of a row's first case.
        brief_s: Of one run of its other cases.
        warm_s: Of each contender before the first run; a JVM compiles meanwhile.
        sessions: Where many are moved or held.
        trials: Of what happens once in a while.
        only_main: Only a row's first case, which is its figure.
        is_quick: Once and tiny, to see that everything works.
    """

    runs: int
    seconds: float
    brief_s: float
    warm_s: float
    sessions: int
    trials: int
    only_main: bool = False
    is_quick: bool = False


FULL = Size(runs=5, seconds=1.0, brief_s=0.4, warm_s=2.0, sessions=50_000, trials=30)
QUICK = Size(
    runs=1,
    seconds=0.05,
    brief_s=0.05,
    warm_s=0,
    sessions=200,
    trials=1,
    only_main=True,
    is_quick=True,
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what is measured, in which unit, and what is to be reached."""

    name: str
    title: str
    unit: str
    goal: Goal
    measure: Callable[[Bench, Outcome], None]


class Bench:
    """Contenders that live as long as a row, or, when quick, as long as all rows."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self._stack = ExitStack()
        self._teams: dict[str, Team] = {}
        self._stores: dict[str, CacheServer] = {}
        self._numbers = itertools.count()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.release(whole=True)
        self._stack.close()

    def release(self, *, whole: bool = False) -> None:
        """End what was started, unless the next row may use it."""
        if self.size.is_quick and not whole:
            return
        for team in self._teams.values():
            team.end()
        for store in self._stores.values():
            store.kill()
        self._teams.clear()
        self._stores.clear()

    # ---- contenders ----------------------------------------------------------------------------

    def team(self, kind: str, nodes: int = 2, **settings: Any) -> Team:
        """A group of ours (``ours``) or of Tomcat's (``tribes``), the same one for equal settings.

        Raises:
            MissingError: It cannot run here.
        """
        key = f"{kind} {nodes} {sorted(settings.items())}"
        if key not in self._teams:
            self._teams[key] = self.fresh_team(kind, nodes, **settings)
        return self._teams[key]

    def fresh_team(self, kind: str, nodes: int = 2, **settings: Any) -> Team:
        """Such a group of its own; who asks for it ends it."""
        group = free_udp_port()
        children: list[Child] = []
        try:
            # A DeltaManager that asks another for its sessions while that one is itself starting
            # waits for a minute, so Tomcats start one after the other.
            waits = kind == "tribes" and settings.get("manager", "none") != "none"
            for _ in range(nodes):
                child = self.member(kind, group, waits=waits, **settings)
                children.append(child)
            for child in () if waits else children:
                child.await_start()
            team = Team(children)
        except BaseException:
            for child in children:
                child.end()
            raise
        team.group = group
        return team

    def helper(self, module: str, *arguments: object) -> Team:
        """A process of a module of this package, the same one for equal arguments."""
        key = f"{module} {arguments}"
        if key not in self._teams:
            command = [sys.executable, "-m", f"bench.{module}", *map(str, arguments)]
            self._teams[key] = Team([Child(command)], of_members=False)
        return self._teams[key]

    def floor(self) -> Team:
        """Plain sockets: a client's and a server's process."""
        if "floor" not in self._teams:
            server = Child([sys.executable, "-m", "bench.floor", "--server"])
            port = str(server.started["port"])
            client = Child([sys.executable, "-m", "bench.floor", "--client", port])
            self._teams["floor"] = Team([client, server], of_members=False)
        return self._teams["floor"]

    def raft(self, nodes: int = 2) -> Team:
        """A group of PySyncObj, its leader first.

        Raises:
            MissingError: PySyncObj is not installed.
        """
        key = f"raft {nodes}"
        if key not in self._teams:
            if find_spec("pysyncobj") is None:
                raise MissingError("pysyncobj is not installed")
            ports = [free_tcp_port() for _ in range(nodes)]
            module = [sys.executable, "-m", "bench.raft"]
            orders = [[port, *(each for each in ports if each != port)] for port in ports]
            team = Team([Child([*module, *map(str, order)]) for order in orders])
            team.await_role(lambda child: bool(child.ask("role")["leads"]))
            self._teams[key] = team
        return self._teams[key]

    def member(
        self, kind: str, group: int, *, name: str = "", waits: bool = True, **settings: Any
    ) -> Child:
        """One member's process; who asks for it ends it."""
        label = name or f"{kind[0]}{next(self._numbers)}"
        flags = [f"--{key}" for key, value in settings.items() if value is True]
        pairs = [
            part
            for key, value in settings.items()
            if not isinstance(value, bool)
            for part in (f"--{key}", str(value))
        ]
        common = ["--group", str(group), "--name", label, *pairs]
        if kind == "ours":
            return Child([sys.executable, "-m", "bench.member", *common, *flags], waits=waits)
        place = self.folder / label
        place.mkdir(exist_ok=True)
        command = [*self.java(), "BenchMember", *common, "--folder", str(place)]
        return Child(command, waits=waits)

    def java(self) -> list[str]:
        """The command that runs a class of ours beside Tomcat's.

        Raises:
            MissingError: Java or Tomcat's jars are not installed.
        """
        return _java(self.folder)

    def store(self, kind: Store, number: int = 0) -> CacheServer:
        """A server of its own.

        Raises:
            MissingError: It is not installed.
        """
        key = f"{kind} {number}"
        if key not in self._stores:
            server = CacheServer(kind, _program, self.folder)
            server.quiet()
            server.start()
            self._stores[key] = server
        return self._stores[key]

    def store_team(self, kind: Store) -> Team:
        """A client's process with its server, whose processor time counts too."""
        server = self.store(kind)
        team = self.helper("store_client", kind, server.port)
        pid = server.pid
        assert pid is not None
        return WithServer(team, pid)

    def certificates(self) -> Path:
        """A folder with ``ca.pem`` and ``member.pem``."""
        folder = self.folder / "certificates"
        if not folder.exists():
            folder.mkdir()
            authority = trustme.CA()
            authority.cert_pem.write_to_path(str(folder / "ca.pem"))
            member = folder / "member.pem"
            member.touch(0o600)
            issued = authority.issue_cert("127.0.0.1")
            issued.private_key_and_cert_chain_pem.write_to_path(str(member))
        return folder

    # ---- turns ---------------------------------------------------------------------------------

    def compare(
        self,
        outcome: Outcome,
        name: str,
        contenders: Mapping[str, Measure | str],
        *,
        unit: str = "",
        runs: int = 0,
        warm: bool = True,
    ) -> None:
        """Measure one case: warm up, then run in turns.

        Args:
            outcome: Gets the case.
            name: Of the case.
            contenders: What makes one run, or why there is none.
            unit: If it is not the row's.
            runs: If they are not as many as the size says.
            warm: Whether a first run is made and forgotten.
        """
        case = Case(name, unit or outcome.unit)
        present: dict[str, Measure] = {}
        for who, measure in contenders.items():
            case.of(who)
            if isinstance(measure, str):
                case.of(who).absent = measure
                continue
            try:
                if warm and not self.size.is_quick:
                    # Later cases run in the same processes, which are warm by half.
                    self._warm_up(measure, self.size.warm_s / (2 if outcome.cases else 1))
                present[who] = measure
            except MissingError as error:
                case.of(who).absent = str(error)
        turns = runs or self.size.runs
        # Where nobody watches it is one line a case.
        with click.progressbar(
            length=turns * len(present), label=f"{outcome.row}: {name}", file=sys.stderr
        ) as bar:
            for _ in range(turns):
                for who, measure in list(present.items()):
                    try:
                        case.of(who).samples.append(measure())
                    except MissingError as error:
                        case.of(who).absent = str(error)
                        del present[who]
                    bar.update(1)
        outcome.cases.append(case)

    def _warm_up(self, measure: Measure, seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            measure()

    def seconds(self, outcome: Outcome) -> float:
        """Of a run: long for the first case."""
        return self.size.brief_s if outcome.cases else self.size.seconds

    def rate(self, team: Team, work: Callable[[], tuple[float, float]]) -> Sample:
        """How often per second, with the processor time of all its processes.

        Args:
            team: Whose.
            work: Returns how many, in how many seconds.
        """
        before = team.cpu_s()
        count, seconds = work()
        return Sample(count / seconds, count, team.cpu_s() - before)


class WithServer(Team):
    """A client, and the server that it needs."""

    def __init__(self, team: Team, pid: int) -> None:
        super().__init__(team.children, of_members=False)
        self._server = pid

    def cpu_s(self) -> float:
        return super().cpu_s() + cpu_of(self._server)


def _program(*names: str) -> str:
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        raise MissingError(f"{names[0]} is not installed")
    return found


@cache
def _java(folder: Path) -> list[str]:
    if missing := [
        *missing_jars(),
        *(each for each in ("java", "javac") if not shutil.which(each)),
    ]:
        raise MissingError(f"{', '.join(missing)} is not installed")
    target = folder / "classes"
    target.mkdir()
    sources = Path(__file__).parent / "java"
    heap = [f"-Xmx{JAVA_HEAP_MIB}m"]
    return compile_beside(sources, target, _program("javac"), _program("java"), heap)


def measure_row(bench: Bench, row: Row) -> Outcome:
    """Everything of one row."""
    outcome = Outcome(row.name, row.title, row.unit, row.goal, bench.size.runs)
    try:
        row.measure(bench, outcome)
    finally:
        bench.release()
    return outcome
