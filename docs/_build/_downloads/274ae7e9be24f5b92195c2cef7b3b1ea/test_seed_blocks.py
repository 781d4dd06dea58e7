"""The `<Manager>` blocks that people paste, with a store and without, run as they are written."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from tribes.config.load import read_config_bytes
from tribes.config.managers import PersistentConfig, StandardConfig
from tribes.runtime.local import LocalSessions

SEEDS = Path(__file__).parents[1] / "data" / "seeds-xml"


def after_a_restart(text: str, source: str) -> tuple[str, dict[str, object] | None]:
    """Make a session, stop, start again; return its id and what is left of it."""
    ids = ""
    found = None
    for turn in range(2):
        config = read_config_bytes(text.encode(), source=source).config.manager
        assert isinstance(config, PersistentConfig | StandardConfig)
        sessions = LocalSessions("app", config)
        sessions.start()
        try:
            manager = sessions.manager("app")
            if turn == 0:
                session = manager.create()
                session["user"] = "ann"
                sessions.commit(session)
                ids = session.id
            else:
                again = manager.find(ids)
                found = None if again is None else dict(again)
        finally:
            sessions.stop()
    return ids, found


def test_t88_a_standard_manager_without_a_path_forgets_at_a_stop() -> None:
    for name in ("001-standard-0.xml", "001-standard-0-plain.xml"):
        _, found = after_a_restart((SEEDS / name).read_text(), name)
        assert found is None, name


def test_t89_t93_the_directory_of_the_seed_keeps_the_sessions(tmp_path: Path) -> None:
    """The path aside, each session is a file in it between two runs."""
    for name in ("001-persistent-0.xml", "001-persistent-0-plain.xml"):
        folder = tmp_path / name
        text = (SEEDS / name).read_text()
        assert "/data/tomcat-sessions" in text
        session_id, found = after_a_restart(
            text.replace("/data/tomcat-sessions", str(folder)), name
        )
        assert found == {"user": "ann"}
        assert (folder / f"{session_id}.session").exists()


def test_t94_the_database_of_the_seed_keeps_the_sessions(mariadb: str) -> None:
    """Host, database and user aside: Tomcat's driver and URL mean MariaDB."""
    server = urlsplit(mariadb)
    for name in ("001-persistent-1.xml", "001-persistent-1-plain.xml"):
        text = (SEEDS / name).read_text()
        for old, new in (
            ("localhost:3306", f"{server.hostname}:{server.port}"),
            ("/mydb", server.path),
            ("user=jb", f"user={server.username}"),
            ("password=pw", f"password={server.password or ''}"),
        ):
            assert old in text
            text = text.replace(old, new)
        assert after_a_restart(text, name)[1] == {"user": "ann"}
