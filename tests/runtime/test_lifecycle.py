"""Steps of a node's life, and messages of the application's own (tomcat-sessions §1.5, §9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.waiting import until
from tribes.config.model import NodeConfig
from tribes.errors import LocalProtocolError
from tribes.runtime.group_channel import GroupChannel

if TYPE_CHECKING:
    from tribes.runtime.lifecycle import LifecycleEvent
    from tribes.wire.data import ChannelData

MakeConfig = Callable[..., NodeConfig]


def _names(told: list[LifecycleEvent]) -> list[tuple[str, str]]:
    return [
        (event.kind.value, event.context or (event.member.label if event.member else ""))
        for event in told
    ]


def _into(found: list[bytes]) -> Callable[[ChannelData], None]:
    return lambda message: found.append(message.message)


async def test_t08_members_and_managers_are_told_before_and_after(make_config: MakeConfig) -> None:
    """Over a start, a join, a leave and a stop, in this order, and around the other listeners."""
    told: list[Any] = []
    a = GroupChannel(make_config("a", contexts=("shop", "blog")))
    a.add_lifecycle_listener(told.append)
    a.add_lifecycle_listener(told.append)
    a.add_membership_listener(lambda event: told.append(event.name))
    async with a:
        async with GroupChannel(make_config("b")):
            await until(lambda: len(told) == 4 + 3)
        await until(lambda: len(told) == 4 + 3 + 3)
    kinds = [each if isinstance(each, str) else _names([each])[0] for each in told]
    assert kinds == [
        ("before_manager_register", "shop"),
        ("before_manager_register", "blog"),
        ("after_manager_register", "shop"),
        ("after_manager_register", "blog"),
        ("before_member_register", "b"),
        "member added",
        ("after_member_register", "b"),
        ("before_member_unregister", "b"),
        "member removed",
        ("after_member_unregister", "b"),
        ("before_manager_unregister", "shop"),
        ("before_manager_unregister", "blog"),
        ("after_manager_unregister", "shop"),
        ("after_manager_unregister", "blog"),
    ]


async def test_a_listener_that_raises_or_was_removed_disturbs_nobody(
    make_config: MakeConfig,
) -> None:
    told: list[LifecycleEvent] = []

    async def moody(event: LifecycleEvent) -> None:
        raise RuntimeError(event.kind.value)

    a = GroupChannel(make_config("a", contexts=("shop",)))
    a.add_lifecycle_listener(moody)
    a.add_lifecycle_listener(told.append)
    async with a:
        assert len(told) == 2
        a.remove_lifecycle_listener(told.append)
        a.remove_lifecycle_listener(moody)
    assert len(told) == 2


async def test_t09_messages_of_the_application_reach_every_other_member_once(
    make_config: MakeConfig,
) -> None:
    """Not the sender; alone it is nothing; to itself it is refused; and what no listener accepts
    is told where that is asked for, and not elsewhere.
    """
    got: dict[str, list[bytes]] = {name: [] for name in "abc"}
    told: dict[str, list[LifecycleEvent]] = {name: [] for name in "abc"}
    config = {name: make_config(name) for name in "abc"}
    config["b"] = msgspec.structs.replace(config["b"], notify_on_failure=True)
    made = {name: GroupChannel(config[name]) for name in "abc"}

    def accept(message: ChannelData) -> bool:
        return message.message.startswith(b"app:")

    for name, channel in made.items():
        channel.add_lifecycle_listener(told[name].append)
        channel.add_message_listener(_into(got[name]), accept=accept)
    async with made["a"] as a:
        await a.send(b"app:alone", options=6)
        with pytest.raises(LocalProtocolError, match="to itself"):
            await a.send(b"app:self", a.local, options=6)
        async with made["b"] as b, made["c"] as c:
            await until(lambda: len(a.members) == len(b.members) == len(c.members) == 2)
            await a.send(b"app:one", options=6)
            assert got == {"a": [], "b": [b"app:one"], "c": [b"app:one"]}
            await a.send(b"unknown", options=6)
            await until(lambda: any(event.message for event in told["b"]))
            [failure] = [event for event in told["b"] if event.message is not None]
            assert _names([failure]) == [("receive_message_failure", "a")]
            assert failure.message is not None
            assert failure.message.message == b"unknown"
            assert not any(event.message for event in told["c"])
