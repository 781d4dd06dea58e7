"""Counts visits, and says which process answered; /block keeps the thread for 2.5 s."""

import json
import os
import time
from typing import Any

from tribes import ChannelConfig, ManagerConfig, MembershipConfig, NodeConfig, open_node
from tribes.web.wsgi import SESSION, SessionMiddleware

config = NodeConfig(
    contexts=("shop",),
    channel=ChannelConfig(
        membership=MembershipConfig(
            port=int(os.environ["GROUP_PORT"]), frequency=100, drop_time=1000
        )
    ),
    manager=ManagerConfig(channel_send_options=6),
)
node = open_node(config)
if os.environ.get("START_EARLY"):
    node.start()


def visits(environ: Any, start_response: Any) -> list[bytes]:
    if environ["PATH_INFO"] == "/block":
        time.sleep(2.5)
    session = environ[SESSION]
    session["visits"] = session.get("visits", 0) + 1
    body = json.dumps({"visits": session["visits"], "pid": os.getpid()}).encode()
    # With its length: without one, an answer that is cut off may read as whole and empty.
    head = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", head)
    return [body]


application = SessionMiddleware(visits, node)
