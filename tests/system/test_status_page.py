"""The status page in a browser: what it shows of a group that lives, loses and hangs."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.system.test_browser import Browser, browser
from tests.system.test_operators import TOKEN, Node, start, token_file
from tests.system.test_recorder import traffic

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["browser", "start", "token_file"]

pytestmark = [pytest.mark.timeout(150), pytest.mark.slow]

SHOWN = "!document.getElementById('data').hidden"
LOADED = "document.readyState === 'complete' && document.getElementById('data') !== null"


def text(page: Browser, name: str) -> str:
    return str(page.js(f"document.getElementById('{name}').textContent"))


def test_the_page_follows_the_group(
    start: Callable[..., Node], browser: Browser, tmp_path: Path
) -> None:
    """Members come, hang, answer again and die; charts run; nothing is wider than a phone; when the
    node has gone, the page says so.
    """
    first = start("n1")
    second = start("n2")
    first.read_until("member added")
    browser.navigate(first.url)
    browser.until(LOADED)
    browser.until(f"{SHOWN} && document.getElementById('members-n').textContent === '1'")
    assert text(browser, "node") == "n1"
    browser.until("document.getElementById('ready').textContent === 'ready'")
    assert "n2" in text(browser, "members")
    assert "shop" in text(browser, "contexts")
    browser.until("document.querySelectorAll('#charts svg path.line').length === 4")
    for width in (1280, 390, 320):
        browser.resize(width, 800)
        assert browser.js("document.documentElement.scrollWidth") <= width
    browser.photograph(tmp_path)
    second.process.send_signal(signal.SIGSTOP)
    browser.until("document.getElementById('suspected-n').textContent === '1'")
    browser.until("document.getElementById('members').textContent.includes('suspected')")
    browser.until("document.getElementById('failures').textContent.includes('member suspected')")
    second.process.send_signal(signal.SIGCONT)
    browser.until("document.getElementById('suspected-n').textContent === '0'")
    second.process.kill()
    browser.until("document.getElementById('members-n').textContent === '0'")
    browser.until("document.getElementById('failures').textContent.includes('crashed')")
    first.close()
    browser.until("document.getElementById('banner').textContent.includes('does not answer')")


def test_names_of_others_are_text_and_nothing_foreign_runs(
    start: Callable[..., Node], browser: Browser
) -> None:
    """A member that calls itself HTML is shown as it calls itself; the policy holds as well."""
    first = start("n1")
    start("<img src=x onerror=document.title=1>".replace("/", ""))
    browser.navigate(first.url)
    browser.until(LOADED)
    browser.until(f"{SHOWN} && document.getElementById('members').textContent.includes('<img')")
    assert browser.js("document.querySelectorAll('img').length") == 0
    browser.js(
        "document.body.append(Object.assign(document.createElement('script'),"
        "{textContent: 'window.foreign = 1'}))"
    )
    assert browser.js("window.foreign === undefined") is True
    # That a request fails says nothing: nobody answers there, whatever the policy is.
    browser.js(
        "document.addEventListener('securitypolicyviolation', event => {"
        " if (event.effectiveDirective === 'connect-src') window.held = event.blockedURI })"
    )
    browser.js("fetch('http://127.0.0.2:1/').catch(() => {})")
    browser.until("window.held === 'http://127.0.0.2:1/'")


def test_sessions_are_found_shown_and_ended_on_the_page(
    start: Callable[..., Node], browser: Browser, token_file: Path
) -> None:
    """Listed, opened without their values, found by a user's id that is then gone from the screen,
    and ended on all members, which the log says; who has no token sees nothing of it.
    """
    node = start("n1", f'token_file = "{token_file}"\n')
    node.read_until("joined")
    secret, ids = "value-of-the-session", traffic(node, 30, secret="value-of-the-session")
    browser.navigate(node.url)
    browser.until(LOADED)
    browser.until("!document.getElementById('login').hidden")
    assert browser.js("document.getElementById('sessions').hidden") is True
    browser.js(f"sessionStorage.setItem('tribes-token', '{TOKEN}'); look()")
    browser.until(f"{SHOWN} && !document.getElementById('sessions').hidden")
    browser.until("document.getElementById('context').value === 'shop'")
    find = "document.getElementById('find').requestSubmit()"
    browser.js(find)
    browser.until("document.querySelectorAll('#found tbody tr').length === 20")
    browser.js("document.getElementById('more').click()")
    browser.until("document.querySelectorAll('#found tbody tr').length === 10")
    browser.js("document.querySelector('#found button').click()")
    browser.until("document.getElementById('found').textContent.includes('secret')")
    for width in (1280, 390, 320):
        browser.resize(width, 800)
        assert browser.js("document.documentElement.scrollWidth") <= width
    browser.js(f"document.getElementById('session').value = '{ids[7]}'; {find}")
    browser.until("!document.getElementById('end').hidden")
    whole = str(browser.js("document.documentElement.outerHTML"))
    assert secret not in whole
    assert ids[7] not in whole
    assert browser.js("document.getElementById('session').value") == ""
    browser.js("window.confirm = () => false; document.getElementById('end').requestSubmit()")
    assert browser.js("document.getElementById('end').hidden") is False
    browser.js("document.getElementById('reason').value = 'stolen laptop'")
    browser.js("window.confirm = () => true; document.getElementById('end').requestSubmit()")
    browser.until("document.getElementById('said').textContent.includes('has ended')")
    said = node.read_until("session ended by operator")
    assert said["reason"] == "stolen laptop"
    assert ids[7] not in str(said)
    browser.js(f"document.getElementById('session').value = '{ids[7]}'; {find}")
    browser.until("document.getElementById('said').textContent.includes('no such session')")


def test_the_page_asks_for_the_token(
    start: Callable[..., Node], browser: Browser, token_file: Path
) -> None:
    """Nothing is shown without it; a wrong one is told; it stays in the tab."""
    node = start("n1", f'token_file = "{token_file}"\n')
    browser.navigate(node.url)
    browser.until(LOADED)
    login = "!document.getElementById('login').hidden"
    browser.until(login)
    assert text(browser, "members") == ""
    for token, then in (("wrong-token-of-somebody", login), (TOKEN, SHOWN)):
        browser.js(f"document.getElementById('token').value = '{token}'")
        browser.js("document.querySelector('form').requestSubmit()")
        if token != TOKEN:
            browser.until("document.getElementById('banner').textContent.includes('not the node')")
        browser.until(then)
    browser.until("document.getElementById('login').hidden")
    browser.navigate(node.url)
    browser.until(LOADED)
    browser.until(SHOWN)
