"""An application to put behind a balancer: three of it share their sessions.

Run in this folder, and twice more as ``web2`` on port 8002 and ``web3`` on port 8003:

    env ROUTE=web1 PORT=8001 python app.py

Then start a balancer with one of the configurations beside this file, and visit port 8000.
"""

import os

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tribes import BackgroundNode, ChannelConfig, ManagerConfig, MembershipConfig, NodeConfig
from tribes.web import SessionMiddleware
from tribes.web.serving import DrainingServer

ROUTE = os.environ.get("ROUTE", "")  # the name of this process for a sticky balancer
GROUP_PORT = int(os.environ.get("GROUP_PORT", "45564"))  # the same for all that share sessions

node = BackgroundNode(
    NodeConfig(
        name=ROUTE,
        contexts=("shop",),
        channel=ChannelConfig(membership=MembershipConfig(port=GROUP_PORT)),
        manager=ManagerConfig(channel_send_options=6),  # answer when the other members have it
    )
)


async def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return PlainTextResponse(f"visit {request.session['visits']}", headers={"X-Node": ROUTE})


app = Starlette(
    routes=[Route("/", visits)],
    middleware=[Middleware(SessionMiddleware, node=node, route=ROUTE, ready_path="/ready")],
)

if __name__ == "__main__":
    # When it is to stop, /ready says no for three seconds before the port is closed: longer than
    # the balancers take to see it.
    DrainingServer(uvicorn.Config(app, port=int(os.environ["PORT"])), node, notice_s=3).run()
