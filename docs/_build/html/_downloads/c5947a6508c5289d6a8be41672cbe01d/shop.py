"""The application that shop.yaml runs: a pod per process, any number of them.

To try it without Kubernetes, with a tribes.toml of your own, in this folder:

    env SHOP_CONFIG=tribes.toml python shop.py
"""

import os

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tribes import BackgroundNode
from tribes.config import load_config
from tribes.web import SessionMiddleware
from tribes.web.serving import DrainingServer

node = BackgroundNode(load_config(os.environ["SHOP_CONFIG"], environ=os.environ))


async def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return PlainTextResponse(f"visit {request.session['visits']}")


app = Starlette(
    routes=[Route("/", visits)],
    middleware=[Middleware(SessionMiddleware, node=node, ready_path="/ready")],
)

if __name__ == "__main__":
    config = uvicorn.Config(
        app,
        host=os.environ.get("HOST", "0.0.0.0"),  # noqa: S104 - the pod's own addresses
        port=int(os.environ.get("PORT", "8080")),
        lifespan="on",  # a node that cannot start ends the pod, and its log says why
        timeout_graceful_shutdown=10,
    )
    # The preStop of shop.yaml has waited until nobody is sent here: no notice is needed.
    DrainingServer(config, node, notice_s=0).run()
