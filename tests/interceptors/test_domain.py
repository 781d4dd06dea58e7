"""Members and messages of other domains do not exist for those above."""

from __future__ import annotations

import pytest

from tribes.errors import ConfigError
from tribes.interceptors import DomainFilterInterceptor
from tribes.interceptors.domain import parse_domain
from tribes.interceptors.rules import check_stack
from tribes.membership.change import ChangeKind, MemberChange, RemovalReason
from tribes.testing.stage import Stage, stage_member

HERE, THERE = stage_member(1, domain=b"here"), stage_member(2, domain=b"there")


def test_members_of_other_domains_are_neither_added_nor_removed() -> None:
    """The view, and those above, see their own domain alone."""
    stage = Stage(DomainFilterInterceptor(domain="here"))
    stage.add(HERE, THERE)
    stage.remove(THERE)
    stage.remove(HERE)
    assert stage.changes == [
        MemberChange(ChangeKind.ADDED, HERE),
        MemberChange(ChangeKind.REMOVED, HERE, RemovalReason.SILENT),
    ]


def test_member_that_changes_its_domain_leaves_or_comes() -> None:
    """Tomcat never notices a change; here the record that is known counts."""
    stage = Stage(DomainFilterInterceptor(domain="here"))
    stage.add(HERE)
    stage.chain.on_members(MemberChange(ChangeKind.UPDATED, HERE.replace(payload=b"p")), 0)
    moved = HERE.replace(domain=b"there")
    stage.chain.on_members(MemberChange(ChangeKind.UPDATED, moved), 0)
    stage.chain.on_members(MemberChange(ChangeKind.UPDATED, HERE), 0)
    kinds = [change.kind for change in stage.changes]
    assert kinds == [ChangeKind.ADDED, ChangeKind.UPDATED, ChangeKind.REMOVED, ChangeKind.ADDED]


def test_messages_of_other_domains_are_dropped_and_told_now_and_then() -> None:
    """The first, and each ``log_interval``-th after it."""
    stage = Stage(DomainFilterInterceptor(domain="here", log_interval=10))
    for _ in range(25):
        assert stage.arrive(b"m", THERE) == []
    assert stage.arrive(b"m", HERE) == [b"m"]
    told = stage.told("messages of another domain dropped")
    assert [fields["dropped"] for fields in told] == [1, 11, 21]
    assert told[0]["domain"] == "there"


def test_every_drop_is_told_with_an_interval_of_one() -> None:
    """The smallest interval is no exception."""
    stage = Stage(DomainFilterInterceptor(log_interval=1))
    for _ in range(3):
        stage.arrive(b"m", THERE)
    assert len(stage.told("messages of another domain dropped")) == 3


def test_own_record_must_be_of_the_domain() -> None:
    """Else every other member of the domain would ignore this one; the error says where to
    write it.
    """
    stack = [DomainFilterInterceptor(domain="here")]
    with pytest.raises(ConfigError, match=r"channel\.membership\.domain") as error:
        check_stack(stack, local=stage_member(0))
    assert error.value.key == "channel.interceptors[0].domain"
    check_stack(stack, local=stage_member(0, domain=b"here"))


def test_domain_is_text_or_bytes() -> None:
    """Text is ISO-8859-1, braces hold bytes; either names the same domain."""
    assert parse_domain("é") == b"\xe9" == parse_domain("{-23}")
    assert DomainFilterInterceptor(domain=b"x").domain == DomainFilterInterceptor(domain="x").domain
    for text in ("{1,300}", "€"):
        with pytest.raises(ConfigError) as error:
            DomainFilterInterceptor(domain=text)
        assert error.value.key == "domain"
    with pytest.raises(ConfigError):
        DomainFilterInterceptor(log_interval=0)
