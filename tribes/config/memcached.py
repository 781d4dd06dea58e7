"""The configuration of the Memcached manager: memcached-session-manager's, as typed data.

Attributes have its names (``memcachedNodes`` for ``memcached_nodes``) and its units.  Where it
behaves otherwise than its documentation says, ours does what that says (msm-sessions §12).

Record, checks and the readers of its small languages are one file: an attribute is in all three.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import ClassVar, Final, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from tribes.config.manager import ManagerConfig
from tribes.config.patterns import compiled as compiled
from tribes.config.secret import Secret
from tribes.config.stores import EnvelopeConfig
from tribes.errors import ConfigError

__all__ = [
    "LockingMode",
    "MemcachedConfig",
    "NodeSpec",
    "check_memcached",
    "compiled",
    "parse_failover",
    "parse_locking",
    "parse_nodes",
    "storage_prefix",
]

PREFIX_MAX_BYTES: Final = 100
"""A longer prefix of the keys is replaced by its digest: memcached's keys have 250 bytes at most,
and ids of sessions up to 128."""

_NAME: Final = re.compile(r"[A-Za-z0-9_]+")
_HOST: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_REDIS: Final = ("redis", "rediss", "unix")
_DATABASE: Final = re.compile(r"/[0-9]{1,9}")
_PRINTABLE: Final = re.compile(r"[!-~]*")


class NodeSpec(NamedTuple):
    """One server as the configuration names it.

    Attributes:
        name: Its id in ids of sessions, or empty.
        kind: ``"memcached"`` or ``"redis"``.
        host: Name or address; of a Unix socket the path.
        port: TCP port; 0 for a Unix socket.
        url: Of Redis, with user and password.
        is_failover: Used only when no other one answers.
    """

    name: str
    kind: Literal["memcached", "redis"]
    host: str
    port: int
    url: str = ""
    is_failover: bool = False


class LockingMode(NamedTuple):
    """When a request locks its session.

    Attributes:
        kind: ``"none"``, ``"all"``, ``"auto"`` or ``"pattern"``.
        pattern: For the last.
    """

    kind: Literal["none", "all", "auto", "pattern"]
    pattern: re.Pattern[str] | None = None


class MemcachedConfig(ManagerConfig, frozen=True, kw_only=True, tag="memcached"):
    """memcached-session-manager, on memcached, Redis or Valkey.

    Attributes:
        memcached_nodes: ``n1:host:port,n2:host:port``, ``host:port``, ``n1:/path/of/socket``, or
            ``redis://[user:password@]host[:port][/database]``, ``rediss://…``, ``unix://…``.
        failover_nodes: Names of nodes that are used only when no other one answers.
        sticky: True: the process's memory is the authority and a node has a spare copy. False: the
            nodes are, two of them where there are two, and memory is empty between requests.
        session_backup_async: Answer before the copy stands (sticky only).
        session_backup_timeout: Milliseconds that one call of a node may take; then it is down.
        backup_thread_count: Threads that write copies if asynchronous; 0: one per processor.
        operation_timeout: Milliseconds that a request waits for a lock, or for others to be done
            with the same session.
        locking_mode: ``none``, ``all``, ``auto`` or ``uriPattern:<regular expression>``; without
            ``sticky`` only.
        lock_expiration: Seconds after which the lock of a dead process is free.
        on_lock_timeout: ``"error"``: 503. ``"serve"``: go on without the lock.
        on_conflict: What to do when two requests wrote the same attribute at the same time:
            ``"serve"``: the later one wins, and is counted. ``"error"``: 503 for the later one.
        request_uri_ignore_pattern: Requests whose path matches in full use no session, unless the
            application asks for it.
        session_attribute_filter: Only attributes whose whole name matches are stored.
        transcoder_factory_class: Accepted; values are stored by our codec, whichever it names.
        storage_key_prefix: Tokens ``static:…``, ``host``, ``context``, ``webappVersion``, and
            ``host.hash``, ``context.hash``, with commas between them.
        webapp_version: What the token of that name stands for.
        memcached_protocol: Accepted; the text protocol is spoken, whichever it names.
        username: Of Redis, if not in the URL.
        password: Of Redis, if not in the URL.
        copy_collections_for_serialization: Accepted; values are always encoded in one go.
        custom_converter: Accepted if empty; register codecs in Python instead.
        enabled: False: no node is asked for anything (sticky only).
        probe_interval: Milliseconds between two questions whether a node lives.
        value_max_bytes: A longer session is not stored; 0: as long as an item of the server. Above
            that, a memcached gets it in pieces.
        envelope: How values are protected.
    """

    in_group: ClassVar[bool] = False

    memcached_nodes: str
    failover_nodes: str = ""
    sticky: bool = True
    session_backup_async: bool = False
    session_backup_timeout: int = 150
    backup_thread_count: int = 0
    operation_timeout: int = 1000
    locking_mode: str = "none"
    lock_expiration: int = 5
    on_lock_timeout: Literal["error", "serve"] = "error"
    on_conflict: Literal["serve", "error"] = "serve"
    request_uri_ignore_pattern: str = ""
    session_attribute_filter: str = ""
    transcoder_factory_class: str = ""
    storage_key_prefix: str = "webappVersion"
    webapp_version: str = ""
    memcached_protocol: Literal["text", "binary"] = "text"
    username: str = ""
    password: str = ""
    copy_collections_for_serialization: bool = False
    custom_converter: str = ""
    enabled: bool = True
    probe_interval: int = 1000
    value_max_bytes: int = 0
    envelope: EnvelopeConfig = EnvelopeConfig()

    def __post_init__(self) -> None:
        # A password may stand in the URL, too.
        for name in ("memcached_nodes", "password"):
            msgspec.structs.force_setattr(self, name, Secret(getattr(self, name)))


def check_memcached(config: MemcachedConfig) -> None:
    """Refuse values that cannot work.

    Raises:
        ConfigError: Names the key and what to write.
    """
    parse_nodes(config.memcached_nodes, config.failover_nodes)
    mode = parse_locking(config.locking_mode)
    if not config.sticky and config.failover_nodes.strip():
        raise ConfigError(
            "cannot be used with sticky = false, where every node has copies of others' sessions; "
            "leave it out",
            key="failoverNodes",
        )
    if not config.sticky and not config.enabled:
        raise ConfigError(
            "must be true with sticky = false: nothing else holds them", key="enabled"
        )
    if config.custom_converter:
        raise ConfigError(
            "names classes of Java; register codecs in Python: codec.register(…)",
            key="customConverter",
        )
    for name, key in _PATTERNS.items():
        compiled(getattr(config, name), key)
    for name, (key, least, most) in _RANGES.items():
        value = getattr(config, name)
        if not least <= value <= most:
            raise ConfigError(f"must be {least} to {most}, found {value}", key=key)
    if mode.kind != "none" and config.lock != "none":
        raise ConfigError(
            f"is {config.lock!r} and lockingMode is {config.locking_mode!r}: a request would wait "
            "for two locks; leave one of them out (lockingMode holds in all processes)",
            key="lock",
        )
    if not config.sticky:
        _check_roaming(config)
    if config.sticky and mode.kind != "none":
        # As in the original: nobody else has the session while a balancer is sticky.
        return
    storage_prefix(config, "")


def _check_roaming(config: MemcachedConfig) -> None:
    """Refuse what only a process could do that has the sessions in its memory."""
    if config.lock == "cluster":
        raise ConfigError(
            "is 'cluster', and there is no group; with sticky = false write lockingMode = 'all'",
            key="lock",
        )
    for name, is_set, why in (
        ("max_active_sessions", config.max_active_sessions >= 0, "no process counts the sessions"),
        ("session_activity_check", config.session_activity_check, "the servers expire sessions"),
        (
            "session_last_access_at_start",
            config.session_last_access_at_start,
            "a session's time begins anew when it is loaded, and when it is saved",
        ),
    ):
        if is_set:
            raise ConfigError(f"cannot be had with sticky = false: {why}; leave it out", key=name)


_PATTERNS: Final = {
    "request_uri_ignore_pattern": "requestUriIgnorePattern",
    "session_attribute_filter": "sessionAttributeFilter",
}
_RANGES: Final = {
    "session_backup_timeout": ("sessionBackupTimeout", 1, 60_000),
    "backup_thread_count": ("backupThreadCount", 0, 256),
    "operation_timeout": ("operationTimeout", 1, 600_000),
    "lock_expiration": ("lockExpiration", 1, 3600),
    "probe_interval": ("probe_interval", 10, 600_000),
    "value_max_bytes": ("value_max_bytes", 0, 512 * 1024 * 1024),
}


def parse_nodes(nodes: str, failover: str = "") -> list[NodeSpec]:
    """Read a list of nodes (msm-sessions §3.1).

    Args:
        nodes: ``memcachedNodes``.
        failover: ``failoverNodes``.

    Raises:
        ConfigError: Names the part that is wrong; never shows a URL.
    """
    text = "".join(nodes).strip()
    if not text:
        raise ConfigError("is missing; write n1:host:port,n2:host:port", key="memcachedNodes")
    if "://" in text:
        specs = [_redis(text)]
    else:
        parts = [part for part in re.split(r"[,\s]+", text) if part]
        specs = [_node(part, is_only=len(parts) == 1) for part in parts]
    _refuse_twins(specs)
    spare = parse_failover(failover)
    names = {spec.name for spec in specs}
    for name in spare:
        if name not in names:
            raise ConfigError(
                f"{name!r} is not one of the nodes {', '.join(sorted(names)) or 'without names'}",
                key="failoverNodes",
            )
    if spare and len(spare) == len(specs):
        raise ConfigError("leaves no node for normal use; take one off it", key="failoverNodes")
    return [spec._replace(is_failover=spec.name in spare) for spec in specs]


def parse_failover(failover: str) -> list[str]:
    """Read a list of names.

    Raises:
        ConfigError: A name is there twice.
    """
    names = [part for part in re.split(r"[,\s]+", failover.strip()) if part]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{name!r} is there twice", key="failoverNodes")
    return names


def _refuse_twins(specs: list[NodeSpec]) -> None:
    for what, values in (
        ("name", [spec.name for spec in specs]),
        ("address", [f"{spec.host}:{spec.port}" for spec in specs]),
    ):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise ConfigError(
                f"has the {what} {twice[0]!r} twice; every node needs its own",
                key="memcachedNodes",
            )


def _node(part: str, *, is_only: bool) -> NodeSpec:
    fields = part.split(":")
    if len(fields) == 2 and fields[1].startswith("/"):
        name, path = fields
        _check_name(name, part)
        return NodeSpec(name, "memcached", path, 0)
    if is_only and part.startswith("/"):
        return NodeSpec("", "memcached", part, 0)
    if len(fields) == 3:
        name, host, port = fields
        _check_name(name, part)
    elif len(fields) == 2 and is_only:
        name, (host, port) = "", fields
    else:
        raise ConfigError(
            f"{_shown(part)} is no node; write name:host:port"
            + (", or host:port" if is_only else ", a name for each of several"),
            key="memcachedNodes",
        )
    if not _HOST.fullmatch(host):
        raise ConfigError(f"{_shown(host)} in {_shown(part)} is no host", key="memcachedNodes")
    return NodeSpec(name, "memcached", host, _port(port, part))


def _shown(part: str) -> str:
    """A part of the text, for an error; a URL that was mistyped may hold a password."""
    return "<hidden>" if "@" in part or "/" in part else repr(part[:80])


def _check_name(name: str, part: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{_shown(name)} in {_shown(part)} must consist of letters, digits and '_': it stands "
            "in ids",
            key="memcachedNodes",
        )


def _port(text: str, part: str) -> int:
    # int() refuses very long texts with an error of its own.
    port = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    if not 0 < port < 65536:
        raise ConfigError(f"{_shown(text)} in {_shown(part)} is no port", key="memcachedNodes")
    return port


def _redis(url: str) -> NodeSpec:
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
    except ValueError:
        raise ConfigError("has a port that is none", key="memcachedNodes") from None
    if parts.scheme not in _REDIS or re.search(r"[,\s]", url):
        raise ConfigError(
            f"{parts.scheme}: is not known; write one redis://, rediss:// or unix:// URL",
            key="memcachedNodes",
        )
    if parts.scheme == "unix":
        if not parts.path:
            raise ConfigError("lacks the path of the socket", key="memcachedNodes")
        return NodeSpec("", "redis", parts.path, 0, url)
    if not parts.hostname:
        raise ConfigError("lacks the host", key="memcachedNodes")
    if parts.path not in ("", "/") and not _DATABASE.fullmatch(parts.path):
        raise ConfigError("has a database that is no number", key="memcachedNodes")
    return NodeSpec("", "redis", parts.hostname, port, url)


def parse_locking(text: str) -> LockingMode:
    """Read ``lockingMode``.

    Raises:
        ConfigError: It is none of them, or the pattern is no regular expression.
    """
    name, colon, pattern = text.strip().partition(":")
    kind = name.strip().lower()
    if kind == "uripattern" and colon and pattern:
        return LockingMode("pattern", compiled(pattern, "lockingMode"))
    if not colon:
        for known in ("none", "all", "auto"):
            if kind == known:
                return LockingMode(known)
    raise ConfigError(
        f"{text!r} is not known; write none, all, auto or uriPattern:<regular expression>",
        key="lockingMode",
    )


def storage_prefix(config: MemcachedConfig, context: str) -> str:
    """What stands before every key: the tokens' values, or a digest of them (msm-sessions §5.2).

    Args:
        config: The tokens.
        context: Name of the application; of several hosts ``host#application``.

    Raises:
        ConfigError: A token is not known.
    """
    host, mark, application = context.partition("#")
    if not mark:
        host, application = "", context
    values = []
    for token in config.storage_key_prefix.split(","):
        name, colon, text = token.strip().partition(":")
        if name == "static" and colon and ":" not in text:
            value = text
        elif name in ("host", "host.hash"):
            value = host
        elif name in ("context", "context.hash"):
            value = application
        elif token.strip() == "webappVersion":
            value = config.webapp_version
        elif not token.strip():
            continue
        else:
            raise ConfigError(
                f"{token.strip()!r} is not known; write static:<text>, host, host.hash, context, "
                "context.hash or webappVersion",
                key="storageKeyPrefix",
            )
        if value and name.endswith(".hash"):
            value = sha256(value.encode()).hexdigest()[:8]
        values.append(value)
    prefix = ":".join(value for value in values if value)
    if len(prefix) > PREFIX_MAX_BYTES or not _PRINTABLE.fullmatch(prefix):
        prefix = sha256(prefix.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{prefix}_" if prefix else ""
