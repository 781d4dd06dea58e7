"""``tribes node`` with a key: protected addresses, and keys that are read again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trustme
from click.testing import CliRunner

from tests.ports import free_udp_port
from tribes.cli.app import main
from tribes.security.keys import GroupKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ONE, TWO = (GroupKey(number, bytes([number]) * 32) for number in (1, 2))


def test_an_address_that_others_can_reach_is_refused_with_both_remedies() -> None:
    """Before any socket is opened."""
    done = CliRunner().invoke(main, ["node", "--address", "10.0.0.1"])
    assert done.exit_code == 1
    assert "tribes keygen --output group.key" in done.output
    assert "insecure = true" in done.output


def test_a_key_file_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    """In one sentence, without a traceback."""
    path = tmp_path / "none"
    done = CliRunner().invoke(main, ["node", "--key-file", str(path)])
    assert done.exit_code == 1
    assert f"{path}: channel.key_file: this key file can't be read" in done.output


def test_certificates_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    """In one sentence, without a traceback; naming some of the files only is no half of TLS."""
    none = str(tmp_path / "none")
    done = CliRunner().invoke(main, ["node", "--tls-certificate", none, "--tls-authorities", none])
    assert done.exit_code == 1
    assert f"{none}: channel.tls.certificate: this file can't be read" in done.output
    done = CliRunner().invoke(main, ["node", "--tls-private-key", none])
    assert done.exit_code == 1
    assert "channel.tls.certificate: is empty" in done.output


@contextmanager
def running(*options: str) -> Iterator[tuple[Callable[[], None], Callable[[], dict[str, object]]]]:
    """A node that is alone; gives what makes it read again, and what it says next."""
    group = free_udp_port()
    command = [sys.executable, "-m", "tribes", "node", "--port", "0", "--log-format", "json"]
    command += ["--multicast-port", str(group), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    out = process.stdout
    assert out is not None

    def event() -> dict[str, object]:
        line = out.readline()
        assert ONE.to_text() not in line
        found: dict[str, object] = json.loads(line)
        return found

    try:
        yield lambda: os.kill(process.pid, signal.SIGHUP), event
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        out.close()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="not here: SIGHUP")
def test_certificates_are_read_again_on_sighup(tmp_path: Path) -> None:
    """And stay as they were when a file can't be used."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    path, authorities = tmp_path / "member.pem", tmp_path / "ca.pem"
    path.touch(0o600)
    issued.private_key_and_cert_chain_pem.write_to_path(str(path))
    authority.cert_pem.write_to_path(str(authorities))
    options = ("--tls-certificate", str(path), "--tls-authorities", str(authorities))
    with running(*options) as (read_again, event):
        ready = event()
        assert (ready["event"], ready["tls"]) == ("node ready", str(path))
        read_again()
        assert event()["event"] == "certificates read again"
        authorities.write_text("nonsense")
        read_again()
        kept = event()
        assert kept["event"] == "certificates stay as they were"
        assert str(authorities) in str(kept["error"])


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="not here: SIGHUP")
def test_keys_are_read_again_on_sighup(tmp_path: Path) -> None:
    """And stay as they were when the file can't be used."""
    path = tmp_path / "group.key"
    path.write_text(ONE.to_text())
    path.chmod(0o600)
    with running("--key-file", str(path)) as (read_again, event):
        assert event()["event"] == "node ready"
        path.write_text(TWO.to_text() + "\n" + ONE.to_text())
        read_again()
        again = event()
        assert (again["event"], again["ids"]) == ("keys read again", [2, 1])
        path.write_text("nonsense")
        read_again()
        kept = event()
        assert kept["event"] == "keys stay as they were"
        assert "line 1" in str(kept["error"])
