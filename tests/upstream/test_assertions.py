"""Everything that Tribes' own tests assert has a test here, and that test exists."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.upstream.assertions import ASSERTIONS, Assertion

TESTS = Path(__file__).resolve().parents[1]

UPSTREAM_CLASSES = (
    "TestXByteBuffer",
    "TestChannelData",
    "TestMemberImplSerialization",
    "TestMembership",
    "TestKubernetesJson",
    "TestGroupChannelStartStop",
    "TestGroupChannelOptionFlag",
    "TestGroupChannelMemberArrival",
    "TestGroupChannelSenderConnections",
    "TestDomainFilterInterceptor",
    "TestTcpFailureDetector",
    "TestOrderInterceptor",
    "TestGzipInterceptor",
    "TestEncryptInterceptor",
    "TestEncryptInterceptorLargeHeap",
    "TestEncryptInterceptorAlgorithms",
    "TestNonBlockingCoordinator",
    "TestDataIntegrity",
    "TestUdpPackages",
    "TestMulticastPackages",
    "TestRemoteProcessException",
    "TestChannelConfig",
)
"""The test classes of Tribes in Tomcat 10.1 that assert anything (tribes-wire §10)."""


@cache
def functions_of(file: str) -> frozenset[str]:
    """The test functions of a file."""
    tree = ast.parse((TESTS / file).read_text())
    return frozenset(
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")
    )


@pytest.mark.parametrize("entry", ASSERTIONS, ids=lambda each: f"{each.upstream}: {each.what}")
def test_the_tests_that_are_named_exist(entry: Assertion) -> None:
    """A renamed or deleted test is noticed here."""
    assert entry.tests
    for name in entry.tests:
        file, _, function = name.partition("::")
        assert function in functions_of(file), name


def test_no_upstream_class_is_left_out() -> None:
    """Each of them asserts something that is listed."""
    assert {entry.upstream for entry in ASSERTIONS} == set(UPSTREAM_CLASSES)


def test_every_test_of_this_folder_is_listed() -> None:
    """What is here is here for an assertion of theirs."""
    listed = {name for entry in ASSERTIONS for name in entry.tests}
    here = Path(__file__)
    files = [f"upstream/{path.name}" for path in here.parent.glob("test_*.py") if path != here]
    assert len(files) >= 3
    for file in files:
        assert {f"{file}::{name}" for name in functions_of(file)} <= listed
