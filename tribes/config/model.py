"""The configuration of a node, as typed data. It builds nothing and touches no network.

Names are Python's (``drop_time``); every docstring line gives Tomcat's attribute where there is
one. Times are milliseconds, as in Tomcat, unless the name says otherwise. Unknown keys are refused
by :func:`msgspec.convert`, so a typing error never passes in silence.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Literal, TypeAlias

import msgspec

from tribes.config.cookies import check_cookie
from tribes.config.farm import FarmConfig, check_farm
from tribes.config.http import HttpConfig, check_http, check_http_protection
from tribes.config.managers import (
    AnyManager,
    ContextConfig,
    ManagerConfig,
    PersistentConfig,
    StandardConfig,
    check_manager,
    check_persistent,
    shared_settings,
    waits_for_members,
)
from tribes.config.recorder import RecorderConfig, check_recorder
from tribes.config.secret import Secret
from tribes.config.valves import (
    SSO_CONTEXT,
    CrawlerConfig,
    DrainingConfig,
    ReplicationConfig,
    RouteBinderConfig,
    SingleSignOnConfig,
    check_valves,
)
from tribes.errors import ConfigError
from tribes.ids import parse_unique_id

__all__ = [
    "AUTO",
    "LOG_LEVELS",
    "AnyManager",
    "ChannelConfig",
    "ContextConfig",
    "DnsConfig",
    "HttpConfig",
    "InterceptorConfig",
    "KubernetesConfig",
    "ManagerConfig",
    "MembershipConfig",
    "NodeConfig",
    "ReceiverConfig",
    "SenderConfig",
    "StaticMemberConfig",
    "TlsConfig",
    "check_config",
    "check_managers",
    "check_pathname",
    "check_protection",
    "check_values",
    "waits_for_members",
]


LOG_LEVELS = ("debug", "info", "warning", "error")

AUTO = "auto"
"""As an address: the one of the interface by which the multicast group is reached."""

_CHANNEL_NAME_MAX = 255

PORTS_MAX = 1000
"""Ports that are tried on one host."""

_NOBODYS_ID = b"\xff" * 16
"""In the own link's language it means whoever is there, so it can name nobody."""

CONTEXT_MAX_CHARS = 256
"""Of a context's name."""

FRAME_MIN_BYTES = 1024 * 1024
"""What nodes send each other in one message, with room to spare."""


class _Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Shared settings of the configuration records: immutable, by keyword, strict."""


InterceptorConfig: TypeAlias = Mapping[str, Any] | Callable[[], Any]
"""One interceptor: a table with its ``class`` and attributes, or a function that makes one."""


class StaticMemberConfig(_Config, frozen=True):
    """A host where members are (Tomcat: ``StaticMember``, tribes-wire §9.4).

    One member per group is enough: it knows the others. The own address may be among them.

    Attributes:
        host: IP address or name (``host``). A name is looked up again every ``refresh``.
        port: First port to try (``port``).
        auto_bind: How many ports to try, from ``port`` upwards.
        unique_id: 16 bytes, as 32 hexadecimal digits or Tomcat's ``{1,2,…}``, of a member of Tomcat
            that is to be believed to be exactly there (``uniqueId``); empty: ask who is there,
            which members of Tomcat do not understand.
        domain: Domain of that member of Tomcat (``domain``).
        secure_port: Its secure port (``securePort``).
        udp_port: Its UDP port (``udpPort``).
    """

    host: str
    port: int = 4000
    auto_bind: int = 1
    unique_id: str = ""
    domain: str = ""
    secure_port: int = -1
    udp_port: int = -1


class DnsConfig(_Config, frozen=True):
    """Members by DNS (Tomcat: ``CloudMembershipService`` with ``dns``, tribes-wire §6.3).

    Attributes:
        name: Name whose A and AAAA records are the hosts; empty: that of the environment variable
            ``DNS_MEMBERSHIP_SERVICE_NAME``.
        port: First port to try on each.
        auto_bind: How many ports to try, from ``port`` upwards.
        nameservers: IP addresses of the servers to ask; none: those of the system.
        nameserver_port: Their port.
        refresh: Milliseconds between two look-ups.
        timeout: Milliseconds a look-up may take in all.
    """

    name: str = ""
    port: int = 4000
    auto_bind: int = 1
    nameservers: tuple[str, ...] = ()
    nameserver_port: int = 53
    refresh: int = 5000
    timeout: int = 2000


class KubernetesConfig(_Config, frozen=True):
    """Members by the pods of a namespace (Tomcat: ``CloudMembershipService`` with ``kubernetes``).

    What is empty comes from the environment variables that Tomcat reads: `docs/membership.md`.

    Attributes:
        namespace: The pods' namespace.
        labels: Label selector that the pods must match.
        url: ``https://host:port`` of the API server.
        api_version: Version of the API in its paths.
        token_file: File with the token of the service account; read again with every request.
        ca_file: File with the certificates that the server's is checked against.
        client_cert_file: Certificate to show to the server instead of a token.
        client_key_file: Its key.
        port: First port to try on each pod.
        auto_bind: How many ports to try, from ``port`` upwards.
        refresh: Milliseconds between two requests.
        connect_timeout: Milliseconds for the connection (``connectTimeout``).
        read_timeout: Milliseconds without data (``readTimeout``).
    """

    namespace: str = ""
    labels: str = ""
    url: str = ""
    api_version: str = ""
    token_file: str = ""
    ca_file: str = ""
    client_cert_file: str = ""
    client_key_file: str = ""
    port: int = 4000
    auto_bind: int = 1
    refresh: int = 5000
    connect_timeout: int = 1000
    read_timeout: int = 1000


class MembershipConfig(_Config, frozen=True):
    """Membership: multicast (Tomcat: ``McastService``, tribes-wire §9.3), and what finds members
    where that does not reach. All of it may be used at once, and makes one view.

    Attributes:
        multicast: Whether heartbeats are sent and heard.
        address: Multicast group (``address``).
        port: UDP port of the group (``port``).
        frequency: Milliseconds between two heartbeats (``frequency``).
        drop_time: Milliseconds of silence after which a member is taken for gone (``dropTime``).
        suspect_after: Milliseconds without a sign of life after which nobody waits for a member any
            more; it stays one, and gets what it missed when it answers. 0: never.
        bind: Address of the interface to use (``bind``). Loopback unless set, see ``insecure``;
            ``"auto"``: that of the interface by which the group is reached.
        ttl: Hops a heartbeat may travel (``ttl``); unset: 0 on loopback, else 1.
        domain: Text, or bytes as ``{1,2,3}``, that every heartbeat carries (``domain``).
        unique_id: Id of this member, written as that of a `StaticMemberConfig`; empty: another one
            at each start, which is how others tell a member from the one that was at its address
            before. Only for members of Tomcat that have this one in their static configuration.
        recovery_enabled: Whether multicast sockets that fail are opened anew (``recoveryEnabled``).
        recovery_counter: How many errors in a row make them fail (``recoveryCounter``).
        recovery_sleep_time: Milliseconds between two tries to open them (``recoverySleepTime``).
        static: Hosts where members are.
        dns: Members by DNS; needs the extra ``dns``.
        kubernetes: Members by Kubernetes; needs the extra ``kubernetes``.
        refresh: Milliseconds between two look-ups of the names in ``static``.
        static_service_name: Channel name of members of Tomcat that use ``StaticMembershipService``,
            there ``<cluster name>-Channel``: their questions are answered. Empty: none is.
    """

    multicast: bool = True
    address: str = "228.0.0.4"
    port: int = 45564
    frequency: int = 500
    drop_time: int = 3000
    suspect_after: int = 1000
    bind: str = "127.0.0.1"
    ttl: int | None = None
    domain: str = ""
    unique_id: str = ""
    recovery_enabled: bool = True
    recovery_counter: int = 10
    recovery_sleep_time: int = 5000
    static: tuple[StaticMemberConfig, ...] = ()
    dns: DnsConfig | None = None
    kubernetes: KubernetesConfig | None = None
    refresh: int = 5000
    static_service_name: str = ""

    @property
    def names_hosts(self) -> bool:
        """Whether any service names hosts."""
        return bool(self.static) or self.dns is not None or self.kubernetes is not None


class ReceiverConfig(_Config, frozen=True):
    """The TCP side that accepts (Tomcat: ``NioReceiver``, tribes-wire §9.6).

    Attributes:
        address: Address to listen on (``address``). Loopback unless set, see ``insecure``;
            ``"auto"``: that of the interface by which the multicast group is reached.
        port: First port to try (``port``); 0 takes any free one and advertises that.
        auto_bind: How many ports to try, from ``port`` upwards (``autoBind``).
        selector_timeout: Accepted for Tomcat's sake (``selectorTimeout``): nothing here polls.
        max_threads: How many members' messages are handed to listeners at the same time
            (``maxThreads``).
        max_connections: Connections accepted at once; more are closed at once and counted.
        frame_max_bytes: Longest frame that is read; a longer one costs the peer its connection.
        pending_max: Messages of one member that wait for the listeners before its connections are
            no longer read.
        pending_max_bytes: The same in bytes.
        udp_port: First UDP port to try for messages with the option UDP, upwards like ``port``
            (``udpPort``); -1: none are received.
        rx_buf_size: Bytes that the kernel keeps of what arrived on a connection (``rxBufSize``);
            0: what the kernel finds best. Tomcat's 65536 would slow long messages down.
        tx_buf_size: The same for what is sent on it (``txBufSize``).
        udp_rx_buf_size: The same for the UDP port (``udpRxBufSize``).
        udp_tx_buf_size: The same for the UDP port (``udpTxBufSize``).
        tcp_no_delay: Send acknowledgements without waiting for more (``tcpNoDelay``).
        so_keep_alive: Let the kernel ask on idle connections whether the peer's machine is there
            (``soKeepAlive``; off in Tomcat).
        so_traffic_class: Type of service of the packets (``soTrafficClass``; 28 in Tomcat);
            -1: the kernel's.
    """

    address: str = "127.0.0.1"
    port: int = 4000
    auto_bind: int = 100
    selector_timeout: int = 5000
    max_threads: int = 15
    max_connections: int = 1000
    frame_max_bytes: int = 16 * 1024 * 1024
    pending_max: int = 1000
    pending_max_bytes: int = 4 * 1024 * 1024
    udp_port: int = -1
    rx_buf_size: int = 0
    tx_buf_size: int = 0
    udp_rx_buf_size: int = 0
    udp_tx_buf_size: int = 0
    tcp_no_delay: bool = True
    so_keep_alive: bool = True
    so_traffic_class: int = -1


class SenderConfig(_Config, frozen=True):
    """The TCP side that sends (Tomcat: ``PooledParallelSender``, tribes-wire §9.7).

    Attributes:
        timeout: Milliseconds a message may take, from being queued to its acknowledgement
            (``timeout``); unlike Tomcat's it is kept to the value.
        max_retry_attempts: Further tries after a broken connection (``maxRetryAttempts``).
        throw_on_failed_ack: Whether a failed listener at the member counts as failure
            (``throwOnFailedAck``).
        retry_failed_ack: Whether such a message is sent again, as Tomcat does. Off: the listener
            would run twice.
        queue_max_bytes: Users' messages that may wait to be written to one member; who sends more
            is blocked until there is room.
        queue_timeout: Milliseconds a sender is blocked at most; then the send fails for that
            member, and all others have the message.
        live_queue_max_bytes: The same for the session managers' changes. What does not fit is sent
            later, merged; see ``ManagerConfig.dirty_max``.
        unacked_max_bytes: What may be written to one of our own members before it has said that it
            received it; that much is kept to be written again on a new connection.
        keep_connected: Whether a connection to every member is kept open. It costs nothing while
            idle and tells a crash by its end.
        pool_size: Connections to one plain member (``poolSize``; 25 in Tomcat). With more than one,
            acknowledged messages are under way side by side, and arrive in any order. Our own
            members need no more than one.
        keep_alive_count: Messages after which a connection to a plain member is closed and made
            anew (``keepAliveCount``); -1: never.
        keep_alive_time: Milliseconds after which it is (``keepAliveTime``); -1: never.
        rx_buf_size: See ``ReceiverConfig``.
        tx_buf_size: See ``ReceiverConfig``.
        tcp_no_delay: See ``ReceiverConfig``.
        so_keep_alive: See ``ReceiverConfig``.
        so_traffic_class: See ``ReceiverConfig``.
    """

    timeout: int = 3000
    max_retry_attempts: int = 1
    throw_on_failed_ack: bool = True
    retry_failed_ack: bool = False
    queue_max_bytes: int = 4 * 1024 * 1024
    queue_timeout: int = 3000
    live_queue_max_bytes: int = 4 * 1024 * 1024
    unacked_max_bytes: int = 4 * 1024 * 1024
    keep_connected: bool = True
    pool_size: int = 1
    keep_alive_count: int = -1
    keep_alive_time: int = -1
    rx_buf_size: int = 0
    tx_buf_size: int = 0
    tcp_no_delay: bool = True
    so_keep_alive: bool = True
    so_traffic_class: int = -1


class TlsConfig(_Config, frozen=True):
    """TLS for every TCP connection between members; files are in PEM format.

    Attributes:
        certificate: File with this member's certificate, and those between it and the authority.
        private_key: File with its key, not encrypted; only its owner may read it. Empty: it stands
            in the certificate's file.
        authorities: File with the certificates of the authorities that members' certificates must
            be signed by. No other authorities are trusted, not even the system's.
        verify_peer: Demand a certificate also of who connects (mutual TLS). Off, whoever reaches
            the port may speak, unless a group key says otherwise.
        peer_names: What a member's certificate must name, one of these: DNS names and IP addresses
            of its subject alternative names, compared whole. Empty: the IP address at the other
            end of the connection. ``"any"``: every certificate of the authorities will do.
        minimum_version: Lowest version of TLS that is spoken.
        handshake_timeout: Milliseconds from the moment a connection is accepted until it must have
            said, encrypted, what it wants.
    """

    certificate: str
    authorities: str
    private_key: str = ""
    verify_peer: bool = True
    peer_names: tuple[str, ...] = ()
    minimum_version: Literal["1.2", "1.3"] = "1.3"
    handshake_timeout: int = 2000


class ChannelConfig(_Config, frozen=True):
    """A channel: membership, receiver, sender (Tomcat: ``GroupChannel``).

    Attributes:
        membership: Who is there.
        receiver: What comes in.
        sender: What goes out.
        own_link: Speak the own link with members that speak it too. Off, every member is served as
            a plain Tomcat, and this node is one to the others.
        key_file: File with the group's keys, one per line, as ``tribes keygen`` makes it: with a
            key only those who have it are members. Only its owner may read it.
        keys: The same lines themselves, where no file is at hand. Never shown.
        plain_peers: IP addresses that may be used without a key although there is one, or
            ``"any"``: for Tomcat's own members. See ``docs/security.md``.
        interceptors: What messages pass on their way, the first first when sending: tables with
            ``class`` and Tomcat's attributes, or functions that make an `Interceptor`. Unset:
            asynchronous dispatch and the failure detector. See ``docs/channel.md``.
        heartbeat_sleeptime: Milliseconds between two heartbeats of the interceptors
            (``heartbeatSleeptime``).
        option_check: Refuse interceptors whose option flags cover each other (``optionCheck``).
        tls: Certificates for the connections, instead of a key or with one; unset: no TLS.
    """

    membership: MembershipConfig = MembershipConfig()
    receiver: ReceiverConfig = ReceiverConfig()
    sender: SenderConfig = SenderConfig()
    own_link: bool = True
    key_file: str = ""
    keys: str = ""
    plain_peers: tuple[str, ...] = ()
    interceptors: tuple[Any, ...] | None = None
    heartbeat_sleeptime: int = 5000
    option_check: bool = False
    tls: TlsConfig | None = None

    def __post_init__(self) -> None:
        if self.interceptors is not None:
            hidden = tuple(_with_secrets(each) for each in self.interceptors)
            msgspec.structs.force_setattr(self, "interceptors", hidden)
        # Whatever shows a configuration (a log, a traceback's locals) must not show this. A copy
        # has it hidden already, and hidden twice it would be lost.
        if not isinstance(self.keys, Secret):
            msgspec.structs.force_setattr(self, "keys", Secret(self.keys))

    @property
    def has_key(self) -> bool:
        """Whether a group key protects this channel."""
        return bool(self.key_file or self.keys)

    @property
    def is_protected(self) -> bool:
        """Whether only those who prove something may speak: a key, or certificates on both sides of
        each connection.
        """
        return self.has_key or (self.tls is not None and self.tls.verify_peer)


def _with_secrets(interceptor: InterceptorConfig) -> InterceptorConfig:
    """The same, with its keys hidden from whatever shows a configuration."""
    if not isinstance(interceptor, Mapping):
        return interceptor
    return {
        name: _hidden(value) if "key" in name.lower() and "time" not in name.lower() else value
        for name, value in interceptor.items()
    }


def _hidden(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_hidden(each) for each in value)
    return Secret(value) if isinstance(value, str) and not isinstance(value, Secret) else value


class NodeConfig(_Config, frozen=True):
    """A node: one member of a group, with the sessions of its contexts.

    Attributes:
        name: What people call this node; travels as the member's payload when ``payload`` is empty.
        payload: Bytes that every heartbeat carries.
        contexts: Names of the web applications whose sessions this node serves.
        hold_all: Keep copies of every context that other members announce.
        insecure: Allow addresses other than loopback although there is neither a key nor mutual
            TLS, and so nothing is authenticated.
        channel: The group's channel.
        manager: The manager of every context that has none of its own: the template.
        context: What some contexts have otherwise, by name. They need not be in ``contexts``, too.
        valves: What stands around every request; unset: JvmRouteBinderValve and ReplicationValve.
            There are also LoadBalancerDrainingValve and CrawlerSessionManagerValve.
        route_binder: The JvmRouteBinderValve's settings.
        replication: The ReplicationValve's settings.
        draining: The LoadBalancerDrainingValve's settings.
        crawlers: The CrawlerSessionManagerValve's settings.
        sso: One login for all contexts; unset: each has its own.
        notify_on_failure: Tell listeners of the cluster about messages that nobody accepts
            (``notifyLifecycleListenerOnFailure``).
        drain_timeout_s: Seconds that leaving may wait until every other member has confirmed that
            it has what is here.
        http: Where ``tribes node`` answers operators; unset: nowhere.
        log_level: Lowest level that ``tribes node`` prints: ``debug``, ``info``, ``warning`` or
            ``error``.
        tracing: Make OpenTelemetry spans of what messages pass; needs ``tribes[otel]``.
        recorder: What is kept of the last minutes, to be looked at later; unset: nothing.
        attach: Path of the unix socket by which the worker processes of a host use one node:
            ``tribes node`` serves it, and an application with the same setting is attached to it
            instead of being a member. Empty: every process is a member.
        farm: Deploying archives on all members; unset: this node takes no part.
    """

    name: str = ""
    payload: bytes = b""
    contexts: tuple[str, ...] = ()
    hold_all: bool = False
    insecure: bool = False
    drain_timeout_s: float = 25.0
    log_level: str = "info"
    channel: ChannelConfig = ChannelConfig()
    manager: AnyManager = ManagerConfig()
    context: Mapping[str, ContextConfig] = {}
    valves: tuple[str, ...] | None = None
    route_binder: RouteBinderConfig = RouteBinderConfig()
    replication: ReplicationConfig = ReplicationConfig()
    draining: DrainingConfig = DrainingConfig()
    crawlers: CrawlerConfig = CrawlerConfig()
    sso: SingleSignOnConfig | None = None
    notify_on_failure: bool = False
    http: HttpConfig | None = None
    tracing: bool = False
    recorder: RecorderConfig | None = None
    attach: str = ""
    farm: FarmConfig | None = None

    def __post_init__(self) -> None:
        if isinstance(self.contexts, str):  # a tuple of one without its comma
            raise ConfigError(
                f"found {self.contexts!r}, where names must be; "
                f"write contexts={(self.contexts,)!r}",
                key="contexts",
            )
        if not isinstance(self.context, Mapping):
            raise ConfigError(
                "found no table of settings by context; if these are names, write "
                f"contexts={self.context!r}",
                key="context",
            )
        # A context with settings of its own need not be named twice.
        more = tuple(name for name in self.context if name not in self.contexts)
        if more:
            msgspec.structs.force_setattr(self, "contexts", (*self.contexts, *more))

    def manager_of(self, context: str) -> ManagerConfig:
        """The settings of a context's manager: its own, or the node's."""
        own = self.context.get(context)
        if own is not None and own.manager is not None:
            return _of_context(own.manager, context)
        if own is not None and not own.distributable and self.manager.in_group:
            plain = StandardConfig(**shared_settings(self.manager))
            return _of_context(plain, context)
        return _of_context(self.manager, context)

    def replicated_manager_of(self, context: str) -> ManagerConfig:
        """The same for a context that this node holds copies of, perhaps only for others."""
        if context == SSO_CONTEXT and self.sso is not None:
            shared = ManagerConfig(**shared_settings(self.manager))
            options = self.sso.map_send_options
            return msgspec.structs.replace(
                shared,
                channel_send_options=options,
                on_unreplicated="serve",
                min_copies=0,
                notify_listeners_on_replication=True,
            )
        found = self.manager_of(context)
        return found if found.in_group else ManagerConfig(**shared_settings(found))

    @property
    def transfer_timeout_s(self) -> float:
        """Seconds that the longest state transfer may take; infinite where one has no limit."""
        managers = [self.manager, *map(self.manager_of, self.contexts)]
        limits = [each.state_transfer_timeout_s for each in managers]
        return inf if min(limits) < 0 else max(limits)

    @property
    def replicated(self) -> tuple[str, ...]:
        """The contexts that the group's members share, that of single sign-on among them."""
        own = (each for each in self.contexts if self.manager_of(each).in_group)
        return (*own,) if self.sso is None else (*own, SSO_CONTEXT)


def _of_context(manager: ManagerConfig, context: str) -> ManagerConfig:
    """The template for one context: each has a file or directory of its own."""
    if isinstance(manager, StandardConfig) and "{context}" in manager.pathname:
        pathname = manager.pathname.replace("{context}", _file_name(context))
        return msgspec.structs.replace(manager, pathname=pathname)
    if isinstance(manager, PersistentConfig) and manager.file is not None:
        directory = manager.file.directory.replace("{context}", _file_name(context))
        file = msgspec.structs.replace(manager.file, directory=directory)
        return msgspec.structs.replace(manager, file=file)
    return manager


def _file_name(context: str) -> str:
    """A context's name as that of a file: nothing in it may lead elsewhere."""
    plain = "".join(c if c.isalnum() or c in "-_" else f"%{ord(c):02x}" for c in context)
    return plain or "%"


def check_config(config: NodeConfig) -> None:
    """Refuse values that cannot work, before anything is started.

    Raises:
        ConfigError: Names the key, what was found and what to write instead.
    """
    check_values(config)
    check_protection(config)


def check_values(config: NodeConfig) -> None:
    """Refuse values that cannot work anywhere. Part of `check_config`.

    Raises:
        ConfigError: Names the key, what was found and what to write instead.
    """
    membership, receiver = config.channel.membership, config.channel.receiver
    _positive("channel.membership.frequency", membership.frequency)
    _positive("channel.membership.drop_time", membership.drop_time)
    if membership.drop_time < 2 * membership.frequency:
        raise ConfigError(
            f"drop_time is {membership.drop_time} ms, but a heartbeat comes only every "
            f"{membership.frequency} ms; write at least {2 * membership.frequency}",
            key="channel.membership.drop_time",
        )
    if membership.suspect_after and not (
        2 * membership.frequency <= membership.suspect_after <= membership.drop_time
    ):
        raise ConfigError(
            f"suspect_after is {membership.suspect_after} ms; write 0 (never), or a time from "
            f"{2 * membership.frequency} (two heartbeats) to {membership.drop_time} (drop_time)",
            key="channel.membership.suspect_after",
        )
    _port("channel.membership.port", membership.port, lowest=1)
    _port("channel.receiver.port", receiver.port, lowest=0)
    _port("channel.receiver.udp_port", receiver.udp_port, lowest=-1)
    _check_sockets("channel.receiver", receiver)
    _check_sockets("channel.sender", config.channel.sender)
    _positive("channel.sender.pool_size", config.channel.sender.pool_size)
    if receiver.udp_port >= 0 and (config.channel.has_key or config.channel.tls is not None):
        raise ConfigError(
            "a group with a key or TLS receives no messages by UDP, because nothing protects "
            "them; take udp_port away",
            key="channel.receiver.udp_port",
        )
    _positive("channel.receiver.max_threads", receiver.max_threads)
    _positive("channel.receiver.max_connections", receiver.max_connections)
    if receiver.frame_max_bytes < FRAME_MIN_BYTES:
        raise ConfigError(
            f"must be at least {FRAME_MIN_BYTES}, found {receiver.frame_max_bytes}",
            key="channel.receiver.frame_max_bytes",
        )
    _positive("channel.heartbeat_sleeptime", config.channel.heartbeat_sleeptime)
    _check_sender(config.channel.sender)
    check_pathname(config)
    if config.drain_timeout_s < 0:
        raise ConfigError(
            f"must be 0 (do not wait) or more, found {config.drain_timeout_s}",
            key="drain_timeout_s",
        )
    if config.log_level not in LOG_LEVELS:
        raise ConfigError(
            f"{config.log_level!r} is no level; write one of {', '.join(LOG_LEVELS)}",
            key="log_level",
        )
    check_managers(config)
    check_valves(config.valves, config.replication, config.draining, config.crawlers)
    _check_services(config.channel)
    group = _ip("channel.membership.address", membership.address)
    if not group.is_multicast:
        raise ConfigError(
            f"{membership.address} is not a multicast address; write one like 228.0.0.4",
            key="channel.membership.address",
        )
    bind = _local_ip("channel.membership.bind", membership.bind)
    if membership.multicast and bind is not None and bind.version != group.version:
        raise ConfigError(
            f"{membership.bind} is no address of IPv{group.version}, which the group "
            f"{membership.address} is of; write one of the same interface that is",
            key="channel.membership.bind",
        )
    address = _local_ip("channel.receiver.address", receiver.address)
    if address is not None and address.is_unspecified:
        raise ConfigError(
            f"{receiver.address} is no address that other members could reach; write the one of "
            "the interface they come by",
            key="channel.receiver.address",
        )
    _check_key(config.channel)
    _check_tls(config.channel)
    if config.http is not None:
        check_http(config.http)
    if config.recorder is not None:
        check_recorder(config.recorder)
    if config.farm is not None:
        check_farm(config.farm)


def check_protection(config: NodeConfig) -> None:
    """Refuse a group that others can reach, and that nothing protects. Part of `check_config`.

    Raises:
        ConfigError: Names the key, what was found and what to write instead.
    """
    membership, receiver = config.channel.membership, config.channel.receiver
    if config.http is not None:
        check_http_protection(config.http)
    exposed = [("channel.receiver.address", receiver.address)]
    if membership.multicast:
        exposed.insert(0, ("channel.membership.bind", membership.bind))
    for key, text in exposed:
        address = _local_ip(key, text)
        is_loopback = address is not None and address.is_loopback
        if is_loopback or config.insecure or config.channel.is_protected:
            continue
        raise ConfigError(
            f"{text} is not a loopback address, and nothing protects the group there: whoever "
            "reaches the port could read and change sessions. Give the group a key, the same file "
            "on every member (on the command line: --key-file):\n\n"
            "    tribes keygen --output group.key\n"
            '    key_file = "group.key"    # under [channel]\n\n'
            "or certificates ([channel.tls]: certificate, private_key, authorities; see "
            "docs/security.md), "
            "or, if the network itself is trusted, say so in the node's configuration (on the "
            "command line: --insecure):\n\n"
            "    insecure = true\n",
            key=key,
        )


def check_managers(config: NodeConfig) -> None:
    """Refuse managers that cannot work. Part of `check_config`.

    Raises:
        ConfigError: Names the key, what was found and what to write instead.
    """
    managers: dict[str, ManagerConfig] = {"manager": config.manager}
    for name, context in config.context.items():
        if not name or len(name) > CONTEXT_MAX_CHARS:
            raise ConfigError(
                f"a context's name has 1 to {CONTEXT_MAX_CHARS} characters, found {name[:40]!r}",
                key="context",
            )
        own, shared = context.manager, config.manager.pathname
        if own is not None and own.in_group and own.pathname not in ("", shared):
            raise ConfigError(
                "the sessions that the members share are saved in the files of manager.pathname, "
                "which {context} in it tells apart; take this away",
                key=f"context.{name}.manager.pathname",
            )
        if (cookie := context.cookie) is not None:
            check_cookie(
                f"context.{name}.cookie",
                name="JSESSIONID" if cookie.name is None else cookie.name,
                path=cookie.path or "",
                domain=cookie.domain or "",
                same_site=cookie.same_site or "",
                max_age_s=cookie.max_age_s,
            )
        if context.manager is not None:
            managers[f"context.{name}.manager"] = context.manager
    for key, manager in managers.items():
        check_manager(manager, key)
        if isinstance(manager, PersistentConfig):
            check_persistent(manager, has_store=False, key=key)
    _check_places(config)


def _check_places(config: NodeConfig) -> None:
    """Two contexts in one file or directory would take each other's sessions for damaged."""
    places: dict[str, str] = {}
    for context in config.contexts:
        manager = config.manager_of(context)
        place, name = "", "pathname"
        if isinstance(manager, StandardConfig):
            place = manager.pathname
        elif isinstance(manager, PersistentConfig) and manager.file is not None:
            place, name = manager.file.directory, "file.directory"
        if place and place in places:
            own = config.context.get(context)
            at = f"context.{context}.manager" if own is not None and own.manager else "manager"
            raise ConfigError(
                f"{place!r} is that of the contexts {places[place]!r} and {context!r}; give each "
                "its own, or write {context} where its name is to stand",
                key=f"{at}.{name}",
            )
        places[place] = context


def _check_services(channel: ChannelConfig) -> None:
    """What finds members beside multicast."""
    membership = channel.membership
    _positive("channel.membership.recovery_counter", membership.recovery_counter)
    _positive("channel.membership.recovery_sleep_time", membership.recovery_sleep_time)
    _positive("channel.membership.refresh", membership.refresh)
    if membership.unique_id:
        _check_unique_id("channel.membership.unique_id", membership.unique_id)
    for i, each in enumerate(membership.static):
        _check_static(f"channel.membership.static[{i}]", each, channel)
    services = (
        ("channel.membership.dns", membership.dns),
        ("channel.membership.kubernetes", membership.kubernetes),
    )
    for key, service in services:
        if service is not None:
            _ports(key, service.port, service.auto_bind)
            _positive(f"{key}.refresh", service.refresh)
            _needs_own_link(key, channel)
    name = membership.static_service_name
    if not name.isascii() or len(name) > _CHANNEL_NAME_MAX:
        raise ConfigError(
            f"must be up to {_CHANNEL_NAME_MAX} ASCII characters, found {name[:40]!r}: the name of "
            "the Tomcat members' channel, which is <cluster name>-Channel",
            key="channel.membership.static_service_name",
        )
    if membership.dns is not None:
        _positive("channel.membership.dns.timeout", membership.dns.timeout)
        _port("channel.membership.dns.nameserver_port", membership.dns.nameserver_port, lowest=1)
        for server in membership.dns.nameservers:
            _ip("channel.membership.dns.nameservers", server)
    if membership.kubernetes is not None:
        key = "channel.membership.kubernetes"
        _positive(f"{key}.connect_timeout", membership.kubernetes.connect_timeout)
        _positive(f"{key}.read_timeout", membership.kubernetes.read_timeout)


def _check_static(key: str, member: StaticMemberConfig, channel: ChannelConfig) -> None:
    if not member.host:
        raise ConfigError("is empty; write an IP address or a name", key=f"{key}.host")
    _ports(key, member.port, member.auto_bind)
    if not member.unique_id:
        _needs_own_link(key, channel)
        return
    _check_unique_id(f"{key}.unique_id", member.unique_id)
    _ip(f"{key}.host", member.host)


def _check_unique_id(key: str, text: str) -> None:
    try:
        found = parse_unique_id(text)
    except ValueError as why:
        raise ConfigError(
            f"{why}; write 32 hexadecimal digits, or 16 decimal bytes like {{0,1,…,15}}", key=key
        ) from None
    if found == _NOBODYS_ID:
        raise ConfigError("sixteen times 255 is what asks who is there; write others", key=key)


def _ports(key: str, port: int, auto_bind: int) -> None:
    _port(f"{key}.port", port, lowest=1)
    if not 1 <= auto_bind <= PORTS_MAX:
        raise ConfigError(
            f"must be from 1 to {PORTS_MAX} ports to try, found {auto_bind}",
            key=f"{key}.auto_bind",
        )


def _needs_own_link(key: str, channel: ChannelConfig) -> None:
    if not channel.own_link:
        raise ConfigError(
            "own_link is false, but who is at an address is asked in the own link's language; "
            "write own_link = true, or give the unique_id of a member of Tomcat",
            key=key,
        )


def check_pathname(config: NodeConfig) -> None:
    """Refuse a file that cannot hold what it is to hold. Part of `check_config`.

    Raises:
        ConfigError: Says what to write instead.
    """
    pathname = config.manager.pathname
    if not pathname:
        return
    where, _, name = pathname.rpartition("/")
    if "{context}" in where:
        raise ConfigError(
            f"found {pathname!r}; write {{context}} in the file's name, not in a directory's",
            key="manager.pathname",
        )
    if "{context}" not in name and (config.hold_all or len(config.contexts) > 1):
        raise ConfigError(
            f"found {pathname!r}, one file for several contexts; write a name with {{context}} in "
            "it, which stands for each one's name",
            key="manager.pathname",
        )


def _check_sockets(key: str, config: ReceiverConfig | SenderConfig) -> None:
    for name in ("rx_buf_size", "tx_buf_size"):
        if getattr(config, name) < 0:
            raise ConfigError(
                f"must be 0 (the kernel's choice) or more, found {getattr(config, name)}",
                key=f"{key}.{name}",
            )
    if not -1 <= config.so_traffic_class <= 255:
        raise ConfigError(
            f"must be from -1 (the kernel's) to 255, found {config.so_traffic_class}",
            key=f"{key}.so_traffic_class",
        )


def _check_sender(sender: SenderConfig) -> None:
    for name in (
        "timeout",
        "queue_max_bytes",
        "queue_timeout",
        "live_queue_max_bytes",
        "unacked_max_bytes",
    ):
        _positive(f"channel.sender.{name}", getattr(sender, name))


def _check_key(channel: ChannelConfig) -> None:
    if channel.key_file and channel.keys:
        raise ConfigError(
            "there are keys in channel.keys too; keep one of the two", key="channel.key_file"
        )
    if channel.has_key and not channel.own_link:
        raise ConfigError(
            "is false, but only own links can be protected by a key; write own_link = true and, "
            "if there are members of Tomcat, their addresses into plain_peers",
            key="channel.own_link",
        )
    for text in channel.plain_peers:
        if text != "any":
            _ip("channel.plain_peers", text)
    if channel.plain_peers and not channel.has_key:
        raise ConfigError(
            "without a key everybody may come without one; set key_file too, or take it away",
            key="channel.plain_peers",
        )


def _check_tls(channel: ChannelConfig) -> None:
    tls = channel.tls
    if tls is None:
        return
    for name in ("certificate", "authorities"):
        if not getattr(tls, name):
            raise ConfigError(
                "is empty; write the path of a file in PEM format", key=f"channel.tls.{name}"
            )
    if tls.minimum_version not in ("1.2", "1.3"):
        raise ConfigError(
            f"must be '1.2' or '1.3', found {tls.minimum_version!r}",
            key="channel.tls.minimum_version",
        )
    _positive("channel.tls.handshake_timeout", tls.handshake_timeout)
    for text in tls.peer_names:
        if not text.strip() or "*" in text:
            raise ConfigError(
                f"{text!r} is no name; write whole DNS names or IP addresses, or 'any'",
                key="channel.tls.peer_names",
            )
    if not channel.own_link:
        raise ConfigError(
            "is false, but only members with the own link speak TLS; write own_link = true",
            key="channel.own_link",
        )
    if channel.plain_peers:
        raise ConfigError(
            "plain members don't speak TLS; take plain_peers away, or channel.tls",
            key="channel.plain_peers",
        )
    if not channel.has_key and not channel.membership.suspect_after:
        raise ConfigError(
            "is 0, but with TLS and no key anybody can send heartbeats, so only answers tell a "
            "hung member from a living one; write 1000, or set a key_file as well",
            key="channel.membership.suspect_after",
        )


def _positive(key: str, value: int) -> None:
    if value <= 0:
        raise ConfigError(f"must be greater than 0, found {value}", key=key)


def _port(key: str, value: int, *, lowest: int) -> None:
    if not lowest <= value <= 65535:
        raise ConfigError(f"must be a port from {lowest} to 65535, found {value}", key=key)


def _local_ip(key: str, text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address of this machine; None: the one that is found when the node starts."""
    return None if text == AUTO else _ip(key, text)


def _ip(key: str, text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise ConfigError(
            f"{text!r} is not an IP address; write one like 127.0.0.1", key=key
        ) from None
