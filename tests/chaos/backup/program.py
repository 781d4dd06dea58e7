"""A node of the demo's application with a Backup manager, which says where its sessions lie."""

from __future__ import annotations

import argparse
import json
from typing import Any

import uvicorn

from tribes import BackgroundNode, NodeConfig
from tribes.cli.demo_app import make_app
from tribes.cli.logs import set_up_logging
from tribes.config.managers import BackupConfig
from tribes.config.model import ChannelConfig, MembershipConfig, ReceiverConfig
from tribes.manager.backup import BackupManager
from tribes.manager.backup_core import BackupReplicator
from tribes.web import SessionMiddleware
from tribes.web.serving import DrainingServer


class Places:
    """Answers ``/places`` beside the application."""

    def __init__(self, app: Any, node: BackgroundNode) -> None:
        self.app = app
        self.node = node

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/places":
            await self.app(scope, receive, send)
            return
        body = json.dumps(self.places()).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    def places(self) -> dict[str, Any]:
        """Whether this node holds what it should, and what it counts."""
        manager = self.node.manager("demo")
        assert isinstance(manager, BackupManager)
        core = manager.replicator
        assert isinstance(core, BackupReplicator)
        counts = manager.backup_statistics()
        return {
            "settled": core.placed.is_settled,
            "claims": [part for part, claim in enumerate(core.placed.book.claims) if claim],
            **{name: getattr(counts, name) for name in counts.__struct_fields__},
        }


def main() -> None:
    """Serve until SIGTERM, then leave in good order."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name")
    parser.add_argument("--address")
    parser.add_argument("--http-port", type=int)
    parser.add_argument("--multicast-port", type=int)
    parser.add_argument("--copies", type=int)
    known, _ = parser.parse_known_args()
    set_up_logging("text", "info")
    node = BackgroundNode(
        NodeConfig(
            name=known.name,
            contexts=("demo",),
            channel=ChannelConfig(
                membership=MembershipConfig(port=known.multicast_port, bind=known.address),
                receiver=ReceiverConfig(address=known.address),
            ),
            manager=BackupConfig(backup_count=known.copies, map_send_options=6),
        )
    )
    url = f"http://{known.address}:{known.http_port}"
    inner = make_app(known.name, lambda: node.member_names, "http://127.0.0.1:1", {known.name: url})
    app = Places(SessionMiddleware(inner, node, route=known.name, ready_path="/ready"), node)
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
