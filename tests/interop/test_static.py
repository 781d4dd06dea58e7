"""Members that list each other instead of hearing each other's multicast.

The real Tomcat names ours in its StaticMembershipInterceptor, and ours names it.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.conftest import Group, OpenGroup, content, python_member
from tests.ports import free_tcp_port
from tests.waiting import until
from tribes import MemberRemoved
from tribes.config.model import StaticMemberConfig

if TYPE_CHECKING:
    from tribes import NodeConfig

pytestmark = pytest.mark.timeout(180)  # each virtual machine takes seconds to start

PYTHON_ID = "{1,2,3,4,5,6,7,8,9,10,11,12,13,14,-1,-2}"
JAVA_ID = "{21,22,23,24,25,26,27,28,29,30,31,32,33,34,-5,-6}"


def by_discovery(group: Group, port: int, java_port: int) -> NodeConfig:
    """Ours with settings of its own: no multicast, an id, and where the Tomcat is."""
    there = StaticMemberConfig(host="127.0.0.1", port=java_port, unique_id=JAVA_ID)
    settings = {"multicast": False, "unique_id": PYTHON_ID, "static": (there,)}
    return group.config(port=port, membership=settings)


def by_interceptor(group: Group, port: int, java_port: int) -> NodeConfig:
    """Ours with Tomcat's own interceptor, and the same in it."""
    member: dict[str, Any] = {"host": "127.0.0.1", "port": java_port, "uniqueId": JAVA_ID}
    local = {"host": "127.0.0.1", "port": port, "uniqueId": PYTHON_ID}
    static = {"class": "StaticMembershipInterceptor", "members": [member], "localMember": local}
    tables = ({"class": "MessageDispatchInterceptor"}, {"class": "TcpFailureDetector"}, static)
    return group.config(port=port, membership={"multicast": False}, interceptors=tables)


@pytest.mark.parametrize(("configure", "end"), [(by_discovery, "GONE"), (by_interceptor, "LEFT")])
async def test_each_lists_the_other(java_group: OpenGroup, configure: Any, end: str) -> None:
    """They find each other, talk, and notice the other's end and return; nothing is multicast.

    Only the interceptor tells a Tomcat of its leave, else that finds the port closed.
    """
    async with java_group() as group:
        port, java_port = free_tcp_port(), free_tcp_port()
        listing = ("--static", f"127.0.0.1:{port}:{PYTHON_ID}", "--local-id", JAVA_ID)
        java = await group.java("java", *listing, port=java_port)
        gone: list[str] = []
        config = configure(group, port, java_port)
        async with python_member(config) as (channel, heard):

            def note(event: object) -> None:
                if isinstance(event, MemberRemoved):
                    gone.append(event.reason)

            channel.add_membership_listener(note)
            await until(lambda: len(channel.members) == 1)
            await java.expect("ADDED", 10)
            for number, options in enumerate((0, 2, 6, 8), 100):
                await channel.send(content(number, 1000), options=options)
                await java.expect(f"GOT {number}")
                await java.ask(f"send {number} 1000 {options}", f"SENT {number}")
                await heard.expect(number, 1000)
            java.process.send_signal(signal.SIGKILL)
            await until(lambda: len(gone) == 1, 8)
            assert gone != ["left"]
            assert not channel.members
            again = await group.java("java", *listing, port=java_port)
            await until(lambda: len(channel.members) == 1)
            await again.expect("ADDED", 10)
            await channel.send(content(200, 1000), options=6)
            await again.expect("GOT 200")
        await again.expect(end, 15)
        # The same id once more: Tomcat takes it for the member that it knows, and may.
        async with python_member(config) as (channel, heard):
            await until(lambda: len(channel.members) == 1)
            await again.expect("ADDED", 10)
            await again.ask("send 300 1000 6", "SENT 300")
            await heard.expect(300, 1000)
