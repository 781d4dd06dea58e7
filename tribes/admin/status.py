"""How a node is, as one document: what the status page and the command line show.

All is read in the node's loop, in time that grows with members and contexts, not with sessions.
Nothing of what sessions hold is in it, and none of their ids.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Final

from tribes.config.explain import meanings
from tribes.config.managers import ManagerConfig, kind_of
from tribes.errors import ChannelClosedError
from tribes.manager.backup_core import BackupReplicator
from tribes.manager.fetch import FetchStatistics
from tribes.runtime.product import product_version

if TYPE_CHECKING:
    from tribes.gauges import NodeGauges, PeerGauges
    from tribes.manager.base import SessionManager
    from tribes.manager.replication import Replicator
    from tribes.runtime.group_channel import GroupChannel
    from tribes.wire.member import Member

__all__ = ["contexts_of", "counters_of", "managers_of", "status_of"]

_DOUBT_SHOWN_S: Final = 60.0


def managers_of(channel: GroupChannel) -> dict[str, SessionManager]:
    """Every session manager of a node by its context, adopted ones and those without a group."""
    found: dict[str, SessionManager] = dict(channel.sessions.managers)
    for context, local in channel.sessions.local.items():
        # What is alone here may also have a manager that holds copies for others.
        found[context] = local.manager(context)
    return dict(sorted(found.items()))


def status_of(channel: GroupChannel) -> dict[str, Any]:
    """Everything but what the desk itself knows.

    Raises:
        ChannelClosedError: The channel has not been entered.
    """
    shell, view, config = channel.shell, channel.view, channel.config
    core, now, gauges = shell.core, shell.now(), channel.gauges()
    return {
        "node": config.name,
        "address": _address(channel.local),
        "version": product_version(),
        "id": channel.local.unique_id.hex(),
        "is_ready": channel.is_ready,
        "is_joined": core.is_joined,
        "is_running": channel.is_running,
        "view": view.number,
        "members": [
            _member(each, now - (core.channel.up_since(each) or now), each in view.suspected)
            | {"doubted_us_s": _ago(core.channel.doubted_by.get(each), now)}
            for each in view.members
        ],
        "links": [_link(each) for each in gauges.peers],
        "contexts": contexts_of(channel),
        "queues": _queues(gauges),
        "channel": _channel(channel),
    }


def counters_of(channel: GroupChannel) -> dict[str, int]:
    """What the charts show the growth of."""
    try:
        statistics = channel.shell.core.channel.statistics
    except ChannelClosedError:
        return {}
    managers = [manager.statistics() for manager in managers_of(channel).values()]
    return {
        "messages_sent": statistics.frames_sent,
        "messages_received": statistics.frames_received,
        "bytes_received": statistics.bytes_received,
        "commits": sum(each.commits for each in managers),
    }


def contexts_of(channel: GroupChannel) -> list[dict[str, Any]]:
    """One entry for each context."""
    replicators = channel.shell.core.sessions.replicators
    config = channel.config
    found = []
    for context, manager in managers_of(channel).items():
        own = config.manager_of(context) if context in config.contexts else ManagerConfig()
        replicator = None if manager.is_local else replicators.get(context)
        found.append(_context(context, manager, kind_of(type(own)), replicator))
    return found


def _context(
    context: str, manager: SessionManager, kind: str, replicator: Replicator | None
) -> dict[str, Any]:
    statistics = asdict(manager.statistics())
    shown: dict[str, Any] = {
        "context": context,
        "kind": kind,
        "sessions": statistics["active"],
        "bytes": statistics["bytes"],
        "copies_on": list(manager.copies_on),
        "is_joined": manager.is_joined,
        "under_replicated": 0,
        "needs_sync": [],
        "transfer": None,
        "fetches": None,
        "statistics": statistics,
    }
    if replicator is not None:
        transfer = replicator.transfer
        debts = {member: replicator.repair.state(member) for member in replicator.targets}
        # Which sessions each one lacks is not compared: as many as the worst of them, at least.
        shown["under_replicated"] = max((debt.dirty for debt in debts.values()), default=0)
        shown["needs_sync"] = [member.label for member, debt in debts.items() if debt.needs_sync]
        shown["is_joined"] = transfer.is_joined
        shown["transfer"] = {
            "is_joined": transfer.is_joined,
            "is_complete": transfer.is_complete,
            "is_comparing": transfer.is_comparing,
            "known": transfer.progress.known,
            "received": transfer.progress.received,
            "records_sent": transfer.statistics.records_sent,
            "records_received": transfer.statistics.records_received,
            "donors_replaced": transfer.statistics.donors_replaced,
            "records_refused": transfer.statistics.records_refused,
            "records_too_large": transfer.statistics.records_too_large,
            "no_state_transferred": transfer.statistics.no_state_transferred,
        }
    if replicator is not None and not isinstance(replicator, BackupReplicator):
        # A Backup manager's requests ask those who hold the session's part, in another way.
        counted = replicator.fetches.statistics
        shown["fetches"] = {name: getattr(counted, name) for name in meanings(FetchStatistics)}
    return shown


def _member(member: Member, alive_s: float, is_suspected: bool) -> dict[str, Any]:
    return {
        "name": member.label,
        "address": _address(member),
        "id": member.unique_id.hex(),
        "domain": member.domain.decode("latin-1"),
        "alive_s": round(alive_s, 1),
        "is_suspected": is_suspected,
    }


def _ago(then: float | None, now: float) -> float | None:
    """Seconds since a member said that this node seems not to answer, for as long as it matters."""
    return None if then is None or now - then > _DOUBT_SHOWN_S else round(now - then, 1)


def _link(peer: PeerGauges) -> dict[str, Any]:
    numbers = {each.name: getattr(peer, each.name) for each in fields(peer)}
    member = numbers.pop("member")
    return {"name": member.label, "address": _address(member), "id": member.unique_id.hex()} | (
        numbers
    )


def _queues(gauges: NodeGauges) -> dict[str, int]:
    return {e.name: getattr(gauges, e.name) for e in fields(gauges) if e.name != "peers"}


def _channel(channel: GroupChannel) -> dict[str, int]:
    statistics = channel.shell.core.channel.statistics
    names = (
        *("frames_sent", "frames_received", "bytes_received", "messages_sent"),
        *("links_rejected", "rejections", "connections_refused"),
    )
    return {name: getattr(statistics, name) for name in names}


def _address(member: Member) -> str:
    host, port = member.address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
