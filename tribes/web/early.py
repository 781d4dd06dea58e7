"""Starts the node with its worker, where the server replaces workers (`tribes.runtime.hosts`)."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING

import structlog

from tribes.errors import ConfigError
from tribes.runtime.hosts import is_in_new_worker

if TYPE_CHECKING:
    from tribes.web.node_life import NodeLife

__all__ = ["start_with_worker"]

log = structlog.get_logger("tribes")

_waiting: weakref.WeakSet[NodeLife] = weakref.WeakSet()
"""Of applications that were made before the workers were: gunicorn's ``--preload``."""


def start_with_worker(life: NodeLife) -> None:
    """Start the node now, if this process is a new worker, or when it becomes one."""
    _waiting.add(life)
    _start_here()


def _start_here() -> None:
    if not is_in_new_worker():
        return
    for life in list(_waiting):
        _waiting.discard(life)
        # The worker goes on meanwhile; its first request waits for what is left of it.
        threading.Thread(target=_start, args=(life,), daemon=True).start()


def _start(life: NodeLife) -> None:
    try:
        life.join()
    except Exception as error:
        # Raised for every request too; who looks at the log shall not wait for the first.
        is_told = isinstance(error, ConfigError)
        log.error("the node does not start", error=str(error), exc_info=not is_told)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_here)
