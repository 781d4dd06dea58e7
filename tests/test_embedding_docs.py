"""What docs/embedding/ shows works as shown."""

from __future__ import annotations

import asyncio
import tomllib
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from wsgiref.util import setup_testing_defaults

import httpx
import msgspec
import pytest
from django.utils.module_loading import import_string

from tests.runtime.attach_host import Host
from tests.runtime.attach_host import settings as host_settings
from tests.snippets import blocks, run
from tribes.config import check_config, config_from
from tribes.config.model import NodeConfig
from tribes.runtime.attached import _REFUSED
from tribes.web import django_node

with warnings.catch_warnings():
    # Its remark on the HTTP library that it uses.
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"
PAGES = Path(__file__).parent.parent / "docs" / "embedding"


def snippets(page: str) -> list[str]:
    return blocks(f"embedding/{page}")


def test_wsgi_page() -> None:
    """The application counts, by its cookie."""
    names = run(snippets("wsgi.md")[0])
    try:
        assert count_visits(names["application"]) == [b"visit 1", b"visit 2"]
    finally:
        names["node"].stop()


def count_visits(application: Any) -> list[bytes]:
    """What a browser is answered twice."""
    bodies: list[bytes] = []
    cookie = ""
    for _ in range(2):
        environ: dict[str, Any] = {"HTTP_COOKIE": cookie}
        setup_testing_defaults(environ)
        heads: list[Any] = []
        bodies += application(environ, lambda *head, to=heads: to.append(head))
        given = [value.partition(";")[0] for name, value in heads[0][1] if name == "Set-Cookie"]
        cookie = "; ".join(given) or cookie
    return bodies


def test_page_about_attached_workers(tmp_path: Path) -> None:
    """The application counts, in the node of its host; and what it says is refused, is."""
    path = str(tmp_path / "node.sock")
    [code] = snippets("attach.md")
    assert "/run/tribes/node.sock" in code
    config = msgspec.structs.replace(host_settings(path), contexts=("shop",))
    host = Host(config)
    names = run(code.replace("/run/tribes/node.sock", path))
    try:
        names["node"].start()
        assert names["node"].wait_joined()
        assert count_visits(names["application"]) == [b"visit 1", b"visit 2"]
        assert host.service.commits == 2
    finally:
        names["node"].stop()
        host.stop()
    page = (PAGES / "attach.md").read_text()
    assert [name for name, _, _ in _REFUSED if f"`{name}`" not in page] == []


def test_flask_page() -> None:
    """The application counts, and its login starts over."""
    application, login = snippets("flask.md")
    names = run(application, {"__name__": __name__})
    app = names["app"]
    run(login, names)
    app.add_url_rule("/login", view_func=lambda: names["login"](SimpleNamespace(id=7)) or "")
    client = app.test_client()
    try:
        assert [client.get("/").text for _ in range(2)] == ["visit 1", "visit 2"]
        old = client.get_cookie("session").value
        client.get("/login")
        assert client.get_cookie("session").value != old
        with client.session_transaction() as session:
            assert dict(session) == {"user_id": 7}
    finally:
        app.session_interface.binding.node.stop()


def test_starlette_page() -> None:
    """The application counts, with its lifespan."""
    names = run(snippets("starlette.md")[0])
    with TestClient(names["app"]) as client:
        assert [client.get("/").text for _ in range(2)] == ["visit 1", "visit 2"]
    assert not names["node"].is_running


@pytest.mark.parametrize("page", ["quart.md", "litestar.md"])
def test_pages_of_other_asgi_frameworks(page: str) -> None:
    """The application counts, by its cookie and with its lifespan."""
    app = run(snippets(page)[0], {"__name__": __name__})["app"]
    outer = getattr(app, "asgi_app", app)

    async def main() -> list[str]:
        transport = httpx.ASGITransport(outer)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as client:
            try:
                return [(await client.get("/")).text for _ in range(2)]
            finally:
                await outer.binding.life.aleave()

    assert asyncio.run(main()) == ["visit 1", "visit 2"]


def test_django_page() -> None:
    """The settings can be used; the engine is there (its tests have the rest)."""
    codes = snippets("django.md")
    assert len(codes) == 3
    for code in codes:
        check_config(config_from({"contexts": ["django"], **run(code)["TRIBES"]}))
    names = run(codes[2])
    msgspec.convert(names["TRIBES_WEB"], django_node.WebSettings)
    assert issubclass(import_string(names["MIDDLEWARE"][0]), import_string(DJANGOS))
    engine = run(codes[0])["SESSION_ENGINE"]
    assert (PAGES.parent.parent / f"{engine.replace('.', '/')}.py").exists()


def test_identity_page() -> None:
    """Its settings can be used, and those that it calls the defaults are."""
    configs = [
        config_from(tomllib.loads(block)) for block in blocks("embedding/identity.md", "toml")
    ]
    for config in configs:
        check_config(config)
    cookie, binder, draining, crawlers = configs
    assert cookie.context["shop"].cookie is not None
    assert cookie.context["shop"].cookie.path_uses_trailing_slash
    assert binder.route_binder == NodeConfig().route_binder
    usual = NodeConfig().draining
    given = msgspec.structs.replace(
        draining.draining, ignore_cookie_name="", ignore_cookie_value=""
    )
    assert given == usual
    assert crawlers.crawlers == NodeConfig().crawlers
