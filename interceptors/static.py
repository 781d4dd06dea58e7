"""Members that are configured, beside those that announce themselves.

Tomcat's ``StaticMembershipInterceptor`` (tribes-wire §7.7). The configured members are reported to
the layers above, where the `TcpFailureDetector` asks each whether it is there; one that is not is
reported again every ``retry_interval``. Members tell each other when they start and stop, so nobody
has to wait for that.

A static member is known by its unique id as well as by its address, so the own id must be the one
that the others have configured: ``local_member`` gives it to the own record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tribes.channel.chain import Interceptor, ReceiveNext
from tribes.channel.tickets import Outgoing, Ticket
from tribes.errors import ConfigError
from tribes.ids import UNIQUE_ID_BYTES
from tribes.interceptors.domain import parse_domain
from tribes.membership.change import ChangeKind, MemberChange, RemovalReason
from tribes.wire.byte_array import parse_byte_array
from tribes.wire.member import SHUTDOWN_COMMAND, Member, host_octets

if TYPE_CHECKING:
    from tribes.wire.data import ChannelData

__all__ = [
    "START_MESSAGE",
    "STOP_MESSAGE",
    "StaticMembershipInterceptor",
    "adopt_local_member",
    "parse_static_member",
]

START_MESSAGE = b"Local StaticMember Notification Data"
STOP_MESSAGE = b"Local StaticMember Shutdown Data"

STATIC_MEMBERS_MAX = 1000


class StaticMembershipInterceptor(Interceptor):
    """Reports configured members, and tells them of the own start and end.

    Args:
        members: The others (nested ``Member``).
        local_member: What the others have configured for this one (nested ``LocalMember``); its
            unique id and domain become the own ones. None: the own record stays as it is.
        retry_interval: Milliseconds after which a member that did not answer is asked again.
        option_flag: Options of the messages that tell of start and end (``optionFlag``).
    """

    def __init__(
        self,
        *,
        members: Sequence[Member] = (),
        local_member: Member | None = None,
        retry_interval: int = 1000,
        option_flag: int = 0,
    ) -> None:
        if retry_interval < 1:
            raise ConfigError(f"must be at least 1, found {retry_interval}", key="retry_interval")
        if len(members) > STATIC_MEMBERS_MAX:
            raise ConfigError(
                f"must be at most {STATIC_MEMBERS_MAX}, found {len(members)}", key="members"
            )
        self.members = tuple(dict.fromkeys(members))
        self.local_member = local_member
        self.retry_interval = retry_interval
        self.option_flag = option_flag
        self._others: dict[Member, Member] = {}

    def start(self, now: float) -> None:
        """Report the configured members."""
        # The own record may be among them, so that all nodes can have the same list.
        self._others = {m: m for m in self.members if m != self.context.local}
        self._announce(now)

    def stop(self, now: float) -> None:
        """Tell all members that this one ends."""
        self._tell(self.context.view.members, STOP_MESSAGE, now)

    def on_view(self, change: MemberChange, now: float) -> None:
        """Tell a configured member of the own start when it is found alive."""
        if change.kind is ChangeKind.ADDED and change.member in self._others:
            self._tell((change.member,), START_MESSAGE, now)

    def receive(self, message: ChannelData, now: float, next: ReceiveNext) -> None:  # noqa: A002
        """Take what configured members tell of themselves; pass everything else on."""
        if message.message not in (START_MESSAGE, STOP_MESSAGE):
            next(message, now)
            return
        member = self._others.get(message.source)
        if member is None:
            return
        if message.message == STOP_MESSAGE:
            gone = member.replace(command=SHUTDOWN_COMMAND)
            self.report(MemberChange(ChangeKind.REMOVED, gone, RemovalReason.LEFT), now)
        elif member not in self.context.view.members:
            self.report(MemberChange(ChangeKind.ADDED, member), now)

    def _announce(self, now: float) -> None:
        if self.context.is_shut_down():
            return
        known = frozenset(self.context.view.members)
        for member in self._others:
            if member not in known:
                self.report(MemberChange(ChangeKind.ADDED, member), now)
        self.context.timers.at(now + self.retry_interval / 1000, self._announce)

    def _tell(self, members: tuple[Member, ...], text: bytes, now: float) -> None:
        if members:
            data = self.context.new_message(text, self.option_flag)
            self.send_own(Outgoing(data, members, Ticket(members)), now)


def adopt_local_member(local: Member, interceptors: Iterable[Interceptor]) -> Member:
    """Return the own record with the unique id and domain that a static configuration gives it.

    Raises:
        ConfigError: The configuration is for another address or port.
    """
    for each in interceptors:
        if not isinstance(each, StaticMembershipInterceptor) or each.local_member is None:
            continue
        wanted = each.local_member
        if (wanted.host, wanted.port) != (local.host, local.port):
            raise ConfigError(
                f"is {wanted.host_text}:{wanted.port}, but this member listens on "
                f"{local.host_text}:{local.port}; others would look for it in vain",
                key="local_member",
            )
        domain = wanted.domain or local.domain
        local = local.replace(unique_id=wanted.unique_id, domain=domain)
    return local


_PORTS = ("port", "secure_port", "udp_port")
_NAMES = {"securePort": "secure_port", "udpPort": "udp_port", "uniqueId": "unique_id"}
_FIELDS = ("host", *_PORTS, "domain", "unique_id")


def parse_static_member(
    table: Mapping[str, Any], *, resolve: Callable[[str], bytes] = host_octets
) -> Member:
    """Return the member that a table describes, with Tomcat's names or ours (tribes-wire §9.4).

    Args:
        table: ``host``, ``port``, ``uniqueId`` and perhaps ``domain``, ``securePort``, ``udpPort``.
        resolve: Gives the octets of a host that is not written as ``{127,0,0,1}``.

    Raises:
        ConfigError: A field is missing or cannot be used; ``key`` says which.
    """
    given: dict[str, Any] = {_NAMES.get(name, name): value for name, value in table.items()}
    given.pop("className", None)
    for name in given:
        if name not in _FIELDS:
            raise ConfigError(f"is unknown; there are {', '.join(_FIELDS)}", key=name)
    for name in ("host", "port", "unique_id"):
        if name not in given:
            raise ConfigError(
                "is missing; a static member needs host, port and unique_id", key=name
            )
    fields: dict[str, Any] = {"host": _host(given["host"], resolve)}
    for name in _PORTS:
        if name in given:
            fields[name] = _port(name, given[name], least=1 if name == "port" else -1)
    fields["unique_id"] = _unique_id(given["unique_id"])
    try:
        fields["domain"] = parse_domain(given.get("domain", ""))
    except ConfigError as error:
        raise ConfigError(error.message, key="domain") from None
    return Member(**fields)


def _host(text: Any, resolve: Callable[[str], bytes]) -> bytes:
    try:
        if isinstance(text, str) and text.startswith("{"):
            return parse_byte_array(text)
        return resolve(text)
    except (ConfigError, ValueError, OSError) as error:
        raise ConfigError(
            f"{text!r} cannot be used ({error}); write an address like 192.0.2.1", key="host"
        ) from None


def _port(name: str, value: Any, *, least: int) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -2
    if not least <= number <= 65535:
        raise ConfigError(f"must be a port from {least} to 65535, found {value!r}", key=name)
    return number


def _unique_id(value: Any) -> bytes:
    try:
        octets = parse_byte_array(value) if isinstance(value, str) else bytes(value)
    except (ConfigError, TypeError, ValueError):
        octets = b""
    if len(octets) != UNIQUE_ID_BYTES:
        raise ConfigError(
            f"must have {UNIQUE_ID_BYTES} bytes, like {{0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15}}; "
            f"found {value!r}",
            key="unique_id",
        )
    return octets
