"""The flight recorder of a process: its clocks and threads, and where its files go."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import structlog

from tribes.errors import RecordingError
from tribes.recorder.file import SUFFIX, write_recording
from tribes.recorder.ring import Ring
from tribes.runtime.managers import wall_ms
from tribes.runtime.product import product_version

if TYPE_CHECKING:
    from tribes.channel.trail import Tracing
    from tribes.config.model import NodeConfig
    from tribes.manager.delta import DeltaManager
    from tribes.node import NodeCore
    from tribes.runtime.parts import Sessions

__all__ = ["FlightRecorder", "Sources"]

log = structlog.get_logger("tribes")

_MakeManager = Callable[[str], "DeltaManager"]


def _as_it_is(given: Any) -> Any:
    return given


@final
@dataclass(frozen=True, slots=True)
class Sources:
    """Time and chance of a process, as its core and managers get them.

    Attributes:
        wall_ms: Wall clock in milliseconds.
        monotonic: Monotonic seconds.
        entropy: Gives n random bytes.
        randrange: Gives a number below its argument; chooses among equals, and is no secret.
        make_manager: Gives what the core makes managers with.
        tracing: Gives what the core makes spans with.
    """

    wall_ms: Callable[[], int] = wall_ms
    monotonic: Callable[[], float] = time.monotonic
    entropy: Callable[[int], bytes] = os.urandom
    randrange: Callable[[int], int] = random.randrange
    make_manager: Callable[[_MakeManager], _MakeManager] = _as_it_is
    tracing: Callable[[Tracing | None], Tracing | None] = _as_it_is


@final
class FlightRecorder:
    """Keeps the last minutes of this process's core, and writes them into files.

    Args:
        config: The node; it has a recorder.

    Attributes:
        ring: What is kept.
        sources: What the core must be given for that.
    """

    def __init__(self, config: NodeConfig) -> None:
        assert config.recorder is not None
        self._config: Final = config
        self._directory = Path(config.recorder.directory)
        self._numbers = 0
        self.ring = ring = Ring(
            config.recorder,
            now=time.monotonic,
            wall_ms=wall_ms,
            thread=threading.get_ident,
            crashed=self._crashed,
        )
        self.sources = Sources(
            ring.asked("wall_ms", wall_ms),
            ring.asked("monotonic", time.monotonic),
            ring.asked("entropy", os.urandom),
            ring.asked("randrange", random.randrange),
            ring.asked_manager,
            ring.asked_tracing,
        )

    def record(self, core: NodeCore, sessions: Sessions) -> None:
        """Keep the inputs of this core from now on; no sessions have been loaded yet."""
        for manager in (*sessions.managers.values(), *sessions.maps):
            self.ring.watch(manager)
        self.ring.record(core, sessions.clock, sessions.inbox)

    def write(self, *, contents: bool, why: str) -> dict[str, Any]:
        """Write what is kept into a file of its own. Blocks; for any thread.

        Args:
            contents: With sessions, messages and keys; else without all of them.
            why: Becomes part of the file.

        Returns:
            Its path, and what is in it.

        Raises:
            RecordingError: It cannot be written, or there are too many.
        """
        assert self._config.recorder is not None
        limit = self._config.recorder.files_max
        there = len(list(self._directory.glob(f"*{SUFFIX}")))
        if there >= limit:
            raise RecordingError(
                f"{self._directory} holds {there} recordings already, and recorder.files_max is "
                f"{limit}; take some away"
            )
        self._numbers += 1
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        name = "".join(c if c.isalnum() or c in "-_" else "-" for c in self._config.name)[:64]
        path = self._directory / f"{name or 'node'}-{stamp}-{os.getpid()}-{self._numbers}{SUFFIX}"
        try:
            return write_recording(
                path,
                self.ring,
                node=self._config.name,
                release=product_version(),
                contents=contents,
                why=why,
            )
        except OSError as error:
            raise RecordingError(f"{path} cannot be written: {error.strerror}") from error

    def _crashed(self, why: BaseException) -> None:
        try:
            found = self.write(contents=False, why=_without_contents(why))
        except RecordingError as error:
            log.error("recording failed", error=str(error))
        else:
            log.error("recording written", **found)


def _without_contents(why: BaseException) -> str:
    """An error's type and place: what it says may be a session's id or value."""
    trace = why.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(why).__name__
    return f"{type(why).__name__}, {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
