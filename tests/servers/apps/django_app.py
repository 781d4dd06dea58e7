"""Counts visits, and says which process answered; /block keeps the thread for 2.5 s."""

import json
import os
import sys
import time
from typing import Any

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse
from django.urls import path

settings.configure(
    SECRET_KEY="of the tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    # The second gives an answer its length: without it one that is cut off, as the development
    # server does when it starts anew, reads as whole and empty.
    MIDDLEWARE=[
        "tribes.web.django.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
    ],
    SESSION_ENGINE="tribes.web.django",
    TRIBES={
        "contexts": ["shop"],
        "channel": {
            "membership": {
                "port": int(os.environ["GROUP_PORT"]),
                "frequency": 100,
                "drop_time": 1000,
            }
        },
        "manager": {"channel_send_options": 6},
    },
)


def visits(request: HttpRequest) -> HttpResponse:
    if request.path == "/block":
        time.sleep(2.5)
    session: Any = request.session
    session["visits"] = session.get("visits", 0) + 1
    return HttpResponse(json.dumps({"visits": session["visits"], "pid": os.getpid()}))


urlpatterns = [path("", visits), path("block", visits)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
