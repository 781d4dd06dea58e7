"""How a node leaves, told to people: receipts, files, and what is missing.

What stands in the log is for who is woken by it: which member lacks what and why, and what becomes
of the sessions.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog
import trio

from tribes.config.model import check_pathname
from tribes.errors import ConfigError, StoreError
from tribes.runtime.hosts import successor_wait_s
from tribes.runtime.key_files import read_keys

if TYPE_CHECKING:
    from tribes.config.model import NodeConfig
    from tribes.manager.drain import DrainReport
    from tribes.runtime.parts import Sessions
    from tribes.runtime.shell import Shell
    from tribes.runtime.snapshots import Snapshots

__all__ = ["leave_in_order", "load_saved"]

log = structlog.get_logger("tribes")


def _snapshots(config: NodeConfig) -> Snapshots | None:
    # The module of files needs what only Unix has; without a file it is not needed.
    if not config.manager.pathname or not config.manager.in_group:
        return None
    from tribes.runtime.snapshots import Snapshots

    return Snapshots(config.manager.pathname, read_keys(config.channel))


def load_saved(config: NodeConfig, sessions: Sessions) -> list[str]:
    """Take in what the last stop of all members saved; before the node joins. Blocks.

    Returns:
        The contexts that have saved sessions and are not the node's own, if it holds all.

    Raises:
        ConfigError: The file's name or the keys cannot be used.
    """
    check_pathname(config)
    snapshots = _snapshots(config)
    if snapshots is None:
        return []
    try:
        snapshots.check()
    except StoreError as error:
        # Without them a start is better than none: other members may have them.
        log.error("saved sessions not loaded", error=str(error))
        return []
    found = [c for c in snapshots.contexts() if c not in config.contexts and config.hold_all]
    for context in (*config.replicated, *found):
        try:
            snapshots.load(sessions.manager(context))
        except (StoreError, ConfigError) as error:
            log.error("saved sessions not loaded", context=context, error=str(error))
    return found


async def leave_in_order(
    shell: Shell, sessions: Sessions, config: NodeConfig, timeout: float
) -> DrainReport:
    """Drain, save what nobody else will have, and tell how that went.

    Args:
        shell: It runs.
        sessions: What it has.
        config: Of the node; ``manager.pathname`` says where to save.
        timeout: Seconds to wait for receipts.
    """
    begin = time.monotonic()
    await shell.drain(timeout)
    # What a file keeps needs no successor.
    if not config.manager.pathname and (wait_s := successor_wait_s()):
        await _await_successor(shell, wait_s, timeout)
    report = shell.drain_report()
    seconds = round(time.monotonic() - begin, 3)
    for lacking in report.lacking:
        log.warning("left without receipt", after_s=seconds, **lacking._asdict())
    if report.unsent:
        log.warning("left with changes that were not sent", after_s=seconds, count=report.unsent)
    contexts = [context for context, count in report.sessions.items() if count]
    if (report.is_last or report.lacking or report.unsent) and contexts:
        report = await trio.to_thread.run_sync(_save, config, sessions, report, contexts)
    if report.is_complete and contexts and not report.is_last:
        log.info("drained", seconds=seconds, sessions=report.sessions)
    return report


async def _await_successor(shell: Shell, wait_s: float, timeout: float) -> None:
    """Give the sessions to a member that comes while this one, the last, is about to leave."""
    report = shell.drain_report()
    if not report.is_last or not any(report.sessions.values()):
        return
    log.info("waiting for a successor", seconds=wait_s, sessions=report.sessions)
    with trio.move_on_after(wait_s):
        while shell.core.sessions.is_last:
            await shell.changed()
    if not shell.core.sessions.is_last:
        await shell.drain(timeout)


def _save(
    config: NodeConfig, sessions: Sessions, report: DrainReport, contexts: list[str]
) -> DrainReport:
    saved, unsaved = {}, {}
    snapshots = None
    why = ""
    try:
        snapshots = _snapshots(config)
    except ConfigError as error:
        why = str(error)
    for context in contexts:
        count = report.sessions[context]
        if snapshots is None and not why:
            if report.is_last:
                log.warning(
                    "sessions end with the last member",
                    context=context,
                    sessions=count,
                    to_keep_them="set manager.pathname",
                )
            continue
        try:
            if snapshots is None:
                raise StoreError(why)
            saved[context] = str(snapshots.save(sessions.manager(context)))
        except StoreError as error:
            unsaved[context] = str(error)
            log.error("sessions not saved", context=context, sessions=count, error=str(error))
        else:
            log.info("sessions saved", context=context, sessions=count, file=saved[context])
    return report._replace(saved=saved, unsaved=unsaved)
