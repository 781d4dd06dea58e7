"""The table: names, applications, lost connections, and what errors say."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, text

from tests.stores.test_protocol import save
from tribes.errors import ConfigError, StoreConflictError, StoreError
from tribes.stores.jdbc import sql_url
from tribes.stores.sql import SQLStore

if TYPE_CHECKING:
    from pathlib import Path

TOMCAT = {
    "table": "tomcat$sessions",
    "id_col": "session_id",
    "app_col": "app_name",
    "data_col": "session_data",
    "valid_col": "valid_session",
    "max_inactive_col": "max_inactive",
    "last_accessed_col": "last_access",
    "version_col": "row_version",
}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
def test_t94_table_and_columns_may_have_any_names(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """As Tomcat's manual names them; the values can be read by SQL."""
    url = f"sqlite:///{tmp_path}/s.db" if kind == "sqlite" else request.getfixturevalue(kind)
    store = SQLStore(url, app="/Catalina/localhost/shop", **TOMCAT)  # type: ignore[arg-type]
    version = save(store, "A1", b"data", last_access_ms=7, max_inactive_s=9)
    store.close()
    engine = create_engine(sql_url(url))
    quote = "`" if kind == "mariadb" else '"'
    query = (
        "SELECT session_id, app_name, session_data, valid_session, max_inactive, last_access, "
        f"row_version FROM {quote}tomcat$sessions{quote}"
    )
    with engine.connect() as connection:
        [row] = connection.execute(text(query)).all()
    engine.dispose()
    assert tuple(row) == ("A1", "/Catalina/localhost/shop", b"data", "1", 9, 7, version)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/s.db"


def test_t94_applications_in_one_table_do_not_see_each_other(url: str) -> None:
    shop, blog = SQLStore(url, app="shop"), SQLStore(url, app="blog")
    save(shop, "A1", b"shop", max_inactive_s=1)
    version = save(blog, "A1", b"blog", max_inactive_s=1)
    assert shop.delete("A1")
    assert shop.load("A1") is None
    assert shop.expired(10**15, 9) == []
    with pytest.raises(StoreConflictError):
        save(shop, "A1", b"x", version)
    shop.clear()
    assert blog.load("A1") == (b"blog", version)
    shop.close()
    blog.close()


def test_refused_rows_stay_in_the_table(url: str) -> None:
    store = SQLStore(url, app="shop")
    for data in (b"one", b"two"):
        save(store, "A1", data)
        store.refuse("A1")
    store.close()
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT app, data FROM tribes_sessions")).all()
    engine.dispose()
    assert {row[1] for row in rows} == {b"one", b"two"}
    assert all(row[0].startswith("shop#refused") for row in rows)


def test_t94_a_lost_connection_is_opened_again(postgresql: str) -> None:
    """The server ends it between two uses, and within one."""
    store = SQLStore(postgresql, app="shop", table="lost", pool_size=1)
    version = save(store, "A1", b"x")
    engine = create_engine(sql_url(postgresql))
    others = (
        "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    with engine.connect() as connection:
        connection.execute(text(f"SELECT pg_terminate_backend(pid) {others}"))
    engine.dispose()
    assert store.load("A1") == (b"x", version)

    tries = []

    def work(connection: object) -> str:
        tries.append(connection)
        if len(tries) == 1:
            killer = create_engine(sql_url(postgresql))
            with killer.connect() as other:
                other.execute(text(f"SELECT pg_terminate_backend(pid) {others}"))
            killer.dispose()
        connection.execute(text("SELECT 1"))  # type: ignore[attr-defined]
        return "done"

    assert store._do(work) == "done"
    assert len(tries) == 2
    store.close()


@pytest.mark.parametrize("login", ["me:secret@127.0.0.1:1/db", "127.0.0.1:1/db?password=secret"])
def test_no_server_is_an_error_without_the_password(login: str) -> None:
    """Wherever in the URL it stands."""
    with pytest.raises(StoreError) as caught:
        SQLStore(f"postgresql://{login}", app="shop", timeout_s=2)
    assert "127.0.0.1:1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_errors_do_not_tell_ids_or_content(url: str, tmp_path: Path) -> None:
    store = SQLStore(url, app="shop", timeout_s=1)
    engine = create_engine(url)
    with engine.connect() as connection:
        connection.execute(text("DROP TABLE tribes_sessions"))
        connection.commit()
    engine.dispose()
    with pytest.raises(StoreError, match="no such table") as caught:
        save(store, "A1B2C3", b"content")
    cause = caught.value.__cause__
    assert "A1B2C3" not in str(caught.value) + str(cause)
    assert "content" not in str(caught.value) + str(cause)
    store.close()


def test_a_table_without_the_columns_is_refused_at_the_start(url: str) -> None:
    engine = create_engine(url)
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE tribes_sessions (id TEXT, app TEXT, data BLOB)"))
        connection.commit()
    engine.dispose()
    with pytest.raises(ConfigError, match=r"lacks valid, maxinactive, lastaccess, version"):
        SQLStore(url, app="shop")


def test_a_missing_table_is_not_made_where_that_is_off(url: str) -> None:
    with pytest.raises(ConfigError, match="lacks tribes_sessions"):
        SQLStore(url, app="shop", create_table=False)


def test_a_forked_child_opens_connections_of_its_own(postgresql: str) -> None:
    """The server sees another one, so that the answers to both cannot be mixed up."""
    store = SQLStore(postgresql, app="shop", table="forked")
    version = save(store, "A1", b"x")
    query = text("SELECT pg_backend_pid()")
    own = store._do(lambda connection: connection.execute(query).scalar_one())
    child = os.fork()
    if child == 0:
        try:
            found = store.load("A1")
            other = store._do(lambda connection: connection.execute(query).scalar_one())
            is_well = found == (b"x", version) and other != own
        except BaseException:  # noqa: BLE001 - the rest of the tests is the parent's to run
            os._exit(2)
        os._exit(0 if is_well else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.load("A1") == (b"x", version)
    store.close()


@pytest.mark.parametrize("app", ["", "a#refused", "a#refused-12", "a" * 201])
def test_odd_applications_are_refused(url: str, app: str) -> None:
    with pytest.raises(ConfigError, match="app: "):
        SQLStore(url, app=app)


def test_a_context_of_one_of_several_hosts_has_rows_of_its_own(url: str) -> None:
    """It is named host#context, where Tomcat's cluster is the engine's."""
    one, other = SQLStore(url, app="a.example#shop"), SQLStore(url, app="b.example#shop")
    save(one, "A1", b"one")
    save(other, "A1", b"other")
    one.refuse("A1")
    assert one.load("A1") is None
    assert other.load("A1") is not None
    one.close()
    other.close()


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("jdbc:mysql://db:3306/shop?user=u&password=p", "mysql+pymysql://u:p@db:3306/shop"),
        ("jdbc:mariadb://db/shop", "mariadb+pymysql://db/shop"),
        ("jdbc:postgresql://db:5432/shop?user=u", "postgresql+psycopg://u@db:5432/shop"),
        ("jdbc:sqlite:/var/s.db", "sqlite+pysqlite:////var/s.db"),
        (
            "postgresql://u:p@db/shop?sslmode=require",
            "postgresql+psycopg://u:p@db/shop?sslmode=require",
        ),
    ],
)
def test_urls_of_both_worlds(given: str, made: str) -> None:
    assert sql_url(given).render_as_string(hide_password=False) == made


def test_tomcats_attributes_make_a_url() -> None:
    made = sql_url(
        "jdbc:mysql://db/shop",
        user="me",
        password="p@ss",
        driver_name="com.mysql.cj.jdbc.Driver",
    )
    assert made.render_as_string(hide_password=False) == "mysql+pymysql://me:p%40ss@db/shop"


@pytest.mark.parametrize(
    ("given", "driver", "match"),
    [
        ("oracle://db/x", "", "'oracle' is not supported"),
        ("jdbc:oracle:thin:@db:1521:x", "", "'oracle' is not supported"),
        ("jdbc:mysql://db/x?useSSL=false&password=secret", "", "'useSSL' is for a Java driver"),
        ("mysql://db/x", "org.postgresql.Driver", "does not speak to mysql"),
        ("mysql://db/x", "oracle.jdbc.OracleDriver", "does not speak to mysql"),
        ("jdbc:postgresql://bob:secret/x@db/shop", "", "cannot be read"),
        ("jdbc:postgresql://[::1/shop?password=secret", "", "cannot be read"),
        ("sqlite://", "", "needs a file"),
        ("no url", "", "is no URL"),
        ("postgresql+asyncpg://db/x", "", r"write postgresql\+psycopg"),
    ],
)
def test_what_cannot_work_is_named(given: str, driver: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        sql_url(given, driver_name=driver)
    assert "secret" not in str(caught.value)
