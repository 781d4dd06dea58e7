"""Configured members are reported, asked again, and told of start and end."""

from __future__ import annotations

from typing import Any

import pytest

from tribes.errors import ConfigError
from tribes.interceptors import StaticMembershipInterceptor, TcpFailureDetector, TcpPingInterceptor
from tribes.interceptors.static import (
    START_MESSAGE,
    STOP_MESSAGE,
    adopt_local_member,
    parse_static_member,
)
from tribes.membership.change import ChangeKind, MemberChange, RemovalReason
from tribes.testing.stage import Stage, stage_member
from tribes.wire.member import SHUTDOWN_COMMAND, Member
from tribes.wire.probes import TCP_PING_PAYLOAD

A, B = stage_member(1), stage_member(2)


def detected(*members: Member, **settings: Any) -> Stage:
    """A detector above the static members: only who answers is a member."""
    stage = Stage(TcpFailureDetector(), StaticMembershipInterceptor(members=members, **settings))
    stage.start()
    return stage


def answer(stage: Stage, error: Exception | None) -> None:
    probes, stage.probes = stage.probes, []
    for _, reply in probes:
        reply(error, stage.now)


def test_configured_members_are_asked_and_told_of_the_start() -> None:
    """Each becomes a member once it answered, and gets the message that this one is there."""
    stage = detected(A, B)
    assert [member for member, _ in stage.probes] == [A, B]
    assert stage.sent == []
    answer(stage, None)
    assert stage.view.members == (A, B)
    assert [(s.destinations, s.data.message) for s in stage.sent] == [
        ((A,), START_MESSAGE),
        ((B,), START_MESSAGE),
    ]
    assert stage.sent[0].data.options == 0


def test_member_that_is_not_there_is_asked_again() -> None:
    """Every ``retry_interval`` until it answers; then no more."""
    stage = detected(A, retry_interval=500)
    answer(stage, ConnectionRefusedError())
    assert A not in stage.view
    stage.pass_time(0.5)
    assert len(stage.probes) == 1
    answer(stage, None)
    stage.pass_time(5)
    assert stage.probes == []
    assert stage.view.members == (A,)


def test_start_of_a_member_is_believed_at_once() -> None:
    """Its message makes it be asked without waiting for the next round."""
    stage = detected(A, retry_interval=60_000)
    answer(stage, ConnectionRefusedError())
    assert stage.arrive(START_MESSAGE, A, options=0) == []
    answer(stage, None)
    assert stage.view.members == (A,)
    stage.arrive(START_MESSAGE, A, options=0)
    assert stage.probes == []


def test_end_of_a_member_is_believed_at_once() -> None:
    """It is gone without a question, with the command of a farewell."""
    stage = detected(A)
    answer(stage, None)
    assert stage.arrive(STOP_MESSAGE, A, options=0) == []
    assert A not in stage.view
    change = stage.changes[-1]
    assert change.reason is RemovalReason.LEFT
    assert change.member == A


def test_end_carries_the_shutdown_command_upwards() -> None:
    """What stands above can tell a farewell by the record, as in the reference."""
    stage = Stage(StaticMembershipInterceptor(members=[A]))
    stage.start()
    stage.arrive(STOP_MESSAGE, A)
    assert stage.changes[-1].member.command == SHUTDOWN_COMMAND


def test_messages_of_strangers_are_dropped() -> None:
    """Whoever is not configured can neither join nor remove by them."""
    stage = detected(A)
    answer(stage, None)
    for text in (START_MESSAGE, STOP_MESSAGE):
        assert stage.arrive(text, B) == []
        # The address alone is not the member.
        assert stage.arrive(text, A.replace(unique_id=bytes(16))) == []
    assert stage.probes == []
    assert stage.view.members == (A,)


def test_other_members_and_messages_pass() -> None:
    """Static members stand beside those that announce themselves."""
    stage = detected(A)
    answer(stage, None)
    stage.add(B)
    answer(stage, None)
    assert stage.view.members == (A, B)
    assert stage.arrive(b"m", B) == [b"m"]


def test_all_members_are_told_of_the_end() -> None:
    """Those that announced themselves too; with options that nobody answers."""
    stage = detected(A, option_flag=0)
    answer(stage, None)
    stage.add(B)
    answer(stage, None)
    before = len(stage.sent)
    stage.stop()
    last = stage.sent[-1]
    assert len(stage.sent) == before + 1
    assert (last.destinations, last.data.message, last.data.options) == ((A, B), STOP_MESSAGE, 0)
    stage.pass_time(10)
    assert len(stage.sent) == before + 1


def test_own_record_in_the_list_is_left_out() -> None:
    """So all nodes may have the same list."""
    assert detected(stage_member(0), A).probes[0][0] == A


def test_own_record_takes_the_configured_id_and_domain() -> None:
    """The others know this member by them; another address is an error."""
    wanted = stage_member(0, domain=b"d").replace(unique_id=b"x" * 16)
    stack = [StaticMembershipInterceptor(local_member=wanted)]
    local = adopt_local_member(stage_member(0).replace(payload=b"p"), stack)
    assert (local.unique_id, local.domain, local.payload) == (b"x" * 16, b"d", b"p")
    assert adopt_local_member(A, [StaticMembershipInterceptor()]) is A
    with pytest.raises(ConfigError) as error:
        adopt_local_member(A, stack)
    assert error.value.key == "local_member"


FULL: dict[str, Any] = {"host": "10.0.0.1", "port": 4000, "uniqueId": "{" + "1," * 15 + "-1}"}


def test_member_tables_have_tomcats_names_or_ours() -> None:
    """Text or numbers, a host as address or as bytes; both spellings give one member."""
    wanted = Member(host=b"\x0a\x00\x00\x01", port=4000, unique_id=b"\x01" * 15 + b"\xff")
    assert parse_static_member(FULL) == wanted
    other = parse_static_member(
        {
            "className": "org.apache.catalina.tribes.membership.StaticMember",
            "host": "{10,0,0,1}",
            "port": "4000",
            "unique_id": [1] * 15 + [255],
            "securePort": "-1",
            "udp_port": 5000,
            "domain": "d",
        }
    )
    assert other == wanted
    assert (other.udp_port, other.secure_port, other.domain) == (5000, -1, b"d")
    named = parse_static_member(FULL | {"host": "db"}, resolve=lambda host: b"\x0a\x00\x00\x01")
    assert named == wanted


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"host": None}, "host"),
        ({"host": "no such host"}, "host"),
        ({"host": "{300}"}, "host"),
        ({"port": 0}, "port"),
        ({"port": "x"}, "port"),
        ({"port": 70000}, "port"),
        ({"uniqueId": "{1,2}"}, "unique_id"),
        ({"uniqueId": 5.0}, "unique_id"),
        ({"domain": "€"}, "domain"),
        ({"udpPort": -2}, "udp_port"),
        ({"hots": "x"}, "hots"),
    ],
)
def test_member_tables_that_cannot_be_used_are_refused(change: dict[str, Any], key: str) -> None:
    """The error names the field."""
    with pytest.raises(ConfigError) as error:
        parse_static_member(FULL | change)
    assert error.value.key == key


@pytest.mark.parametrize("name", ["host", "port", "uniqueId"])
def test_member_tables_need_three_fields(name: str) -> None:
    """A default for any of them would be a wrong member."""
    table = {key: value for key, value in FULL.items() if key != name}
    with pytest.raises(ConfigError, match="is missing"):
        parse_static_member(table)


def test_settings_that_cannot_work_are_refused() -> None:
    """The error names the setting."""
    with pytest.raises(ConfigError) as error:
        StaticMembershipInterceptor(retry_interval=0)
    assert error.value.key == "retry_interval"
    many = [A.replace(port=number) for number in range(1, 1002)]
    with pytest.raises(ConfigError):
        StaticMembershipInterceptor(members=many)


# ---- ping --------------------------------------------------------------------------------------


def test_ping_asks_the_detector_below() -> None:
    """No message is sent where members can be tested."""
    stage = Stage(TcpPingInterceptor(), TcpFailureDetector())
    stage.start()
    stage.add(A)
    answer(stage, None)
    stage.heartbeat()
    assert stage.doubted == [A]
    assert stage.sent == []


def test_ping_without_a_detector_sends_its_message() -> None:
    """To all members at each heartbeat; alone it sends nothing."""
    stage = Stage(TcpPingInterceptor(option_flag=64))
    stage.start()
    stage.heartbeat()
    assert stage.sent == []
    stage.add(A, B)
    stage.heartbeat()
    [sent] = stage.sent
    assert (sent.destinations, sent.data.message) == ((A, B), TCP_PING_PAYLOAD)
    assert sent.data.options == 64


def test_ping_with_a_time_of_its_own_leaves_heartbeats_alone() -> None:
    """Every ``interval``, until the channel stops."""
    stage = Stage(TcpPingInterceptor(use_thread=True, interval=200))
    stage.start()
    stage.add(A)
    stage.heartbeat()
    assert stage.sent == []
    stage.pass_time(1.0)
    assert len(stage.sent) == 5
    stage.stop()
    stage.pass_time(1.0)
    assert len(stage.sent) == 5


def test_ping_of_static_members_only() -> None:
    """Those that announce themselves have heartbeats."""
    stage = Stage(TcpPingInterceptor(static_only=True), StaticMembershipInterceptor(members=[A]))
    stage.start()
    stage.add(B)
    stage.sent.clear()
    stage.heartbeat()
    assert [sent.destinations for sent in stage.sent] == [(A,)]


def test_ping_of_others_is_dropped() -> None:
    """Where it asks for this interceptor; everything else passes."""
    stage = Stage(TcpPingInterceptor(option_flag=64))
    assert stage.arrive(TCP_PING_PAYLOAD, options=64) == []
    assert stage.arrive(TCP_PING_PAYLOAD, options=1) == [TCP_PING_PAYLOAD]
    assert stage.arrive(b"m", options=64) == [b"m"]
    with pytest.raises(ConfigError):
        TcpPingInterceptor(interval=0)


def test_static_member_found_by_multicast_too_is_one_member() -> None:
    """Both ways name the same record, and the view has it once."""
    stage = Stage(StaticMembershipInterceptor(members=[A]))
    stage.start()
    stage.chain.on_members(MemberChange(ChangeKind.ADDED, A), 0.0)
    assert stage.view.members == (A,)
    assert stage.view.number == 1
