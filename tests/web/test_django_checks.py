"""What ``manage.py check`` says of the settings of a Django site."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.core import checks
from django.test import override_settings

from tests.web import test_django  # configures Django

assert test_django.TRIBES
DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"


@pytest.mark.parametrize(
    ("changes", "number", "words"),
    [
        ({"TRIBES": None}, "1", "TRIBES: must be a dict"),
        ({"TRIBES": {"nmae": "x"}}, "1", "TRIBES: nmae: .*name"),
        (
            {"TRIBES": {"manager": {"session_id_length": 1}}},
            "1",
            r"TRIBES: manager\.session_id_length: must be 2 to 64",
        ),
        (
            {"TRIBES": {"channel": {"receiver": {"address": "10.0.0.1"}}}},
            "1",
            r"TRIBES: channel\.receiver\.address: .*not a loopback",
        ),
        ({"TRIBES": {"contexts": ["a", "b"]}}, "1", "TRIBES: context: "),
        (
            {"TRIBES": {"sso": {}}},
            "1",
            "TRIBES: sso: .*Django has logins of its own",
        ),
        ({"TRIBES": {"attach": "/" + 100 * "x"}}, "1", "TRIBES: attach: .*100 bytes"),
        ({"TRIBES_WEB": {"rout": "x"}}, "2", "TRIBES_WEB: .*rout.*there are route"),
        ({"TRIBES_WEB": {"route": "a b"}}, "2", r"TRIBES_WEB: route: 'a b' must"),
        ({"TRIBES_WEB": {"signing_keys": ["short"]}}, "2", "TRIBES_WEB: .*signing_keys: a key"),
        ({"SESSION_COOKIE_NAME": "a b"}, "3", r"SESSION_COOKIE_\*: cookie\.name: "),
        (
            {"TRIBES_WEB": {"route": "x"}, "MIDDLEWARE": [DJANGOS]},
            "4",
            "TRIBES_WEB: needs 'tribes.web.django.SessionMiddleware' in MIDDLEWARE",
        ),
    ],
)
def test_manage_py_check_names_what_cannot_work(
    changes: dict[str, Any], number: str, words: str
) -> None:
    """Key and fix; and nothing is started."""
    with override_settings(**changes):
        [found] = checks.run_checks(tags=["tribes"])
    assert (found.id, found.level) == (f"tribes.E00{number}", checks.ERROR)
    assert re.search(words, found.msg), found.msg


def test_manage_py_check_is_silent_where_all_is_well() -> None:
    """And where another engine is used. As an app of the site it is there before any request."""
    with override_settings(INSTALLED_APPS=["tribes.web.django"]):
        assert checks.run_checks(tags=["tribes"]) == []
    with override_settings(TRIBES=None, SESSION_ENGINE="django.contrib.sessions.backends.file"):
        assert checks.run_checks(tags=["tribes"]) == []
