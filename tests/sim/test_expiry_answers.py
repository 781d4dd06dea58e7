"""The owner of an idle session asks everybody; any number of them may object."""

from __future__ import annotations

from tribes.config.model import ManagerConfig, NodeConfig
from tribes.manager.expiry import owner_of
from tribes.manager.session_ids import partition_of
from tribes.testing.sim import World


def test_two_objections_to_one_session_are_both_taken() -> None:
    """The second one is no violation of the protocol, and the question is over with it."""
    world = World(3)
    config = NodeConfig(
        contexts=("app",),
        manager=ManagerConfig(channel_send_options=6, max_inactive_s=3, expiry_interval=100),
    )
    nodes = [world.start(name, config) for name in "abc"]
    world.run(3)
    session = nodes[0].manager().create()
    nodes[0].manager().commit(session)
    nodes[0].pump()
    world.run(2.9)
    ids = tuple(node.core.local.unique_id for node in nodes)
    owner = nodes[ids.index(owner_of(partition_of(session.key), ids))]
    # Both others use it, and tell so only within the next second: the owner looks before.
    for node in nodes:
        if node is not owner:
            found = node.manager().find(session.id)
            assert found is not None
            node.manager().commit(found)
    expiry = owner.core.sessions.replicators["app"].expiry
    assert world.run_until(world.now + 0.6, lambda: expiry.objections > 0)
    assert world.run_until(world.now + 0.1, lambda: not expiry._asks)
    assert expiry.objections == 2
    assert [event.name for _, event in owner.events if event.name == "link rejected"] == []
    assert owner.manager().find(session.id) is not None
