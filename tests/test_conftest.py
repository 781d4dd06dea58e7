"""The rules about skips, tried on small suites of their own."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).with_name("conftest.py")

SUITE = """
import pytest

def test_server(needs):
    needs("no-such-program", "nor-this-one")

def test_library():
    pytest.importorskip("no_such_library")

@pytest.mark.skipif(True, reason="not here: another system")
def test_platform():
    pass

@pytest.mark.xfail(reason="known")
def test_known():
    assert False

def test_present(needs):
    assert needs("no-such-program", "sh").endswith("/sh")
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.delenv("TRIBES_REQUIRE_SERVERS", raising=False)
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.makepyfile(test_suite=SUITE)
    return pytester


def test_a_missing_program_skips(suite: pytest.Pytester) -> None:
    result = suite.runpytest_subprocess("-rs")
    result.assert_outcomes(passed=1, skipped=3, xfailed=1)
    result.stdout.fnmatch_lines(["*no-such-program or nor-this-one is not installed*"])


def test_no_skip_where_servers_are_required(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIBES_REQUIRE_SERVERS", "1")
    result = suite.runpytest_subprocess()
    result.assert_outcomes(passed=1, failed=2, skipped=1, xfailed=1)


def test_no_skipped_module_where_servers_are_required(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite.makepyfile(test_module="import pytest; pytest.importorskip('no_such_library')")
    suite.runpytest_subprocess("test_module.py").assert_outcomes(skipped=1)
    monkeypatch.setenv("TRIBES_REQUIRE_SERVERS", "1")
    suite.runpytest_subprocess("test_module.py").assert_outcomes(errors=1)


ROWS = """
def ran_not(passed):
    return sorted({"test_rows.py::test_shown", "test_rows.py::test_renamed"} - set(passed))
"""


@pytest.mark.slow
def test_a_whole_run_fails_without_the_test_of_a_row(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a run of a part, nor one where something may be missing."""
    monkeypatch.setenv("TRIBES_REQUIRE_SERVERS", "1")
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.makeini("[pytest]\ntestpaths = .")
    pytester.makepyfile(test_rows="def test_shown(): pass")
    pytester.makepyfile(**{"tests/__init__": "", "tests/features/__init__": ""})
    pytester.makepyfile(**{"tests/features/rows": ROWS})
    result = pytester.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*did not run:", "  test_rows.py::test_renamed"])
    result.stdout.no_fnmatch_line("  test_rows.py::test_shown")
    assert pytester.runpytest_subprocess("-k", "shown").ret == 0
    monkeypatch.delenv("TRIBES_REQUIRE_SERVERS")
    assert pytester.runpytest_subprocess().ret == 0


def test_what_tests_start_hears_ctrl_c_also_in_the_background(pytester: pytest.Pytester) -> None:
    """A shell has its background jobs ignore it, and so it stays in all that they start."""
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.makepyfile(
        """
        import signal, subprocess, sys

        def test_child():
            say = "import signal; print(signal.getsignal(signal.SIGINT).__name__)"
            said = subprocess.check_output([sys.executable, "-c", say], text=True)
            assert said.strip() == "default_int_handler"
        """
    )
    command = shlex.join([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"])
    done = subprocess.run(
        ["sh", "-c", f"trap '' INT; {command}"],
        cwd=pytester.path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
