"""What a core asks its driver to do with the network.

A core never touches a socket. Each of its inputs appends outputs to one list; the driver takes the
list and acts on all of it, in order, before it gives the next input (DESIGN §2.2). The driver adds
no rule of its own: timeouts, retries and back-pressure are decided by who made the output.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "Close",
    "Connect",
    "Datagram",
    "NetworkOutput",
    "Pause",
    "Probe",
    "Resume",
    "UdpDatagram",
    "Write",
]


@dataclass(slots=True)
class Datagram:
    """Send ``data`` as one UDP datagram to the membership group. Loss is normal, errors are not
    reported back.
    """

    data: bytes


@dataclass(slots=True)
class UdpDatagram:
    """Send ``data`` as one UDP datagram to one address, from the own UDP port if there is one: the
    answer comes to where it left from. Errors are not reported back.
    """

    address: tuple[str, int]
    data: bytes


@dataclass(slots=True)
class Connect:
    """Open a TCP connection; answered by ``link_opened(link, attempt=…)`` or ``connect_failed``.

    Attributes:
        attempt: Names this attempt in the answer.
        address: Host text and port.
        timeout: Seconds until the driver gives up.
    """

    attempt: int
    address: tuple[str, int]
    timeout: float


@dataclass(slots=True)
class Write:
    """Put these bytes on a link, after everything written to it before.

    The driver reports by ``writable(link, total, now)`` how many bytes of the link the operating
    system has taken in all.
    """

    link: int
    chunks: list[bytes]


@dataclass(slots=True)
class Close:
    """Close a link. No ``link_closed`` follows: who asks for the end knows of it.

    Attributes:
        link: Which one.
        flush: Try to hand over first what was written to it.
        abort: Reset the connection. What the kernel has taken and the peer has not got is thrown
            away: what is sent again on another connection must not arrive late by this one.
    """

    link: int
    flush: bool = False
    abort: bool = False


@dataclass(slots=True)
class Pause:
    """Stop reading from a link: what it carries is not processed fast enough."""

    link: int


@dataclass(slots=True)
class Resume:
    """Read from a paused link again."""

    link: int


@dataclass(slots=True)
class Probe:
    """Test on a fresh connection whether somebody answers; answered by ``probe_result``.

    Attributes:
        probe: Names this test in the answer.
        address: Host text and port.
        data: Bytes to write once connected; empty: the connection alone is the test.
        expect_reply: Whether at least one byte must come back.
        connect_timeout: Seconds for the connection.
        reply_timeout: Seconds for the reply.
    """

    probe: int
    address: tuple[str, int]
    data: bytes
    expect_reply: bool
    connect_timeout: float
    reply_timeout: float


NetworkOutput = Datagram | UdpDatagram | Connect | Write | Close | Pause | Resume | Probe
