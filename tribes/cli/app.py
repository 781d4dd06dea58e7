"""The ``tribes`` command."""

from __future__ import annotations

import click

from tribes.cli.demo import demo, demo_node
from tribes.cli.node import node

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tribes")
def main() -> None:
    """Session replication for Python: members of a group keep web sessions alive together."""


main.add_command(node)
main.add_command(demo)
main.add_command(demo_node)
