"""A person at a browser: logs in, the process that answered is killed, and the next click works.

Chromium, driven by Playwright, before nginx and three processes of `login_app`.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.balancers.stand import Stand
from tests.system.test_browser import FLAGS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its remarks on what it imports
    from playwright.sync_api import Page, sync_playwright

if TYPE_CHECKING:
    from tests.conftest import Needs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

NO_COOKIES = {"profile": {"default_content_setting_values": {"cookies": 2}}}
"""Chromium's preference "block all cookies": it keeps and sends none, whatever an answer says."""


class LoginStand(Stand):
    """The same stand with another application."""

    application = Path(__file__).parent / "login_app.py"


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory, needs: Needs) -> Iterator[Stand]:
    """Three processes, of which each of the two tests kills one."""
    folder = tmp_path_factory.mktemp("stand")
    os.chmod(folder, 0o755)  # nginx's own account looks into it
    made = LoginStand(folder, needs)
    try:
        made.start("nginx/round-robin.conf")
        yield made
    finally:
        made.close()


@pytest.fixture(params=["cookies", "no cookies"])
def page(request: pytest.FixtureRequest, tmp_path: Path, needs: Needs) -> Iterator[Page]:
    """A page of a browser with a new profile, which takes cookies or none."""
    profile = tmp_path / "profile"
    (profile / "Default").mkdir(parents=True)
    if request.param == "no cookies":
        (profile / "Default" / "Preferences").write_text(json.dumps(NO_COOKIES))
    program = needs("chromium", "chromium-browser", "google-chrome")
    own = ("--headless", "--remote-debugging-pipe")  # Playwright's
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=program,
            headless=True,
            args=[flag for flag in FLAGS if flag not in own],
        )
        try:
            yield browser.pages[0]
        finally:
            browser.close()


def fits(page: Page, width: int) -> bool:
    """Whether nothing is cut off at this width."""
    page.set_viewport_size({"width": width, "height": 700})
    wide: bool = page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    return wide


def test_a_person_stays_logged_in_when_the_process_is_killed(
    stand: Stand, page: Page, request: Any, tmp_path: Path
) -> None:
    """Whoever answers; without cookies by the id in each link, which the logout makes worthless."""
    has_cookies = "no cookies" not in request.node.callspec.params.values()
    page.goto(f"http://127.0.0.1:{stand.port}/")
    page.screenshot(path=tmp_path / "login.png")
    page.fill("input[name=user]", "eve")
    page.click("button")
    assert page.inner_text("#user") == "eve"
    for count in ("1", "2", "3"):
        page.click("#add")
        assert page.inner_text("#count") == count
    assert fits(page, 1280)
    page.screenshot(path=tmp_path / "desktop.png")
    assert fits(page, 360)
    page.screenshot(path=tmp_path / "phone.png")
    answered = page.inner_text("#node")
    stand.kill(answered)
    for count in ("4", "5", "6"):
        page.click("#add")
        assert page.inner_text("#user") == "eve"
        assert page.inner_text("#count") == count
        assert page.inner_text("#node") != answered
    assert (";jsessionid=" in page.url) is not has_cookies
    assert bool(page.context.cookies()) is has_cookies
    inside = page.url
    page.click("#out")
    page.goto(inside)
    assert page.locator("#user").count() == 0
