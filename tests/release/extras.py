"""What each extra of the package is for: the modules that it makes usable, alone."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

__all__ = ["ROOT", "TOOLS", "USES", "extras"]

ROOT: Final = Path(__file__).parents[2]

TOOLS: Final = {"bench", "dev", "docs", "fuzz"}
"""Extras for those who work on the package."""

USES: Final[dict[str, tuple[str, ...]]] = {
    "": ("tribes.cli.app", "tribes.runtime.background", "tribes.web.asgi", "tribes.web.wsgi"),
    "web": ("tribes.web.serving", "tribes.cli.demo_app", "tribes.cli.demo_node"),
    "flask": ("tribes.web.flask",),
    "django": ("tribes.web.django",),
    "sql": ("tribes.stores.sql",),
    "postgresql": ("tribes.stores.sql", "psycopg"),
    "mysql": ("tribes.stores.sql", "pymysql"),
    "memcached": ("tribes.stores.memcached", "tribes.runtime.memcached"),
    "redis": ("tribes.stores.redis", "tribes.runtime.memcached"),
    "http": ("tribes.admin.server",),
    "top": ("tribes.cli.top", "tribes.cli.top_screen"),
    "otel": ("tribes.runtime.otel", "opentelemetry.trace"),
    "dns": ("tribes.runtime.dns_hosts", "dns.asyncresolver"),
    "kubernetes": ("tribes.runtime.kubernetes", "httpx"),
    "farm": ("watchfiles",),
    "testing": ("tribes.testing.strategies", "tribes.testing.plan_strategies"),
    "all": ("tribes.web.serving", "tribes.stores.sql", "tribes.admin.server"),
}
"""Modules by extra, the empty name for none; libraries where our modules import them late."""


def extras() -> dict[str, list[str]]:
    """Return the extras of pyproject.toml with their requirements."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: dict[str, list[str]] = project["optional-dependencies"]
    return found
