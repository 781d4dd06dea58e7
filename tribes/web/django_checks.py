"""What ``manage.py check`` says of the settings, where ``tribes.web.django`` is in
``INSTALLED_APPS``.

Each setting is looked at as the first session of a process would, but nothing is opened or started:
files, servers and addresses that the settings name are not looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.core import checks

from tribes.errors import ConfigError
from tribes.web.django_node import check_cookie, check_middleware, check_node, check_web

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_settings"]

_ENGINE: Final = "tribes.web.django"
_CHECKS: Final[dict[str, Callable[[], None]]] = {
    "tribes.E001": check_node,
    "tribes.E002": check_web,
    "tribes.E003": check_cookie,
}


@checks.register("tribes")  # type: ignore[untyped-decorator]  # Django has no types
def check_settings(app_configs: Any = None, **_: Any) -> list[Any]:
    """Django's system check: an error for each setting that cannot be used."""
    if settings.SESSION_ENGINE != _ENGINE:
        return []
    found = [error for name, check in _CHECKS.items() if (error := _error(name, check))]
    return found or [error for error in [_error("tribes.E004", check_middleware)] if error]


def _error(name: str, check: Callable[[], None]) -> Any:
    try:
        check()
    except ConfigError as why:
        return checks.Error(str(why), id=name)
    return None
