"""What the wire layer accepts at most. Every bound has a name here and says where it comes from.

Tomcat bounds almost nothing that it reads (tribes-wire §12), so most of these are our own. They are
checked before anything is allocated or parsed.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "CONTROL_MESSAGE_MAX_BYTES",
    "CONTROL_NESTING_MAX",
    "DATAGRAM_MAX_BYTES",
    "FRAME_BODY_MAX_BYTES",
    "HOST_MAX_BYTES",
    "MEMBER_LABEL_MAX_BYTES",
    "MEMBER_RECORD_MAX_BYTES",
    "RECORD_CACHE_ENTRIES_MAX",
    "RECORD_CACHE_RECORD_MAX_BYTES",
    "UNIQUE_ID_MAX_BYTES",
]

FRAME_BODY_MAX_BYTES: Final = 16 * 1024 * 1024
"""Largest frame body that a decoder takes by default. Tomcat has no bound: the length field reaches
2 GiB, and one connection may claim all of it. 16 MiB holds any session that is fit to replicate and
the state transfers that Tomcat sends in blocks."""

DATAGRAM_MAX_BYTES: Final = 65_507
"""Largest UDP payload over IPv4: 65,535 less the IP and UDP headers. Tomcat checks only for 65,535
and leaves the rest to the operating system's refusal (tribes-wire §2.1, §6.1)."""

MEMBER_RECORD_MAX_BYTES: Final = 65_535
"""Largest member record, as in Tomcat when a payload is set (tribes-wire §2.1). A heartbeat must
also stay within ``DATAGRAM_MAX_BYTES``."""

HOST_MAX_BYTES: Final = 127
"""Host octets in a member record: their count is one signed byte (tribes-wire §2). Real ones have
0, 4 or 16."""

UNIQUE_ID_MAX_BYTES: Final = 64
"""Longest message id. Tomcat makes 16 bytes but reads any length; ids are kept in tables of what
was seen, so what a peer can put there is bounded."""

MEMBER_LABEL_MAX_BYTES: Final = 64
"""Longest payload that is shown as a member's label in logs and listings."""

RECORD_CACHE_ENTRIES_MAX: Final = 256
"""Source records whose parsed member is kept. A Tomcat peer changes its record with each heartbeat,
so this covers a group of some dozens of members between two heartbeats."""

RECORD_CACHE_RECORD_MAX_BYTES: Final = 1024
"""Longest record that is kept: the whole cache then holds at most 256 KiB of a peer's bytes."""

CONTROL_MESSAGE_MAX_BYTES: Final = FRAME_BODY_MAX_BYTES
"""Largest control message. It travels in one frame, so the frame's bound is its bound."""

CONTROL_NESTING_MAX: Final = 32
"""Deepest nesting of lists and maps in a control message. Ours use few levels; msgpack would allow
1,024, and comparing or showing such a value exceeds Python's own recursion limit."""
