"""A plain WSGI application whose session survives its process.

Run in this folder, and a second time with another port:

    gunicorn --preload --workers 2 --threads 4 --bind 127.0.0.1:8001 app:application

Visit both ports with one browser, kill one process, visit the other: the counter goes on.
"""

import os

from tribes import BackgroundNode, ChannelConfig, ManagerConfig, MembershipConfig, NodeConfig
from tribes.web.wsgi import SESSION, SessionMiddleware

GROUP_PORT = int(os.environ.get("GROUP_PORT", "45564"))  # the same for all that share sessions

config = NodeConfig(
    contexts=("shop",),
    channel=ChannelConfig(membership=MembershipConfig(port=GROUP_PORT)),
    manager=ManagerConfig(channel_send_options=6),  # answer when the other members have it
)


def visits(environ, start_response):
    session = environ[SESSION]
    session["visits"] = session.get("visits", 0) + 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"visit {session['visits']}".encode()]


application = SessionMiddleware(visits, BackgroundNode(config))
