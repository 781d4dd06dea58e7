"""The HTTP of the port for operators: odd requests cost their connection and nothing else."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tribes.admin import server as server_module
from tribes.admin.answers import Answer, RefusedError, Request
from tribes.admin.server import BODY_MAX_BYTES, CONNECTIONS_MAX, HttpServer
from tribes.config.http import HttpConfig
from tribes.errors import ConfigError


class Served:
    """A server whose answers say what it understood."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.server = HttpServer(HttpConfig(port=0), self._answer)
        self.port = 0

    async def _answer(self, request: Request) -> Answer:
        self.asked.append(request)
        if request.path == "/bug":
            raise RuntimeError("secret detail")
        if request.path == "/unsendable":
            return Answer(b"", headers={"X": "two\nlines"})
        if request.path == "/no":
            raise RefusedError(404, "no")
        return Answer(b"fine\n", content_type="text/plain")

    async def raw(self, data: bytes, *, end: bool = True) -> bytes:
        with trio.fail_after(20):
            async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                answer = b""
                try:
                    await stream.send_all(data)
                    if end:
                        await stream.send_eof()
                    async for chunk in stream:
                        answer += chunk
                except trio.BrokenResourceError:
                    pass
                return answer


@pytest.fixture
async def served(nursery: trio.Nursery) -> Served:
    """A server on any free port."""
    made = Served()
    _, made.port = await nursery.start(made.server.serve)
    return made


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


PIECES = (
    *(b"GET ", b"/", b" HTTP/1.1", b"\r\n", b"Host: a", b"\0", b": ", b"%00", b"\xff"),
    *(b"Content-Length: 5", b"Transfer-Encoding: chunked", b"5\r\n"),
)
HEAD = b"GET /x HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/x.y\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (HEAD + b"X: " + b"a" * 20000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400),
        (HEAD + b"Content-Length: 99999999999999999999\r\n\r\n" + b"x" * 5000, 413),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffffff\r\n", 400),
        (HEAD + b"\r\n", 200),
        (b"GET http://[::1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /no HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    ],
)
async def test_odd_requests_get_an_error(served: Served, data: bytes, code: int) -> None:
    """And the next one is answered."""
    assert status(await served.raw(data)) == code
    assert status(await served.raw(HEAD + b"\r\n")) == 200


async def test_a_body_is_bounded_and_whole(served: Served) -> None:
    """One byte more is refused, without reading what follows."""
    for length, code in ((BODY_MAX_BYTES, 200), (BODY_MAX_BYTES + 1, 413)):
        head = b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % length
        assert status(await served.raw(head + b"x" * length)) == code
    assert [len(request.body) for request in served.asked] == [BODY_MAX_BYTES]


async def test_a_head_has_no_body_and_the_same_length(served: Served) -> None:
    """As HTTP says."""
    answer = await served.raw(HEAD.replace(b"GET", b"HEAD") + b"\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert (status(answer), body) == (200, b"")
    assert b"content-length: 5" in head.lower()
    assert b"no-store" in head


@pytest.mark.parametrize(
    ("rest", "code"),
    [
        (b"Content-Length: 5000\r\n\r\n" + b"x" * 5000, 413),
        (b"Transfer-Encoding: chunked\r\n\r\nno length\r\n", 400),
    ],
)
async def test_the_refusal_of_a_head_has_no_body_either(
    served: Served, rest: bytes, code: int
) -> None:
    """Whatever is wrong with the body that it came with; and the next one is answered."""
    answer = await served.raw(HEAD.replace(b"GET", b"HEAD") + rest)
    assert (status(answer), answer.partition(b"\r\n\r\n")[2]) == (code, b"")
    assert status(await served.raw(HEAD + b"\r\n")) == 200


async def test_a_fault_in_answering_costs_its_connection_only(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not the server, and with it the node."""
    assert await served.raw(b"GET /unsendable HTTP/1.1\r\nHost: localhost\r\n\r\n") == b""
    assert "operator's request failed" in capsys.readouterr().out
    assert status(await served.raw(HEAD + b"\r\n")) == 200


async def test_who_goes_away_in_the_middle_is_no_fault(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scan of ports fills no log."""
    stream = await trio.open_tcp_stream("127.0.0.1", served.port)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await stream.send_all(HEAD)
    with trio.fail_after(10):
        while not served.server._connections:  # noqa: ASYNC110 - nothing tells
            await trio.sleep(0.01)
        await stream.aclose()
        while served.server._connections:  # noqa: ASYNC110 - nothing tells
            await trio.sleep(0.01)
    assert "failed" not in capsys.readouterr().out


async def test_a_fault_of_ours_tells_the_client_nothing(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log has it."""
    answer = await served.raw(b"GET /bug HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert status(answer) == 500
    assert b"secret" not in answer
    assert "secret detail" in capsys.readouterr().out
    assert status(await served.raw(HEAD + b"\r\n")) == 200


async def test_who_sends_slowly_is_given_up(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a status that says so."""
    monkeypatch.setattr(server_module, "REQUEST_S", 0.05)
    assert status(await served.raw(HEAD, end=False)) == 408
    slow = HEAD.replace(b"GET", b"HEAD") + b"Content-Length: 5\r\n\r\n"
    assert status(await served.raw(slow, end=False)) == 408


async def test_connections_are_bounded(served: Served) -> None:
    """One too many is closed at once, and there is room again when others go."""
    open_ones = [
        await trio.open_tcp_stream("127.0.0.1", served.port) for _ in range(CONNECTIONS_MAX)
    ]
    for stream in open_ones:
        await stream.send_all(b"GET")
    with trio.fail_after(10):
        while not served.server.refused:
            await served.raw(HEAD + b"\r\n")
            await trio.sleep(0.01)
    for stream in open_ones:
        await stream.aclose()
    with trio.fail_after(10):
        while not (await served.raw(HEAD + b"\r\n")).startswith(b"HTTP/1.1 200"):  # noqa: ASYNC110 - nothing tells
            await trio.sleep(0.01)


async def test_a_port_in_use_is_told_with_the_remedy(served: Served) -> None:
    """The key is named."""
    taken = HttpServer(HttpConfig(port=served.port), served.server._answer)
    with pytest.raises(ConfigError, match="another port") as caught:
        await taken.serve()
    assert caught.value.key == "http.port"


@given(st.binary(max_size=300) | st.lists(st.sampled_from(PIECES), max_size=20).map(b"".join))
def test_no_bytes_do_harm(data: bytes) -> None:
    """They get an HTTP answer or none; the server goes on."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            served = Served()
            _, served.port = await nursery.start(served.server.serve)
            answer = await served.raw(data)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
            assert status(await served.raw(HEAD + b"\r\n")) == 200
            nursery.cancel_scope.cancel()

    trio.run(main)


async def test_odd_paths_lead_nowhere(operate: Callable[..., Any]) -> None:
    """No path is a file's."""
    paths = "// /.. /../etc/passwd /status/ /status%00 /STATUS /%2e%2e/status /sessions/ /live/x *"
    async with operate() as node:
        for path in paths.split():
            answer = await node.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert status(answer) == 404, path


async def test_only_what_is_meant_is_taken(operate: Callable[..., Any]) -> None:
    """And the answer says what that is."""
    async with operate() as node:
        for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "POST"):
            for path in ("/live", "/ready", "/", "/status", "/metrics", "/sessions"):
                answer = await node.http.request(method, path)
                assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
        for path in ("/sessions/show", "/sessions/expire", "/resync", "/drain"):
            answer = await node.http.get(path)
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_queries_are_checked(operate: Callable[..., Any]) -> None:
    """A bound is a bound."""
    async with operate() as node:
        for query, code in (
            ("context=shop&limit=0", 400),
            ("context=shop&limit=1001", 400),
            ("context=shop&limit=00000000000009999", 400),
            ("context=shop&limit=-1", 400),
            ("context=shop&limit=%D9%A1", 400),
            ("&".join(f"a{i}=1" for i in range(50)), 400),
            ("context=none", 404),
            ("", 404),
            ("context=shop&after=%FF%00", 200),
            ("context=shop&limit=1000", 200),
        ):
            assert (await node.http.get("/sessions?" + query)).status_code == code, query


async def test_bodies_are_checked(operate: Callable[..., Any]) -> None:
    """A form of a foreign page is no JSON."""
    async with operate() as node:
        for body, kind, code in (
            (b"", "application/json", 400),
            (b"[]", "application/json", 400),
            (b"[" * 4000, "application/json", 400),
            (b'{"context": 1, "session": "x"}', "application/json", 400),
            (b'{"context": "shop", "session": "x", "more": 1}', "application/json", 400),
            (b'{"context": "\xff", "session": "x"}', "application/json", 400),
            (b'{"context": "shop", "session": "x"}', "text/plain", 415),
            (b'{"context": "shop", "session": "x"}', "application/json", 404),
            (b'{"context": "shop", "session": "\\u0000"}', "application/json; a=b", 404),
        ):
            headers = {"Content-Type": kind}
            answer = await node.http.post("/sessions/show", content=body, headers=headers)
            assert answer.status_code == code, body
            assert "error" in answer.json()
