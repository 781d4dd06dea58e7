"""``tribes node --member``: how a place is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from tribes.cli.app import main

if TYPE_CHECKING:
    from tribes.config.model import NodeConfig


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.1", "10.0.0.1", 4000),
        ("10.0.0.1:4100", "10.0.0.1", 4100),
        ("tomcat.test", "tomcat.test", 4000),
        ("tomcat.test:4100", "tomcat.test", 4100),
        ("fd00::1", "fd00::1", 4000),
        ("[fd00::1]", "fd00::1", 4000),
        ("[fd00::1]:4100", "fd00::1", 4100),
    ],
)
def test_members_are_hosts_with_or_without_a_port(
    monkeypatch: pytest.MonkeyPatch, text: str, host: str, port: int
) -> None:
    """Addresses of IPv6 in brackets, where a port follows."""
    configs: list[NodeConfig] = []
    monkeypatch.setattr(
        "tribes.cli.node.trio.run", lambda run, read, source: configs.append(read())
    )
    done = CliRunner().invoke(main, ["node", "--no-multicast", "--member", text])
    assert done.exit_code == 0, done.output
    membership = configs[0].channel.membership
    assert not membership.multicast
    ((member),) = membership.static
    assert (member.host, member.port) == (host, port)


def test_a_port_that_is_none_is_refused() -> None:
    """With what to write."""
    done = CliRunner().invoke(main, ["node", "--member", "10.0.0.1:http"])
    assert done.exit_code == 1
    assert "HOST:PORT" in done.output
