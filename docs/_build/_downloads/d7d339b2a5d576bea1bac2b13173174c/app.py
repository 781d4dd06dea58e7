"""A Django site in one file whose session survives its process.

Run in this folder, and a second time with another port:

    python app.py runserver --noreload 127.0.0.1:8001

Visit both ports with one browser, kill one process, visit the other: the counter goes on.
"""

import os
import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpResponse
from django.urls import path

GROUP_PORT = int(os.environ.get("GROUP_PORT", "45564"))  # the same for all that share sessions

settings.configure(
    DEBUG=True,
    SECRET_KEY="change me",
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    SESSION_ENGINE="tribes.web.django",
    TRIBES={
        "channel": {"membership": {"port": GROUP_PORT}},
        "manager": {"channel_send_options": 6},  # answer when the other members have it
    },
)


def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(f"visit {request.session['visits']}")


urlpatterns = [path("", visits)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
