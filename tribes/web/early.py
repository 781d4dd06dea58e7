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
    from tribes.web.binding import SessionBinding

__all__ = ["start_with_worker"]

log = structlog.get_logger("tribes")

_waiting: weakref.WeakSet[SessionBinding] = weakref.WeakSet()
"""Of applications that were made before the workers were: gunicorn's ``--preload``."""


def start_with_worker(binding: SessionBinding) -> None:
    """Start the binding's node now, if this process is a new worker, or when it becomes one."""
    _waiting.add(binding)
    _start_here()


def _start_here() -> None:
    if not is_in_new_worker():
        return
    for binding in list(_waiting):
        _waiting.discard(binding)
        # The worker goes on meanwhile; its first request waits for what is left of it.
        threading.Thread(target=_start, args=(binding,), daemon=True).start()


def _start(binding: SessionBinding) -> None:
    try:
        binding.join()
    except ConfigError as error:
        # Raised for every request too; who looks at the log shall not wait for the first.
        log.error("the node does not start", error=str(error))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_here)
