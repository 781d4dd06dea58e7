"""What a user's program looks like to a type checker; never run.

Checked with the tree by ``make types``, and by ``mypy --strict`` against the installed wheel in
tests/test_packaging.py. A line with an ignored error is one that a checker must refuse: strict mode
complains of an ignore that is not needed.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, assert_type

import tribes
from tribes import (
    BackgroundNode,
    ChannelData,
    CommitResult,
    GroupChannel,
    GroupSendError,
    Member,
    NodeConfig,
    RemoteProcessError,
    ReplicatedMap,
    SendOptions,
    SessionError,
    View,
)
from tribes.config import load_config
from tribes.manager import Session, SessionManager
from tribes.web import RequestSession, SessionMiddleware
from tribes.web.wsgi import SESSION
from tribes.web.wsgi import SessionMiddleware as WsgiSessionMiddleware


def a_node_and_its_sessions() -> None:
    node = BackgroundNode(NodeConfig(name="n1", contexts=("shop",)))
    manager = node.manager("shop")
    assert_type(manager, SessionManager)
    session = manager.create()
    assert_type(session, Session)
    assert_type(session["cart"], Any)
    session["cart"] = ["book"]
    assert_type(manager.find("an id"), Session | None)
    result = node.commit(session)
    assert_type(result, CommitResult)
    assert_type(result.acked, tuple[str, ...])
    assert_type(result.missing, Mapping[str, str])
    assert_type(result.replicated, bool)
    assert_type(session.last_accessed_ms, int)
    assert_type(node.view, View)
    assert_type(node.member_names, list[str])


async def a_channel(channel: GroupChannel) -> None:
    assert_type(channel.members, tuple[Member, ...])
    await channel.send(b"hello", options=SendOptions.USE_ACK)
    channel.add_message_listener(on_message)
    try:
        await channel.send(b"hello", options=6)
    except GroupSendError as error:
        assert_type(error.faulty, dict[Any, Exception])


def on_message(data: ChannelData) -> None:
    assert_type(data.source, Member)
    assert_type(data.message, bytes)


def a_map(node: BackgroundNode) -> None:
    prices = ReplicatedMap(node, "prices")
    assert_type(prices["apple"], Any)
    assert_type(prices.put("apple", 3), CommitResult)


def a_web_application(application: Callable[..., Any], node: BackgroundNode) -> None:
    SessionMiddleware(application, node)
    WsgiSessionMiddleware(application, node)
    assert_type(SESSION, Literal["tribes.session"])


def a_request(session: RequestSession) -> None:
    assert_type(session.exists, bool)
    session.invalidate()


def a_configuration() -> NodeConfig:
    config = load_config("node.toml")
    assert_type(config, NodeConfig)
    return config


def errors_are_a_tree() -> tuple[type[tribes.TribesError], ...]:
    return (SessionError, GroupSendError, RemoteProcessError)


def what_is_refused(node: BackgroundNode) -> None:
    BackgroundNode("n1")  # type: ignore[arg-type]
    NodeConfig(nmae="n1")  # type: ignore[call-arg]
    node.commit("an id")  # type: ignore[arg-type]
    tribes.BackgroundNod  # type: ignore[attr-defined]  # noqa: B018
    node.view.members = ()  # type: ignore[misc]
