"""A WSGI application whose sessions are on two memcached servers.

Run `memcached -p 11211` and `memcached -p 11212`; then in this folder, and again with another port:

    waitress-serve --listen=127.0.0.1:8001 app:application

Visit both ports with one browser, kill one process or one memcached: the counter goes on.
"""

import os

from tribes import LocalSessions, MemcachedConfig
from tribes.web.wsgi import SESSION, SessionMiddleware

NODES = os.environ.get("MEMCACHED_NODES", "n1:127.0.0.1:11211,n2:127.0.0.1:11212")

config = MemcachedConfig(
    memcached_nodes=NODES,
    sticky=False,  # any process may serve any request
    locking_mode="none",  # who saves second merges
)


def visits(environ, start_response):
    session = environ[SESSION]
    session["visits"] = session.get("visits", 0) + 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"visit {session['visits']}".encode()]


application = SessionMiddleware(visits, LocalSessions("shop", config))
