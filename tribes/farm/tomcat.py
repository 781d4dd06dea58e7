"""What Tomcat's FarmWarDeployer says to a group: told of once, because nothing here can serve it.

Its archives come in pieces without a digest, as objects of Java (``FileMessage``,
``UndeployMessage``: tomcat-sessions §12), which are acknowledged and dropped like every such
message. Whoever put an archive into a Tomcat's watch directory would look for it here in vain, and
find nothing in the log.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, final

import structlog

from tribes.wire.java import STREAM_HEADER, JavaCode
from tribes.wire.options import SendOptions

if TYPE_CHECKING:
    from tribes.runtime.group_channel import GroupChannel
    from tribes.runtime.listeners import ListenerRegistry
    from tribes.wire.data import ChannelData

__all__ = ["TomcatDeployments", "is_deployment"]

log = structlog.get_logger("tribes")

_PACKAGE: Final = b"org.apache.catalina.ha.deploy."
_OBJECT: Final = STREAM_HEADER + bytes((JavaCode.OBJECT, JavaCode.CLASS))
_KINDS: Final = {
    _OBJECT + struct.pack(">H", len(name)) + name: kind
    for name, kind in (
        (_PACKAGE + b"FileMessage", "an archive"),
        (_PACKAGE + b"UndeployMessage", "that an application is to go"),
    )
}
"""How the stream of such an object begins: its class comes first, by its name."""
_BEGINNINGS: Final = tuple(_KINDS)


def is_deployment(data: ChannelData) -> bool:
    """Whether a message is one of Tomcat's deployer's."""
    return not data.options & SendOptions.BYTE_MESSAGE and data.message.startswith(_BEGINNINGS)


@final
class TomcatDeployments:
    """Says in the log, once, that a Tomcat of the group deploys for itself alone.

    Attributes:
        messages: Messages of deployers that were dropped.
    """

    def __init__(self) -> None:
        self.messages = 0

    def listen(self, channel: GroupChannel | ListenerRegistry) -> None:
        """Look at the messages of a channel."""
        channel.add_message_listener(self.heard, accept=is_deployment, inline=True, java=True)

    def heard(self, data: ChannelData) -> None:
        """A deployer's message has come."""
        self.messages += 1
        if self.messages > 1:
            return
        what = next(kind for begin, kind in _KINDS.items() if data.message.startswith(begin))
        log.warning(
            "Tomcat's deployer is not served",
            member=data.source.label,
            sends=what,
            effect="it is dropped: here nothing is deployed or undeployed by it",
            instead="tribes deploy, or the watch directory of a member of this kind; docs/farm.md",
        )
