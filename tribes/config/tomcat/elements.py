"""Which elements there are, what may stand in them, and which classes they may have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tribes.config.notices import Kind
from tribes.config.tomcat.channel_tables import CHANNEL_TABLES
from tribes.config.tomcat.interceptor_tables import INTERCEPTOR_TABLES
from tribes.config.tomcat.neighbour_tables import NEIGHBOUR_NOTES
from tribes.config.tomcat.session_tables import SESSION_TABLES

if TYPE_CHECKING:
    from tribes.config.tomcat.attributes import Attribute, Table

__all__ = [
    "CHILDREN",
    "CLASSES",
    "CLASS_NOTES",
    "DEFAULT_CLASSES",
    "NEIGHBOURS",
    "ROOTS",
    "SINGLE",
    "TABLES",
    "every_attribute",
]

TABLES: Final[dict[str, Table]] = {**SESSION_TABLES, **CHANNEL_TABLES, **INTERCEPTOR_TABLES}
"""Attributes by the short name of the class."""

_MEMBERS: Final = ("LocalMember", "Member")

CHILDREN: Final[dict[str, tuple[str, ...]]] = {
    "Server": ("Service", "Listener"),
    "Service": ("Engine",),
    "Engine": ("Cluster", "Host", "Valve", "Listener"),
    "Host": ("Cluster", "Context", "Valve", "Listener"),
    "Context": ("Manager", "Valve", "Listener"),
    "Cluster": ("Manager", "Channel", "Valve", "Deployer", "ClusterListener"),
    "Manager": ("Store", "SessionIdGenerator"),
    "Channel": (
        "Membership",
        "Sender",
        "Receiver",
        "Interceptor",
        "MembershipListener",
        "ChannelListener",
    ),
    "Membership": _MEMBERS,
    "Sender": ("Transport",),
    "Interceptor": _MEMBERS,
}
"""What may stand in an element."""

ROOTS: Final = frozenset(CHILDREN)
"""What a document may be: a whole ``server.xml``, or a part of it."""

SINGLE: Final = frozenset(
    [
        "Channel",
        "Membership",
        "Sender",
        "Receiver",
        "Transport",
        "Manager",
        "Store",
        "SessionIdGenerator",
        "Deployer",
        "LocalMember",
        "Engine",
    ]
)
"""What may stand once only in the element around it."""

NEIGHBOURS: Final = frozenset(
    [
        "Alias",
        "CatalinaCluster",
        "Certificate",
        "Connector",
        "CookieProcessor",
        "Credentials",
        "Ejb",
        "Environment",
        "Executor",
        "GlobalNamingResources",
        "InstanceListener",
        "JarScanFilter",
        "JarScanner",
        "JarResources",
        "LifecycleListener",
        "Listener",
        "Loader",
        "LocalEjb",
        "OpenSSLConf",
        "OpenSSLConfCmd",
        "Parameter",
        "PostResources",
        "PreResources",
        "Realm",
        "Resource",
        "ResourceEnvRef",
        "ResourceLink",
        "Resources",
        "SSLHostConfig",
        "Transaction",
        "UpgradeProtocol",
        "WatchedResource",
        "WrapperLifecycle",
        "WrapperListener",
    ]
)
"""Elements of a ``server.xml`` or ``context.xml`` that have nothing to do with sessions."""

_BESIDE: Final = ("LoadBalancerDrainingValve", "CrawlerSessionManagerValve")
_HA: Final = "org.apache.catalina.ha."
_TRIBES: Final = "org.apache.catalina.tribes."
_SESSION: Final = "org.apache.catalina.session."

CLASSES: Final[dict[str, dict[str, str]]] = {
    "Cluster": {f"{_HA}tcp.SimpleTcpCluster": "SimpleTcpCluster"},
    "Manager": {
        f"{_HA}session.DeltaManager": "DeltaManager",
        f"{_HA}session.BackupManager": "BackupManager",
        f"{_SESSION}StandardManager": "StandardManager",
        f"{_SESSION}PersistentManager": "PersistentManager",
        "de.javakaffee.web.msm.MemcachedBackupSessionManager": "MemcachedBackupSessionManager",
    },
    "Store": {f"{_SESSION}{name}": name for name in ("FileStore", "JDBCStore", "DataSourceStore")},
    "SessionIdGenerator": {
        "org.apache.catalina.util.StandardSessionIdGenerator": "SessionIdGenerator"
    },
    "Channel": {f"{_TRIBES}group.GroupChannel": "GroupChannel"},
    "Membership": {
        f"{_TRIBES}membership.McastService": "McastService",
        f"{_TRIBES}membership.StaticMembershipService": "StaticMembershipService",
        f"{_TRIBES}membership.cloud.CloudMembershipService": "CloudMembershipService",
    },
    "Receiver": {f"{_TRIBES}transport.nio.NioReceiver": "NioReceiver"},
    "Sender": {f"{_TRIBES}transport.ReplicationTransmitter": "ReplicationTransmitter"},
    "Transport": {
        f"{_TRIBES}transport.nio.PooledParallelSender": "PooledParallelSender",
        f"{_TRIBES}transport.nio.ParallelNioSender": "ParallelNioSender",
    },
    "Interceptor": {f"{_TRIBES}group.interceptors.{name}": name for name in INTERCEPTOR_TABLES},
    "Member": {f"{_TRIBES}membership.StaticMember": "StaticMember"},
    "LocalMember": {f"{_TRIBES}membership.StaticMember": "StaticMember"},
    "Valve": {
        f"{_HA}tcp.ReplicationValve": "ReplicationValve",
        f"{_HA}session.JvmRouteBinderValve": "JvmRouteBinderValve",
        f"{_HA}authenticator.ClusterSingleSignOn": "ClusterSingleSignOn",
        "org.apache.catalina.valves.PersistentValve": "PersistentValve",
        **{f"org.apache.catalina.valves.{name}": name for name in _BESIDE},
    },
    "Listener": {f"{_HA}backend.HeartbeatListener": "HeartbeatListener"},
    "Deployer": {f"{_HA}deploy.FarmWarDeployer": "FarmWarDeployer"},
    "ClusterListener": {
        f"{_HA}session.ClusterSessionListener": "ClusterSessionListener",
        f"{_HA}session.JvmRouteSessionIDBinderListener": "JvmRouteSessionIDBinderListener",
    },
    "Context": {
        "org.apache.catalina.core.StandardContext": "Context",
        f"{_HA}context.ReplicatedContext": "Context",
    },
    "Host": {"org.apache.catalina.core.StandardHost": "Host"},
    "Engine": {"org.apache.catalina.core.StandardEngine": "Engine"},
}
"""Full names of the classes that an element may have, and whose table counts."""

DEFAULT_CLASSES: Final[dict[str, str]] = {
    "Cluster": "SimpleTcpCluster",
    "Manager": "StandardManager",
    "SessionIdGenerator": "SessionIdGenerator",
    "Channel": "GroupChannel",
    "Member": "StaticMember",
    "LocalMember": "StaticMember",
    "Context": "Context",
    "Host": "Host",
    "Engine": "Engine",
}
"""Where Tomcat needs no ``className``."""

_JAVA: Final = "there are no classes of Java here; add a listener in Python"

CLASS_NOTES: Final[dict[str, tuple[Kind, str]]] = {
    "JvmRouteBinderValve": (
        Kind.ELSEWHERE,
        "SessionMiddleware(route=...) writes the answering node's route into the cookie",
    ),
    "LoadBalancerDrainingValve": (
        Kind.MAPPED,
        "for every context of the node; a balancer that does not speak AJP says DIS in the header "
        "JK-LB-Activation",
    ),
    "CrawlerSessionManagerValve": (Kind.MAPPED, "for every context of the node"),
    "PersistentValve": (
        Kind.MAPPED,
        "per_request = true and lock = 'local' in the manager of its contexts",
    ),
    "FarmWarDeployer": (
        Kind.MAPPED,
        "zip, war, tar.gz, whl and pyz between members of this kind, see docs/farm.md; it is on in "
        "a group with a key or mutual TLS, and elsewhere with farm.enabled = true only",
    ),
    "JvmRouteSessionIDBinderListener": (
        Kind.NO_EFFECT,
        "a changed id is always told to the others; Tomcat 8 and newer do not have it either",
    ),
    **{owner: (Kind.NOT_SUPPORTED, why) for owner, why in NEIGHBOUR_NOTES.items()},
    "ParallelNioSender": (Kind.MAPPED, "see PooledParallelSender; there is one kind of sender"),
    "MembershipListener": (Kind.NOT_SUPPORTED, _JAVA),
    "ChannelListener": (Kind.NOT_SUPPORTED, _JAVA),
}
"""What there is to say of a class as such."""


def every_attribute() -> list[tuple[str, Attribute]]:
    """Each class with each of its attributes, in the order of the tables."""
    return [(owner, each) for owner, table in TABLES.items() for each in table]
