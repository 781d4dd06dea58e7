"""A shop with a login, for a browser: its links and forms work with cookies and without."""

import os
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.routing import Route

from tribes import BackgroundNode, ChannelConfig, ManagerConfig, MembershipConfig, NodeConfig
from tribes.web import SessionMiddleware, encode_url

ROUTE = os.environ["ROUTE"]

PAGE = """<!doctype html>
<html lang="en">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Shop</title>
<style>
  * {{ box-sizing: border-box }}
  body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 32rem; margin: 2rem auto;
         padding: 0 1rem; color: #222 }}
  form, nav {{ display: flex; flex-wrap: wrap; gap: .5rem; align-items: center }}
  input, button, nav a {{ font: inherit; padding: .5rem .75rem; border-radius: .4rem;
                          border: 1px solid #888 }}
  input {{ flex: 1 1 10rem; min-width: 0 }}
  button, nav a {{ background: #0b5394; color: #fff; border-color: #0b5394;
                   text-decoration: none }}
  small {{ color: #666 }}
</style>
<h1>Shop</h1>
{body}
<p><small>answered by <span id="node">{node}</span></small></p>
"""

LOGIN = """<form method="post" action="{action}">
<input name="user" placeholder="Your name" aria-label="Your name" required autofocus>
<button>Log in</button></form>"""

CART = """<p>Welcome, <b id="user">{user}</b>. In your cart: <b id="count">{count}</b></p>
<nav><a id="add" href="{add}">Add a book</a> <a id="out" href="{out}">Log out</a></nav>"""


def answer(request: Any) -> HTMLResponse:
    session = request.session
    if "user" in session:
        links = {name: encode_url(request, f"/{name}") for name in ("add", "out")}
        body = CART.format(user=session["user"], count=session["count"], **links)
    else:
        body = LOGIN.format(action=encode_url(request, "/login"))
    return HTMLResponse(PAGE.format(body=body, node=ROUTE))


async def home(request: Any) -> HTMLResponse:
    return answer(request)


async def login(request: Any) -> RedirectResponse:
    session = request.session
    session["user"], session["count"] = parse_qs((await request.body()).decode())["user"][0], 0
    session.rotate_id(grace_s=0)
    return RedirectResponse(encode_url(request, "/"), 303)


async def add(request: Any) -> HTMLResponse:
    if "user" in request.session:
        request.session["count"] += 1
    return answer(request)


async def out(request: Any) -> RedirectResponse:
    request.session.invalidate()
    return RedirectResponse("/", 303)


node = BackgroundNode(
    NodeConfig(
        name=ROUTE,
        contexts=("shop",),
        channel=ChannelConfig(membership=MembershipConfig(port=int(os.environ["GROUP_PORT"]))),
        manager=ManagerConfig(channel_send_options=6),
    )
)
app = Starlette(
    routes=[
        Route("/", home),
        Route("/login", login, methods=["POST"]),
        Route("/add", add),
        Route("/out", out),
    ],
    middleware=[
        Middleware(SessionMiddleware, node=node, tracking="both", ready_path="/ready", route=ROUTE)
    ],
)

if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PORT"]))
