"""A Flask application whose session survives its process.

Run in this folder, and a second time with another port:

    waitress-serve --listen=127.0.0.1:8001 app:app

Visit both ports with one browser, kill one process, visit the other: the counter goes on.
"""

import os

from flask import Flask, session

from tribes import BackgroundNode, ChannelConfig, ManagerConfig, MembershipConfig, NodeConfig
from tribes.web.flask import TribesSessions

GROUP_PORT = int(os.environ.get("GROUP_PORT", "45564"))  # the same for all that share sessions

config = NodeConfig(
    contexts=("shop",),
    channel=ChannelConfig(membership=MembershipConfig(port=GROUP_PORT)),
    manager=ManagerConfig(channel_send_options=6),  # answer when the other members have it
)

app = Flask(__name__)
app.session_interface = TribesSessions(BackgroundNode(config))


@app.get("/")
def visits():
    session["visits"] = session.get("visits", 0) + 1
    return f"visit {session['visits']}"
