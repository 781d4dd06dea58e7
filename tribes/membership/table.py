"""Who has been heard, and when: the one table behind all membership services.

Follows tribes-wire §6.1. A known member's heartbeat refreshes its time; its alive time, payload and
command are replaced only where the alive time differs, its domain and other ports never are. Where
the reference reports a farewell of members it never knew, this table does not.

A member that was met on a connection, or is configured, sends no heartbeats that arrive here: it is
*kept* by its answers instead. Known by several services, it is still one member, and any sign of
life counts. The domain and the ports of a member of ours do follow its record.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from tribes.membership.change import ChangeKind, MemberChange, RemovalReason

if TYPE_CHECKING:
    from tribes.wire.member import Member

__all__ = ["MembershipTable"]


MEMBERS_MAX = 1000
"""Members that are kept; a flood of made-up heartbeats ends here."""


class _Entry:
    __slots__ = ("beat", "first", "fixed", "heard", "is_kept", "is_marked", "member")

    def __init__(self, member: Member, heard: float, *, is_marked: bool) -> None:
        self.fixed = b""
        """The bytes of the newest record without its alive time, where they are known."""
        self.first = member
        self.member = member
        self.heard = heard
        self.is_marked = is_marked
        self.is_kept = False
        """Whether its answers count."""
        self.beat = -inf
        """When its last heartbeat arrived."""


class MembershipTable:
    """The members that a membership service has heard, the local one left out.

    Args:
        local: This process's own record; heartbeats equal to it are its own and are ignored.
        drop_time: Seconds without a heartbeat after which a member is reported as silent.
        answered: When a member last gave an answer on a connection; None: it is not known.
    """

    def __init__(
        self,
        local: Member,
        drop_time: float,
        *,
        answered: Callable[[Member], float | None] = lambda member: None,
    ) -> None:
        self._local = local
        self._drop_time = drop_time
        self._answered = answered
        self._entries: dict[bytes, _Entry] = {}
        """By :attr:`Member.key`: every heartbeat of every member looks here."""
        self.plain_count = 0
        """Members among them that are not ours."""
        self.kept_count = 0
        """Members among them that are kept by their answers."""
        self.refused = 0
        """Heartbeats of members that found no place."""

    def heard_again(self, record: Member, fixed: bytes, now: float) -> Member | None:
        """Take a heartbeat in if it is the usual one, of which nothing is new but its alive time.

        Args:
            record: What it says.
            fixed: Its bytes without the alive time.
            now: Monotonic seconds.

        Returns:
            The first record that was heard of the member: tables find the object that they were
            made with much faster than an equal one. None if ``heard`` has to look at it.
        """
        entry = self._entries.get(record.key)
        if entry is None or entry.fixed != fixed:
            return None
        entry.heard = entry.beat = now
        entry.member = record
        return entry.first

    def note_fixed(self, record: Member, fixed: bytes) -> None:
        """``heard`` has seen a record with these bytes: the next one may be the usual one."""
        entry = self._entries.get(record.key)
        if entry is not None and entry.member is record:
            entry.fixed = fixed

    def heard(self, record: Member, now: float, *, is_marked: bool = False) -> list[MemberChange]:
        """Take one heartbeat in; returns what it changed, in order.

        Args:
            record: What it says.
            now: Monotonic seconds.
            is_marked: Whether it carries our mark, so that its sender speaks the own link.
        """
        if record == self._local:
            return []
        entry = self._entries.get(record.key)
        if record.is_shutdown:
            return [] if entry is None else self._left(record)
        changes = self._take(record, now, is_marked=is_marked)
        entry = self._entries.get(record.key)
        if entry is not None:
            entry.beat = now
        return changes

    def met(self, record: Member, now: float, *, is_marked: bool = True) -> list[MemberChange]:
        """Take in a member that was met, or is configured: it is kept by its answers.

        Args:
            record: What it says of itself.
            now: Monotonic seconds.
            is_marked: Whether it is one of ours.
        """
        if record == self._local:
            return []
        changes = self._take(record, now, is_marked=is_marked)
        entry = self._entries.get(record.key)
        if entry is not None:
            self.kept_count += not entry.is_kept
            entry.is_kept = True
            if is_marked and not entry.is_marked:
                entry.is_marked = True
                self.plain_count -= 1
        return changes

    def is_kept(self, member: Member) -> bool:
        """Whether a member is kept by its answers."""
        entry = self._entries.get(member.key)
        return entry is not None and entry.is_kept

    def is_heard(self, member: Member, now: float) -> bool:
        """Whether heartbeats of a member arrive here."""
        entry = self._entries.get(member.key)
        return entry is not None and now - entry.beat <= self._drop_time

    def _take(self, record: Member, now: float, *, is_marked: bool) -> list[MemberChange]:
        entry = self._entries.get(record.key)
        if entry is not None:
            return self._refresh(entry, record, now)
        if len(self._entries) >= MEMBERS_MAX:
            self.refused += 1
            return []
        # Somebody else may be known at this address. Which of the two is there now no heartbeat can
        # tell, since old ones arrive late; the failure detector asks.
        self._entries[record.key] = _Entry(record, now, is_marked=is_marked)
        self.plain_count += not is_marked
        return [MemberChange(ChangeKind.ADDED, record)]

    def _refresh(self, entry: _Entry, record: Member, now: float) -> list[MemberChange]:
        entry.heard = now
        entry.fixed = b""
        known = entry.member
        if record.alive == known.alive:
            return []
        is_same = record.payload == known.payload and record.command == known.command
        if (
            record.domain == known.domain
            and record.secure_port == known.secure_port
            and record.udp_port == known.udp_port
        ):
            # The usual heartbeat: nothing of the known record is to be kept.
            entry.member = record
        elif entry.is_marked:
            entry.member, is_same = record, False
        else:
            entry.member = dataclasses.replace(
                known, alive=record.alive, payload=record.payload, command=record.command
            )
        if is_same:
            return []
        return [MemberChange(ChangeKind.UPDATED, entry.member)]

    def _left(self, record: Member) -> list[MemberChange]:
        return [self._remove(record, RemovalReason.LEFT)]

    def _remove(self, member: Member, reason: RemovalReason) -> MemberChange:
        entry = self._entries.pop(member.key)
        self.plain_count -= not entry.is_marked
        self.kept_count -= entry.is_kept
        return MemberChange(ChangeKind.REMOVED, entry.member, reason)

    def is_marked(self, member: Member) -> bool:
        """Whether a member's first heartbeat had our mark."""
        entry = self._entries.get(member.key)
        return entry is not None and entry.is_marked

    def forget(self, member: Member) -> None:
        """Drop a member without a report; its next heartbeat makes it new again."""
        if member.key in self._entries:
            self._remove(member, RemovalReason.NONE)

    def expire(self, now: float) -> list[MemberChange]:
        """Remove and report every member that gave no sign of life for more than ``drop_time``."""
        for entry in self._entries.values():
            if entry.is_kept:
                entry.heard = max(entry.heard, self._answered(entry.member) or -inf)
        silent = [e.member for e in self._entries.values() if now - e.heard > self._drop_time]
        return [self._remove(member, RemovalReason.SILENT) for member in silent]

    @property
    def next_expiry(self) -> float | None:
        """When the member that was heard longest ago becomes silent; None without members."""
        if not self._entries:
            return None
        return min(entry.heard for entry in self._entries.values()) + self._drop_time

    def members(self) -> list[Member]:
        """All members, the longest-lived first (tribes-wire §2.3)."""
        records = [entry.member for entry in self._entries.values()]
        records.sort(key=lambda member: -member.alive)
        return records

    def __contains__(self, member: Member) -> bool:
        return member.key in self._entries

    def __len__(self) -> int:
        return len(self._entries)
