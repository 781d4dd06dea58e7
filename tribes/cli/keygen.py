"""``tribes keygen``: a new group key, as one line of text."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import click

from tribes.security.keys import KEY_BYTES, GroupKey

__all__ = ["keygen"]

_WHAT_NEXT = """\
This is the group key {id}. Whoever has it is a member: keep it secret, and use another one for
every group. Each member needs the same line, in a file that only its owner may read (mode 0600).
Name the file in each node's configuration, or start it with `tribes node --key-file {file}`:

    key_file = "{file}"    # under [channel]; in Python: ChannelConfig(key_file="{file}")

To replace a key without stopping the group, add the new line behind the old one on every member;
then move it to the top on every member; then take the old line away on every member. After each
step the members read the file again: by SIGHUP to `tribes node`, in a program by reload_keys(). The
first key in a file signs and seals, the others are accepted."""


@click.command("keygen")
@click.option(
    "--id",
    "key_id",
    type=click.IntRange(1, 255),
    default=1,
    show_default=True,
    help="Number that tells keys apart; a key that replaces another needs a new one.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write, readable for its owner only. Default: standard output.",
)
@click.option("--force", is_flag=True, help="Replace the file if there is one.")
def keygen(key_id: int, output: Path | None, force: bool) -> None:
    """Make a key for a group: with it only those who have it are members.

    Prints one line, or writes it to a file; what to do with it goes to standard error.

    Exit codes: 0: done; 1: the file exists, or cannot be written; 2: wrong command line.
    """
    line = GroupKey(key_id, secrets.token_bytes(KEY_BYTES)).to_text() + "\n"
    if output is None:
        click.echo(line, nl=False)
    else:
        _write(output, line, force=force)
        click.echo(f"Written to {output}.\n", err=True)
    click.echo(_WHAT_NEXT.format(id=key_id, file=output or "group.key"), err=True)


def _write(path: Path, line: str, *, force: bool) -> None:
    """Write a file that nobody else can read at any moment."""
    if force and os.path.lexists(path) and not path.is_file():
        raise click.ClickException(f"{path} is no regular file; choose another one")
    # What is there is replaced in one step: a key may be in use, and a link may lead elsewhere.
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}") if force else path
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii", newline="\n") as file:
                file.write(line)
            if force:
                new.replace(path)
        except OSError:
            new.unlink(missing_ok=True)
            raise
    except FileExistsError:
        raise click.ClickException(
            f"{path} exists and may hold a key that is in use; choose another file, or add --force"
        ) from None
    except OSError as why:
        raise click.ClickException(f"{path} can't be written: {why.strerror}") from None
