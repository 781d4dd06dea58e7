"""The table of types in docs/sessions.md under each framework: one request stores, the next reads.

What a framework adds of its own, and what the log says of a class that nobody registered, too.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import flask
import pydantic
import pytest
import structlog
from django.http import HttpResponse
from django.test import client as test_client
from django.urls import clear_url_caches, path
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.manager import type_table
from tests.manager.test_type_table import exactly
from tests.manager.type_table import TABLE, Row
from tests.web import test_django, test_flask, test_wsgi
from tests.web.nodes import Node
from tribes.web import SessionMiddleware, django_node
from tribes.web.wsgi import SESSION

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its remark on the HTTP library that it uses
    from starlette.testclient import TestClient

View = Callable[[Any], None]
"""What one request does with its session."""

Requests = Callable[[View, View], None]
"""Has two requests of one client do something."""


def starlette(node: Node, *views: View) -> None:
    async def each(request: Any) -> PlainTextResponse:
        views[int(request.query_params["n"])](request.session)
        return PlainTextResponse("")

    middleware = [Middleware(SessionMiddleware, node=node)]  # type: ignore[arg-type]
    client = TestClient(Starlette(routes=[Route("/", each)], middleware=middleware))
    for number in range(len(views)):
        client.get(f"/?n={number}")


def wsgi(node: Node, *views: View) -> None:
    cookie = ""
    for view in views:

        def each(environ: Any, start_response: Any, view: View = view) -> list[bytes]:
            view(environ[SESSION])
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b""]

        answer = test_wsgi.ask(node, each, cookie=cookie)
        cookie = cookie or answer.cookie


def in_flask(node: Node, *views: View) -> None:
    def each(number: str) -> str:
        views[int(number)](flask.session)
        return ""

    client = test_flask.make({"<number>": each}, node).test_client()
    for number in range(len(views)):
        client.get(f"/{number}")


def in_django(node: Node, *views: View) -> None:
    def each(request: Any, number: int) -> HttpResponse:
        views[number](request.session)
        return HttpResponse("")

    any_node: Any = node
    route = path("types/<int:number>", each)
    test_django.URLS.urlpatterns.append(route)
    clear_url_caches()
    before, django_node._binding = django_node._binding, django_node.bound(any_node)
    client = test_client.Client()
    try:
        for number in range(len(views)):
            assert client.get(f"/types/{number}").status_code == 200
    finally:
        django_node._binding = before
        test_django.URLS.urlpatterns.remove(route)
        clear_url_caches()


FRAMEWORKS = {"starlette": starlette, "wsgi": wsgi, "flask": in_flask, "django": in_django}


@pytest.fixture(params=FRAMEWORKS)
def requests(request: pytest.FixtureRequest) -> Requests:
    """One application under one framework, which knows the table's classes."""
    node = Node()
    register(node)
    return partial(FRAMEWORKS[request.param], node)


def register(node: Node) -> None:
    codec = node.manager("app").codec
    for plain in (type_table.Colour, type_table.Rights, type_table.Item):
        codec.register(plain)
    ours: Any = type_table
    codec.register(
        ours.Money, encode=lambda m: [m.amount, m.currency], decode=lambda p: ours.Money(*p)
    )
    codec.register(ours.Point, encode=list, decode=lambda parts: ours.Point(*parts))
    codec.register(
        ours.Address, encode=ours.attrs.asdict, decode=lambda fields: ours.Address(**fields)
    )


def exchange(requests: Requests, samples: tuple[Any, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def write(session: Any) -> None:
        session["good"] = 1
        for number, sample in enumerate(samples):
            session[f"value{number}"] = sample

    def read(session: Any) -> None:
        found.update(session.items())

    requests(write, read)
    assert found.pop("good") == 1
    return found


@pytest.mark.parametrize("row", [row for row in TABLE if not row.is_refused], ids=lambda r: r.types)
def test_what_the_table_says_comes_back_does(requests: Requests, row: Row) -> None:
    found = exchange(requests, row.samples)
    for number, sample in enumerate(row.samples):
        assert exactly(found[f"value{number}"], sample)


@pytest.mark.parametrize("row", [row for row in TABLE if row.is_refused], ids=lambda r: r.types)
def test_what_is_refused_costs_only_itself_and_the_log_says_why(
    requests: Requests, row: Row
) -> None:
    """Attribute and type; of a class that is not registered also the line that does it."""
    with structlog.testing.capture_logs() as lines:
        assert exchange(requests, row.samples) == {}
    said = {
        line["attribute"]: line["error"]
        for line in lines
        if line["event"] == "session attribute not stored"
    }
    assert list(said) == [f"value{number}" for number in range(len(row.samples))]
    for name, sample in zip(said, row.samples, strict=True):
        if "which has no codec" in said[name]:
            kind = type(sample).__name__
            assert f".{kind}, which has no codec" in said[name]
            assert f"manager.codec.register({kind}" in said[name]
    if row.types == "classes that are not registered":
        assert all("has no codec" in error for error in said.values())


@pytest.mark.parametrize(
    "value",
    [
        {" t": [1, 2]},  # what the serializer itself writes for a tuple
        {" di": {" t": 1}},
        Markup("<i>"),
        [Markup("<b>"), (b"x", UUID(int=1), datetime(2024, 2, 29, tzinfo=UTC))],
    ],
    ids=repr,
)
def test_flasks_tagged_types_come_back_also_what_looks_like_a_tag(value: Any) -> None:
    found = exchange(partial(in_flask, Node()), (value,))
    assert exactly(found["value0"], value)


@pytest.mark.parametrize("value", [mark_safe("<b>"), [SafeString("x"), ("y", mark_safe("z"))]])
def test_djangos_safe_strings_come_back_safe(value: Any) -> None:
    found = exchange(partial(in_django, Node()), (value,))
    assert exactly(found["value0"], value)


def test_what_djangos_serializer_changes_stays_here() -> None:
    """JSON would make keys texts, tuples lists, and refuse dates, decimals and ids."""
    value = {1: (date(2024, 2, 29), Decimal("1.50")), UUID(int=3): {"x"}, None: 2**80}
    found = exchange(partial(in_django, Node()), (value,))
    assert exactly(found["value0"], value)


def test_a_pydantic_model_comes_back_by_the_two_functions_of_the_page() -> None:
    class Cart(pydantic.BaseModel):
        items: list[str]
        total: Decimal

    node = Node()
    node.manager("app").codec.register(
        Cart, encode=Cart.model_dump, decode=Cart.model_validate, name="shop.Cart"
    )
    value = Cart(items=["book"], total=Decimal("1.50"))
    assert exactly(exchange(partial(starlette, node), (value,))["value0"], value)


def test_djangos_lazy_texts_are_refused_and_their_text_is_not() -> None:
    lazy = gettext_lazy("Welcome")
    assert exchange(partial(in_django, Node()), (lazy, str(lazy))) == {"value1": "Welcome"}
