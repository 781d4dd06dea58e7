"""Attributes of an application that its members share (Tomcat: ``ReplicatedContext``, §11)."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, Final, final

from tribes.errors import AttributeNotEncodableError, LocalProtocolError
from tribes.runtime.replicated_map import ReplicatedMap

if TYPE_CHECKING:
    from tribes.manager.inbox import CommitResult
    from tribes.manager.values import ValueCodec
    from tribes.runtime.background import BackgroundNode
    from tribes.runtime.group_channel import GroupChannel

__all__ = ["ApplicationAttributes"]

_PREFIX: Final = "attributes:"


@final
class ApplicationAttributes(MutableMapping[str, Any]):
    """The attributes of one application, the same on all members that have these of it.

    ::

        attributes = ApplicationAttributes(node, "shop")
        attributes["rate"] = 0.25
        attributes["rate"] = None        # removes it

    They are a `ReplicatedMap`: a late member gets them, the later write wins, what is read is a
    copy. A value that cannot be encoded stays in this process, without an error, and hides what
    the others have under its name.

    Args:
        node: A `GroupChannel` or a `BackgroundNode`, started or not.
        context: Name of the application; its settings are ``context.<name>.attributes``.
        codec: Encodes values; None: the one of the node's sessions.

    Raises:
        LocalProtocolError: They are open in this process already.
    """

    def __init__(
        self,
        node: GroupChannel | BackgroundNode,
        context: str,
        *,
        codec: ValueCodec | None = None,
    ) -> None:
        own = node.config.context.get(context)
        options = 2 if own is None or own.attributes is None else own.attributes.map_send_options
        self._shared = ReplicatedMap(node, _PREFIX + context, codec=codec, options=options)
        self._local: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name in self._local:
            return self._local[name]
        return self._shared[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if value is None:
            self.pop(name, None)
            return
        try:
            self._shared[name] = value
        except AttributeNotEncodableError:
            self._local[name] = value
        else:
            self._local.pop(name, None)

    def __delitem__(self, name: str) -> None:
        was_local = self._local.pop(name, self) is not self
        try:
            del self._shared[name]
        except KeyError:
            if not was_local:
                raise

    def __iter__(self) -> Iterator[str]:
        names = {name for name in self._shared if isinstance(name, str)}
        yield from names | set(self._local)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self._local or name in self._shared

    def put(self, name: str, value: Any) -> CommitResult:
        """Set one and block this thread until the members have it, as ``map_send_options`` says.

        Raises:
            LocalProtocolError: It would block an event loop: use :meth:`aput`. Or the value is
                None: nobody waits for a removal.
            AttributeNotEncodableError: The value can only stay here: set it without waiting.
        """
        _check(value)
        result = self._shared.put(name, value)
        self._local.pop(name, None)
        return result

    async def aput(self, name: str, value: Any) -> CommitResult:
        """The same in a task of asyncio or trio. Cancelling is safe: it stands."""
        _check(value)
        result = await self._shared.aput(name, value)
        self._local.pop(name, None)
        return result

    def close(self) -> None:
        """Take no part any more; the others keep them."""
        self._shared.close()

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the other members that have them now."""
        return self._shared.members

    @property
    def is_joined(self) -> bool:
        """Whether this member has what the others had."""
        return self._shared.is_joined

    def __repr__(self) -> str:
        return f"<ApplicationAttributes {self._shared.name!r}, {len(self)} of them>"


def _check(value: Any) -> None:
    if value is None:
        raise LocalProtocolError("None removes an attribute, and nobody waits for that: set it")
