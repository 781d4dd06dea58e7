"""Whether the server that runs this process lets a node's thread run.

Every server does but one: uWSGI keeps Python's lock while it waits for requests unless it is told
that there are threads. The node would fall silent between two requests, and the others would remove
it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from tribes.errors import ConfigError

__all__ = ["refuse_without_threads"]

_ENABLING = ("enable-threads", "threads")
_OFF = (b"false", b"0", b"no", b"off", b"")


def refuse_without_threads() -> None:
    """Do nothing under any server that runs threads.

    Raises:
        ConfigError: This is a worker of uWSGI, which was not told to.
    """
    # uWSGI puts this module into the interpreters that it makes; it cannot be had otherwise.
    uwsgi = sys.modules.get("uwsgi")
    options = getattr(uwsgi, "opt", None)
    if not isinstance(options, Mapping):
        return
    for name in _ENABLING:
        value = options.get(name, options.get(name.encode(), False))
        if value is True or (isinstance(value, bytes) and value.lower() not in _OFF):
            return
    raise ConfigError(
        "uWSGI runs no Python threads here, and the node is one: add enable-threads = true (or "
        "threads = 4) to its configuration, --enable-threads on its command line",
        key="uwsgi.enable-threads",
    )
