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
        max_active_sessions: Sessions that may exist; -1: no limit (``maxActiveSessions``). Copies
            of other members' sessions count.
        on_full: What becomes of one more: ``"reject"`` refuses it with an error; ``"evict"`` ends
            the least recently used ones early, on all members, unless they are in use.
        max_lifetime_s: Seconds a session may live however much it is used; 0: for ever.
        attribute_max_bytes: Encoded size of one attribute; 0: no limit of its own.
        session_max_bytes: Size of a whole session; 0: no limit of its own.
        on_oversize: What becomes of an attribute that is too large, or makes its session so:
            ``"refuse"`` does not commit it, and says so by name; ``"warn"`` commits and logs it.
        session_attribute_name_filter: Regular expression; attributes whose whole name matches are
            replicated and stored, others stay in this process (``sessionAttributeNameFilter``).
        session_attribute_value_class_name_filter: The same for the type of the value, as in
            ``str`` or ``shop.models.Cart`` (``sessionAttributeValueClassNameFilter``).
        warn_on_session_attribute_filter_failure: Log what the filters keep here as warnings
            (``warnOnSessionAttributeFilterFailure``).
        track_in_place: Notice values that a request changes without assigning them.
        session_activity_check: A session whose request still runs never expires
            (``sessionActivityCheck``).
        session_last_access_at_start: Idle time counts from the beginning of the last request, not
            from its end (``sessionLastAccessAtStart``).
        notify_attribute_listener_on_unchanged_value: Tell attribute listeners when the very same
            value is set again (``notifyAttributeListenerOnUnchangedValue``).
        notify_binding_listener_on_unchanged_value: Tell the value as well
            (``notifyBindingListenerOnUnchangedValue``).
        notify_listeners_on_replication: Tell attribute listeners here what requests on other
            members changed (``notifyListenersOnReplication``).
        notify_session_listeners_on_replication: Tell session listeners here which sessions began,
            ended or changed their id on other members (``notifySessionListenersOnReplication``).
        notify_container_listeners_on_replication: The same for container listeners
            (``notifyContainerListenersOnReplication``).
        expire_sessions_on_shutdown: End all sessions, on all members, when this node stops in good
            order (``expireSessionsOnShutdown``).
        announce_created: Tell the members of a session as soon as a request begins it, as Tomcat
            does: for one more message each, they know it while that request still runs.
        enable_statistics: Count the managers' messages by type (``enableStatistics``).
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
        lock: Whether requests of one session wait for each other: ``"none"``, ``"local"`` (in this
            process), ``"cluster"`` (in the whole group).
        lock_timeout: Milliseconds such a request waits; then it is answered 503 and has not run.
        state_transfer_timeout_s: Seconds a joining node waits for the others' sessions; then, when
            none come any more, it goes on with what it has, and says so. -1: for ever
            (``stateTransferTimeout``).
        send_all_sessions_size: Sessions that a donor puts into one message at most
            (``sendAllSessionsSize``).
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
    on_full: Literal["reject", "evict"] = "reject"
    max_lifetime_s: int = 0
    attribute_max_bytes: int = 0
    session_max_bytes: int = 0
    on_oversize: Literal["refuse", "warn"] = "refuse"
    session_attribute_name_filter: str = ""
    session_attribute_value_class_name_filter: str = ""
    warn_on_session_attribute_filter_failure: bool = False
    track_in_place: bool = True
    session_activity_check: bool = False
    session_last_access_at_start: bool = False
    notify_attribute_listener_on_unchanged_value: bool = True
    notify_binding_listener_on_unchanged_value: bool = False
    notify_listeners_on_replication: bool = False
    notify_session_listeners_on_replication: bool = False
    notify_container_listeners_on_replication: bool = False
    expire_sessions_on_shutdown: bool = False
    announce_created: bool = False
    enable_statistics: bool = True
    commit_timeout: int = 1000
    inbox_max_bytes: int = 8 * 1024 * 1024
    queue_timeout: int = 1000
    dirty_max: int = 10_000
    on_unreplicated: Literal["serve", "error"] = "serve"
    min_copies: int = 0
    lock: Literal["none", "local", "cluster"] = "none"
    lock_timeout: int = 10_000
    state_transfer_timeout_s: float = 60.0
    send_all_sessions_size: int = 1000
    expiry_interval: int = 1000
    pathname: str = ""

    @property
    def send_options(self) -> int:
        """Guarantee of a commit, as this kind has it."""
        return self.channel_send_options


def waits_for_members(manager: ManagerConfig) -> bool:
    """Whether a commit waits for the members: the options have 2 and do not have 8."""
    return bool(manager.send_options & 2) and not manager.send_options & 8
