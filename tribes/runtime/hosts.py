"""What the server that runs this process means for a node in it.

uWSGI keeps Python's lock while it waits for requests unless it is told that there are threads: the
node would fall silent between two requests, and the others would remove it. And it forks without
telling Python, so that a node of its master would not be one of its workers.

gunicorn replaces its workers while it runs, one by one, at ``--max-requests`` or ``SIGHUP``. Where
its workers are the whole group, a worker that leaves may be the last that has the sessions, with
its successor just being born. So a node begins with its worker, not with the first request, and one
that leaves as the last waits for its successor.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tribes.errors import ConfigError

__all__ = ["is_in_new_worker", "refuse_uwsgi_without", "successor_wait_s"]

_ENABLING: Final = ("enable-threads", "threads")
_PROCESSES: Final = ("master", "processes", "workers")
_SUCCESSOR_WAIT_S: Final = 10.0


def refuse_uwsgi_without() -> None:
    """Do nothing where a node can run; that is everywhere but in some set-ups of uWSGI.

    Raises:
        ConfigError: This is uWSGI, and runs no threads, or forks after this.
    """
    # uWSGI puts this module into the interpreters that it makes; it cannot be had otherwise.
    uwsgi = sys.modules.get("uwsgi")
    options = getattr(uwsgi, "opt", None)
    if not isinstance(options, Mapping):
        return
    given = {_text(name) for name in options}
    if not given.intersection(_ENABLING):
        raise ConfigError(
            "uWSGI runs no Python threads here, and the node is one: add enable-threads = true "
            "(or threads = 4) to its configuration, --enable-threads on its command line",
            key="uwsgi.enable-threads",
        )
    is_before_fork = getattr(uwsgi, "worker_id", lambda: 1)() == 0
    if is_before_fork and given.intersection(_PROCESSES):
        raise ConfigError(
            "the node is started before uWSGI forks its workers, and would not run in them: add "
            "lazy-apps = true to its configuration, --lazy-apps on its command line, or leave the "
            "start of the node to its first request",
            key="uwsgi.lazy-apps",
        )


def _text(name: object) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else str(name)


def is_in_new_worker() -> bool:
    """Whether gunicorn is making this process a worker: it loads the application, or has forked."""
    if "gunicorn.arbiter" not in sys.modules:
        return False
    return any(
        module.startswith("gunicorn.workers.")
        or (module == "gunicorn.arbiter" and function == "spawn_worker")
        for module, function in _callers()
    )


def _callers() -> Iterator[tuple[str, str]]:
    frame: Any = sys._getframe()
    while frame is not None:
        yield frame.f_globals.get("__name__", ""), frame.f_code.co_name
        frame = frame.f_back


def successor_wait_s() -> float:
    """Seconds that the last member with the sessions waits for another before it leaves."""
    return _SUCCESSOR_WAIT_S if "gunicorn.arbiter" in sys.modules else 0.0
