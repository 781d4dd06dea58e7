"""Each adapter carries the token of a client's writes, and brings the session up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, session

from tests.waiting import wait_until
from tests.web.nodes import group
from tribes.config.model import ManagerConfig
from tribes.manager.delta import DeltaManager
from tribes.web import SessionMiddleware as AsgiMiddleware
from tribes.web.flask import TribesSessions
from tribes.web.freshness import acks_all, decode_token, encode_token
from tribes.web.wsgi import SESSION
from tribes.web.wsgi import SessionMiddleware as WsgiMiddleware

if TYPE_CHECKING:
    from tribes.runtime.background import BackgroundNode

TOKEN = "JSESSIONID-seen"


@pytest.fixture
def pair() -> Iterator[tuple[BackgroundNode, BackgroundNode]]:
    """Two nodes of a group, whose requests do not wait for their changes to arrive."""
    with group("n1", "n2", channel_send_options=8) as (one, two):
        yield one, two


def _lose_changes(node: BackgroundNode) -> None:
    """From now on none arrives, as on a link on which they take a minute."""
    manager = node.manager("app")
    assert isinstance(manager, DeltaManager)
    assert manager.replicator is not None
    manager.replicator._send = lambda commits, now: None  # type: ignore[method-assign]


def _asgi(node: BackgroundNode) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        held = scope["session"]
        held["count"] = held.get("count", 0) + 1
        body = str(held["count"]).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    wrapped = AsgiMiddleware(app, node)

    def get(path: str, *, cookies: dict[str, str]) -> Any:
        header = "; ".join(f"{name}={value}" for name, value in cookies.items()).encode()
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "path": path, "headers": [(b"cookie", header)]}
        asyncio.run(wrapped(scope, _nothing, send))
        found = [value.decode() for name, value in sent[0]["headers"] if name == b"set-cookie"]
        return SimpleNamespace(text=sent[1]["body"].decode(), cookies=_cookies(found))

    return get


async def _nothing() -> Any:
    return {"type": "http.disconnect"}


def _cookies(headers: list[str]) -> dict[str, str]:
    pairs = (each.partition(";")[0].partition("=") for each in headers)
    return {name: value for name, _, value in pairs}


class _Wsgi:
    """A client of a WSGI application."""

    def __init__(self, app: Any) -> None:
        from werkzeug.test import Client

        self._client = Client(app, use_cookies=False)

    def __call__(self, path: str, *, cookies: dict[str, str]) -> Any:
        header = "; ".join(f"{name}={value}" for name, value in cookies.items())
        answer = self._client.get(path, headers={"Cookie": header})
        found = _cookies(answer.headers.getlist("Set-Cookie"))
        return SimpleNamespace(text=answer.text, cookies=found)


def _wsgi(node: BackgroundNode) -> Any:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        held = environ[SESSION]
        held["count"] = held.get("count", 0) + 1
        start_response("200 OK", [])
        return [str(held["count"]).encode()]

    return _Wsgi(WsgiMiddleware(app, node))


def _flask(node: BackgroundNode) -> Any:
    app = Flask("shop")
    app.config["SESSION_COOKIE_NAME"] = "JSESSIONID"
    app.session_interface = TribesSessions(node)

    @app.get("/")
    def count() -> str:
        session["count"] = session.get("count", 0) + 1
        return str(session["count"])

    return _Wsgi(app)


@pytest.mark.parametrize("adapter", [_asgi, _wsgi, _flask])
def test_t56_each_adapter_lets_a_client_read_its_own_writes(
    adapter: Any, pair: tuple[BackgroundNode, BackgroundNode]
) -> None:
    """Option 8, and a link on which changes do not arrive: ten increments over two nodes are ten.
    Without the token the other node knows nothing of them.
    """
    one, other = (adapter(node) for node in pair)
    cookies = dict(one("/", cookies={}).cookies)
    assert decode_token(cookies[TOKEN]) is not None
    wait_until(lambda: pair[1].manager("app").find(cookies["JSESSIONID"]) is not None)
    _lose_changes(pair[0])
    for turn in range(2, 11):
        ask = (other, one)[turn % 2]
        answer = ask("/", cookies=cookies)
        assert answer.text == str(turn)
        cookies.update(answer.cookies)
    one("/", cookies=cookies)
    without = {"JSESSIONID": cookies["JSESSIONID"]}
    assert other("/", cookies=without).text == "11", "one that did not arrive is overwritten"


@pytest.mark.parametrize("text", ["", "x" * 15, "é" * 16, "A" * 16, "====" * 4, "0" * 300])
def test_what_is_no_token_is_none(text: str) -> None:
    """Whatever a client sends."""
    assert decode_token(text) is None


def test_token_is_what_was_encoded() -> None:
    """16 characters that a cookie can carry."""
    for written in ((1, 0), (2**64 - 1, 2**32 - 1)):
        text = encode_token(*written)
        assert len(text) == 16
        assert decode_token(text) == written


@pytest.mark.parametrize(
    ("options", "is_needless"), [(6, True), (2, False), (8, False), (14, False)]
)
def test_no_token_where_every_member_has_applied_the_write(options: int, is_needless: bool) -> None:
    """That is only with 6: 2 says received, 8 and 14 wait for nobody."""
    assert acks_all(ManagerConfig(channel_send_options=options)) is is_needless
