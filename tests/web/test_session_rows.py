"""Rows of the checklist that are to be seen over HTTP, with a cluster and without one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.waiting import wait_until
from tests.web.nodes import make_node
from tests.web.test_asgi import ask
from tribes.config.managers import StandardConfig
from tribes.errors import SessionInvalidError
from tribes.runtime.local import LocalSessions

if TYPE_CHECKING:
    from tribes.manager.base import SessionManager
    from tribes.manager.session import Session
    from tribes.runtime.background import BackgroundNode

Node = Any
LOOK_MS = 100
"""How often sessions are looked through for those that were idle too long."""


@pytest.fixture(params=["local", "cluster"])
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    made: BackgroundNode | LocalSessions
    if request.param == "local":
        made = LocalSessions("app", StandardConfig(expiry_interval=LOOK_MS))
    else:
        made = make_node(expiry_interval=LOOK_MS)
    made.start()
    made.wait_joined()
    yield made
    made.stop()


class Recorder:
    def __init__(self) -> None:
        self.log: list[str] = []

    def session_created(self, session: Session) -> None:
        self.log.append("created")

    def session_destroyed(self, session: Session, reason: str) -> None:
        self.log.append(f"destroyed {reason}")

    def session_id_changed(self, session: Session, old_id: str) -> None:
        self.log.append(f"from {old_id} to {session.id}")


def test_t12_a_session_is_created_found_ended_and_unusable_then(node: Node) -> None:
    """Create, find, invalidate; afterwards every use raises, and the id means nothing (56578). Nor
    does that of a session that has expired.
    """
    seen: list[Any] = []

    async def create(session: Any, respond: Any) -> None:
        session["x"] = 1
        await respond()

    async def read(session: Any, respond: Any) -> None:
        seen.append(session.get("x"))
        await respond()

    async def end(session: Any, respond: Any) -> None:
        session.invalidate()
        for use in (
            lambda: session.created_ms,
            lambda: session["x"],
            lambda: session.update(x=2),
            session.invalidate,
        ):
            with pytest.raises(SessionInvalidError):
                use()
        seen.append("ended")
        await respond()

    recorder = Recorder()
    manager: SessionManager = node.manager("app")
    manager.add_listener(recorder)
    cookie = ask(node, create).session_cookie
    ask(node, read, cookie=cookie)
    ask(node, end, cookie=cookie)
    ask(node, read, cookie=cookie)
    assert seen == [1, "ended", None]
    assert recorder.log == ["created", "destroyed invalidated"]
    assert manager.list_ids() == []

    async def create_short(session: Any, respond: Any) -> None:
        session.max_inactive = 1
        await create(session, respond)

    cookie = ask(node, create_short).session_cookie
    wait_until(lambda: recorder.log[2:] == ["created", "destroyed expired"])
    ask(node, read, cookie=cookie)
    assert seen[3:] == [None]
    assert manager.list_ids() == []


def test_t23_a_rotated_id_replaces_the_old_one_and_is_told_as_that(node: Node) -> None:
    """The new id finds the session, the old one nothing; no session was created by it."""

    async def create(session: Any, respond: Any) -> None:
        session["x"] = 1
        await respond()

    async def rotate(session: Any, respond: Any) -> None:
        session.rotate_id(grace_s=0)
        await respond()

    recorder = Recorder()
    node.manager("app").add_listener(recorder)
    old = ask(node, create).session_cookie
    new = ask(node, rotate, cookie=old).session_cookie
    assert old != new
    assert recorder.log == ["created", f"from {old} to {new}"]
    manager = node.manager("app")
    assert manager.find(old) is None
    found = manager.find(new)
    assert found is not None
    assert found["x"] == 1
    assert manager.list_ids() == [new]
