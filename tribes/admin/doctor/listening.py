"""Sends to the multicast group and listens to it, for some seconds.

What is sent is no member record, so members and Tomcat drop it without a word; another doctor that
listens at the same time knows it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

import trio

from tribes.errors import RemoteProtocolError
from tribes.runtime.sockets import multicast_receiver, multicast_sender
from tribes.security.mark import Verdict, split, verify
from tribes.wire.limits import DATAGRAM_MAX_BYTES
from tribes.wire.member import decode_member

if TYPE_CHECKING:
    from tribes.config.model import MembershipConfig
    from tribes.security.keys import KeyRing
    from tribes.wire.member import Member

__all__ = ["Heard", "Listening", "listen_to_group"]

_GREETING: Final = b"TRIBES-DOCTOR 1 "
_NONCE_BYTES: Final = 8
_EVERY_S: Final = 0.2
_DATAGRAMS_AT_ONCE: Final = 64
_MEMBERS_MAX: Final = 1000


@final
@dataclass(frozen=True, slots=True)
class Heard:
    """A member by its last heartbeat.

    Attributes:
        member: Its record.
        key_id: The key that signs it; 0: none does.
        verdict: What the signature is worth here; None: this side has no key.
    """

    member: Member
    key_id: int
    verdict: Verdict | None


@final
@dataclass(slots=True)
class Listening:
    """What was heard.

    Attributes:
        sent: Datagrams that left.
        returned: Own ones that came back.
        members: Members by unique id.
        doctors: Names of machines where a doctor listens at the same time.
        error: Why sending stopped; empty: it did not.
    """

    sent: int = 0
    returned: int = 0
    members: dict[bytes, Heard] = field(default_factory=dict)
    doctors: set[str] = field(default_factory=set)
    error: str = ""


async def listen_to_group(
    config: MembershipConfig, keys: KeyRing | None, seconds: float
) -> Listening:
    """Send and listen.

    Raises:
        ConfigError: The group cannot be joined, or nothing can be sent to it.
    """
    found = Listening()
    nonce = os.urandom(_NONCE_BYTES)
    greeting = _GREETING + nonce + socket.gethostname().encode("ascii", "replace")[:64]
    with (
        contextlib.closing(multicast_receiver(config)) as receiver,
        contextlib.closing(multicast_sender(config)) as sender,
        trio.move_on_after(seconds),
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hear, receiver, nonce, keys, found)
            while True:
                try:
                    sender.sendto(greeting, (config.address, config.port))
                    found.sent += 1
                except OSError as why:
                    found.error = why.strerror or str(why)
                await trio.sleep(_EVERY_S)
    return found


async def _hear(
    receiver: socket.socket, nonce: bytes, keys: KeyRing | None, found: Listening
) -> None:
    while True:
        await trio.lowlevel.wait_readable(receiver)
        for _ in range(_DATAGRAMS_AT_ONCE):
            try:
                data = receiver.recv(DATAGRAM_MAX_BYTES)
            except OSError:
                break
            if data.startswith(_GREETING):
                _greeted(data[len(_GREETING) :], nonce, found)
                continue
            with contextlib.suppress(RemoteProtocolError):
                _heard(data, keys, found)


def _greeted(greeting: bytes, nonce: bytes, found: Listening) -> None:
    if greeting.startswith(nonce):
        found.returned += 1
    elif len(found.doctors) < _MEMBERS_MAX:
        name = greeting[_NONCE_BYTES:].decode("ascii", "replace")[:64]
        found.doctors.add("".join(c if c.isprintable() else "?" for c in name))


def _heard(data: bytes, keys: KeyRing | None, found: Listening) -> None:
    record, mark = split(data)
    member = decode_member(record)
    if member.is_shutdown:
        found.members.pop(member.unique_id, None)
        return
    if member.unique_id in found.members or len(found.members) < _MEMBERS_MAX:
        verdict = None if keys is None else verify(record, mark, keys)
        key_id = 0 if mark is None else mark.key_id
        found.members[member.unique_id] = Heard(member, key_id, verdict)
