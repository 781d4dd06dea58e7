"""One application under each adapter, asked alike: it counts in its session."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any
from wsgiref.util import setup_testing_defaults

import flask
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.test import override_settings
from django.urls import re_path

import tests.web.test_django  # noqa: F401 - configures Django
from tribes.web import SessionMiddleware, django_node
from tribes.web.flask import TribesSessions
from tribes.web.wsgi import SESSION
from tribes.web.wsgi import SessionMiddleware as WsgiMiddleware


def attributes(header: str) -> dict[str, str]:
    """What a ``Set-Cookie`` header says, whatever the order; without ``Expires``, which only
    repeats ``Max-Age``.
    """
    pairs = (each.strip().partition("=") for each in header.split(";"))
    found = {name.lower(): value.strip('"') for name, _, value in pairs}
    found.pop("expires", None)
    return found


class Answer:
    def __init__(self, status: int, headers: list[tuple[str, str]], session: Any) -> None:
        self.status = status
        self.headers = headers
        self.session = session

    def all(self, name: str) -> list[str]:
        # Django's cookies begin with a space.
        return [value.strip() for key, value in self.headers if key.lower() == name]

    @property
    def cookie(self) -> str:
        """Of the session; empty: none was set."""
        found = [each for each in self.all("set-cookie") if not each.startswith("JSESSIONID-seen")]
        return found[0].partition(";")[0] if found else ""


class _OfWsgi:
    """Requests to one application, which counts in its session, on WSGI."""

    middleware: Any
    """Has the binding."""
    held: Any = None
    seen: Any = None

    def application(self, environ: Any, start_response: Any) -> Any:
        raise NotImplementedError

    def ask(
        self,
        path: str = "/",
        query: str = "",
        *,
        cookie: str = "",
        activation: str = "",
        client: str = "192.0.2.1",
        scheme: str = "http",
        **headers: str,
    ) -> Answer:
        self.held = None
        environ: dict[str, Any] = {
            "SCRIPT_NAME": "",
            "PATH_INFO": path.encode().decode("latin-1"),
            "QUERY_STRING": query,
            "REMOTE_ADDR": client,
            "wsgi.url_scheme": scheme,
            **{"HTTP_" + name.upper(): value for name, value in headers.items()},
        }
        setup_testing_defaults(environ)
        if cookie:
            environ["HTTP_COOKIE"] = cookie
        if activation:
            environ["JK_LB_ACTIVATION"] = activation
        heads: list[Any] = []

        def start_response(*head: Any) -> Any:
            heads.append(head)

        body = self.application(environ, start_response)
        b"".join(body)
        getattr(body, "close", int)()
        [(status, fields)] = heads
        return Answer(int(status[:3]), fields, self.held)


class Wsgi(_OfWsgi):
    """Under our own middleware."""

    def __init__(self, node: Any, **settings: Any) -> None:
        self.middleware = WsgiMiddleware(self.app, node, **settings)

    def app(self, environ: Any, start_response: Any) -> list[bytes]:
        self.held, self.seen = environ[SESSION], environ
        self.held["n"] = self.held.get("n", 0) + 1
        start_response("200 OK", [])
        return [b""]

    def application(self, environ: Any, start_response: Any) -> Any:
        return self.middleware(environ, start_response)


class Asgi:
    """The same under ASGI."""

    def __init__(self, node: Any, **settings: Any) -> None:
        self.middleware = SessionMiddleware(self.app, node, **settings)
        self.held: Any = None
        self.seen: Any = None

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.held, self.seen = scope["session"], scope
        self.held["n"] = self.held.get("n", 0) + 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def ask(
        self,
        path: str = "/",
        query: str = "",
        *,
        cookie: str = "",
        activation: str = "",
        client: str = "192.0.2.1",
        scheme: str = "http",
        **headers: str,
    ) -> Answer:
        self.held = None
        fields = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
        if cookie:
            fields.append((b"cookie", cookie.encode()))
        scope: dict[str, Any] = {
            "type": "http",
            "method": "GET",
            "scheme": scheme,
            "path": path,
            "query_string": query.encode(),
            "client": (client, 4711),
            "headers": fields,
        }
        if activation:
            scope["JK_LB_ACTIVATION"] = activation
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.middleware(scope, None, send))  # type: ignore[arg-type]
        head = [(key.decode(), value.decode("latin-1")) for key, value in sent[0]["headers"]]
        return Answer(sent[0]["status"], head, self.held)


class Flask(_OfWsgi):
    """Under Flask; without settings of ours its own say how the cookie is written."""

    def __init__(self, node: Any, **settings: Any) -> None:
        self.middleware = self
        self.app = app = flask.Flask(__name__)
        app.testing = True
        app.config["SESSION_COOKIE_NAME"] = "JSESSIONID"
        app.session_interface = interface = TribesSessions(node, **settings)
        self.binding = interface.binding
        app.add_url_rule("/", "count", self.view)
        app.add_url_rule("/<path:rest>", "count", self.view)

    def view(self, rest: str = "") -> str:
        self.held = flask.session._get_current_object()  # type: ignore[attr-defined]
        self.seen = flask.request.environ
        self.held["n"] = self.held.get("n", 0) + 1
        return ""

    def application(self, environ: Any, start_response: Any) -> Any:
        return self.app(environ, start_response)


class Django(_OfWsgi):
    """Under Django; ``cookie`` becomes its settings, and the rest ``TRIBES_WEB``."""

    def __init__(self, node: Any, cookie: Any = None, **web: Any) -> None:
        self.middleware = self
        urls: Any = ModuleType("urls")
        urls.urlpatterns = [re_path("^.*$", self.view)]
        self.settings = {
            "ROOT_URLCONF": urls,
            "SESSION_COOKIE_NAME": "JSESSIONID",
            "SESSION_EXPIRE_AT_BROWSER_CLOSE": True,
        }
        if cookie is not None:
            self.settings |= {
                "SESSION_COOKIE_NAME": cookie.name,
                "SESSION_COOKIE_PATH": cookie.path,
                "SESSION_COOKIE_DOMAIN": cookie.domain or None,
                "SESSION_COOKIE_HTTPONLY": cookie.http_only,
                "SESSION_COOKIE_SECURE": bool(cookie.secure),
                "SESSION_COOKIE_SAMESITE": cookie.same_site.capitalize() or False,
            }
            web["signing_keys"] = cookie.signing_keys
        self.web = web
        before, django_node._binding = django_node._binding, None
        try:
            with override_settings(TRIBES_WEB=web, **self.settings):
                self.binding = django_node.bound(node)
                self.handler = WSGIHandler()
        finally:
            django_node._binding = before

    def view(self, request: Any) -> HttpResponse:
        session = request.session
        self.seen = request.META
        session["n"] = session.get("n", 0) + 1
        session.save()
        self.held = session.request
        return HttpResponse("")

    def application(self, environ: Any, start_response: Any) -> Any:
        before, django_node._binding = django_node._binding, None
        try:
            with override_settings(TRIBES_WEB=self.web, **self.settings):
                django_node._binding = self.binding
                try:
                    return self.handler(environ, start_response)
                finally:
                    django_node._binding = None
        finally:
            django_node._binding = before


ADAPTERS = [Wsgi, Asgi, Flask, Django]
