"""Two real members under the ASGI middleware: what one request does is on the other member."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.waiting import wait_until
from tests.web.nodes import group
from tests.web.test_asgi import ask
from tribes import MergedCounter, MergedList, MergedSet
from tribes.web.asgi import SessionMiddleware

if TYPE_CHECKING:
    from tribes.runtime.background import BackgroundNode


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[BackgroundNode, BackgroundNode]]:
    with group("n1", "n2") as (one, two):
        yield one, two


def held(node: BackgroundNode, session_id: str) -> dict[str, Any]:
    session = node.manager("app").find(session_id)
    assert session is not None
    return dict(session)


def test_merged_values_work_through_an_adapter(
    pair: tuple[BackgroundNode, BackgroundNode],
) -> None:
    """The README's three lines, on two members by turns."""

    async def handler(session: Any, respond: Any) -> None:
        session.setdefault("visits", MergedCounter()).add()
        session["visits"] += 1
        session.setdefault("tags", MergedSet()).add("new")
        session.setdefault("log", MergedList()).append(int(session["visits"]))
        await respond()

    cookie = ask(pair[0], handler).session_cookie
    for turn in range(1, 6):
        ask(pair[turn % 2], handler, cookie=cookie)
    expected = {"visits": 12, "tags": {"new"}, "log": [2, 4, 6, 8, 10, 12]}
    assert [held(node, cookie) for node in pair] == [expected, expected]


def test_t67_what_a_request_stored_is_on_the_other_member_when_its_answer_begins(
    pair: tuple[BackgroundNode, BackgroundNode],
) -> None:
    """Each value is asked for in the moment in which the head leaves, before the body."""
    seen: list[Any] = []

    session = pair[0].manager("app").create()
    pair[0].commit(session)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        scope["session"]["n"] = scope["session"].get("n", 0) + 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def server(message: Any) -> None:
        if message["type"] == "http.response.start":
            seen.append(held(pair[1], session.id)["n"])

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    headers = [(b"cookie", f"JSESSIONID={session.id}".encode())]
    scope = {"type": "http", "scheme": "http", "headers": headers, "path": "/"}
    middleware = SessionMiddleware(application, pair[0])
    for _ in range(20):
        asyncio.run(middleware(dict(scope), receive, server))
    assert seen == list(range(1, 21))


def test_t68_what_is_changed_after_the_answer_is_replicated_without_another_request(
    pair: tuple[BackgroundNode, BackgroundNode],
) -> None:
    async def handler(session: Any, respond: Any) -> None:
        session["early"] = 1
        await respond()
        session["late"] = 2

    cookie = ask(pair[0], handler).session_cookie
    assert held(pair[1], cookie) == {"early": 1, "late": 2}


def test_the_application_of_the_member_that_loses_a_write_is_told(
    pair: tuple[BackgroundNode, BackgroundNode],
) -> None:
    told: list[Any] = []
    one, two = (node.manager("app") for node in pair)
    one.on_conflict = lambda session, *rest: told.append((session.id, *rest))
    try:
        before = one.statistics().overwritten
        session = one.create()
        session["x"] = "first"
        pair[0].commit(session)
        mine, theirs = one.find(session.id), two.find(session.id)
        assert mine is not None
        assert theirs is not None
        mine["x"], theirs["x"] = "mine", "theirs"
        pair[0].commit(mine)
        pair[1].commit(theirs)
        wait_until(lambda: told)
        assert told == [(session.id, "x", "mine", "theirs")]
        assert one.statistics().overwritten == before + 1
        assert two.statistics().overwritten == 0
    finally:
        one.on_conflict = None
