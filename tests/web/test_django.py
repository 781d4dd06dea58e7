"""``SESSION_ENGINE = "tribes.web.django"`` under Django itself, with its admin and its users."""

from __future__ import annotations

import asyncio
import datetime
import os
import secrets
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any
from uuid import UUID

import django
import msgspec
import pytest
from django.conf import settings
from django.http import HttpResponse
from django.urls import path

from tests.ports import free_udp_port
from tests.runtime.attach_host import Host
from tests.runtime.attach_host import settings as host_settings
from tests.waiting import wait_until
from tests.web.nodes import Node
from tribes.config import config_from
from tribes.errors import ConfigError, LocalProtocolError
from tribes.runtime.attached import AttachedNode
from tribes.runtime.background import BackgroundNode

TRIBES = {
    "name": "web-1",
    "channel": {
        "membership": {"port": free_udp_port(), "frequency": 50, "drop_time": 1000},
        "receiver": {"port": 0},
    },
    "manager": {"channel_send_options": 6, "commit_timeout": 5000},
}

URLS: Any = ModuleType("urls")
URLS.urlpatterns = []

settings.configure(
    SECRET_KEY="of the tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=URLS,
    SESSION_ENGINE="tribes.web.django",
    TRIBES=TRIBES,
    USE_TZ=True,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": f"file:tribes-{os.getpid()}?mode=memory&cache=shared",
        }
    },
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    # Without django.contrib.sessions: its table is not needed.
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
    ],
    MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage",
    MIDDLEWARE=[
        "tribes.web.django.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
)
django.setup()

from django.contrib import admin, auth, messages  # noqa: E402 - only after setup()
from django.contrib.auth.models import User  # noqa: E402
from django.contrib.sessions.backends.base import CreateError, UpdateError  # noqa: E402
from django.contrib.sessions.management.commands import clearsessions  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import AsyncClient, Client, override_settings  # noqa: E402

from tribes.web import django as engine  # noqa: E402
from tribes.web import django_node  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

SessionStore = engine.SessionStore


def view_count(request: Any) -> HttpResponse:
    request.session["count"] = request.session.get("count", 0) + 1
    return HttpResponse(str(request.session["count"]))


def view_look(request: Any) -> HttpResponse:
    return HttpResponse(repr(dict(request.session.items())))


def view_say(request: Any) -> HttpResponse:
    messages.success(request, request.GET.get("text", "saved"))
    return HttpResponse()


def view_heard(request: Any) -> HttpResponse:
    return HttpResponse(repr([str(each) for each in messages.get_messages(request)]))


def view_login(request: Any) -> HttpResponse:
    user = auth.authenticate(request, username=request.GET["name"], password="secret")
    auth.login(request, user)
    return HttpResponse()


def view_logout(request: Any) -> HttpResponse:
    auth.logout(request)
    return HttpResponse()


def view_who(request: Any) -> HttpResponse:
    return HttpResponse(str(request.user))


def view_broken(request: Any) -> HttpResponse:
    request.session["lost"] = True
    return HttpResponse(status=500)


def view_ended_meanwhile(request: Any) -> HttpResponse:
    request.session["x"] = 1
    SessionStore().delete(request.session.session_key)
    return HttpResponse()


async def view_async(request: Any) -> HttpResponse:
    await request.session.aset("count", await request.session.aget("count", 0) + 1)
    return HttpResponse(str(await request.session.aget("count")))


async def view_async_login(request: Any) -> HttpResponse:
    user = await auth.aauthenticate(request, username="eve", password="secret")
    await auth.alogin(request, user)
    return HttpResponse()


async def view_async_logout(request: Any) -> HttpResponse:
    await auth.alogout(request)
    return HttpResponse()


URLS.urlpatterns += [path("admin/", admin.site.urls)] + [
    path(name.removeprefix("view_"), view)
    for name, view in list(globals().items())
    if name.startswith("view_")
]


@pytest.fixture(scope="module", autouse=True)
def database() -> Iterator[None]:
    call_command("migrate", verbosity=0)
    for name in ("eve", "bob"):
        User.objects.create_superuser(name, password="secret")
    yield
    connection.close()
    engine.node().stop()


@pytest.fixture(scope="module")
def other(database: None) -> Iterator[BackgroundNode]:
    """Another member of the group, with the same context."""
    node = BackgroundNode(config_from({**TRIBES, "name": "web-2", "contexts": ["django"]}))
    node.start()
    try:
        assert node.wait_joined()
        SessionStore()
        wait_until(lambda: engine.node().view.members)
        yield node
    finally:
        node.stop()


def stored(client: Any) -> Any:
    return engine.node().manager("django").find(client.cookies["sessionid"].value)


def test_session_lives_from_request_to_request() -> None:
    """Under Django's own cookie; a page that looks at nothing makes none."""
    client = Client()
    assert "sessionid" not in client.get("/look").cookies
    first = client.get("/count")
    assert len(first.cookies["sessionid"].value) == 32
    assert client.get("/count").content == b"2"
    assert client.get("/look").headers["Vary"] == "Cookie"
    assert Client().get("/look").content == b"{}"


def test_change_is_on_the_other_node_before_the_answer(other: BackgroundNode) -> None:
    """With the send options of the setting; no database table is involved."""
    client = Client()
    for number in range(1, 6):
        client.get("/count")
        session = other.manager("django").find(client.cookies["sessionid"].value)
        assert session is not None
        assert session["count"] == number
    assert "django_session" not in connection.introspection.table_names()


def test_offered_key_is_never_adopted() -> None:
    """Whoever sends one that does not exist gets another, and an unknown one is forgotten."""
    client = Client()
    client.cookies["sessionid"] = "A" * 32
    assert client.get("/count").cookies["sessionid"].value != "A" * 32
    client.cookies["sessionid"] = "B" * 32
    assert client.get("/look").cookies["sessionid"]["max-age"] == 0


def test_admin_login_works_on_every_node(other: BackgroundNode) -> None:
    """The form, the page behind it, and the logout."""
    client = Client()
    answer = client.post(
        "/admin/login/?next=/admin/", {"username": "eve", "password": "secret"}, follow=True
    )
    assert answer.redirect_chain == [("/admin/", 302)]
    assert b"Site administration" in answer.content
    session = other.manager("django").find(client.cookies["sessionid"].value)
    assert session is not None
    assert session["_auth_user_backend"] == "django.contrib.auth.backends.ModelBackend"
    old = client.cookies["sessionid"].value
    client.post("/admin/logout/")
    assert other.manager("django").find(old) is None
    assert client.get("/admin/").status_code == 302


def test_login_changes_the_key_and_logout_ends_the_session() -> None:
    """What was in it before stays over a login, and nothing over another user's or a logout."""
    client = Client()
    client.get("/count")
    keys = [client.cookies["sessionid"].value]
    client.get("/login?name=eve")
    keys.append(client.cookies["sessionid"].value)
    assert client.get("/who").content == b"eve"
    assert stored(client)["count"] == 1
    client.get("/login?name=bob")
    keys.append(client.cookies["sessionid"].value)
    assert client.get("/who").content == b"bob"
    assert "count" not in stored(client)
    client.get("/logout")
    assert client.get("/who").content == b"AnonymousUser"
    assert len(set(keys)) == 3
    assert [SessionStore().exists(key) for key in keys] == [False] * 3


def test_messages_are_shown_once() -> None:
    """By the storage that keeps them in the session."""
    client = Client()
    client.get("/say")
    assert client.get("/heard").content == b"['saved']"
    assert client.get("/heard").content == b"[]"


def test_messages_too_long_for_a_cookie_go_into_the_session() -> None:
    """By Django's default storage."""
    fallback = "django.contrib.messages.storage.fallback.FallbackStorage"
    with override_settings(MESSAGE_STORAGE=fallback):
        client = Client()
        client.get("/say")
        assert "sessionid" not in client.cookies
        text = secrets.token_hex(4000)  # it compresses
        client.get(f"/say?text={text}")
        assert text in str(stored(client)["_messages"])
        assert sorted(eval(client.get("/heard").content)) == sorted(["saved", text])
        assert client.get("/heard").content == b"[]"


def test_clearsessions_leaves_what_lives() -> None:
    """The command runs, as for every engine, and has nothing to do."""
    client = Client()
    client.get("/count")
    call_command(clearsessions.Command())
    assert client.get("/count").content == b"2"


def test_answer_of_500_saves_nothing() -> None:
    """Django's rule."""
    client = Client()
    client.get("/count")
    client.get("/broken")
    assert client.get("/look").content == b"{'count': 1}"


def test_session_that_ended_meanwhile_is_interrupted_not_revived() -> None:
    """As with Django's own engines: 400, and the key stays worth nothing."""
    client = Client()
    client.get("/count")
    key = client.cookies["sessionid"].value
    assert client.get("/ended_meanwhile").status_code == 400
    assert not SessionStore().exists(key)


def idle_limit(key: str | None) -> int:
    session = engine.node().manager("django").find(key or "")
    assert session is not None
    return session.max_inactive


def test_expiry_is_the_sessions_idle_time() -> None:
    """``set_expiry`` with seconds, a moment, 0 for the browser's end, None for the default."""

    def age(value: Any) -> int:
        session = SessionStore()
        session["x"] = 1
        session.set_expiry(value)
        session.save()
        return idle_limit(session.session_key)

    with override_settings(SESSION_COOKIE_AGE=100):
        assert age(None) == 100
        assert age(0) == 100
    assert age(50) == 50
    # The moment is in the session: what the machine takes until it is saved is lost.
    assert 6900 < age(datetime.timedelta(seconds=7000)) <= 7000
    session = SessionStore()
    session["x"] = 1
    session.set_expiry(50)
    session.save()
    session.set_expiry(None)
    session.save()
    assert idle_limit(session.session_key) == 14 * 86400


@pytest.mark.parametrize("value", [-1, datetime.timedelta(seconds=-10)])
def test_expiry_in_the_past_ends_the_session(value: Any) -> None:
    """At its save."""
    session = SessionStore()
    session["x"] = 1
    session.save()
    key = session.session_key
    session.set_expiry(value)
    session.save()
    assert not SessionStore().exists(key)
    assert SessionStore(key).load() == {}


def test_only_what_changed_is_written() -> None:
    """Two requests at the same time each keep theirs; what is removed is removed for both."""
    session = SessionStore()
    session.update({"a": 1, "b": 2, "list": [1]})
    session.save()
    one, two = SessionStore(session.session_key), SessionStore(session.session_key)
    one["a"], two["c"] = 10, 30
    del two["b"]
    one["list"].append(2)
    one.save()
    two.save()
    assert SessionStore(session.session_key).load() == {"a": 10, "c": 30, "list": [1, 2]}


def test_clear_empties_and_flush_ends() -> None:
    """Also a session that was not loaded before."""
    session = SessionStore()
    session.update({"a": 1, "b": 2})
    session.save()
    key = session.session_key
    again = SessionStore(key)
    again.clear()
    again["c"] = 3
    again.save()
    assert SessionStore(key).load() == {"c": 3}
    again.flush()
    assert again.session_key is None
    assert not SessionStore().exists(key)
    stale = SessionStore(key)
    stale.clear()
    with pytest.raises(UpdateError):
        stale.save()


def test_create_saves_and_save_can_demand_a_new_one() -> None:
    """``CreateError`` if there is one already."""
    session = SessionStore()
    session.create()
    assert session.modified
    assert session.exists(session.session_key)
    with pytest.raises(CreateError):
        SessionStore(session.session_key).save(must_create=True)
    assert SessionStore("short").session_key is None
    SessionStore.clear_expired()
    assert session.exists(session.session_key)


def test_cycle_key_keeps_the_content_and_ends_the_old_key_when_saved() -> None:
    """Also of a session that was never saved."""
    session = SessionStore()
    session["a"] = 1
    session.save()
    old = session.session_key
    session.cycle_key()
    assert session.session_key != old
    session["b"] = 2
    session.save()
    assert SessionStore(session.session_key).load() == {"a": 1, "b": 2}
    assert not session.exists(old)
    fresh = SessionStore()
    fresh["a"] = 1
    fresh.cycle_key()
    fresh.save()
    assert SessionStore(fresh.session_key).load() == {"a": 1}


def test_values_keep_their_types() -> None:
    """More than the JSON serializer can."""
    values = {"id": UUID(int=1), "when": datetime.datetime(2024, 1, 1), "pair": (1, b"x")}
    session = SessionStore()
    session.update(values)
    session.save()
    assert SessionStore(session.session_key).load() == values


def test_unreadable_value_stays_for_those_who_can_read_it() -> None:
    """A save of the rest does not remove it."""
    manager = engine.node().manager("django")

    class Strange:
        pass

    codec = type(manager.codec)()
    codec.register(Strange, name="strange", encode=lambda _: 1, decode=lambda _: Strange())
    session = SessionStore()
    session["good"] = 1
    session.save()
    held = manager.find(session.session_key or "")
    assert held is not None
    mine, manager.codec = manager.codec, codec
    try:
        held = manager.find(session.session_key or "")
        assert held is not None
        held["strange"] = Strange()
        manager.commit(held)
        manager.codec = mine
        again = SessionStore(session.session_key)
        assert again.load() == {"good": 1}
        again["good"] = 2
        again.save()
    finally:
        manager.codec = mine
    found = manager.find(session.session_key or "")
    assert found is not None
    assert sorted(found.attribute_names()) == ["good", "strange"]


def test_async_views_and_methods() -> None:
    """Requests, login and logout in an event loop; each method has its ``a`` form."""

    async def main() -> None:
        client = AsyncClient()
        await client.get("/async")
        assert (await client.get("/async")).content == b"2"
        old = client.cookies["sessionid"].value
        await client.get("/async_login")
        assert client.cookies["sessionid"].value != old
        assert (await client.get("/who")).content == b"eve"
        await client.get("/async_logout")
        assert (await client.get("/who")).content == b"AnonymousUser"
        session = SessionStore()
        await session.aset("a", 1)
        await session.acreate()
        key = session.session_key
        assert await session.aexists(key)
        await session.aset("b", 2)
        await session.asave()
        await session.acycle_key()
        await session.asave()
        assert not await session.aexists(key)
        assert await SessionStore(session.session_key).aload() == {"a": 1, "b": 2}
        await session.aset("c", 3)
        with pytest.raises(LocalProtocolError, match="event loop"):
            session.save()
        await session.aflush()
        assert session.session_key is None
        await SessionStore.aclear_expired()

    asyncio.run(main())
    connection.close()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node whose members answer as the test says."""
    node = Node(on_unreplicated="error")
    monkeypatch.setattr(django_node, "_binding", django_node.bound(node))  # type: ignore[arg-type]
    return node


def test_refused_commit_is_answered_by_503(fake: Node) -> None:
    """With the cookie, so a second try finds the session; a logout's too."""
    client = Client()
    fake.lose()
    answer = client.get("/count")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert b"try again" in answer.content
    fake.acked, fake.missing = ("n2",), {}
    assert client.get("/count").content == b"2"
    fake.lose()
    assert client.get("/logout").status_code == 503
    assert client.get("/look").content == b"{}"


def test_setting_that_cannot_work_is_named() -> None:
    """Missing, of a wrong shape, or with a wrong value; a changed one takes another node."""
    for wrong, words in (
        (None, "TRIBES.*must be a dict"),
        ({"nmae": "x"}, "nmae"),
        ({"contexts": ["a", "b"]}, "context"),
        ({"sso": {}}, "sso"),
    ):
        with override_settings(TRIBES=wrong), pytest.raises(ConfigError, match=words):
            SessionStore()
    with override_settings(TRIBES={**TRIBES, "contexts": ["shop"]}):
        changed = engine.node()
        assert changed.config.contexts == ("shop",)
        assert SessionStore("A" * 32).load() == {}
        assert changed.is_running
    assert not changed.is_running
    assert engine.node().config.contexts == ("django",)


@pytest.mark.parametrize(
    "test",
    [
        test_session_lives_from_request_to_request,
        test_offered_key_is_never_adopted,
        test_login_changes_the_key_and_logout_ends_the_session,
        test_messages_are_shown_once,
        test_session_that_ended_meanwhile_is_interrupted_not_revived,
        test_only_what_changed_is_written,
        test_clear_empties_and_flush_ends,
        test_create_saves_and_save_can_demand_a_new_one,
        test_cycle_key_keeps_the_content_and_ends_the_old_key_when_saved,
        test_values_keep_their_types,
        test_async_views_and_methods,
    ],
)
def test_attached_process_passes_the_same_tests(test: Any, database: None, tmp_path: Path) -> None:
    """With the sessions in the node of the host, and one more setting."""
    path = str(tmp_path / "node.sock")
    config = msgspec.structs.replace(host_settings(path), contexts=("django",))
    host = Host(config)
    try:
        with override_settings(TRIBES={**TRIBES, "attach": path}):
            assert isinstance(engine.node(), AttachedNode)
            test()
            assert host.service.commits
    finally:
        host.stop()
