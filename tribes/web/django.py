"""Sessions for Django: ``SESSION_ENGINE = "tribes.web.django"``.

The node is what the setting ``TRIBES`` says, a mapping of the shape of a configuration file::

    TRIBES = {"name": "web-1", "manager": {"channel_send_options": 6}}

Django's own middleware calls `SessionStore.save` before the response head leaves, so a commit
stands by then. `SessionMiddleware` in its place does what other frameworks' adapters do around a
request as well: routes, valves, locks. As an app of the site this has ``manage.py check`` look at
the settings.
"""

from tribes.web import django_checks as django_checks  # registers itself
from tribes.web.django_node import node
from tribes.web.django_requests import SessionMiddleware
from tribes.web.django_store import SessionStore

__all__ = ["SessionMiddleware", "SessionStore", "node"]
