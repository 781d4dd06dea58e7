"""``tribes node`` with a key: protected addresses, and keys that are read again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trustme
from click.testing import CliRunner

from tribes.cli.app import main
from tribes.security.keys import GroupKey

if TYPE_CHECKING:
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


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="not here: SIGHUP")
def test_certificates_are_read_again_on_sighup(tmp_path: Path) -> None:
    """And stay as they were when a file can't be used."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    path, authorities = tmp_path / "member.pem", tmp_path / "ca.pem"
    path.touch(0o600)
    issued.private_key_and_cert_chain_pem.write_to_path(str(path))
    authority.cert_pem.write_to_path(str(authorities))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        group = sock.getsockname()[1]
    command = [sys.executable, "-m", "tribes", "node", "--port", "0", "--log-format", "json"]
    command += ["--multicast-port", str(group), "--tls-certificate", str(path)]
    command += ["--tls-authorities", str(authorities)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert (ready["event"], ready["tls"]) == ("node ready", str(path))
        os.kill(process.pid, signal.SIGHUP)
        assert json.loads(process.stdout.readline())["event"] == "certificates read again"
        authorities.write_text("nonsense")
        os.kill(process.pid, signal.SIGHUP)
        kept = json.loads(process.stdout.readline())
        assert kept["event"] == "certificates stay as they were"
        assert str(authorities) in kept["error"]
    finally:
        process.terminate()
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()
    assert process.returncode == 0


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="not here: SIGHUP")
def test_keys_are_read_again_on_sighup(tmp_path: Path) -> None:
    """And stay as they were when the file can't be used."""
    path = tmp_path / "group.key"
    path.write_text(ONE.to_text())
    path.chmod(0o600)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        group = sock.getsockname()[1]
    command = [sys.executable, "-m", "tribes", "node", "--port", "0"]
    command += ["--multicast-port", str(group), "--key-file", str(path), "--log-format", "json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None

    def event() -> dict[str, object]:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert ONE.to_text() not in line
        found: dict[str, object] = json.loads(line)
        return found

    try:
        assert event()["event"] == "node ready"
        path.write_text(TWO.to_text() + "\n" + ONE.to_text())
        os.kill(process.pid, signal.SIGHUP)
        again = event()
        assert (again["event"], again["ids"]) == ("keys read again", [2, 1])
        path.write_text("nonsense")
        os.kill(process.pid, signal.SIGHUP)
        kept = event()
        assert kept["event"] == "keys stay as they were"
        assert "line 1" in str(kept["error"])
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()
    assert process.returncode == 0
