"""From the names that Tomcat's users write for a database to the ones that SQLAlchemy takes."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, urlsplit

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from tribes.errors import ConfigError

__all__ = ["sql_url"]

_DRIVERS: Final = {
    "sqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
_FAMILIES: Final = {
    "org.postgresql.Driver": ("postgresql",),
    "com.mysql.jdbc.Driver": ("mysql", "mariadb"),
    "com.mysql.cj.jdbc.Driver": ("mysql", "mariadb"),
    "org.gjt.mm.mysql.Driver": ("mysql", "mariadb"),
    "org.mariadb.jdbc.Driver": ("mysql", "mariadb"),
    "org.sqlite.JDBC": ("sqlite",),
}
"""The databases that a Java driver's class speaks to."""
_CREDENTIALS: Final = {"user": "username", "password": "password"}


def sql_url(url: str, *, user: str = "", password: str = "", driver_name: str = "") -> URL:
    """Read SQLAlchemy's URL or JDBC's, and choose the Python driver.

    Args:
        url: ``mysql://host/db``, ``jdbc:mysql://host/db?user=…``.
        user: Instead of the URL's.
        password: Instead of the URL's.
        driver_name: A Java driver's class, or empty.

    Raises:
        ConfigError: It cannot be read, or names what is not supported; never says the password.
    """
    made = _from_jdbc(url) if url.startswith("jdbc:") else _from_sqlalchemy(url)
    backend = made.get_backend_name()
    if backend not in _DRIVERS:
        raise ConfigError(
            f"{backend!r} is not supported; write one of {', '.join(_DRIVERS)}", key="url"
        )
    if driver_name and backend not in _FAMILIES.get(driver_name, ()):
        known = ", ".join(_FAMILIES)
        raise ConfigError(
            f"{driver_name!r} does not speak to {backend}; leave it out, or write the one of your "
            f"database out of {known}",
            key="driverName",
        )
    if backend == "sqlite" and made.database in (None, "", ":memory:"):
        raise ConfigError("SQLite needs a file, as in sqlite:////var/lib/app/s.db", key="url")
    if made.drivername == backend:
        made = made.set(drivername=_DRIVERS[backend])
    elif made.drivername != _DRIVERS[backend]:
        raise ConfigError(f"write {_DRIVERS[backend]} for {made.drivername}", key="url")
    if user:
        made = made.set(username=user)
    if password:
        made = made.set(password=password)
    return made


def _from_sqlalchemy(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError(
            "is no URL of a database; write it like postgresql://user:password@host/database",
            key="url",
        ) from None


def _from_jdbc(url: str) -> URL:
    rest = url.removeprefix("jdbc:")
    if rest.startswith("sqlite:"):
        return URL.create("sqlite", database=rest.removeprefix("sqlite:"))
    try:
        parts = urlsplit(rest)
        port = parts.port
    except ValueError:
        # Its text would show what stands where the port should: perhaps half of a password.
        raise ConfigError(
            "cannot be read: its port is none, or a bracket is missing; a password with special "
            "characters goes into connectionPassword",
            key="connectionURL",
        ) from None
    if not parts.scheme or not parts.path.strip("/"):
        raise ConfigError(
            "must look like jdbc:postgresql://host:5432/database", key="connectionURL"
        )
    given: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _CREDENTIALS:
            raise ConfigError(
                f"the parameter {name!r} is for a Java driver; take it away, or write "
                "SQLAlchemy's URL with the Python driver's parameters instead",
                key="connectionURL",
            )
        given[_CREDENTIALS[name]] = value
    return URL.create(
        parts.scheme,
        host=parts.hostname or "localhost",
        port=port,
        database=parts.path.strip("/"),
        username=given.get("username") or parts.username,
        password=given.get("password") or parts.password,
    )
