"""One login for all applications of all members."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from http.cookies import SimpleCookie
from typing import Any

import flask
import msgspec
import pytest

from tests.ports import free_udp_port
from tests.waiting import wait_until
from tests.web.nodes import make_node
from tribes.config.managers import ContextConfig, ManagerConfig, StandardConfig
from tribes.config.valves import SSO_CONTEXT, SingleSignOnConfig
from tribes.runtime.background import BackgroundNode
from tribes.runtime.sso import NOTE
from tribes.web.asgi import SessionMiddleware as AsgiMiddleware
from tribes.web.flask import TribesSessions
from tribes.web.wsgi import SESSION, SessionMiddleware

PASSWORD = "correct-horse-battery-staple"


def application(environ: Any, start_response: Any) -> list[bytes]:
    """A page that tells who is logged in; /login checks a password, /logout ends the session."""
    session = environ[SESSION]
    path = environ["PATH_INFO"]
    if path == "/login":
        assert environ["QUERY_STRING"] == f"password={PASSWORD}"
        session.rotate_id(0)
        session.principal = {"name": "ann", "roles": ["buyer"]}
        session.auth_type = "FORM"
    elif path == "/logout":
        session.invalidate()
    elif path == "/leave":
        session.principal = None
    elif path == "/short":
        session.max_inactive = 1
    elif path == "/use":
        session["n"] = session.get("n", 0) + 1
    who = session.principal if path != "/logout" else None
    body = json.dumps({"who": who and who["name"]}).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


class Client:
    """A browser: one jar of cookies for each application's path, and for single sign-on."""

    def __init__(self) -> None:
        self.jar: dict[str, dict[str, str]] = {}
        self.shared: dict[str, str] = {}

    def get(self, app: SessionMiddleware, name: str, path: str) -> str | None:
        own = self.jar.setdefault(name, {})
        cookies = "; ".join(f"{k}={v}" for k, v in {**own, **self.shared}.items())
        path, _, query = path.partition("?")
        environ = {
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": "GET",
            "HTTP_COOKIE": cookies,
            "wsgi.url_scheme": "http",
        }
        heads: list[list[tuple[str, str]]] = []
        body = b"".join(app(environ, lambda _, headers, *__: heads.append(headers)))  # type: ignore[arg-type]
        for header, value in heads[-1]:
            if header == "Set-Cookie":
                for key, morsel in SimpleCookie(value).items():
                    jar = self.shared if key == "JSESSIONIDSSO" else own
                    if morsel.value:
                        jar[key] = morsel.value
                    else:
                        jar.pop(key, None)
        who = json.loads(body)["who"]
        assert who is None or isinstance(who, str)
        return who


Pair = tuple[BackgroundNode, BackgroundNode]


def make(name: str, port: int, **context: ContextConfig) -> BackgroundNode:
    config = make_node(name, port).config
    return BackgroundNode(
        msgspec.structs.replace(
            config, contexts=("app1", "app2"), context=context, sso=SingleSignOnConfig()
        )
    )


@pytest.fixture
def pair() -> Iterator[Pair]:
    port = free_udp_port()
    a, b = make("a", port), make("b", port)
    with running(a, b):
        yield a, b


class running:  # noqa: N801 - a context manager
    def __init__(self, *nodes: BackgroundNode) -> None:
        self.nodes = nodes

    def __enter__(self) -> None:
        for node in self.nodes:
            node.start()
        wait_until(lambda: all(logins(node).copies_on for node in self.nodes))
        wait_until(
            lambda: all(n.manager(c).is_joined for n in self.nodes for c in n.config.contexts)
        )

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.stop()


def logins(node: BackgroundNode) -> Any:
    return node.sessions.manager(SSO_CONTEXT)


def app(node: BackgroundNode, context: str) -> SessionMiddleware:
    return SessionMiddleware(application, node, context=context)


LOGIN = f"/login?password={PASSWORD}"


def test_t109_a_login_on_one_member_and_application_is_one_on_all(pair: Pair) -> None:
    """Login on A in app1 is a login on B in app2; a logout there ends both."""
    a, b = pair
    one, two, client = app(a, "app1"), app(b, "app2"), Client()
    assert client.get(two, "app2", "/") is None
    assert client.get(one, "app1", LOGIN) == "ann"
    assert client.get(two, "app2", "/") == "ann", "also without a session there"
    assert client.get(two, "app2", "/use") == "ann"
    [first] = a.manager("app1").list_ids()
    [second] = b.manager("app2").list_ids()
    assert first != second
    [entry] = logins(b).list_ids()
    assert len(logins(b).find(entry)) == 2
    assert client.get(two, "app2", "/logout") is None
    assert client.shared == {}, "the client is told to forget it"
    wait_until(lambda: not a.manager("app1").list_ids() and not a.manager("app2").list_ids())
    assert client.get(one, "app1", "/") is None
    assert logins(a).list_ids() == []


Ask = Callable[[str, str], tuple[str, list[str]]]
"""Path and the login's cookie; who is logged in, and what the client is told of its cookies."""


def in_flask(node: BackgroundNode) -> Ask:
    site = flask.Flask("shop")
    site.session_interface = TribesSessions(node, context="app2")

    @site.route("/")
    def who() -> str:
        principal: Any = flask.session.principal  # type: ignore[attr-defined]
        return str(principal["name"]) if principal else "nobody"

    @site.route("/logout")
    def logout() -> str:
        flask.session.invalidate()  # type: ignore[attr-defined]
        return "nobody"

    def ask(path: str, login: str) -> tuple[str, list[str]]:
        client = site.test_client(use_cookies=False)
        answer = client.get(path, headers={"Cookie": f"JSESSIONIDSSO={login}"})
        return answer.text, answer.headers.getlist("Set-Cookie")

    return ask


def in_asgi(node: BackgroundNode) -> Ask:
    async def site(scope: Any, receive: Any, send: Any) -> None:
        session, who = scope["session"], "nobody"
        if scope["path"] == "/logout":
            session.invalidate()
        elif session.principal:
            who = session.principal["name"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": who.encode()})

    middleware = AsgiMiddleware(site, node, context="app2")

    def ask(path: str, login: str) -> tuple[str, list[str]]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"cookie", f"JSESSIONIDSSO={login}".encode())]
        scope = {"type": "http", "path": path, "headers": headers}
        asyncio.run(middleware(scope, None, send))  # type: ignore[arg-type]
        told = [value.decode() for name, value in sent[0]["headers"] if name == b"set-cookie"]
        return sent[1]["body"].decode(), told

    return ask


@pytest.mark.parametrize("other", [in_flask, in_asgi])
def test_t109_a_login_is_one_under_each_adapter(
    other: Callable[[BackgroundNode], Ask], pair: Pair
) -> None:
    """A login under WSGI is known to the others, and ended by their logout."""
    a, b = pair
    client, ask = Client(), other(b)
    assert ask("/", "0" * 32)[0] == "nobody"
    assert client.get(app(a, "app1"), "app1", LOGIN) == "ann"
    login = client.shared["JSESSIONIDSSO"]
    assert ask("/", login)[0] == "ann"
    body, told = ask("/logout", login)
    assert body == "nobody"
    assert [each for each in told if each.startswith("JSESSIONIDSSO=; ")]
    wait_until(lambda: not logins(a).list_ids())
    assert client.get(app(a, "app1"), "app1", "/") is None


def test_t109_the_time_out_of_one_session_ends_no_other(pair: Pair) -> None:
    """It leaves the entry; the last one takes the entry along."""
    a, b = pair
    one, two, client = app(a, "app1"), app(b, "app2"), Client()
    client.get(one, "app1", LOGIN)
    client.get(two, "app2", "/use")
    [entry] = logins(a).list_ids()
    client.get(one, "app1", "/short")
    wait_until(lambda: len(logins(b).find(entry) or ()) == 1, 8)
    assert a.manager("app1").list_ids() == []
    assert client.get(two, "app2", "/use") == "ann"
    assert client.get(one, "app1", "/use") == "ann", "the login itself still stands"
    for name, its in (("app1", one), ("app2", two)):
        client.get(its, name, "/short")
    wait_until(lambda: not logins(a).list_ids() and not logins(b).list_ids())


def test_t109_two_sessions_that_leave_at_once_on_two_members_take_the_entry_along(
    pair: Pair,
) -> None:
    """Each member takes out its own and still sees the other's."""
    a, b = pair
    client = Client()
    client.get(app(a, "app1"), "app1", LOGIN)
    client.get(app(b, "app2"), "app2", "/use")
    [entry] = logins(a).list_ids()
    copies = [(logins(node), logins(node).find(entry)) for node in pair]
    for (manager, copy), context in zip(copies, ("app1", "app2"), strict=True):
        assert copy is not None
        [name] = [each for each in copy if each.startswith(context)]
        del copy[name]
        manager.commit(copy)
    wait_until(lambda: not logins(a).list_ids() and not logins(b).list_ids())


def test_taking_the_principal_away_logs_out_everywhere(pair: Pair) -> None:
    a, b = pair
    one, two, client = app(a, "app1"), app(b, "app2"), Client()
    client.get(one, "app1", LOGIN)
    client.get(two, "app2", "/use")
    assert client.get(one, "app1", "/leave") is None
    wait_until(lambda: not b.manager("app2").list_ids())
    assert client.get(two, "app2", "/") is None


def test_a_session_that_a_manager_ends_ends_the_login(pair: Pair) -> None:
    """As by an operator, without any request."""
    a, b = pair
    client = Client()
    client.get(app(a, "app1"), "app1", LOGIN)
    client.get(app(b, "app2"), "app2", "/use")
    session = b.manager("app2").find(b.manager("app2").list_ids()[0])
    assert session is not None
    b.manager("app2").invalidate(session)
    wait_until(lambda: not a.manager("app1").list_ids() and not logins(a).list_ids())


def test_an_unknown_cookie_is_taken_from_the_client(pair: Pair) -> None:
    client = Client()
    client.shared["JSESSIONIDSSO"] = "0" * 32
    assert client.get(app(pair[0], "app1"), "app1", "/") is None
    assert client.shared == {}


def test_a_changed_id_keeps_the_login(pair: Pair) -> None:
    """Keys never change, so an entry is at no moment without its session."""
    a, b = pair
    client = Client()
    client.get(app(a, "app1"), "app1", LOGIN)
    before = logins(a).find(logins(a).list_ids()[0])
    client.get(app(b, "app1"), "app1", LOGIN)
    after = logins(a).find(logins(a).list_ids()[0])
    assert set(before) == set(after)
    assert client.get(app(a, "app2"), "app2", "/") == "ann"


def test_a_session_that_only_another_member_has_ends_with_its_next_request() -> None:
    """app2's sessions are in no group: A cannot end those of B, and B sees that the login ended."""
    port, alone = free_udp_port(), ContextConfig(manager=StandardConfig())
    a, b = make("a", port, app2=alone), make("b", port, app2=alone)
    with running(a, b):
        client = Client()
        client.get(app(a, "app1"), "app1", LOGIN)
        assert client.get(app(b, "app2"), "app2", "/use") == "ann"
        stolen = Client()
        stolen.jar = {"app2": dict(client.jar["app2"])}
        client.get(app(a, "app1"), "app1", "/logout")
        wait_until(lambda: not logins(b).list_ids())
        assert stolen.get(app(b, "app2"), "app2", "/") is None
        assert b.manager("app2").list_ids() == []


def test_a_session_whose_login_has_not_arrived_yet_is_not_ended(pair: Pair) -> None:
    """An entry that is unknown here may only be late."""
    a, _ = pair
    one, client = app(a, "app1"), Client()
    client.get(one, "app1", LOGIN)
    session = a.manager("app1").find(a.manager("app1").list_ids()[0])
    assert session is not None
    session.notes[NOTE] = "F" * 32
    a.commit(session)
    client.shared = {}
    assert client.get(one, "app1", "/") == "ann"


def test_a_stop_ends_no_login(pair: Pair) -> None:
    a, b = pair
    client = Client()
    client.get(app(a, "app1"), "app1", LOGIN)
    a.stop()
    assert client.get(app(b, "app2"), "app2", "/") == "ann"


def test_t110_no_password_is_on_the_wire_or_in_a_replica(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that the members write and everything that they hold is searched."""
    a, b = pair
    written: list[bytes] = []
    for name in ("send", "sendto"):
        _tap(monkeypatch, name, written)
    client = Client()
    client.get(app(a, "app1"), "app1", LOGIN)
    client.get(app(b, "app2"), "app2", "/use")
    held = b"".join(
        repr(manager.table.get(key)).encode()
        for node in pair
        for manager in node.sessions.managers.values()
        for key in manager.table.keys()  # noqa: SIM118 - no mapping
    )
    sent = b"".join(written)
    assert b"ann" in held, "what is searched is what was written"
    assert b"ann" in sent
    assert PASSWORD.encode() not in held
    assert PASSWORD.encode() not in sent


def _tap(patch: pytest.MonkeyPatch, name: str, written: list[bytes]) -> None:
    """Note what every socket of the channel writes."""
    plain = getattr(socket.socket, name)

    def call(self: Any, data: Any, *rest: Any) -> Any:
        written.append(bytes(data))
        return plain(self, data, *rest)

    patch.setattr(socket.socket, name, call)


def test_managers_of_the_template_are_plain_ones() -> None:
    """A template that is in no group has its logins shared all the same."""
    config = make_node().config
    config = msgspec.structs.replace(config, manager=StandardConfig(), sso=SingleSignOnConfig())
    assert config.replicated == (SSO_CONTEXT,)
    shared = config.replicated_manager_of(SSO_CONTEXT)
    assert (type(shared), shared.channel_send_options) == (ManagerConfig, 6)
