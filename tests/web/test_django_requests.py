"""What Django's middleware of ours adds: settings, turns, and requests under ASGI."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from asgiref.sync import ThreadSensitiveContext
from django.http import HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path

from tests.waiting import wait_until
from tests.web import test_django
from tests.web.nodes import Node
from tests.web.test_django import TRIBES, SessionStore
from tribes.errors import ConfigError
from tribes.web import django_node
from tribes.web.django import SessionMiddleware

assert test_django.TRIBES

DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"
OURS = "tribes.web.django.SessionMiddleware"


class Derived(SessionMiddleware):
    """What an application makes of it."""


class Views:
    """Views that say how many of them run, and wait until they may go on."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.go_on = threading.Event()

    def slow(self, request: Any) -> HttpResponse:
        self.running += 1
        self.most = max(self.most, self.running)
        assert self.go_on.wait(10)
        request.session["n"] = request.session.get("n", 0) + 1
        self.running -= 1
        return HttpResponse(str(request.session["n"]))

    def count(self, request: Any) -> HttpResponse:
        request.session["n"] = request.session.get("n", 0) + 1
        return HttpResponse(str(request.session["n"]))

    def broken(self, request: Any) -> HttpResponse:
        raise RuntimeError("mine")

    async def aslow(self, request: Any) -> HttpResponse:
        self.running += 1
        self.most = max(self.most, self.running)
        count = await request.session.aget("n", 0) + 1
        while not self.go_on.is_set():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.005)
        await request.session.aset("n", count)
        self.running -= 1
        return HttpResponse(str(count))


@pytest.fixture
def views() -> Iterator[Views]:
    views = Views()
    urls: Any = ModuleType("urls")
    urls.urlpatterns = [
        path("slow", views.slow),
        path("count", views.count),
        path("broken", views.broken),
        path("aslow", views.aslow),
    ]
    with override_settings(ROOT_URLCONF=urls):
        yield views


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch, views: Views) -> Node:
    """A node whose requests of one session take turns."""
    node: Any = Node(lock="local", lock_timeout=5000)
    monkeypatch.setattr(django_node, "_binding", django_node.bound(node))
    return node  # type: ignore[no-any-return]


def test_parallel_requests_of_one_session_take_turns(locked: Node, views: Views) -> None:
    """The second one begins when the first has saved, and sees what it has saved."""
    client = Client()
    views.go_on.set()
    assert client.get("/slow").content == b"1"
    views.go_on.clear()
    cookie = client.cookies
    answers: list[bytes] = []

    def ask() -> None:
        other = Client()
        other.cookies = cookie
        answers.append(other.get("/slow").content)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    # All have come, and wait for their turn where there is one.
    wait_until(lambda: locked.manager("app").locks_waited == 2 or views.most > 1)
    views.go_on.set()
    for thread in threads:
        thread.join(20)
    assert sorted(answers) == [b"2", b"3", b"4"]
    assert views.most == 1


def test_a_view_that_fails_gives_its_turn_back(locked: Node, views: Views) -> None:
    client = Client(raise_request_exception=False)
    assert client.get("/count").content == b"1"
    assert client.get("/broken").status_code == 500
    assert client.get("/count").content == b"2"


def test_who_waits_too_long_is_answered_503_and_has_not_run(
    monkeypatch: pytest.MonkeyPatch, views: Views
) -> None:
    node: Any = Node(lock="local", lock_timeout=100)
    binding = django_node.bound(node)
    monkeypatch.setattr(django_node, "_binding", binding)
    client = Client()
    client.get("/count")
    assert binding.locks is not None
    held = binding.locks.acquire(client.cookies["sessionid"].value)
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
        answer = client.get("/count")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    held.release()
    assert client.get("/count").content == b"2"


def test_async_views_take_turns_and_save_too(locked: Node, views: Views) -> None:
    """Also those that wait for their turn in threads of their own, as under an ASGI server."""
    client = AsyncClient()
    manager = locked.manager("app")

    async def ask() -> bytes:
        async with ThreadSensitiveContext():  # as Django's own handler does for each request
            answer: bytes = (await client.get("/aslow")).content
            return answer

    async def main() -> None:
        views.go_on.set()
        assert await ask() == b"1"
        views.go_on.clear()
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            asked = [group.create_task(ask()) for _ in range(3)]
            while manager.locks_waited < 2 and views.most < 2:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.005)
            views.go_on.set()
        assert sorted(each.result() for each in asked) == [b"2", b"3", b"4"]

    asyncio.run(main())
    assert views.most == 1
    assert len(manager.list_ids()) == 1


@pytest.mark.parametrize(
    ("tribes", "web", "key"),
    [
        ({"manager": {"lock": "cluster"}}, {}, "manager.lock"),
        ({"valves": ["LoadBalancerDrainingValve"]}, {}, "valves"),
        ({"replication": {"filter": "/x"}}, {}, "replication.filter"),
        ({"replication": {"primary_indicator": True}}, {}, "replication.primary_indicator"),
        ({"context": {"django": {"cookie": {"name": "S"}}}}, {}, "context.django.cookie"),
        ({}, {"route": "web1"}, "TRIBES_WEB"),
    ],
)
def test_what_needs_the_middleware_is_refused_without_it(
    tribes: dict[str, Any], web: dict[str, Any], key: str
) -> None:
    """Nothing that was configured is silently left out. A class made of ours will do."""
    settings = {"TRIBES": {**TRIBES, **tribes}, "TRIBES_WEB": web}
    with override_settings(MIDDLEWARE=[DJANGOS], **settings):
        with pytest.raises(ConfigError, match="in MIDDLEWARE") as caught:
            SessionStore()
        assert caught.value.key == key
    for name in (OURS, f"{__name__}.Derived"):
        with override_settings(MIDDLEWARE=[name], **settings):
            assert django_node.node().config.contexts == ("django",)


@pytest.mark.parametrize(
    ("web", "words"),
    [
        ({"rout": "a"}, "rout.*there are route, ready_path, signing_keys"),
        ({"route": 1}, "route"),
        ({"route": "a.b"}, "letters, digits"),
        ("web1", "TRIBES_WEB"),
    ],
)
def test_a_setting_of_the_middleware_that_cannot_work_is_named(web: Any, words: str) -> None:
    with override_settings(TRIBES_WEB=web), pytest.raises(ConfigError, match=words):
        SessionStore()


def test_django_own_settings_of_the_cookie_count_when_they_change() -> None:
    """As ``override_settings`` in a test of the site's does."""
    with override_settings(SESSION_COOKIE_NAME="other", SESSION_COOKIE_PATH="/x"):
        client = Client()
        client.get("/count")
        assert client.cookies["other"]["path"] == "/x"
    assert "sessionid" not in client.cookies
