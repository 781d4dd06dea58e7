"""The demo as a person uses it: the command, the page, the buttons, Ctrl-C."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.timeout(150), pytest.mark.slow]

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-pipe",
)


class Browser:
    """Headless Chromium, told what to do over a pipe."""

    def __init__(self, program: str, profile: str) -> None:
        to_browser, self._to = os.pipe()
        self._from, from_browser = os.pipe()
        # The browser reads commands from descriptor 3 and answers on 4.
        command = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self.process = subprocess.Popen(
            ["bash", "-c", command, "-", program, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._ids = itertools.count(1)
        self._buffer = b""
        targets = self._call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        attached = self._call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session: str = attached["sessionId"]

    def _call(self, method: str, session: str | None = None, **params: Any) -> Any:
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def _receive(self) -> Any:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], 30)
            assert ready, "the browser does not answer"
            data = os.read(self._from, 1 << 20)
            assert data, "the browser has ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def navigate(self, url: str) -> None:
        self._call("Page.navigate", self._session, url=url)

    def resize(self, width: int, height: int) -> None:
        sizes = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", self._session, **sizes)

    def photograph(self, folder: Path) -> None:
        """The page at a desktop's width and a phone's, as files to look at; it fits both."""
        for name, width in (("desktop", 1280), ("phone", 390)):
            self.resize(width, 900)
            assert self.js("document.documentElement.scrollWidth") <= width
            found = self._call("Page.captureScreenshot", self._session, captureBeyondViewport=True)
            (folder / f"{name}.png").write_bytes(base64.b64decode(found["data"]))

    def open(self, url: str) -> None:
        self.navigate(url)
        self.until("document.readyState == 'complete' && !document.getElementById('add').disabled")

    def js(self, expression: str) -> Any:
        result = self._call(
            "Runtime.evaluate", self._session, expression=expression, returnByValue=True
        )
        return result["result"].get("value")

    def until(self, expression: str, within: float = 20.0) -> None:
        deadline = time.monotonic() + within
        while self.js(expression) is not True:
            assert time.monotonic() < deadline, f"never true: {expression}"
            time.sleep(0.05)

    def close(self) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self._call("Browser.close")
        os.close(self._to)
        os.close(self._from)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def demo() -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """``tribes demo`` with three nodes, and their addresses."""
    command = [sys.executable, "-m", "tribes", "demo", "--nodes", "3", "--base-port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    urls: dict[str, str] = {}
    try:
        for line in process.stdout:
            ready = re.search(r"node ready.*node=(node-\d) url=(http://127\.0\.0\.1:\d+)", line)
            if ready:
                urls[ready[1]] = ready[2]
            if len(urls) == 3:
                break
        yield process, [urls[name] for name in sorted(urls)]
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@pytest.fixture
def browser(needs: Any) -> Iterator[Browser]:
    """A browser with an empty profile."""
    program = needs("chromium", "chromium-browser", "google-chrome")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        made = Browser(program, profile)
        try:
            yield made
        finally:
            made.close()


def test_a_person_kills_the_node_and_keeps_the_session(
    demo: tuple[subprocess.Popen[str], list[str]], browser: Browser, tmp_path: Path
) -> None:
    """Add three, kill this node by its button, open another one: same id, same counter."""
    process, urls = demo
    browser.open(urls[0] + "/")
    session_id = browser.js("document.getElementById('sid').title")
    assert re.fullmatch(r"[0-9A-F]{32}", session_id)
    for count in (1, 2, 3):
        browser.js("document.getElementById('add').click()")
        browser.until(f"document.getElementById('count').textContent.trim() == '{count}'")
    live = "document.querySelectorAll('[data-state=live], [data-state=self]').length"
    browser.until(f"{live} == 3")
    browser.photograph(tmp_path)
    browser.open(urls[1] + "/")
    tile = "document.querySelector('[data-node=\"node-1\"]')"
    browser.until(f"!{tile}.querySelector('.kill').disabled")
    browser.js(f"{tile}.querySelector('.kill').click()")
    browser.until(f"{tile}.querySelector('[data-state=down]') !== null")
    assert browser.js("document.getElementById('sid').title") == session_id
    browser.js("document.getElementById('add').click()")
    browser.until("document.getElementById('count').textContent.trim() == '4'")
    browser.js(f"{tile}.querySelector('.start').click()")
    browser.until(f"{live} == 3")
    browser.open(urls[0] + "/")
    assert browser.js("document.getElementById('sid').title") == session_id
    assert browser.js("document.getElementById('count').textContent.trim()") == "4"
    # Linux keeps them by the thread that started them.
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    children = " ".join(task.read_text() for task in tasks).split()
    assert len(children) == 3
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
