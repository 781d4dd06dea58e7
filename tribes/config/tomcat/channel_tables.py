"""Tomcat's attributes of channel, membership, receiver and sender (tribes-wire §9.2 to §9.7)."""

from __future__ import annotations

from typing import Final

from tribes.config.tomcat.attributes import Table, honoured, mapped, refused, unused

__all__ = ["CHANNEL_TABLES"]

_MEMBERSHIP: Final = "channel.membership"
_RECEIVER: Final = "channel.receiver"
_SENDER: Final = "channel.sender"

_NO_THREADS: Final = "there is no pool of threads here whose number or life it could set"
_NO_BUFFERS: Final = "there are no buffers here that could be pooled or kept outside the heap"
_NO_SECURE_PORT: Final = "nothing acts on it in Tomcat either; [channel.tls] encrypts connections"
_LINGER: Final = "connections end with a farewell and are closed without lingering"
_URGENT: Final = "urgent data is never sent, and kept apart from the stream if it comes"
_REUSE: Final = "the operating system's good practice is followed on every socket"
_UDP_SENDER: Final = "Tomcat does not pass it on to its sockets; the receiver's setting counts"
_MANAGEMENT: Final = "there is no JMX here"
_INTERNAL: Final = "Tomcat sets it for itself"
_ASKED: Final = "members are asked on their connections, by the failure detector's times"

_MULTICAST: Final[Table] = (
    honoured("address", "228.0.0.4", "text", f"{_MEMBERSHIP}.address", "multicast group"),
    honoured("mcastAddress", "228.0.0.4", "text", f"{_MEMBERSHIP}.address", "older name"),
    honoured("port", "45564", "int", f"{_MEMBERSHIP}.port", "UDP port of the group"),
    honoured("mcastPort", "45564", "int", f"{_MEMBERSHIP}.port", "older name of port"),
    honoured("frequency", "500", "int", f"{_MEMBERSHIP}.frequency", "ms between heartbeats"),
    honoured("mcastFrequency", "500", "int", f"{_MEMBERSHIP}.frequency", "older name"),
    honoured("dropTime", "3000", "int", f"{_MEMBERSHIP}.drop_time", "ms of silence until removal"),
    honoured("mcastDropTime", "3000", "int", f"{_MEMBERSHIP}.drop_time", "older name"),
    honoured("memberDropTime", "3000", "int", f"{_MEMBERSHIP}.drop_time", "older name"),
    honoured("bind", "unset", "address", f"{_MEMBERSHIP}.bind", "address of the interface"),
    honoured("mcastBindAddress", "unset", "address", f"{_MEMBERSHIP}.bind", "older name of bind"),
    honoured("ttl", "unset", "int", f"{_MEMBERSHIP}.ttl", "hops a heartbeat may travel"),
    honoured("mcastTTL", "unset", "int", f"{_MEMBERSHIP}.ttl", "older name of ttl"),
    honoured("domain", "unset", "domain", f"{_MEMBERSHIP}.domain", "domain in each heartbeat"),
    unused("soTimeout", "frequency", "ms a read of a heartbeat waits", "nothing here polls"),
    unused("mcastSoTimeout", "frequency", "older name of soTimeout", "nothing here polls"),
    honoured(
        "recoveryEnabled",
        "true",
        "bool",
        f"{_MEMBERSHIP}.recovery_enabled",
        "open failing sockets anew",
    ),
    honoured(
        "recoveryCounter",
        "10",
        "int",
        f"{_MEMBERSHIP}.recovery_counter",
        "errors that make sockets fail",
    ),
    honoured(
        "recoverySleepTime",
        "5000",
        "int",
        f"{_MEMBERSHIP}.recovery_sleep_time",
        "ms between two tries to open them",
    ),
    refused(
        "localLoopbackDisabled",
        "false",
        "do not hear heartbeats of this machine",
        "members on the same machine always hear each other",
        "false",
    ),
    refused(
        "payload",
        "unset",
        "bytes in each heartbeat; set by programs only",
        "write payload into the node's own configuration (TOML), or use announce()",
    ),
    *(
        unused(name, "the receiver's", "where members connect to", "the receiver's setting counts")
        for name in ("tcpListenHost", "tcpListenPort", "tcpSecurePort", "udpListenPort")
    ),
)

_STATIC: Final[Table] = (
    unused("connectTimeout", "500", "ms of a probe's connection", _ASKED),
    unused("expirationTime", "5000", "ms without an answer until removal", _ASKED),
    unused("rpcTimeout", "3000", "ms an answer may take", _ASKED),
    unused("useThread", "false", "ping from a thread of its own", _NO_THREADS),
    unused("pingInterval", "1000", "ms between two pings", _ASKED),
)

_CLOUD: Final[Table] = (
    mapped(
        "membershipProviderClassName",
        "kubernetes",
        "provider",
        _MEMBERSHIP,
        "who names the members: kubernetes, dns, or a class",
        "it makes [channel.membership.kubernetes] or [channel.membership.dns]",
        "kubernetes",
        "dns",
    ),
    mapped(
        "connectTimeout",
        "1000",
        "int",
        f"{_MEMBERSHIP}.kubernetes.connect_timeout",
        "ms of a connection to the service",
        "with dns nothing is connected to",
        "1000",
    ),
    mapped(
        "readTimeout",
        "1000",
        "int",
        f"{_MEMBERSHIP}.kubernetes.read_timeout",
        "ms without data from the service",
        "with dns see channel.membership.dns.timeout",
        "1000",
    ),
    unused("expirationTime", "5000", "ms without mention until removal", _ASKED),
)

_STATIC_MEMBER: Final[Table] = (
    honoured("host", "required", "host", "host", "address or name of the member"),
    honoured("port", "required", "int", "port", "its TCP port"),
    honoured("securePort", "-1", "int", "secure_port", "its secure port"),
    honoured("udpPort", "-1", "int", "udp_port", "its UDP port"),
    honoured("domain", "empty", "domain", "domain", "its domain"),
    mapped(
        "uniqueId",
        "16 zero bytes",
        "unique_id",
        "unique_id",
        "its id of 16 bytes",
        "the member is believed to be Tomcat's, with this id; take it away for a member that runs "
        "this program: it makes its own id, and is asked",
    ),
)

_RECEIVING: Final[Table] = (
    honoured("address", "auto", "address", f"{_RECEIVER}.address", "address to listen on"),
    honoured("host", "auto", "address", f"{_RECEIVER}.address", "older name of address"),
    honoured("port", "4000", "int", f"{_RECEIVER}.port", "first TCP port to try"),
    honoured("autoBind", "100", "ports", f"{_RECEIVER}.auto_bind", "how many ports to try"),
    unused("securePort", "-1", "port for secure messages", _NO_SECURE_PORT, "-1"),
    honoured("udpPort", "-1", "udp_port", f"{_RECEIVER}.udp_port", "first UDP port to try"),
    unused("selectorTimeout", "5000", "ms a selector waits", "nothing here polls"),
    honoured(
        "maxThreads",
        "15",
        "int",
        f"{_RECEIVER}.max_threads",
        "how many members' messages are handled at a time",
    ),
    unused("minThreads", "6", "idle workers kept", _NO_THREADS),
    unused("maxIdleTime", "60000", "ms until an idle worker ends", _NO_THREADS),
    unused("maxTasks", "100", "nothing", "Tomcat ignores it too"),
    unused("minTasks", "10", "nothing", "Tomcat ignores it too"),
    unused("daemon", "true", "whether threads keep the process alive", _NO_THREADS),
    unused("direct", "true", "buffers outside the heap", _NO_BUFFERS),
    unused("useBufferPool", "true", "keep buffers for later", _NO_BUFFERS),
    honoured("rxBufSize", "65536", "int", f"{_RECEIVER}.rx_buf_size", "bytes of receive buffer"),
    honoured("txBufSize", "25188", "int", f"{_RECEIVER}.tx_buf_size", "bytes of send buffer"),
    honoured("udpRxBufSize", "65536", "int", f"{_RECEIVER}.udp_rx_buf_size", "the same for UDP"),
    honoured("udpTxBufSize", "25188", "int", f"{_RECEIVER}.udp_tx_buf_size", "the same for UDP"),
    honoured("tcpNoDelay", "true", "bool", f"{_RECEIVER}.tcp_no_delay", "send small data at once"),
    honoured("soKeepAlive", "false", "bool", f"{_RECEIVER}.so_keep_alive", "probe idle peers"),
    unused("ooBInline", "true", "urgent data within the stream", _URGENT),
    unused("soReuseAddress", "true", "reuse an address at once", _REUSE, "true"),
    unused("soLingerOn", "true", "linger when closing", _LINGER),
    unused("soLingerTime", "3", "s to linger", _LINGER),
    honoured("soTrafficClass", "28", "int", f"{_RECEIVER}.so_traffic_class", "type of service"),
    unused(
        "timeout",
        "3000",
        "ms of a read on a connection",
        "connections stay open; a silent peer is asked whether it lives",
    ),
)

_SENDING: Final[Table] = (
    honoured("poolSize", "25", "int", f"{_SENDER}.pool_size", "connections to a plain member"),
    mapped(
        "maxWait",
        "3000",
        "int",
        f"{_SENDER}.queue_timeout",
        "ms a send waits for a free connection",
        "a send waits so long for room in the member's queue",
        "3000",
    ),
    honoured("timeout", "3000", "int", f"{_SENDER}.timeout", "ms a message may take"),
    honoured("maxRetryAttempts", "1", "int", f"{_SENDER}.max_retry_attempts", "further tries"),
    honoured(
        "keepAliveCount", "-1", "int", f"{_SENDER}.keep_alive_count", "messages per connection"
    ),
    honoured("keepAliveTime", "-1", "int", f"{_SENDER}.keep_alive_time", "ms per connection"),
    honoured("rxBufSize", "25188", "int", f"{_SENDER}.rx_buf_size", "bytes of receive buffer"),
    honoured("txBufSize", "65536", "int", f"{_SENDER}.tx_buf_size", "bytes of send buffer"),
    unused("udpRxBufSize", "25188", "receive buffer for UDP", _UDP_SENDER),
    unused("udpTxBufSize", "65536", "send buffer for UDP", _UDP_SENDER),
    unused("directBuffer", "false", "buffers outside the heap", _NO_BUFFERS),
    honoured("tcpNoDelay", "true", "bool", f"{_SENDER}.tcp_no_delay", "send small data at once"),
    honoured("soKeepAlive", "false", "bool", f"{_SENDER}.so_keep_alive", "probe idle peers"),
    unused("ooBInline", "true", "urgent data within the stream", _URGENT),
    unused("soReuseAddress", "true", "reuse an address at once", _REUSE, "true"),
    unused("soLingerOn", "false", "linger when closing", _LINGER),
    unused("soLingerTime", "3", "s to linger", _LINGER),
    honoured("soTrafficClass", "28", "int", f"{_SENDER}.so_traffic_class", "type of service"),
    honoured(
        "throwOnFailedAck",
        "true",
        "bool",
        f"{_SENDER}.throw_on_failed_ack",
        "a failed listener is a failed send",
    ),
    unused("udpBased", "false", "send by UDP", _INTERNAL),
    unused("udpPort", "-1", "port of the destination", _INTERNAL),
    unused("port", "0", "port of the destination", _INTERNAL),
    unused("address", "unset", "the destination", _INTERNAL),
)

CHANNEL_TABLES: Final[dict[str, Table]] = {
    "GroupChannel": (
        refused(
            "heartbeat",
            "true",
            "the interceptors' heartbeat has a schedule of its own",
            "they are always called every heartbeatSleeptime",
            "true",
        ),
        honoured(
            "heartbeatSleeptime",
            "5000",
            "int",
            "channel.heartbeat_sleeptime",
            "ms between two heartbeats of the interceptors",
        ),
        honoured(
            "optionCheck",
            "false",
            "bool",
            "channel.option_check",
            "refuse interceptors whose option flags cover each other",
        ),
        unused("jmxEnabled", "true", "show the channel to management", _MANAGEMENT),
        unused("jmxDomain", "ClusterChannel", "its domain there", _MANAGEMENT),
        unused("jmxPrefix", "empty", "prefix of its name there", _MANAGEMENT),
        unused("name", "unset", "name of the channel", _INTERNAL),
        unused("optionFlag", "0", "nothing", "Tomcat ignores it too"),
    ),
    "McastService": _MULTICAST,
    "StaticMembershipService": _STATIC,
    "CloudMembershipService": _CLOUD,
    "StaticMember": _STATIC_MEMBER,
    "NioReceiver": _RECEIVING,
    "ReplicationTransmitter": (),
    "PooledParallelSender": _SENDING,
    "ParallelNioSender": _SENDING,
}
"""By the name of the class."""
