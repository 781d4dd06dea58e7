"""A map that all members share, as users meet it (Tomcat: ``ReplicatedMap``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import trio

from tribes.config.model import waits_for_members
from tribes.errors import ChannelClosedError
from tribes.manager.inbox import CommitResult
from tribes.maps.keys import MapKey
from tribes.maps.manager import ENTRIES_MAX
from tribes.runtime.background import BackgroundNode
from tribes.runtime.crossing import call_in_run
from tribes.runtime.waiters import ThreadWaiter, async_waiter, running_loop
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from tribes.manager.inbox import Waiter
    from tribes.manager.values import ValueCodec
    from tribes.runtime.group_channel import GroupChannel
    from tribes.runtime.map_listeners import MapListener
    from tribes.runtime.waiters import AsyncioWaiter, TrioWaiter

__all__ = ["ReplicatedMap", "run_in_channel"]

_BACKSTOP_S = 1.0
"""Added to ``commit_timeout``: the channel's thread answers within that, or it is dead."""

_SILENT = {"*": "the channel of this process does not answer"}


def run_in_channel(
    host: GroupChannel | BackgroundNode, call: Callable[[GroupChannel], None]
) -> None:
    """Let the running channel do something; one that starts later finds the maps itself.

    Raises:
        TimeoutError: It did not do so within 5 s.
        TribesError: What ``call`` raised; not where this thread runs an event loop, which must not
            wait.
    """
    try:
        group = host.channel if isinstance(host, BackgroundNode) else host
        token = group.token
    except ChannelClosedError:
        return
    if not group.is_running or token is None:
        return

    def run() -> None:
        if group.is_running:
            call(group)
            group.shell.pump()

    if trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is token:
        run()
        return
    try:
        future = call_in_run(token, run)
    except ChannelClosedError:
        return
    if running_loop() is None:
        future.result(_BACKSTOP_S + 4)


class ReplicatedMap(MutableMapping[MapKey, Any]):
    """A dictionary of which every member that opens one of the same name has a full copy.

    ::

        prices = ReplicatedMap(channel, "prices")
        prices["apple"] = 3                     # here at once, at the others soon
        await prices.aput("pear", 4)            # ... when the others have it
        prices.get("apple")

    Reading is a look-up in this process's memory. Of two writes to one key the later wins on all
    members, and a removal counts as a write; members that were split agree again after the split.
    Every value that is read is a copy: changing it changes nothing until it is set again.

    Keys are text of up to 254 characters, bytes or int, and keys of different types differ. Values
    are what session attributes can be, of up to 512 KiB. A removal is remembered for 40 minutes: a
    member that was cut off for longer may bring entries back.

    It may be used from any thread. A member that opens the map gets what the others have;
    ``is_joined`` tells when.

    Args:
        channel: A `GroupChannel` or a `BackgroundNode`, started or not.
        name: 1 to 240 characters, the same on all members.
        codec: Encodes values; None: the one of the channel's sessions.
        options: How changes are sent: 2 (default, as Tomcat's maps) or 6 make `put` wait for the
            members, 8 does not.
        max_entries: Entries beyond which a new key is refused here.
        listener: Told every change: ``MapChange`` for entries, ``MapMemberChange`` when a member
            opens or leaves the map. It may be slow: nobody waits for it.

    Raises:
        LocalProtocolError: The map is open in this process, or it cannot be a name.
    """

    def __init__(
        self,
        channel: GroupChannel | BackgroundNode,
        name: str,
        *,
        codec: ValueCodec | None = None,
        options: int = SendOptions.DEFAULT,
        max_entries: int = ENTRIES_MAX,
        listener: MapListener | None = None,
    ) -> None:
        self.name = name
        self._host = channel
        self._manager = manager = channel.sessions.add_map(name, codec=codec, options=int(options))
        manager.max_entries = max_entries
        config = manager.config
        self._waits = waits_for_members(config)
        self._wait_s = config.commit_timeout / 1000 + _BACKSTOP_S
        if listener is not None:
            channel.sessions.map_listeners.add(manager, listener)
        run_in_channel(
            self._host, lambda group: group.shell.core.open_map(manager, group.shell.now())
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take no part any more; the others keep the map. What was queued may not be sent."""
        manager = self._manager
        manager.on_change = None
        run_in_channel(
            self._host, lambda group: group.shell.core.close_map(manager, group.shell.now())
        )
        self._host.sessions.remove_map(manager)

    # The mapping.

    def __getitem__(self, key: MapKey) -> Any:
        return self._manager.value_of(key)

    def __setitem__(self, key: MapKey, value: Any) -> None:
        self._manager.put(key, value)

    def __delitem__(self, key: MapKey) -> None:
        self._manager.remove(key)

    def __contains__(self, key: object) -> bool:
        return self._manager.has(key)

    def __iter__(self) -> Iterator[MapKey]:
        return self._manager.entry_keys()

    def __len__(self) -> int:
        return self._manager.entry_count()

    def clear(self) -> None:
        """Remove every entry that is here now, those whose values cannot be read here too."""
        for key in self:
            with suppress(KeyError):
                del self[key]

    # Like other objects that live: equal to itself only.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}, {self._manager.table.live} entries>"

    # Waiting for the members.

    def put(self, key: MapKey, value: Any) -> CommitResult:
        """Set an entry; block this thread until the members have it, as the options say.

        Returns:
            Who has it, and who lacks it and why: those get it later. It stands here in any case.

        Raises:
            LocalProtocolError: It would block an event loop: use :meth:`aput`. Or the key or value
                cannot be used.
            AttributeNotEncodableError: The value has a type that no codec knows.
            MapFullError: The key is new, and there are ``max_entries``.
        """
        return self._blocking(lambda waiter: self._manager.put(key, value, waiter), "aput")

    async def aput(self, key: MapKey, value: Any) -> CommitResult:
        """The same in a task of asyncio or trio. Cancelling is safe: the entry stands."""
        return await self._awaiting(lambda waiter: self._manager.put(key, value, waiter))

    def remove(self, key: MapKey) -> CommitResult:
        """Remove an entry as :meth:`put` sets one.

        Raises:
            KeyError: There is none.
            LocalProtocolError: It would block an event loop: use :meth:`aremove`.
        """
        return self._blocking(lambda waiter: self._manager.remove(key, waiter), "aremove")

    async def aremove(self, key: MapKey) -> CommitResult:
        """The same in a task of asyncio or trio. Cancelling is safe: the removal stands."""
        return await self._awaiting(lambda waiter: self._manager.remove(key, waiter))

    def _blocking(self, write: Callable[[Waiter | None], int], instead: str) -> CommitResult:
        waiter = ThreadWaiter(f"await map.{instead}(...)") if self._must_wait else None
        version = write(waiter)
        result = None if waiter is None else waiter.wait(self._wait_s)
        return self._result(version, waiter, result)

    async def _awaiting(self, write: Callable[[Waiter | None], int]) -> CommitResult:
        waiter: AsyncioWaiter | TrioWaiter | None = async_waiter() if self._must_wait else None
        version = write(waiter)
        result = None if waiter is None else await waiter.wait(self._wait_s)
        return self._result(version, waiter, result)

    @property
    def _must_wait(self) -> bool:
        # Before the node starts there is nobody to wait for, and nobody who would answer.
        return self._waits and self._manager.replicator is not None

    def _result(
        self, version: int, waiter: object | None, result: CommitResult | None
    ) -> CommitResult:
        if result is not None:
            return result
        return CommitResult(version, (), {} if waiter is None else _SILENT)

    # The others.

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the other members that have the map now."""
        return self._manager.copies_on

    @property
    def is_joined(self) -> bool:
        """Whether this member has what the others had."""
        return self._manager.is_joined
