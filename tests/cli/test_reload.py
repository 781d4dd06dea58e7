"""What is done with a configuration that is read again, without a process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import structlog

from tribes.cli import logs
from tribes.cli.reload import Reload, changed_keys
from tribes.config import config_from, with_value
from tribes.config.model import NodeConfig, StaticMemberConfig
from tribes.errors import ConfigError

ONE, TWO = StaticMemberConfig(host="10.0.0.1"), StaticMemberConfig(host="10.0.0.2")


class Node:
    """A channel that notes who is named to it, and the configuration that is read next."""

    def __init__(self, config: NodeConfig) -> None:
        self.named: list[Any] = []
        self.tokens = 0
        self.next: NodeConfig | ConfigError = config
        channel: Any = SimpleNamespace(config=config, set_static_members=self.named.append)
        self.reload = Reload(channel, config, read=self._read, read_token=self._token)

    def _read(self) -> NodeConfig:
        if isinstance(self.next, ConfigError):
            raise self.next
        return self.next

    def _token(self) -> None:
        self.tokens += 1

    def again(self, config: NodeConfig | ConfigError) -> list[dict[str, Any]]:
        """What is logged."""
        self.next = config
        with structlog.testing.capture_logs() as lines:
            self.reload.again()
        return [dict(line) for line in lines]


def with_static(*members: StaticMemberConfig) -> NodeConfig:
    return with_value(NodeConfig(), "channel.membership.static", members)


def test_nothing_at_all_is_done_with_what_cannot_be_read() -> None:
    """Not even the token is read."""
    node = Node(NodeConfig())
    error = ConfigError("is wrong", key="a.b", source="n.toml")
    [line] = node.again(error)
    assert (line["event"], line["error"]) == ("configuration stays as it was", str(error))
    assert (node.tokens, node.named) == (0, [])


def test_members_are_named_once_and_against_those_of_the_last_time() -> None:
    """The same again is nothing."""
    node = Node(with_static(ONE))
    assert node.again(with_static(ONE)) == []
    [line] = node.again(with_static(TWO))
    assert (line["added"], line["removed"]) == (["10.0.0.2:4000"], ["10.0.0.1:4000"])
    assert node.again(with_static(TWO)) == []
    [line] = node.again(with_static(ONE))
    assert line["added"] == ["10.0.0.1:4000"]
    assert node.named == [(TWO,), (ONE,)]


def test_the_level_is_that_of_the_file() -> None:
    """And it is told at a level that both show."""
    node = Node(NodeConfig())
    before = logs._lowest
    try:
        [line] = node.again(NodeConfig(log_level="error"))
        assert (line["log_level"], line["level"], logs._lowest) == ("warning", "error", 40)
    finally:
        logs._lowest = before


def test_other_settings_are_named_without_their_values() -> None:
    """Each by its path, and told every time."""
    old, new = NodeConfig(), config_from({"channel": {"keys": "secret", "sender": {"timeout": 9}}})
    assert list(changed_keys(old, new)) == ["channel.sender.timeout", "channel.keys"]
    node = Node(old)
    for _ in range(2):
        [line] = node.again(new)
        assert line["keys"] == ["channel.sender.timeout", "channel.keys"]
        assert "secret" not in str(line)
