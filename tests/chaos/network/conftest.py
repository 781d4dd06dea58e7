"""A network of our own: namespaces on a bridge, with faults made by nft rules on that bridge.

Nothing leaves it: no interface of the machine is attached, and no namespace has a route but the
one to its own bridge. Names carry this process's pid, so that parallel runs don't meet, and what a
run that was killed has left behind is removed by the next one.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

_CLONE_NEWNET = 0x40000000
_COMMAND_S = 10.0
_PREFIX = "tribes"
_TABLE = "tribes_chaos"
_CLIENT = "client"
_lans = itertools.count()


class NotPermittedError(Exception):
    """This process may not make network namespaces, or the kernel has no bridge filter."""


class Lan:
    """One bridge in a namespace of its own, and one namespace per host.

    Args:
        ip: Path of iproute2's ``ip``.
        nft: Path of nftables' ``nft``.
        hosts: Names of the nodes; the clients' namespace is added.
    """

    def __init__(self, ip: str, nft: str, hosts: Sequence[str]) -> None:
        self._ip, self._nft = ip, nft
        self.name = f"{_PREFIX}-{os.getpid()}-{next(_lans)}"
        self.hosts = tuple(hosts)
        self._numbers = {host: i for i, host in enumerate((*hosts, _CLIENT), start=1)}
        self._bridge = self.namespace("bridge")
        self._table = False

    def __enter__(self) -> Lan:
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _build(self) -> None:
        sweep(self._ip)
        try:
            self._run("netns", "add", self._bridge)
            self.set_rules("ip daddr 192.0.2.1 drop", "numgen random mod 100 < 0 drop")
        except subprocess.CalledProcessError as error:
            raise NotPermittedError(error.stderr.strip()) from error
        self.clear_rules()
        bridge = ("-n", self._bridge, "link")
        # Without snooping every multicast datagram goes to every port, as on a plain switch.
        self._run(*bridge, "add", "br0", "type", "bridge", "mcast_snooping", "0")
        self._run(*bridge, "set", "br0", "up")
        for host in self._numbers:
            inside = self.namespace(host)
            self._run("netns", "add", inside)
            self._run("-n", inside, "link", "set", "lo", "up")
            self.plug(host)

    def plug(self, host: str) -> None:
        """Give a host its interface."""
        inside, bridge = self.namespace(host), ("-n", self._bridge, "link")
        peer = ("peer", "name", "lan0", "netns", inside)
        self._run(*bridge, "add", "name", host, "type", "veth", *peer)
        self._run(*bridge, "set", "dev", host, "master", "br0", "up")
        number = self._numbers[host]
        self._run("-n", inside, "addr", "add", f"{self.address(host)}/24", "dev", "lan0")
        # Without the wait for another one with the same address.
        v6 = ("addr", "add", f"fd77::{number}/64", "dev", "lan0", "nodad")
        self._run("-n", inside, *v6)
        self._run("-n", inside, "link", "set", "lan0", "up")

    def unplug(self, host: str) -> None:
        """Take a host's interface away, with all that the kernel knew of it."""
        self._run("-n", self.namespace(host), "link", "del", "lan0")

    def close(self) -> None:
        """Remove every namespace; rules, bridge and links go with them."""
        for name in namespaces(self._ip):
            if name.startswith(self.name + "-"):
                self._run("netns", "del", name)
        self._table = False

    def _run(self, *arguments: str) -> None:
        _output(self._ip, *arguments)

    # What a place offers to nodes and clients.

    def namespace(self, host: str) -> str:
        return f"{self.name}-{host}"

    def address(self, node: str) -> str:
        return f"10.77.0.{self._numbers[node]}"

    def http_port(self, node: str) -> int:
        del node
        return 8080

    def multicast_port(self) -> int:
        return 45564

    def prefix(self, node: str) -> list[str]:
        return [self._ip, "netns", "exec", self.namespace(node)]

    def enter(self) -> None:
        """Move the calling thread, and no other, to where the clients are."""
        libc = ctypes.CDLL(None, use_errno=True)
        handle = os.open(Path("/run/netns", self.namespace(_CLIENT)), os.O_RDONLY)
        try:
            if libc.setns(handle, _CLONE_NEWNET):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        finally:
            os.close(handle)

    # Faults: rules for what the bridge forwards. The clients are never cut off.

    def set_rules(self, *rules: str) -> None:
        """Replace all rules at once."""
        self.clear_rules()
        body = "\n".join(rules)
        chain = f"chain cut {{\ntype filter hook forward priority 0\n{body}\n}}"
        self._rules(f"table bridge {_TABLE} {{\n{chain}\n}}\n")
        self._table = True

    def clear_rules(self) -> None:
        if self._table:
            self._rules(f"delete table bridge {_TABLE}\n")
            self._table = False

    def _rules(self, text: str) -> None:
        _output(self._ip, "netns", "exec", self._bridge, self._nft, "-f", "-", input=text)

    @contextlib.contextmanager
    def fault(self, *rules: str) -> Iterator[None]:
        """These rules, for as long as the block runs; they must have something to drop."""
        self.set_rules(*rules)
        try:
            yield
            assert self.dropped(), f"nothing was lost by {rules}"
        finally:
            self.clear_rules()

    def dropped(self) -> int:
        """How many packets the rules of now have dropped."""
        inside = ("netns", "exec", self._bridge, self._nft)
        shown = _output(self._ip, *inside, "list", "table", "bridge", _TABLE)
        return sum(map(int, re.findall(r"counter packets (\d+)", shown)))

    def one_way(self, source: str, target: str) -> str:
        """Nothing goes from one node to another; the way back stays open."""
        return f'iifname "{source}" oifname "{target}" counter drop'

    def partition(self, left: Sequence[str], right: Sequence[str]) -> list[str]:
        pairs = itertools.product(left, right)
        return [rule for a, b in pairs for rule in (self.one_way(a, b), self.one_way(b, a))]

    def between_nodes(self, match: str) -> str:
        """Whatever matches is dropped between nodes; all that clients send passes."""
        ports = ", ".join(f'"{host}"' for host in self.hosts)
        return f"iifname {{ {ports} }} oifname {{ {ports} }} {match} counter drop"


def _output(*command: str, input: str | None = None) -> str:  # noqa: A002
    done = subprocess.run(
        command, input=input, capture_output=True, text=True, timeout=_COMMAND_S, check=True
    )
    return done.stdout


def namespaces(ip: str) -> list[str]:
    """The names of all network namespaces of this machine."""
    return [line.split()[0] for line in _output(ip, "netns", "list").splitlines() if line.strip()]


def sweep(ip: str) -> None:
    """Remove what runs of the past have left; those that are under way keep theirs."""
    for name in namespaces(ip):
        prefix, _, rest = name.partition("-")
        pid = rest.partition("-")[0]
        if prefix == _PREFIX and pid.isdigit() and not Path("/proc", pid).exists():
            # A parallel run may be sweeping too.
            with contextlib.suppress(subprocess.CalledProcessError):
                _output(ip, "netns", "del", name)


@pytest.fixture(scope="session")
def ip(needs: Callable[..., str]) -> Iterator[str]:
    """The ``ip`` command; in the end no namespace of this run may be left."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("not here: network namespaces need root")
    path = needs("ip")
    yield path
    left = [name for name in namespaces(path) if name.startswith(f"{_PREFIX}-{os.getpid()}-")]
    assert left == []


@pytest.fixture
def make_lan(ip: str, needs: Callable[..., str]) -> Iterator[Callable[..., Lan]]:
    """Networks, removed with the test."""
    nft = needs("nft")
    with contextlib.ExitStack() as stack:

        def make(*hosts: str) -> Lan:
            try:
                return stack.enter_context(Lan(ip, nft, hosts))
            except NotPermittedError as error:
                pytest.skip(f"not here: no network namespaces with a bridge filter: {error}")

        yield make


@pytest.fixture
def list_namespaces(ip: str) -> Callable[[], list[str]]:
    """Lists all network namespaces."""
    return lambda: namespaces(ip)


@pytest.fixture
def sweep_namespaces(ip: str) -> Callable[[], None]:
    """Removes the namespaces of runs that are gone."""
    return lambda: sweep(ip)
