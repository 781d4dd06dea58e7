"""The ``tribes`` command. Each subcommand is imported when it is used."""

from __future__ import annotations

from importlib import import_module

import click

__all__ = ["main"]

_COMMANDS = {
    "node": "tribes.cli.node",
    "doctor": "tribes.cli.doctor",
    "status": "tribes.cli.operator",
    "top": "tribes.cli.top",
    "members": "tribes.cli.operator",
    "sessions": "tribes.cli.operator",
    "resync": "tribes.cli.operator",
    "drain": "tribes.cli.operator",
    "farm": "tribes.cli.farm",
    "deploy": "tribes.cli.farm",
    "undeploy": "tribes.cli.farm",
    "demo": "tribes.cli.demo",
    "demo-node": "tribes.cli.demo",
    "config": "tribes.cli.config",
    "keygen": "tribes.cli.keygen",
    "record": "tribes.cli.record",
    "completion": "tribes.cli.completion",
    "sim": "tribes.testing.command",
}
"""Where each command is. By name, so that only who uses a command pays for what it imports."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = getattr(import_module(module), cmd_name.replace("-", "_"))
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tribes")
def main() -> None:
    """Session replication for Python: members of a group keep web sessions alive together."""
