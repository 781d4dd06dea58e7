"""The configuration of a node, as typed data. It builds nothing and touches no network.

Names are Python's (``drop_time``); every docstring line gives Tomcat's attribute where there is
one. Times are milliseconds, as in Tomcat, unless the name says otherwise. Unknown keys are refused
by :func:`msgspec.convert`, so a typing error never passes in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

import msgspec

from tribes.config.bounds import check_bounds
from tribes.config.channel import AUTO as AUTO
from tribes.config.channel import ChannelConfig as ChannelConfig
from tribes.config.channel import DnsConfig as DnsConfig
from tribes.config.channel import InterceptorConfig as InterceptorConfig
from tribes.config.channel import KubernetesConfig as KubernetesConfig
from tribes.config.channel import MembershipConfig as MembershipConfig
from tribes.config.channel import ReceiverConfig as ReceiverConfig
from tribes.config.channel import SenderConfig as SenderConfig
from tribes.config.channel import StaticMemberConfig as StaticMemberConfig
from tribes.config.channel import TlsConfig as TlsConfig
from tribes.config.channel_checks import check_channel, check_exposure
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
from tribes.config.typed import check_types
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

CONTEXT_MAX_CHARS = 256
"""Of a context's name."""

PAYLOAD_MAX_BYTES = 65_000
"""With the rest of a heartbeat one datagram, which has 65,507 bytes at most."""


class NodeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
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
    check_types(config)
    check_bounds(config)
    check_channel(config.channel)
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
    if max(len(config.payload), len(config.name.encode())) > PAYLOAD_MAX_BYTES:
        key = "payload" if config.payload else "name"
        what = f"has more than {PAYLOAD_MAX_BYTES} bytes, which no heartbeat holds; shorten it"
        raise ConfigError(what, key=key)
    if config.sso is not None:
        sso = config.sso
        check_cookie("sso", name=sso.cookie_name, domain=sso.cookie_domain, prefix="cookie_")
    check_managers(config)
    check_valves(config.valves, config.replication, config.draining, config.crawlers)
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
    if config.http is not None:
        check_http_protection(config.http)
    check_exposure(config.channel, is_insecure=config.insecure)


def check_managers(config: NodeConfig) -> None:
    """Refuse managers that cannot work. Part of `check_config`.

    Raises:
        ConfigError: Names the key, what was found and what to write instead.
    """
    check_types(config)
    managers: dict[str, ManagerConfig] = {"manager": config.manager}
    _check_names(config)
    for name, context in config.context.items():
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


def _check_names(config: NodeConfig) -> None:
    for name in config.contexts:
        key = "context" if name in config.context else "contexts"
        if not name or len(name) > CONTEXT_MAX_CHARS:
            raise ConfigError(
                f"a context's name has 1 to {CONTEXT_MAX_CHARS} characters, found {name[:40]!r}",
                key=key,
            )
        if config.contexts.count(name) > 1:
            raise ConfigError(f"{name!r} is there twice; keep one of the two", key=key)


def _check_places(config: NodeConfig) -> None:
    """Two contexts in one file, directory or part of a table would take each other's sessions for
    damaged.
    """
    places: dict[tuple[str, ...], str] = {}
    for context in config.contexts:
        name, *place = _place_of(config.manager_of(context), context)
        if not name:
            continue
        before = places.setdefault((name, *place), context)
        if before == context:
            continue
        own = config.context.get(context)
        at = f"context.{context}.manager" if own is not None and own.manager else "manager"
        remedy = "give each its own, or write {context} where its name is to stand"
        if name == "sql.app":
            remedy = "take it away: then each has the rows of its own name"
        raise ConfigError(
            f"{place[0]!r} is that of the contexts {before!r} and {context!r}; {remedy}",
            key=f"{at}.{name}",
        )


def _place_of(manager: ManagerConfig, context: str) -> tuple[str, ...]:
    """The key by which a manager's sessions have their place, the place, and what that is in."""
    if isinstance(manager, StandardConfig) and manager.pathname:
        return "pathname", manager.pathname
    if isinstance(manager, PersistentConfig) and manager.file is not None:
        return "file.directory", manager.file.directory
    if isinstance(manager, PersistentConfig) and manager.sql is not None:
        return "sql.app", manager.sql.app or context, "".join(manager.sql.url), manager.sql.table
    return ("",)


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
