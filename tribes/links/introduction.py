"""The first frame of a plain connection: whom it is meant for, and who we are (DESIGN §4.2).

Behind the message, where plain Tribes does not read, stand ``"TPYD"`` and the unique id of the
member that it is meant for, and behind that the mark of our heartbeats (`tribes.security.mark`,
with a label of its own). So two members that never hear each other's heartbeats, because they are
configured statically or multicast is blocked, learn from the first test or message that they could
speak the own link, and do from then on.

The mark's tag covers the whole body before it, the destination included: recorded, it is of no use
towards another member, and towards the same one its counter is used up. Whoever was not known to
have the key has to prove it on a connection all the same (:mod:`tribes.membership.admission`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tribes.ids import UNIQUE_ID_BYTES
from tribes.security.mark import Mark, Marker, decode_mark
from tribes.wire.data import add_trailer, destination_trailer
from tribes.wire.frame import FRAME_END

if TYPE_CHECKING:
    from tribes.wire.data import ChannelData

__all__ = ["Introduction", "introduce", "introduction_of"]

Introduction = tuple[bytes, Mark]
"""The bytes that a mark covers, and the mark."""

_BODY_AT: Final = 11
_MARK_AT: Final = len(destination_trailer(bytes(UNIQUE_ID_BYTES)))


def introduce(frame: bytes, unique_id: bytes, marker: Marker | None) -> bytes:
    """Return a data frame as the first one of a connection.

    Args:
        frame: As `encode_data_frame` makes it.
        unique_id: Of the member that it is meant for.
        marker: Says who we are; None: nobody shall know.
    """
    trailer = destination_trailer(unique_id)
    if marker is not None:
        body = frame[_BODY_AT : len(frame) - len(FRAME_END)]
        trailer += marker.introduce(body + trailer)
    return add_trailer(frame, trailer)


def introduction_of(data: ChannelData, body: bytes) -> Introduction | None:
    """Return the mark of a first frame, which is still to be verified; None where none is.

    Args:
        data: What the frame says.
        body: Its bytes.
    """
    mark = decode_mark(data.trailer, _MARK_AT)
    if mark is None:
        return None
    return body[: len(body) - len(data.trailer) + _MARK_AT], mark
