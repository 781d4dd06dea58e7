"""An application to put behind a balancer: three of it share their sessions.

Run in this folder, and twice more as ``web2`` on port 8002 and ``web3`` on port 8003:

    env ROUTE=web1 uvicorn app:app --port 8001

Then start a balancer with one of the configurations beside this file, and visit port 8000.
"""

import os

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tribes import BackgroundNode, ChannelConfig, ManagerConfig, MembershipConfig, NodeConfig
from tribes.web import SessionMiddleware

ROUTE = os.environ.get("ROUTE", "")  # the name of this process for a sticky balancer
GROUP_PORT = int(os.environ.get("GROUP_PORT", "45564"))  # the same for all that share sessions

config = NodeConfig(
    name=ROUTE,
    contexts=("shop",),
    channel=ChannelConfig(membership=MembershipConfig(port=GROUP_PORT)),
    manager=ManagerConfig(channel_send_options=6),  # answer when the other members have it
)


async def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return PlainTextResponse(f"visit {request.session['visits']}", headers={"X-Node": ROUTE})


async def ready(_request):
    return PlainTextResponse("ready")  # the port opens only when all sessions have arrived


app = Starlette(
    routes=[Route("/", visits), Route("/ready", ready)],
    middleware=[Middleware(SessionMiddleware, node=BackgroundNode(config), route=ROUTE)],
)
