"""Sessions in a table of a database (Tomcat's JDBCStore and DataSourceStore, tomcat-sessions §6.4).

SQLite (a file), PostgreSQL (psycopg 3) and MySQL or MariaDB (PyMySQL), by SQLAlchemy's URL or by
Tomcat's ``driverName`` and ``connectionURL``.  The columns are Tomcat's, under names of your
choice, and one more: the version.  Every operation is one statement, so it is whole or nothing, and
replacing says in its WHERE which version it replaces: of two nodes that save one session at once,
one is told to merge.  Several applications may share a table; each sees its own rows only.

Each operation is tried twice, the second time on a fresh connection.  If the first one had been
done and only its answer was lost, the second finds another version: that is a conflict like any
other, and merging a session with itself changes nothing.

Values set aside (`refuse`) stay in the table under another application, ``<app>#refused``.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    cast,
    create_engine,
    event,
    inspect,
)
from sqlalchemy.dialects.mysql import LONGBLOB, VARCHAR
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from tribes.errors import ConfigError, StoreConflictError, StoreError

from .idle import storable_idle_s
from .jdbc import sql_url
from .protocol import VALUE_MAX_BYTES, Stored, check_size, is_storable_key

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

__all__ = ["SQLStore"]

APP_MAX_CHARS: Final = 200
_REFUSED: Final = "#refused"
_TRIES: Final = 2
_PAGE: Final = 1000
_T = TypeVar("_T")


@final
class SQLStore:
    """One row per session.

    Args:
        url: SQLAlchemy's (``sqlite:////var/lib/app/sessions.db``, ``postgresql://…``,
            ``mysql://…``), or Tomcat's ``connectionURL`` (``jdbc:postgresql://…``).
        app: Name of the application (the content of ``app_col``), at most 200 characters.
        user: Instead of the URL's (``connectionName``).
        password: Instead of the URL's (``connectionPassword``).
        driver_name: Tomcat's ``driverName``; must fit the URL. May be left out.
        table: ``sessionTable``.
        id_col: ``sessionIdCol``.
        app_col: ``sessionAppCol``.
        data_col: ``sessionDataCol``.
        valid_col: ``sessionValidCol``; always ``1``.
        max_inactive_col: ``sessionMaxInactiveCol``, seconds.
        last_accessed_col: ``sessionLastAccessedCol``, milliseconds since 1970.
        version_col: The version, a column that Tomcat does not have.
        create_table: Make the table if it is not there.
        pool_size: Connections that this process keeps open.
        timeout_s: Seconds that a connection, and an answer, may take.
        value_max_bytes: A longer value is refused before it is sent.

    Raises:
        ConfigError: The URL cannot be used, its driver is not installed, or the table lacks a
            column.
        StoreError: The database does not answer.
    """

    def __init__(
        self,
        url: str,
        *,
        app: str,
        user: str = "",
        password: str = "",
        driver_name: str = "",
        table: str = "tribes_sessions",
        id_col: str = "id",
        app_col: str = "app",
        data_col: str = "data",
        valid_col: str = "valid",
        max_inactive_col: str = "maxinactive",
        last_accessed_col: str = "lastaccess",
        version_col: str = "version",
        create_table: bool = True,
        pool_size: int = 5,
        timeout_s: int = 10,
        value_max_bytes: int = VALUE_MAX_BYTES,
    ) -> None:
        if not app or len(app) > APP_MAX_CHARS or _REFUSED in app:
            what = f"must have 1 to {APP_MAX_CHARS} characters and no {_REFUSED!r}, found {app!r}"
            raise ConfigError(what, key="app")
        made = sql_url(url, user=user, password=password, driver_name=driver_name)
        self._app = app
        # Parameters of a driver, too, may be passwords.
        shown = made.set(query={}).render_as_string(hide_password=True)
        self._name = f"table {table} of {shown}"
        self._value_max_bytes = value_max_bytes
        self._engine = _engine(made, pool_size=pool_size, timeout_s=timeout_s)
        self._pid = os.getpid()
        text = String(255).with_variant(VARCHAR(255, collation="utf8mb4_bin"), "mysql", "mariadb")
        blob = LargeBinary().with_variant(LONGBLOB(), "mysql", "mariadb")
        self._table = Table(
            table,
            MetaData(),
            Column(id_col, text, primary_key=True, key="id"),
            Column(app_col, text, primary_key=True, key="app"),
            Column(valid_col, String(1), nullable=False, key="valid"),
            Column(max_inactive_col, Integer, nullable=False, key="max_inactive"),
            Column(last_accessed_col, BigInteger, nullable=False, index=True, key="last_access"),
            Column(version_col, BigInteger, nullable=False, key="version"),
            Column(data_col, blob, nullable=False, key="data"),
            mysql_engine="InnoDB",
            mysql_charset="utf8mb4",
        )
        self._prepare(create=create_table)

    @property
    def name(self) -> str:
        """Table and URL, without the password."""
        return self._name

    def load(self, key: str) -> Stored | None:
        """See `Store.load`."""
        if not is_storable_key(key):
            return None
        t = self._table.c

        def read(connection: Connection) -> Any:
            query = self._table.select().with_only_columns(t.data, t.version)
            return connection.execute(query.where(*self._mine(key))).one_or_none()

        row = self._do(read)
        return None if row is None else Stored(bytes(row[0]), row[1])

    def save(
        self, key: str, data: bytes, *, expected: int, last_access_ms: int, max_inactive_s: int
    ) -> int:
        """See `Store.save`."""
        if not is_storable_key(key):
            raise StoreError(f"{key[:40]!r} cannot be the id of a stored session")
        check_size(self._name, data, self._value_max_bytes)
        version = secrets.randbits(62) | 1
        values = {
            "data": data,
            "valid": "1",
            "max_inactive": storable_idle_s(max_inactive_s),
            "last_access": last_access_ms,
            "version": version,
        }

        def insert(connection: Connection) -> int:
            connection.execute(self._table.insert().values(id=key, app=self._app, **values))
            return 1

        def update(connection: Connection) -> int:
            is_it = self._table.c.version == expected
            return connection.execute(
                self._table.update().where(*self._mine(key), is_it).values(**values)
            ).rowcount

        try:
            is_done = self._do(update if expected else insert)
        except IntegrityError as why:
            raise self._conflict() from why
        if not is_done:
            raise self._conflict()
        return version

    def delete(self, key: str, *, expected: int | None = None) -> bool:
        """See `Store.delete`."""
        if not is_storable_key(key):
            return False
        where = [*self._mine(key)]
        if expected is not None:
            where.append(self._table.c.version == expected)

        def remove(connection: Connection) -> int:
            return connection.execute(self._table.delete().where(*where)).rowcount

        if self._do(remove):
            return True
        if expected is not None and self.load(key) is not None:
            raise self._conflict()
        return False

    def refuse(self, key: str) -> None:
        """See `Store.refuse`: the row goes to the application ``<app>#refused``."""
        if not is_storable_key(key):
            return
        for suffix in (_REFUSED, f"{_REFUSED}-{secrets.token_hex(4)}"):

            def move(connection: Connection, suffix: str = suffix) -> None:
                connection.execute(
                    self._table.update().where(*self._mine(key)).values(app=self._app + suffix)
                )

            try:
                self._do(move)
            except IntegrityError:
                continue  # There is a refused one of this id already.
            return

    def keys(self) -> Iterator[str]:
        """See `Store.keys`; a page per query."""
        t, last = self._table.c, ""
        while True:

            def page(connection: Connection, after: str = last) -> list[str]:
                query = self._table.select().with_only_columns(t.id)
                query = query.where(t.app == self._app, t.id > after).order_by(t.id).limit(_PAGE)
                return list(connection.execute(query).scalars())

            found = self._do(page)
            yield from found
            if len(found) < _PAGE:
                return
            last = found[-1]

    def expired(self, now_ms: int, limit: int) -> list[tuple[str, int]]:
        """See `Store.expired`; one query."""
        t = self._table.c
        over_at = t.last_access + cast(t.max_inactive, BigInteger) * 1000

        def find(connection: Connection) -> list[tuple[str, int]]:
            query = self._table.select().with_only_columns(t.id, t.version)
            query = query.where(t.app == self._app, t.max_inactive > 0, over_at <= now_ms)
            return [(row[0], row[1]) for row in connection.execute(query.limit(limit))]

        return self._do(find)

    def clear(self) -> None:
        """See `Store.clear`."""

        def remove(connection: Connection) -> None:
            connection.execute(self._table.delete().where(self._table.c.app == self._app))

        self._do(remove)

    def close(self) -> None:
        """Close the connections; the next use opens new ones."""
        self._engine.dispose()

    def _mine(self, key: str) -> tuple[Any, Any]:
        return self._table.c.id == key, self._table.c.app == self._app

    def _conflict(self) -> StoreConflictError:
        return StoreConflictError(f"{self._name} has another version of the session")

    def _prepare(self, *, create: bool) -> None:
        """Make the table, or see that the one that is there has what is needed."""

        def prepare(connection: Connection) -> list[str]:
            if create:
                self._table.create(connection, checkfirst=True)
            found = inspect(connection)
            if not found.has_table(self._table.name):
                return [self._table.name]
            there = {column["name"] for column in found.get_columns(self._table.name)}
            return [column.name for column in self._table.columns if column.name not in there]

        try:
            missing = self._do(prepare)
        except StoreError:
            if not create:
                raise
            # Another process may have made it in the same moment.
            missing = self._do(prepare)
        if missing:
            raise ConfigError(
                f"{self._name} lacks {', '.join(missing)}; let create_table make a table of its "
                "own (Tomcat's cannot be shared: it holds Java's objects)",
                key="table",
            )

    def _do(self, work: Callable[[Connection], _T]) -> _T:
        """Run one transaction; once more on a fresh connection if the first one broke.

        Raises:
            IntegrityError: A key is there already.
            StoreError: Whatever else; without ids and data, which its causes do not have either.
        """
        if self._pid != os.getpid():
            # Connections belong to the process that opened them.
            self._engine.dispose(close=False)
            self._pid = os.getpid()
        for attempt in range(_TRIES):
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except IntegrityError:
                raise
            except DBAPIError as why:
                if attempt + 1 == _TRIES:
                    raise StoreError(f"{self._name}: {_reason(why)}") from why
            except (PoolTimeoutError, InvalidRequestError, SQLAlchemyError) as why:
                raise StoreError(f"{self._name}: {_reason(why)}") from why
        raise AssertionError


def _engine(url: URL, *, pool_size: int, timeout_s: int) -> Engine:
    options: dict[str, dict[str, Any]] = {
        "sqlite": {"timeout": timeout_s},
        "postgresql": {
            "connect_timeout": timeout_s,
            "options": f"-c statement_timeout={timeout_s * 1000}",
            "tcp_user_timeout": timeout_s * 1000,
        },
        "mysql": {
            "connect_timeout": timeout_s,
            "read_timeout": timeout_s,
            "write_timeout": timeout_s,
        },
    }
    family = "mysql" if url.get_backend_name() == "mariadb" else url.get_backend_name()
    try:
        engine = create_engine(
            url,
            connect_args=options[family],
            poolclass=QueuePool,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=timeout_s,
            pool_pre_ping=family != "sqlite",
            hide_parameters=True,
        )
    except ModuleNotFoundError as why:
        extra = "postgresql" if family == "postgresql" else "mysql"
        raise ConfigError(
            f"{why.name} is not installed; pip install 'tribes[{extra}]'", key="url"
        ) from why
    if family == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _record: object) -> None:
    """Readers do not wait for a writer, and what was committed survives a power cut."""
    connection.execute("PRAGMA journal_mode=WAL").close()
    connection.execute("PRAGMA synchronous=FULL").close()


def _reason(why: Exception) -> str:
    """What the driver said, in one line; without the statement and its parameters."""
    said = getattr(why, "orig", None) or why
    lines = str(said).splitlines() or [type(said).__name__]
    return lines[0][:200]
