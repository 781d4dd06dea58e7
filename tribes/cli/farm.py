"""``tribes farm``, ``deploy``, ``undeploy``: ask a node to deploy on all members, and watch it."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from tribes.cli.client import Client, asks, printable
from tribes.cli.operator import table
from tribes.cli.progress_bar import bar

__all__ = ["deploy", "farm", "undeploy"]

STATUS_REFUSED: Final = 3
"""The group has refused, or nothing is known of the end yet."""

_PIECE_BYTES: Final = 192 * 1024
_POLL_S: Final = 0.2


@click.command("farm")
@asks
def farm(client: Client, as_json: bool) -> None:
    """List what is deployed, by application and member.

    Exit codes: 0: done; 1: the node does not answer, refuses, or has no farm; 2: wrong command
    line.
    """
    shown = client.get("/farm")
    if as_json:
        click.echo(json.dumps(shown))
        return
    rows = []
    for each in shown["applications"]:
        for entry in (each["deployed"], each["proposal"]):
            if entry is None:
                continue
            what = "undeployed" if entry["undeploys"] else "deployed"
            phase = {"deployed": what, "proposed": f"to be {what}", "refused": "refused"}
            left = [printable(each["app"]), entry["file"], entry["version"], phase[entry["phase"]]]
            rows += [
                [*left, printable(member["member"]), _standing(member, entry)]
                for member in entry["members"]
            ]
    table(["application", "archive", "version", "state", "member", "there"], rows)


def _standing(member: dict[str, Any], entry: dict[str, Any]) -> str:
    if member["why"]:
        return f"{member['standing']}: {printable(member['why'])}"
    if member["standing"] == "lacks":
        return f"has {member['received']} of {entry['bytes']} bytes"
    if member["standing"] == "deployed":
        return "gone" if entry["undeploys"] else "in place"
    return str(member["standing"])


@click.command("deploy")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--wait", "wait_s", type=click.FloatRange(0), default=600.0, show_default=True)
@asks
@click.pass_context
def deploy(ctx: click.Context, client: Client, file: Path, wait_s: float, as_json: bool) -> None:
    """Deploy the archive FILE on all members of the node's farm, or on none.

    Exit codes: 0: it is in place everywhere; 1: the node does not answer, or refuses it; 2: wrong
    command line; 3: a member has refused it, something newer came between, or not all have said
    within --wait seconds that it is in place; then it goes on.
    """
    said = _upload(client, file, has_bar=not as_json)
    ctx.exit(_follow(client, said, wait_s, as_json=as_json))


def _upload(client: Client, file: Path, *, has_bar: bool) -> Any:
    size, digest, sent = file.stat().st_size, hashlib.sha256(), 0
    upload = quote(client.post("/farm/begin", name=file.name, size=size)["upload"])
    with file.open("rb") as content:
        while data := content.read(_PIECE_BYTES):
            digest.update(data)
            client.send(f"/farm/piece?upload={upload}&offset={sent}", data)
            sent += len(data)
            _show(f"{file.name} {bar(sent, size)} to the node", has_bar)
    return client.post("/farm/deploy", upload=upload, sha256=digest.hexdigest())


@click.command("undeploy")
@click.argument("name")
@click.option("--wait", "wait_s", type=click.FloatRange(0), default=60.0, show_default=True)
@asks
@click.pass_context
def undeploy(ctx: click.Context, client: Client, name: str, wait_s: float, as_json: bool) -> None:
    """Undeploy the application NAME on all members; the name of its archive will do.

    Exit codes: 0: it is gone everywhere; 1: the node does not answer, or refuses; 2: wrong command
    line; 3: as of deploy; 4: it is not deployed.
    """
    said = client.post("/farm/undeploy", app=name)
    ctx.exit(_follow(client, said, wait_s, as_json=as_json))


def _follow(client: Client, said: dict[str, str], wait_s: float, *, as_json: bool) -> int:
    """Watch an entry until it is in place everywhere, or will not be; returns the exit status."""
    app, version = said["app"], said["version"]
    deadline = time.monotonic() + wait_s
    while True:
        shown = client.get("/farm")
        found = next((each for each in shown["applications"] if each["app"] == app), None)
        outcome, text = _outcome(found, version)
        if outcome is None and time.monotonic() >= deadline:
            outcome, text = STATUS_REFUSED, f"{app}: not all members have answered; see tribes farm"
        if outcome is not None:
            break
        _show(f"{app} {text}", not as_json)
        time.sleep(_POLL_S)
    _show("", not as_json)
    if as_json:
        click.echo(json.dumps({**said, "status": outcome, "text": text, "application": found}))
    else:
        click.echo(printable(text), err=bool(outcome))
    return outcome


def _outcome(found: dict[str, Any] | None, version: str) -> tuple[int | None, str]:
    entries = [] if found is None else [found["deployed"], found["proposal"]]
    entry = next((each for each in entries if each and each["version"] == version), None)
    if found is None or entry is None:
        return STATUS_REFUSED, "something newer has replaced it; see tribes farm"
    app, members = found["app"], entry["members"]
    if entry["phase"] == "refused":
        return STATUS_REFUSED, f"{app} is refused, nobody has it: {entry['why']}"
    there = sum(each["standing"] == "deployed" for each in members)
    failed = [each for each in members if each["standing"] == "failed"]
    if entry["phase"] == "deployed" and there == len(members):
        what = "gone from" if entry["undeploys"] else "in place on"
        return 0, f"{app} is {what} {', '.join(each['member'] for each in members)}"
    if entry["phase"] == "deployed" and there + len(failed) == len(members):
        texts = [f"{each['member']}: {each['why']}" for each in failed]
        return STATUS_REFUSED, f"{app} is decided, and tried again on {'; '.join(texts)}"
    received = sum(min(each["received"], entry["bytes"]) for each in members)
    return None, f"{bar(received, entry['bytes'] * len(members))} to {len(members)} members"


def _show(line: str, has_bar: bool) -> None:
    if has_bar and sys.stdout.isatty():
        click.echo(f"\r{printable(line)}\x1b[K\r", nl=False)
