"""The request of a Tomcat's DeltaManager for all sessions, and the answer that there are none.

A starting context asks the first of its members for its sessions and waits for them, by default a
minute. Tomcat's own answer where the asked member has no such context ends that wait at once. Both
are one Java object, ``SessionMessageImpl``, whose class description always has the same bytes: that
of every version since the fields are these. Nothing else of that class is read here.

::

    i64 0 | i32 event | i64 time | u8 time is set | text context | null | text kind | text id
"""

from __future__ import annotations

import struct
from typing import Final

from tribes.errors import RemoteProtocolError
from tribes.wire.java import SERIALIZABLE, STREAM_HEADER, class_description, encode_value
from tribes.wire.java_reader import JavaReader

__all__ = ["CONTEXT_MAX_CHARS", "encode_no_context", "encode_request", "requested_context"]

CONTEXT_MAX_CHARS: Final = 1024
"""Longest name of a context, with its host, that is answered: it is sent back."""

_BASE: Final = class_description(
    "org.apache.catalina.ha.ClusterMessageBase",
    1,
    SERIALIZABLE,
    fields=b"\0\x01J\0\x09timestamp",
)


def _field(kind: str, name: str, of: bytes = b"") -> bytes:
    return kind.encode() + struct.pack(">H", len(name)) + name.encode() + of


_TEXT_AGAIN: Final = b"\x71\x00\x7e\x00\x01"
"""A type that was named before: the second thing of this stream."""

_FIELDS: Final = b"".join(
    (
        _field("I", "mEvtType"),
        _field("J", "serializationTimestamp"),
        _field("Z", "timestampSet"),
        _field("L", "mContextName", encode_value("Ljava/lang/String;")),
        _field("[", "mSession", encode_value("[B")),
        _field("L", "mSessionID", _TEXT_AGAIN),
        _field("L", "uniqueId", _TEXT_AGAIN),
    )
)
_HEAD: Final = (
    STREAM_HEADER
    + b"\x73"
    + class_description(
        "org.apache.catalina.ha.session.SessionMessageImpl",
        2,
        SERIALIZABLE,
        fields=b"\0\x07" + _FIELDS,
        parent=_BASE,
    )
)
_HANDLES: Final = 5
"""Things that the head names, to which what follows might refer: two classes, two types, the object
itself."""

_NUMBERS: Final = struct.Struct(">qiqB")
_GET_ALL_SESSIONS: Final = 4
_NO_CONTEXT: Final = 16
_NO_CONTEXT_KIND: Final = "NO-CONTEXT-MANAGER"
_REQUEST_KIND: Final = "GET-ALL"


def requested_context(message: bytes) -> str | None:
    """Return the context whose sessions a Java message asks for; None when it is another message.

    Raises:
        RemoteProtocolError: It is such a request, and malformed.
    """
    if not message.startswith(_HEAD):
        return None
    reader = JavaReader(message, len(_HEAD), handles=_HANDLES)
    _, event, _, _ = _NUMBERS.unpack(reader.take(_NUMBERS.size))
    if event != _GET_ALL_SESSIONS:
        return None
    context, sessions = reader.value(), reader.value()
    if not isinstance(context, str) or sessions is not None:
        raise RemoteProtocolError("a request for all sessions without a context, or with sessions")
    if not 0 < len(context) <= CONTEXT_MAX_CHARS:
        raise RemoteProtocolError(
            f"a context's name of {len(context)} characters; 1 to {CONTEXT_MAX_CHARS} are answered"
        )
    for _ in range(2):
        if not isinstance(reader.value(), str | None):
            raise RemoteProtocolError("a request for all sessions whose names are no text")
    reader.expect_end()
    return context


def encode_no_context(context: str) -> bytes:
    """Return the message field of "there is no such context here"."""
    numbers = _NUMBERS.pack(0, _NO_CONTEXT, 0, False)
    return _encode(numbers, context, _NO_CONTEXT_KIND, _NO_CONTEXT_KIND + context)


def encode_request(context: str, timestamp: int) -> bytes:
    """Return the message field of a request for all sessions, as Tomcat makes it."""
    numbers = _NUMBERS.pack(0, _GET_ALL_SESSIONS, timestamp, True)
    return _encode(numbers, context, _REQUEST_KIND, f"{_REQUEST_KIND}-{context}")


def _encode(numbers: bytes, context: str, kind: str, unique: str) -> bytes:
    texts = (encode_value(text) for text in (context, None, kind, unique))
    return b"".join((_HEAD, numbers, *texts))
