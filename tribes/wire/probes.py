"""Messages that members send only to see whether another one listens (tribes-wire §7.8, §7.9).

Nobody should see them: a Tomcat stack without the interceptor that knows them hands them to its
listeners, ours drops them always.
"""

from __future__ import annotations

from typing import Final

__all__ = ["FAILURE_DETECTOR_PAYLOAD", "TCP_PING_PAYLOAD", "is_probe"]

FAILURE_DETECTOR_PAYLOAD: Final = bytes.fromhex(
    "4fa77348798243c99f6f8980a15b07147dd9525bebf1439ab77ebe8f81671eb6"
    "3715be87457e4ca8bf0a4d135338153255f694b73afa407891047dd77284c0d5"
)
"""What `TcpFailureDetector` writes on a connection that it opens as a test (Appendix B)."""

TCP_PING_PAYLOAD: Final = bytes.fromhex(
    "4fa7734879df43c99f6f8980a15b07147dd9525bebdf439ab77ebe8f81671eb6"
    "3715be8745214ca8bf0a4d135338153255f694b73adf217891047dd77284c0d5"
)
"""What `TcpPingInterceptor` sends at each heartbeat (Appendix B)."""

_PROBE_BYTES: Final = len(FAILURE_DETECTOR_PAYLOAD)


def is_probe(message: bytes) -> bool:
    """Whether a message is one of the two probes, and so must not reach a listener."""
    return len(message) == _PROBE_BYTES and message in (FAILURE_DETECTOR_PAYLOAD, TCP_PING_PAYLOAD)
