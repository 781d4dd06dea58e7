"""Broken RPC is noticed: each mutant breaks one rule, and the named test of the rule fails.

These are not drawn plans as the other mutants: calls are no part of the simulator's workload.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.mutants.registry import nothing
from tests.sim import test_rpc as rpc
from tribes.rpc.calls import RpcCall, RpcMode
from tribes.rpc.core import RpcCore

MUTANTS: list[tuple[str, Any, str, Any, Callable[[], None]]] = [
    (
        "left members are waited for",
        RpcCore,
        "on_members",
        nothing,
        rpc.test_a_leave_ends_the_wait_for_that_member,
    ),
    (
        "suspected members are waited for",
        RpcCore,
        "suspicion",
        nothing,
        lambda: rpc.test_nobody_waits_for_a_suspected_member(has_request=True),
    ),
    (
        "refusals are ignored",
        RpcCore,
        "_refused",
        nothing,
        rpc.test_a_member_without_the_channel_says_so_at_once,
    ),
    (
        "a missing channel says nothing",
        RpcCore,
        "_requested",
        nothing,
        lambda: rpc.test_a_tomcat_backup_managers_ping_is_answered_at_once(own_link=False),
    ),
    (
        "a request for sessions says nothing",
        RpcCore,
        "_sessions_requested",
        nothing,
        lambda: rpc.test_a_tomcat_delta_managers_request_for_sessions_is_answered_at_once(
            own_link=False
        ),
    ),
    (
        "calls outlive the channel",
        RpcCore,
        "stop",
        nothing,
        rpc.test_stopping_the_caller_ends_its_calls,
    ),
    (
        "a majority is more than half",
        RpcCall,
        "_is_enough",
        property(
            lambda self: (
                len(self._replies) > len(self._pending) + len(self._missing)
                or (self._mode is RpcMode.FIRST_REPLY and bool(self._replies))
            )
        ),
        rpc.test_half_of_the_members_are_a_majority,
    ),
    (
        "anybody may reply",
        RpcCall,
        "waits_for",
        lambda self, member: bool(self._pending.setdefault(member, None) or True),
        rpc.test_one_member_counts_once,
    ),
    (
        "stray replies are refused",
        RpcCore,
        "_replied",
        lambda self, source, envelope: bool(self._requested(source, envelope, 0.0) or True),
        rpc.test_a_refusal_and_a_stray_reply_are_never_answered,
    ),
]


@pytest.mark.parametrize(
    ("owner", "name", "broken", "check"), [m[1:] for m in MUTANTS], ids=[m[0] for m in MUTANTS]
)
def test_a_broken_build_is_noticed(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, broken: Any, check: Callable[[], None]
) -> None:
    """The check passes with the sound build and fails with the broken one."""
    check()
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(AssertionError):
        check()
