"""No test leaves a namespace behind, however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest


@pytest.mark.parametrize("ending", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_of_a_network(
    make_lan: Any, list_namespaces: Any, ending: type[BaseException]
) -> None:
    lan = make_lan("a", "b")
    assert len([name for name in list_namespaces() if name.startswith(lan.name + "-")]) == 4
    with pytest.raises(ending), lan.fault(lan.one_way("a", "b")):
        raise ending
    assert lan._table is False
    lan.close()
    assert not [name for name in list_namespaces() if name.startswith(lan.name + "-")]


def test_a_fault_that_nothing_meets_is_an_error(make_lan: Any) -> None:
    """Or a test of it would show what holds in a network that is well."""
    lan = make_lan("a", "b")
    with pytest.raises(AssertionError, match="nothing was lost"), lan.fault(lan.one_way("a", "x")):
        pass
    assert lan._table is False


def test_a_network_that_cannot_be_made_leaves_nothing(make_lan: Any, list_namespaces: Any) -> None:
    """An interface's name is too long: what was made before is removed."""

    def own() -> list[str]:  # other runs' come and go meanwhile
        return [name for name in list_namespaces() if name.startswith(f"tribes-{os.getpid()}-")]

    before = own()
    with pytest.raises(subprocess.CalledProcessError):
        make_lan("a", "a-name-that-is-too-long-for-linux")
    assert own() == before


def test_what_a_killed_run_left_is_swept(
    ip: str, list_namespaces: Any, sweep_namespaces: Any
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    theirs, ours = f"tribes-{gone.pid}-0-a", f"tribes-{os.getpid()}-sweep-a"
    for name in (theirs, ours):
        subprocess.run([ip, "netns", "add", name], check=True, timeout=10)
    try:
        sweep_namespaces()
        left = list_namespaces()
        assert theirs not in left
        assert ours in left
    finally:
        subprocess.run([ip, "netns", "del", ours], check=True, timeout=10)
