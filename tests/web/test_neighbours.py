"""Draining and crawlers: what Tomcat's two other valves do for a cluster (feature 114)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.web.adapters import ADAPTERS, Asgi, Django, Wsgi, attributes
from tests.web.nodes import Node
from tests.web.test_urls import wsgi as link_by_wsgi
from tests.web.test_wire_identity import configured
from tribes.config.load import read_config_bytes
from tribes.config.model import NodeConfig, check_config
from tribes.config.valves import CrawlerConfig, DrainingConfig
from tribes.errors import ConfigError
from tribes.web.cookies import CookieSettings

DRAINING, CRAWLER = "LoadBalancerDrainingValve", "CrawlerSessionManagerValve"
BOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


def made(*valves: str, **settings: Any) -> Node:
    return configured(Node(), valves=valves, **settings)


either = pytest.mark.parametrize("under", [Wsgi, Asgi])
each = pytest.mark.parametrize("under", ADAPTERS)


@each
@pytest.mark.parametrize("by", ["gateway", "header"])
@pytest.mark.parametrize("activation", ["", "ACT", "STP", "DIS"])
@pytest.mark.parametrize("client", ["new", "known", "stale", "tester"])
def test_t114_a_drained_node_serves_only_whose_session_lives(
    under: Any, by: str, activation: str, client: str
) -> None:
    """Of the states only ``DIS`` sends anybody away, and only who has no valid session here; the
    one with the cookie for testers stays. By AJP's gateway or by the balancer's header.
    """
    config = DrainingConfig(ignore_cookie_name="tester", ignore_cookie_value="yes")
    app = under(made(DRAINING, draining=config))
    cookie = {
        "new": "",
        "known": app.ask().cookie if client == "known" else "",
        "stale": "JSESSIONID=" + "A" * 32,
        "tester": "tester=yes",
    }[client]
    said = {"activation": activation} if by == "gateway" else {}
    if by == "header" and activation:
        said = {"jk_lb_activation": activation}
    answer = app.ask("/cart", "page=2", cookie=cookie, **said)
    is_away = activation == "DIS" and client in ("new", "stale")
    assert answer.status == (307 if is_away else 200)
    valve = app.middleware.binding.pipeline.draining
    assert valve.redirected == is_away
    if is_away:
        assert answer.all("location") == ["/cart?page=2"]
        assert answer.session is None, "the application was not asked"
        gone = attributes("JSESSIONID=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax")
        assert list(map(attributes, answer.all("set-cookie"))) == (
            [gone] if client == "stale" else []
        )


@either
@pytest.mark.parametrize(
    ("path", "query", "location"),
    [
        ("/", "", "/"),
        ("/a;jsessionid=X.n1", "b=1&c=%20", "/a?b=1&c=%20"),
        ("/a;v=1;jsessionid=X", "", "/a;v=1"),
        ("//evil.test/a", "", "/evil.test/a"),
        ("/\\evil.test", "", "/%5Cevil.test"),
        ("\\\\evil.test", "", "/%5C%5Cevil.test"),
        ("/a\r\nSet-Cookie: x=y", "", "/a%0D%0ASet-Cookie:%20x=y"),
        ("/a", "b\r\nc: d", "/a?b%0D%0Ac:%20d"),
        ("/ä b", "ä=1", None),
        ("", "", "/"),
    ],
)
def test_t114_the_id_goes_from_the_url_and_nothing_else(
    under: Any, path: str, query: str, location: str | None
) -> None:
    """The same place at the same host, whatever the path looks like: never another one, and no
    second header.
    """
    for tracking in ("cookie", "both"):
        answer = under(made(DRAINING), tracking=tracking).ask(path, query, activation="DIS")
        [found] = answer.all("location")
        assert found.isascii()
        assert found.isprintable()
        if location is not None:
            assert found == location
        else:
            assert found.startswith("/%C3%A4%20b?")


@each
def test_t114_status_and_switch_of_draining(under: Any) -> None:
    """Another status, over TLS; and drained by hand, where the balancer says nothing."""
    config = DrainingConfig(redirect_status_code=302, activation_header="")
    secure = True if under is Django else None  # whose setting has no third value
    cookie = CookieSettings(domain="shop.test", secure=secure)
    app = under(made(DRAINING, draining=config), cookie=cookie)
    assert app.ask(jk_lb_activation="DIS").status == 200
    app.middleware.binding.pipeline.draining.is_on = True
    answer = app.ask(cookie="JSESSIONID=x", scheme="https")
    assert answer.status == 302
    gone = "JSESSIONID=; Path=/; Domain=shop.test; Max-Age=0; Secure; HttpOnly; SameSite=Lax"
    assert list(map(attributes, answer.all("set-cookie"))) == [attributes(gone)]
    assert under(made("ReplicationValve")).ask(activation="DIS").status == 200


@each
def test_a_client_cannot_undo_what_the_balancer_says(under: Any) -> None:
    """Balancers add their value behind a client's."""
    app = under(made(DRAINING))
    assert app.ask(jk_lb_activation="ACT, DIS").status == 307


@each
def test_t114_a_hundred_requests_of_a_robot_are_one_session(under: Any) -> None:
    """Without cookies; it lives for a minute, and gets one cookie, which it may leave."""
    node = made(CRAWLER)
    app = under(node)
    answers = [app.ask(f"/{n}", user_agent=BOT, host="shop.test") for n in range(100)]
    assert len(node.manager("app").list_ids()) == 1
    assert {each.session.id for each in answers} == set(node.manager("app").list_ids())
    assert answers[-1].session["n"] == 100
    assert answers[-1].session.max_inactive == 60
    assert [bool(each.cookie) for each in answers] == [True] + [False] * 99
    assert app.middleware.binding.pipeline.crawlers.requests == 100


@each
def test_t114_a_session_for_each_identity(under: Any) -> None:
    """By address and, unless that is switched off, host; people are never put together, and who
    brings a session of his own keeps that.
    """

    def ids(node: Node, *requests: dict[str, str]) -> list[str]:
        app = under(node)
        return [app.ask(**each).session.id for each in requests]

    bot = {"user_agent": BOT, "host": "a.test"}
    elsewhere, other_host = {**bot, "client": "192.0.2.2"}, {**bot, "host": "b.test"}
    a, b, c, d = ids(made(CRAWLER), bot, bot, elsewhere, other_host)
    assert a == b
    assert len({a, c, d}) == 3
    no_host = made(CRAWLER, crawlers=CrawlerConfig(host_aware=False))
    assert len(set(ids(no_host, bot, other_host))) == 1
    person = {"user_agent": "Mozilla/5.0 Firefox/140", "host": "a.test"}
    assert len(set(ids(made(CRAWLER), person, person, {"host": "a.test"}))) == 3
    by_address = made(CRAWLER, crawlers=CrawlerConfig(ips=r"192[.]0[.]2[.].*"))
    assert len(set(ids(by_address, person, person))) == 1
    app = under(made(CRAWLER))
    own = app.ask(**person)
    assert app.ask(**bot, cookie=own.cookie).session.id == own.session.id
    assert app.ask(**bot).session.id != own.session.id
    assert len(set(ids(made(), bot, bot))) == 2, "without the valve"


def test_t114_a_robots_session_that_has_ended_is_followed_by_another() -> None:
    node = made(CRAWLER)
    app = Wsgi(node)
    first = app.ask(user_agent=BOT).session
    assert first.id
    first.invalidate()
    node.manager("app").commit(first.session)
    second = app.ask(user_agent=BOT).session
    assert (second["n"], app.ask(user_agent=BOT).session.id) == (1, second.id)


def test_robots_that_are_remembered_are_bounded() -> None:
    """The longest unseen goes: its session lives on until it is idle, and it gets another."""
    app = Wsgi(made(CRAWLER, crawlers=CrawlerConfig(clients_max=2)))
    ids = {}
    for last in ("1", "2", "1", "3"):
        ids[last] = app.ask(user_agent=BOT, client=f"192.0.2.{last}").session.id
    assert len(app.middleware.binding.pipeline.crawlers or ()) == 2
    assert app.ask(user_agent=BOT, client="192.0.2.1").session.id == ids["1"]
    assert app.ask(user_agent=BOT, client="192.0.2.2").session.id != ids["2"]


def test_a_robots_links_have_no_id() -> None:
    """It needs none: what finds its session is who it is."""
    node = made(CRAWLER)
    app = Wsgi(node, tracking="both")
    app.ask(user_agent=BOT)
    assert app.ask(user_agent=BOT).session.offered
    assert link_by_wsgi(made(), tracking="both").link != "/shop/next"


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"valves": ("NoValve",)}, "valves"),
        ({"crawlers": CrawlerConfig(user_agents="(")}, "crawlers.user_agents"),
        ({"crawlers": CrawlerConfig(ips="(")}, "crawlers.ips"),
        ({"crawlers": CrawlerConfig(session_inactive_s=0)}, "crawlers.session_inactive_s"),
        ({"crawlers": CrawlerConfig(clients_max=0)}, "crawlers.clients_max"),
        ({"draining": DrainingConfig(redirect_status_code=200)}, "draining.redirect_status_code"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_config(NodeConfig(**settings))
    assert caught.value.key == key


def test_t114_tomcats_names_and_attributes_are_read() -> None:
    """Beside a cluster they leave its default valves in place."""
    package = "org.apache.catalina.valves."
    config = read_config_bytes(
        f"""<Engine name="e" defaultHost="h"><Host name="h">
        <Valve className="{package}CrawlerSessionManagerValve" crawlerIps="10[.].*"
          crawlerUserAgents=".*Spider.*" sessionInactiveInterval="90" hostAware="false"/>
        <Cluster className="org.apache.catalina.ha.tcp.SimpleTcpCluster"/>
        <Valve className="{package}LoadBalancerDrainingValve" redirectStatusCode="303"
          ignoreCookieName="t" ignoreCookieValue="y"/>
        </Host></Engine>""".encode(),
        source="server.xml",
    ).config
    assert config.valves == ("JvmRouteBinderValve", "ReplicationValve", CRAWLER, DRAINING)
    assert config.crawlers == CrawlerConfig(
        user_agents=".*Spider.*", ips="10[.].*", session_inactive_s=90, host_aware=False
    )
    assert config.draining == DrainingConfig(
        redirect_status_code=303, ignore_cookie_name="t", ignore_cookie_value="y"
    )
