"""What the pages of the site show works as shown, and each of them can be found."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import flask
import flask_session
import pytest
import redis

from tests.balancers.stand import Stand, User
from tests.servers.caches import cache_servers
from tests.snippets import DOCS, blocks, missing_targets, run
from tests.waiting import wait_until
from tribes.config import check_config, config_from, read_config_bytes
from tribes.config.managers import ManagerConfig

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Needs


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="not here: no process groups")
def test_the_tutorial_from_the_first_visit_to_a_killed_process(
    tmp_path: Path, needs: Needs
) -> None:
    """Its application and its nginx, word for word but for ports, as a visitor meets them."""
    needs("nginx")
    [shown] = blocks("tutorial.md")
    [nginx] = blocks("tutorial.md", "nginx")
    code = shown.replace("        contexts=", f"{GROUP}        contexts=")
    assert code != shown
    (tmp_path / "app.py").write_text(code)
    (tmp_path / "nginx").mkdir()
    (tmp_path / "nginx" / "shop.conf").write_text(nginx)
    stand = Stand(tmp_path, needs)
    stand.application = tmp_path / "app.py"
    with contextlib.closing(stand):
        stand.start(str(tmp_path / "nginx" / "shop.conf"))
        first, second, third = stand.ports
        shell = blocks("tutorial.md", "sh")
        assert re.findall(r"800\d", shell[3]) == ["8001", "8002", "8003"]
        user = User()
        for name in stand.ports:
            user.visit(stand.http, stand.ports[name])
        assert user.visits == 3
        stand.kill(first)
        user.visit(stand.http, stand.ports[second])
        assert user.visits == 4
        for _ in range(6):
            assert user.visit(stand.http, stand.port).status_code == 200
        stand.begin(first)
        stand.wait_ready(first)
        user.visit(stand.http, stand.ports[first])
        assert user.visits == 11
        stand.kill(third)
        wait_until(lambda: user.visit(stand.http, stand.port).status_code == 200)


GROUP = """\
        channel=__import__("tribes").ChannelConfig(
            membership=__import__("tribes").MembershipConfig(port=int(os.environ["GROUP_PORT"]))
        ),
"""
"""A group of the test's own; whoever follows the tutorial has the usual one."""


def test_the_file_of_the_tomcat_page_loads_and_means_what_is_said() -> None:
    [xml] = blocks("migrating-from-tomcat.md", "xml")
    loaded = read_config_bytes(xml.encode())
    check_config(loaded.config)
    manager = loaded.config.manager
    assert isinstance(manager, ManagerConfig)
    assert manager.channel_send_options == 6
    assert manager.notify_listeners_on_replication
    assert loaded.config.channel.receiver.port == 4000


def test_the_flask_application_of_the_redis_page_counts() -> None:
    flask = blocks("migrating-from-redis.md")[0]
    app = run(flask, {"__name__": __name__})["app"]
    client = app.test_client()
    try:
        assert [client.get("/").text for _ in range(2)] == ["visit 1", "visit 2"]
    finally:
        app.session_interface.binding.node.stop()


def test_the_django_settings_of_the_redis_page_can_be_used() -> None:
    names = run(blocks("migrating-from-redis.md")[1])
    check_config(config_from({"contexts": ["django"], **names["TRIBES"]}))
    assert names["SESSION_ENGINE"] == "tribes.web.django"


def test_an_old_session_is_taken_once_and_does_not_undo_what_is_new() -> None:
    bring = run(blocks("migrating-from-redis.md")[2])["bring_old_session"]
    redis: dict[str, dict[str, Any]] = {"old-id": {"user": 7, "theme": "light"}}
    session: dict[str, Any] = {"theme": "dark"}
    take_old = lambda key: redis.pop(key, None)  # noqa: E731 - what a user would write
    assert bring({"session": "old-id"}, session, take_old)
    assert session == {"theme": "dark", "user": 7}
    session.clear()  # a logout: the old cookie is still there
    assert not bring({"session": "old-id"}, session, take_old)
    assert session == {}
    assert not bring({}, session, take_old)


def test_a_flask_session_in_redis_is_taken_along_as_the_page_says(needs: Needs) -> None:
    """Written by Flask-Session itself, with its defaults; once, and then it is gone there."""
    application, _, bring, take, *_ = blocks("migrating-from-redis.md")
    with cache_servers("redis", 1, needs) as [server]:
        client = redis.Redis(port=server.port)
        before = flask.Flask(__name__)
        before.config.update(SESSION_TYPE="redis", SESSION_REDIS=client)
        flask_session.Session(before)

        @before.get("/")
        def old() -> str:
            flask.session["visits"] = 7
            return "old"

        browser = before.test_client()
        browser.get("/")
        cookie = browser.get_cookie("session")
        assert cookie is not None
        names = run(application, {"__name__": __name__})
        run(bring, names)
        assert "redis.Redis()" in take
        run(take.replace("redis.Redis()", f"redis.Redis(port={server.port})"), names)
        app = names["app"]
        try:
            after = app.test_client()
            after.set_cookie("session", cookie.value)
            assert [after.get("/").text for _ in range(2)] == ["visit 8", "visit 9"]
            assert client.keys() == []
            again = app.test_client()  # a browser that has the old cookie only
            again.set_cookie("session", cookie.value)
            assert again.get("/").text == "visit 1"
        finally:
            app.session_interface.binding.node.stop()


DJANGO_SITE = """
import sys, types
import django
from django.conf import settings
from django.contrib.sessions.backends.cache import SessionStore
from django.http import HttpResponse
from django.test import Client
from django.urls import path

shop, module = types.ModuleType("shop"), types.ModuleType("shop.bring")
sys.modules["shop"], sys.modules["shop.bring"] = shop, module

def visit(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    user = getattr(request.user, "pk", None)
    return HttpResponse(f"{request.session['visits']} {user}")

urls = types.ModuleType("urls")
urls.urlpatterns = [path("", visit)]
names = {}
exec(SETTINGS, names)
settings.configure(
    ALLOWED_HOSTS=["*"], SECRET_KEY="x", ROOT_URLCONF=urls,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
    **{key: value for key, value in names.items() if key.isupper()},
)
django.setup()
exec(BRING, module.__dict__)
exec(MIDDLEWARE, module.__dict__)
old = SessionStore()
old["visits"] = 7
old.save()
for _ in range(2):
    client = Client()
    client.cookies["sessionid"] = old.session_key
    print(client.get("/").content.decode(), client.get("/").content.decode())
print(SessionStore(old.session_key).load())
"""


def test_a_django_session_is_taken_along_as_the_page_says() -> None:
    """Before the middleware that asks it for the user; a second browser finds nothing."""
    _, engine, bring, _, middleware, settings = blocks("migrating-from-redis.md")
    head = f"SETTINGS, BRING, MIDDLEWARE = {engine + settings!r}, {bring!r}, {middleware!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", head + DJANGO_SITE],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if "[" not in line]
    assert lines == ["8 None 9 None", "1 None 2 None", "{}"], done.stderr


def test_every_page_is_in_a_list_or_is_listed_by_itself() -> None:
    """`howto.md` has a place for those that no list names, so that none is lost."""
    assert "THE-REST" in (DOCS / "howto.md").read_text()
    lists = (DOCS / "index.md").read_text() + (DOCS / "howto.md").read_text()
    for named in re.findall(r"^([\w/.-]+)$", lists, re.MULTILINE):
        assert named == "THE-REST" or (DOCS / f"{named}.md").is_file(), named


PAGES = [*sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("embedding/*.md"))]
"""Those that are written; `make docs` makes others beside them."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_links_of_a_page_name_files(page: Path) -> None:
    assert missing_targets(page) == []


def test_pictures_have_a_text_for_those_who_do_not_see_them() -> None:
    texts = [
        text
        for page in (*PAGES, DOCS.parent / "README.md")
        for text in re.findall(r"!\[(.*?)\]\(\S+\)", page.read_text())
    ]
    assert len(texts) > 10
    assert [text for text in texts if len(text) <= 20] == []
