"""The nodes of a plan: how each of them is configured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tribes.config.managers import BackupConfig, ContextConfig
from tribes.config.model import (
    ChannelConfig,
    ManagerConfig,
    MembershipConfig,
    NodeConfig,
    StaticMemberConfig,
)
from tribes.testing.sim.world import FIRST_PORT

if TYPE_CHECKING:
    from tribes.testing.plan import Plan

__all__ = ["SECOND", "node_config"]

SECOND = "second"
"""The application with full copies, where the first one has a Backup manager."""


def node_config(plan: Plan, number: int) -> NodeConfig:
    """Return the configuration of a plan's node, which are numbered from 0."""
    static = () if plan.multicast else (StaticMemberConfig(host="127.0.0.1", port=FIRST_PORT),)
    contexts = {
        extra.name: ContextConfig(
            manager=ManagerConfig(
                channel_send_options=extra.send_options, max_inactive_s=plan.max_inactive_s
            )
        )
        for extra in plan.contexts
        if not extra.nodes or number in extra.nodes
    }
    if plan.managers != "delta":
        backup = BackupConfig(
            backup_count=plan.copies,
            map_send_options=plan.send_options,
            max_inactive_s=plan.max_inactive_s,
        )
        contexts["app"] = ContextConfig(manager=backup)
    return NodeConfig(
        contexts=("app", SECOND) if plan.managers == "both" else ("app",),
        context=contexts,
        channel=ChannelConfig(
            membership=MembershipConfig(
                suspect_after=plan.suspect_after, multicast=plan.multicast, static=static
            ),
            own_link=plan.links == "own" or (plan.links == "mixed" and number % 2 == 0),
            interceptors=plan.interceptors,
        ),
        manager=ManagerConfig(
            channel_send_options=plan.send_options, max_inactive_s=plan.max_inactive_s
        ),
    )
