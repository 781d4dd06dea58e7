"""``tribes doctor``: find what keeps a node from working in its group."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Final

import click
import trio

from tribes.admin.doctor.examine import examine
from tribes.admin.doctor.findings import Finding, State, worst
from tribes.cli.address import static_member
from tribes.cli.client import printable
from tribes.config import read_config, read_config_bytes
from tribes.errors import ConfigError

if TYPE_CHECKING:
    from tribes.config.load import Loaded

__all__ = ["STATUS_FAILURES", "STATUS_WARNINGS", "doctor"]

STATUS_WARNINGS: Final = 3
STATUS_FAILURES: Final = 4

_COLORS: Final = {State.OK: "green", State.WARN: "yellow", State.FAIL: "red"}
_STATUS: Final = {State.OK: 0, State.WARN: STATUS_WARNINGS, State.FAIL: STATUS_FAILURES}


@click.command("doctor")
@click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False),
    help="The node's file: TOML, or Tomcat's XML. Variables TRIBES_... go over it.",
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    metavar="HOST[:PORT]",
    help="Where a member should be, if the file does not say it; may be repeated.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.2, 60),
    default=3.0,
    show_default=True,
    help="How long to listen for heartbeats.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def doctor(
    ctx: click.Context,
    config_file: str | None,
    peers: tuple[str, ...],
    seconds: float,
    as_json: bool,
) -> None:
    """Look for what keeps a node from working in its group, and say what to do.

    It may be run before the node, or while it runs, and is no member meanwhile.

    Exit codes: 0: all is well; 1: the configuration cannot be read; 2: wrong command line; 3: there
    are warnings; 4: something is wrong.
    """
    try:
        loaded = _loaded(config_file)
        asked = [static_member(each) for each in peers]
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    found = trio.run(
        partial(examine, loaded, seconds=seconds, peers=asked, tell=_quiet if as_json else _print)
    )
    state = worst(found)
    if as_json:
        click.echo(json.dumps({"state": state, "findings": [asdict(each) for each in found]}))
    elif state is not State.OK:
        bad = sum(each.state is not State.OK for each in found)
        click.echo(f"{bad} of {len(found)} findings need a look")
    ctx.exit(_STATUS[state])


def _loaded(path: str | None) -> Loaded:
    if path:
        return read_config(path, environ=os.environ)
    return read_config_bytes(b"", environ=os.environ)


def _quiet(finding: Finding) -> None:
    del finding


def _print(finding: Finding) -> None:
    state = click.style(f"{finding.state:<4}", fg=_COLORS[finding.state], bold=True)
    click.echo(f"{state}  {finding.check:<13} {printable(finding.text)}")
    if finding.fix:
        click.echo(f"{'':<20}fix: {printable(finding.fix)}")
