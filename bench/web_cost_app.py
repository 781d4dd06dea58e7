"""What `web_cost.py` has its servers run: one small site under three frameworks, by environment.

``KIND`` is ``framework/sessions``. ``/none`` touches no session, ``/read`` reads one, ``/write``
adds one to a number in it, beside a text of 1 kB.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from tribes import AttachedNode, BackgroundNode
from tribes.config import config_from

if TYPE_CHECKING:
    from starlette.requests import Request

FRAMEWORK, _, SESSIONS = os.environ["KIND"].partition("/")
GROUP_PORT = int(os.environ["GROUP_PORT"])
OPTIONS = int(SESSIONS.partition(" ")[2] or 8) if SESSIONS.startswith("ours") else 8
TEXT = "x" * 1000
CONTEXT = "bench"


def group(name: str) -> dict[str, Any]:
    """The node of this process, or of the other member."""
    return {
        "name": name,
        "contexts": [CONTEXT],
        "channel": {"membership": {"port": GROUP_PORT}, "receiver": {"port": 0}},
        "manager": {"channel_send_options": OPTIONS},
    }


def made(name: str) -> BackgroundNode:
    return BackgroundNode(config_from(group(name)))


def members(node: BackgroundNode | AttachedNode) -> str:
    """How many others there are."""
    return str(len(node.view.members) if node.is_running else 0)


def change(session: Any) -> str:
    """What ``/write`` does."""
    if "text" not in session:
        session["text"] = TEXT
    session["n"] = session.get("n", 0) + 1
    return str(session["n"])


def on_starlette() -> Any:
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.sessions import SessionMiddleware as CookieSessions
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from tribes.web import SessionMiddleware

    node = made("web")

    async def none(request: Request) -> PlainTextResponse:
        return PlainTextResponse("0")

    async def read(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(request.session.get("n", 0)))

    async def write(request: Request) -> PlainTextResponse:
        return PlainTextResponse(change(request.session))

    async def other_members(request: Request) -> PlainTextResponse:
        return PlainTextResponse(members(node))

    around = {
        "none": [],
        "cookie": [Middleware(CookieSessions, secret_key="k" * 32)],
    }.get(SESSIONS, [Middleware(SessionMiddleware, node=node)])
    routes = {"/none": none, "/read": read, "/write": write, "/members": other_members}
    return Starlette(routes=[Route(*each) for each in routes.items()], middleware=around)


def on_flask() -> Any:
    import redis
    from flask import Flask, session
    from flask_session import Session as FlaskSession

    from tribes.web.flask import TribesSessions

    node = made("web")
    app = Flask("bench")
    app.config["SECRET_KEY"] = "k" * 32
    if SESSIONS == "redis":
        app.config["SESSION_TYPE"] = "redis"
        app.config["SESSION_REDIS"] = redis.Redis(port=int(os.environ["REDIS_PORT"]), protocol=2)
        FlaskSession(app)
    elif SESSIONS.startswith("ours"):
        app.session_interface = TribesSessions(node)
    app.add_url_rule("/none", "none", lambda: "0")
    app.add_url_rule("/read", "read", lambda: str(session.get("n", 0)))
    app.add_url_rule("/write", "write", lambda: change(session))
    app.add_url_rule("/members", "members", lambda: members(node))
    return app


def on_django() -> Any:
    import django
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    middleware = {
        "none": [],
        "redis": ["django.contrib.sessions.middleware.SessionMiddleware"],
    }.get(SESSIONS, ["tribes.web.django.SessionMiddleware"])
    redis_url = f"redis://127.0.0.1:{os.environ['REDIS_PORT']}"
    settings.configure(
        SECRET_KEY="k" * 32,
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=middleware,
        CACHES={
            "default": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": redis_url,
            }
        },
        SESSION_ENGINE="django.contrib.sessions.backends.cache"
        if SESSIONS == "redis"
        else "tribes.web.django",
        TRIBES=group("web"),
    )
    django.setup()

    def none(request: HttpRequest) -> HttpResponse:
        return HttpResponse("0")

    def read(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(request.session.get("n", 0)))

    def write(request: HttpRequest) -> HttpResponse:
        return HttpResponse(change(request.session))

    def other_members(request: HttpRequest) -> HttpResponse:
        from tribes.web.django import node

        return HttpResponse(members(node()))

    views = {"none": none, "read": read, "write": write, "members": other_members}
    globals()["urlpatterns"] = [path(name, view) for name, view in views.items()]
    return get_wsgi_application()


def be_the_other_member() -> None:
    """Hold copies until standard input ends."""
    node = made("other")
    node.start()
    sys.stdin.read()
    node.stop()


if __name__ == "__main__":
    be_the_other_member()
else:
    application = {"starlette": on_starlette, "flask": on_flask, "django": on_django}[FRAMEWORK]()
