"""What lies on the servers: sizes, tampered and foreign bytes, keys."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.session_server.site import Browser, Site, site_on
from tests.waiting import wait_until
from tribes import EnvelopeConfig, MemcachedConfig
from tribes.config.memcached import storage_prefix
from tribes.errors import ConfigError
from tribes.manager.values import ValueCodec

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.caches import CacheServer
    from tests.session_server.conftest import Backend

Nodes = dict[str, "CacheServer"]
MODES = pytest.mark.parametrize("sticky", [True, False], ids=["sticky", "roaming"])
MEBIBYTE = 1024 * 1024


def put(instance: Any, browser: Browser, name: str, value: Any) -> None:
    """A request that stores a value, without a URL."""
    session = instance.manager.find(browser.cookie) or instance.manager.create()
    session[name] = value
    instance.sessions.commit(session)
    browser.cookie = session.id


def get(instance: Any, browser: Browser, name: str) -> Any:
    session = instance.manager.find(browser.cookie)
    return None if session is None else session.get(name)


def test_f17_values_that_nobody_touched_are_not_encoded(
    two: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two lists one is touched: one is decoded and encoded, in a request."""
    instance = two.instance(sticky=False)
    browser = Browser()
    put(instance, browser, "one", [1])
    put(instance, browser, "two", [2])
    calls: list[str] = []
    encode, decode = ValueCodec.encode, ValueCodec.decode

    def counted_encode(codec: ValueCodec, value: Any) -> bytes:
        calls.append(f"encode {value}")
        return encode(codec, value)

    def counted_decode(codec: ValueCodec, data: bytes) -> Any:
        calls.append("decode")
        return decode(codec, data)

    monkeypatch.setattr(ValueCodec, "encode", counted_encode)
    monkeypatch.setattr(ValueCodec, "decode", counted_decode)
    session = instance.manager.find(browser.cookie)
    assert session is not None
    assert session["one"] == [1]
    instance.sessions.commit(session)
    assert calls == ["decode", "encode [1]"]


@MODES
def test_f58_what_is_too_large_is_refused_before_it_is_sent(
    n: Nodes, two: Site, sticky: bool
) -> None:
    """The old copy stays on its node, the node is fine, and the application is told."""
    from tribes.errors import SessionNotReplicatedError

    instance = two.instance(sticky=sticky, on_unreplicated="error")
    browser = Browser()
    page = browser.post(instance, "/?a=1")
    for server in n.values():
        server.mark()
    session = instance.manager.find(browser.cookie)
    assert session is not None
    session["b"] = secrets.token_bytes(2 * MEBIBYTE)
    committer = instance.web.binding.committer
    with pytest.raises(SessionNotReplicatedError, match="2097"):
        committer.commit(session)
    assert sum(server.count("ms") for server in n.values()) == 0
    assert instance.down() == []
    assert instance.statistics().oversize == 1
    # The old copy is readable elsewhere, with its old content.
    other = two.instance(sticky=sticky)
    assert browser.get(other)["a"] == "1"
    assert get(other, browser, "b") is None
    assert Browser().post(instance, "/?c=1").status == 200
    assert page.status == 200


def test_f58_the_largest_that_fits_fits(n: Nodes, two: Site) -> None:
    """Up to what the server says that it takes, less a little; and the server never refuses."""
    instance = two.instance(sticky=False)
    [node, *_] = instance.manager.ring.nodes
    limit = node.client.value_max_bytes
    assert MEBIBYTE - 1024 < limit < MEBIBYTE
    for key in ("k", "k" * 250):
        version = node.client.save(key, b"x" * limit, expected=0, ttl_s=9)
        assert node.client.save(key, b"y" * limit, expected=version, ttl_s=9)


@MODES
def test_limits_of_sizes_hold_as_in_every_manager(two: Site, sticky: bool) -> None:
    """What is too large is refused by its name; the rest of the request is stored."""
    instance = two.instance(sticky=sticky, attribute_max_bytes=1000, session_max_bytes=1500)
    browser = Browser()
    session = instance.manager.create()
    session["large"] = "x" * 1001
    session["small"] = "y" * 900
    session["other"] = "z" * 800
    outcome = instance.manager.commit(session)
    assert outcome.failed.keys() == {"large", "small"}
    if instance.manager.must_store(session, outcome):
        instance.manager.store(session)
    browser.cookie = session.id
    other = two.instance(sticky=sticky)
    assert get(other, browser, "other") == "z" * 800
    assert get(other, browser, "large") is get(other, browser, "small") is None


@MODES
def test_a_session_lives_no_longer_than_its_lifetime(two: Site, sticky: bool) -> None:
    """However much it is used; on another process too."""
    instance = two.instance(sticky=sticky, max_lifetime_s=3600)
    browser = Browser()
    browser.post(instance, "/?a=1")
    assert get(instance, browser, "a") == "1"
    for each in (instance, two.instance(sticky=sticky, max_lifetime_s=3600)):
        ahead = each.manager.idleness._clock
        wall_ms = ahead.wall_ms
        each.manager.idleness._clock = Later(wall_ms() + 3_600_000)  # type: ignore[assignment]
        assert each.manager.find(browser.cookie) is None
        each.manager.idleness._clock = ahead


class Later:
    """A clock that is ahead."""

    def __init__(self, now_ms: int) -> None:
        self.wall_ms = lambda: now_ms


@MODES
def test_f59_values_of_all_sizes_come_back(backend: Backend, sticky: bool) -> None:
    """From 1 kB to 5 MB, compressed; and as they are, as far as the server takes them."""
    squeezed = backend.instance(
        sticky=sticky, envelope=EnvelopeConfig(compress=True), session_backup_timeout=2000
    )
    plain = backend.instance(sticky=sticky, session_backup_timeout=2000)
    sizes = [1000, 10_000, 100_000, 900_000]
    for size in [*sizes, 5_000_000]:
        text = "Tribes " * (size // 7)
        browser = Browser()
        put(squeezed, browser, "v", text)
        assert get(plain, browser, "v") == text
    for size in [*sizes, *([5_000_000] if backend.kind == "redis" else [])]:
        noise = os.urandom(size - 4) + b"\r\nMN"
        browser = Browser()
        put(plain, browser, "v", noise)
        assert get(squeezed, browser, "v") == noise


@MODES
def test_f60_tampered_or_exchanged_bytes_are_refused_and_kept(
    n: Nodes, two: Site, sticky: bool
) -> None:
    """A flipped bit; another user's record; both count, and stay where they are."""
    keys = EnvelopeConfig(keys=(secrets.token_hex(32),))
    writer = two.instance(sticky=sticky, envelope=keys)
    reader = two.instance(sticky=sticky, envelope=keys)
    mine, others = Browser(), Browser()
    mine.post(writer, "/?who=me")
    others.post(writer, "/?who=other")
    servers = [n["n1"], n["n2"]]
    own, foreign = (
        next(server.value(each.key) for server in servers if server.has(each.key))
        for each in (mine, others)
    )
    for number, forged in enumerate((flipped(own), foreign)):
        for server in servers:
            server.put(mine.key, forged)
        page = mine.twin().get(reader)
        assert page.text == ""
        assert reader.statistics().refused >= 1 + number
        for server in servers:
            assert server.value(mine.key) == forged, "kept"
        # Nothing of the other session is touched.
        assert others.twin().get(reader)["who"] == "other"
        for server in servers:
            server.put(mine.key, own)
    assert mine.twin().get(reader)["who"] == "me"


def flipped(data: bytes) -> bytes:
    return data[:-40] + bytes((data[-40] ^ 1,)) + data[-39:]


def test_f60_who_has_no_key_makes_no_session(n: Nodes, two: Site) -> None:
    """A value that another application, or one without the key, wrote under a proper key."""
    writer = two.instance(sticky=False)
    browser = Browser()
    browser.post(writer, "/?a=1")
    others: tuple[dict[str, Any], ...] = (
        {"envelope": EnvelopeConfig(keys=(secrets.token_hex(32),))},
        {"context": "other"},
    )
    for settings in others:
        reader = two.instance(sticky=False, **settings)
        assert browser.twin().get(reader).text == ""
        assert reader.statistics().refused == 2
    assert browser.get(writer)["a"] == "1"


def test_f61_pickles_are_bytes_like_any_others(n: Nodes, two: Site, tmp_path: Path) -> None:
    """One that would make a file when loaded makes none."""
    mark = tmp_path / "executed"
    pickle = b"cposix\nsystem\n(S'touch %s'\ntR." % str(mark).encode()
    instance = two.instance(sticky=False)
    key = "A" * 32
    for server in n.values():
        server.put(key, pickle)
    assert Browser(f"{key}-n1").get(instance).text == ""
    assert instance.statistics().refused == 2
    assert not mark.exists()
    assert n["n1"].value(key) == pickle


def test_f62_a_newer_versions_record_is_kept(
    n: Nodes, two: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line in the log, no deletion; and the second copy serves."""
    lines: list[dict[str, Any]] = []
    log = SimpleNamespace(error=lambda event, **fields: lines.append({"event": event, **fields}))
    monkeypatch.setattr("tribes.runtime.memcached.log", log)
    instance = two.instance(sticky=False)
    browser = Browser()
    browser.post(instance, "/?a=1")
    home, other = ("n1", "n2") if browser.node == "n1" else ("n2", "n1")
    newer = bytes((9,)) + n[home].value(browser.key)[1:]
    n[home].put(browser.key, newer)
    lines.clear()
    assert browser.get(instance)["a"] == "1"
    assert browser.node == other
    assert n[home].value(browser.key) == newer
    assert len([line for line in lines if "could_not" in line]) == 1


@given(st.text(max_size=400), st.text(max_size=400))
def test_f63_any_prefix_makes_proper_keys(prefix: str, context: str) -> None:
    """At most 250 bytes with the longest id, printable, and the same for the same."""
    prefix = prefix.replace(",", "").replace(":", "")
    config = MemcachedConfig(
        memcached_nodes="h:1", storage_key_prefix=f"static:{prefix},host,context,context.hash"
    )
    made = storage_prefix(config, context)
    assert made == storage_prefix(config, context)
    assert re.fullmatch(r"[!-~]*", made)
    assert len(f"lock:{made}{'F' * 128}") <= 250


@pytest.mark.parametrize(
    ("tokens", "context", "prefix"),
    [
        ("static:x", "", "x_"),
        ("host,context", "hst#ctxt", "hst:ctxt_"),
        ("host.hash,context.hash,webappVersion", "hst#ctxt", "e93c085e:45e6345f:001_"),
        ("webappVersion", "shop", "001_"),
        ("context", "my-app.v1.0", "my-app.v1.0_"),
        ("", "shop", ""),
    ],
)
def test_f63_prefixes_are_made_of_tokens(tokens: str, context: str, prefix: str) -> None:
    """As msm-sessions §5.2 has them."""
    config = MemcachedConfig(memcached_nodes="h:1", storage_key_prefix=tokens, webapp_version="001")
    assert storage_prefix(config, context) == prefix
    unknown = MemcachedConfig(memcached_nodes="h:1", storage_key_prefix="nonsense")
    with pytest.raises(ConfigError, match="storageKeyPrefix"):
        storage_prefix(unknown, "shop")


@MODES
def test_f63_dashes_and_dots_in_prefixes_do_no_harm(n: Nodes, two: Site, sticky: bool) -> None:
    """They end nothing in the original, where every node then looks dead."""
    settings: dict[str, Any] = {"sticky": sticky, "storage_key_prefix": "static:my-app.v1,host"}
    browser = Browser()
    page = browser.post(two.instance(**settings), "/?a=1")
    assert browser.node in ("n1", "n2")
    assert page.status == 200
    assert n[browser.node].has(f"my-app.v1_{browser.key}")
    assert browser.get(two.instance(**settings))["a"] == "1"


def test_f66_passwords_are_in_no_log_and_no_configuration(
    capsys: pytest.CaptureFixture[str], needs: Any
) -> None:
    """A Redis that wants a password: it works with it, and nothing shows it, also when it fails."""
    from tests.servers.caches import cache_servers
    from tribes import LocalSessions

    word = "hunter2secret"
    with cache_servers("redis", 1, needs, "--requirepass", word) as [server]:
        url = f"redis://:{word}@{server.address}/3"
        with site_on(url) as site:
            browser = Browser()
            instance = site.instance(sticky=False)
            browser.post(instance, "/?a=1")
            assert browser.get(site.instance(sticky=False))["a"] == "1"
            assert word not in repr(instance.sessions.config)
            config = MemcachedConfig(memcached_nodes=url, password=word)
            assert word not in repr(config) + str(config.memcached_nodes)
            server.kill()
            assert browser.get(instance).status == 503
            server.start()
        by_setting = MemcachedConfig(
            memcached_nodes=f"redis://{server.address}/3", password=word, sticky=False
        )
        for config, works in (
            (by_setting, True),
            (MemcachedConfig(memcached_nodes=f"redis://:wrong{word}@{server.address}"), False),
        ):
            sessions = LocalSessions("shop", config)
            sessions.start()
            session = sessions.manager("shop").create()
            session["a"] = 1
            assert bool(sessions.commit(session).acked) is works
            sessions.stop()
    output = capsys.readouterr()
    assert word not in output.out + output.err


def test_f66_redis_over_tls_and_a_socket(needs: Any, tmp_path: Path) -> None:
    """`rediss://` with a certificate that is checked, and `unix://`."""
    import trustme

    from tests.servers.caches import cache_servers
    from tribes.errors import StoreNodeError
    from tribes.stores.redis import RedisNode

    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    socket = tmp_path / "redis.sock"
    with cache_servers("redis", 1, needs, "--unixsocket", str(socket)) as [server]:
        tls_port = server.port
        node = RedisNode(f"unix://{socket}")
        assert node.save("k", b"v", expected=0, ttl_s=9)
        assert node.address == str(socket)
        node.close()
        with site_on(f"unix://{socket}") as site:
            browser = Browser()
            browser.post(site.instance(sticky=False), "/?a=1")
            assert browser.get(site.instance(sticky=False))["a"] == "1"
    options = ["--tls-port", str(tls_port), "--tls-auth-clients", "no"]
    for name in ("key", "cert", "ca-cert"):
        options += [f"--tls-{name}-file", str(tmp_path / f"{name.partition('-')[0]}.pem")]
    with cache_servers("redis", 1, needs, *options):
        trusting = RedisNode(
            f"rediss://127.0.0.1:{tls_port}",
            timeout_s=1,
            options={"ssl_ca_certs": str(tmp_path / "ca.pem")},
        )

        def is_saved() -> bool:
            with suppress(StoreNodeError):
                return trusting.save("k", b"v", expected=0, ttl_s=9) > 0
            return False

        wait_until(is_saved)
        trusting.close()
        doubting = RedisNode(f"rediss://127.0.0.1:{tls_port}", timeout_s=1)
        with pytest.raises(StoreNodeError, match=r"(?i)certificate"):
            doubting.load("k")
        doubting.close()
