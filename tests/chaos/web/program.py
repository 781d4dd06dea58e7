"""A web node as anybody would run one: an application, the middleware, uvicorn."""

from __future__ import annotations

import argparse
import asyncio
import signal
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tribes import BackgroundNode, NodeConfig
from tribes.channel.core import ChannelCore
from tribes.cli.logs import set_up_logging
from tribes.config.model import (
    ChannelConfig,
    ManagerConfig,
    MembershipConfig,
    ReceiverConfig,
)
from tribes.manager.donor import Donor
from tribes.runtime.crossing import call_in_run
from tribes.web import SessionMiddleware
from tribes.web.serving import DrainingServer

if TYPE_CHECKING:
    from starlette.requests import Request

    from tribes.channel.tickets import Ticket
    from tribes.manager.session import Session
    from tribes.wire.member import Member

from tribes.manager.messages import Deltas, decode_message, is_manager_message

log = structlog.get_logger("tribes")


class Unstorable:
    """What no codec knows."""


class Listener:
    """Counts the ends of sessions on this node, and logs them: one that stops is asked no more."""

    def __init__(self) -> None:
        self.destroyed = 0

    def session_created(self, session: Session) -> None:
        """Of no interest."""

    def session_id_changed(self, session: Session, old_id: str) -> None:
        """Of no interest."""

    def session_destroyed(self, session: Session, reason: str) -> None:
        del session
        self.destroyed += 1
        log.info("listener was told of an end", why=reason)


class Pages:
    """What the node answers."""

    def __init__(self, node: BackgroundNode) -> None:
        self.node = node
        self.manager = node.manager("app")
        self.listener = Listener()
        self.manager.add_listener(self.listener)

    async def count(self, request: Request) -> Response:
        """One more."""
        request.session["count"] = request.session.get("count", 0) + 1
        return self._session(request)

    async def put(self, request: Request) -> Response:
        """Store the values of the query, as text, in the order given."""
        for name, value in request.query_params.multi_items():
            request.session[name] = Unstorable() if value == "unstorable" else value
        return self._session(request)

    async def show(self, request: Request) -> Response:
        """The session as it is here; nothing is written."""
        return self._session(request)

    def _session(self, request: Request) -> Response:
        session: Any = request.session
        names = list(session)
        values = {name: session.get(name) for name in names}
        shown = {n: v for n, v in values.items() if isinstance(v, str | int)}
        return JSONResponse({"id": session.id, "values": shown})

    async def end(self, request: Request) -> Response:
        """Log out."""
        session: Any = request.session
        session.invalidate()
        return JSONResponse({})

    async def facts(self, request: Request) -> Response:
        """What this node has, and what became of its commits."""
        del request
        table = self.manager.table
        numbers = self.manager.statistics()
        return JSONResponse(
            {
                "members": sorted(self.node.member_names),
                "live": table.live,
                "digest": await self.digest(),
                "destroyed": self.listener.destroyed,
                "unstored": numbers.attribute_failures,
            }
        )

    async def digest(self) -> str:
        """In the channel's thread, like every digest."""
        run = self.node._run
        assert run is not None
        found: list[int] = []
        work = call_in_run(run.token, lambda: found.append(self.manager.table.root_digest()))
        await asyncio.wrap_future(work)
        return str(found[0])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--multicast-port", type=int, required=True)
    parser.add_argument("--options", type=int, default=6)
    parser.add_argument("--notice", type=float, default=0.5)
    parser.add_argument("--pathname", default="")
    parser.add_argument("--donor-delay", type=float, default=0.0)
    parser.add_argument("--late-at", default="")
    parser.add_argument("--route", default="")
    given = parser.parse_args()
    set_up_logging("json", "info")
    if given.donor_delay:
        # From the signal on: it has to join itself before.
        signal.signal(signal.SIGUSR1, lambda *_: slow_down(given.donor_delay))
    if given.late_at:
        released = threading.Event()
        signal.signal(signal.SIGUSR1, lambda *_: released.set())
        hold_back(given.late_at, released)
    node = BackgroundNode(
        NodeConfig(
            name=given.name,
            contexts=("app",),
            channel=ChannelConfig(
                membership=MembershipConfig(port=given.multicast_port),
                receiver=ReceiverConfig(port=4000, auto_bind=1000),
            ),
            manager=ManagerConfig(channel_send_options=given.options, pathname=given.pathname),
        )
    )
    pages = Pages(node)
    routes = [
        Route("/count", pages.count, methods=["POST"]),
        Route("/put", pages.put, methods=["POST"]),
        Route("/show", pages.show),
        Route("/facts", pages.facts),
        Route("/end", pages.end, methods=["POST"]),
    ]
    app = SessionMiddleware(Starlette(routes=routes), node, route=given.route, ready_path="/ready")
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=given.http_port,
        lifespan="on",
        log_level="warning",
        timeout_graceful_shutdown=5,
        # Longer than a client leaves a connection alone: else a request meets one that closes.
        timeout_keep_alive=75,
    )
    DrainingServer(config, node, notice_s=given.notice).run()


def slow_down(seconds: float) -> None:
    """Answer a newcomer's question for sessions so much later, as an overloaded donor does."""
    on_summary = Donor.on_summary

    def later(self: Donor, source: Any, message: Any, now: float) -> None:
        self._channel.timers.at(now + seconds, lambda then: on_summary(self, source, message, then))

    Donor.on_summary = later  # type: ignore[method-assign]


def hold_back(label: str, released: threading.Event) -> None:
    """Send changes later to one member than to the others, as a bad network does."""
    real = ChannelCore.__init__

    def init(self: ChannelCore, *args: Any, **settings: Any) -> None:
        real(self, *args, **settings)
        post, timers = self.post, self.timers

        def later(
            destinations: Iterable[Member], payload: bytes, options: int, now: float, **rest: Any
        ) -> Ticket:
            targets = tuple(destinations)
            held = [member for member in targets if member.label == label]

            def send(then: float) -> None:
                if released.is_set():
                    post(held, payload, options, then)
                else:
                    timers.at(then + 0.02, send)

            if held and is_manager_message(payload) and isinstance(decode_message(payload), Deltas):
                targets = tuple(member for member in targets if member not in held)
                send(now)
            return post(targets, payload, options, now, **rest)

        self.post = later

    vars_of: Any = ChannelCore
    vars_of.__init__ = init


if __name__ == "__main__":
    main()
