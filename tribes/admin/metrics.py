"""The status as metrics in Prometheus's text format, version 0.0.4.

A name is ``tribes_``, the part, and that of the number in the statistics; what only grows ends in
``_total``. The help texts are those of the statistics' own documentation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

from tribes.config.explain import meanings
from tribes.gauges import NodeGauges, PeerGauges
from tribes.manager.fetch import FetchStatistics
from tribes.manager.statistics import ManagerStatistics

__all__ = ["CONTENT_TYPE", "Family", "exposition", "families"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_NOW: Final = frozenset(
    {
        *("inbox_bytes", "inbox_entries", "dispatch_bytes", "dispatch_waiting", "inbox_peak_bytes"),
        *("is_suspected", "raw_bytes", "live_bytes", "unacked_bytes", "blocked", "dirty_keys"),
        *("needs_sync", "is_behind", "round_trip_s", "lag_s"),
        *("active", "max_active", "expired", "longest_life_s", "average_life_s", "create_rate"),
        *("expire_rate", "bytes"),
    }
)
"""What goes up and down."""

_LEFT_OUT: Final = frozenset({"peers", "member", "session_counter", "sent", "received"})

_CHANNEL: Final = {
    "frames_sent": "Frames written.",
    "frames_received": "Frames received.",
    "bytes_received": "Bytes received.",
    "messages_sent": "Messages of applications and managers sent.",
    "links_rejected": "Connections that were closed for what they brought.",
    "rejections": "Whatever was refused from others.",
    "connections_refused": "Connections for which there was no room.",
}


@final
@dataclass(frozen=True, slots=True)
class Family:
    """One metric.

    Attributes:
        name: With ``_total``, if it is a counter.
        help: One sentence.
        kind: ``gauge`` or ``counter``.
        samples: Labels and value of each series.
    """

    name: str
    help: str
    kind: str
    samples: list[tuple[dict[str, str], float]] = field(default_factory=list)


def families(status: Mapping[str, Any]) -> list[Family]:
    """The metrics of a status document with its failures."""
    found = {family.name: family for family in _node(status)}
    for name, value in status["channel"].items():
        _put(found, "channel", name, _CHANNEL[name], {}, value)
    said = meanings(NodeGauges)
    for name, value in status["queues"].items():
        _put(found, "queue", name, said.get(name, ""), {}, value)
    said = meanings(PeerGauges)
    for link in status["links"]:
        labels = {"member": link["name"], "id": link["id"]}
        for name, value in link.items():
            if name in said and value is not None:
                _put(found, "link", name, said[name], labels, value)
    for context in status["contexts"]:
        _of_context(found, context)
    if status.get("farm"):
        _of_farm(found, status["farm"])
    return list(found.values())


def _node(status: Mapping[str, Any]) -> Iterator[Family]:
    labels = {"node": status["node"], "version": status["version"], "address": status["address"]}
    suspected = sum(member["is_suspected"] for member in status["members"])
    for name, text, value in (
        ("ready", "Whether a balancer should send requests here.", status["is_ready"]),
        ("joined", "Whether it has what the other members had.", status["is_joined"]),
        ("uptime_seconds", "Since the port was opened.", status["uptime_s"]),
        ("members", "Other members of the view.", len(status["members"])),
        ("members_suspected", "Those among them that do not answer.", suspected),
        ("view", "Number of the view.", status["view"]),
    ):
        yield Family(f"tribes_{name}", text, "gauge", [({}, float(value))])
    yield Family("tribes_info", "Which node this is; always 1.", "gauge", [(labels, 1.0)])
    text = "Events that an operator should know of."
    yield Family("tribes_failures_total", text, "counter", [({}, status["failures_seen"])])


def _of_context(found: dict[str, Family], context: Mapping[str, Any]) -> None:
    labels = {"context": context["context"], "kind": context["kind"]}
    said = meanings(ManagerStatistics)
    for name, value in context["statistics"].items():
        if name not in _LEFT_OUT:
            _put(found, "sessions", name, said.get(name, ""), labels, value)
    for name, text in (("sent", "Messages sent, by type."), ("received", "Those received.")):
        for kind, value in context["statistics"][name].items():
            _put(found, "sessions_messages", name, text, {**labels, "type": kind}, value)
    copies = "Other members that hold copies."
    _gauge(found, "tribes_sessions_copies", copies, labels, len(context["copies_on"]))
    lacking = "Sessions of which some member lacks the newest state, at least."
    _gauge(found, "tribes_sessions_under_replicated", lacking, labels, context["under_replicated"])
    if context["transfer"] is not None:
        transfer = context["transfer"]
        text = "Sessions that a donor of the join has."
        _gauge(found, "tribes_transfer_known", text, labels, transfer["known"])
        text = "Records that the join has brought."
        _gauge(found, "tribes_transfer_received", text, labels, transfer["received"])
        for name in ("records_sent", "records_received", "donors_replaced", "no_state_transferred"):
            text = f"{name.replace('_', ' ').capitalize()} in exchanges of state."
            _put(found, "transfer", name, text, labels, transfer[name])
    said = meanings(FetchStatistics)
    for name, value in (context["fetches"] or {}).items():
        _put(found, "fetches", name, said[name], labels, value)


def _of_farm(found: dict[str, Family], farm: Mapping[str, Any]) -> None:
    text = "Members that take part in the farm, this one included."
    _gauge(found, "tribes_farm_members", text, {}, len(farm["members"]))
    deployed = [e for app in farm["applications"] if (e := app["deployed"]) and not e["undeploys"]]
    text = "Applications that are to be in place."
    _gauge(found, "tribes_farm_applications", text, {}, len(deployed))
    text = "Members on which some application is not in place as it is to be."
    lacking = {m["member"] for e in deployed for m in e["members"] if m["standing"] != "deployed"}
    _gauge(found, "tribes_farm_members_lacking", text, {}, len(lacking))
    for name, value in farm["statistics"].items():
        text = f"{name.replace('_', ' ').capitalize()}; see docs/farm.md."
        _put(found, "farm", name, text, {}, value)


def _put(
    found: dict[str, Family], part: str, name: str, text: str, labels: dict[str, str], value: float
) -> None:
    # The base units are seconds and bytes.
    if name.endswith("_time_ms"):
        name, value = name.removesuffix("_ms") + "_seconds", value / 1000
    shown = name.removesuffix("_s") + "_seconds" if name.endswith("_s") else name
    if name in _NOW:
        _gauge(found, f"tribes_{part}_{shown}", text, labels, value)
        return
    name = f"tribes_{part}_{shown}_total"
    family = found.setdefault(name, Family(name, text, "counter"))
    family.samples.append((labels, float(value)))


def _gauge(
    found: dict[str, Family], name: str, text: str, labels: dict[str, str], value: float
) -> None:
    family = found.setdefault(name, Family(name, text, "gauge"))
    family.samples.append((labels, float(value)))


def exposition(shown: list[Family]) -> bytes:
    """The text, each family in one block."""
    lines = []
    for family in shown:
        lines.append(f"# HELP {family.name} {_help(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        for labels, value in family.samples:
            inner = ",".join(f'{name}="{_label(text)}"' for name, text in labels.items())
            lines.append(f"{family.name}{{{inner}}} {value!r}" if inner else _plain(family, value))
    return ("\n".join(lines) + "\n").encode()


def _plain(family: Family, value: float) -> str:
    return f"{family.name} {value!r}"


def _help(text: str) -> str:
    return text.replace("``", "").replace("`", "").replace("\\", "\\\\").replace("\n", " ")


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
