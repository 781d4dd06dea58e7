"""HTTP/1.1 on a listening socket: one bounded request per connection, beside the node's own tasks.

Bounds: connections, bytes of head and body, seconds for each direction. An answer is made by a
function that must not block; see :mod:`tribes.admin.desk`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, final

import h11
import structlog
import trio

from tribes.admin.answers import Answer, RefusedError, Request, as_json
from tribes.admin.farm import PIECE_MAX_BYTES
from tribes.errors import ConfigError

if TYPE_CHECKING:
    from tribes.config.http import HttpConfig

__all__ = ["BODY_MAX_BYTES", "CONNECTIONS_MAX", "HEAD_MAX_BYTES", "REQUEST_S", "HttpServer"]

log = structlog.get_logger("tribes")

CONNECTIONS_MAX: Final = 32
"""One more is closed at once."""
HEAD_MAX_BYTES: Final = 8192
BODY_MAX_BYTES: Final = 4096
REQUEST_S: Final = 5.0
"""Seconds to receive a request; as many to send its answer."""

_ALWAYS: Final = {
    "Cache-Control": "no-store",
    "Connection": "close",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@final
class HttpServer:
    """The port for operators.

    Args:
        config: Where it listens.
        answer: Answers one request; what it raises other than `RefusedError` is logged, and the
            client learns no more than that.
    """

    def __init__(self, config: HttpConfig, answer: Callable[[Request], Awaitable[Answer]]) -> None:
        self._config = config
        self._answer = answer
        self._connections = 0
        self.refused = 0
        """Connections for which there was no room."""

    async def serve(
        self, task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Listen and answer until cancelled; tells address and port when it has begun.

        Raises:
            ConfigError: The address or port cannot be had.
        """
        host, port = self._config.address, self._config.port
        try:
            listeners = await trio.open_tcp_listeners(port, host=host, backlog=CONNECTIONS_MAX)
        except OSError as why:
            raise ConfigError(
                f"{host}:{port} cannot be listened on: {why.strerror or why}; "
                "write another port, or 0 for any free one",
                key="http.port",
            ) from None
        bound = listeners[0].socket.getsockname()
        task_status.started((bound[0], bound[1]))
        await trio.serve_listeners(self._serve, listeners)

    async def _serve(self, stream: trio.SocketStream) -> None:
        if self._connections >= CONNECTIONS_MAX:
            self.refused += 1
            return  # serve_listeners closes it
        self._connections += 1
        try:
            await self._serve_one(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            return  # the client has gone
        except Exception:
            # A boundary: whatever a request does costs it its connection, and the node nothing.
            log.exception("operator's request failed")
        finally:
            self._connections -= 1

    async def _serve_one(self, stream: trio.SocketStream) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX_BYTES)
        head: h11.Request | None = None
        try:
            with trio.fail_after(REQUEST_S):
                head = await _receive_head(http, stream)
                if head is None:
                    return
                body = await _receive_body(http, stream, head)
            answer = await self._answer_of(_request_of(head, body, stream))
        except RefusedError as refused:
            answer = as_json({"error": str(refused)}, refused.status, refused.headers)
        except trio.TooSlowError:
            answer = as_json({"error": f"no whole request within {REQUEST_S:g} s"}, 408)
        except h11.RemoteProtocolError as error:
            answer = as_json({"error": str(error)}, error.error_status_hint)
        if http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            is_head = head is not None and head.method == b"HEAD"
            with trio.move_on_after(REQUEST_S):
                await stream.send_all(_bytes_of(http, answer, is_head=is_head))
                await _end(stream)

    async def _answer_of(self, request: Request) -> Answer:
        try:
            return await self._answer(request)
        except RefusedError:
            raise
        except Exception:
            log.exception("operator's request failed")
            return as_json({"error": "this failed; the node's log says how"}, 500)


async def _end(stream: trio.SocketStream) -> None:
    """Let the client read the answer: closing with unread bytes would reset the connection."""
    await stream.send_eof()
    left = HEAD_MAX_BYTES
    while left > 0:
        data = await stream.receive_some(left)
        if not data:
            return
        left -= len(data)


async def _receive_head(http: h11.Connection, stream: trio.SocketStream) -> h11.Request | None:
    """Read the head of a request; None: the client closed early."""
    event = await _next_event(http, stream)
    return event if isinstance(event, h11.Request) else None


async def _receive_body(
    http: h11.Connection, stream: trio.SocketStream, head: h11.Request
) -> bytes:
    """Read what follows a head, up to the end of the request."""
    body, most = b"", _body_max(head)
    while isinstance(event := await _next_event(http, stream), h11.Data):
        body += event.data
        if len(body) > most:
            raise RefusedError(413, f"a body has at most {most} bytes here")
    return body


async def _next_event(http: h11.Connection, stream: trio.SocketStream) -> object:
    while (event := http.next_event()) is h11.NEED_DATA:
        if http.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[])
            await stream.send_all(http.send(go_on) or b"")
        http.receive_data(await stream.receive_some(HEAD_MAX_BYTES))
    return event


def _body_max(head: h11.Request) -> int:
    is_piece = head.target.partition(b"?")[0] == b"/farm/piece"
    return PIECE_MAX_BYTES if is_piece else BODY_MAX_BYTES


def _request_of(head: h11.Request, body: bytes, stream: trio.SocketStream) -> Request:
    names = [name.decode("latin-1").lower() for name, _ in head.headers]
    pairs = zip(names, (value for _, value in head.headers), strict=True)
    path, _, query = head.target.decode("ascii", "replace").partition("?")
    method = head.method.decode("ascii", "replace")
    peer = stream.socket.getpeername()
    return Request(
        method="GET" if method == "HEAD" else method,
        path=path,
        query=query,
        headers={name: value.decode("latin-1") for name, value in pairs},
        body=body,
        peer=f"{peer[0]}:{peer[1]}",
        repeated=frozenset(name for name in names if names.count(name) > 1),
    )


def _bytes_of(http: h11.Connection, answer: Answer, *, is_head: bool) -> bytes:
    headers = {
        **_ALWAYS,
        "Content-Type": answer.content_type,
        "Content-Length": str(len(answer.body)),
        **answer.headers,
    }
    start = h11.Response(
        status_code=answer.status,
        reason=HTTPStatus(answer.status).phrase,
        headers=list(headers.items()),
    )
    events: list[h11.Event] = [start, h11.EndOfMessage()]
    if not is_head:
        events.insert(1, h11.Data(answer.body))
    return b"".join(map(partial(_sent, http), events))


def _sent(http: h11.Connection, event: h11.Event) -> bytes:
    return http.send(event) or b""
