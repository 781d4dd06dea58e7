"""A farm on a channel: drives the core with real messages, files and time. It holds no rule.

It is one file because it is one switchboard: each output of the core has its few lines here.
Everything runs in the channel's loop; files are touched in worker threads, one job at a time. Each
member that is spoken to has a lane of its own, so one that reads slowly delays no other.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import structlog
import trio

from tribes.errors import ChannelError, FarmError, LocalProtocolError, RemoteProtocolError
from tribes.farm.core import FarmCore
from tribes.farm.disk import CorruptError, FarmDisk
from tribes.farm.hook import run_hook
from tribes.farm.lane import Lane
from tribes.farm.messages import PREFIX, Chunk, Message, Report, decode, encode
from tribes.farm.names import ArchiveName
from tribes.farm.outputs import (
    DropPart,
    Forget,
    Install,
    Prepare,
    ReadChunk,
    Save,
    Send,
    Tell,
    WriteChunk,
)
from tribes.farm.watching import watch_directory
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tribes.channel.outputs import MembershipEvent
    from tribes.config.farm import FarmConfig
    from tribes.farm.catalogue import Entry
    from tribes.runtime.group_channel import GroupChannel
    from tribes.wire.data import ChannelData

__all__ = ["Farm", "open_farm"]

log = structlog.get_logger("tribes")

HOOKS_MAX: Final = 64
"""Deployments that wait for the hook; beyond, the oldest is dropped and the log says so."""
TICK_S: Final = 0.25
"""Between two looks at the clock; nothing here is more precise than that."""
_OPTIONS: Final = int(SendOptions.ASYNCHRONOUS)
_WARNINGS: Final = frozenset(
    {
        *("archive refused", "archive failed", "archive corrupt", "archive superseded"),
        *("transfer abandoned", "clock ahead"),
    }
)

Job = Callable[[], Awaitable[None]]


@final
class Farm:
    """One member of a farm.

    Args:
        channel: The node; entered before `run`.
        config: Its settings.
        watch: Sees the events that an operator should know of: name and fields.

    Attributes:
        disk: Its files.
        hooks_failed: Hooks that did not end well.
        settled: Set when the members that were there have told what is deployed.
    """

    def __init__(
        self,
        channel: GroupChannel,
        config: FarmConfig,
        *,
        watch: Callable[[str, Mapping[str, object]], None] | None = None,
    ) -> None:
        self.config = config
        self.disk = FarmDisk(config)
        self._channel = channel
        self._watch = watch
        self._core: FarmCore | None = None
        self._jobs: deque[Job] = deque()
        self._wake_jobs = trio.Event()
        self._unsaved: Save | None = None
        self._lanes: dict[bytes, Lane] = {}
        self._hooks: deque[tuple[Entry, Path | None]] = deque(maxlen=HOOKS_MAX)
        self._wake_hooks = trio.Event()
        self._nursery: trio.Nursery | None = None
        self.hooks_failed = 0
        self.settled = trio.Event()

    @property
    def core(self) -> FarmCore:
        """The decisions.

        Raises:
            FarmError: The farm has not been opened.
        """
        if self._core is None:
            raise FarmError(_NOT_OPEN)
        return self._core

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take part until cancelled.

        Raises:
            FarmError: A directory cannot be used, or what an earlier process has left not be read.
        """
        try:
            kept = await trio.to_thread.run_sync(self.disk.open)
        except OSError as why:
            raise FarmError(f"{why.filename} cannot be used: {why.strerror}") from why
        self._core = FarmCore(
            bytes(self._channel.local.unique_id),
            self._channel.local.label,
            kept,
            wall_ms=lambda: int(time.time() * 1000),
            now=trio.current_time(),
            max_valid_time_s=self.config.max_valid_time_s,
            archive_max_bytes=self.config.archive_max_bytes,
        )
        channel = self._channel
        channel.add_message_listener(self._message, accept=_is_ours, inline=True)
        channel.add_membership_listener(self._members)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._tick)
                nursery.start_soon(self._work)
                nursery.start_soon(self._run_hooks)
                if self.config.watch_enabled:
                    nursery.start_soon(watch_directory, self)
                self._look_at_view()
                log.info(
                    "farm open",
                    deploy_dir=self.config.deploy_dir,
                    watch_dir=self.config.watch_dir if self.config.watch_enabled else "none",
                    applications=len(self.core.installed),
                )
                task_status.started()
        finally:
            self._nursery = None
            channel.remove_message_listener(self._message)
            channel.remove_membership_listener(self._members)

    # ---- what others may do ----------------------------------------------------------------------

    async def deploy(self, path: Path, name: ArchiveName, *, only_newer: bool = False) -> Entry:
        """Take an archive in and propose it to the group; returns at once after that.

        Args:
            path: Where it is.
            name: Its name.
            only_newer: Refuse one that was not modified after the one that is deployed.

        Raises:
            FarmError: It cannot be deployed; says why.
            OSError: It cannot be read.
        """
        core = self.core
        proposed: list[Entry] = []

        async def job() -> None:
            given = await trio.to_thread.run_sync(self.disk.take, path, name)
            now = trio.current_time()
            newest = core.catalogue.get(name.app).newest
            is_same = newest is not None and newest.digest == given.digest
            if only_newer and newest and not is_same and given.modified_ms <= newest.modified_ms:
                core.collect(given.digest + bytes((name.kind,)))
                self._pump()
                raise FarmError(
                    f"it is not newer than what is deployed, version {newest.version}; touch it, "
                    "or use tribes deploy, if it is to replace that"
                )
            try:
                entry = core.propose(name, given.digest, given.size, given.modified_ms, now)
            finally:
                # Also what was taken in and is refused after all is to be forgotten.
                self._pump()
            proposed.append(entry)

        await self._do(job)
        return proposed[0]

    def undeploy(self, named: str) -> Entry:
        """Propose to undeploy an application, by its name or that of its archive.

        Raises:
            FarmError: It is not deployed.
        """
        core = self.core
        for app, slot in core.catalogue:
            entry = slot.open or slot.deployed
            if entry is None or not entry.digest:
                continue
            if named.lower() in (app, entry.name.file.lower()):
                now_ms = int(time.time() * 1000)
                found = core.propose(entry.name, b"", 0, now_ms, trio.current_time())
                self._pump()
                return found
        raise FarmError(f"{named[:80]!r} is not deployed")

    def new_upload(self, name: str, size: int) -> Path:
        """Where an operator's archive may be put together; it is deleted at the next start.

        Raises:
            FarmError: It could not be deployed by its name or size, or the farm is not open.
        """
        if self._core is None:
            raise FarmError(_NOT_OPEN)
        ArchiveName.parse(name)
        if not 0 <= size <= self.config.archive_max_bytes:
            limit = self.config.archive_max_bytes
            raise FarmError(f"it has {size} bytes, more than farm.archive_max_bytes, {limit}")
        return self.disk.upload_path()

    async def deploy_upload(self, path: Path, name: str) -> dict[str, Any]:
        """`deploy`, for the port for operators: tells application and version."""
        entry = await self.deploy(path, ArchiveName.parse(name))
        return {"app": entry.name.app, "version": entry.version}

    def undeploy_named(self, named: str) -> dict[str, Any]:
        """`undeploy`, for the port for operators: tells application and version."""
        entry = self.undeploy(named)
        return {"app": entry.name.app, "version": entry.version}

    def status(self) -> dict[str, Any]:
        """What is deployed, by application and member, and how transfers go.

        Raises:
            FarmError: The farm has not been opened.
        """
        core = self.core
        apps = []
        for app, slot in core.catalogue:
            shown: dict[str, Any] = {"app": app, "deployed": None, "proposal": None}
            for key, entry in (("deployed", slot.deployed), ("proposal", slot.proposal)):
                if entry is not None:
                    shown[key] = self._shown(entry)
            apps.append(shown)
        members = [peer.label for peer in core.peers.values() if peer.has_farm]
        return {
            "deploy_dir": self.config.deploy_dir,
            "watch_dir": self.config.watch_dir if self.config.watch_enabled else None,
            "members": [self._channel.local.label, *members],
            "applications": apps,
            "statistics": {**asdict(core.statistics), "hooks_failed": self.hooks_failed},
        }

    def _shown(self, entry: Entry) -> dict[str, Any]:
        core = self.core
        own = {report.order: report for report in core.reports()}
        standings = [_standing(self._channel.local.label, own.get(entry.order))]
        standings += [
            _standing(peer.label, peer.reports.get(entry.order))
            for peer in core.peers.values()
            if peer.has_farm
        ]
        return {
            "file": entry.name.file,
            "version": entry.version,
            "phase": entry.phase.name.lower(),
            "undeploys": not entry.digest,
            "sha256": entry.digest.hex(),
            "bytes": entry.size,
            "modified_ms": entry.modified_ms,
            "why": entry.why,
            "members": standings,
        }

    # ---- inputs ----------------------------------------------------------------------------------

    def _message(self, data: ChannelData) -> None:
        core = self._core
        if core is None:
            return
        channel = self._channel
        proofs = channel.shell.core.channel
        if channel.config.channel.has_key and not proofs.has_proved(data.source):
            core.statistics.rejected += 1
            return
        try:
            message = decode(data.message)
        except RemoteProtocolError as why:
            core.statistics.rejected += 1
            log.warning("farm message refused", member=data.source.label, why=str(why))
            return
        if message is not None:
            core.message(bytes(data.source.unique_id), message, trio.current_time())
            self._pump()

    async def _members(self, event: MembershipEvent) -> None:
        del event
        self._look_at_view()

    def _look_at_view(self) -> None:
        core = self.core
        view = {bytes(each.unique_id): each.label for each in self._channel.members}
        if view.keys() != core.peers.keys():
            core.members(view, trio.current_time())
            for gone in self._lanes.keys() - view.keys():
                self._lanes.pop(gone).put(_END)
            self._pump()

    async def _tick(self) -> None:
        while True:
            self._look_at_view()
            now = trio.current_time()
            if self.core.is_settled(now):
                self.settled.set()
            if now >= self.core.next_deadline:
                self.core.timer(now)
                self._pump()
            await trio.sleep(TICK_S)

    # ---- outputs ---------------------------------------------------------------------------------

    def _pump(self) -> None:
        for output in self.core.take_outputs():
            match output:
                case Tell():
                    self._tell(output)
                case Send():
                    self._to_lane(output.member, output.message)
                case ReadChunk():
                    self._to_lane(output.member, output)
                case Save():
                    if self._unsaved is None:
                        self._put(self._save)
                    self._unsaved = output
                case _:
                    self._put(partial(self._on_disk, output))

    def _tell(self, event: Tell) -> None:
        is_bad = event.event in _WARNINGS
        (log.warning if is_bad else log.info)(event.event, **event.fields)
        if is_bad and self._watch is not None:
            self._watch(event.event, event.fields)

    def tell_refused(self, name: str, why: str) -> None:
        """An archive was not even proposed."""
        self._tell(Tell("archive refused", {"archive": name, "why": why}))

    # ---- the disk --------------------------------------------------------------------------------

    def _put(self, job: Job) -> None:
        self._jobs.append(job)
        self._wake_jobs.set()

    async def _do(self, job: Job) -> None:
        """Let a job be done in its turn, and wait for it; what it raises is raised here."""
        done, failed = trio.Event(), []

        async def guarded() -> None:
            try:
                await job()
            except (FarmError, OSError) as why:
                failed.append(why)
            finally:
                done.set()

        self._put(guarded)
        await done.wait()
        if failed:
            raise failed[0]

    async def _work(self) -> None:
        while True:
            while self._jobs:
                await self._jobs.popleft()()
            self._wake_jobs = trio.Event()
            await self._wake_jobs.wait()

    async def _save(self) -> None:
        state, self._unsaved = self._unsaved, None
        assert state is not None
        try:
            await trio.to_thread.run_sync(self.disk.save, state)
        except OSError as why:
            log.error("farm not saved", why=str(why))

    async def _on_disk(self, output: WriteChunk | Prepare | Install | DropPart | Forget) -> None:
        core, now = self.core, trio.current_time
        run = trio.to_thread.run_sync
        match output:
            case WriteChunk():
                error = await _error_of(self.disk.write, output)
                core.wrote(output.key, output.index, error, now())
            case Prepare():
                error, is_corrupt = "", False
                try:
                    await run(self.disk.prepare, output)
                except CorruptError as why:
                    error, is_corrupt = str(why), True
                except (FarmError, OSError) as why:
                    error = _text_of(why)
                core.prepared(output.key, error, now(), is_corrupt=is_corrupt)
            case Install():
                await self._install(output.entry)
            case DropPart():
                await run(self.disk.drop, output.key)
            case Forget() if not core.has(output.key):
                await _error_of(self.disk.forget, output.key)
            case _:
                pass
        self._pump()

    async def _install(self, entry: Entry) -> None:
        error, place = "", None
        try:
            place = await trio.to_thread.run_sync(self.disk.install, entry)
        except (FarmError, OSError) as why:
            error = _text_of(why)
        self.core.installed_now(entry, error, trio.current_time())
        if not error and self.config.hook:
            if len(self._hooks) == HOOKS_MAX:
                log.error("hook left out", archive=self._hooks[0][0].name.file)
            self._hooks.append((entry, place))
            self._wake_hooks.set()

    # ---- the members -----------------------------------------------------------------------------

    def _to_lane(self, member: bytes, item: Message | ReadChunk) -> None:
        dropped = self._lane(member).put(item)
        if dropped is not None:
            self.core.read(member, 0)

    def _lane(self, member: bytes) -> Lane:
        lane = self._lanes.get(member)
        if lane is None:
            lane = self._lanes[member] = Lane()
            assert self._nursery is not None
            self._nursery.start_soon(self._run_lane, member, lane)
        return lane

    async def _run_lane(self, member: bytes, lane: Lane) -> None:
        while True:
            while lane.waiting:
                item = lane.waiting.popleft()
                if item is _END:
                    return
                if isinstance(item, ReadChunk):
                    await self._serve(item)
                else:
                    await self._send(member, item)
            lane.wake = trio.Event()
            await lane.wake.wait()

    async def _serve(self, order: ReadChunk) -> None:
        try:
            data = await trio.to_thread.run_sync(
                self.disk.read, order.key, order.chunk_bytes, order.index
            )
        except OSError:
            data = b""
        if data:
            chunk = Chunk(order.key, order.chunk_bytes, order.index, data)
            await self._send(order.member, chunk)
        self.core.read(order.member, len(data))

    async def _send(self, member: bytes, message: Message) -> None:
        target = next((m for m in self._channel.members if m.unique_id == member), None)
        if target is None:
            return
        try:
            await self._channel.send(encode(message), target, options=_OPTIONS)
        except (ChannelError, LocalProtocolError) as why:
            # It is asked for, or told, again.
            log.debug("farm message not sent", member=target.label, why=str(why))

    # ---- the hook --------------------------------------------------------------------------------

    async def _run_hooks(self) -> None:
        while True:
            while self._hooks:
                entry, place = self._hooks.popleft()
                says = {
                    "TRIBES_FARM_EVENT": "deployed" if entry.digest else "undeployed",
                    "TRIBES_FARM_APP": entry.name.app,
                    "TRIBES_FARM_ARCHIVE": entry.name.file,
                    "TRIBES_FARM_VERSION": entry.version,
                    "TRIBES_FARM_SHA256": entry.digest.hex(),
                    "TRIBES_FARM_PATH": "" if place is None else str(place.absolute()),
                }
                if not await run_hook(self.config.hook, says, self.config.hook_timeout_s):
                    self.hooks_failed += 1
            self._wake_hooks = trio.Event()
            await self._wake_hooks.wait()


_NOT_OPEN: Final = "the farm is not open yet; the node's log says when it is"

_END: Any = object()
"""In a lane: its member is gone."""


def _is_ours(data: ChannelData) -> bool:
    return data.message.startswith(PREFIX)


async def _error_of(call: Callable[..., object], *args: object) -> str:
    """Do something to the disk; returns what went wrong."""
    try:
        await trio.to_thread.run_sync(call, *args)
    except (FarmError, OSError) as why:
        return _text_of(why)
    return ""


def _text_of(why: Exception) -> str:
    if isinstance(why, OSError):
        # Its path is nobody else's business, and the others are told this text.
        return why.strerror or type(why).__name__
    return str(why)


def _standing(label: str, report: Report | None) -> dict[str, Any]:
    if report is None:
        return {"member": label, "standing": "lacks", "received": 0, "why": ""}
    return {
        "member": label,
        "standing": report.standing.name.lower(),
        "received": report.received,
        "why": report.why,
    }


@asynccontextmanager
async def open_farm(farm: Farm) -> AsyncIterator[Farm]:
    """Take part in the farm while the body runs; within that of the channel.

    Raises:
        FarmError: A directory cannot be used, or what an earlier process has left not be read.
    """
    async with trio.open_nursery() as nursery:
        await nursery.start(farm.run)
        try:
            yield farm
        finally:
            nursery.cancel_scope.cancel()
