"""uvicorn, stopped so that no request is refused: first nobody is sent here, then nobody is let in.

uvicorn closes its port as soon as it has the signal. A balancer learns of that by a refused
connection, and whoever is on a connection that is kept alive by one that breaks. Here the signal
first turns readiness off; the port stays open until the balancer has had time to see that.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from types import FrameType

    from tribes.runtime.attached import AttachedNode
    from tribes.runtime.background import BackgroundNode

__all__ = ["DrainingServer"]

STATUS_NOT_DRAINED = 3


class DrainingServer(uvicorn.Server):
    """A ``uvicorn.Server`` for an application with a node.

    ::

        config = uvicorn.Config(app, port=8080, timeout_graceful_shutdown=10)
        DrainingServer(config, node, notice_s=5).run()

    A second signal skips the notice, as uvicorn's own second signal skips the requests that run.
    ``run`` ends with status 0, or 3 when others have not confirmed that they have the sessions.

    Args:
        config: uvicorn's.
        node: The application's.
        notice_s: Seconds from the signal until the port is closed: longer than the balancer takes
            to notice that ``/ready`` says no.
    """

    def __init__(
        self, config: uvicorn.Config, node: BackgroundNode | AttachedNode, *, notice_s: float
    ) -> None:
        super().__init__(config)
        self._node = node
        self._notice_s = notice_s
        self._again = threading.Event()
        self._is_told = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal; in the main thread, between two steps of whatever it does."""
        if self._is_told:
            self._again.set()
            super().handle_exit(sig, frame)
            return
        self._is_told = True
        threading.Thread(target=self._leave, args=(sig, frame), daemon=True).start()

    def _leave(self, sig: int, frame: FrameType | None) -> None:
        self._node.retire()
        if not self._again.wait(self._notice_s):
            super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while the server runs."""
        with super().capture_signals():
            yield
            # uvicorn would raise the signal once more, and the status would be that of a kill.
            self._captured_signals.clear()

    def run(self, *args: object, **kwargs: object) -> None:
        """Serve until told to stop."""
        super().run(*args, **kwargs)  # type: ignore[arg-type]  # whatever uvicorn's takes
        report = self._node.drain_report
        if report is not None and not report.is_complete:
            sys.exit(STATUS_NOT_DRAINED)
