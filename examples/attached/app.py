"""One node per host: the workers of a server are attached to it, and begin and end without a join.

Run in this folder, with TRIBES_ATTACH=/tmp/tribes.sock in the environment:

    gunicorn --workers 3 --max-requests 1000 --bind 127.0.0.1:8001 app:application

and beside it, before or after, `tribes node --context shop --attach /tmp/tribes.sock`: the node of
this host. Without TRIBES_ATTACH each worker is a member itself.
"""

import os

from tribes import ChannelConfig, ManagerConfig, MembershipConfig, NodeConfig, open_node
from tribes.web.wsgi import SESSION, SessionMiddleware

GROUP_PORT = int(os.environ.get("GROUP_PORT", "45564"))  # only for workers that are members

config = NodeConfig(
    contexts=("shop",),
    channel=ChannelConfig(membership=MembershipConfig(port=GROUP_PORT)),
    manager=ManagerConfig(channel_send_options=6),  # answer when the other hosts have it
)


def visits(environ, start_response):
    session = environ[SESSION]
    session["visits"] = session.get("visits", 0) + 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"visit {session['visits']}".encode()]


application = SessionMiddleware(visits, open_node(config))
