"""``tribes doctor`` in networks that have something wrong: namespaces, rules, and mounted files."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.doctor_runs import Run, doctor_command, examine, member

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def lan(make_lan: Any) -> Any:
    """Two hosts on a bridge."""
    return make_lan("n1", "n2")


@pytest.fixture
def look(lan: Any, tmp_path: Path) -> Callable[..., Run]:
    """Examines the first host, with more TOML behind that of its address."""

    def run(
        more: str = "", *arguments: str, address: str = "", bind: str = "", **settings: Any
    ) -> Run:
        own = address or lan.address("n1")
        file = tmp_path / "node.toml"
        file.write_text(
            f'insecure = true\n[channel.receiver]\naddress = "{own}"\n'
            f'[channel.membership]\nbind = "{bind or own}"\n{more}'
        )
        settings.setdefault("prefix", lan.prefix("n1"))
        return examine("--config", str(file), *arguments, **settings)

    return run


@pytest.fixture
def other(lan: Any) -> Callable[[], AbstractContextManager[int]]:
    """Runs a member on the second host."""

    def start() -> AbstractContextManager[int]:
        address = lan.address("n2")
        channel = {
            "membership": {"bind": address, "frequency": 100},
            "receiver": {"address": address, "port": 4000},
        }
        config = {"name": "n2", "insecure": True, "channel": channel}
        return member(config, prefix=lan.prefix("n2"))

    return start


def inside(lan: Any, host: str, *command: str) -> None:
    subprocess.run([*lan.prefix(host), *command], check=True, timeout=10, capture_output=True)


def test_multicast_that_does_not_arrive(
    lan: Any, look: Callable[..., Run], other: Callable[[], AbstractContextManager[int]]
) -> None:
    """The bridge carries none: the member answers by TCP, and is not heard. Without the rule it is;
    who names members anyway is warned only.
    """
    peer = f"{lan.address('n2')}:4000"
    static = f'[[channel.membership.static]]\nhost = "{lan.address("n2")}"\n'
    with other():
        fine = look()
        assert "n2" in fine.one("multicast", "ok")["text"]
        assert "n2" in fine.one("members", "ok")["text"]
        with lan.fault(lan.between_nodes("ip daddr 224.0.0.0/4")):
            alone = look()
            told = look("", "--peer", peer)
            named = look(static)
    assert "nobody else was heard" in alone.one("multicast", "warn")["text"]
    assert "n2" in told.one("multicast", "fail")["text"]
    assert "do not arrive" in told.one("multicast", "fail")["text"]
    assert named.one("multicast", "warn")["fix"]
    assert told.status == 4


def test_two_doctors_hear_each_other(lan: Any, look: Callable[..., Run], tmp_path: Path) -> None:
    """Where no member runs yet."""
    address = lan.address("n2")
    file = tmp_path / "second.toml"
    file.write_text(
        f'insecure = true\n[channel.receiver]\naddress = "{address}"\n'
        f'[channel.membership]\nbind = "{address}"\n'
    )
    with subprocess.Popen(
        [*lan.prefix("n2"), *doctor_command("--config", str(file), "--seconds", "15")],
        stdout=subprocess.DEVNULL,
    ) as second:
        try:
            run = look(seconds=6)
        finally:
            second.kill()
    assert "a doctor on" in run.one("multicast", "ok")["text"]


def test_a_firewall_of_this_machine(lan: Any, look: Callable[..., Run]) -> None:
    """Nothing that is sent comes back."""
    inside(lan, "n1", lan._nft, "add table inet block")
    inside(lan, "n1", lan._nft, "add chain inet block in { type filter hook input priority 0; }")
    inside(lan, "n1", lan._nft, "add rule inet block in ip daddr 228.0.0.4 drop")
    text = look().one("multicast", "fail")["text"]
    assert "comes back" in text


def test_an_interface_without_multicast(lan: Any, look: Callable[..., Run]) -> None:
    """It has no route for the group: sending fails."""
    inside(lan, "n1", lan._ip, "addr", "add", "10.78.0.1/32", "dev", "lo")
    inside(lan, "n1", lan._ip, "link", "set", "lan0", "down")
    run = look()
    assert run.one("multicast", "fail")["fix"]


def test_loopback_while_members_are_elsewhere(lan: Any, look: Callable[..., Run]) -> None:
    """The address is right for nobody; and connections and heartbeats on different interfaces."""
    static = f'[[channel.membership.static]]\nhost = "{lan.address("n2")}"\n'
    run = look(static, address="127.0.0.1")
    assert lan.address("n2") in run.one("address", "fail")["text"]
    run = look("", bind="127.0.0.1")
    assert "never leaves this machine" in run.one("address", "fail")["text"]


def test_debians_line_in_etc_hosts(lan: Any, look: Callable[..., Run], tmp_path: Path) -> None:
    """The machine's name is 127.0.1.1 on it, and so is a member that is named by it."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n127.0.1.1 web-1\n")
    trap = ["unshare", "--mount", "--uts", "bash", "-c"]
    mounts = f'mount --bind {hosts} /etc/hosts && hostname web-1 && exec "$@"'
    prefix = [*lan.prefix("n1"), *trap, mounts, "trap"]
    run = look(prefix=prefix)
    assert "web-1 is 127.0.1.1" in run.one("names", "warn")["text"]
    assert lan.address("n1") in run.one("names", "warn")["fix"]
    run = look('[[channel.membership.static]]\nhost = "web-1"\n', prefix=prefix)
    assert "this machine alone" in run.one("names", "fail")["text"]
    run = look(address="127.0.1.1", prefix=prefix)
    assert "127.0.1.1, which /etc/hosts gives for web-1" in run.one("names", "fail")["text"]


def test_long_packets_that_are_lost(
    lan: Any, look: Callable[..., Run], other: Callable[[], AbstractContextManager[int]]
) -> None:
    """The path takes 600 bytes and tells nobody; both ends believe in 1500."""
    with other():
        assert look().one("members", "ok")
        rule = lan.between_nodes("meta length > 600")
        with lan.fault(rule):
            run = look()
    assert "a long one is lost" in run.one("path mtu", "fail")["text"]
    assert run.one("members", "ok")


def test_heartbeats_that_are_cut_into_pieces(lan: Any, look: Callable[..., Run]) -> None:
    """The record is longer than a packet of the interface."""
    inside(lan, "n1", lan._ip, "link", "set", "lan0", "mtu", "600")
    domain = "d" * 700
    text = look(f'domain = "{domain}"\n').one("mtu", "warn")["text"]
    assert "the MTU of lan0 is 600" in text
    assert look().one("mtu", "ok")
