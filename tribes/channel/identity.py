"""What this process says of itself in the group: its member record, and the ids and times it gives.

The record changes at run time, by an announcement; everybody who sends it takes it from here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from tribes.errors import LocalProtocolError
from tribes.ids import make_unique_id
from tribes.links.challenge import About, encode_about
from tribes.links.own_wire import FEATURE_NEWS, WITNESSES, OwnSide
from tribes.wire.data import ChannelData, encode_data_frame
from tribes.wire.member import SHUTDOWN_COMMAND, encode_member

if TYPE_CHECKING:
    from tribes.wire.member import Member

__all__ = ["Identity"]


@final
class Identity:
    """The own member record, and what is made with it.

    Args:
        local: The own record, with the address and port that others connect to.
        wall_ms: Wall clock in milliseconds, for the timestamps that messages carry.
        entropy: Gives n random bytes.
        product: Version of the program, for who asks.
        features: Bits of own links, beyond those that all have.

    Attributes:
        local: The own record as it is now.
        record: The same, encoded.
        side: What own links say of this process.
    """

    def __init__(
        self,
        local: Member,
        *,
        wall_ms: Callable[[], int],
        entropy: Callable[[int], bytes],
        product: str = "",
        features: int = 0,
    ) -> None:
        self.local = local
        self.record = encode_member(local)
        self.side: Final = OwnSide(
            self.record,
            local.unique_id,
            features=WITNESSES | FEATURE_NEWS | features,
            about=lambda: encode_about(About(wall_ms(), product)),
        )
        self.wall_ms: Final = wall_ms
        self.entropy: Final = entropy
        self._counter = 0

    def next_number(self) -> int:
        """Number a ticket, a connection attempt or a test: each number is given once."""
        self._counter += 1
        return self._counter

    def new_message(self, message: bytes, options: int) -> ChannelData:
        """Make a message of this member: with a new id, the time and the record."""
        unique_id = make_unique_id(self.entropy(16))
        return ChannelData(options, self.wall_ms(), unique_id, self.local, message)

    def new_frame(self, message: bytes, options: int) -> bytes:
        """Make such a message as the frame that goes past the interceptors."""
        unique_id = make_unique_id(self.entropy(16))
        return encode_data_frame(options, self.wall_ms(), unique_id, self.record, message)

    def announce(
        self, *, payload: bytes | None, domain: bytes | None, command: bytes | None
    ) -> None:
        """Change what the record carries; None: as before.

        Raises:
            LocalProtocolError: The record would be too long, or the command is the farewell's.
        """
        if command == SHUTDOWN_COMMAND:
            raise LocalProtocolError("this command says that a member leaves: stop the channel")
        changes = {"payload": payload, "domain": domain, "command": command}
        local = self.local.replace(**{k: v for k, v in changes.items() if v is not None})
        record = encode_member(local)
        self.local, self.record, self.side.record = local, record, record
