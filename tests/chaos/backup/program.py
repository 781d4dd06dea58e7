"""A node with a Backup manager: the demo's application, and pages that say where sessions lie."""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from tribes import BackgroundNode, NodeConfig
from tribes.cli.demo_app import make_app
from tribes.cli.logs import set_up_logging
from tribes.config.managers import BackupConfig
from tribes.config.model import ChannelConfig, MembershipConfig, ReceiverConfig
from tribes.manager.backup import BackupManager
from tribes.manager.backup_core import BackupReplicator
from tribes.manager.group import SessionGroup
from tribes.manager.messages import Hello, decode_message, is_manager_message
from tribes.manager.placed_messages import PlaceState
from tribes.manager.placement import PARTS
from tribes.web import SessionMiddleware
from tribes.web.serving import DrainingServer

if TYPE_CHECKING:
    from starlette.requests import Request

    from tribes.wire.data import ChannelData

CONTEXT = "shop"
_WHOLE = (PlaceState.HOLD, PlaceState.KEEP)


class Pages:
    """What a node answers beside the demo's pages."""

    def __init__(self, node: BackgroundNode, received: Counter[str]) -> None:
        self.node = node
        self.received = received
        self.release = asyncio.Event()
        self.held = 0

    @property
    def manager(self) -> BackupManager:
        manager = self.node.manager(CONTEXT)
        assert isinstance(manager, BackupManager)
        return manager

    async def places(self, _: Request) -> Response:
        """What this node holds, knows and counts."""
        manager = self.manager
        core = manager.replicator
        assert isinstance(core, BackupReplicator)
        book, counts = core.placed.book, manager.backup_statistics()
        members = (book.local, *book.peers)
        copies = [sum(book.state_of(m, p) in _WHOLE for m in members) for p in range(PARTS)]
        numbers = manager.statistics()
        return JSONResponse(
            {
                "settled": core.placed.is_settled,
                "claims": [part for part, claim in enumerate(book.claims) if claim],
                "states": book.states,
                "epochs": book.epochs,
                "copies": copies,
                "moves": [core.placed.statistics.taken, core.placed.statistics.released],
                "overwritten": numbers.overwritten,
                "ended": numbers.expired + numbers.destroyed,
                "held": self.held,
                **{name: getattr(counts, name) for name in counts.__struct_fields__},
            }
        )

    async def messages(self, _: Request) -> Response:
        """How many messages of managers came that name the application."""
        return JSONResponse({"ours": self.received["ours"]})

    async def ids(self, _: Request) -> Response:
        """The sessions that lie here, which of them this node owns, and copies of visits."""
        manager = self.manager
        ids = manager.list_ids()
        held = [key for key in ids if manager.is_held(key)]
        cached = [key for key in ids if not manager.is_held(key)]
        owned = list(filter(manager.is_primary, held))
        return JSONResponse({"held": held, "owned": owned, "cached": cached})

    async def write(self, request: Request) -> Response:
        """Store the query's values; with ``hold``, only when `go_on` is asked for."""
        values = dict(request.query_params)
        if values.pop("hold", ""):
            request.session.get("", None)
            self.held += 1
            await self.release.wait()
        for name, value in values.items():
            request.session[name] = value
        return self._session(request)

    async def go_on(self, _: Request) -> Response:
        """Let the requests go on that are held."""
        self.release.set()
        self.release = asyncio.Event()
        return JSONResponse({"released": self.held})

    async def show(self, request: Request) -> Response:
        """The session as it is; nothing is written."""
        return self._session(request)

    def _session(self, request: Request) -> Response:
        session: Any = request.session
        values = {name: session[name] for name in list(session)}
        return JSONResponse({"id": session.id, "values": values})


def count_messages() -> Counter[str]:
    """Count the managers' messages that arrive and name the application.

    Not those by which every member tells every other one which applications it runs.
    """
    received: Counter[str] = Counter()
    real = SessionGroup.consume

    def consume(self: SessionGroup, data: ChannelData, now: float) -> bool:
        message = data.message
        if is_manager_message(message) and not isinstance(decode_message(message), Hello):
            received["ours"] += CONTEXT.encode() in message
        return real(self, data, now)

    SessionGroup.consume = consume  # type: ignore[method-assign]
    return received


def main() -> None:
    """Serve until SIGTERM, then leave in good order."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name")
    parser.add_argument("--address")
    parser.add_argument("--http-port", type=int)
    parser.add_argument("--multicast-port", type=int)
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--context", default=CONTEXT)
    known, _ = parser.parse_known_args()
    set_up_logging("text", "info")
    received = count_messages()
    node = BackgroundNode(
        NodeConfig(
            name=known.name,
            contexts=(known.context,),
            insecure=known.address != "127.0.0.1",
            channel=ChannelConfig(
                membership=MembershipConfig(port=known.multicast_port, bind=known.address),
                receiver=ReceiverConfig(address=known.address),
            ),
            manager=BackupConfig(backup_count=known.copies, map_send_options=6),
        )
    )
    url = f"http://{known.address}:{known.http_port}"
    demo = make_app(known.name, lambda: node.member_names, "http://127.0.0.1:1", {known.name: url})
    pages = Pages(node, received)
    names = ("places", "messages", "ids", "write", "go_on", "show")
    routes = [Route(f"/{name}", getattr(pages, name)) for name in names]
    inner = Starlette(routes=[*routes, Mount("/", demo)])
    app = SessionMiddleware(inner, node, route=known.name, ready_path="/ready")
    config = uvicorn.Config(
        app,
        host=known.address,
        port=known.http_port,
        lifespan="on",
        log_level="warning",
        timeout_graceful_shutdown=3,
    )
    DrainingServer(config, node, notice_s=0).run()


if __name__ == "__main__":
    main()
