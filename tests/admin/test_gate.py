"""Who may ask the port for operators, and what is told to nobody."""

from __future__ import annotations

import errno
import hmac
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.admin.conftest import TOKEN
from tribes.admin.answers import RefusedError, Request
from tribes.admin.gate import Gate, read_token
from tribes.config.http import HttpConfig
from tribes.config.model import NodeConfig, check_config
from tribes.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

HOST = {"host": "127.0.0.1:9480"}


def request(method: str = "GET", path: str = "/status", **headers: str) -> Request:
    return Request(method, path, headers={**HOST, **headers})


@pytest.mark.parametrize(
    "shown", ["", "Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer 0123", TOKEN]
)
def test_whoever_does_not_show_the_token_is_refused(shown: str) -> None:
    """With what to send."""
    with pytest.raises(RefusedError, match="Authorization: Bearer") as caught:
        Gate(TOKEN.encode()).check_token(request(authorization=shown))
    assert caught.value.status == 401
    assert "WWW-Authenticate" in caught.value.headers
    assert TOKEN not in str(caught.value)


def test_the_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the library's function, also when the scheme is wrong already."""
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    Gate(TOKEN.encode()).check_token(request(authorization=f"bearer {TOKEN}"))
    with pytest.raises(RefusedError):
        Gate(TOKEN.encode()).check_token(request(authorization="Basic x"))
    assert compared == [(TOKEN.encode(), TOKEN.encode()), (b"x", TOKEN.encode())]


def test_text_beyond_ascii_is_refused_like_any_other() -> None:
    """It must not raise, which would tell something."""
    with pytest.raises(RefusedError, match="token"):
        Gate(TOKEN.encode()).check_token(request(authorization="Bearer ÿ€"))


def test_without_a_token_single_sessions_are_nobodys_business() -> None:
    """And nothing can be changed."""
    with pytest.raises(RefusedError, match="token_file") as caught:
        Gate(None).check_power(request())
    assert caught.value.status == 403


@pytest.mark.parametrize(
    "host", ["evil.test", "192.0.2.1:9480", "", "[2001:db8::1]:1", "127.0.0.1.evil.t"]
)
def test_without_a_token_a_name_that_points_to_loopback_is_refused(host: str) -> None:
    """A page of that name would read the answers."""
    with pytest.raises(RefusedError, match="loopback"):
        Gate(None).check_origin(Request("GET", "/status", headers={"host": host}))


@pytest.mark.parametrize("host", ["127.0.0.1:9480", "localhost", "LOCALHOST:8", "[::1]:9480"])
def test_loopback_is_answered_under_its_names(host: str) -> None:
    """Also through a tunnel, whose port is another one."""
    Gate(None).check_origin(Request("GET", "/status", headers={"host": host}))


@pytest.mark.parametrize("token", [None, TOKEN.encode()])
def test_a_page_of_another_origin_is_refused(token: bytes | None) -> None:
    """With a token as well; its own page is answered."""
    for origin in ("http://evil.test", "null", "http://127.0.0.1:80"):
        with pytest.raises(RefusedError, match="origin"):
            Gate(token).check_origin(request(origin=origin))
    Gate(token).check_origin(request(origin="http://127.0.0.1:9480"))


@pytest.mark.parametrize("name", ["host", "origin", "authorization"])
def test_a_header_that_decides_comes_once(name: str) -> None:
    """Two of them may be read in two ways."""
    doubled = Request("GET", "/", headers=HOST, repeated=frozenset({name, "accept"}))
    with pytest.raises(RefusedError, match=name):
        Gate(None).check_origin(doubled)


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("short", 0o600, "16 to 1024"),
        ("with space in the middle of it", 0o600, "without spaces"),
        ("x" * 2000, 0o600, "16 to 1024"),
        (TOKEN, 0o644, "this token file .*chmod 600"),
    ],
)
def test_token_files_that_cannot_be_used(tmp_path: Path, text: str, mode: int, said: str) -> None:
    """Names the file and the remedy, and never shows what is in it."""
    file = tmp_path / "token"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(ConfigError, match=said) as caught:
        read_token(str(file))
    assert str(file) in str(caught.value)
    assert text not in str(caught.value)


def test_a_token_file_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy is an owner, not another secret."""

    def refuse(path: str, *_: Any) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match=r"Permission denied; give it, .* \(chown\)"):
        read_token(str(tmp_path / "token"))


def test_a_token_file_that_is_missing(tmp_path: Path) -> None:
    """Is named with its key."""
    with pytest.raises(ConfigError, match="No such file") as caught:
        read_token(str(tmp_path / "none"))
    assert caught.value.key == "http.token_file"


@pytest.mark.parametrize(
    ("http", "key"),
    [
        (HttpConfig(address="192.0.2.1"), "http.token_file"),
        (HttpConfig(address="0.0.0.0"), "http.token_file"),
        (HttpConfig(address="::"), "http.token_file"),
        (HttpConfig(address="localhost"), "http.address"),
        (HttpConfig(port=65536), "http.port"),
    ],
)
def test_settings_that_cannot_work_are_refused(http: HttpConfig, key: str) -> None:
    """Also where the group itself may be insecure."""
    with pytest.raises(ConfigError) as caught:
        check_config(NodeConfig(http=http, insecure=True))
    assert caught.value.key == key


async def test_paths_ask_for_the_token_that_they_need(operate: Callable[..., Any]) -> None:
    """Live and ready are for balancers, the page holds no data, all else is not for everybody."""
    async with operate() as node:
        del node.http.headers["Authorization"]
        found = {
            path: (await node.http.get(path)).status_code
            for path in ("/live", "/ready", "/", "/status", "/metrics", "/sessions?context=shop")
        }
        for path in ("/sessions/show", "/sessions/expire", "/resync", "/drain"):
            found[path] = (await node.post(path, context="shop", session="x")).status_code
        assert set(found.values()) == {200, 401}
        assert [path for path, status in found.items() if status == 200] == ["/live", "/ready", "/"]
        assert not node.left


async def test_without_a_token_numbers_are_shown_and_nothing_more(
    operate: Callable[..., Any],
) -> None:
    """Sessions and changes are refused with the setting to change."""
    async with operate(token=False) as node:
        assert (await node.http.get("/status")).status_code == 200
        assert (await node.http.get("/metrics")).status_code == 200
        refused = await node.http.get("/sessions?context=shop")
        assert refused.status_code == 403
        assert "http.token_file" in refused.json()["error"]
        for path in ("/sessions/show", "/sessions/expire", "/resync", "/drain"):
            assert (await node.post(path, context="shop", session="x")).status_code == 403
        assert not node.left
