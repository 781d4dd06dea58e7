"""The demo's control port, on which nodes are killed and started."""

from __future__ import annotations

import contextlib
import json
from http import HTTPStatus
from typing import Final, final

import h11
import trio

from .demo_nodes import HOST, Demo, RefusedError

__all__ = ["Control"]

_REQUEST_S: Final = 5.0  # to receive a request, and again to send the answer
_REQUEST_BYTES_MAX: Final = 8192
_CONNECTIONS_MAX: Final = 64


@final
class Control:
    """The control port: HTTP/1.1, one bounded request per connection.

    Killing processes must not be open to any web page that a browser on this machine shows. So a
    request that names an origin must name a page of the demo; and the Host must be ours, or a
    foreign name that was made to point to 127.0.0.1 would count as the same origin.
    """

    def __init__(self, demo: Demo, port: int, node_ports: list[int]) -> None:
        self._demo = demo
        self._hosts = {f"{host}:{port}" for host in (HOST, "localhost")}
        self._origins = {f"http://{h}:{p}" for h in (HOST, "localhost") for p in node_ports}
        self._connections = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        if self._connections >= _CONNECTIONS_MAX:
            return  # serve_listeners closes it
        self._connections += 1
        try:
            with contextlib.suppress(trio.BrokenResourceError):  # the client has gone
                await self._serve_one(stream)
        finally:
            self._connections -= 1

    async def _serve_one(self, stream: trio.SocketStream) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=_REQUEST_BYTES_MAX)
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        headers |= {"Connection": "close", "X-Content-Type-Options": "nosniff"}
        request = None
        try:
            with trio.fail_after(_REQUEST_S):
                request = await _read_request(http, stream)
            if request is None:
                return
            headers |= self._admit(request)
            path = request.target.decode("ascii").partition("?")[0]
            status, body = 200, await self._demo.answer(request.method.decode("ascii"), path)
        except RefusedError as refused:
            status, body = refused.status, {"error": str(refused)}
            headers |= refused.headers
        except trio.TooSlowError:
            status, body = 408, {"error": f"no whole request within {_REQUEST_S:g} s"}
        except h11.RemoteProtocolError as error:
            status, body = error.error_status_hint, {"error": str(error)}
        if http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        content = json.dumps(body).encode() + b"\n"
        headers["Content-Length"] = str(len(content))
        events: list[h11.Event] = [
            h11.Response(
                status_code=status,
                reason=HTTPStatus(status).phrase,
                headers=list(headers.items()),
            ),
            h11.Data(content),
            h11.EndOfMessage(),
        ]
        if request and request.method == b"HEAD":
            del events[1]
        with trio.move_on_after(_REQUEST_S):
            await stream.send_all(b"".join(http.send(event) or b"" for event in events))

    def _admit(self, request: h11.Request) -> dict[str, str]:
        """Return the headers that let the demo's own pages read the answer, or refuse."""
        hosts = [value.decode("latin-1") for name, value in request.headers if name == b"host"]
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            raise RefusedError(403, "this Host is not the demo's control port")
        origins = [value.decode("latin-1") for name, value in request.headers if name == b"origin"]
        if not origins:
            return {}  # not a page: curl, or somebody who types the address
        if len(origins) != 1 or origins[0] not in self._origins:
            raise RefusedError(403, "only the demo's own pages may use its control port")
        return {"Access-Control-Allow-Origin": origins[0], "Vary": "Origin"}


async def _read_request(http: h11.Connection, stream: trio.SocketStream) -> h11.Request | None:
    """Return a request whose body was read and dropped; None when the client closed early."""
    request, body_bytes = None, 0
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive_some(_REQUEST_BYTES_MAX))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body_bytes += len(event.data)
            if body_bytes > _REQUEST_BYTES_MAX:
                raise RefusedError(413, "no body is needed")
        else:
            return request if isinstance(event, h11.EndOfMessage) else None
