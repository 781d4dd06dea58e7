"""``tribes config``: look at a configuration before a node uses it."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any, NoReturn

import click

from tribes.config import Loaded, as_toml, read_config, read_config_bytes
from tribes.config.explain import explain as explained
from tribes.config.explain import names_like
from tribes.config.model import NodeConfig, check_protection, check_values
from tribes.errors import ConfigError
from tribes.ids import make_unique_id
from tribes.interceptors.domain import parse_domain
from tribes.interceptors.registry import build_interceptors
from tribes.interceptors.rules import check_stack
from tribes.wire.member import Member

__all__ = ["config"]

_FILE = click.Path(dir_okay=False, path_type=Path, allow_dash=False)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.group("config")
def config() -> None:
    """Look at configuration files: TOML, or Tomcat's XML.

    Exit codes: 0: fine; 1: there are notices, and --strict was given; 2: a file cannot be used.
    """


@config.command("check")
@click.argument("files", nargs=-1, required=True, type=_FILE)
@click.option("--strict", is_flag=True, help="Exit with 1 if there is any notice.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
@_JSON
@click.option("--env/--no-env", default=True, help="Apply TRIBES_... variables.  [default: env]")
@click.pass_context
def check(
    ctx: click.Context,
    files: tuple[Path, ...],
    strict: bool,
    quiet: bool,
    as_json: bool,
    env: bool,
) -> None:
    """Read files and say what is not as it stands there.

    Exit codes: 0: fine; 1: there are notices, and --strict was given; 2: a file cannot be used.
    """
    exit_code = 0
    seen: list[dict[str, Any]] = []
    for file in files:
        try:
            loaded = _load(file, env=env)
        except ConfigError as error:
            if not as_json:
                click.echo(f"error: {error}", err=True)
            seen.append({"file": str(file), "error": str(error), "notices": []})
            exit_code = 2
            continue
        notices = [f"{file}: {notice}" for notice in loaded.notices] + _to_start(loaded)
        seen.append({"file": str(file), "error": None, "notices": notices})
        if not quiet and not as_json:
            for notice in notices:
                click.echo(notice)
            click.echo(f"{file}: fine" + (f", {len(notices)} notices" if notices else ""))
        if notices and strict:
            exit_code = max(exit_code, 1)
    if as_json:
        click.echo(json.dumps({"files": seen}))
    ctx.exit(exit_code)


@config.command("convert")
@click.argument("file", type=_FILE)
@click.option("--to", "to", type=click.Choice(["toml"]), default="toml", show_default=True)
@click.option("--output", type=_FILE, help="File to write. Default: standard output.")
@click.option("--strict", is_flag=True, help="If there are notices, write nothing: exit with 1.")
@click.pass_context
def convert(ctx: click.Context, file: Path, to: str, output: Path | None, strict: bool) -> None:
    """Write a file as TOML that means the same. What does not mean the same goes to standard error.

    Keys stand in the result as they stand in the file: keep it as secret. Environment variables
    are not applied.

    Exit codes: 0: fine; 1: there are notices, and --strict was given, or nothing could be written;
    2: the file cannot be used.
    """
    del to
    try:
        loaded = read_config(file)
        text = as_toml(loaded.config)
    except ConfigError as error:
        _fail(error)
    for notice in loaded.notices:
        click.echo(f"{file}: {notice}", err=True)
    if loaded.notices and strict:
        ctx.exit(1)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        # It may hold keys, so nobody else can read it at any moment.
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as opened:
            opened.write(text)
    except FileExistsError:
        raise click.ClickException(f"{output} exists; choose another file") from None
    except OSError as why:
        raise click.ClickException(f"{output} can't be written: {why.strerror}") from None


@config.command("show")
@click.argument("file", type=_FILE, required=False)
@_JSON
def show(file: Path | None, as_json: bool) -> None:
    """Print every setting that is in force: the file's, then TRIBES_... variables.

    Without a file: the defaults. Keys are hidden.

    Exit codes: 0: fine; 2: the file cannot be used.
    """
    try:
        loaded = (
            read_config(file, environ=os.environ)
            if file
            else read_config_bytes(b"", environ=os.environ)
        )
        text = as_toml(loaded.config, whole=True, hide=True)
        if as_json:
            text = json.dumps(tomllib.loads(text), default=str) + "\n"
        click.echo(text, nl=False)
    except ConfigError as error:
        _fail(error)
    for override in loaded.overrides:
        click.echo(f"{override.variable} sets {override.key}", err=True)


@config.command("explain")
@click.argument("attribute")
@_JSON
@click.pass_context
def explain(ctx: click.Context, attribute: str, as_json: bool) -> None:
    """Say what an attribute of Tomcat, or a key of ours, is and does.

    ATTRIBUTE is a name like dropTime, drop_time, Receiver.port or OrderInterceptor.expire.

    Exit codes: 0: fine; 2: it is not known.
    """
    found = explained(attribute)
    if as_json:
        click.echo(json.dumps({"attribute": attribute, "found": found}))
    for text in () if as_json else found:
        click.echo(text)
    if not found:
        near = names_like(attribute)
        guess = f"; is {' or '.join(near)} meant?" if near else "; see docs/configuration.md"
        click.echo(f"{attribute} is not known{guess}", err=True)
        ctx.exit(2)


def _load(file: Path, *, env: bool) -> Loaded:
    loaded = read_config(file, environ=os.environ if env else None)
    try:
        check_values(loaded.config)
        _check_interceptors(loaded.config)
    except ConfigError as error:
        raise loaded.located(error) from None
    return loaded


def _check_interceptors(config: NodeConfig) -> None:
    """Make them, as a node would. Names of members are not looked up: nothing is connected to."""
    if config.channel.interceptors is not None:
        built = build_interceptors(config.channel.interceptors, resolve=lambda _: bytes(4))
        local = Member(
            host=bytes(4),
            port=1,
            unique_id=make_unique_id(bytes(16)),
            domain=parse_domain(config.channel.membership.domain),
        )
        check_stack(built.interceptors, local=local, option_check=config.channel.option_check)


def _to_start(loaded: Loaded) -> list[str]:
    """What is still to be said before a node may start; a key is often given another way."""
    try:
        check_protection(loaded.config)
    except ConfigError as error:
        return [f"before it can start: {loaded.located(error)}"]
    return []


def _fail(error: ConfigError) -> NoReturn:
    click.echo(f"error: {error}", err=True)
    raise click.exceptions.Exit(2)
