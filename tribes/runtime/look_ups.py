"""The look-ups that run beside a node: one task for each service that names hosts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio

from tribes.runtime.discovery import HostNames, run_service

if TYPE_CHECKING:
    from tribes.channel.outputs import Event
    from tribes.membership.seeker import NamedHost
    from tribes.runtime.discovery import DiscoveryService

__all__ = ["LookUps"]


class LookUps:
    """Runs the services, of which the names of static members may be replaced.

    Args:
        services: What to run from the start.
        discovered: Told what a service found, by its name.
        event: Takes the events.
    """

    def __init__(
        self,
        services: Sequence[DiscoveryService],
        *,
        discovered: Callable[[str, Sequence[NamedHost]], None],
        event: Callable[[Event], None],
    ) -> None:
        self._services = services
        self._discovered = discovered
        self._event = event
        self._names_scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None

    def start(self, nursery: trio.Nursery) -> None:
        """Begin to look up."""
        self._nursery = nursery
        for service in self._services:
            self._run(service)

    def stop(self) -> None:
        """Begin nothing new; what runs ends with its nursery."""
        self._nursery = None

    def replace_names(self, names: HostNames | None) -> None:
        """Look up these names of static members, instead of those before; None: there are none."""
        self._names_scope.cancel()
        if names is None:
            self._discovered(HostNames.name, ())
        else:
            self._run(names)

    def _run(self, service: DiscoveryService) -> None:
        if self._nursery is None:
            return
        scope = trio.CancelScope()
        if isinstance(service, HostNames):
            # Known before the task has begun: it may be replaced before that.
            self._names_scope = scope
        self._nursery.start_soon(self._look_up, service, scope)

    async def _look_up(self, service: DiscoveryService, scope: trio.CancelScope) -> None:
        with scope:
            await run_service(service, self._discovered, self._event)
