"""What a node tells of its life, in pairs of before and after (Tomcat: ``SimpleTcpCluster``'s
``LifecycleListener``, tomcat-sessions §1.5).

"Before" is told before anybody else hears of a member or can use a manager, and "after" when all
others have been told.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member

__all__ = ["LifecycleEvent", "LifecycleKind", "LifecycleListener"]


@final
class LifecycleKind(enum.Enum):
    """What happened."""

    BEFORE_MEMBER_REGISTER = "before_member_register"
    AFTER_MEMBER_REGISTER = "after_member_register"
    BEFORE_MEMBER_UNREGISTER = "before_member_unregister"
    AFTER_MEMBER_UNREGISTER = "after_member_unregister"
    BEFORE_MANAGER_REGISTER = "before_manager_register"
    AFTER_MANAGER_REGISTER = "after_manager_register"
    BEFORE_MANAGER_UNREGISTER = "before_manager_unregister"
    AFTER_MANAGER_UNREGISTER = "after_manager_unregister"
    RECEIVE_FAILURE = "receive_message_failure"
    """No listener accepted a message; told with ``notify_on_failure`` only."""


@final
@dataclass(frozen=True, slots=True)
class LifecycleEvent:
    """One step.

    Attributes:
        kind: What happened.
        member: Which member it is about, or that sent the message.
        context: Whose manager it is about.
        message: That nobody accepted.
    """

    kind: LifecycleKind
    member: Member | None = None
    context: str = ""
    message: ChannelData | None = None


LifecycleListener = Callable[[LifecycleEvent], Any]
"""Gets one event, in order. Coroutine functions are awaited, others run in a worker thread."""
