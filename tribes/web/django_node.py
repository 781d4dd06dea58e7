"""The node of a Django site, and what its settings say."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec
from django.conf import settings
from django.core.signals import setting_changed
from django.utils.module_loading import import_string
from django.utils.safestring import SafeString

from tribes.config.load import config_from
from tribes.config.valves import MORE_VALVES
from tribes.errors import ConfigError
from tribes.runtime.attached import AttachedNode, open_node
from tribes.runtime.attached import check_node as check_settings_of_node
from tribes.runtime.background import BackgroundNode
from tribes.web.binding import SessionBinding, check_route, context_of
from tribes.web.cookies import CookieSettings
from tribes.web.signing import WireIds

if TYPE_CHECKING:
    from tribes.config.model import NodeConfig
    from tribes.runtime.handle import NodeHandle

__all__ = [
    "WebSettings",
    "bound",
    "check_cookie",
    "check_middleware",
    "check_node",
    "check_web",
    "node",
    "the_binding",
    "web_settings",
]

_CONTEXTS: Final = ("django",)
_OURS: Final = "tribes.web.django.SessionMiddleware"
_SOURCE: Final = "Django's settings"

_lock = threading.Lock()
_binding: SessionBinding | None = None


class WebSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The setting ``TRIBES_WEB``: what other frameworks' adapters take as arguments.

    Attributes:
        route: This node's name for a sticky balancer, appended to the id in the cookie.
        ready_path: Path at which a balancer asks whether to send requests here; empty: none.
        signing_keys: See :class:`tribes.web.cookies.CookieSettings`.
    """

    route: str = ""
    ready_path: str = ""
    signing_keys: tuple[str, ...] = ()


def node() -> BackgroundNode | AttachedNode:
    """The node of this process, as ``settings.TRIBES`` says.

    The first session of a process starts it, so a server may fork as it likes.

    Raises:
        ConfigError: The setting is missing, or has a value that cannot work.
    """
    made = the_binding().node
    assert isinstance(made, BackgroundNode | AttachedNode)
    return made


def the_binding() -> SessionBinding:
    """The sessions of this process's site."""
    global _binding
    if _binding is None:
        with _lock:
            if _binding is None:
                _binding = _new_binding()
    return _binding


def _new_binding() -> SessionBinding:
    return bound(open_node(_config()))


def _config() -> NodeConfig:
    found = getattr(settings, "TRIBES", None)
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"must be a dict such as {{'name': 'web-1'}}, found {found!r}",
            key="TRIBES",
            source=_SOURCE,
        )
    source = f"{_SOURCE}: TRIBES"
    config = config_from({"contexts": _CONTEXTS, **found}, source=source)
    if config.sso is not None:
        raise ConfigError(
            "Django has logins of its own, which this one would not know of; leave it out",
            key="sso",
            source=source,
        )
    return config


def web_settings() -> WebSettings:
    """What ``TRIBES_WEB`` says.

    Raises:
        ConfigError: It has a key that there is not, or a value of a wrong type.
    """
    found = getattr(settings, "TRIBES_WEB", {})
    try:
        return msgspec.convert(found, WebSettings)
    except msgspec.ValidationError as why:
        known = ", ".join(WebSettings.__struct_fields__)
        raise ConfigError(f"{why}; there are {known}", key="TRIBES_WEB", source=_SOURCE) from None


def bound(node: NodeHandle) -> SessionBinding:
    """A node's sessions, which know Django's own type of text besides the codec's types."""
    web = web_settings()
    binding = SessionBinding(node, cookie=_cookie(web.signing_keys), route=web.route)
    if not _has_middleware():
        _refuse_without_middleware(node.config, binding.context, web)
    binding.manager.codec.register(
        SafeString, name="django.SafeString", encode=lambda text: text + "", decode=SafeString
    )
    return binding


def _cookie(signing_keys: tuple[str, ...] = ()) -> CookieSettings:
    """As Django's settings say."""
    same_site: Any = (settings.SESSION_COOKIE_SAMESITE or "").lower()
    return CookieSettings(
        name=settings.SESSION_COOKIE_NAME,
        path=settings.SESSION_COOKIE_PATH,
        domain=settings.SESSION_COOKIE_DOMAIN or "",
        http_only=bool(settings.SESSION_COOKIE_HTTPONLY),
        same_site=same_site,
        secure=bool(settings.SESSION_COOKIE_SECURE),
        signing_keys=signing_keys,
    )


def _has_middleware() -> bool:
    return any(path == _OURS or _is_derived(path) for path in settings.MIDDLEWARE)


def _is_derived(path: str) -> bool:
    """Whether a middleware is a class made of ours."""
    if path.startswith("django."):
        return False
    ours, made = import_string(_OURS), import_string(path)
    return isinstance(made, type) and issubclass(made, ours)


def _refuse_without_middleware(config: NodeConfig, context: str, web: WebSettings) -> None:
    """Django's own middleware asks only for what the session holds.

    Raises:
        ConfigError: Names a setting for which that is not enough.
    """
    own = config.context.get(context)
    wanted = {
        "manager.lock": config.manager_of(context).lock != "none",
        "valves": any(name in MORE_VALVES for name in config.valves or ()),
        "replication.filter": bool(config.replication.filter),
        "replication.primary_indicator": config.replication.primary_indicator,
        f"context.{context}.cookie": own is not None and own.cookie is not None,
        "TRIBES_WEB": web != WebSettings(),
    }
    for key, is_wanted in wanted.items():
        if is_wanted:
            raise ConfigError(
                f"needs {_OURS!r} in MIDDLEWARE, in the place of Django's own SessionMiddleware",
                key=key,
                source=_SOURCE,
            )


# What `manage.py check` asks; each raises `ConfigError` with the setting, the key and the fix.


def check_node() -> None:
    """Refuse a setting ``TRIBES`` of which no node can be made."""
    with _told_of("TRIBES"):
        config = _config()
        check_settings_of_node(config)
        context_of(config, None)


def check_web() -> None:
    """Refuse a setting ``TRIBES_WEB`` that cannot be used."""
    web = web_settings()
    with _told_of("TRIBES_WEB"):
        check_route(web.route)
        WireIds("", web.route, web.signing_keys)


def check_cookie() -> None:
    """Refuse settings ``SESSION_COOKIE_…`` of which no cookie can be made."""
    with _told_of("SESSION_COOKIE_*"):
        _cookie()


def check_middleware() -> None:
    """Refuse Django's own middleware where ours is needed. The other settings can be used."""
    if not _has_middleware():
        config = _config()
        _refuse_without_middleware(config, context_of(config, None), web_settings())


@contextmanager
def _told_of(setting: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as why:
        if why.source:
            raise
        raise ConfigError(why.message, key=why.key, source=f"{_SOURCE}: {setting}") from None


def _follow(*, setting: str, **_: Any) -> None:
    """For ``override_settings`` in tests: the next session starts another node."""
    global _binding
    if _binding is None:
        return
    if setting in ("TRIBES", "TRIBES_WEB"):
        old, _binding = node(), None
        old.stop()
    elif setting.startswith("SESSION_COOKIE_"):
        _binding.cookie = _binding.settle(_cookie(web_settings().signing_keys))


setting_changed.connect(_follow)
