"""A map of which each member holds a part, as users meet it (Tomcat: ``LazyReplicatedMap``)."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self

from tribes.config.model import waits_for_members
from tribes.errors import ChannelClosedError, LocalProtocolError, MapFullError
from tribes.manager.inbox import CommitResult
from tribes.maps.keys import MapKey, encode_key
from tribes.maps.lazy_messages import Get, MapReply, Put
from tribes.maps.manager import ENTRIES_MAX, VALUE_MAX_BYTES, MapManager
from tribes.maps.placement import PARTITIONS, EntryKind, partition_of_entry
from tribes.runtime.background import BackgroundNode
from tribes.runtime.crossing import now_or_soon
from tribes.runtime.replicated_map import run_in_channel
from tribes.runtime.waiters import ThreadWaiter, async_waiter, refuse_in_event_loop, result_of
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from tribes.manager.inbox import Waiter
    from tribes.manager.values import ValueCodec
    from tribes.maps.lazy import LazyCore
    from tribes.runtime.group_channel import GroupChannel
    from tribes.runtime.map_listeners import MapListener

__all__ = ["LazyReplicatedMap"]

_BACKSTOP_S = 1.0
"""Added to waits: the channel's thread answers within that, or it is dead."""

_SILENT = {"*": "the channel of this process does not answer"}
_MISSING: Any = object()


class LazyReplicatedMap(MutableMapping[MapKey, Any]):
    """A dictionary that is spread over the members: each entry lies on one, and on ``copies`` more.

    ::

        orders = LazyReplicatedMap(node, "orders")
        orders[17] = {"state": "new"}           # in a thread
        await orders.aput(17, {"state": "new"}) # in a task of asyncio or trio
        await orders.aget(17)

    Any member reads and writes any entry. On those that hold it (*primary* and *backup*) reading is
    a look-up in memory; for all others it is a *proxy*, and each use asks the holders, the next one
    where one does not answer. When a member dies, backups become primaries and copies are made
    anew; when one joins, it takes its share. Who holds an entry follows from its key and the
    members, and reading moves nothing.

    Of two writes the later wins, as in a `ReplicatedMap`, whose bounds of keys, values and removals
    hold here too. A write that a holder does not answer is tried at the next one and may be done
    twice. Entries that lie on ``copies`` + 1 members survive any ``copies`` crashes at a time.

    ``len`` and iteration are about the entries that lie on this member, as in Tomcat: proxies don't
    count.

    Args:
        channel: A `GroupChannel` or a `BackgroundNode`, started or not.
        name: 1 to 240 characters, the same on all members.
        copies: Backups of each entry; the same on all members.
        codec: Encodes values; None: the one of the channel's sessions.
        options: How changes are sent, see `ReplicatedMap`.
        timeout: Seconds that asking for an entry may take.
        max_entries: Entries of the whole map, about: each of its 64 partitions refuses new keys
            when it has twice its share.
        listener: Told what happens to the entries that lie here, those that move here included.

    Raises:
        LocalProtocolError: The map is open in this process, it cannot be a name, or there are too
            many maps.
    """

    def __init__(
        self,
        channel: GroupChannel | BackgroundNode,
        name: str,
        *,
        copies: int = 1,
        codec: ValueCodec | None = None,
        options: int = SendOptions.DEFAULT,
        timeout: float = 5.0,
        max_entries: int = ENTRIES_MAX,
        listener: MapListener | None = None,
    ) -> None:
        if copies < 0:
            raise LocalProtocolError(f"an entry has 0 or more copies, not {copies}")
        self.name = name
        self._host = channel
        self._timeout = timeout
        listeners = channel.sessions.map_listeners

        def made(manager: MapManager) -> None:
            manager.max_entries = -(-2 * max_entries // PARTITIONS)
            if listener is not None:
                listeners.add(manager, listener)

        self._parts = parts = channel.sessions.add_lazy_map(
            name, codec=codec, options=int(options), copies=copies, made=made
        )
        self._codec = parts.presence.codec
        config = parts.presence.config
        self._waits = waits_for_members(config)
        self._wait_s = config.commit_timeout / 1000 + _BACKSTOP_S
        if listener is not None:
            listeners.add(parts.presence, listener)

        def open_map(group: GroupChannel) -> None:
            group.shell.core.open_lazy_map(parts, group.shell.now())

        run_in_channel(channel, open_map)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take no part any more. The others make new copies of what lay here; without ``copies``
        it is lost. A channel that is left gives its entries away first.
        """
        parts = self._parts
        run_in_channel(
            self._host, lambda group: group.shell.core.close_lazy_map(parts, group.shell.now())
        )
        self._host.sessions.remove_lazy_map(parts)

    # Reading.

    def __getitem__(self, key: MapKey) -> Any:
        name = _name(key)
        data = self._local(key, name)
        if data is None:
            refuse_in_event_loop("await map.aget(key)")
            data = self._value(key, self._ask(Get(name)).result(self._timeout + _BACKSTOP_S))
        return self._codec.decode(data)

    async def aget(self, key: MapKey, default: Any = _MISSING) -> Any:
        """A copy of the value of a key, from wherever it lies. Cancelling is safe.

        Raises:
            KeyError: There is no such entry, and no default.
            MemberUnreachableError: No member that has it answered in time.
        """
        try:
            name = _name(key)
            data = self._local(key, name)
            if data is None:
                reply = await result_of(self._ask(Get(name)), self._timeout + _BACKSTOP_S)
                data = self._value(key, reply)
        except KeyError:
            if default is _MISSING:
                raise
            return default
        return self._codec.decode(data)

    def __iter__(self) -> Iterator[MapKey]:
        for manager in list(self._parts.held.values()):
            yield from manager.entry_keys()

    def __len__(self) -> int:
        return sum(manager.table.live for manager in list(self._parts.held.values()))

    # Like other objects that live: equal to itself only.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<LazyReplicatedMap {self.name!r}, {len(self)} entries here>"

    # Writing.

    def __setitem__(self, key: MapKey, value: Any) -> None:
        self.put(key, value)

    def __delitem__(self, key: MapKey) -> None:
        self.remove(key)

    def put(self, key: MapKey, value: Any) -> CommitResult:
        """Set an entry; block this thread until its holders have it, as the options say.

        Returns:
            Which members have it (besides this one, if it holds it), and which lack it and why.

        Raises:
            LocalProtocolError: It would block an event loop: use :meth:`aput`. Or the key or value
                cannot be used.
            AttributeNotEncodableError: The value has a type that no codec knows.
            MapFullError: The key is new, and there is no room.
            MemberUnreachableError: No holder answered in time. It may have been set all the same.
        """
        return self._write(key, self._codec.encode(value))

    async def aput(self, key: MapKey, value: Any) -> CommitResult:
        """The same in a task of asyncio or trio. Cancelling is safe: it may have been set."""
        return await self._awrite(key, self._codec.encode(value))

    def remove(self, key: MapKey) -> CommitResult:
        """Remove an entry as :meth:`put` sets one.

        Raises:
            KeyError: There is none.
        """
        return self._write(key, None)

    async def aremove(self, key: MapKey) -> CommitResult:
        """The same in a task of asyncio or trio. Cancelling is safe: it may have been removed."""
        return await self._awrite(key, None)

    def _write(self, key: MapKey, data: bytes | None) -> CommitResult:
        refuse_in_event_loop(f"await map.{'aremove(key)' if data is None else 'aput(key, value)'}")
        name = _checked(key, data)
        manager = self._holder(name)
        if manager is None:
            reply = self._ask(Put(name, data)).result(self._timeout + self._wait_s)
            return self._written(key, data, reply)
        waiter = ThreadWaiter() if self._waits else None
        version = self._write_here(manager, key, name, data, waiter)
        result = None if waiter is None else waiter.wait(self._wait_s)
        return result or CommitResult(version, (), {} if waiter is None else _SILENT)

    async def _awrite(self, key: MapKey, data: bytes | None) -> CommitResult:
        name = _checked(key, data)
        manager = self._holder(name)
        if manager is None:
            reply = await result_of(self._ask(Put(name, data)), self._timeout + self._wait_s)
            return self._written(key, data, reply)
        waiter = async_waiter() if self._waits else None
        version = self._write_here(manager, key, name, data, waiter)
        result = None if waiter is None else await waiter.wait(self._wait_s)
        return result or CommitResult(version, (), {} if waiter is None else _SILENT)

    def _write_here(
        self, manager: MapManager, key: MapKey, name: str, data: bytes | None, waiter: Waiter | None
    ) -> int:
        if manager.entry_of(name) is None:
            if data is None:
                raise KeyError(key)
            if manager.table.live >= manager.max_entries:
                raise _full(self.name)
        return manager.write(name, data, waiter)

    def _written(self, key: MapKey, data: bytes | None, reply: MapReply) -> CommitResult:
        if reply.is_full:
            raise _full(self.name)
        if reply.result is None:
            assert data is None
            raise KeyError(key)
        return reply.result

    # Where entries are.

    def kind_of(self, key: MapKey) -> EntryKind:
        """What an entry of this key is on this member, whether or not there is one.

        Raises:
            ChannelClosedError: The channel is not running.
        """
        return self._core().kind_of(encode_key(key))

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the other members that have the map now."""
        return self._parts.presence.copies_on

    @property
    def is_joined(self) -> bool:
        """Whether the members with the map are known here, and what lies here is whole."""
        try:
            return self._core().is_joined
        except ChannelClosedError:
            return False

    def _core(self) -> LazyCore:
        presence = self._parts.presence
        if presence.revive is not None:
            presence.revive()
        group = self._host.channel if isinstance(self._host, BackgroundNode) else self._host
        lazy = group.shell.core.lazy_maps.get(presence.context) if group.is_running else None
        if lazy is None:
            raise ChannelClosedError("the channel is not running, or the map was closed")
        return lazy

    def _holder(self, name: str) -> MapManager | None:
        manager = self._parts.held.get(partition_of_entry(name))
        return manager if manager is not None and manager.is_joined else None

    def _local(self, key: MapKey, name: str) -> bytes | None:
        """The encoded value, if it lies here; None: ask the others."""
        manager = self._parts.held.get(partition_of_entry(name))
        entry = None if manager is None else manager.entry_of(name)
        if entry is not None:
            return entry.value
        if manager is not None and manager.is_joined:
            raise KeyError(key)
        return None

    def _value(self, key: MapKey, reply: MapReply) -> bytes:
        if reply.value is None:
            raise KeyError(key)
        return reply.value

    def _ask(self, request: Get | Put) -> Future[MapReply]:
        lazy = self._core()
        group = self._host.channel if isinstance(self._host, BackgroundNode) else self._host
        shell, token = group.shell, group.token
        future: Future[MapReply] = Future()

        def done(reply: MapReply | Exception) -> None:
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)

        def begin() -> None:
            try:
                if not group.is_running:
                    raise ChannelClosedError("the channel was stopped")
                lazy.questions.ask(request, self._timeout, shell.now(), done)
            except Exception as error:  # noqa: BLE001 - the caller's, in its own thread
                future.set_exception(error)
            shell.pump()

        now_or_soon(token, begin, ChannelClosedError("the channel was stopped"))
        return future


def _name(key: MapKey) -> str:
    try:
        return encode_key(key)
    except LocalProtocolError:
        raise KeyError(key) from None


def _checked(key: MapKey, data: bytes | None) -> str:
    if data is not None and len(data) > VALUE_MAX_BYTES:
        raise LocalProtocolError(
            f"the value of {key!r} has {len(data)} bytes; a map's has at most {VALUE_MAX_BYTES}"
        )
    return encode_key(key)


def _full(name: str) -> MapFullError:
    return MapFullError(f"the lazy map {name!r} has no room for a new key (max_entries)")
