"""A worker's sessions are its node's: found, committed, merged, and resumed when a wire breaks."""

from __future__ import annotations

import re
from itertools import count
from typing import Any

import pytest

from tests.manager.attached_worker import Host, Worker
from tests.manager.cluster import read, start, write
from tests.sim import backup_nodes
from tribes.errors import (
    LocalProtocolError,
    RemoteProtocolError,
    SessionInvalidError,
    SessionLimitError,
    SessionUnreachableError,
)
from tribes.manager.attach_service import QUARANTINE_S
from tribes.manager.attach_wire import BYE, COMMIT, FIND, HELLO, VERSION, decode, encode
from tribes.manager.attached import LOOK_S
from tribes.manager.merged import MergedCounter, MergedList
from tribes.testing.sim import SimNode, SimWaiter, World


@pytest.fixture
def nodes() -> list[SimNode]:
    return start(World(seed=3), "ab")


@pytest.fixture
def host(nodes: list[SimNode]) -> Host:
    return Host(nodes[0])


@pytest.fixture
def worker(host: Host) -> Worker:
    return Worker(host)


def make(worker: Worker, **values: Any) -> str:
    session = worker.manager.create()
    session.update(values)
    worker.commit(session)
    return session.id


def hits(node: SimNode, session_id: str) -> int:
    found = node.manager().find(session_id)
    assert found is not None
    value: int = found["hits"].value
    return value


def test_commit_of_a_worker_is_on_every_member(worker: Worker, nodes: list[SimNode]) -> None:
    """What it writes lies on its node and on the other one, which know nothing of workers."""
    session_id = make(worker, cart=["book"])
    worker.world.run(1)
    assert [read(node, session_id) for node in nodes] == [{"cart": ["book"]}] * 2
    assert dict(worker.find(session_id)) == {"cart": ["book"]}
    assert len(worker.manager.table) == 0


def test_acked_commit_names_who_has_it(worker: Worker, nodes: list[SimNode]) -> None:
    """A commit that waits is answered when the other member has it."""
    session = worker.manager.create()
    session["a"] = 1
    work, waiter = worker.send(session, waits=True)
    assert not waiter.is_done
    worker.world.run(1)
    assert work.acked == ("b",)
    assert not work.missing
    assert worker.manager.finish(session, work).version == work.version


def test_worker_reads_what_another_node_wrote(worker: Worker, nodes: list[SimNode]) -> None:
    """Nothing is kept from one request to the next."""
    session_id = make(worker, a=1)
    worker.world.run(1)
    found = nodes[1].manager().find(session_id)
    assert found is not None
    found["a"] = 2
    nodes[1].manager().commit(found, SimWaiter())
    worker.world.run(1)
    assert worker.find(session_id)["a"] == 2


def test_parallel_requests_of_two_workers_are_joined(host: Host, worker: Worker) -> None:
    """As two threads of one process: each keeps what the other appended."""
    other = Worker(host, seed=2)
    session_id = make(worker, cart=["book"], hits=MergedCounter())
    one, two = worker.find(session_id), other.find(session_id)
    one["cart"].append("pen")
    two["cart"].append("ink")
    one["hits"].add(1)
    two["hits"].add(1)
    worker.commit(one)
    other.commit(two)
    assert worker.find(session_id)["cart"] == ["book", "pen", "ink"]
    assert worker.find(session_id)["hits"].value == 2
    assert other.manager.counts.commit_retries == 1


def test_commit_that_others_always_overtake_is_given_up(
    worker: Worker, nodes: list[SimNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is built anew some times, and does not keep its request for ever."""
    monkeypatch.setattr("tribes.manager.attached.ROUNDS_MAX", 3)
    session_id = make(worker, a=0)
    session = worker.find(session_id)
    session["a"] = 1
    send, writes = worker._send, count()

    def overtaken(frame: bytes) -> None:
        write(nodes[0], "b", next(writes), session_id)
        send(frame)

    worker._send = overtaken  # type: ignore[method-assign]
    with pytest.raises(SessionUnreachableError, match="change the session all the time"):
        worker.commit(session)
    assert next(writes) == 4


def test_worker_hears_of_a_write_that_it_overwrites(host: Host, worker: Worker) -> None:
    """`on_conflict` is told in the worker whose commit did it."""
    other = Worker(host, seed=2)
    told: list[Any] = []
    other.manager.on_conflict = lambda session, *what: told.append(what)
    session_id = make(worker, a=0)
    one, two = worker.find(session_id), other.find(session_id)
    one["a"], two["a"] = 1, 2
    worker.commit(one)
    other.commit(two)
    assert told == [("a", 1, 2)]
    assert worker.find(session_id)["a"] == 2


def test_write_of_a_worker_that_another_member_overwrites_is_counted(
    worker: Worker, nodes: list[SimNode]
) -> None:
    """At its node, as the node's own."""
    session_id = make(worker, a=0)
    worker.world.run(1)
    theirs = nodes[1].manager().find(session_id)
    mine = worker.find(session_id)
    assert theirs is not None
    mine["a"] = 1
    worker.commit(mine)
    theirs["a"] = 2
    nodes[1].manager().commit(theirs, SimWaiter())
    worker.world.run(1)
    assert nodes[0].manager().statistics().overwritten == 1


def test_idle_limit_of_a_session_is_known(worker: Worker, nodes: list[SimNode]) -> None:
    """It comes with the session, since the worker has no table."""
    session = worker.manager.create()
    session.max_inactive = 60
    worker.commit(session)
    assert worker.find(session.id).max_inactive == 60
    assert nodes[0].manager().limit_of(session.key) == 60


def test_use_without_a_change_keeps_a_session(worker: Worker) -> None:
    """A request that only reads tells the node that it did."""
    session = worker.manager.create()
    session.max_inactive = 60
    session["a"] = 1
    worker.commit(session)
    for _ in range(5):
        worker.world.run(30)
        assert worker.manager.prepare(worker.find(session.id)) is None
    worker.world.run(90)
    assert worker.manager.find(session.id) is None


def test_logout_ends_the_session_everywhere(worker: Worker, nodes: list[SimNode]) -> None:
    """And a request of another worker that comes late is told."""
    session_id = make(worker, a=1)
    late, session = worker.find(session_id), worker.find(session_id)
    session.invalidate()
    assert worker.commit(session).version
    worker.world.run(1)
    assert [read(node, session_id) for node in nodes] == [None, None]
    late["a"] = 2
    outcome = worker.commit(late)
    assert outcome.is_gone
    assert outcome.void == ("a",)
    with pytest.raises(SessionInvalidError):
        late["a"]


def test_new_id_works_and_the_old_one_does_not(worker: Worker) -> None:
    """`rotate_id` at a login."""
    session_id = make(worker, a=1)
    session = worker.find(session_id)
    new = session.rotate_id(grace_s=0)
    worker.commit(session)
    worker.world.run(1)
    assert worker.find(new)["a"] == 1
    assert worker.manager.find(session_id) is None


def test_node_without_room_refuses_a_new_session() -> None:
    """``max_active_sessions`` counts what the node has."""
    world = World(seed=3)
    (node,) = start(world, "a", max_active_sessions=1)
    worker = Worker(Host(node))
    make(worker)
    with pytest.raises(SessionLimitError, match="1 sessions are active"):
        make(worker)


def test_listeners_hear_of_the_workers_own_requests(worker: Worker) -> None:
    """Sessions that begin, change their id and end, and their attributes."""
    told: list[str] = []

    class Listener:
        def session_created(self, session: Any) -> None:
            told.append("created")

        def session_id_changed(self, session: Any, old_id: str) -> None:
            told.append("id changed")

        def session_destroyed(self, session: Any, reason: str) -> None:
            told.append(f"{reason}, a = {session['a']}")

        def attribute_added(self, session: Any, name: str, value: Any) -> None:
            told.append(f"{name} added")

    worker.manager.add_listener(Listener())
    session_id = make(worker, a=1)
    session = worker.find(session_id)
    session.rotate_id()
    worker.commit(session)
    session.invalidate()
    worker.commit(session)
    assert told == ["created", "a added", "id changed", "invalidated, a = 1"]


def test_sessions_of_a_backup_manager_that_lie_elsewhere_are_brought() -> None:
    """Each lies on two of four members, of which the worker's node need not be one."""
    world = World(seed=3)
    config = backup_nodes.config(map_send_options=6)
    nodes = [world.start(name, config) for name in "abcd"]
    world.run(5)
    worker = Worker(Host(nodes[0]))
    ids = [make(worker, n=0) for _ in range(20)]
    for _ in range(3):
        for session_id in ids:
            session = worker.find(session_id)
            session["n"] += 1
            worker.commit(session, waits=True)
        world.run(2)
    assert [worker.find(session_id)["n"] for session_id in ids] == [3] * 20
    held = [sum(backup_nodes.manager(node).is_whole(i) for i in ids) for node in nodes]
    assert all(held)


# When the wire breaks.


@pytest.mark.parametrize("lost", ["question", "answer"])
def test_commit_without_an_answer_is_sent_again_and_applied_once(
    host: Host, worker: Worker, lost: str
) -> None:
    """Whether the node had it or not: a counter counts one, a list has one element."""
    session_id = make(worker, hits=MergedCounter(5), log=MergedList(["x"]))
    session = worker.find(session_id)
    session["hits"].add(1)
    session["log"].append("y")
    worker.loses_questions, worker.loses_answers = lost == "question", lost == "answer"
    work, waiter = worker.send(session)
    worker.lose()
    assert not waiter.is_done
    worker.loses_questions = worker.loses_answers = False
    worker.connect(host)
    assert waiter.is_done
    assert worker.manager.finish(session, work).version
    found = worker.find(session_id)
    assert found["hits"].value == 6
    assert list(found["log"]) == ["x", "y"]
    assert worker.calls.resent == 1
    assert host.service.repeats == (lost == "answer")


@pytest.mark.parametrize("lost", ["question", "answer"])
def test_commit_is_sent_again_to_a_node_that_was_started_anew(
    worker: Worker, nodes: list[SimNode], lost: str
) -> None:
    """Which gets the sessions from the other one, with the first commit in them or not."""
    a = nodes[0]
    session_id = make(worker, hits=MergedCounter(5))
    worker.world.run(1)
    session = worker.find(session_id)
    session["hits"].add(1)
    worker.loses_questions, worker.loses_answers = lost == "question", lost == "answer"
    work, waiter = worker.send(session)
    worker.world.run(0.5)
    a.crash()
    worker.lose()
    a.restart()
    worker.loses_questions = worker.loses_answers = False
    worker.connect(Host(a, seed=8))
    worker.world.run(5)
    assert waiter.is_done
    worker.manager.finish(session, work)
    assert [hits(node, session_id) for node in nodes] == [6, 6]


def test_commit_to_a_node_that_has_forgotten_all_brings_the_session() -> None:
    """The only member was killed: what the request read travels with what it wrote."""
    (node,) = start(World(seed=3), "a")
    worker = Worker(Host(node))
    session_id = make(worker, cart=["book"], name="x")
    session = worker.find(session_id)
    session["cart"].append("pen")
    worker.loses_questions = True
    work, _ = worker.send(session)
    node.crash()
    worker.lose()
    node.restart()
    worker.loses_questions = False
    worker.connect(Host(node, seed=8))
    worker.manager.finish(session, work)
    assert dict(worker.find(session_id)) == {"cart": ["book", "pen"], "name": "x"}


def test_outcome_that_nobody_knows_is_reported_and_settled_by_the_next_commit(
    host: Host, worker: Worker
) -> None:
    """The answer is lost for good; the request's second commit sends the very same change."""
    session_id = make(worker, hits=MergedCounter(5))
    session = worker.find(session_id)
    session["hits"].add(1)
    worker.loses_answers = True
    work, waiter = worker.send(session)
    worker.lose(is_gone=True)
    worker.expire()
    assert waiter.is_done
    with pytest.raises(SessionUnreachableError, match="it broke"):
        worker.manager.finish(session, work)
    assert work.is_unknown
    assert worker.calls.unknown == 1
    worker.loses_answers = False
    worker.connect(host)
    assert worker.commit(session).version
    assert worker.find(session_id)["hits"].value == 6


def test_change_after_an_unknown_outcome_is_not_lost(host: Host, worker: Worker) -> None:
    """What the request changes meanwhile is a commit of its own, behind the first one."""
    session_id = make(worker, a=0, removed=0)
    session = worker.find(session_id)
    session["a"] = 1
    worker.loses_answers = True
    work, _ = worker.send(session)
    worker.lose(is_gone=True)
    worker.expire()
    with pytest.raises(SessionUnreachableError):
        worker.manager.finish(session, work)
    session["a"] = 2
    session["b"] = 3
    del session["removed"]
    worker.loses_answers = False
    worker.connect(host)
    worker.commit(session)
    worker.commit(session)
    assert dict(worker.find(session_id)) == {"a": 2, "b": 3}


def test_end_without_an_answer_is_sent_again(host: Host, worker: Worker) -> None:
    """A logout is not lost either."""
    session_id = make(worker, a=1)
    session = worker.find(session_id)
    session.invalidate()
    worker.loses_questions = True
    work, waiter = worker.send(session)
    worker.lose()
    worker.loses_questions = False
    worker.connect(host)
    assert waiter.is_done
    worker.manager.finish(session, work)
    assert worker.manager.find(session_id) is None


def test_write_that_was_overwritten_before_it_arrived_is_told(host: Host, worker: Worker) -> None:
    """Sent again as a merge it loses against a later one that had not seen it."""
    other = Worker(host, seed=2)
    told: list[Any] = []
    worker.manager.on_conflict = lambda session, *what: told.append(what)
    session_id = make(worker, a=0)
    mine, theirs = worker.find(session_id), other.find(session_id)
    mine["a"] = 1
    worker.loses_questions = True
    work, _ = worker.send(mine)
    worker.lose()
    worker.world.run(0.1)
    theirs["a"] = 2
    other.commit(theirs)
    worker.loses_questions = False
    worker.connect(host)
    worker.manager.finish(mine, work)
    assert told == [("a", 1, 2)]
    assert worker.find(session_id)["a"] == 2


def test_worker_whose_node_is_gone_says_so(worker: Worker) -> None:
    """Neither a session that there is nor a new one is served as if there were none."""
    session_id = make(worker, a=1)
    held = worker.find(session_id)
    held["a"] = 2
    worker.lose(is_gone=True)
    with pytest.raises(SessionUnreachableError, match="it broke"):
        worker.manager.find(session_id)
    with pytest.raises(SessionUnreachableError, match="it broke"):
        worker.commit(held)
    new = worker.manager.create()
    with pytest.raises(SessionUnreachableError, match="it broke"):
        worker.commit(new)


def test_question_that_is_not_answered_is_no_missing_session(worker: Worker) -> None:
    """A node that hangs must not log anybody out."""
    session_id = make(worker, a=1)
    worker.loses_answers = True
    with pytest.raises(SessionUnreachableError, match="did not answer"):
        worker.manager.find(session_id)


# Rules of its own.


def test_filtered_attributes_stay_in_their_worker_and_go_with_their_session(host: Host) -> None:
    """Another worker does not see them, and when the session is no more they are let go."""
    worker = Worker(host, name_filter=re.compile("shared"))
    other = Worker(host, seed=2)
    session_id = make(worker, shared=1, own=object)
    assert dict(worker.find(session_id)) == {"shared": 1, "own": object}
    assert dict(other.find(session_id)) == {"shared": 1}
    ended = other.find(session_id)
    ended.invalidate()
    other.commit(ended)
    assert len(worker.manager.watch.kept) == 1
    worker.world.run(LOOK_S + 1)
    for _ in range(2):
        worker.manager.wanted((), None)
    assert len(worker.manager.watch.kept) == 0


def test_what_was_brought_serves_one_request_only(worker: Worker) -> None:
    """The next one asks again, and reads what is there then."""
    session_id = make(worker, a=1)
    asked = list(worker.manager.wanted([session_id, "no id"], None))
    assert asked == [session_id]
    worker.manager.ask(session_id, None, SimWaiter())
    before = worker.find(session_id)
    before["a"] = 2
    worker.commit(before)
    assert worker.find(session_id)["a"] == 2


def test_manager_refuses_what_would_be_silently_wrong(worker: Worker) -> None:
    """It has no list of sessions, and commits by the node's committer only."""
    session = worker.manager.create()
    with pytest.raises(LocalProtocolError, match="tribes sessions list"):
        worker.manager.list_ids()
    with pytest.raises(LocalProtocolError, match=r"node\.commit"):
        worker.manager.commit(session)


def test_actor_is_lent_again_when_its_worker_has_ended(host: Host, worker: Worker) -> None:
    """At once if it said that nothing of it is under way, else when nothing can be any more."""
    actor = worker.manager.clock.actor
    assert worker.line is not None
    worker.line.receive(decode(encode(BYE, 0)[4:]), worker.world.now)
    worker.lose()
    second = Worker(host, seed=2)
    assert second.manager.clock.actor == actor
    second.lose()
    third = Worker(host, seed=3)
    assert third.manager.clock.actor != actor
    worker.world.run(QUARANTINE_S + 1)
    assert Worker(host, seed=4).manager.clock.actor == actor
    assert host.node.manager().lent_actors == {actor, third.manager.clock.actor}


def test_writes_of_a_worker_are_its_nodes(worker: Worker, nodes: list[SimNode]) -> None:
    """The primary indicator is true on the host whose worker wrote last."""
    session_id = make(worker, a=1)
    worker.world.run(1)
    worker.find(session_id)
    assert worker.manager.is_primary(session_id)
    assert [node.manager().is_primary(session_id) for node in nodes] == [True, False]
    other = Worker(Host(nodes[1], seed=8), seed=2)
    other.find(session_id)
    assert not other.manager.is_primary(session_id)


@pytest.mark.parametrize(
    "fields",
    [
        (FIND, "app", "AB12", 1, 2**40),
        (FIND, "other", "AB12", 0, 0),
        (COMMIT, "app", "no key", None, b"", 0, False),
        (COMMIT, "app", "AB12", None, b"garbage", 0, False),
        (COMMIT, "app", "AB12", None, b"", 9, False),
        (HELLO, VERSION, VERSION, ["app"]),
    ],
)
def test_worker_that_breaks_the_protocol_changes_nothing(
    worker: Worker, nodes: list[SimNode], fields: tuple[Any, ...]
) -> None:
    """It is an error of its own connection."""
    assert worker.line is not None
    kind, *rest = fields
    with pytest.raises(RemoteProtocolError):
        worker.line.receive(decode(encode(kind, 1, *rest)[4:]), worker.world.now)
    assert len(nodes[0].manager().table) == 0
