"""What each path of the port for operators answers.

=====================  =====  ===================================================================
path                   token  answer
=====================  =====  ===================================================================
``/``                  no     the status page, which holds no data; it asks for ``/status``
``/live``              no     200 while the process answers
``/ready``             no     200 when a balancer should send requests here, else 503
``/metrics``           yes    Prometheus's text format
``/status``            yes    JSON: everything that the page shows
``/sessions``          must   JSON: sessions of ``context``, ``limit`` at a time, ``after`` a handle
POST ``/sessions/show``   must   one of them, redacted: ``{"context": …, "session": …}``
POST ``/sessions/expire`` must   ends one on all members; also ``"reason"``
POST ``/resync``       must   compares ``context`` with all members
POST ``/drain``        must   makes the node leave in good order
POST ``/record``       must   writes the flight recorder's ring into a file: ``{"contents": false}``
``/farm``              yes    JSON: what is deployed, by application and member
POST ``/farm/begin``   must   begins to give it an archive: ``{"name": …, "size": …}``
POST ``/farm/piece``   must   the next bytes of it, after ``offset`` of ``upload``
POST ``/farm/deploy``  must   deploys it on all members: ``{"upload": …, "sha256": …}``
POST ``/farm/undeploy``  must   undeploys ``{"app": …}`` on all members
=====================  =====  ===================================================================

*yes*: where there is a token. *must*: there has to be one.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache, partial
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import parse_qs

import msgspec
import structlog
import trio

from tribes.admin import sessions
from tribes.admin.answers import Answer, RefusedError, Request, as_json
from tribes.admin.farm import FarmDesk, FarmView
from tribes.admin.gate import Gate, read_token
from tribes.admin.metrics import CONTENT_TYPE, exposition, families
from tribes.admin.recorder import Failures, Rates
from tribes.admin.status import counters_of, status_of
from tribes.errors import ChannelClosedError, ConfigError, RecordingError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tribes.config.http import HttpConfig
    from tribes.runtime.group_channel import GroupChannel

__all__ = ["KEPT_S", "Desk", "open_desk"]

log = structlog.get_logger("tribes")

KEPT_S: Final = 0.25
"""A status is answered again for so long: many who look cost no more than a few."""
SAMPLE_S: Final = 1.0
_LIMIT: Final = re.compile(r"[0-9]{1,4}")
_AT_ONCE: Final = 2
"""Requests about sessions that are worked on; each reads the whole table in a thread."""


class _Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request about one session."""

    context: str
    session: str
    reason: str = ""


class _Context(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request about one context."""

    context: str


class _Recording(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request for a recording."""

    contents: bool = False


@final
class Desk:
    """Answers operators' requests about one node.

    Args:
        channel: The node.
        gate: Who may ask.
        failures: What has gone wrong lately; its ``watch`` sees the channel's events.
        source: What the configuration was read from, to be shown.
        leave: Makes the node leave in good order; None: that is not offered.
        farm: The node's farm; None: it has none.
        now: Monotonic seconds.
    """

    def __init__(
        self,
        channel: GroupChannel,
        gate: Gate,
        failures: Failures,
        *,
        source: str = "",
        leave: Callable[[], None] | None = None,
        farm: FarmView | None = None,
        now: Callable[[], float] = trio.current_time,
    ) -> None:
        self._channel = channel
        self._gate = gate
        self._failures = failures
        self._source = source
        self._leave = leave
        self._now = now
        self._started = now()
        self._rates = Rates(lambda: counters_of(channel))
        self._kept: tuple[float, dict[str, Any]] | None = None
        self._limiter = trio.CapacityLimiter(_AT_ONCE)
        self._farm = FarmDesk(farm, _decode)
        self._gets: dict[str, Callable[[Request], Awaitable[Answer]]] = {
            "/status": self._status,
            "/metrics": self._metrics,
            "/sessions": self._list,
            "/farm": self._farm.show,
        }
        self._posts: dict[str, Callable[[Request], Awaitable[Answer]]] = {
            "/sessions/show": self._show,
            "/sessions/expire": self._expire,
            "/resync": self._resync,
            "/drain": self._drain,
            "/record": self._record,
            "/farm/begin": self._farm.begin,
            "/farm/piece": self._farm.piece,
            "/farm/deploy": self._farm.deploy,
            "/farm/undeploy": self._farm.undeploy,
        }

    async def sample(self) -> None:
        """Keep the charts' numbers until cancelled."""
        while True:
            self._rates.sample(self._now())
            await trio.sleep(SAMPLE_S)

    async def answer(self, request: Request) -> Answer:
        """Answer one request.

        Raises:
            RefusedError: It gets an error.
        """
        path = request.path
        if path == "/live":
            _only(request, "GET")
            return as_json({"live": True})
        if path == "/ready":
            _only(request, "GET")
            is_ready = self._channel.is_ready
            return as_json({"ready": is_ready}, 200 if is_ready else 503)
        self._gate.check_origin(request)
        if path == "/":
            _only(request, "GET")
            return _page()
        if path in self._gets:
            _only(request, "GET")
            self._gate.check_token(request)
            return await self._gets[path](request)
        if path in self._posts:
            _only(request, "POST")
            self._gate.check_power(request)
            return await self._posts[path](request)
        raise RefusedError(404, "there is nothing here; see docs/operations.md for what there is")

    # What there is to see.

    def _document(self) -> dict[str, Any]:
        now = self._now()
        if self._kept is None or not 0 <= now - self._kept[0] < KEPT_S:
            status = status_of(self._channel)
            status["config"] = self._source
            status["uptime_s"] = round(now - self._started, 1)
            status["failures_seen"] = self._failures.seen
            status["failures"] = self._failures.last
            status["rates"] = {"every_s": SAMPLE_S, "series": self._rates.series}
            status["can_change"] = self._gate.has_token
            status["farm"] = self._farm.status()
            self._kept = now, status
        return self._kept[1]

    async def _status(self, request: Request) -> Answer:
        del request
        try:
            return as_json(self._document())
        except ChannelClosedError as error:
            raise RefusedError(503, str(error)) from None

    async def _metrics(self, request: Request) -> Answer:
        del request
        try:
            shown = families(self._document())
        except ChannelClosedError as error:
            raise RefusedError(503, str(error)) from None
        return Answer(exposition(shown), content_type=CONTENT_TYPE)

    # Sessions.

    async def _list(self, request: Request) -> Answer:
        self._gate.check_power(request)
        try:
            asked = parse_qs(request.query, max_num_fields=8)
        except ValueError as error:
            raise RefusedError(400, str(error)) from None
        context = asked.get("context", [""])[0]
        limit = asked.get("limit", ["100"])[0]
        if not _LIMIT.fullmatch(limit) or not 1 <= int(limit) <= sessions.LISTED_MAX:
            raise RefusedError(400, f"limit is a number from 1 to {sessions.LISTED_MAX}")
        after = asked.get("after", [""])[0]
        async with self._limiter:
            return as_json(await sessions.listing(self._channel, context, int(limit), after))

    async def _show(self, request: Request) -> Answer:
        asked = _decode(request, _Named)
        async with self._limiter:
            return as_json(await sessions.show(self._channel, asked.context, asked.session))

    async def _expire(self, request: Request) -> Answer:
        asked = _decode(request, _Named)
        async with self._limiter:
            ended = await sessions.expire(
                self._channel,
                asked.context,
                asked.session,
                peer=request.peer,
                reason=asked.reason[:200],
            )
        return as_json(ended)

    # The node.

    async def _resync(self, request: Request) -> Answer:
        asked = _decode(request, _Context)
        shell = self._channel.shell
        if asked.context not in shell.core.sessions.replicators:
            raise RefusedError(404, f"there is no context {asked.context[:256]!r} with copies here")
        members = shell.core.resync(asked.context, shell.now())
        shell.pump()
        log.warning("resync by operator", context=asked.context, peer=request.peer)
        return as_json({"context": asked.context, "asked": members})

    async def _drain(self, request: Request) -> Answer:
        if self._leave is None:
            raise RefusedError(404, "this node cannot be told to leave here")
        log.warning("drain by operator", peer=request.peer)
        self._leave()
        return as_json({"leaving": True}, 202)

    async def _record(self, request: Request) -> Answer:
        asked = _decode(request, _Recording)
        recorder = self._channel.sessions.recorder
        if recorder is None:
            raise RefusedError(404, "this node records nothing; set recorder.directory")
        log.warning("recording by operator", contents=asked.contents, peer=request.peer)
        why = f"asked for by {request.peer}"
        recorder.ring.mark()
        write = partial(recorder.write, contents=asked.contents, why=why)
        try:
            async with self._limiter:
                return as_json(await trio.to_thread.run_sync(write))
        except RecordingError as error:
            raise RefusedError(507, str(error)) from None


def _only(request: Request, method: str) -> None:
    if request.method != method:
        allowed = "GET, HEAD" if method == "GET" else method
        raise RefusedError(405, f"this takes {allowed}", {"Allow": allowed})


_Body = Any


def _decode(request: Request, kind: type[_Body]) -> _Body:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise RefusedError(415, "write Content-Type: application/json")
    try:
        return msgspec.json.decode(request.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedError(400, f"the body is not what is expected: {error}") from None


@cache
def _page() -> Answer:
    """The page; its script and style are named by their digests, and nothing else may run."""
    body = files(__package__).joinpath("status.html").read_bytes()
    script, style = (_digest(body, tag) for tag in (b"script", b"style"))
    policy = (
        f"default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {"Content-Security-Policy": policy}
    return Answer(body, content_type="text/html; charset=utf-8", headers=headers)


def _digest(page: bytes, tag: bytes) -> str:
    [inner] = re.findall(b"<%b>(.*?)</%b>" % (tag, tag), page, re.DOTALL)
    return f"sha256-{b64encode(sha256(inner).digest()).decode()}"


@asynccontextmanager
async def open_desk(
    config: HttpConfig,
    channel: GroupChannel,
    failures: Failures,
    *,
    source: str = "",
    leave: Callable[[], None] | None = None,
    farm: FarmView | None = None,
) -> AsyncIterator[Callable[[], bool]]:
    """Answer operators while the body runs; gives what reads the token again, and
    tells whether there is one.

    It goes on while the channel leaves: a balancer shall see that it is not ready.

    Args:
        config: Where.
        channel: The node, entered before or soon.
        failures: See `Desk`.
        source: See `Desk`.
        leave: See `Desk`.
        farm: See `Desk`.

    Raises:
        ConfigError: The token or the port cannot be used, or what it needs is not installed.
    """
    try:
        from tribes.admin.server import HttpServer
    except ModuleNotFoundError as why:
        raise ConfigError(
            f"{why.name} is not installed; pip install 'tribes[http]'", key="http"
        ) from why
    gate = Gate(read_token(config.token_file) if config.token_file else None)

    def reload() -> bool:
        if config.token_file:
            gate.replace(read_token(config.token_file))
        return gate.has_token

    desk = Desk(channel, gate, failures, source=source, leave=leave, farm=farm)
    async with trio.open_nursery() as nursery:
        host, port = await nursery.start(HttpServer(config, desk.answer).serve)
        nursery.start_soon(desk.sample)
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        log.info("operators", url=f"http://{shown}/", token=config.token_file or "none")
        try:
            yield reload
        finally:
            nursery.cancel_scope.cancel()
