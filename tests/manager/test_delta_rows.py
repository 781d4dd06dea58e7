"""What the Delta manager does row by row of the checklist, in a simulated cluster."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from tests.manager.cluster import start
from tests.manager.test_delta import commit
from tribes.config.model import ManagerConfig, NodeConfig
from tribes.manager.inbox import Commit
from tribes.manager.record import (
    Entry,
    Kind,
    Namespace,
    from_wire,
    header,
    pack_delta,
    parse,
    to_wire,
)
from tribes.manager.unknown import UnknownEntries
from tribes.testing.sim import SimNode, World

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tribes.manager.base import SessionManager
    from tribes.manager.session import Session


def found(node: SimNode, session_id: str) -> Session:
    session = node.manager().find(session_id)
    assert session is not None
    return session


def deltas(manager: SessionManager, session: Session) -> list[Entry]:
    """The entries of a commit as it would travel."""
    manager.inbox.wake = None
    manager.commit(session)
    [sent] = manager.inbox.drain(10)
    return list(parse(from_wire(sent.delta, manager.now_ds())).entries.values())


class Recorder:
    def __init__(self) -> None:
        self.log: list[str] = []

    def session_created(self, session: Session) -> None:
        self.log.append("created")

    def session_destroyed(self, session: Session, reason: str) -> None:
        self.log.append(f"destroyed {reason}")

    def session_id_changed(self, session: Session, old_id: str) -> None:
        self.log.append("id changed")

    def session_evicted(self, session: Session, reason: str) -> None:
        self.log.append(f"evicted {reason}")

    def attribute_added(self, session: Session, name: str, value: Any) -> None:
        self.log.append(f"added {name} {value}")

    def attribute_replaced(self, session: Session, name: str, old: Any) -> None:
        self.log.append(f"replaced {name} {old}")

    def attribute_removed(self, session: Session, name: str, old: Any) -> None:
        self.log.append(f"removed {name} {old}")

    def container_event(self, context: str, kind: str, data: object) -> None:
        self.log.append(f"{context}: {kind}")


def test_t18_a_running_request_on_any_member_keeps_its_session_everywhere() -> None:
    """M = 2 s, a request of 8 s on one member: whoever the owner is, the session is there."""
    for holder in (0, 1):
        world = World(20 + holder)
        nodes = start(world, "ab", max_inactive_s=2, session_activity_check=True)
        session = nodes[0].manager().create()
        session["x"] = 1
        commit(world, nodes[0].manager(), session)
        session_id = session.id
        del session
        held = found(nodes[holder], session_id)
        world.run(8)
        held["x"] = 2
        commit(world, nodes[holder].manager(), held)
        assert [found(node, session_id)["x"] for node in nodes] == [2, 2]
        del held
        world.run(8)
        assert [node.manager().find(session_id) for node in nodes] == [None, None]


def test_t26_everything_of_a_session_travels_in_its_delta() -> None:
    """Set, replace, remove, idle limit, principal, auth type, notes: B has A's, field by field."""
    world = World(1)
    a, b = start(world, "ab")
    session = a.manager().create()
    session["kept"], session["replaced"], session["removed"] = [1, {"x": None}], 1, 1
    session.notes["n"], session.notes["m"] = "note", 1
    commit(world, a.manager(), session)
    again = found(a, session.id)
    again["replaced"] = 2
    del again["removed"]
    del again.notes["m"]
    again.max_inactive = 77
    again.principal, again.auth_type = {"user": "ann"}, "FORM"
    commit(world, a.manager(), again)
    here, there = found(a, session.id), found(b, session.id)
    assert dict(there) == {"kept": [1, {"x": None}], "replaced": 2} == dict(here)
    assert dict(there.notes) == {"n": "note"}
    for name in ("id", "key", "created_ms", "last_accessed_ms", "max_inactive", "is_new"):
        assert getattr(there, name) == getattr(here, name), name
    assert (there.max_inactive, there.principal, there.auth_type) == (77, {"user": "ann"}, "FORM")
    assert not there.is_new
    # The new session's first delta had its idle limit, as Tomcat's.
    there.principal = there.auth_type = None
    commit(world, b.manager(), there)
    assert (found(a, session.id).principal, found(a, session.id).auth_type) == (None, None)


def test_t27_the_last_write_of_a_name_is_the_one_on_the_wire() -> None:
    """Three sets of one name in a request are one entry, with the last value."""
    world = World(2)
    a, _ = start(world, "ab")
    session = a.manager().create()
    commit(world, a.manager(), session)
    again = found(a, session.id)
    for value in (1, 2, 3):
        again["x"] = value
    del again["x"]
    again["x"] = 4
    [entry] = deltas(a.manager(), again)
    assert (entry.name, a.manager().codec.decode(entry.value)) == (b"x", 4)


def test_t28_an_attribute_and_a_note_of_one_name_both_survive() -> None:
    """Tomcat loses one of them on the way."""
    world = World(3)
    a, b = start(world, "ab")
    session = a.manager().create()
    session["x"] = "attribute"
    session.notes["x"] = "note"
    commit(world, a.manager(), session)
    there = found(b, session.id)
    assert (there["x"], there.notes["x"]) == ("attribute", "note")


def test_t29_what_a_newer_version_writes_is_passed_on_and_the_rest_applied() -> None:
    """An unknown namespace and an unknown kind of merging: carried, not understood, not lost.

    Each is told of by one warning, however often it comes.
    """
    world = World(4)
    a, b, c = start(world, "abc")
    told: list[tuple[str, str, dict[str, object]]] = []
    b.manager().unknown = UnknownEntries(lambda *line: told.append(line))
    session = a.manager().create()
    session["known"] = 1
    commit(world, a.manager(), session)
    manager = a.manager()
    current = manager.table.get(session.key)
    assert current is not None
    hlc = manager.clock.next()
    entries = [
        Entry(9, 0, b"future", b"\1\2\3", hlc, manager.clock.actor, 0),
        Entry(Namespace.ATTRIBUTE, 7, b"odd", b"\4", hlc, manager.clock.actor, 0),
        Entry(Namespace.ATTRIBUTE, Kind.LAST_WRITER, b"new", b"\x05", hlc, manager.clock.actor, 0),
    ]
    delta = pack_delta(
        header(current).created, hlc, manager.clock.actor, manager.now_ds(), 0, entries
    )
    wire = to_wire(delta, manager.now_ds())
    manager.inbox.append(Commit("app", session.key, hlc, wire))
    world.run(0.1)
    there = found(b, session.id)
    assert (there["known"], there["new"]) == (1, 5)
    assert "odd" in there
    assert there.get("odd") is None
    there["known"] = 2
    commit(world, b.manager(), there)
    record = c.manager().table.get(session.key)
    assert record is not None
    carried = parse(record).entries
    assert carried[9, b"future"].value == b"\1\2\3"
    assert carried[0, b"odd"].kind == 7
    assert found(c, session.id)["known"] == 2
    here = found(c, session.id)
    here["known"] = 3
    commit(world, c.manager(), here)
    a.manager().inbox.append(Commit("app", session.key, hlc, wire))
    world.run(0.1)
    assert found(b, session.id)["known"] == 3
    event = "session data of a newer version"
    assert told == [
        ("warning", event, {"namespace": 0, "kind": 7}),
        ("warning", event, {"namespace": 9, "kind": 0}),
    ]


def test_t30_a_thousand_reads_send_no_data_and_one_small_note_of_use() -> None:
    """Reads on two nodes for 10 s: no delta; uses are told in a batch, at most one an interval."""
    world = World(5)
    a, b = start(world, "ab", max_inactive_s=80)
    session = a.manager().create()
    session["x"] = list(range(1000))
    commit(world, a.manager(), session)
    before = [node.manager().statistics() for node in (a, b)]
    for turn in range(1000):
        node = (a, b)[turn % 2]
        reading = found(node, session.id)
        assert len(reading["x"]) == 1000
        node.manager().commit(reading)
        world.run(0.01)
    world.run(1)
    after = [node.manager().statistics() for node in (a, b)]
    for was, now in zip(before, after, strict=True):
        assert now.commits == was.commits
        assert now.sent.get("deltas", 0) == was.sent.get("deltas", 0)
        # M/8 is 10 s.
        assert 1 <= now.sent.get("touches", 0) - was.sent.get("touches", 0) <= 2


@pytest.mark.parametrize("tracks", [True, False])
def test_t31_a_change_in_place_reaches_the_peers_unless_that_is_switched_off(tracks: bool) -> None:
    """Append to a list without setting it; what is assigned travels either way."""
    world = World(6)
    a, b = start(world, "ab", track_in_place=tracks)
    session = a.manager().create()
    session["cart"] = ["book"]
    commit(world, a.manager(), session)
    again = found(a, session.id)
    again["cart"].append("pen")
    commit(world, a.manager(), again)
    assert found(b, session.id)["cart"] == (["book", "pen"] if tracks else ["book"])
    third = found(a, session.id)
    third["cart"].append("ink")
    third["cart"] = third["cart"]
    commit(world, a.manager(), third)
    assert found(b, session.id)["cart"][-1] == "ink"


FLAGS = [(a, s, c) for a, s, c in itertools.product((False, True), repeat=3)]


@pytest.mark.parametrize("flags", FLAGS, ids=str)
def test_t39_listeners_on_replicas_hear_what_their_flag_says(
    flags: tuple[bool, bool, bool],
) -> None:
    """Attribute, session and container listeners, each by its own setting: all eight ways."""
    attributes, sessions, container = flags
    world = World(7)
    a, b = start(
        world,
        "ab",
        notify_listeners_on_replication=attributes,
        notify_session_listeners_on_replication=sessions,
        notify_container_listeners_on_replication=container,
    )
    heard: list[int] = []
    b.manager().on_news = lambda: heard.append(1)
    recorder = Recorder()
    b.manager().add_listener(recorder)

    def expect(*, attribute: str = "", session: str = "", event: str = "") -> None:
        b.manager().news.tell()
        wanted = [session] * (sessions and bool(session)) + [f"app: {event}"] * (
            container and bool(event)
        )
        wanted += [attribute] * (attributes and bool(attribute))
        assert recorder.log == wanted
        recorder.log.clear()

    session = a.manager().create()
    session["x"] = 1
    commit(world, a.manager(), session)
    expect(attribute="added x 1", session="created", event="session_created")
    session["x"] = 2
    commit(world, a.manager(), session)
    expect(attribute="replaced x 1")
    session.rotate_id()
    commit(world, a.manager(), session)
    expect(session="id changed", event="session_id_changed")
    del session["x"]
    commit(world, a.manager(), session)
    expect(attribute="removed x 2")
    a.manager().invalidate(session)
    world.run(0.1)
    expect(session="destroyed replicated", event="session_destroyed")
    assert bool(heard) == any(flags)
    assert len(b.manager().news) == 0


def test_what_listeners_are_too_slow_for_is_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tribes.manager.news.NEWS_MAX", 3)
    world = World(8)
    a, b = start(world, "ab", notify_listeners_on_replication=True)
    recorder = Recorder()
    b.manager().add_listener(recorder)
    session = a.manager().create()
    for value in range(5):
        session["x"] = value
        commit(world, a.manager(), session)
    assert b.manager().statistics().news_dropped == 2
    assert b.manager().news.tell() == 3
    assert recorder.log == ["replaced x 1", "replaced x 2", "replaced x 3"]


def stop(node: SimNode) -> None:
    """In good order, as the runtime does it."""
    node.manager().leaving()
    node.stop(drain=5)


@pytest.mark.parametrize("ends", [False, True])
def test_t40_t41_a_stop_ends_sessions_only_if_that_is_wanted(ends: bool) -> None:
    """``expire_sessions_on_shutdown``: else they live on, and A fires no destroyed event."""
    world = World(9)
    nodes = a, b, c = start(world, "abc", expire_sessions_on_shutdown=ends)
    recorders = [Recorder() for _ in nodes]
    for node, recorder in zip(nodes, recorders, strict=True):
        node.manager().add_listener(recorder)
    ids = []
    for node in nodes:
        session = node.manager().create()
        ids.append(session.id)
        commit(world, node.manager(), session)
    for recorder in recorders:
        recorder.log.clear()
    stop(a)
    world.run(8)
    told = "destroyed shutdown" if ends else "evicted shutdown"
    assert [entry for entry in recorders[0].log if entry[:3] != "app"] == [told] * 3
    assert [recorder.log for recorder in recorders[1:]] == [[], []]
    for node in (b, c):
        assert [node.manager().find(each) is not None for each in ids] == [not ends] * 3
    assert not a.is_alive


def test_t42_messages_are_counted_by_type_sent_and_received_reset_and_switched_off() -> None:
    """Scripted traffic: three commits and an expiry's question, answer and news."""
    world = World(10)
    a, b = start(world, "ab", max_inactive_s=3)
    for node in (a, b):
        node.manager().reset_statistics()
        assert node.manager().statistics().sent == node.manager().statistics().received == {}
    session = a.manager().create()
    for value in range(3):
        session["x"] = value
        commit(world, a.manager(), session)

    def but_digests(counts: Mapping[str, int]) -> dict[str, int]:
        return {kind: count for kind, count in counts.items() if kind != "digests"}

    assert but_digests(a.manager().statistics().sent) == {"deltas": 3}
    assert but_digests(b.manager().statistics().received) == {"deltas": 3}
    assert but_digests(b.manager().statistics().sent) == {}
    world.run(6)
    owner, other = (a, b) if a.manager().traffic.sent.get("expire_asks") else (b, a)
    sent, received = owner.manager().traffic.sent, owner.manager().traffic.received
    assert (sent["expire_asks"], sent["expiries"], received["expire_answers"]) == (1, 1, 1)
    sent, received = other.manager().traffic.sent, other.manager().traffic.received
    assert (sent["expire_answers"], received["expire_asks"]) == (1, 1)
    # Both compared what they have now and then, and found it equal.
    assert sent.get("records", 0) == received.get("records", 0) == 0
    for one, another in ((a, b), (b, a)):
        arrived = another.manager().traffic.received.get("digests", 0)
        assert one.manager().traffic.sent.get("digests", 0) == arrived

    a.manager().reset_statistics()
    assert a.manager().statistics().sent == {}
    silent = World(11)
    c, _ = start(silent, "cd", enable_statistics=False)
    commit(silent, c.manager(), c.manager().create())
    assert c.manager().statistics().sent == {}


def test_t43_a_change_before_a_rotation_and_one_after_it_travel_together() -> None:
    """Set, rotate, set in one request: B has both under the new id, and the old one is gone."""
    world = World(12)
    a, b = start(world, "ab")
    session = a.manager().create()
    commit(world, a.manager(), session)
    again = found(a, session.id)
    again["before"] = 1
    new_id = again.rotate_id(grace_s=0)
    again["after"] = 2
    commit(world, a.manager(), again)
    assert dict(found(b, new_id)) == {"before": 1, "after": 2}
    assert b.manager().find(session.key) is None


def test_t44_alone_nothing_grows_and_who_joins_later_gets_all() -> None:
    """10,000 changes without members: no message waits anywhere, the record keeps its size."""
    world = World(13)
    [a] = start(world, "a")
    session = a.manager().create()
    session["x"] = "0" * 10
    commit(world, a.manager(), session)
    bytes_before = a.manager().table.bytes
    for turn in range(10_000):
        session["x"] = f"{turn:010}"
        a.manager().commit(session)
        if turn % 100 == 0:
            world.run(0.01)
    world.run(0.1)
    assert a.manager().inbox.bytes == 0
    assert len(a.manager().inbox) == 0
    assert abs(a.manager().table.bytes - bytes_before) < 20
    assert a.manager().traffic.sent == {}
    b = world.start(
        "b", NodeConfig(contexts=("app",), manager=ManagerConfig(channel_send_options=6))
    )
    world.run(3)
    assert dict(found(b, session.id)) == {"x": "0000009999"}
