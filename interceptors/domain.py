"""Members of other domains do not exist.

Tomcat's ``DomainFilterInterceptor`` (tribes-wire §7.6): several groups share one multicast address,
and each sees its own members and messages only. Nothing is added to the wire: the domain travels in
the member records, where ``channel.membership.domain`` puts it.

It keeps groups apart, not people: the domain of a record is what its sender says. For that there
are keys.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tribes.channel.chain import Interceptor, MembersNext, ReceiveNext
from tribes.channel.outputs import Notice
from tribes.errors import ConfigError
from tribes.membership.change import ChangeKind, MemberChange, RemovalReason
from tribes.wire.byte_array import parse_byte_array

if TYPE_CHECKING:
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member

__all__ = ["DomainFilterInterceptor", "parse_domain"]


def parse_domain(text: str) -> bytes:
    """Return the bytes of a domain: text, or ``{1,2,3}``.

    Raises:
        ConfigError: It has characters beyond ISO-8859-1, or what is in braces are no bytes.
    """
    if text.startswith("{"):
        return parse_byte_array(text)
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise ConfigError(f"{text!r} has characters that are not in ISO-8859-1") from None


class DomainFilterInterceptor(Interceptor):
    """Lets through what comes from members of one domain.

    Args:
        domain: Text, ``{1,2,3}`` or bytes (``domain``). Empty: members without a domain.
        log_interval: An event tells of the first message that is dropped and of every so many
            (``logInterval``).
        option_flag: Has no effect (``optionFlag``).
    """

    def __init__(
        self, *, domain: str | bytes = "", log_interval: int = 100, option_flag: int = 0
    ) -> None:
        if log_interval < 1:
            raise ConfigError(f"must be at least 1, found {log_interval}", key="log_interval")
        self.domain = domain if isinstance(domain, bytes) else _domain(domain)
        self.log_interval = log_interval
        self.option_flag = option_flag
        self.dropped = 0
        """Messages of other domains."""
        self._members: set[Member] = set()

    def check_local(self, local: Member) -> None:
        """Refuse a domain that the own member does not have: nobody would hear it.

        Raises:
            ConfigError: As it says.
        """
        if local.domain != self.domain:
            raise ConfigError(
                f"lets {_shown(self.domain)} through, but this member itself says that it is of "
                f"{_shown(local.domain)}, so no other would hear it; write the same text in "
                "channel.membership.domain",
                key="domain",
            )

    def receive(self, message: ChannelData, now: float, next: ReceiveNext) -> None:  # noqa: A002
        """Drop messages of other domains."""
        if message.source.domain == self.domain:
            next(message, now)
            return
        self.dropped += 1
        if self.dropped % self.log_interval == 1 or self.log_interval == 1:
            details: dict[str, object] = {
                "member": message.source.label,
                "domain": message.source.domain.decode("latin-1"),
                "dropped": self.dropped,
            }
            self.context.event(Notice("messages of another domain dropped", details))

    def on_members(self, change: MemberChange, now: float, next: MembersNext) -> None:  # noqa: A002
        """Hide members of other domains, and one that changes to another."""
        member = change.member
        fits = member.domain == self.domain
        if member in self._members:
            if change.kind is ChangeKind.REMOVED or not fits:
                self._members.discard(member)
                if change.kind is not ChangeKind.REMOVED:
                    change = MemberChange(ChangeKind.REMOVED, member, RemovalReason.LEFT)
            next(change, now)
        elif fits and change.kind is not ChangeKind.REMOVED:
            self._members.add(member)
            next(dataclasses.replace(change, kind=ChangeKind.ADDED), now)


def _domain(text: str) -> bytes:
    try:
        return parse_domain(text)
    except ConfigError as error:
        raise ConfigError(error.message, key="domain") from None


def _shown(domain: bytes) -> str:
    return f"the domain {domain.decode('latin-1')!r}" if domain else "no domain"
