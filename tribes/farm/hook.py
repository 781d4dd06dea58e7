"""The command that runs after a deployment: no shell, a small environment, an end."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Final

import structlog
import trio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["OUTPUT_MAX_BYTES", "run_hook"]

log = structlog.get_logger("tribes")

OUTPUT_MAX_BYTES: Final = 4096
"""Of what it prints, the log has the end."""

_PASSED_ON: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "SYSTEMROOT")
"""Of the own environment: keys of the group may stand in the rest."""


async def run_hook(command: Sequence[str], says: Mapping[str, str], timeout_s: float) -> bool:
    """Run a command and say in the log what came of it; True: it ended with status 0.

    Args:
        command: The program and its arguments.
        says: Variables for its environment.
        timeout_s: Seconds after which it is killed. Cancelling kills it as well.
    """
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    tail, refused, status = bytearray(), "", 0
    try:
        with trio.move_on_after(timeout_s) as limit:
            async with trio.open_nursery() as nursery:
                process: trio.Process = await nursery.start(
                    _start, list(command), {**environment, **says}
                )
                assert process.stdout is not None
                async for data in process.stdout:
                    tail += data
                    del tail[:-OUTPUT_MAX_BYTES]
                status = await process.wait()
    except* OSError as group:
        refused = str(group.exceptions[0])
    if refused:
        log.error("hook failed", command=command[0], why=refused, **says)
        return False
    output = tail.decode("utf-8", "replace").strip()
    if limit.cancelled_caught:
        why = f"it was killed after {timeout_s:g} s"
        log.error("hook failed", command=command[0], why=why, output=output, **says)
        return False
    if status:
        why = f"it ended with status {status}"
        log.error("hook failed", command=command[0], why=why, output=output, **says)
        return False
    log.info("hook done", command=command[0], output=output, **says)
    return True


async def _start(
    command: list[str],
    environment: dict[str, str],
    task_status: trio.TaskStatus[trio.Process] = trio.TASK_STATUS_IGNORED,
) -> None:
    await trio.run_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        check=False,
        task_status=task_status,
    )
