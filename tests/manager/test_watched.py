"""Attributes that are watched: who hears of them, which stay here, each bound is unbound."""

from __future__ import annotations

import itertools
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from tests.manager.requests import again, stored
from tribes.errors import LocalProtocolError, SessionInvalidError
from tribes.manager.bag import Bag
from tribes.manager.merge import expired
from tribes.manager.record import parse
from tribes.manager.rules import LOCAL_NAMES, Rules
from tribes.manager.watched import WatchedBag
from tribes.testing.manager_strategies import make_manager

if TYPE_CHECKING:
    from collections.abc import Callable

    from tribes.manager.base import SessionManager
    from tribes.manager.session import Session


@dataclass
class Seat:
    """A value that wants to know whether it is taken."""

    number: int = 0
    log: ClassVar[list[str]] = []
    on_bound: ClassVar[Callable[[Session], None] | None] = None

    def value_bound(self, session: Session, name: str) -> None:
        Seat.log.append(f"bound {name} {self.number}")
        if Seat.on_bound is not None and self.number == 1:
            Seat.on_bound(session)

    def value_unbound(self, session: Session, name: str) -> None:
        Seat.log.append(f"unbound {name} {self.number}")


class Unstorable:
    """A value of a class that no codec knows."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def value_bound(self, session: Session, name: str) -> None:
        self.log.append("bound")

    def value_unbound(self, session: Session, name: str) -> None:
        self.log.append("unbound")


class Recorder:
    def __init__(self) -> None:
        self.log: list[str] = []

    def attribute_added(self, session: Session, name: str, value: Any) -> None:
        self.log.append(f"added {name} {value}")

    def attribute_replaced(self, session: Session, name: str, old: Any) -> None:
        self.log.append(f"replaced {name} {old} by {session[name]}")

    def attribute_removed(self, session: Session, name: str, old: Any) -> None:
        self.log.append(f"removed {name} {old}")


@pytest.fixture(autouse=True)
def empty_log() -> None:
    Seat.log.clear()
    Seat.on_bound = None


def seats(**settings: Any) -> SessionManager:
    manager = make_manager(**settings)
    manager.codec.register(Seat)
    return manager


def expire(manager: SessionManager, key: str) -> None:
    record = manager.table.get(key)
    assert record is not None
    if manager.table.swap(key, record, expired(record)):
        manager.notify_destroyed(key, "expired")


def names_in_record(manager: SessionManager, key: str) -> set[str]:
    record = manager.table.get(key)
    assert record is not None
    return {
        name.decode()
        for (namespace, name), entry in parse(record).entries.items()
        if namespace == 0 and entry.kind == 0
    }


def test_nothing_is_watched_that_nobody_wants_to_know() -> None:
    """Without listeners, filters and such values the plain bag serves."""
    manager = make_manager()
    session = manager.create()
    assert type(session._attributes) is Bag
    recorder = Recorder()
    manager.add_listener(recorder)
    assert type(manager.create()._attributes) is WatchedBag
    manager.remove_listener(recorder)
    assert type(manager.create()._attributes) is Bag


def test_attribute_listeners_hear_at_once_what_a_request_does() -> None:
    manager = make_manager()
    recorder = Recorder()
    manager.add_listener(recorder)
    session = stored(manager, a=1)
    session["a"] = 2
    session["b"] = 3
    del session["a"]
    session.remove_attribute("a")
    session.set_attribute("b", None)
    assert session.setdefault("c", 4) == 4
    session.clear()
    assert recorder.log == [
        "added a 1",
        "replaced a 1 by 2",
        "added b 3",
        "removed a 2",
        "removed b 3",
        "added c 4",
        "removed c 4",
    ]
    with pytest.raises(KeyError):
        del session["a"]


def test_a_listener_without_any_known_method_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="attribute_added"):
        make_manager().add_listener(object())


@pytest.mark.parametrize(
    ("tells", "binds"), list(itertools.product((True, False), (True, False))), ids=str
)
def test_t19_null_removes_and_the_unchanged_is_told_as_the_flags_say(
    tells: bool, binds: bool
) -> None:
    """None removes, no name is an error, what no codec knows is refused unless it stays here."""
    rules = Rules(tells_unchanged=tells, binds_unchanged=binds, name_filter=re.compile("(?!x).*"))
    manager = seats(rules=rules)
    recorder = Recorder()
    manager.add_listener(recorder)
    session = manager.create()
    seat = Seat(1)
    session["s"] = seat
    session["s"] = seat
    unchanged = ["bound s 1", "unbound s 1"] if binds else []
    assert Seat.log == ["bound s 1", *unchanged]
    told = ["replaced s Seat(number=1) by Seat(number=1)"] if tells else []
    assert recorder.log == ["added s Seat(number=1)", *told]
    manager.commit(session)
    session["s"] = seat
    manager.commit(session)
    assert Seat.log == ["bound s 1", *unchanged, *unchanged]

    session.set_attribute("s", None)
    assert "s" not in session
    for name in (None, "", 7):
        with pytest.raises(LocalProtocolError):
            session.set_attribute(name, 1)  # type: ignore[arg-type]
    session["refused"] = Unstorable()
    session["x"] = Unstorable()
    outcome = manager.commit(session)
    assert list(outcome.failed) == ["refused"]
    assert again(manager, session).get("x") is session["x"]


def test_every_value_is_unbound_when_it_is_replaced_removed_or_its_session_ends() -> None:
    manager = seats()
    session = stored(manager, a=Seat(1), b=Seat(2), c=Seat(3), plain="x")
    session["a"] = Seat(4)
    del session["b"]
    session["b"] = "plain"
    assert Seat.log == ["bound a 1", "bound b 2", "bound c 3", "bound a 4"]
    manager.commit(session)
    assert sorted(Seat.log[4:]) == ["unbound a 1", "unbound b 2"]
    manager.invalidate(again(manager, session))
    assert sorted(Seat.log[6:]) == ["unbound a 4", "unbound c 3"]


def test_a_value_that_no_commit_has_seen_is_unbound_at_once() -> None:
    manager = seats()
    session = manager.create()
    session["a"] = Seat(1)
    session["a"] = Seat(2)
    del session["a"]
    assert Seat.log == ["bound a 1", "bound a 2", "unbound a 1", "unbound a 2"]


def test_a_value_changed_in_place_stays_bound() -> None:
    manager = seats()
    session = stored(manager, a=Seat(1))
    seat = session["a"]
    seat.number = 9
    session["a"] = seat
    manager.commit(session)
    assert Seat.log == ["bound a 1"]
    assert again(manager, session)["a"].number == 9


def test_parallel_requests_unbind_what_each_of_them_replaced() -> None:
    """Two requests that saw the same value: the first takes that out, the second the first's."""
    manager = seats()
    first = stored(manager, a=Seat(1))
    second = again(manager, first)
    first["a"], second["a"] = Seat(2), Seat(3)
    manager.commit(first)
    manager.commit(second)
    manager.invalidate(again(manager, first))
    assert [entry for entry in Seat.log if entry.startswith("un")] == [
        "unbound a 1",
        "unbound a 2",
        "unbound a 3",
    ]


def test_a_value_that_cannot_be_committed_is_bound_to_nothing() -> None:
    manager = seats()
    session = stored(manager)
    value = Unstorable()
    session["a"] = value
    assert list(manager.commit(session).failed) == ["a"]
    assert value.log == ["bound", "unbound"]
    assert "a" not in session


def test_t20_each_bound_has_one_unbound_when_the_session_ends_meanwhile() -> None:
    """Tomcat's three races, 1,000 rounds: ended in ``value_bound``, expired, and by a listener."""
    manager = seats()

    class Destroyer:
        """Sets an attribute of a session that is being ended."""

        def session_destroyed(self, session: Session, reason: str) -> None:
            session["late"] = Seat(-2)

    manager.add_listener(Destroyer())
    pool = ThreadPoolExecutor(2)
    for turn in range(1000):
        session = stored(manager, old=Seat(0))
        other = again(manager, session)
        Seat.log.clear()
        Seat.log.append("bound old 0")
        ended = threading.Event()

        def end(victim: Session = other, done: threading.Event = ended, turn: int = turn) -> None:
            if turn % 2:
                manager.invalidate(victim)
            else:
                expire(manager, victim.key)
            done.set()

        if turn % 3 == 0:
            # The value itself waits until another thread has ended its session.
            def wait(_: Session, end: Any = end, ended: threading.Event = ended) -> None:
                pool.submit(end)
                assert ended.wait(10)

            Seat.on_bound = wait
            session["new"] = Seat(1)
            Seat.on_bound = None
            assert ended.is_set()
        else:
            job = pool.submit(end)
            session["new"] = Seat(1)
        outcome = manager.commit(session)
        if turn % 3:
            job.result(10)
        # An expiry loses to a use; a logout does not.
        if manager.find(session.key) is None and turn % 2:
            if not outcome.is_gone:  # The commit was faster than the end.
                session["plain"] = 1
                assert manager.commit(session).is_gone
            with pytest.raises(SessionInvalidError):
                session["plain"] = 1
        elif manager.find(session.key) is not None:
            assert not turn % 2
            manager.invalidate(again(manager, session))
        counts: dict[str, int] = {}
        for entry in Seat.log:
            kind, _, seat = entry.partition(" ")
            counts[seat] = counts.get(seat, 0) + (1 if kind == "bound" else -1)
        assert counts == dict.fromkeys(counts, 0), (turn, Seat.log)
    pool.shutdown()


def test_t22_filters_keep_attributes_here_and_say_so() -> None:
    """Whole names and types; a peer gets the others; level by the flag; crawlers' never leave."""
    lines: list[tuple[str, Any]] = []

    def report(level: str, event: str, fields: dict[str, object]) -> None:
        lines.append((level, fields["attribute"]))

    [crawler] = LOCAL_NAMES
    for rules, level in (
        (Rules(name_filter=re.compile("user|cart")), "debug"),
        (Rules(name_filter=re.compile("user|cart"), warns_of_filters=True), "warning"),
        (Rules(type_filter=re.compile(r"str|java\.lang\.Integer|.*Seat")), "debug"),
    ):
        lines.clear()
        manager = seats(rules=rules, report=report)
        session = stored(manager, user="u", cart=1)
        session["user_2"] = {}
        session["usercart"] = 1.5
        session[crawler] = "bot"
        manager.commit(session)
        assert names_in_record(manager, session.key) == {"user", "cart"}
        assert lines == [(level, "user_2"), (level, "usercart"), (level, crawler)]
        here = again(manager, session)
        assert dict(here) == {"user": "u", "cart": 1, "user_2": {}, "usercart": 1.5, crawler: "bot"}
        assert here["user_2"] is session["user_2"]
        assert manager.statistics().attributes_held_back == 3
        del here["user_2"]
        assert len(here) == 4
        manager.commit(here)
        assert "user_2" not in again(manager, session)
    plain = make_manager()
    session = plain.create()
    session["before"] = 1
    session[crawler] = "bot"
    plain.commit(session)
    assert names_in_record(plain, session.key) == {"before"}
    assert dict(again(plain, session)) == {"before": 1, crawler: "bot"}


def test_a_value_that_moves_out_of_the_record_is_not_served_elsewhere_any_more() -> None:
    """With a filter of types a name may stay here one day and leave the next."""
    manager = seats(rules=Rules(type_filter=re.compile("str")))
    session = stored(manager, a="text")
    session["a"] = 5
    manager.commit(session)
    assert names_in_record(manager, session.key) == set()
    assert again(manager, session)["a"] == 5
    assert session["a"] == 5
    session["a"] = "text again"
    manager.commit(session)
    assert names_in_record(manager, session.key) == {"a"}
    assert again(manager, session)["a"] == "text again"


def test_another_members_later_write_counts_more_than_what_is_kept_here() -> None:
    manager = seats(rules=Rules(type_filter=re.compile("str")))
    session = stored(manager)
    session["a"] = 5
    manager.commit(session)
    elsewhere = make_manager(actor=2)
    elsewhere.clock.observe(manager.clock.last)
    record = manager.table.get(session.key)
    assert record is not None
    elsewhere.table.merge_in(session.key, record)
    other = elsewhere.find(session.key)
    assert other is not None
    other["a"] = "theirs"
    elsewhere.commit(other)
    theirs = elsewhere.table.get(session.key)
    assert theirs is not None
    manager.table.merge_in(session.key, theirs)
    assert again(manager, session)["a"] == "theirs"


def test_what_is_kept_here_goes_with_its_session() -> None:
    manager = seats(rules=Rules(name_filter=re.compile("-")))
    value = Unstorable()
    session = stored(manager, a=value)
    assert value.log == ["bound"]
    manager.invalidate(session)
    assert value.log == ["bound", "unbound"]
    assert len(manager.watch.kept) == 0
