"""What can be seen without anybody else: the file, keys, addresses, ports and limits."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from typing import TYPE_CHECKING, Final, NamedTuple, final

from tribes.admin.doctor.findings import Finding, State, fail, ok, warn
from tribes.admin.doctor.interfaces import interface_of, interfaces, owner_of
from tribes.admin.gate import read_token
from tribes.config.model import check_config, check_protection
from tribes.errors import ConfigError
from tribes.runtime.key_files import read_keys, read_tls
from tribes.security.mark import MARK_BYTES
from tribes.wire.limits import DATAGRAM_MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tribes.config.load import Loaded
    from tribes.config.model import NodeConfig
    from tribes.runtime.tls import Tls
    from tribes.security.keys import KeyRing

__all__ = ["Secrets", "is_loopback", "look_at_machine", "look_at_settings", "read_secrets"]

_HEADERS_BYTES: Final = 28
"""Of IPv4 and UDP, in front of a datagram."""
_FILES_OF_A_NODE: Final = 64
"""Files, sockets and pipes of a node without members."""
_FILES_SPARE: Final = 24
_OPERATORS: Final = 32
"""Connections that the port for operators takes."""
_MEMBERS_LIKELY: Final = 8


@final
class Secrets(NamedTuple):
    """What the configuration's files hold; None: there is none, or it cannot be read."""

    keys: KeyRing | None
    tls: Tls | None


def look_at_settings(loaded: Loaded) -> list[Finding]:
    """Whether the configuration can work, and is protected."""
    found = []
    config, refused = loaded.config, ""
    try:
        check_protection(config)
    except ConfigError as error:
        refused = error.message
        found.append(_protection(loaded.located(error)))
    else:
        kind = "a key" if config.channel.has_key else "TLS" if config.channel.tls else ""
        if kind:
            found.append(ok("protection", f"the group is protected by {kind}"))
        elif config.insecure:
            text = "insecure = true: whoever reaches the port can read and change sessions"
            fix = "unless the network is trusted, make a key with tribes keygen, for key_file"
            found.append(warn("protection", text, fix))
        else:
            found.append(ok("protection", "nothing is protected, and only this machine gets in"))
    try:
        check_config(config)
    except ConfigError as error:
        if error.message != refused:
            text = str(loaded.located(error))
            found.append(
                fail("configuration", text, "mend this setting; see docs/configuration.md")
            )
            return found
    left = [str(notice) for notice in loaded.notices]
    if left:
        text = f"{len(left)} settings are not simply honoured, the first: {left[0]}"
        found.append(warn("configuration", text, "read them all with tribes config check"))
    else:
        found.append(ok("configuration", f"{loaded.source or 'the defaults'} can be used"))
    return found


def _protection(error: ConfigError) -> Finding:
    text = str(error).partition(". Give the group a key")[0].partition("\n")[0]
    fix = (
        "make a key with tribes keygen --output group.key and name it in [channel] as key_file on "
        "every member, or write insecure = true where the network is trusted"
    )
    if "http" in error.key:
        fix = "name a file with a token as http.token_file, or leave http.address on 127.0.0.1"
    return fail("protection", f"the node refuses to start (protected mode): {text}", fix)


def read_secrets(config: NodeConfig) -> tuple[list[Finding], Secrets]:
    """Whether keys, certificates and the operators' token can be read, and what they are."""
    found: list[Finding] = []
    keys, tls = None, None
    channel = config.channel
    try:
        keys = read_keys(channel)
        if keys is not None:
            where = channel.key_file or "channel.keys"
            shown = ", ".join(map(str, keys.ids))
            found.append(ok("key", f"{where} has the keys {shown}; {keys.current.id} signs"))
    except ConfigError as error:
        fix = "make the file readable for the node's user only, with the line of tribes keygen"
        found.append(fail("key", str(error), fix))
    try:
        tls = read_tls(channel)
        if tls is not None:
            found.append(ok("tls", "certificate, key and authorities can be used"))
    except ConfigError as error:
        found.append(fail("tls", str(error), "mend the file that is named; see docs/security.md"))
    if config.http is not None and config.http.token_file:
        try:
            read_token(config.http.token_file)
            found.append(ok("token", f"{config.http.token_file} can be read"))
        except ConfigError as error:
            fix = "write a token of 16 characters or more into it, and chmod 600 it"
            found.append(fail("token", str(error), fix))
    return found, Secrets(keys, tls)


def look_at_machine(config: NodeConfig, *, heartbeat_bytes: int, members: int) -> list[Finding]:
    """Addresses, ports and limits of this machine.

    Args:
        config: With an address for each ``auto``.
        heartbeat_bytes: Length of the node's member record.
        members: Others that are known.
    """
    addresses = list(_addresses(config))
    is_here = all(each.state is State.OK for each in addresses)
    return [
        *addresses,
        *(_own_name(config) if is_here else ()),
        *_static_names(config),
        *_ports(config),
        *_mtu(config, heartbeat_bytes),
        *_buffers(config),
        _files(config, members),
    ]


# ---- addresses ---------------------------------------------------------------------------------


def is_loopback(address: str) -> bool:
    """Whether an address is this machine's own business."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _addresses(config: NodeConfig) -> Iterator[Finding]:
    receiver, membership = config.channel.receiver, config.channel.membership
    known = interfaces()
    settings = {"channel.receiver.address": receiver.address}
    if membership.multicast:
        settings["channel.membership.bind"] = membership.bind
    is_fine = True
    for key, address in settings.items():
        try:
            why = _why_not_here(address)
        except (OSError, ValueError) as error:
            why = str(error)
        if why:
            is_fine = False
            has = ", ".join(dict.fromkeys(f"{e.address} ({e.name})" for e in known)) or "unknown"
            fix = f"write one of this machine's addresses as {key}: {has}"
            yield fail("address", f"{key} is {address}: {why}", fix)
    if not is_fine:
        return
    if membership.multicast and is_loopback(membership.bind) != is_loopback(receiver.address):
        text = (
            f"connections come to {receiver.address}, and heartbeats use the interface of "
            f"{membership.bind}: one of the two never leaves this machine"
        )
        fix = f'write bind = "{receiver.address}" under [channel.membership], or auto for both'
        yield fail("address", text, fix)
        return
    interface = interface_of(receiver.address, known)
    where = f" ({interface.name})" if interface else ""
    yield ok("address", f"{receiver.address}{where} is an address of this machine")


def _why_not_here(address: str) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError as why:
            if why.errno == errno.EADDRNOTAVAIL:
                return "no interface of this machine has it"
            return str(why.strerror)
    return ""


def _own_name(config: NodeConfig) -> Iterator[Finding]:
    """Debian writes ``127.0.1.1 NAME`` into /etc/hosts: who looks the name up there gets an address
    that nobody else can reach.
    """
    name, address = socket.gethostname(), config.channel.receiver.address
    own = _look_up(name)
    trapped = [each for each in own if is_loopback(each)]
    if trapped and not is_loopback(address):
        text = f"this machine's name {name} is {trapped[0]} here: others cannot reach that"
        fix = f"let the line of {name} in /etc/hosts say {address} instead of {trapped[0]}"
        yield warn("names", text, fix)
    elif is_loopback(address) and address in own and address not in ("127.0.0.1", "::1"):
        text = f"channel.receiver.address is {address}, which /etc/hosts gives for {name}"
        fix = "write the address of the network interface, or auto, and mend the line in /etc/hosts"
        yield fail("names", text, fix)


def _static_names(config: NodeConfig) -> Iterator[Finding]:
    address = config.channel.receiver.address
    for each in config.channel.membership.static:
        found = _look_up(each.host)
        if not found:
            fix = f"write its address instead, or mend the look-up of {each.host}"
            yield fail("names", f"the static member {each.host} cannot be looked up", fix)
        elif each.host not in found and any(map(is_loopback, found)) and not is_loopback(address):
            text = f"the static member {each.host} is {found[0]} here, which is this machine alone"
            fix = f"write the member's address, or mend the line of {each.host} in /etc/hosts"
            yield fail("names", text, fix)


def _look_up(name: str) -> list[str]:
    try:
        infos = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(info[4][0]).partition("%")[0] for info in infos))


# ---- ports -------------------------------------------------------------------------------------


def _ports(config: NodeConfig) -> Iterator[Finding]:
    receiver = config.channel.receiver
    if receiver.port:
        last = min(receiver.port + max(receiver.auto_bind, 1) - 1, 65535)
        yield _port("port", "channel.receiver.port", receiver.address, receiver.port, last)
    if config.http is not None and config.http.port:
        port = config.http.port
        yield _port("http port", "http.port", config.http.address, port, port)


def _port(check: str, key: str, address: str, first: int, last: int) -> Finding:
    taken = ""
    is_ours = False
    for port in range(first, last + 1):
        why = _why_not_free(address, port)
        if not why:
            if port == first:
                return ok(check, f"{port} is free")
            text = f"{first} is in use{taken}; the node would take {port}"
            fix = "nothing, if that is a member too; else end it, or set another port"
            return warn(check, text, fix)
        if port == first:
            owner = owner_of(port)
            is_ours = owner is not None and owner.is_tribes
            taken = f" by pid {owner.pid} ({owner.command})" if owner else f": {why}"
    if is_ours:
        return warn(check, f"{first} is in use{taken}", "nothing, if that is this node")
    shown = str(first) if first == last else f"{first} to {last}"
    fix = f"end what uses it, or set another {key}"
    return fail(check, f"{key} {shown} is in use{taken}", fix)


def _why_not_free(address: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, port))
            sock.listen(1)
        except OSError as why:
            # A wrong address is told by another check.
            return "" if why.errno == errno.EADDRNOTAVAIL else str(why.strerror)
    return ""


# ---- limits ------------------------------------------------------------------------------------


def _mtu(config: NodeConfig, heartbeat_bytes: int) -> Iterator[Finding]:
    membership = config.channel.membership
    if not membership.multicast:
        return
    size = heartbeat_bytes + MARK_BYTES
    if size > DATAGRAM_MAX_BYTES:
        text = f"a heartbeat would have {size} bytes, {DATAGRAM_MAX_BYTES} fit into a datagram"
        yield fail("mtu", text, "shorten the payload, the name or the domain of this node")
        return
    interface = interface_of(membership.bind, interfaces())
    if interface is None or not interface.mtu:
        return
    if size + _HEADERS_BYTES > interface.mtu:
        text = (
            f"a heartbeat of {size} bytes is cut into pieces: the MTU of {interface.name} is "
            f"{interface.mtu}, and one lost piece loses all"
        )
        yield warn("mtu", text, "shorten the payload, the name or the domain of this node")
    else:
        text = f"a heartbeat of {size} bytes fits into the {interface.mtu} of {interface.name}"
        yield ok("mtu", text)


def _buffers(config: NodeConfig) -> Iterator[Finding]:
    receiver, sender = config.channel.receiver, config.channel.sender
    asked = [
        ("channel.receiver.rx_buf_size", receiver.rx_buf_size, socket.SOCK_STREAM, True),
        ("channel.receiver.tx_buf_size", receiver.tx_buf_size, socket.SOCK_STREAM, False),
        ("channel.sender.rx_buf_size", sender.rx_buf_size, socket.SOCK_STREAM, True),
        ("channel.sender.tx_buf_size", sender.tx_buf_size, socket.SOCK_STREAM, False),
        ("channel.receiver.udp_rx_buf_size", receiver.udp_rx_buf_size, socket.SOCK_DGRAM, True),
        ("channel.receiver.udp_tx_buf_size", receiver.udp_tx_buf_size, socket.SOCK_DGRAM, False),
    ]
    is_fine = True
    for key, size, kind, is_receive in asked:
        granted = _granted(size, kind, is_receive=is_receive)
        if granted < size:
            is_fine = False
            limit = "net.core.rmem_max" if is_receive else "net.core.wmem_max"
            fix = f"raise it: sysctl -w {limit}={size}, and in /etc/sysctl.d; or ask for less"
            text = f"{key} asks for {size} bytes, and the kernel grants {granted} ({limit})"
            yield warn("buffers", text, fix)
    if is_fine:
        yield ok("buffers", "sockets get the buffers that they ask for")


def _granted(size: int, kind: socket.SocketKind, *, is_receive: bool) -> int:
    if not size:
        return 0
    option = socket.SO_RCVBUF if is_receive else socket.SO_SNDBUF
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.setsockopt(socket.SOL_SOCKET, option, size)
        granted = sock.getsockopt(socket.SOL_SOCKET, option)
    # Linux keeps as much again for its own notes, and tells the sum.
    return granted // 2 if os.path.exists("/proc/sys/net/core") else granted


def _files(config: NodeConfig, members: int) -> Finding:
    try:
        import resource
    except ImportError:
        return ok("files", "this system has no limit of open files")
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return ok("files", "open files are not limited")
    http = _OPERATORS if config.http else 0
    least = _FILES_OF_A_NODE + 3 * max(members, _MEMBERS_LIKELY) + http
    most = config.channel.receiver.max_connections + _FILES_SPARE
    fix = f"raise the limit: LimitNOFILE={max(most, 4096)} in systemd's unit, ulimit -n in a shell"
    if limit < least:
        return fail("files", f"a process may open {limit} files here, a node needs {least}", fix)
    if limit < most:
        text = (
            f"a process may open {limit} files, and channel.receiver.max_connections lets "
            f"{most - _FILES_SPARE} connections in"
        )
        return warn("files", text, fix)
    return ok("files", f"a process may open {limit} files")
