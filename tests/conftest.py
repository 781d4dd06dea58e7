"""What holds for every test: which skips are allowed, and hypothesis's profiles.

A test that needs another program asks for it with the fixture ``needs`` and is skipped on a machine
without it. CI has every program, so it sets ``TRIBES_REQUIRE_SERVERS=1``: then a skip, however it
came about, is a failure. The exception is a reason that starts with ``not here:``, for what cannot
be had by installing a program: another operating system, a git checkout.
"""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING, Protocol

import pytest
import structlog
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Generator

# Neither profile has a deadline: the first run of an example pays for imports, and a busy machine
# is not a bug. In CI the same commit must always try the same examples.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# structlog's own choice lays a traceback out with rich, in the thread of a node, for up to seconds.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        ),
    ]
)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A script's background job ignores it, and so would every process that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Needs(Protocol):
    """The type of the fixture ``needs``."""

    def __call__(self, *programs: str) -> str: ...


@pytest.fixture(scope="session")
def needs() -> Needs:
    """Return the path of the first of ``programs`` that is installed, or skip the test."""

    def find(*programs: str) -> str:
        for program in programs:
            if path := shutil.which(program):
                return path
        pytest.skip(f"{' or '.join(programs)} is not installed")

    return find


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Refuse a test's skip where nothing may be missing."""
    report = yield
    refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Refuse a whole module's skip where nothing may be missing."""
    report = yield
    refuse_skip(report)
    return report


def must_have_servers() -> bool:
    """Tell whether ``TRIBES_REQUIRE_SERVERS`` is set."""
    return os.environ.get("TRIBES_REQUIRE_SERVERS", "0") not in ("", "0")


def refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure if ``TRIBES_REQUIRE_SERVERS`` says so."""
    if not must_have_servers():
        return
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith("not here:"):
        report.outcome = "failed"
        report.longrepr = f"skipped although TRIBES_REQUIRE_SERVERS is set: {reason}"


_passed: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what passed, on whichever worker."""
    if report.when == "call" and report.passed:
        _passed.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run of the whole suite in which a row's test did not run (docs/features.md)."""
    config = session.config
    is_worker = hasattr(config, "workerinput")
    is_whole = (
        config.args_source is pytest.Config.ArgsSource.TESTPATHS
        and not config.option.keyword
        and not config.option.markexpr
    )
    if is_worker or not is_whole or not must_have_servers() or exitstatus != pytest.ExitCode.OK:
        return
    from tests.features.rows import ran_not  # not where a test runs this file elsewhere

    if missing := ran_not(_passed):
        print("\nTests that docs/features.md names did not run:", *missing, sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
