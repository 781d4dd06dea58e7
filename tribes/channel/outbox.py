"""The outputs of the present input, until the driver takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from tribes.channel.outputs import ChannelOutput, Notice
from tribes.wire.outputs import Close, NetworkOutput

__all__ = ["Outbox", "Output"]

Output = NetworkOutput | ChannelOutput


@final
class Outbox:
    """The list that all parts of a channel append to, and the time of the input.

    Args:
        closed: Told of each connection that the driver is asked to close: nothing more comes of it.

    Attributes:
        now: Monotonic seconds of the latest input.
        outputs: What the driver has not taken yet.
    """

    __slots__ = ("_closed", "now", "outputs")

    def __init__(self, closed: Callable[[int], None]) -> None:
        self.now = 0.0
        self.outputs: Final[list[Output]] = []
        self._closed = closed

    def emit(self, output: Output) -> None:
        """Append one."""
        if type(output) is Close:
            self._closed(output.link)
        self.outputs.append(output)

    def take(self) -> list[Output]:
        """Give them all away."""
        taken = self.outputs[:]
        self.outputs.clear()
        return taken

    def tell_bug(self, what: str, error: Exception) -> None:
        """Tell the operator of an exception that should not be, and where it was raised."""
        traceback = error.__traceback__
        while traceback is not None and traceback.tb_next is not None:
            traceback = traceback.tb_next
        where = ""
        if traceback is not None:
            where = f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
        self.emit(Notice(what, {"error": repr(error), "at": where}))
