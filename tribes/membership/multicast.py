"""Membership: multicast heartbeats, byte for byte Tomcat's ``McastService`` (tribes-wire §6.1), and
the members that other services find, in one table.

Every ``frequency`` milliseconds one datagram with the own member record goes to the group; whoever
is not heard for ``drop_time`` is silent. A silent member is only a candidate for removal: the
failure detector above asks it before anybody else is told.

While a plain member is in the group we are its guests: our alive times are negative and still grow,
so that Tomcat, which lists the longest-lived first and asks the first for its sessions, asks its
own kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from tribes.errors import RemoteProtocolError
from tribes.membership.change import ChangeKind, MemberChange, RemovalReason
from tribes.membership.table import MembershipTable
from tribes.security.mark import Marker, split
from tribes.wire.member import (
    MEMBER_BEGIN,
    SHUTDOWN_COMMAND,
    Member,
    decode_member,
    encode_member,
    patch_alive,
)
from tribes.wire.outputs import Datagram

if TYPE_CHECKING:
    from tribes.config.model import MembershipConfig
    from tribes.membership.admission import Admission
    from tribes.membership.introductions import Introductions
    from tribes.timers import Timer, Timers

__all__ = [
    "GUEST_BEHIND_MS",
    "Heartbeat",
    "MulticastMembership",
    "MulticastStatistics",
    "read_heartbeat",
]

GUEST_BEHIND_MS: Final = 1 << 52
"""How far a guest's alive time is behind the real one."""


class MulticastStatistics:
    """Counters of a membership service, plain ints."""

    __slots__ = ("heartbeats_received", "heartbeats_sent", "ignored", "malformed")

    def __init__(self) -> None:
        self.heartbeats_sent = 0
        self.heartbeats_received = 0
        self.malformed = 0
        self.ignored = 0


class Heartbeat(NamedTuple):
    """What a datagram says.

    Attributes:
        record: Of a member that somebody can be connected to.
        is_marked: Whether our mark follows that needs no key to be believed.
        fixed: The record's bytes without its alive time: equal in all usual heartbeats.
    """

    record: Member
    is_marked: bool
    fixed: bytes


def read_heartbeat(data: bytes) -> Heartbeat | None:
    """Read a datagram of the group; None when it is malformed, or nobody can be there."""
    try:
        record_bytes, mark = split(data)
        record = decode_member(data)
    except RemoteProtocolError:
        return None
    if not 1 <= record.port <= 65535 or len(record.host) not in (4, 16):
        return None
    is_marked = mark is not None and not mark.key_id
    return Heartbeat(record, is_marked, patch_alive(record_bytes, 0))


class MulticastMembership:
    """The membership service: heartbeats out, changes in.

    Args:
        local: The own record; its ``alive`` is replaced by the time since ``start``.
        config: Frequency and drop time.
        marker: Puts our mark behind each record, by which our members know each other; None: what
            is sent is plain Tomcat's.
        timers: Where it asks to be woken.
        emit: Takes the datagrams to send.
        changed: Takes every change, in order.
        heard: Told of every heartbeat, before what it changes.
        admission: With a key or TLS, judges what is heard; None: everything is believed.
        answered: When a member last gave an answer on a connection; None: it is not known.
    """

    def __init__(
        self,
        local: Member,
        config: MembershipConfig,
        *,
        marker: Marker | None,
        timers: Timers,
        emit: Callable[[Datagram], None],
        changed: Callable[[MemberChange, float], None],
        heard: Callable[[Member, float], None],
        admission: Admission | Introductions | None = None,
        answered: Callable[[Member], float | None] = lambda member: None,
    ) -> None:
        self.table = MembershipTable(local, config.drop_time / 1000, answered=answered)
        self.read: Callable[[bytes], Heartbeat | None] = read_heartbeat
        """Reads a datagram; the simulator, whose nodes all hear the same one, puts a cache here."""
        self.statistics = MulticastStatistics()
        self._local = local
        self._record = encode_member(local)
        self._marker = marker
        self._beats = config.multicast
        self._frequency = config.frequency / 1000
        self._timers = timers
        self._emit = emit
        self._changed = changed
        self._heard = heard
        self._admission = admission
        self._started: float | None = None
        self._last_alive: int | None = None
        self._beat: Timer | None = None
        self._expiry: Timer | None = None

    def start(self, now: float) -> None:
        """Send the first heartbeat and go on with one per ``frequency``, unless there is no
        multicast.
        """
        self._started = now
        if self._beats:
            self._heartbeat(now)

    def stop(self, now: float) -> None:
        """Tell the group that this member leaves in good order, once, and fall silent."""
        for timer in (self._beat, self._expiry):
            if timer is not None:
                timer.cancel()
        if self._started is None:
            return
        if self._beats:
            alive = self._alive(now)
            farewell = self._local.replace(command=SHUTDOWN_COMMAND, alive=alive)
            self._emit(Datagram(self._marked(encode_member(farewell))))
        self._started = None

    def set_local(self, local: Member, now: float) -> None:
        """Announce another payload, domain or command from now on, at once to begin with."""
        self._local = local
        self._record = encode_member(local)
        if self._started is not None and self._beats:
            if self._beat is not None:
                self._beat.cancel()
            self._heartbeat(now)

    def record(self, now: float) -> bytes:
        """The own record as it is now."""
        return patch_alive(self._record, self._alive(now))

    def _alive(self, now: float) -> int:
        if self._started is None:
            return 0
        alive = round((now - self._started) * 1000)
        return alive - GUEST_BEHIND_MS if self.table.plain_count else alive

    def _marked(self, record: bytes) -> bytes:
        return record if self._marker is None else self._marker.mark(record)

    def _heartbeat(self, now: float) -> None:
        alive = self._alive(now)
        if alive == self._last_alive:
            # Two in one millisecond: only what differs in its alive time is looked at.
            alive += 1
        self._last_alive = alive
        self._emit(Datagram(self._marked(patch_alive(self._record, alive))))
        self.statistics.heartbeats_sent += 1
        self._beat = self._timers.at(now + self._frequency, self._heartbeat)

    def datagram(self, data: bytes, now: float, *, host: str = "") -> None:
        """Take one datagram of the group in. What is no member record is counted and dropped.

        Args:
            data: The datagram.
            now: Monotonic seconds.
            host: Where it comes from; matters with a key only.
        """
        if self._started is None:
            return
        if not data.startswith(MEMBER_BEGIN):
            self.statistics.ignored += 1
            return
        if self._admission is not None:
            self._judge(self._admission, data, now, host)
            return
        heartbeat = self.read(data)
        if heartbeat is None:
            self.statistics.malformed += 1
            return
        self.statistics.heartbeats_received += 1
        # Who signs speaks with those who have its key, and to others as a plain member.
        record, is_marked, fixed = heartbeat
        known = self.table.heard_again(record, fixed, now)
        if known is not None:
            self._heard(known, now)
            if self._expiry is None:
                self._arm()
            return
        self._take(record, now, is_marked=is_marked)
        self.table.note_fixed(record, fixed)

    def _judge(
        self, admission: Admission | Introductions, data: bytes, now: float, host: str
    ) -> None:
        # What is signed by nobody is dropped before its record is read.
        try:
            signed_bytes, mark = split(data)
        except RemoteProtocolError:
            self.statistics.malformed += 1
            return
        is_signed = admission.verified(signed_bytes, mark, host, now)
        if is_signed is None:
            return
        heartbeat = self.read(data)
        if heartbeat is None:
            self.statistics.malformed += 1
            return
        self.statistics.heartbeats_received += 1
        if admission.hears(heartbeat.record, mark, is_signed=is_signed, now=now):
            self._take(heartbeat.record, now, is_marked=is_signed)

    def admit(self, record: Member, now: float) -> None:
        """Take in what was heard of a member before it proved itself."""
        if self._started is not None:
            self._take(record, now, is_marked=True)

    def met(self, record: Member, now: float, *, is_marked: bool = True) -> None:
        """Take in a member that was met on a connection, or a plain one that is configured."""
        if self._started is None:
            return
        for change in self.table.met(record, now, is_marked=is_marked):
            self._changed(change, now)
        if self._expiry is None:
            self._arm()

    def said_farewell(self, member: Member, now: float) -> None:
        """A member said on its link that it leaves in good order."""
        self.table.forget(member)
        self._changed(MemberChange(ChangeKind.REMOVED, member, RemovalReason.LEFT), now)

    def touch(self, record: Member, now: float) -> None:
        """Note that a member is not silent, by a heartbeat that anybody may have sent. That is no
        sign of life: who can send it for a member that hangs must not keep it from being suspected.
        """
        if self._started is not None:
            self._take_over(record, now, is_marked=True)

    def left(self, farewell: Member, now: float) -> None:
        """Take a farewell that turned out to be true."""
        if self._started is not None:
            self._take_over(farewell, now, is_marked=True)

    def replace(self, record: Member, now: float) -> None:
        """Take a member off whose address has another life: it has turned out to be one that signs,
        or its successor answers there.
        """
        self.table.forget(record)
        self._changed(MemberChange(ChangeKind.REMOVED, record, RemovalReason.REPLACED), now)

    def _take(self, record: Member, now: float, *, is_marked: bool) -> None:
        self._heard(record, now)
        self._take_over(record, now, is_marked=is_marked)

    def _take_over(self, record: Member, now: float, *, is_marked: bool) -> None:
        for change in self.table.heard(record, now, is_marked=is_marked):
            self._changed(change, now)
        if self._expiry is None:
            self._arm()

    def forget(self, member: Member) -> None:
        """Drop a member without a report: somebody above knows better than its heartbeats."""
        self.table.forget(member)
        if self._admission is not None:
            self._admission.forget(member)

    def _arm(self) -> None:
        when = self.table.next_expiry
        if when is not None:
            # Strictly after: the limit itself is still in time.
            self._expiry = self._timers.at(when + 0.001, self._expire)

    def _expire(self, now: float) -> None:
        self._expiry = None
        for change in self.table.expire(now):
            self._changed(change, now)
        if self._expiry is None:
            self._arm()
