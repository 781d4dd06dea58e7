"""Every attribute of a channel in Tomcat's file is known, and means by default what it does there.

The attributes and defaults are those of tribes-wire §9.1 to §9.7; §9.8, the interceptors, is in
tests/interceptors/test_registry.py.
"""

from __future__ import annotations

from typing import Final

import pytest

from tribes.config import read_config_bytes
from tribes.config.tomcat.attributes import Use
from tribes.config.tomcat.elements import TABLES

_PACKAGE: Final = "org.apache.catalina.tribes."
_SOCKET: Final = {
    "ooBInline": "true",
    "soReuseAddress": "true",
    "soLingerTime": "3",
    "soTrafficClass": "28",
    "tcpNoDelay": "true",
    "soKeepAlive": "false",
    "timeout": "3000",
}

ATTRIBUTES: Final[dict[str, dict[str, str | None]]] = {
    "SimpleTcpCluster": {
        "channelSendOptions": "8",
        "channelStartOptions": "15",
        "clusterName": None,
        "heartbeatBackgroundEnabled": "false",
        "notifyLifecycleListenerOnFailure": "false",
    },
    "GroupChannel": {
        "heartbeat": "true",
        "heartbeatSleeptime": "5000",
        "optionCheck": "false",
        "jmxEnabled": "true",
        "jmxDomain": "ClusterChannel",
        "jmxPrefix": "",
        "name": None,
        "optionFlag": "0",
    },
    "McastService": {
        "address": "228.0.0.4",
        "port": "45564",
        "frequency": "500",
        "dropTime": "3000",
        "mcastDropTime": "3000",
        "bind": None,
        "mcastBindAddress": None,
        "ttl": None,
        "domain": None,
        "soTimeout": None,
        "recoveryEnabled": "true",
        "recoveryCounter": "10",
        "recoverySleepTime": "5000",
        "localLoopbackDisabled": "false",
        "payload": None,
    },
    "StaticMembershipService": {
        "connectTimeout": "500",
        "expirationTime": "5000",
        "rpcTimeout": "3000",
        "useThread": "false",
        "pingInterval": "1000",
    },
    "CloudMembershipService": {
        "membershipProviderClassName": "kubernetes",
        "connectTimeout": "1000",
        "readTimeout": "1000",
        "expirationTime": "5000",
    },
    "NioReceiver": {
        "address": None,
        "host": None,
        "port": "4000",
        "autoBind": "100",
        "securePort": "-1",
        "udpPort": "-1",
        "selectorTimeout": "5000",
        "maxThreads": "15",
        "minThreads": "6",
        "maxIdleTime": "60000",
        "direct": "true",
        "rxBufSize": "65536",
        "txBufSize": "25188",
        "udpRxBufSize": "65536",
        "udpTxBufSize": "25188",
        "soLingerOn": "true",
        "useBufferPool": "true",
        "daemon": "true",
        "maxTasks": "100",
        "minTasks": "10",
        **_SOCKET,
    },
    "PooledParallelSender": {
        "poolSize": "25",
        "maxWait": "3000",
        "maxRetryAttempts": "1",
        "keepAliveCount": "-1",
        "keepAliveTime": "-1",
        "rxBufSize": "25188",
        "txBufSize": "65536",
        "udpRxBufSize": "25188",
        "udpTxBufSize": "65536",
        "directBuffer": "false",
        "soLingerOn": "false",
        "throwOnFailedAck": "true",
        "udpBased": "false",
        "udpPort": "-1",
        "port": "0",
        "address": None,
        **_SOCKET,
    },
}
"""By element, the attributes with Tomcat's defaults; None: it has none that can be written."""

OURS: Final = {
    # A kernel sizes its buffers by the connection; a number turns that off.
    "rxBufSize",
    "txBufSize",
    "udpRxBufSize",
    "udpTxBufSize",
    # A connection whose other end is gone without a word is noticed.
    "soKeepAlive",
    # Nothing is marked unless somebody asks for it.
    "soTrafficClass",
    # With more than one connection to a plain member, messages overtake each other.
    "poolSize",
}
"""What has another default here, on purpose; docs/configuration.md says which."""

FILES: Final = {
    "SimpleTcpCluster": "<Cluster {}/>",
    "GroupChannel": '<Cluster><Channel className="{c}group.GroupChannel" {}/></Cluster>',
    "McastService": '<Cluster><Channel className="{c}group.GroupChannel"><Membership className='
    '"{c}membership.McastService" {}/></Channel></Cluster>',
    "StaticMembershipService": '<Cluster><Channel className="{c}group.GroupChannel"><Membership '
    'className="{c}membership.StaticMembershipService" {}><Member className='
    '"{c}membership.StaticMember" host="127.0.0.1" port="4001"/></Membership></Channel></Cluster>',
    "CloudMembershipService": '<Cluster><Channel className="{c}group.GroupChannel"><Membership '
    'className="{c}membership.cloud.CloudMembershipService" {}/></Channel></Cluster>',
    "NioReceiver": '<Cluster><Channel className="{c}group.GroupChannel"><Receiver className='
    '"{c}transport.nio.NioReceiver" {}/></Channel></Cluster>',
    "PooledParallelSender": '<Cluster><Channel className="{c}group.GroupChannel"><Sender className='
    '"{c}transport.ReplicationTransmitter"><Transport className='
    '"{c}transport.nio.PooledParallelSender" {}/></Sender></Channel></Cluster>',
}


def known(owner: str, name: str) -> Use:
    """Tell what becomes of an attribute; an error where it is not known."""
    [found] = [each for each in TABLES[owner] if each.name == name]
    return found.use


def config_of(owner: str, attribute: str = "") -> object:
    """Read a file with one attribute of one element."""
    text = FILES[owner].replace("{c}", _PACKAGE).replace("{}", attribute)
    return read_config_bytes(text.encode()).config


def rows(*owners: str) -> list[tuple[str, str]]:
    return [(owner, name) for owner in owners for name in ATTRIBUTES[owner]]


def check(owner: str, name: str) -> None:
    """Written with Tomcat's default an attribute changes nothing, unless ours is another."""
    use = known(owner, name)
    default = ATTRIBUTES[owner][name]
    if default is not None and use in (Use.HONOURED, Use.MAPPED):
        is_the_same = config_of(owner, f'{name}="{default}"') == config_of(owner)
        assert is_the_same == (name not in OURS)


@pytest.mark.parametrize(("owner", "name"), rows("SimpleTcpCluster"))
def test_w91_attributes_of_the_cluster(owner: str, name: str) -> None:
    check(owner, name)


@pytest.mark.parametrize(("owner", "name"), rows("GroupChannel"))
def test_w92_attributes_of_the_channel(owner: str, name: str) -> None:
    check(owner, name)


@pytest.mark.parametrize(("owner", "name"), rows("McastService"))
def test_w93_attributes_of_multicast_membership(owner: str, name: str) -> None:
    check(owner, name)


@pytest.mark.parametrize(("owner", "name"), rows("StaticMembershipService"))
def test_w94_attributes_of_static_membership(owner: str, name: str) -> None:
    check(owner, name)


def test_w94_a_static_member_has_tomcats_attributes() -> None:
    names = {each.name for each in TABLES["StaticMember"]}
    assert {"host", "port", "securePort", "udpPort", "domain", "uniqueId"} <= names


@pytest.mark.parametrize(("owner", "name"), rows("CloudMembershipService"))
def test_w95_attributes_of_cloud_membership(owner: str, name: str) -> None:
    check(owner, name)


@pytest.mark.parametrize(("owner", "name"), rows("NioReceiver"))
def test_w96_attributes_of_the_receiver(owner: str, name: str) -> None:
    check(owner, name)


@pytest.mark.parametrize(("owner", "name"), rows("PooledParallelSender"))
def test_w97_attributes_of_the_sender(owner: str, name: str) -> None:
    check(owner, name)
