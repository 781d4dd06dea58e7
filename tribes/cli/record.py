"""``tribes record``: have a running node write what it has recorded."""

from __future__ import annotations

import json

import click

from tribes.cli.client import Client, asks

__all__ = ["record"]


@click.command("record")
@click.option(
    "--contents",
    is_flag=True,
    help="With sessions, their ids, messages and keys: only such a file can be run again, and it "
    "is as secret as all of them. Without: what happened, when, and how large it was.",
)
@asks
def record(client: Client, as_json: bool, contents: bool) -> None:
    """Write the node's last minutes into a file on its machine; see recorder in its configuration.

    Exit codes: 0: done; 1: the node does not answer, or refuses; 2: wrong command line; 4: it
    records nothing.
    """
    said = client.post("/record", contents=contents)
    if as_json:
        click.echo(json.dumps(said))
        return
    click.echo(said["path"])
    click.echo(f"{said['steps']} steps of {said['seconds']:.0f} s, {said['bytes']} bytes", err=True)
    if said["can_replay"]:
        click.echo(f"tribes sim --replay {said['path']}", err=True)
    elif contents:
        click.echo("its sessions were too large to be kept: it has a timeline only", err=True)
