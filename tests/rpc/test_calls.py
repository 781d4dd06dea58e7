"""When a call is over, and what it tells, over all orders of replies, refusals and losses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tribes.errors import NoRpcChannelError, SendTimeoutError
from tribes.rpc.calls import RpcCall, RpcMode, RpcResult
from tribes.wire.member import Member

MEMBERS = [
    Member(host=b"\x7f\x00\x00\x01", port=4000 + i, unique_id=bytes([i]) * 16) for i in range(6)
]
FATES = st.lists(st.sampled_from(["reply", "no channel", "lost", "silent"]), min_size=1, max_size=6)
WAITING = (RpcMode.FIRST_REPLY, RpcMode.MAJORITY_REPLY, RpcMode.ALL_REPLY)


def run(fates: list[str], mode: RpcMode) -> tuple[RpcResult, int]:
    """Let members do their part in order; the result, and how many came before the call ended."""
    results: list[RpcResult] = []
    members = MEMBERS[: len(fates)]
    call = RpcCall(b"id", members, mode, results.append)
    seen = 0
    for member, fate in zip(members, fates, strict=True):
        if call.is_over:
            break
        seen += 1
        if fate == "reply":
            call.reply(member, member.port)
        elif fate == "no channel":
            call.lose(member, NoRpcChannelError("none"))
        elif fate == "lost":
            call.lose(member, ConnectionError("gone"))
    call.end(lambda member: SendTimeoutError("late"))
    [result] = results
    return result, seen


@given(FATES, st.sampled_from(WAITING))
def test_every_member_is_told_of_once(fates: list[str], mode: RpcMode) -> None:
    """Each destination is among the replies or among the missing, never both, in order."""
    result, _ = run(fates, mode)
    replied = [reply.source for reply in result.replies]
    assert sorted([*replied, *result.missing], key=lambda m: m.port) == MEMBERS[: len(fates)]
    assert replied == sorted(replied, key=lambda m: m.port)


@given(FATES, st.sampled_from(WAITING))
def test_a_call_ends_when_its_mode_is_satisfied_and_not_before(
    fates: list[str], mode: RpcMode
) -> None:
    """First: one reply. Majority: half of those that have the channel. All: each of them."""
    result, seen = run(fates, mode)
    before = fates[:seen]
    replies = before.count("reply")
    expected = len(fates) - before.count("no channel")
    enough = {
        RpcMode.FIRST_REPLY: replies >= min(1, expected),
        RpcMode.MAJORITY_REPLY: replies >= expected / 2,
        RpcMode.ALL_REPLY: replies == expected,
    }[mode]
    assert result.is_complete == enough
    if seen < len(fates):
        assert enough
        shorter, _ = run([*before[:-1], *["silent"] * (len(fates) - seen + 1)], mode)
        assert not shorter.is_complete


def test_of_two_members_one_is_a_majority() -> None:
    """Tomcat compares with "at least half"."""
    result, seen = run(["reply", "silent"], RpcMode.MAJORITY_REPLY)
    assert (result.is_complete, seen) == (True, 1)


def test_nobody_with_the_channel_is_a_complete_answer() -> None:
    """When all say that they have no such channel, there is nobody to wait for."""
    for mode in WAITING:
        result, _ = run(["no channel", "no channel"], mode)
        assert result.is_complete
        assert not result.replies
