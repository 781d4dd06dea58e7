"""memcached-session-manager's ``<Manager>``: its attributes, and what each does here.

Sources: msm-sessions §3.2, tomcat-sessions §14.3.
"""

from __future__ import annotations

from typing import Final

from tribes.config.tomcat.attributes import Table, elsewhere, honoured, mapped, refused, unused

__all__ = ["MSM_CLASS", "MSM_TABLE"]

MSM_CLASS: Final = "de.javakaffee.web.msm.MemcachedBackupSessionManager"

_NO_JAVA: Final = "there are no classes of Java here"

MSM_TABLE: Final[Table] = (
    honoured(
        "memcachedNodes", "required", "text", "memcached_nodes", "the servers", is_secret=True
    ),
    honoured(
        "failoverNodes", "empty", "text", "failover_nodes", "nodes used when no other answers"
    ),
    honoured("sticky", "true", "bool", "sticky", "a session's requests come to one instance"),
    honoured("lockingMode", "none", "text", "locking_mode", "requests that lock their session"),
    honoured("lockExpiration", "5", "int", "lock_expiration", "seconds of a dead process's lock"),
    honoured("operationTimeout", "1000", "int", "operation_timeout", "ms to wait for a lock"),
    honoured(
        "sessionBackupAsync", "true", "bool", "session_backup_async", "answer before it is stored"
    ),
    honoured(
        "sessionBackupTimeout",
        "100",
        "int",
        "session_backup_timeout",
        "ms that a call of a node may take",
    ),
    honoured("backupThreadCount", "processors", "int", "backup_thread_count", "threads that store"),
    honoured(
        "requestUriIgnorePattern",
        "unset",
        "text",
        "request_uri_ignore_pattern",
        "requests that use no session",
    ),
    honoured(
        "sessionAttributeFilter",
        "unset",
        "text",
        "session_attribute_filter",
        "attributes that are stored",
    ),
    mapped(
        "transcoderFactoryClass",
        "Java's",
        "text",
        "transcoder_factory_class",
        "serialiser",
        "values are stored by the codec of this program, whichever class it names",
    ),
    unused(
        "copyCollectionsForSerialization",
        "false",
        "copy collections before they are stored",
        "each request has values of its own",
    ),
    refused("customConverter", "unset", "further serialisers", f"{_NO_JAVA}; see codec.register"),
    honoured(
        "storageKeyPrefix", "webappVersion", "text", "storage_key_prefix", "prefix of the keys"
    ),
    mapped(
        "memcachedProtocol",
        "text",
        "text",
        "memcached_protocol",
        "text or binary",
        "the text protocol is spoken: memcached deprecates the binary one",
        "text",
    ),
    honoured("username", "unset", "text", "username", "user of the servers"),
    honoured("password", "unset", "text", "password", "password of the servers", is_secret=True),
    unused("enableStatistics", "true", "count what happens", "counters are always on"),
    honoured("enabled", "true", "bool", "enabled", "use the servers at all"),
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
        "seconds of idleness until a session expires",
    ),
    honoured(
        "sessionIdLength", "16", "int", "manager.session_id_length", "random bytes of a session id"
    ),
    unused(
        "processExpiresFrequency",
        "6",
        "ticks between two looks",
        "it has a timer of its own",
    ),
    elsewhere("jvmRoute", "the Engine's", "route in ids", "SessionMiddleware(route=...)"),
)
