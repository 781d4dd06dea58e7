"""Counts visits, and says which process answered; /block keeps the event loop for 2.5 s."""

import json
import os
import time
from typing import Any

from tribes import ChannelConfig, ManagerConfig, MembershipConfig, NodeConfig, open_node
from tribes.web import SessionMiddleware

config = NodeConfig(
    contexts=("shop",),
    channel=ChannelConfig(
        membership=MembershipConfig(
            port=int(os.environ["GROUP_PORT"]), frequency=100, drop_time=1000
        )
    ),
    manager=ManagerConfig(channel_send_options=6),
)


async def visits(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/block":
        time.sleep(2.5)  # noqa: ASYNC251 - a view that never should
    session = scope["session"]
    session["visits"] = session.get("visits", 0) + 1
    body = json.dumps({"visits": session["visits"], "pid": os.getpid()}).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


app = SessionMiddleware(visits, open_node(config))
