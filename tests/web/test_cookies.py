"""Session cookies: read whatever comes, write exactly what was configured."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tribes.errors import ConfigError
from tribes.web.cookies import CookieSettings, cookie_values, join_route, split_route


@pytest.mark.parametrize(
    ("headers", "values"),
    [
        ([], []),
        ([b"JSESSIONID=abc"], ["abc"]),
        ([b"a=1; JSESSIONID=abc; b=2"], ["abc"]),
        ([b'JSESSIONID="abc"'], ["abc"]),
        ([b"foo[bar]=1; {json}; x; JSESSIONID=abc"], ["abc"]),
        ([b"JSESSIONID=one; JSESSIONID=two", b"JSESSIONID=three"], ["one", "two", "three"]),
        ([b"XJSESSIONID=no; JSESSIONIDX=no; jsessionid=no; JSESSIONID"], []),
        ([b"JSESSIONID=" + b"x" * 300], []),
        ([b"JSESSIONID=a=b"], ["a=b"]),
        ([b"; ".join([b"JSESSIONID=x"] * 60)] * 2, ["x"] * 64),
    ],
)
def test_values_are_found_among_whatever_else_is_there(
    headers: list[bytes], values: list[str]
) -> None:
    """Odd neighbours never hide the session's cookie; oversized values are left out, and what comes
    after the first 64.
    """
    assert cookie_values(headers, "JSESSIONID") == values


PIECES = st.sampled_from([b"JSESSIONID", b"=", b";", b" ", b'"', b"x" * 99]) | st.binary(max_size=9)
HEADERS = st.lists(PIECES, max_size=30).map(b"".join)


@given(st.lists(HEADERS, max_size=5))
@example([b"JSESSIONID=" + b"x" * 256, b"JSESSIONID=" + b"x" * 257])
def test_any_header_gives_a_list_of_short_texts(headers: list[bytes]) -> None:
    """No input raises."""
    assert all(len(value) <= 256 for value in cookie_values(headers, "JSESSIONID"))


def test_route_is_what_follows_the_first_dot() -> None:
    """As Tomcat's binder valve reads it."""
    assert split_route("ABC.n1") == ("ABC", "n1")
    assert split_route("ABC.n1.x") == ("ABC", "n1.x")
    assert split_route("ABC") == ("ABC", "")
    assert join_route("ABC", "n1") == "ABC.n1"
    assert join_route("ABC", "") == "ABC"


@pytest.mark.parametrize(
    ("settings", "is_secure", "header"),
    [
        ({}, False, b"JSESSIONID=v; Path=/; HttpOnly; SameSite=Lax"),
        ({}, True, b"JSESSIONID=v; Path=/; Secure; HttpOnly; SameSite=Lax"),
        ({"secure": False}, True, b"JSESSIONID=v; Path=/; HttpOnly; SameSite=Lax"),
        (
            {"name": "sid", "path": "/app", "domain": "example.org", "same_site": "strict"},
            False,
            b"sid=v; Path=/app; Domain=example.org; HttpOnly; SameSite=Strict",
        ),
        ({"same_site": "none"}, False, b"JSESSIONID=v; Path=/; Secure; HttpOnly; SameSite=None"),
        ({"same_site": "", "http_only": False}, False, b"JSESSIONID=v; Path=/"),
    ],
)
def test_header_says_what_was_configured(
    settings: dict[str, object], is_secure: bool, header: bytes
) -> None:
    """HttpOnly and SameSite=Lax unless set otherwise; Secure when the request came over TLS."""
    made = CookieSettings(**settings)  # type: ignore[arg-type]
    assert made.header("v", is_secure=is_secure) == header


def test_forgetting_a_cookie_ages_it_out() -> None:
    """An empty value makes the client drop it."""
    header = CookieSettings().header("", is_secure=False)
    assert header == b"JSESSIONID=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"name": ""}, "cookie.name"),
        ({"name": "a=b"}, "cookie.name"),
        ({"name": "a b"}, "cookie.name"),
        ({"path": "/;x"}, "cookie.path"),
        ({"domain": "a\r\nSet-Cookie: x"}, "cookie.domain"),
        ({"same_site": "Lax"}, "cookie.same_site"),
    ],
)
def test_settings_that_would_break_the_header_are_refused(
    settings: dict[str, object], key: str
) -> None:
    """The error names the key."""
    with pytest.raises(ConfigError) as caught:
        CookieSettings(**settings)  # type: ignore[arg-type]
    assert caught.value.key == key
