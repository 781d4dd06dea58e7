"""Tomcat's attributes of cluster, managers, contexts and what stands around them.

Sources: tribes-wire §9.1, tomcat-sessions §2 to §13, msm-sessions §3.2.
"""

from __future__ import annotations

from typing import Final

from tribes.config.tomcat.attributes import Table, elsewhere, honoured, mapped, refused, unused
from tribes.config.tomcat.neighbour_tables import NEIGHBOUR_TABLES

__all__ = ["SESSION_TABLES"]

_OPTIONS_KEY: Final = "manager.channel_send_options"
_NO_JAVA: Final = "there are no classes of Java here"
_ALL_HOLD: Final = "every member holds every session here, and they are compared by digests"
_MERGED: Final = "changes are merged by attribute with versions, so none is too old or too many"
_NO_STORE: Final = "sessions are kept in the members' memory; there is no store behind it"
_NO_MEMCACHED: Final = "sessions are kept in the members' memory; no server holds them"
_COOKIE: Final = "give it to SessionMiddleware(cookie=CookieSettings(...))"
_ROUTE: Final = "give it to SessionMiddleware(route=...)"
_ROUTE_OWN: Final = "SessionMiddleware(route=...) writes the answering node's route into the cookie"
_NO_FARM: Final = "members deploy no applications to each other"
_NO_SSO: Final = "there is no single sign-on across applications"
_EVERY_REQUEST: Final = "only what a request changed is sent, so no request needs to be left out"
_MARKS: Final = "no request is marked; every member may serve every session"
_ENTROPY: Final = "ids come from the operating system's source of randomness"

_FILTERS: Final[Table] = (
    honoured(
        "sessionAttributeNameFilter",
        "unset",
        "text",
        "manager.session_attribute_name_filter",
        "names of attributes that leave the process",
    ),
    mapped(
        "sessionAttributeValueClassNameFilter",
        "unset",
        "text",
        "manager.session_attribute_value_class_name_filter",
        "classes of values that leave the process",
        "types are Python's; the built-in ones answer to Java's names too",
        "",
    ),
    honoured(
        "warnOnSessionAttributeFilterFailure",
        "false",
        "bool",
        "manager.warn_on_session_attribute_filter_failure",
        "log what is held back as warnings",
    ),
)

_COMMON: Final[Table] = (
    honoured(
        "maxActiveSessions",
        "-1",
        "int",
        "manager.max_active_sessions",
        "sessions that may exist; -1: no limit",
    ),
    honoured(
        "maxInactiveInterval",
        "1800",
        "int",
        "manager.max_inactive_s",
        "seconds of idleness until a session expires (Tomcat 7 and older)",
    ),
    honoured(
        "sessionIdLength",
        "16",
        "int",
        "manager.session_id_length",
        "random bytes of a session id",
    ),
    mapped(
        "processExpiresFrequency",
        "6",
        "ticks",
        "manager.expiry_interval",
        "background ticks between two looks for idle sessions",
        "a tick is the Engine's backgroundProcessorDelay, 10 s unless set",
    ),
    *_FILTERS,
    honoured(
        "notifyAttributeListenerOnUnchangedValue",
        "true",
        "bool",
        "manager.notify_attribute_listener_on_unchanged_value",
        "tell listeners when the same value is set again",
    ),
    honoured(
        "notifyBindingListenerOnUnchangedValue",
        "false",
        "bool",
        "manager.notify_binding_listener_on_unchanged_value",
        "tell the value when it is set again",
    ),
    honoured(
        "sessionActivityCheck",
        "false",
        "bool",
        "manager.session_activity_check",
        "a session whose request runs never expires",
    ),
    honoured(
        "sessionLastAccessAtStart",
        "false",
        "bool",
        "manager.session_last_access_at_start",
        "idle time counts from the beginning of the last request",
    ),
    unused(
        "persistAuthentication",
        "false",
        "store who is logged in with the session",
        "principal and auth_type are parts of the session, replicated and stored with it; leave "
        "them unset to keep them nowhere",
        "true",
    ),
    unused("secureRandomClass", "the platform's", "source of ids", _ENTROPY),
    unused("secureRandomProvider", "the platform's", "source of ids", _ENTROPY),
    unused("secureRandomAlgorithm", "SHA1PRNG", "source of ids", _ENTROPY),
    unused("jvmRoute", "the Engine's", "route in session ids", _ROUTE_OWN),
    unused(
        "distributable",
        "false",
        "replicate the sessions (Tomcat 5 to 7)",
        "sessions of every context of a node are replicated",
    ),
    unused("name", "derived", "name of the manager", "it is the name of the context"),
)

_CLUSTERED: Final[Table] = (
    honoured(
        "notifyListenersOnReplication",
        "true",
        "bool",
        "manager.notify_listeners_on_replication",
        "tell attribute listeners of other members' changes",
    ),
    honoured(
        "notifySessionListenersOnReplication",
        "true",
        "bool",
        "manager.notify_session_listeners_on_replication",
        "tell session listeners of other members' sessions",
    ),
    honoured(
        "notifyContainerListenersOnReplication",
        "true",
        "bool",
        "manager.notify_container_listeners_on_replication",
        "tell container listeners of other members' sessions",
    ),
    unused("recordAllActions", "false", "send every action, not the last per name", _MERGED),
    *_COMMON,
)

_DELTA: Final[Table] = (
    honoured(
        "expireSessionsOnShutdown",
        "false",
        "bool",
        "manager.expire_sessions_on_shutdown",
        "a member that stops ends all sessions on all members",
    ),
    mapped(
        "stateTransferTimeout",
        "60",
        "transfer",
        "manager.state_transfer_timeout_s",
        "seconds a joining member waits for the sessions; -1: for ever",
        "-1 is an hour, because no wait is endless here",
        "60",
    ),
    unused("sendAllSessions", "true", "send all sessions in one message", _ALL_HOLD),
    unused("sendAllSessionsSize", "1000", "sessions in a message", _ALL_HOLD),
    unused("sendAllSessionsWaitTime", "2000", "ms between two messages", _ALL_HOLD),
    unused("stateTimestampDrop", "true", "drop changes older than the transfer", _MERGED),
    honoured(
        "enableStatistics",
        "true",
        "bool",
        "manager.enable_statistics",
        "count messages by type",
    ),
    *_CLUSTERED,
)

_MAP: Final[Table] = (
    mapped(
        "mapSendOptions",
        "6",
        "options",
        _OPTIONS_KEY,
        "send options of the sessions",
        "the whole cluster's send options are the sessions' here",
    ),
    mapped(
        "rpcTimeout",
        "15000",
        "milliseconds",
        "manager.state_transfer_timeout_s",
        "ms to wait for an answer",
        "a joining member waits so long for the sessions",
    ),
    unused("accessTimeout", "5000", "ms until a silent member is gone", "see dropTime"),
    unused(
        "terminateOnStartFailure",
        "false",
        "fail the application when the sessions cannot be had",
        "a node that joins always serves, with what it got",
    ),
)

_STORE_NAMES: Final = (
    ("directory", "work directory", "directory of the files"),
    ("checkInterval", "60", "seconds between two looks for expired sessions"),
    ("dataSourceName", "required", "name of the data source"),
    ("localDataSource", "false", "look it up in the application"),
    ("sessionTable", "tomcat$sessions", "table"),
    ("sessionIdCol", "id", "column of the id"),
    ("sessionAppCol", "app", "column of the application"),
    ("sessionDataCol", "data", "column of the session"),
    ("sessionValidCol", "valid", "column of the validity"),
    ("sessionMaxInactiveCol", "maxinactive", "column of the idle time"),
    ("sessionLastAccessedCol", "lastaccess", "column of the last use"),
    ("driverName", "unset", "class of the database's driver"),
    ("connectionName", "unset", "user of the database"),
)
_STORE: Final[Table] = (
    *(refused(name, default, meaning, _NO_STORE) for name, default, meaning in _STORE_NAMES),
    refused("connectionURL", "unset", "where the database is", _NO_STORE, is_secret=True),
    refused("connectionPassword", "unset", "its password", _NO_STORE, is_secret=True),
)

_MSM_NAMES: Final = (
    ("failoverNodes", "empty", "nodes used when no other answers"),
    ("sticky", "true", "requests of a session come to one instance"),
    ("lockingMode", "none", "requests that lock their session"),
    ("lockExpiration", "5", "seconds of a lock"),
    ("operationTimeout", "1000", "ms of an operation"),
    ("backupThreadCount", "processors", "threads that store"),
    ("requestUriIgnorePattern", "unset", "requests that store nothing"),
    ("sessionAttributeFilter", "unset", "attributes that are stored"),
    ("customConverter", "unset", "further serialisers"),
    ("storageKeyPrefix", "webappVersion", "prefix of the keys"),
    ("memcachedProtocol", "text", "text or binary"),
    ("username", "unset", "user of the servers"),
)
_MSM: Final[Table] = (
    refused("memcachedNodes", "required", "the servers", _NO_MEMCACHED, is_secret=True),
    *(refused(name, default, meaning, _NO_MEMCACHED) for name, default, meaning in _MSM_NAMES),
    refused("password", "unset", "password of the servers", _NO_MEMCACHED, is_secret=True),
    refused(
        "sessionBackupAsync",
        "true",
        "answer before the session is stored",
        "channel_send_options says what a request waits for: 8 nothing, 2 receipt, 6 processing",
    ),
    mapped(
        "sessionBackupTimeout",
        "100",
        "int",
        "manager.commit_timeout",
        "ms a request waits for the store",
        "ms a commit waits for the members",
    ),
    unused("transcoderFactoryClass", "Java's", "serialiser", f"{_NO_JAVA}; the codec is safe"),
    unused("copyCollectionsForSerialization", "false", "copy collections first", _NO_JAVA),
    unused("enableStatistics", "true", "count what happens", "counters are always on"),
    refused("enabled", "true", "store at all", _NO_MEMCACHED, "true"),
    *_COMMON,
)

_CONTEXT: Final[Table] = (
    honoured("path", "from the file", "context", "contexts", "path of the application"),
    honoured("docBase", "from the file", "context", "contexts", "directory of the application"),
    unused("distributable", "false", "replicate its sessions", "sessions of contexts always are"),
    elsewhere("sessionCookieName", "JSESSIONID", "name of the cookie", _COOKIE),
    elsewhere("sessionCookiePath", "the context's", "path of the cookie", _COOKIE),
    elsewhere("sessionCookieDomain", "unset", "domain of the cookie", _COOKIE),
    elsewhere("useHttpOnly", "true", "keep the cookie from scripts", _COOKIE, "true"),
    refused("sessionCookiePathUsesTrailingSlash", "false", "append / to it", _COOKIE, "false"),
    refused("cookies", "true", "carry ids in cookies", "ids are carried in cookies only", "true"),
    refused(
        "crossContext",
        "false",
        "applications may use each other's sessions",
        "an application uses the sessions of its context",
        "false",
    ),
    refused("mapSendOptions", "2", "replicate the application's attributes", "sessions only are"),
    mapped(
        "sessionTimeout",
        "30",
        "minutes",
        "manager.max_inactive_s",
        "minutes of idleness until a session expires",
        "here in seconds",
    ),
    unused("backgroundProcessorDelay", "-1", "seconds between two ticks", "the Engine's counts"),
)

SESSION_TABLES: Final[dict[str, Table]] = {
    "SimpleTcpCluster": (
        honoured("channelSendOptions", "8", "options", _OPTIONS_KEY, "what a commit waits for"),
        refused(
            "channelStartOptions",
            "15",
            "which services of the channel run",
            "all of them run; [channel.membership] multicast = false leaves heartbeats out",
            "15",
        ),
        unused(
            "clusterName",
            "name of the container",
            "name of the channel",
            "groups are told apart by address and port of their heartbeats, or by their key",
        ),
        unused(
            "heartbeatBackgroundEnabled",
            "false",
            "heartbeats come from the container's thread",
            "they have a timer of their own",
        ),
        refused(
            "notifyLifecycleListenerOnFailure",
            "false",
            "an event for messages that nobody takes",
            "they are counted and logged",
            "false",
        ),
    ),
    "DeltaManager": _DELTA,
    "BackupManager": (*_MAP, *_CLUSTERED),
    "StandardManager": (
        refused("pathname", "unset", "file for the sessions of a stopped node", _NO_STORE, ""),
        *_COMMON,
    ),
    "PersistentManager": (
        refused("saveOnRestart", "true", "store all sessions when stopping", _NO_STORE),
        refused("maxIdleBackup", "-1", "idle seconds until a copy is stored", _NO_STORE, "-1"),
        refused("minIdleSwap", "-1", "idle seconds before it may be stored", _NO_STORE, "-1"),
        refused("maxIdleSwap", "-1", "idle seconds until it is only stored", _NO_STORE, "-1"),
        *_COMMON,
    ),
    "Store": _STORE,
    "MemcachedBackupSessionManager": _MSM,
    "SessionIdGenerator": (
        honoured(
            "sessionIdLength", "16", "int", "manager.session_id_length", "random bytes of an id"
        ),
        elsewhere("jvmRoute", "the Engine's", "route in the id", _ROUTE),
        *(
            unused(name, "the platform's", "source of ids", _ENTROPY)
            for name in ("secureRandomClass", "secureRandomProvider", "secureRandomAlgorithm")
        ),
    ),
    "ReplicationValve": (
        refused("filter", "unset", "requests that change no session", _EVERY_REQUEST, "", "/"),
        refused("primaryIndicator", "false", "mark requests of primaries", _MARKS, "false"),
        refused("primaryIndicatorName", "a name", "name of the mark", _MARKS),
        unused("statistics", "false", "count and measure", "counters are always on"),
    ),
    "JvmRouteBinderValve": (
        refused("enabled", "true", "rewrite the route after a failover", _ROUTE_OWN, "true"),
        refused("sessionIdAttribute", "a name", "tells the application the old id", _MARKS),
    ),
    "PersistentValve": (
        refused("filter", "unset", "requests without a session", _NO_STORE),
        refused("semaphoreFairness", "true", "first come, first served", _NO_STORE),
        refused("semaphoreBlockOnAcquire", "true", "wait for the session", _NO_STORE),
        refused("semaphoreAcquireUninterruptibly", "true", "ignore interrupts", _NO_STORE),
    ),
    "ClusterSingleSignOn": tuple(
        refused(name, default, meaning, _NO_SSO)
        for name, default, meaning in (
            ("cookieName", "JSESSIONIDSSO", "cookie"),
            ("cookieDomain", "unset", "its domain"),
            ("requireReauthentication", "false", "ask the realm each time"),
            ("mapSendOptions", "6", "send options"),
            ("rpcTimeout", "15000", "ms to wait for an answer"),
            ("accessTimeout", "5000", "ms until a silent member is gone"),
            ("terminateOnStartFailure", "false", "fail without the others' entries"),
        )
    ),
    "FarmWarDeployer": (
        *(
            refused(name, default, meaning, _NO_FARM)
            for name, default, meaning in (
                ("deployDir", "required", "where archives are put"),
                ("tempDir", "required", "where pieces are put together"),
                ("watchDir", "required", "where archives are looked for"),
                ("processDeployFrequency", "2", "ticks between two looks"),
                ("maxValidTime", "300", "seconds until a transfer is given up"),
            )
        ),
        refused("watchEnabled", "false", "whether they are looked for", _NO_FARM, "false"),
    ),
    **NEIGHBOUR_TABLES,
    "JvmRouteSessionIDBinderListener": (),
    "ClusterSessionListener": (),
    "Context": _CONTEXT,
    "Host": (
        mapped(
            "name",
            "required",
            "host_name",
            "contexts",
            "name of the virtual host",
            "part of a context's name where several hosts have the same path",
        ),
    ),
    "Engine": (
        elsewhere("jvmRoute", "unset", "route in session ids", _ROUTE),
        mapped(
            "backgroundProcessorDelay",
            "10",
            "delay",
            "manager.expiry_interval",
            "seconds between two ticks",
            "it is the unit of processExpiresFrequency",
            "10",
        ),
    ),
}
"""By the name of the class, or of the element where there is none."""
