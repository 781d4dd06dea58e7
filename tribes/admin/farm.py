"""What operators may do with a farm: see it, give it an archive in pieces, undeploy.

The desk knows a farm by the few calls of `FarmView`; the node gives it one, or none.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, final
from urllib.parse import parse_qs

import msgspec
import structlog
import trio

from tribes.admin.answers import Answer, RefusedError, Request, as_json
from tribes.errors import FarmError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["PIECE_MAX_BYTES", "FarmDesk", "FarmView"]

log = structlog.get_logger("tribes")

PIECE_MAX_BYTES: Final = 256 * 1024
"""Of an archive in one request."""
_IDLE_S: Final = 30.0
"""An upload that brings nothing for so long makes room for another one."""
_OFFSET: Final = re.compile(r"[0-9]{1,15}")


class FarmView(Protocol):
    """A node's farm."""

    def status(self) -> dict[str, Any]:
        """What is deployed, by application and member."""

    def new_upload(self, name: str, size: int) -> Path:
        """Where an archive of this name and size may be put together."""

    async def deploy_upload(self, path: Path, name: str) -> dict[str, Any]:
        """Propose what was put together there; tells application and version."""

    def undeploy_named(self, named: str) -> dict[str, Any]:
        """Propose to undeploy an application; tells application and version."""


class _Begin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    size: int


class _Finish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    upload: str
    sha256: str


class _Undeploy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    app: str


@dataclass(slots=True)
class _Upload:
    id: str
    name: str
    size: int
    path: Path
    moved_at: float
    received: int = 0


@final
class FarmDesk:
    """Answers requests about a farm.

    Args:
        farm: The node's; None: it has none.
        decode: Reads a body of JSON.
    """

    def __init__(self, farm: FarmView | None, decode: Callable[[Request, type[Any]], Any]) -> None:
        self._farm = farm
        self._decode = decode
        self._upload: _Upload | None = None
        # Pieces of one upload are written one after the other.
        self._lock = trio.Lock()

    def status(self) -> dict[str, Any] | None:
        """For the status document; None: there is no farm, or it is not open yet."""
        if self._farm is None:
            return None
        try:
            return self._farm.status()
        except FarmError:
            return None

    def _open(self) -> FarmView:
        if self._farm is None:
            raise RefusedError(
                404, "this node takes no part in a farm: see [farm] and docs/farm.md"
            )
        return self._farm

    async def show(self, request: Request) -> Answer:
        """All of it."""
        del request
        try:
            return as_json(self._open().status())
        except FarmError as why:
            raise RefusedError(503, str(why)) from None

    async def begin(self, request: Request) -> Answer:
        """Begin to give it an archive."""
        farm, asked = self._open(), self._decode(request, _Begin)
        async with self._lock:
            now, before = trio.current_time(), self._upload
            if before is not None and now - before.moved_at < _IDLE_S:
                raise RefusedError(409, f"{before.name} is being sent; try again when it is done")
            try:
                path = farm.new_upload(asked.name, asked.size)
                old = None if before is None else before.path
                await trio.to_thread.run_sync(_replace, old, path)
            except (FarmError, OSError) as why:
                raise RefusedError(400, str(why)) from None
            self._upload = _Upload(secrets.token_hex(8), asked.name, asked.size, path, now)
            return as_json({"upload": self._upload.id})

    async def piece(self, request: Request) -> Answer:
        """Take the next piece of it."""
        if request.headers.get("content-type", "") != "application/octet-stream":
            raise RefusedError(415, "write Content-Type: application/octet-stream")
        try:
            asked = parse_qs(request.query, max_num_fields=4)
        except ValueError as error:
            raise RefusedError(400, str(error)) from None
        offset = asked.get("offset", [""])[0]
        if not _OFFSET.fullmatch(offset):
            raise RefusedError(400, "offset is a number")
        async with self._lock:
            upload = self._current(asked.get("upload", [""])[0])
            if int(offset) != upload.received:
                raise RefusedError(409, f"{upload.received} bytes of it are here; go on there")
            if upload.received + len(request.body) > upload.size:
                raise RefusedError(400, f"it was to have {upload.size} bytes")
            try:
                await trio.to_thread.run_sync(_put, upload.path, upload.received, request.body)
            except OSError as why:
                raise RefusedError(507, str(why)) from None
            upload.received += len(request.body)
            upload.moved_at = trio.current_time()
            return as_json({"received": upload.received})

    async def deploy(self, request: Request) -> Answer:
        """Propose it to the group."""
        farm, asked = self._open(), self._decode(request, _Finish)
        async with self._lock:
            upload = self._current(asked.upload)
            self._upload = None
            try:
                digest = await trio.to_thread.run_sync(_digest, upload.path)
                if not hmac.compare_digest(digest.encode(), asked.sha256.encode()):
                    raise FarmError("what arrived is not what was sent: its digest is wrong")
                told = await farm.deploy_upload(upload.path, upload.name)
            except (FarmError, OSError) as why:
                raise RefusedError(422, f"{upload.name}: {why}") from None
            finally:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(_replace, upload.path, None)
        log.warning("deployed by operator", peer=request.peer, archive=upload.name, **told)
        return as_json(told, 202)

    async def undeploy(self, request: Request) -> Answer:
        """Propose to undeploy."""
        farm, asked = self._open(), self._decode(request, _Undeploy)
        try:
            told = farm.undeploy_named(asked.app)
        except FarmError as why:
            raise RefusedError(404, str(why)) from None
        log.warning("undeployed by operator", peer=request.peer, **told)
        return as_json(told, 202)

    def _current(self, named: str) -> _Upload:
        upload = self._upload
        if upload is None or not hmac.compare_digest(upload.id.encode(), named.encode()):
            raise RefusedError(404, "there is no such upload any more; begin again")
        return upload


def _replace(old: Path | None, new: Path | None) -> None:
    if old is not None:
        old.unlink(missing_ok=True)
    if new is not None:
        new.touch(mode=0o600, exist_ok=False)


def _put(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        # What a full disk took of the same piece before does not stay.
        file.truncate(offset)
        file.seek(offset)
        file.write(data)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
