"""A process that is killed: it serves one request, and says how far it is.

Run: ``doomed.py nodes failover route method path cookie``. Prints what the handler sees in the
session, before it answers if the path is ``/hold``, and then the cookie. It ends by itself after a
while.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from tests.session_server.site import Browser, application, site_on

LONGEST_S = 50.0


def holding(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """The page, after a long time at one path."""
    if environ["PATH_INFO"] == "/hold":
        print(dict(environ["tribes.session"]), flush=True)
        time.sleep(LONGEST_S)
    return application(environ, start_response)


def main(nodes: str, failover: str, route: str, method: str, path: str, cookie: str) -> None:
    settings = {"failover_nodes": failover} if failover else {}
    with site_on(nodes, **settings) as site:
        browser = Browser(cookie)
        page = browser.get(site.instance(route=route, app=holding), path, method)
        print(page.text.splitlines()[1:], flush=True)
        print(browser.cookie, flush=True)
        time.sleep(LONGEST_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
