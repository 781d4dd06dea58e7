"""The small web app that each node of the demo runs.

It knows nothing of replication: it keeps a counter in ``request.session`` and shows it. Whoever
makes the node wraps the app in the session middleware; what the page promises ("same session id,
same counter, on any node") is the middleware's work. That is also how an application of yours
would look.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any, Protocol, cast

from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from .demo_page import ICON_SVG, PageFacts, content_security_policy, render_page

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request

__all__ = ["make_app"]

_NO_STORE = {"cache-control": "no-store"}


class _Session(Protocol):
    """What the app uses of ``request.session``: a mapping that has an id and a birthday."""

    @property
    def id(self) -> str: ...
    @property
    def created_ms(self) -> int: ...
    def get(self, key: str, default: int) -> Any: ...
    def __contains__(self, key: object) -> bool: ...
    def __setitem__(self, key: str, value: int) -> None: ...


def make_app(
    name: str,
    members: Callable[[], list[str]],
    control_url: str,
    peers: Mapping[str, str],
) -> Starlette:
    """Return the demo's ASGI app, without session middleware.

    Args:
        name: This node's name.
        members: Returns the names of all live members that this node sees, itself included.
            Called in the event loop, so it must not block.
        control_url: The demo's control port, ``http://127.0.0.1:port``.
        peers: Every node of the demo with its address, in the order to show.
    """

    async def page(request: Request) -> Response:
        session = _session_of(request)
        if "count" not in session:
            session["count"] = 0  # a session becomes real when something is stored in it
        nonce = secrets.token_urlsafe(16)
        facts = PageFacts(
            node=name,
            pid=os.getpid(),
            session_id=session.id,
            created_ms=session.created_ms,
            count=session.get("count", 0),
            members=members(),
            control_url=control_url,
            peers=_as_visited(peers, request),
        )
        policy = content_security_policy(nonce, control_url)
        return HTMLResponse(
            render_page(facts, nonce=nonce),
            headers={
                **_NO_STORE,
                "content-security-policy": policy,
                "x-content-type-options": "nosniff",
                "referrer-policy": "same-origin",
            },
        )

    async def count(request: Request) -> Response:
        session = _session_of(request)
        session["count"] = session.get("count", 0) + 1
        return JSONResponse(
            {
                "node": name,
                "pid": os.getpid(),
                "session_id": session.id,
                "created_ms": session.created_ms,
                "count": session.get("count", 0),
                "members": members(),
            },
            headers=_NO_STORE,
        )

    async def members_seen(_: Request) -> Response:
        return JSONResponse(members(), headers=_NO_STORE)

    async def health(_: Request) -> Response:
        return PlainTextResponse("ok", headers=_NO_STORE)

    async def icon(_: Request) -> Response:
        return Response(ICON_SVG, media_type="image/svg+xml", headers=_NO_STORE)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/session", count),
            Route("/members", members_seen),
            Route("/health", health),
            Route("/favicon.ico", icon),
        ]
    )


def _session_of(request: Request) -> _Session:
    return cast("_Session", request.session)


def _as_visited(peers: Mapping[str, str], request: Request) -> dict[str, str]:
    """Name the other nodes as the visitor names this one.

    A cookie belongs to a host name, whatever the port. Who came by ``localhost`` would lose the
    session on a link to ``127.0.0.1``.
    """
    if request.url.hostname != "localhost":
        return dict(peers)
    return {name: url.replace("//127.0.0.1:", "//localhost:", 1) for name, url in peers.items()}
