"""Real database servers, each started once per run on a free loopback port, in a new directory."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, text

from tests.ports import free_tcp_port
from tribes.stores.jdbc import sql_url

if TYPE_CHECKING:
    from tests.conftest import Needs

START_S = 60


def account(name: str) -> str | None:
    """The account a server runs as: servers refuse to run as root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(name).pw_name
    except KeyError:
        pytest.skip(f"the account {name} of the server's package is not there")


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Callable[[str | None], Path]]:
    """Make directories that a server's account may use, and remove them at the end."""
    made: list[Path] = []

    def make(user: str | None) -> Path:
        path = Path(tempfile.mkdtemp(prefix="tribes-db-"))
        made.append(path)
        if user is not None:
            shutil.chown(path, user)
        return path

    yield make
    for path in made:
        shutil.rmtree(path, ignore_errors=True)


def await_answer(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_S
    engine = create_engine(sql_url(url))
    try:
        while True:
            try:
                with engine.connect() as connection:
                    connection.execute(text("SELECT 1"))
                return
            except Exception as why:
                if server.poll() is not None or time.monotonic() > end:
                    raise AssertionError(log.read_text()[-2000:]) from why
                time.sleep(0.1)
    finally:
        engine.dispose()


def run_until_done(
    command: list[str], user: str | None, directory: Path, url: str
) -> Iterator[str]:
    log = directory / "output"
    with log.open("wb") as output:
        server = subprocess.Popen(command, user=user, cwd=directory, stdout=output, stderr=output)
    try:
        await_answer(url, server, log)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture(scope="session")
def postgresql(needs: Needs, server_directory: Callable[[str | None], Path]) -> Iterator[str]:
    """The URL of an empty database."""
    newest = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = Path(newest[-1] if newest else needs("initdb"))
    user = account("postgres")
    directory = server_directory(user)
    data = directory / "data"
    subprocess.run(
        [initdb, "-D", data, "-A", "trust", "-U", "tribes", "--no-sync", "-E", "UTF8"],
        user=user,
        cwd=directory,
        check=True,
        capture_output=True,
    )
    port = free_tcp_port()
    command = [str(initdb.parent / "postgres"), "-D", str(data), "-h", "127.0.0.1"]
    command += ["-p", str(port), "-k", str(directory), "-c", "fsync=off"]
    url = f"postgresql://tribes@127.0.0.1:{port}/postgres"
    yield from run_until_done(command, user, directory, url)


@pytest.fixture(scope="session")
def mariadb(needs: Needs, server_directory: Callable[[str | None], Path]) -> Iterator[str]:
    """The URL of an empty database."""
    program = needs("mariadbd", "mysqld")
    install = needs("mariadb-install-db", "mysql_install_db")
    user = account("mysql")
    directory = server_directory(user)
    data = directory / "data"
    subprocess.run(
        [install, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal"],
        user=user,
        cwd=directory,
        check=True,
        capture_output=True,
    )
    port = free_tcp_port()
    command = [program, "--no-defaults", f"--datadir={data}", "--bind-address=127.0.0.1"]
    command += [f"--port={port}", f"--socket={directory}/s", "--skip-networking=0"]
    command += [f"--pid-file={directory}/pid", "--innodb-flush-log-at-trx-commit=0"]
    # The package's first database; tables have names of their own.
    url = f"mysql://root@127.0.0.1:{port}/test"
    yield from run_until_done(command, user, directory, url)
