"""The tables of attributes fit the model, the interceptors, and the guide."""

from __future__ import annotations

import itertools
import re
from typing import get_type_hints

import pytest

from tests.config.write_guide import GUIDE, written
from tribes.config.explain import keys, keys_table
from tribes.config.model import MembershipConfig, NodeConfig, StaticMemberConfig
from tribes.config.tomcat import Attribute, Use, every_attribute
from tribes.config.tomcat.elements import CHILDREN, CLASS_NOTES, CLASSES, TABLES
from tribes.config.tomcat.interceptor_tables import INTERCEPTOR_TABLES
from tribes.config.tomcat.values import read_value
from tribes.interceptors.registry import INTERCEPTORS, attributes_of

SPECIAL = {"contexts", "channel.membership"}


@pytest.mark.parametrize(("owner", "each"), every_attribute(), ids=lambda v: getattr(v, "name", v))
def test_every_attribute_has_a_key_or_a_reason(owner: str, each: Attribute) -> None:
    """None is dropped in silence, and each key exists."""
    assert each.meaning
    assert each.default
    has_key = each.use in (Use.HONOURED, Use.MAPPED)
    assert bool(each.key) == has_key
    assert bool(each.reason) == (each.use is not Use.HONOURED)
    if owner in INTERCEPTOR_TABLES:
        assert not has_key or each.key in attributes_of(INTERCEPTORS[owner])
    elif owner == "StaticMember":
        assert each.key in StaticMemberConfig.__struct_fields__
    elif has_key:
        known = {key for key, _, _ in keys()}
        assert each.key in known or each.key in SPECIAL


@pytest.mark.parametrize(("owner", "each"), every_attribute(), ids=lambda v: getattr(v, "name", v))
def test_defaults_of_numbers_can_be_read(owner: str, each: Attribute) -> None:
    """The kind of an attribute fits its default."""
    del owner
    if each.kind in ("int", "bool", "ports", "ticks", "options") and re.match(
        r"-?\d", each.default
    ):
        read_value(each.kind, each.default)


def test_no_attribute_is_there_twice() -> None:
    """In one class."""
    for owner, table in TABLES.items():
        names = [each.name for each in table]
        assert len(names) == len(set(names)), owner


def test_all_interceptors_are_there() -> None:
    """Those that can be made are those that can be named in XML."""
    assert set(INTERCEPTOR_TABLES) == set(INTERCEPTORS)


def test_elements_classes_and_tables_know_each_other() -> None:
    """Each element's classes have a table, and each table an element."""
    named = set(itertools.chain.from_iterable(CHILDREN.values()))
    with_class = named - {"Service", "MembershipListener", "ChannelListener"}
    assert with_class == set(CLASSES)
    owners = {owner for classes in CLASSES.values() for owner in classes.values()}
    assert owners == set(TABLES)
    assert set(CLASS_NOTES) <= owners | {"MembershipListener", "ChannelListener"}


def test_attributes_of_the_manual_are_all_there() -> None:
    """All of the interceptors (tribes-wire §9.8), and a few of each other table of the manual, so
    that none of the tables is forgotten; test_tribes_attributes.py has the channel's.
    """
    for owner, names in {
        "MessageDispatchInterceptor": "optionFlag alwaysSend maxQueueSize maxThreads "
        "maxSpareThreads keepAliveTime useDeepClone",
        "TcpFailureDetector": "optionFlag connectTimeout performSendTest performReadTest "
        "readTestTimeout removeSuspectsTimeout",
        "TcpPingInterceptor": "optionFlag interval useThread staticOnly",
        "DomainFilterInterceptor": "optionFlag domain logInterval",
        "FragmentationInterceptor": "optionFlag maxSize expire",
        "GzipInterceptor": "optionFlag compressionMinSize statsEnabled interval",
        "OrderInterceptor": "optionFlag expire forwardExpired maxQueue",
        "EncryptInterceptor": "optionFlag encryptionAlgorithm encryptionKey encryptionKeyString "
        "replayWindowTime replayWindowMessageCount providerName",
        "TwoPhaseCommitInterceptor": "optionFlag expire deepclone",
        "ThroughputInterceptor": "optionFlag interval",
        "StaticMembershipInterceptor": "optionFlag",
        "NonBlockingCoordinator": "optionFlag",
        "SimpleCoordinator": "optionFlag",
        "DeltaManager": "stateTransferTimeout sendAllSessions stateTimestampDrop maxActiveSessions",
        "BackupManager": "mapSendOptions rpcTimeout terminateOnStartFailure",
        "FarmWarDeployer": "tempDir deployDir watchDir watchEnabled maxValidTime",
        "MemcachedBackupSessionManager": "memcachedNodes sticky lockingMode",
        "ReplicationValve": "filter primaryIndicator statistics",
    }.items():
        assert set(names.split()) - {each.name for each in TABLES[owner]} == set(), owner


def test_the_guide_shows_the_tables() -> None:
    """They are generated: `python -m tests.config.write_guide` brings them up to date."""
    text = GUIDE.read_text()
    assert keys_table() in text
    assert written(text) == text


def test_every_key_is_in_the_guide() -> None:
    """Also those of a table that is not there unless it is written."""
    for name in get_type_hints(MembershipConfig):
        assert f"`channel.membership.{name}" in keys_table()
    for name in NodeConfig.__struct_fields__:
        assert re.search(rf"`{name}[`.]", keys_table())
