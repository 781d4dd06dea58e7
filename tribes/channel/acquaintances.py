"""Who speaks the own link: shown by a mark in a heartbeat, in a frame, or by a link that is open.

A mark without a key proves nothing. It decides by which protocol a member is served, and a member
that does not answer by that one is served as plain Tribes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from tribes.channel.protection import Protection
    from tribes.links.introduction import Introduction
    from tribes.links.own_inbox import OwnInboxes
    from tribes.wire.member import Member

__all__ = ["INTRODUCED_MAX", "Acquaintances"]

INTRODUCED_MAX: Final = 1024
"""Members that are remembered for having shown their mark on a connection."""


@final
class Acquaintances:
    """What is known of members' protocols.

    Args:
        own_link: Whether this member speaks the own link.
        protection: What a key changes; None: there is none.
        inboxes: The members that have opened own links.
        is_marked: Whether a member's heartbeats carry a mark.
        came: Told of each member that something came from.
        upgrade: Told of a member that is now known to speak the own link.
        met: Told of a member that has opened a connection for more than a test.
    """

    def __init__(
        self,
        *,
        own_link: bool,
        protection: Protection | None,
        inboxes: OwnInboxes,
        is_marked: Callable[[Member], bool],
        came: Callable[[Member, float], None],
        upgrade: Callable[[Member, float], None],
        met: Callable[[Member, float], None],
    ) -> None:
        self._introduced: OrderedDict[Member, None] = OrderedDict()
        self._own_link = own_link
        self._protection = protection
        self._inboxes = inboxes
        self._is_marked = is_marked
        self._came = came
        self._upgrade = upgrade
        self._met = met

    def __len__(self) -> int:
        return len(self._introduced)

    def speaks_own(self, member: Member) -> bool:
        """Whether a member is to be served by the own link."""
        if self._protection is not None:
            # Also strangers: nothing is sent to those who do not prove the key.
            return not self._protection.admission.is_plain(member)
        return self._own_link and (
            self._is_marked(member)
            or member in self._introduced
            or self._inboxes.get(member.unique_id) is not None
        )

    def introduced(
        self, source: Member, introduction: Introduction, now: float, *, is_test: bool
    ) -> None:
        """A plain frame carried a mark; ``is_test``: it asks only whether we are there."""
        covered, mark = introduction
        if self._protection is not None:
            if self._protection.introduced(source, covered, mark, now) and not is_test:
                self._met(source, now)
        elif self._own_link and not mark.key_id:
            # Who signs speaks with those who have its key, and to others as a plain member.
            self._introduced[source] = None
            self._introduced.move_to_end(source)
            if len(self._introduced) > INTRODUCED_MAX:
                self._introduced.popitem(last=False)
            self._upgrade(source, now)
            if not is_test:
                self._met(source, now)

    def came_by_own_link(self, member: Member, now: float) -> None:
        """A member has opened an own link, and proved to be there."""
        self._came(member, now)
        if self._protection is not None:
            self._protection.opened(member)
        self._upgrade(member, now)
        self._met(member, now)

    def forget(self, member: Member) -> None:
        """A member is gone."""
        self._introduced.pop(member, None)
