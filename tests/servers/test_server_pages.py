"""What the page of each server in docs/embedding/ shows is run as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from tests.ports import free_tcp_port
from tests.servers.test_web_servers import APPS, Server, Servers, User, servers
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["servers"]

PAGES = APPS.parents[2] / "docs" / "embedding"
SERVERS = ("uvicorn", "hypercorn", "gunicorn", "waitress", "uwsgi")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not hasattr(os, "killpg"), reason="not here: no process groups"),
]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (PAGES / page).read_text(), re.DOTALL)


def commands() -> list[tuple[str, str]]:
    """Each line of each block for the shell, with its page."""
    return [
        (f"{name}.md", line)
        for name in SERVERS
        for block in blocks(f"{name}.md", "sh")
        for line in block.splitlines()
    ]


def start(servers: Servers, page: str, command: str, folder: Path) -> Server:
    """Run a command of a page beside the files that the page shows, and an application."""
    folder.mkdir()
    is_asgi = page in ("uvicorn.md", "hypercorn.md")
    shutil.copy(APPS / ("asgi_app.py" if is_asgi else "wsgi_app.py"), folder / "app.py")
    for block in [*blocks(page, "python"), *blocks(page, "ini")]:
        first, _, text = block.partition("\n")
        (folder / first.lstrip("#; ")).write_text(text)
    if "native:app" in command:
        (folder / "visits.py").write_text("from app import app\nvisits = app.app\n")
    port = free_tcp_port()
    for file in folder.iterdir():
        text = file.read_text().replace("8080", str(port))
        if file.name == "native.py":
            text = "from app import config\n" + text.replace(
                'NodeConfig(contexts=("shop",))', "config"
            )  # in the test's group
        file.write_text(text)
    return servers.start(command.replace("8080", str(port)), wait=False, folder=folder, port=port)


@pytest.mark.parametrize(("page", "command"), commands(), ids=[each[1] for each in commands()])
def test_a_page_of_a_server_shows_commands_that_serve(
    servers: Servers, page: str, command: str, tmp_path: Path
) -> None:
    """It counts in a session, stops when it is told to, and another member has the session."""
    one = start(servers, page, command, tmp_path / "site")
    two = servers.start("waitress-serve --listen=127.0.0.1:PORT wsgi_app:application", wait=False)
    one.wait_ready()
    two.wait_ready()
    user = User()
    for _ in range(4):
        user.visit(one)
    assert one.end(signal.SIGTERM) in (0, -signal.SIGTERM), one.log.read_text()
    user.visit(two)


def test_the_page_says_how_a_stop_by_sigterm_is_orderly_under_waitress(
    servers: Servers, tmp_path: Path
) -> None:
    """Others see that it leaves, not a crash."""
    one = start(servers, "waitress.md", "python serve.py", tmp_path / "site")
    two = servers.start("waitress-serve --listen=127.0.0.1:PORT wsgi_app:application", wait=False)
    one.wait_ready()
    two.wait_ready()
    user = User()
    user.visit(one)
    user.visit(two)
    assert one.end(signal.SIGTERM) == 0
    wait_until(lambda: "member removed" in two.log.read_text())
    assert "reason=left" in two.log.read_text()
