"""What the commands that ask a node say when they cannot."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import structlog
from click.testing import CliRunner

from tribes.cli.address import static_member
from tribes.cli.app import main
from tribes.cli.logs import set_up_logging
from tribes.errors import ConfigError


@pytest.fixture
def answering() -> Iterator[Any]:
    """Starts a server on loopback that gives one and the same answer; returns its URL."""
    servers = []

    def start(answer: bytes) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "url",
    ["http://[::1", "http://127.0.0.1:99999", "http://127.0.0.1:x", "ftp://127.0.0.1", "127.0.0.1"],
)
def test_a_url_that_is_none_is_a_wrong_command_line(url: str) -> None:
    """And says so; the first one was a traceback."""
    result = CliRunner().invoke(main, ["status", "--url", url])
    assert (result.exit_code, "is no address like" in result.output) == (2, True)


@pytest.mark.parametrize("url", ["http://node..example:1", "http://127.0.0.1:1/\xe9"])
def test_a_url_that_has_no_form_on_the_wire_does_not_answer(url: str) -> None:
    """A name with an empty part, and a path beyond ASCII."""
    result = CliRunner().invoke(main, ["status", "--url", url])
    assert (result.exit_code, "does not answer" in result.output) == (1, True)


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (b"[]", "no JSON object"),
        (b"[" * 100_000, "no JSON"),
        (b"nothing", "no JSON"),
        (b'{"hello": 1}', "or one of another release"),
    ],
)
@pytest.mark.parametrize("command", ["status", "members", "farm"])
def test_an_answer_that_is_no_nodes_is_told_of(
    answering: Any, answer: bytes, what: str, command: str
) -> None:
    """Something else may listen where a node is looked for."""
    result = CliRunner().invoke(main, [command, "--url", answering(answer)])
    assert (result.exit_code, what in result.output) == (1, True), result.output


@pytest.mark.parametrize("port", ["", "x", "9" * 5000])
def test_a_member_without_a_port_behind_its_colon_is_refused(port: str) -> None:
    """Also where Python would not even read the number."""
    with pytest.raises(ConfigError, match="no port behind"):
        static_member(f"192.0.2.1:{port}")


class _Full(io.TextIOWrapper):
    """A file on a full disk."""

    is_full = True

    def flush(self) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")
        super().flush()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_line_that_cannot_be_written_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, log_format: str
) -> None:
    """Names come from other members, and the terminal of this one may know ASCII only."""
    data = io.BytesIO()
    out = _Full(data, encoding="ascii", write_through=True)
    monkeypatch.setattr("sys.stdout", out)
    try:
        set_up_logging(log_format, "info")
        log = structlog.get_logger("test-of-odd-lines")
        log.info("member added", member="K\xe4se")
        log.info("member added", member="half of a pair: \udcff")
        out.is_full = False
        log.info("member added", member="plain")
    finally:
        structlog.reset_defaults()
    last = data.getvalue().splitlines()[-1]
    assert b"plain" in last
    assert b"lines_lost" in last
    assert data.getvalue().isascii()
