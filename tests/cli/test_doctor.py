"""``tribes doctor`` on one machine: each trouble is made for real, and found."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.cli.doctor_runs import Run, doctor_command, examine, member
from tests.ports import free_udp_port
from tribes.admin.doctor.findings import State, fail, ok, warn, worst
from tribes.security.keys import KEY_BYTES, GroupKey

pytestmark = pytest.mark.timeout(120)


def key_text(key_id: int, byte: int) -> str:
    return GroupKey(key_id, bytes([byte]) * KEY_BYTES).to_text() + "\n"


@pytest.fixture
def group() -> int:
    """A multicast port of its own."""
    return free_udp_port()


@pytest.fixture
def look(tmp_path: Path, group: int) -> Callable[..., Run]:
    """Examines a configuration given as TOML behind that of the group."""

    def run(receiver: str = "port = 0", more: str = "", *arguments: str, **settings: Any) -> Run:
        file = tmp_path / "node.toml"
        channel, _, more = more.rpartition("---\n")
        file.write_text(
            f"[channel]\n{channel}\n[channel.membership]\nport = {group}\n"
            f"[channel.receiver]\n{receiver}\n{more}"
        )
        return examine("--config", str(file), *arguments, **settings)

    return run


@pytest.fixture
def config(group: int) -> Callable[..., dict[str, Any]]:
    """The configuration of another member of the group."""

    def make(**channel: Any) -> dict[str, Any]:
        membership = {"port": group, "frequency": 100}
        return {
            "name": "other",
            "channel": {"membership": membership, "receiver": {"port": 0}, **channel},
        }

    return make


def test_a_healthy_member_beside_another_is_well(
    look: Callable[..., Run], config: Callable[..., dict[str, Any]]
) -> None:
    """Status 0; who answers is named, by multicast and by TCP."""
    with member(config()):
        run = look()
    assert (run.status, run.wrong()) == (0, [])
    assert "other" in run.one("multicast", "ok")["text"]
    assert "other" in run.one("members", "ok")["text"]
    assert {"clock", "versions", "buffers", "files", "mtu", "address"} <= {
        each["check"] for each in run.findings
    }


def test_alone_it_says_that_nobody_was_heard(look: Callable[..., Run]) -> None:
    """No other process is needed to see that datagrams arrive here; warnings are status 3."""
    run = look()
    assert (run.status, run.wrong()) == (3, ["multicast", "members"])
    assert "come back to this machine" in run.one("multicast", "warn")["text"]


def test_an_address_of_another_machine(look: Callable[..., Run]) -> None:
    """With the addresses that there are."""
    run = look('address = "192.0.2.77"')
    assert run.status == 4
    assert "no interface of this machine" in run.one("address", "fail")["text"]
    assert "127.0.0.1 (lo)" in run.one("address", "fail")["fix"]


def test_protected_mode(look: Callable[..., Run]) -> None:
    """A node would refuse to start: no key, and an address that others reach."""
    run = look('address = "192.0.2.77"')
    assert "protected mode" in run.one("protection", "fail")["text"]
    assert "tribes keygen" in run.one("protection", "fail")["fix"]
    assert "warn" not in [each["state"] for each in run.findings if each["check"] == "protection"]


def test_a_port_in_use_and_by_whom(look: Callable[..., Run]) -> None:
    """A process that is no member, by its id; with more ports to try it is a warning."""
    script = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); "
        "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        run = look(f"port = {port}\nauto_bind = 1")
        several = look(f"port = {port}\nauto_bind = 20")
        operators = look("port = 0", f"[http]\nport = {port}\n")
        other.communicate()
    assert f"by pid {other.pid}" in run.one("port", "fail")["text"]
    assert f"by pid {other.pid}" in several.one("port", "warn")["text"]
    assert f"by pid {other.pid}" in operators.one("http port", "fail")["text"]


def test_another_key(
    look: Callable[..., Run], config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Of another number, of the same number, and none at all on either side."""
    file = tmp_path / "group.key"
    file.write_text(key_text(1, 1))
    file.chmod(0o600)
    ours = f'key_file = "{file}"\n---\n'
    with member(config(keys=key_text(2, 2))):
        other_number = look("port = 0", ours)
        none_here = look()
    with member(config(keys=key_text(1, 2))):
        same_number = look("port = 0", ours)
    with member(config(keys=key_text(1, 1))):
        the_same = look("port = 0", ours)
    with member(config()):
        none_there = look("port = 0", ours)
    text = other_number.one("member keys", "fail")["text"]
    assert "signs with the key 2" in text
    assert any("does not share the key" in each["text"] for each in other_number.findings)
    assert "has another key with the number 1" in same_number.one("member keys", "fail")["text"]
    assert "this configuration has none" in none_here.one("member keys", "fail")["text"]
    assert "has no key" in none_there.one("member keys", "fail")["text"]
    assert the_same.wrong() == []
    assert "prove" not in json.dumps(the_same.findings)


def test_keys_that_cannot_be_read(look: Callable[..., Run], tmp_path: Path) -> None:
    """A missing file, one that others may read, and one of another user."""
    file = tmp_path / "group.key"
    ours = f'key_file = "{file}"\n---\n'
    assert "can't be read" in look("port = 0", ours).one("key", "fail")["text"]
    file.write_text(key_text(1, 1))
    file.chmod(0o644)
    assert str(file) in look("port = 0", ours).one("key", "fail")["text"]
    file.chmod(0o600)
    assert look("port = 0", ours).one("key", "ok")
    if os.getuid() != 0:
        return
    for directory in (tmp_path, *tmp_path.parents):
        if not directory.stat().st_mode & 0o001:
            directory.chmod(directory.stat().st_mode | 0o011)
    (tmp_path / "node.toml").chmod(0o644)
    command = [sys.executable, "-m", "tribes", "doctor", "--json", "--seconds", "0.2"]
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", *command, "--config", "node.toml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
    )
    if "Permission denied" in done.stderr or "No module" in done.stderr:
        pytest.skip("not here: another user may not read Python or this tree")
    run = Run(done.returncode, json.loads(done.stdout)["findings"])
    assert "Permission denied" in run.one("key", "fail")["text"]


def test_buffers_beyond_the_kernels_limit(look: Callable[..., Run]) -> None:
    """The kernel grants less than was asked for, and says nothing of it."""
    run = look("port = 0\nrx_buf_size = 1073741824\nudp_tx_buf_size = 1073741824")
    found = [each for each in run.findings if each["check"] == "buffers"]
    assert [each["state"] for each in found] == ["warn", "warn"]
    assert "sysctl -w net.core.rmem_max=1073741824" in found[0]["fix"]
    assert "net.core.wmem_max" in found[1]["text"]


@pytest.mark.parametrize(("limit", "state"), [(70, "fail"), (500, "warn"), (2000, "ok")])
def test_too_few_files(look: Callable[..., Run], limit: int, state: str) -> None:
    """Fewer than a node needs; fewer than it lets in; enough."""
    shell = ["bash", "-c", f'ulimit -n {limit}; exec "$@"', "doctor"]
    assert look(prefix=shell).one("files", state)


@pytest.mark.parametrize(
    ("ahead_ms", "state", "direction"),
    [
        (60_000, "warn", "ahead of"),
        (-60_000, "warn", "behind"),
        (7_200_000, "fail", "ahead of"),
    ],
)
def test_clocks_that_differ(
    look: Callable[..., Run],
    config: Callable[..., dict[str, Any]],
    ahead_ms: int,
    state: str,
    direction: str,
) -> None:
    """By how much, and which way."""
    with member(config(), ahead_ms=ahead_ms):
        text = look().one("clock", state)["text"]
    assert direction in text
    assert f"{abs(ahead_ms) // 1000}." in text or f"{abs(ahead_ms) // 1000 - 1}." in text


def test_mixed_releases(look: Callable[..., Run], config: Callable[..., dict[str, Any]]) -> None:
    """Of the product, which works, and of the protocol, which does not."""
    with member(config(), version="0.0.9"):
        run = look()
    assert "0.0.9: other" in run.one("versions", "warn")["text"]
    with member(config(), protocol=9):
        run = look()
    assert "speaks no protocol" in run.one("versions", "fail")["text"]


def test_members_with_tls(
    look: Callable[..., Run], config: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """One of the same authority answers; one of another is told from one that is down."""

    def files(name: str) -> dict[str, str]:
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        paths = {
            each: str(tmp_path / f"{name}-{each}.pem") for each in ("certificate", "private_key")
        }
        authority.cert_pem.write_to_path(str(tmp_path / f"{name}-ca.pem"))
        issued.cert_chain_pems[0].write_to_path(paths["certificate"])
        issued.private_key_pem.write_to_path(paths["private_key"])
        Path(paths["private_key"]).chmod(0o600)
        return paths | {"authorities": str(tmp_path / f"{name}-ca.pem")}

    ours, theirs = files("ours"), files("theirs")
    tls = "[channel.tls]\n" + "".join(f'{key} = "{path}"\n' for key, path in ours.items())
    with member(config(tls=ours)) as port:
        run = look("port = 0", tls, "--peer", f"127.0.0.1:{port}")
        assert "other" in run.one("members", "ok")["text"]
    with member(config(tls=theirs)) as port:
        run = look("port = 0", tls, "--peer", f"127.0.0.1:{port}")
        assert "not reached by TLS" in run.one("member keys", "fail")["text"]


def test_who_should_be_there_and_is_not(look: Callable[..., Run]) -> None:
    """Nobody listens; something else listens."""
    with socket.create_server(("127.0.0.2", 0)) as silent:
        port = silent.getsockname()[1]
        run = look("port = 0", "", "--peer", f"127.0.0.2:{port}")
        assert "does not answer" in run.one("members", "fail")["text"]
    run = look("port = 0", "", "--peer", f"127.0.0.2:{port}")
    assert f"nobody listens at 127.0.0.2:{port}" in run.one("members", "fail")["text"]


def test_names_that_nobody_knows(look: Callable[..., Run]) -> None:
    """Of a member in the file, and of one that is asked for."""
    named = '[[channel.membership.static]]\nhost = "nobody.invalid"\n'
    assert "nobody.invalid" in look("port = 0", named).one("names", "fail")["text"]
    run = look("port = 0", "", "--peer", "nobody.invalid")
    assert "nobody.invalid" in run.one("discovery", "fail")["text"]


def test_what_cannot_be_examined(tmp_path: Path) -> None:
    """A file that is no configuration is status 1, a wrong command line 2, and neither has a
    traceback; a setting that cannot work is a finding.
    """
    file = tmp_path / "n.toml"
    command = [sys.executable, "-m", "tribes", "doctor"]
    for arguments, status in (
        (["--config", str(file)], 1),
        (["--peer", "host:port"], 1),
        (["--seconds", "never"], 2),
    ):
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == status
        assert "Traceback" not in done.stderr
    file.write_text("[channel.membership]\naddress = '10.0.0.1'\n")
    run = examine("--config", str(file))
    assert run.status == 4
    assert "not a multicast address" in run.one("configuration", "fail")["text"]
    assert str(file) in run.one("configuration", "fail")["text"]


def in_words(file: Path, toml: str) -> subprocess.CompletedProcess[str]:
    """An examination as people see it."""
    file.write_text(toml)
    return subprocess.run(
        doctor_command("--config", str(file), "--seconds", "0.6"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_for_people_each_finding_has_a_line(tmp_path: Path, group: int) -> None:
    """And what members call themselves cannot act on the terminal."""
    evil = {
        "name": "\x1b[2Jx",
        "channel": {
            "membership": {"port": group, "frequency": 100},
            "receiver": {"port": 0},
        },
    }
    with member(evil):
        done = in_words(
            tmp_path / "n.toml",
            f"[channel.membership]\nport = {group}\n[channel.receiver]\nport = 0\n",
        )
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "ok    members" in done.stdout
    assert all(line.startswith("ok    ") for line in done.stdout.splitlines())


def test_for_people_a_failure_is_followed_by_its_fix(tmp_path: Path, group: int) -> None:
    """And the last line counts what needs a look."""
    done = in_words(
        tmp_path / "n.toml",
        f"[channel.membership]\nport = {group}\n"
        '[channel.receiver]\nport = 0\naddress = "192.0.2.77"\n',
    )
    assert done.returncode == 4
    lines = done.stdout.splitlines()
    [at] = [at for at, line in enumerate(lines) if line.startswith("fail  address ")]
    assert lines[at + 1].lstrip().startswith("fix: ")
    assert "127.0.0.1 (lo)" in lines[at + 1]
    bad = sum(line.startswith(("fail  ", "warn  ")) for line in lines)
    assert lines[-1].startswith(f"{bad} of ")


def test_the_worst_finding_decides() -> None:
    """A warning does not hide a failure."""
    assert worst([]) is State.OK
    assert worst([warn("a", "", ""), fail("b", "", ""), ok("c", "")]) is State.FAIL
    assert worst([ok("c", ""), warn("a", "", "")]) is State.WARN
