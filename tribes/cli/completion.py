"""``tribes completion``: what a shell needs to complete the command."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]

_SHELLS: Final = ("bash", "zsh", "fish")
_HELP: Final = """\
Print what makes a SHELL complete commands, options and files of tribes.

\b
bash:  echo 'eval "$(tribes completion bash)"' >> ~/.bashrc
zsh:   echo 'eval "$(tribes completion zsh)"' >> ~/.zshrc       behind compinit
fish:  tribes completion fish > ~/.config/fish/completions/tribes.fish

Exit codes: 0: done; 1: this bash is older than 4.4; 2: wrong command line.
"""
_VARIABLE: Final = "_TRIBES_COMPLETE"
"""By which the script asks this program what may follow; click's name for a program `tribes`."""


@click.command("completion", help=_HELP)
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script; see `_HELP`."""
    kind = get_completion_class(shell)
    assert kind is not None
    try:
        click.echo(kind(ctx.find_root().command, {}, "tribes", _VARIABLE).source())
    except RuntimeError as why:
        raise click.ClickException(str(why)) from why
