"""A Starlette application whose session survives its process.

Run in this folder, and a second time with another port:

    uvicorn app:app --port 8001

Visit both ports with one browser, kill one process, visit the other: the counter goes on.
"""

import os

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tribes import BackgroundNode, ChannelConfig, ManagerConfig, MembershipConfig, NodeConfig
from tribes.web import SessionMiddleware

GROUP_PORT = int(os.environ.get("GROUP_PORT", "45564"))  # the same for all that share sessions

config = NodeConfig(
    contexts=("shop",),
    channel=ChannelConfig(membership=MembershipConfig(port=GROUP_PORT)),
    manager=ManagerConfig(channel_send_options=6),  # answer when the other members have it
)


async def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return PlainTextResponse(f"visit {request.session['visits']}")


app = Starlette(
    routes=[Route("/", visits)],
    middleware=[Middleware(SessionMiddleware, node=BackgroundNode(config))],
)
