"""Tomcat's attributes of cluster, managers, contexts and what stands around them.

It is long because it is one table: a row an attribute, found where Tomcat's documentation has it.

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
_LISTENERS: Final = "listeners of a node are told what its own applications do, and of expiries"
_SEMAPHORE: Final = "requests of a session wait in the order in which they came"
_SSO_STATE: Final = "logins that are not here yet are got from the others when they are asked for"
_TRACKING: Final = "give it to SessionMiddleware(tracking='url')"
_ROUTE: Final = "give it to SessionMiddleware(route=...)"
_ROUTE_OWN: Final = "SessionMiddleware(route=...) writes the answering node's route into the cookie"
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
        "60",
    ),
    unused("sendAllSessions", "true", "send all sessions in one message", _ALL_HOLD),
    mapped(
        "sendAllSessionsSize",
        "1000",
        "int",
        "manager.send_all_sessions_size",
        "sessions in a message",
        "whatever sendAllSessions says; at most 64 KiB of them",
    ),
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
    honoured(
        "mapSendOptions", "6", "options", "manager.map_send_options", "what a commit waits for"
    ),
    honoured("rpcTimeout", "15000", "int", "manager.rpc_timeout", "ms to wait for an answer"),
    honoured(
        "accessTimeout", "5000", "int", "manager.access_timeout", "ms until a silent member is gone"
    ),
    honoured(
        "terminateOnStartFailure",
        "false",
        "bool",
        "manager.terminate_on_start_failure",
        "fail the application when the sessions cannot be had",
    ),
)

_SQL: Final = "manager.sql."
_CHECK: Final = honoured(
    "checkInterval",
    "60",
    "int",
    "manager.check_interval_s",
    "seconds between two looks for expired sessions",
)
_COLUMNS: Final[Table] = tuple(
    honoured(name, default, "text", _SQL + key, meaning)
    for name, default, key, meaning in (
        ("sessionTable", "tomcat$sessions", "table", "table"),
        ("sessionIdCol", "id", "id_col", "column of the id"),
        ("sessionAppCol", "app", "app_col", "column of the application"),
        ("sessionDataCol", "data", "data_col", "column of the session"),
        ("sessionValidCol", "valid", "valid_col", "column of the validity"),
        ("sessionMaxInactiveCol", "maxinactive", "max_inactive_col", "column of the idle time"),
        ("sessionLastAccessedCol", "lastaccess", "last_accessed_col", "column of the last use"),
    )
)
_FILE_STORE: Final[Table] = (
    mapped(
        "directory",
        "work directory",
        "text",
        "manager.file.directory",
        "directory of the files",
        "a relative one is below the directory that the process runs in",
    ),
    _CHECK,
)
_SQL_STORE: Final[Table] = (
    *_COLUMNS,
    _CHECK,
    honoured("driverName", "unset", "text", f"{_SQL}driver_name", "class of the database's driver"),
    honoured("connectionName", "unset", "text", f"{_SQL}user", "user of the database"),
    honoured(
        "connectionURL", "unset", "url", f"{_SQL}url", "where the database is", is_secret=True
    ),
    honoured(
        "connectionPassword", "unset", "text", f"{_SQL}password", "its password", is_secret=True
    ),
    *(
        refused(name, default, meaning, "there is no JNDI here; write connectionURL", "false")
        for name, default, meaning in (
            ("dataSourceName", "unset", "name of the data source"),
            ("localDataSource", "false", "look it up in the application"),
        )
    ),
)

_MSM: Final[Table] = (
    honoured(
        "memcachedNodes",
        "required",
        "text",
        "manager.memcached_nodes",
        "the servers",
        is_secret=True,
    ),
    honoured("password", "unset", "text", "manager.password", "of the servers", is_secret=True),
    *(
        honoured(name, default, kind, f"manager.{key}", meaning)
        for name, default, kind, key, meaning in (
            ("failoverNodes", "empty", "text", "failover_nodes", "used when no other answers"),
            ("sticky", "true", "bool", "sticky", "requests of a session come to one instance"),
            ("lockingMode", "none", "text", "locking_mode", "requests that lock their session"),
            ("lockExpiration", "5", "int", "lock_expiration", "seconds of a lock"),
            ("operationTimeout", "1000", "int", "operation_timeout", "ms of an operation"),
            ("backupThreadCount", "processors", "int", "backup_thread_count", "threads that store"),
            (
                "requestUriIgnorePattern",
                "unset",
                "filter",
                "request_uri_ignore_pattern",
                "requests that store nothing",
            ),
            (
                "sessionAttributeFilter",
                "unset",
                "filter",
                "session_attribute_filter",
                "attributes that are stored",
            ),
            ("customConverter", "unset", "text", "custom_converter", "further serialisers"),
            (
                "storageKeyPrefix",
                "webappVersion",
                "text",
                "storage_key_prefix",
                "prefix of the keys",
            ),
            ("username", "unset", "text", "username", "user of the servers"),
            ("enabled", "true", "bool", "enabled", "store at all"),
            (
                "sessionBackupAsync",
                "true",
                "bool",
                "session_backup_async",
                "answer before the session is stored",
            ),
            (
                "sessionBackupTimeout",
                "100",
                "int",
                "session_backup_timeout",
                "ms that storing may take",
            ),
        )
    ),
    unused("memcachedProtocol", "text", "text or binary", "the text protocol is spoken"),
    unused("transcoderFactoryClass", "Java's", "serialiser", f"{_NO_JAVA}; the codec is safe"),
    unused("copyCollectionsForSerialization", "false", "copy collections first", _NO_JAVA),
    unused("enableStatistics", "true", "count what happens", "counters are always on"),
    *_COMMON,
)

_CONTEXT: Final[Table] = (
    honoured("path", "from the file", "context", "contexts", "path of the application"),
    honoured("docBase", "from the file", "context", "contexts", "directory of the application"),
    mapped(
        "distributable",
        "as web.xml says",
        "context",
        "context",
        "replicate its sessions (Tomcat 5)",
        "web.xml is not read: every context is distributable that does not say false here",
    ),
    *(
        honoured(name, default, kind, f"context.<name>.cookie.{key}", meaning)
        for name, default, kind, key, meaning in (
            ("sessionCookieName", "JSESSIONID", "text", "name", "name of the cookie"),
            ("sessionCookieDomain", "unset", "text", "domain", "domain of the cookie"),
            ("useHttpOnly", "true", "bool", "http_only", "keep the cookie from scripts"),
            ("usePartitioned", "false", "bool", "partitioned", "one for each top-level site"),
            (
                "sessionCookiePathUsesTrailingSlash",
                "false",
                "bool",
                "path_uses_trailing_slash",
                "append / to it",
            ),
        )
    ),
    mapped(
        "sessionCookiePath",
        "the context's",
        "text",
        "context.<name>.cookie.path",
        "path of the cookie",
        "here / unless set: a context's name need not be its path",
    ),
    elsewhere("cookies", "true", "carry ids in cookies", _TRACKING, "true"),
    unused(
        "crossContext",
        "false",
        "applications may use each other's sessions",
        "an application that calls another one calls its middleware, which commits its session",
        "false",
    ),
    honoured(
        "mapSendOptions",
        "2",
        "options",
        "context.<name>.attributes.map_send_options",
        "what setting an attribute of the application waits for",
    ),
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
        honoured(
            "notifyLifecycleListenerOnFailure",
            "false",
            "bool",
            "notify_on_failure",
            "an event for messages that nobody takes",
        ),
    ),
    "DeltaManager": _DELTA,
    "BackupManager": (*_MAP, *_CLUSTERED),
    "StandardManager": (
        honoured(
            "pathname", "unset", "text", "manager.pathname", "file for the sessions while stopped"
        ),
        *_COMMON,
    ),
    "PersistentManager": (
        honoured(
            "saveOnRestart",
            "true",
            "bool",
            "manager.save_on_restart",
            "store all sessions when stopping",
        ),
        honoured(
            "maxIdleBackup",
            "-1",
            "int",
            "manager.max_idle_backup_s",
            "idle seconds until a copy is stored",
        ),
        honoured(
            "minIdleSwap",
            "-1",
            "int",
            "manager.min_idle_swap_s",
            "idle seconds before it may be stored only",
        ),
        honoured(
            "maxIdleSwap",
            "-1",
            "int",
            "manager.max_idle_swap_s",
            "idle seconds until it is stored only",
        ),
        *_COMMON,
    ),
    "FileStore": _FILE_STORE,
    "JDBCStore": _SQL_STORE,
    "DataSourceStore": _SQL_STORE,
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
        mapped(
            "filter",
            "unset",
            "filter",
            "replication.filter",
            "requests that change no session",
            "Java's regular expression is read as Python's",
            "",
        ),
        honoured(
            "primaryIndicator", "false", "bool", "replication.primary_indicator", "mark requests"
        ),
        honoured(
            "primaryIndicatorName",
            "a name",
            "text",
            "replication.primary_indicator_name",
            "name of the mark",
        ),
        unused("statistics", "false", "count and measure", "counters are always on"),
    ),
    "JvmRouteBinderValve": (
        honoured(
            "enabled", "true", "bool", "route_binder.enabled", "rewrite the route after a failover"
        ),
        honoured(
            "sessionIdAttribute",
            "a name",
            "text",
            "route_binder.session_id_attribute",
            "tells the application the old id",
        ),
    ),
    "PersistentValve": (
        mapped(
            "filter",
            "unset",
            "filter",
            "manager.filter",
            "requests without a session",
            "Java's regular expression is read as Python's",
        ),
        honoured(
            "semaphoreBlockOnAcquire",
            "true",
            "bool",
            "manager.block_on_acquire",
            "wait for the session, or answer 429",
        ),
        unused("semaphoreFairness", "true", "first come, first served", _SEMAPHORE),
        unused(
            "semaphoreAcquireUninterruptibly",
            "true",
            "ignore interrupts",
            "a thread that waits is not interrupted, and a task gives up its place when cancelled",
        ),
    ),
    "ClusterSingleSignOn": (
        honoured("cookieName", "JSESSIONIDSSO", "text", "sso.cookie_name", "cookie"),
        honoured("cookieDomain", "unset", "text", "sso.cookie_domain", "its domain"),
        honoured("mapSendOptions", "6", "options", "sso.map_send_options", "send options"),
        refused(
            "requireReauthentication",
            "false",
            "ask the realm each time",
            "that needs the password, which no member keeps here",
            "false",
        ),
        unused("rpcTimeout", "15000", "ms to wait for an answer", _SSO_STATE),
        unused("accessTimeout", "5000", "ms until a silent member is gone", "see dropTime"),
        unused("terminateOnStartFailure", "false", "fail without the others' entries", _SSO_STATE),
    ),
    "FarmWarDeployer": (
        honoured("deployDir", "required", "text", "farm.deploy_dir", "where archives are put"),
        honoured("tempDir", "required", "text", "farm.temp_dir", "where pieces are put together"),
        honoured("watchDir", "required", "text", "farm.watch_dir", "where archives are looked for"),
        honoured("watchEnabled", "false", "bool", "farm.watch_enabled", "whether they are"),
        mapped(
            "processDeployFrequency",
            "2",
            "farm_ticks",
            "farm.process_deploy_frequency",
            "ticks between two looks",
            "with watchfiles installed a change is seen at once besides",
        ),
        honoured(
            "maxValidTime",
            "300",
            "int",
            "farm.max_valid_time_s",
            "seconds without a piece until a transfer is given up",
        ),
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
