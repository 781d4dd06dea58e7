"""Tomcat's attributes of interceptors (tribes-wire §9.8).

A key here is that of the interceptor's table in ``channel.interceptors``.
"""

from __future__ import annotations

from typing import Final

from tribes.config.tomcat.attributes import Attribute, Table, honoured, refused, unused

__all__ = ["INTERCEPTOR_TABLES"]

_NO_THREADS: Final = "there are no threads here whose number it could set"
_NO_COPY: Final = "messages are never changed here, so none needs a copy"

_FLAG: Final = honoured(
    "optionFlag", "0", "options", "option_flag", "messages that pass: those with this send option"
)


def _times(name: str, default: str, meaning: str) -> Attribute:
    return honoured(name, default, "int", _snake(name), meaning)


def _truth(name: str, default: str, meaning: str) -> Attribute:
    return honoured(name, default, "bool", _snake(name), meaning)


def _snake(name: str) -> str:
    return "".join(f"_{each.lower()}" if each.isupper() else each for each in name)


_DISPATCH: Final[Table] = (
    unused("optionFlag", "8", "messages that are queued", "Tomcat ignores it too", "8"),
    refused(
        "alwaysSend",
        "true",
        "send at once what does not fit into the queue",
        "a full queue makes senders wait for queue_timeout instead",
    ),
    _times("maxQueueSize", "67108864", "bytes that may be queued"),
    unused("maxThreads", "10", "threads that send", _NO_THREADS),
    unused("maxSpareThreads", "2", "idle threads kept", _NO_THREADS),
    unused("keepAliveTime", "5000", "ms until an idle thread ends", _NO_THREADS),
    unused("useDeepClone", "true", "copy queued messages", _NO_COPY),
)

INTERCEPTOR_TABLES: Final[dict[str, Table]] = {
    "MessageDispatchInterceptor": _DISPATCH,
    "MessageDispatch15Interceptor": _DISPATCH,
    "TcpFailureDetector": (
        _FLAG,
        _times("connectTimeout", "1000", "ms a connection to a silent member may take"),
        _truth("performSendTest", "true", "send a question on it"),
        _truth("performReadTest", "false", "demand the answer"),
        _times("readTestTimeout", "5000", "ms it may take"),
        _times("removeSuspectsTimeout", "300", "seconds until a suspect is removed"),
    ),
    "TcpPingInterceptor": (
        _FLAG,
        _times("interval", "1000", "ms between two pings"),
        _truth("useThread", "false", "ping by a timer of its own, not by the heartbeat"),
        _truth("staticOnly", "false", "ping static members only"),
    ),
    "DomainFilterInterceptor": (
        _FLAG,
        honoured("domain", "empty", "domain", "domain", "the domain whose members are seen"),
        _times("logInterval", "100", "messages of others between two lines of log"),
    ),
    "FragmentationInterceptor": (
        _FLAG,
        _times("maxSize", "102400", "bytes of a piece"),
        _times("expire", "60000", "ms that pieces wait for the others"),
    ),
    "GzipInterceptor": (
        honoured(
            "optionFlag", "256", "options", "option_flag", "messages that pass: with this option"
        ),
        _times("compressionMinSize", "0", "bytes from which messages are compressed"),
        _truth("statsEnabled", "false", "count what was saved"),
        _times("interval", "0", "messages between two lines of log"),
    ),
    "OrderInterceptor": (
        _FLAG,
        _times("expire", "3000", "ms that a message waits for the one before it"),
        _truth("forwardExpired", "true", "deliver it then"),
        _times("maxQueue", "2147483647", "messages that may wait"),
    ),
    "EncryptInterceptor": (
        _FLAG,
        honoured(
            "encryptionAlgorithm",
            "AES/GCM/NoPadding",
            "text",
            "encryption_algorithm",
            "cipher, mode and padding",
        ),
        honoured(
            "encryptionKey", "required", "text", "encryption_key", "key, in hex", is_secret=True
        ),
        honoured(
            "encryptionKeyString",
            "required",
            "text",
            "encryption_key",
            "other name of encryptionKey",
            is_secret=True,
        ),
        _times("replayWindowTime", "10000", "ms that a message stays fresh"),
        _times("replayWindowMessageCount", "8192", "messages remembered against replay"),
        unused(
            "providerName", "unset", "provider of the cipher", "it is OpenSSL's; there is no other"
        ),
    ),
    "TwoPhaseCommitInterceptor": (
        _FLAG,
        _times("expire", "60000", "ms a message waits for its confirmation"),
        unused("deepclone", "true", "copy messages", _NO_COPY),
    ),
    "ThroughputInterceptor": (_FLAG, _times("interval", "10000", "messages between two reports")),
    "StaticMembershipInterceptor": (_FLAG,),
    "NonBlockingCoordinator": (_FLAG,),
    "SimpleCoordinator": (_FLAG,),
}
"""By the name of the class."""
