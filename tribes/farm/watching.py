"""Looks at the watch directory: when something changes there, and every so often anyway."""

from __future__ import annotations

import importlib.util
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
import trio

from tribes.errors import FarmError
from tribes.farm.names import ArchiveName
from tribes.farm.watch import Found, Stamp, Watch, look

if TYPE_CHECKING:
    from tribes.farm.service import Farm

__all__ = ["watch_directory"]

log = structlog.get_logger("tribes")

_SOON_S: Final = 0.25
"""Between two looks while a file settles."""
_UNTOLD_S: Final = 60.0
"""A directory that cannot be read is told of so often."""


async def watch_directory(farm: Farm) -> None:
    """Deploy what comes into the watch directory, and undeploy what goes, until cancelled.

    It begins when the members that are there have told what is deployed.
    """
    config = farm.config
    await farm.settled.wait()
    watch = Watch(config.settle_s, await trio.to_thread.run_sync(farm.disk.read_watched))
    looker = _Looker(farm, watch)
    async with trio.open_nursery() as nursery:
        if importlib.util.find_spec("watchfiles") is None:
            log.info("watchfiles is not installed", looks_every_s=config.scan_interval_s)
        else:
            nursery.start_soon(looker.be_told)
        await looker.run()


class _Looker:
    def __init__(self, farm: Farm, watch: Watch) -> None:
        self._farm = farm
        self._watch = watch
        self._wake = trio.Event()
        self._told_at: float | None = None
        self._saved = watch.kept

    async def be_told(self) -> None:
        """Look at once whenever the system says that something has changed."""
        from watchfiles import awatch

        directory = self._farm.config.watch_dir
        while True:
            try:
                async with aclosing(
                    awatch(directory, recursive=False, step=50, debounce=200, rust_timeout=500)
                ) as changes:
                    async for _ in changes:
                        self._wake.set()
            except (OSError, RuntimeError):
                # It is not there now; `run` says so.
                pass
            await trio.sleep(self._farm.config.scan_interval_s)

    async def run(self) -> None:
        """Look, until cancelled."""
        farm, watch = self._farm, self._watch
        while True:
            self._wake = trio.Event()
            try:
                seen = await trio.to_thread.run_sync(look, farm.config.watch_dir)
            except OSError as why:
                self._tell_unreadable(why)
            else:
                await self._act(watch.see(seen, trio.current_time()))
            wait = _SOON_S if watch.is_waiting else farm.config.scan_interval_s
            with trio.move_on_after(wait):
                await self._wake.wait()

    def _tell_unreadable(self, why: OSError) -> None:
        now = trio.current_time()
        if self._told_at is None or now - self._told_at >= _UNTOLD_S:
            self._told_at = now
            path = self._farm.config.watch_dir
            log.error("watch directory cannot be read", path=path, why=str(why))

    async def _act(self, found: Found) -> None:
        if found.is_other:
            log.warning(
                "watch directory is another one",
                path=self._farm.config.watch_dir,
                effect="what is not in it is not undeployed",
            )
        for name, why in found.refused.items():
            self._farm.tell_refused(name, why)
        for name, stamp in found.taken.items():
            await self._take(name, stamp)
        for name, digest in found.gone.items():
            self._remove(name, digest)
        if self._watch.kept != self._saved:
            self._saved = self._watch.kept
            await trio.to_thread.run_sync(self._save)

    def _save(self) -> None:
        try:
            self._farm.disk.save_watched(self._saved)
        except OSError as why:
            log.error("watch directory's memory not saved", why=str(why))

    async def _take(self, name: str, stamp: Stamp) -> None:
        path, is_first = Path(self._farm.config.watch_dir, name), not self._watch.is_known(name)
        try:
            # At first sight only what is newer, as Tomcat: a member that was away must not put its
            # old archives in place everywhere. A change that was seen is somebody's wish.
            entry = await self._farm.deploy(path, ArchiveName.parse(name), only_newer=is_first)
        except (FarmError, OSError) as why:
            # As it is, it will not do; when it changes it is looked at again.
            self._watch.took(name, stamp, b"")
            self._farm.tell_refused(name, str(why))
        else:
            self._watch.took(name, stamp, entry.digest)

    def _remove(self, name: str, digest: bytes) -> None:
        newest = self._farm.core.catalogue.get(ArchiveName.parse(name).app).newest
        is_it = newest is not None and newest.name.file.lower() == name.lower()
        if newest is None or not is_it or newest.digest != digest:
            # What is deployed did not come from that file.
            log.info("archive removed", archive=name, effect="none: it was not the one deployed")
            return
        try:
            self._farm.undeploy(name)
        except FarmError as why:
            log.warning("archive not undeployed", archive=name, why=str(why))
