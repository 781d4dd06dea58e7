"""``tribes status``, ``members``, ``sessions``, ``resync``, ``drain``: ask a node that runs.

All of them speak to the node's port for operators, and to no other member.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import click

from tribes.cli.client import Client, asks
from tribes.cli.client import in_words as _seconds
from tribes.cli.client import printable as _text

__all__ = ["drain", "members", "resync", "sessions", "status", "table"]

STATUS_NOT_READY: Final = 3


@click.command("status")
@asks
@click.pass_context
def status(ctx: click.Context, client: Client, as_json: bool) -> None:
    """Show how a node is.

    Exit codes: 0: it is ready; 1: it does not answer, or refuses; 2: wrong command line; 3: it is
    not ready.
    """
    shown = client.get("/status")
    if as_json:
        click.echo(json.dumps(shown))
    else:
        _print_status(shown)
    if not shown["is_ready"]:
        ctx.exit(STATUS_NOT_READY)


def _print_status(shown: dict[str, Any]) -> None:
    ready = "ready" if shown["is_ready"] else "NOT READY"
    click.echo(f"{_text(shown['node'])} at {shown['address']}, version {shown['version']}: {ready}")
    suspected = [_text(m["name"]) for m in shown["members"] if m["is_suspected"]]
    also = f"; suspected: {', '.join(suspected)}" if suspected else ""
    click.echo(f"view {shown['view']}, {len(shown['members'])} other members{also}")
    click.echo()
    rows = []
    for each in shown["contexts"]:
        transfer = each["transfer"]
        state = "whole"
        if transfer and not transfer["is_joined"]:
            state = f"joining, {transfer['received']} of {transfer['known']}"
        elif transfer and not transfer["is_complete"]:
            state = "joined without all"
        copies = ", ".join(map(_text, each["copies_on"])) or "nobody else"
        lacking = str(each["under_replicated"]) + ("+" if each["needs_sync"] else "")
        rows.append(
            [_text(each["context"]), each["kind"], each["sessions"], lacking, state, copies]
        )
    table(["context", "kind", "sessions", "under-replicated", "state", "copies on"], rows)
    click.echo()
    rows = [
        [
            _text(link["name"]),
            link["raw_bytes"] + link["live_bytes"],
            link["unacked_bytes"],
            _seconds(link["round_trip_s"]),
            _seconds(link["lag_s"]),
            link["dirty_keys"],
            "suspected" if link["is_suspected"] else "behind" if link["is_behind"] else "fine",
        ]
        for link in shown["links"]
    ]
    head = ["link to", "queued bytes", "unacknowledged", "round trip", "lag", "lacks sessions"]
    table([*head, "state"], rows)
    for failure in shown["failures"][-5:]:
        fields = " ".join(f"{name}={_text(str(v))}" for name, v in failure["fields"].items())
        click.echo(f"{_time(failure['at_ms'])} {_text(failure['event'])} {fields}")


@click.command("members")
@asks
def members(client: Client, as_json: bool) -> None:
    """List the other members, as the node sees them.

    Exit codes: 0: done; 1: the node does not answer, or refuses; 2: wrong command line.
    """
    shown = client.get("/status")
    if as_json:
        click.echo(json.dumps({"view": shown["view"], "members": shown["members"]}))
        return
    rows = [
        [
            _text(each["name"]),
            each["address"],
            f"{each['alive_s']:.0f} s",
            _text(each["domain"]) or "-",
            "suspected" if each["is_suspected"] else "answers",
        ]
        for each in shown["members"]
    ]
    table(["member", "address", "up", "domain", "state"], rows)


@click.group("sessions")
def sessions() -> None:
    """Find, look at and end sessions; values and ids are never shown.

    The node needs http.token_file, and these commands --token-file. SESSION is what `list` shows,
    or the id that a user's cookie has.

    Exit codes: 0: done; 1: the node does not answer, or refuses; 2: wrong command line; 3: not all
    members have confirmed the end; 4: there is no such context or session.
    """


@sessions.command("list")
@click.argument("context")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.option("--after", default="", help="Go on behind this session.")
@asks
def list_sessions(client: Client, context: str, limit: int, after: str, as_json: bool) -> None:
    """List sessions of a CONTEXT that are in the node's memory."""
    shown = client.get(
        f"/sessions?context={quote(context, safe='')}&limit={limit}&after={quote(after, safe='')}"
    )
    if as_json:
        click.echo(json.dumps(shown))
        return
    rows = [
        [
            e["session"],
            _time(e["created_ms"]),
            _time(e["last_accessed_ms"]),
            e["attributes"],
            e["bytes"],
        ]
        for e in shown["sessions"]
    ]
    table(["session", "created", "last used", "attributes", "bytes"], rows)
    if shown["next"]:
        click.echo(f"There may be more: --after {shown['next']}", err=True)


@sessions.command("show")
@click.argument("context")
@click.argument("session")
@asks
def show_session(client: Client, context: str, session: str, as_json: bool) -> None:
    """Show names, types and sizes of what a SESSION of a CONTEXT holds."""
    shown = client.post("/sessions/show", context=context, session=session)
    if as_json:
        click.echo(json.dumps(shown))
        return
    copies = ", ".join(map(_text, shown["copies_on"])) or "nobody else"
    click.echo(f"{shown['session']}, {shown['bytes']} bytes; copies on {copies}")
    click.echo(
        f"created {_time(shown['created_ms'])}, last used {_time(shown['last_accessed_ms'])}, "
        f"may be idle for {shown['max_inactive_s']} s"
    )
    click.echo()
    rows = [
        [_text(e["name"]), e["type"], e["bytes"], _time(e["written_ms"])]
        for e in shown["attributes"]
    ]
    table(["attribute", "type", "bytes", "written"], rows)


@sessions.command("expire")
@click.argument("context")
@click.argument("session")
@click.option("--reason", default="", help="For the node's log.")
@asks
@click.pass_context
def expire_session(
    ctx: click.Context, client: Client, context: str, session: str, reason: str, as_json: bool
) -> None:
    """End a SESSION of a CONTEXT on all members. The node's log says so."""
    ended = client.post("/sessions/expire", context=context, session=session, reason=reason)
    if as_json:
        click.echo(json.dumps(ended))
    else:
        click.echo(f"{ended['session']} has ended")
        if ended["acked"]:
            click.echo(f"confirmed by {', '.join(map(_text, ended['acked']))}")
        for name, why in ended["missing"].items():
            click.echo(f"not confirmed by {_text(name)}: {_text(why)}", err=True)
    if ended["missing"]:
        ctx.exit(STATUS_NOT_READY)


@click.command("resync")
@click.argument("context")
@asks
def resync(client: Client, context: str, as_json: bool) -> None:
    """Make the node compare a CONTEXT with all members now; its log tells what comes of it.

    Exit codes: 0: it does; 1: it does not answer, or refuses; 2: wrong command line; 4: there is
    no such context.
    """
    said = client.post("/resync", context=context)
    click.echo(json.dumps(said) if as_json else f"asked {said['asked']} members")


@click.command("drain")
@asks
def drain(client: Client, as_json: bool) -> None:
    """Make the node leave in good order, as on SIGTERM; returns at once.

    Exit codes: 0: it leaves; 1: it does not answer, or refuses; 2: wrong command line.
    """
    said = client.post("/drain")
    click.echo(json.dumps(said) if as_json else "it leaves; /live answers until it has left")


def _time(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (OverflowError, OSError, ValueError):
        return str(ms)


def table(head: list[str], rows: list[list[Any]]) -> None:
    """Print columns that stand below each other."""
    cells = [head, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())
