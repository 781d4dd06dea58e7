"""A Litestar application whose session survives its process.

Run in this folder, and a second time with another port:

    uvicorn app:app --port 8001

Visit both ports with one browser, kill one process, visit the other: the counter goes on.
"""

import os

from litestar import Litestar, MediaType, Request, get

from tribes import BackgroundNode, ChannelConfig, ManagerConfig, MembershipConfig, NodeConfig
from tribes.web import SessionMiddleware

GROUP_PORT = int(os.environ.get("GROUP_PORT", "45564"))  # the same for all that share sessions

config = NodeConfig(
    contexts=("shop",),
    channel=ChannelConfig(membership=MembershipConfig(port=GROUP_PORT)),
    manager=ManagerConfig(channel_send_options=6),  # answer when the other members have it
)


@get("/", media_type=MediaType.TEXT)
async def visits(request: Request) -> str:
    request.session["visits"] = request.session.get("visits", 0) + 1
    return f"visit {request.session['visits']}"


app = SessionMiddleware(Litestar([visits]), BackgroundNode(config))
