"""``tribes node``: a member without a web application, to hold copies and to watch.

It is long for its options: each is a declaration, an argument, and the key that it sets.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Set
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import click
import structlog
import trio
from click.core import ParameterSource

from tribes.admin.desk import open_desk
from tribes.admin.recorder import Failures
from tribes.cli.address import static_member
from tribes.cli.logs import LOG_FORMATS, set_log_level, set_up_logging
from tribes.cli.progress_bar import ProgressBar
from tribes.cli.reload import Reload
from tribes.config import read_config, read_config_bytes, value_at, with_value
from tribes.config.model import (
    LOG_LEVELS,
    ChannelConfig,
    ManagerConfig,
    MembershipConfig,
    NodeConfig,
    ReceiverConfig,
    TlsConfig,
    check_config,
)
from tribes.errors import ConfigError, FarmError
from tribes.farm.service import Farm, open_farm
from tribes.farm.tomcat import TomcatDeployments
from tribes.runtime.attach_server import open_attach
from tribes.runtime.group_channel import GroupChannel
from tribes.wire.options import parse_send_options

if TYPE_CHECKING:
    from tribes.channel.outputs import Event

__all__ = ["STATUS_NOT_DRAINED", "live_sessions", "node"]

STATUS_NOT_DRAINED = 3
"""Exit status of a node that left without every receipt."""

log = structlog.get_logger("tribes")

_ENDS = (signal.SIGTERM, signal.SIGINT)

_DEFAULT_MEMBERSHIP = MembershipConfig()
_DEFAULT_RECEIVER = ReceiverConfig()


_TLS = ("channel.tls",)
_KEYS: dict[str, tuple[str, ...]] = {
    "name": ("name",),
    "address": ("channel.receiver.address",),
    "port": ("channel.receiver.port",),
    "auto_bind": ("channel.receiver.auto_bind",),
    "multicast_address": ("channel.membership.address",),
    "multicast_port": ("channel.membership.port",),
    "multicast_bind": ("channel.membership.bind",),
    "frequency": ("channel.membership.frequency",),
    "drop_time": ("channel.membership.drop_time",),
    "members": ("channel.membership.static",),
    "multicast": ("channel.membership.multicast",),
    "domain": ("channel.membership.domain",),
    "contexts": ("contexts", "hold_all"),
    "send_options": ("manager.channel_send_options",),
    "key_file": ("channel.key_file",),
    "plain_peers": ("channel.plain_peers",),
    "tls_certificate": _TLS,
    "tls_private_key": _TLS,
    "tls_authorities": _TLS,
    "tls_peer_names": _TLS,
    "insecure": ("insecure",),
    "log_level": ("log_level",),
    "attach": ("attach",),
}
"""What each option sets."""


@click.command("node")
@click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False),
    help="File to begin with: TOML, or Tomcat's XML. Variables TRIBES_... go over it, and the "
    "other options over both; see `tribes config`.",
)
@click.option("--name", default="", help="What people call this node; travels in its heartbeats.")
@click.option(
    "--address",
    default=_DEFAULT_RECEIVER.address,
    show_default=True,
    help="Address to listen on, and that other members connect to.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=_DEFAULT_RECEIVER.port,
    show_default=True,
    help="First TCP port to try; 0 = any free one.",
)
@click.option(
    "--auto-bind",
    type=click.IntRange(1),
    default=_DEFAULT_RECEIVER.auto_bind,
    show_default=True,
    help="How many ports to try.",
)
@click.option(
    "--multicast-address",
    default=_DEFAULT_MEMBERSHIP.address,
    show_default=True,
    help="Group in which the members find each other.",
)
@click.option(
    "--multicast-port",
    type=click.IntRange(1, 65535),
    default=_DEFAULT_MEMBERSHIP.port,
    show_default=True,
)
@click.option(
    "--multicast-bind",
    default=None,
    help="Address of the interface for heartbeats; default: the one of --address.",
)
@click.option(
    "--frequency",
    type=click.IntRange(1),
    default=_DEFAULT_MEMBERSHIP.frequency,
    show_default=True,
    help="Milliseconds between two heartbeats.",
)
@click.option(
    "--drop-time",
    type=click.IntRange(1),
    default=_DEFAULT_MEMBERSHIP.drop_time,
    show_default=True,
    help="Milliseconds of silence after which a member is taken for gone.",
)
@click.option(
    "--member",
    "members",
    multiple=True,
    metavar="HOST[:PORT]",
    help="Where a member is, for networks without multicast: it tells of the others. May be "
    "repeated; the port is 4000 if not given, [ADDRESS]:PORT is for IPv6.",
)
@click.option(
    "--multicast/--no-multicast",
    default=True,
    show_default=True,
    help="Send and hear heartbeats; without them members are found by --member only.",
)
@click.option("--domain", default="", help="Domain that the heartbeats carry.")
@click.option(
    "--context",
    "contexts",
    multiple=True,
    help="Context to hold copies of; may be repeated. Default: every one that members announce.",
)
@click.option(
    "--send-options",
    default="8",
    show_default=True,
    help="Guarantee of what this node sends, as in channelSendOptions: 8, 'sync,use_ack', …",
)
@click.option(
    "--key-file",
    default="",
    help="The group's keys, as tribes keygen writes them: with a key only those who have it are "
    "members. Read again on SIGHUP.",
)
@click.option(
    "--plain-peer",
    "plain_peers",
    multiple=True,
    help="IP address that needs no key, for Tomcat's members, or 'any'; may be repeated.",
)
@click.option(
    "--tls-certificate",
    default="",
    help="This member's certificate (PEM): with it all connections are TLS, on both sides. Read "
    "again on SIGHUP, like the next two.",
)
@click.option("--tls-private-key", default="", help="Its key; default: in the same file.")
@click.option(
    "--tls-authorities",
    default="",
    help="Certificates of those who sign members' certificates; nobody else is trusted.",
)
@click.option(
    "--tls-peer-name",
    "tls_peer_names",
    multiple=True,
    help="What members' certificates must name: a DNS name, an IP address, or 'any'; may be "
    "repeated. Default: the address of the connection.",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Allow an address other than loopback without key and TLS: nothing is authenticated then.",
)
@click.option(
    "--attach",
    default="",
    metavar="SOCKET",
    help="Let the worker processes of this host use this node, by a unix socket of this path, "
    "instead of being members themselves.",
)
@click.option("--log-format", type=click.Choice(LOG_FORMATS), default="text", show_default=True)
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS),
    default="info",
    show_default=True,
)
@click.pass_context
def node(
    ctx: click.Context,
    config_file: str | None,
    name: str,
    address: str,
    port: int,
    auto_bind: int,
    multicast_address: str,
    multicast_port: int,
    multicast_bind: str | None,
    frequency: int,
    drop_time: int,
    members: tuple[str, ...],
    multicast: bool,
    domain: str,
    contexts: tuple[str, ...],
    send_options: str,
    key_file: str,
    plain_peers: tuple[str, ...],
    tls_certificate: str,
    tls_private_key: str,
    tls_authorities: str,
    tls_peer_names: tuple[str, ...],
    insecure: bool,
    attach: str,
    log_format: str,
    log_level: str,
) -> None:
    """Join a group, hold copies of its sessions, print what happens.

    SIGTERM and Ctrl-C make it leave in good order. A second signal ends it at once. SIGHUP makes it
    read its configuration, keys and certificates again.

    Exit codes: 0: it has left in good order; 1: it could not start; 2: wrong command line; 3:
    others have not confirmed in time that they have the sessions, or those could not be saved.
    """
    set_up_logging(log_format, log_level)
    try:
        options = NodeConfig(
            name=name,
            contexts=contexts,
            hold_all=not contexts,
            insecure=insecure,
            attach=attach,
            channel=ChannelConfig(
                membership=MembershipConfig(
                    multicast=multicast,
                    static=tuple(map(static_member, members)),
                    address=multicast_address,
                    port=multicast_port,
                    bind=multicast_bind or address,
                    frequency=frequency,
                    drop_time=drop_time,
                    domain=domain,
                ),
                receiver=ReceiverConfig(address=address, port=port, auto_bind=auto_bind),
                key_file=key_file,
                plain_peers=plain_peers,
                tls=_tls(tls_certificate, tls_private_key, tls_authorities, tls_peer_names),
            ),
            manager=ManagerConfig(channel_send_options=parse_send_options(send_options)),
            log_level=log_level,
        )
        given = {
            option
            for option in ctx.params
            if ctx.get_parameter_source(option) is ParameterSource.COMMANDLINE
        }
        status = trio.run(_run, partial(_config, config_file, options, given), config_file or "")
    except* ConfigError as group:
        raise click.ClickException(str(_first(group))) from group
    if status:
        ctx.exit(status)


def _config(path: str | None, options: NodeConfig, given: Set[str]) -> NodeConfig:
    """The file, with the environment over it, and the options that were given over both."""
    loaded = (
        read_config(path, environ=os.environ)
        if path
        else read_config_bytes(b"", environ=os.environ)
    )
    for notice in loaded.notices:
        log.warning("configuration", file=path, notice=str(notice))
    config = loaded.config
    for option in given & set(_KEYS):
        for key in _KEYS[option]:
            config = with_value(config, key, value_at(options, key))
    if "address" in given and "multicast_bind" not in given:
        bind = options.channel.membership.bind
        config = with_value(config, "channel.membership.bind", bind)
    if not config.contexts:
        config = with_value(config, "hold_all", True)
    try:
        check_config(config)
    except ConfigError as error:
        raise (loaded.located(error) if path else error) from None
    return config


def _tls(
    certificate: str, private_key: str, authorities: str, peer_names: tuple[str, ...]
) -> TlsConfig | None:
    if not (certificate or private_key or authorities or peer_names):
        return None
    return TlsConfig(
        certificate=certificate,
        private_key=private_key,
        authorities=authorities,
        peer_names=peer_names,
    )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _run(read: Callable[[], NodeConfig], source: str = "") -> int:
    """Be a member until a signal comes; returns the exit status."""
    config = read()
    set_log_level(config.log_level)
    reload = getattr(signal, "SIGHUP", None)
    bar, failures = ProgressBar(sys.stdout), Failures()

    def watch(event: Event) -> None:
        bar.watch(event)
        failures.watch(event)

    with trio.open_signal_receiver(*_ENDS, *([reload] if reload else [])) as signals:
        channel = GroupChannel(config, watch=watch)
        farm = _farm(channel, failures)
        TomcatDeployments().listen(channel)
        async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
            reload_token = await _operators(stack, channel, failures, source, farm)
            async with channel, _opened(farm):
                _say_ready(channel)
                settings = Reload(channel, config, read=read, read_token=reload_token)
                # Workers are let go before the node leaves: then nothing can come after its end.
                async with _workers(channel):
                    async for number in signals:
                        if number == reload:
                            settings.again()
                            continue
                        log.info("node leaves", signal=signal.Signals(number).name)
                        channel.retire()
                        break
                nursery.start_soon(_give_up, signals, nursery)
            nursery.cancel_scope.cancel()
        sessions = live_sessions(channel)
        report = channel.drain_report
        status = 0 if report is not None and report.is_complete else STATUS_NOT_DRAINED
        log.info("node left", sessions=sessions, status=status)
    return status


def live_sessions(channel: GroupChannel) -> dict[str, int]:
    """How many live sessions each context has here."""
    return {c: m.table.live for c, m in channel.sessions.managers.items()}


@asynccontextmanager
async def _workers(channel: GroupChannel) -> AsyncIterator[None]:
    """Serve the workers of this host, if that is configured."""
    if not channel.config.attach:
        yield
        return
    async with open_attach(channel, channel.config.attach):
        yield


def _say_ready(channel: GroupChannel) -> None:
    config = channel.config
    membership = config.channel.membership
    log.info(
        "node ready",
        node=config.name,
        address="{}:{}".format(*channel.local.address),
        group=f"{membership.address}:{membership.port}" if membership.multicast else "none",
        contexts=list(config.contexts) or "all",
        key=config.channel.key_file or "none",
        tls=config.channel.tls.certificate if config.channel.tls else "none",
    )


def _farm(channel: GroupChannel, failures: Failures) -> Farm | None:
    config = channel.config
    if config.farm is None:
        return None
    if not config.farm.is_on(is_protected=config.channel.is_protected):
        log.warning(
            "farm is off",
            why="nothing protects the group, and whoever reaches a port of a member could deploy",
            enable="give the group a key, or write enabled = true under [farm]",
        )
        return None
    return Farm(channel, config.farm, watch=failures.note)


@asynccontextmanager
async def _opened(farm: Farm | None) -> AsyncIterator[None]:
    """The farm while the body runs."""
    if farm is None:
        yield
        return
    try:
        async with open_farm(farm):
            yield
    except* FarmError as group:
        why = _first(group)
        raise ConfigError(str(why), key="farm") from why


async def _operators(
    stack: AsyncExitStack,
    channel: GroupChannel,
    failures: Failures,
    source: str,
    farm: Farm | None,
) -> Callable[[], None]:
    """Open the port for operators, if there is to be one; returns what reads its token again."""
    if channel.config.http is None:
        return lambda: None
    again = await stack.enter_async_context(
        open_desk(
            channel.config.http,
            channel,
            failures,
            source=source,
            leave=lambda: signal.raise_signal(signal.SIGTERM),
            farm=farm,
        )
    )

    def reload() -> None:
        try:
            if again():
                log.info("token read again")
        except ConfigError as error:
            log.error("token stays as it was", error=str(error))

    return reload


async def _give_up(signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
    """Somebody who asks twice does not want to wait."""
    async for number in signals:
        if number in _ENDS:
            log.warning("node leaves at once", signal=signal.Signals(number).name)
            nursery.cancel_scope.cancel()
