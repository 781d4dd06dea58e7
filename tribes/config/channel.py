"""The settings of a channel: membership, receiver, sender, TLS.

One file, for they are one table of the guide and refer to each other's settings. What they may be
is checked in :mod:`tribes.config.channel_checks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from tribes.config.secret import Secret

__all__ = [
    "AUTO",
    "ChannelConfig",
    "DnsConfig",
    "InterceptorConfig",
    "KubernetesConfig",
    "MembershipConfig",
    "ReceiverConfig",
    "SenderConfig",
    "StaticMemberConfig",
    "TlsConfig",
]

AUTO = "auto"
"""As an address: the one of the interface by which the multicast group is reached."""


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
