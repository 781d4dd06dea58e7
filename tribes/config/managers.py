"""Settings of the Backup manager."""

from __future__ import annotations

from tribes.config.model import ManagerConfig

__all__ = ["BackupConfig"]


class BackupConfig(ManagerConfig, frozen=True):
    """One copy of each session beside its first, or more (Tomcat: ``BackupManager``).

    Attributes:
        backup_count: Copies of each session on other members.
        map_send_options: Guarantee of a commit instead of ``channel_send_options``, as in Tomcat
            (``mapSendOptions``).
        rpc_timeout: Milliseconds to wait for an answer to a question (``rpcTimeout``).
        access_timeout: Milliseconds without a sign of the other's manager after which it is taken
            for gone (``accessTimeout``).
        terminate_on_start_failure: Fail the start of the node when the others' sessions cannot be
            had (``terminateOnStartFailure``); false: serve, and get them later.
        weight: How many sessions this member takes, compared with others, 0 to 16; 0: none.
        zone: What fails together with this member beside its host, such as a rack: copies lie in
            others, if there are any.
        cache_max: Sessions of other members that are kept here while requests use them.
    """

    backup_count: int = 1
    map_send_options: int = 6
    rpc_timeout: int = 15_000
    access_timeout: int = 5000
    terminate_on_start_failure: bool = False
    weight: int = 1
    zone: str = ""
    cache_max: int = 10_000

    @property
    def send_options(self) -> int:
        """Guarantee of a commit, as this kind has it."""
        return self.map_send_options
