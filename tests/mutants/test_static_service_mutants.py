"""Broken builds of the static membership service and the Java reader, which tests must notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.rpc import test_static_service as service
from tests.testing.test_vectors import test_every_vector_of_the_projects_copy_passes as vectors
from tests.wire import test_map_message as messages
from tribes.rpc.static_service import StaticService
from tribes.wire import map_message
from tribes.wire import rpc as wire_rpc
from tribes.wire.member_message import MemberMessageKind

MUTANTS: list[tuple[str, Any, str, Any, Callable[[], None]]] = [
    (
        "who speaks for another is believed",
        StaticService,
        "_check",
        lambda *_: None,
        service.test_nobody_can_say_stop_for_another,
    ),
    (
        "a stop is not heard",
        StaticService,
        "consume",
        lambda *_: False,
        service.test_a_member_that_says_stop_has_left,
    ),
    (
        "nobody is told of the own stop",
        StaticService,
        "stop",
        lambda *_: None,
        service.test_the_node_says_stop_when_it_leaves,
    ),
    (
        "questions are not answered",
        StaticService,
        "handle",
        lambda *_: None,
        lambda: service.test_a_question_is_answered_and_its_asker_is_a_member(
            MemberMessageKind.PING
        ),
    ),
    (
        "references in a request count from the beginning",
        wire_rpc,
        "_HANDLES",
        0,
        messages.test_the_rpc_body_of_a_map_counts_references_behind_the_envelope,
    ),
    (
        "references begin elsewhere",
        map_message,
        "FIRST_HANDLE",
        0x7E0001,
        vectors,
    ),
]


@pytest.mark.parametrize(
    ("owner", "name", "broken", "check"),
    [mutant[1:] for mutant in MUTANTS],
    ids=[mutant[0] for mutant in MUTANTS],
)
def test_a_broken_build_is_noticed(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, broken: Any, check: Callable[[], None]
) -> None:
    """The check, which passes with the sound build in its own file, fails with the broken one."""
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises((AssertionError, ValueError)):
        check()
