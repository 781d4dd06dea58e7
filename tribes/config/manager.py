"""What every kind of session manager has set, as typed data."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

import msgspec

__all__ = ["DEFAULT_KIND", "ManagerConfig", "waits_for_members"]

DEFAULT_KIND: Final = "delta"


class ManagerConfig(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag_field="kind",
    tag=DEFAULT_KIND,
):
    """What the session managers share, and of itself the Delta manager: every member of the context
    has every session (Tomcat: ``SimpleTcpCluster``, ``ManagerBase``, ``DeltaManager``).

    Attributes:
        channel_send_options: Guarantee of a commit, see ``SendOptions`` (``channelSendOptions``).
        max_inactive_s: Seconds of idleness after which a session expires; 0 or less: never.
        session_id_length: Random bytes of a session id (``sessionIdLength``).
        max_active_sessions: Sessions that may exist; -1: no limit (``maxActiveSessions``).
        commit_timeout: Milliseconds a commit waits for the members' acknowledgements.
        inbox_max_bytes: Changes that requests may have left for the channel, of all contexts.
        queue_timeout: Milliseconds a request is held back before its commit while there is no room
            in the inbox. Then the commit stands all the same, and the session is sent later.
        dirty_max: Sessions remembered per member that it is behind with; of one that is behind with
            more the whole replica is compared when it answers.
        on_unreplicated: What a request does whose commit some member lacks: ``"serve"`` answers,
            counts and logs it; ``"error"`` answers 503 instead. Either way the change stands here
            and reaches the others when they can be reached.
        min_copies: A commit is also unreplicated when fewer other members than this acknowledged
            it; 0: none need to, which is what a node that is alone can do.
        state_transfer_timeout_s: Seconds a joining node waits for the others' sessions
            (``stateTransferTimeout``).
        expiry_interval: Milliseconds between two looks for idle sessions.
        pathname: File that keeps the sessions when the last member stops, or all do, until the next
            start (Tomcat's StandardManager: ``pathname``); ``{context}`` in its name stands for the
            context. Empty: they end then.
    """

    in_group: ClassVar[bool] = True
    """Whether the members of the group share the sessions; if not, this process has them alone."""

    channel_send_options: int = 8
    max_inactive_s: int = 1800
    session_id_length: int = 16
    max_active_sessions: int = -1
    commit_timeout: int = 1000
    inbox_max_bytes: int = 8 * 1024 * 1024
    queue_timeout: int = 1000
    dirty_max: int = 10_000
    on_unreplicated: Literal["serve", "error"] = "serve"
    min_copies: int = 0
    state_transfer_timeout_s: float = 60.0
    expiry_interval: int = 1000
    pathname: str = ""

    @property
    def send_options(self) -> int:
        """Guarantee of a commit, as this kind has it."""
        return self.channel_send_options


def waits_for_members(manager: ManagerConfig) -> bool:
    """Whether a commit waits for the members: the options have 2 and do not have 8."""
    return bool(manager.send_options & 2) and not manager.send_options & 8
