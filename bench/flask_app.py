"""A Flask application whose one page changes its session, with any kind of sessions."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

from flask import Flask, session
from flask_session import Session as FlaskSession

__all__ = ["application"]


def application(
    change: Callable[[MutableMapping[str, Any]], None], interface: Any = None, **configured: Any
) -> Callable[[], None]:
    """Return what makes one request.

    Args:
        change: What the page does to its session; not done without any kind of sessions.
        interface: Keeps the sessions.
        configured: For Flask-Session, which keeps them if there is no interface.
    """
    app = Flask(__name__)
    app.config.update(configured, SECRET_KEY="k" * 32)
    if interface is not None:
        app.session_interface = interface
    elif configured:
        FlaskSession(app)

    @app.route("/none")
    def none() -> str:
        return "none"

    @app.route("/")
    def page() -> str:
        change(session)
        return "page"

    client = app.test_client()
    path = "/" if configured or interface is not None else "/none"
    client.get(path)

    def request() -> None:
        assert client.get(path).status_code == 200

    return request
