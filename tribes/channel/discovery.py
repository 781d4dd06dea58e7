"""Members beyond multicast: found by name, met on a connection, told by others (DESIGN §4.3).

How the parts work together::

    a service names a host ──▶ Seeker ──▶ Challenges.meet ──▶ the member introduces itself
                                 ▲                                        │
    a member connects to us ─────┤                          membership table, failure detector
    PeerExchange ────────────────┤                                        │
    a member was lost ───────────┘             its link opens ◀── view ◀──┘

With a group key the introduction is proved (:mod:`tribes.links.challenge`); without one the failure
detector asks the member once more, as after a heartbeat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, final

from tribes.channel.exchange import PeerExchange
from tribes.errors import RemoteProtocolError
from tribes.ids import parse_unique_id
from tribes.links.news import decode_record, encode_record
from tribes.links.own_wire import Control
from tribes.membership.change import RemovalReason
from tribes.membership.seeker import NamedHost, Seeker
from tribes.membership.table import MEMBERS_MAX
from tribes.wire.member import Member, host_octets

if TYPE_CHECKING:
    from tribes.channel.protection import Protection
    from tribes.config.model import ChannelConfig, StaticMemberConfig
    from tribes.links.challenge import Challenges, Introduction
    from tribes.membership.multicast import MulticastMembership
    from tribes.membership.view import View
    from tribes.timers import Timers

__all__ = ["Discovery", "static_hosts"]

_MULTICAST_FIRST_S: Final = 1.0
"""How long multicast may take to announce a member that has connected already, where nothing but
multicast is configured."""


def static_hosts(members: Iterable[StaticMemberConfig]) -> list[NamedHost]:
    """Return the hosts of a static configuration that are given by address, not by name."""
    hosts = []
    for each in members:
        try:
            octets = host_octets(each.host)
        except ValueError:
            continue  # a name: the runtime looks it up
        member = None
        if each.unique_id:
            member = Member(
                octets,
                each.port,
                parse_unique_id(each.unique_id),
                secure_port=each.secure_port,
                udp_port=each.udp_port,
                domain=each.domain.encode("latin-1"),
            )
        host = Member(octets, each.port, bytes(16)).host_text
        hosts.append(NamedHost(host, each.port, 1 if member else each.auto_bind, member))
    return hosts


@final
class Discovery:
    """The search for members, and what members tell each other of others.

    Args:
        local: The own record.
        config: Who is named, and whether there is multicast.
        challenges: Asks who is at an address.
        protection: With a key, judges the answer.
        membership: Takes in who was found.
        timers: Where it asks to be woken.
        view: The members.
        tell: Tells a member news on its link; False when it has none.
    """

    def __init__(
        self,
        local: Member,
        config: ChannelConfig,
        *,
        challenges: Challenges,
        protection: Protection | None,
        membership: MulticastMembership,
        timers: Timers,
        view: Callable[[], View],
        tell: Callable[[Member, bytes, float], bool],
    ) -> None:
        self.seeker: Final = Seeker(
            local.address,
            local.unique_id,
            timers=timers,
            meet=self._meet,
            announce=self._announce,
        )
        self.exchange: Final = PeerExchange(
            local,
            timers=timers,
            members=lambda: view().members,
            is_heard=membership.table.is_heard,
            tell=tell,
            hint=self.seeker.hint,
        )
        self._local = local
        self._config = config
        self._challenges = challenges
        self._protection = protection
        self._membership = membership
        self._view = view
        self._tell = tell
        self._met: dict[Member, None] = {}
        """Members that were met; those that were heard only are not among them."""

    def discovered(self, service: str, hosts: Iterable[NamedHost], now: float) -> None:
        """Take all hosts that a service names now."""
        self.seeker.named(service, hosts, now)

    def stop(self) -> None:
        """Look for nobody any more, and tell nothing."""
        self.seeker.stop()
        self.exchange.stop()

    def came(self, source: Member, now: float) -> None:
        """Somebody opened a link to us who is no member here: it is asked at its address."""
        if source in self._view():
            return
        waits = self._config.membership.multicast and not self.seeker.has_names
        self.seeker.hint(source.address, now, delay=_MULTICAST_FIRST_S if waits else 0.0)

    def joined(self, member: Member, now: float) -> None:
        """A member is new in the view."""
        self.seeker.joined(member.address)
        self.exchange.joined(member, now)

    def gone(self, member: Member, reason: RemovalReason, now: float) -> None:
        """A member is not in the view any more."""
        is_over = reason in (RemovalReason.LEFT, RemovalReason.REPLACED)
        # One that was never met has heartbeats to bring it back.
        was_met = member in self._met
        self._met.pop(member, None)
        self.seeker.lost(member.address, now, has_left=is_over or not was_met)
        self.exchange.gone(member)

    def introduced(self, record: Member, now: float) -> None:
        """A plain member says itself that it is there, other than by heartbeats."""
        if record != self._local and not record.is_shutdown:
            self._announce(record, now)

    def answers_again(self, member: Member, now: float) -> None:
        """A member that was silent answers: the failure detector need not test it any more."""
        if member in self._met and member not in self._membership.table:
            self._membership.met(member, now)

    def news(self, source: Member, kind: int, body: bytes, now: float) -> None:
        """A member told something on its link.

        Raises:
            RemoteProtocolError: It is malformed, or speaks for another member.
        """
        if kind == Control.PEERS:
            self.exchange.received(source, body, now)
        elif kind == Control.LEAVE:
            if source in self._view():
                self._membership.said_farewell(source, now)
        else:
            record = decode_record(body)
            if record != source or record.is_shutdown:
                raise RemoteProtocolError("a record of another member")
            if source in self._view():
                self._membership.met(record, now)

    def announce(self, record: bytes, now: float) -> None:
        """Tell the members that multicast does not reach the own record, which has changed."""
        for member in self._view().members:
            if not self._membership.table.is_heard(member, now):
                self._tell(member, encode_record(record), now)

    # Meetings.

    def _meet(
        self, address: tuple[str, int], answer: Callable[[Member | None, float], None]
    ) -> None:
        def answered(result: Introduction | Exception, now: float) -> None:
            if isinstance(result, Exception) or result.record.is_shutdown:
                answer(None, now)
                return
            record = result.record
            answer(record, now)
            if record.address == address and record != self._local:
                self._admit(result, now)

        self._challenges.meet(address, answered)

    def _admit(self, met: Introduction, now: float) -> None:
        self._met[met.record] = None
        if len(self._met) > MEMBERS_MAX:
            del self._met[next(iter(self._met))]
        if self._protection is None:
            self._membership.met(met.record, now)
        else:
            self._protection.met(met.record, met.life, now, self._membership.met)

    def _announce(self, record: Member, now: float) -> None:
        # A plain member that is configured: who is there is for the failure detector to find out.
        protection = self._protection
        if protection is None or protection.admission.may_speak_plainly(record):
            self._membership.met(record, now, is_marked=False)
