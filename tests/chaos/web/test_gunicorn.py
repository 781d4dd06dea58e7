"""Under gunicorn a worker drains when it ends, by its hook or at the interpreter's exit."""

from __future__ import annotations

import contextlib
import http.client
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.ports import free_tcp_port

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

APPLICATION = """
from tribes import BackgroundNode, NodeConfig
from tribes.config.model import ChannelConfig, ManagerConfig, MembershipConfig, ReceiverConfig
from tribes.cli.logs import set_up_logging
from tribes.web.wsgi import SESSION, SessionMiddleware

set_up_logging("text", "info")
node = BackgroundNode(NodeConfig(
    name="gunicorn", contexts=("app",),
    channel=ChannelConfig(
        membership=MembershipConfig(port={port}), receiver=ReceiverConfig(auto_bind=1000)),
    manager=ManagerConfig(channel_send_options=8)))


def count(environ, start_response):
    session = environ[SESSION]
    session["count"] = session.get("count", 0) + 1
    start_response("200 OK", [])
    return [b"counted"]


app = SessionMiddleware(count, node, ready_path="/ready")
"""

HOOK = """
def worker_exit(server, worker):
    from application import node
    node.stop()
    print("hook:", node.drain_report, flush=True)
"""


@pytest.mark.parametrize("hook", ["", HOOK], ids=["exit", "hook"])
def test_worker_that_ends_hands_over(web: Any, tmp_path: Path, hook: str) -> None:
    """SIGTERM to the master: status 0, and the other member has what was written last."""
    web.start("n1")
    (tmp_path / "application.py").write_text(APPLICATION.format(port=web.multicast_port))
    (tmp_path / "hooks.py").write_text(hook)
    port = web.ports["gunicorn"] = free_tcp_port()
    log = tmp_path / "gunicorn.log"
    command = [sys.executable, "-m", "gunicorn", "-c", "hooks.py", "--bind", f"127.0.0.1:{port}"]
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [*command, "application:app"],
            cwd=tmp_path,
            stdout=out,
            stderr=out,
            env=web.environment,
        )
    try:
        deadline = time.monotonic() + 30
        while not web.is_ready("gunicorn"):
            assert time.monotonic() < deadline, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
            connection.request("POST", "/")
            response = connection.getresponse()
            cookie = response.getheader("set-cookie", "").partition(";")[0].partition("=")[2]
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
    finally:
        process.kill()
        process.wait()
    text = log.read_text()
    assert text.count("drained") == 1
    assert ("hook: DrainReport(is_last=False, lacking=()" in text) == bool(hook)
    assert "Traceback" not in text
    assert web.request("n1", "GET", "/show", cookie).values["values"] == {"count": 1}
    web.wait_members("n1", "n1")
    assert [each["reason"] for each in web.logs("n1", "member removed")] == ["left"]
