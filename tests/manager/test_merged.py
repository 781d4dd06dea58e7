"""Attributes that merge by element: nobody's part is lost, whoever writes at once and in whatever
order the nodes hear of it.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes import MergedCounter, MergedList, MergedSet
from tribes.errors import AttributeNotEncodableError, AttributeUnreadableError
from tribes.manager.dots import (
    ACTORS_MAX,
    ELEMENTS_MAX,
    Dots,
    dots_of,
    encode_dots,
    join_entries,
    parse_dots,
)
from tribes.manager.merge import digest, lost_updates
from tribes.manager.record import Entry, Kind, Namespace, from_wire, parse, to_wire
from tribes.manager.values import ValueCodec
from tribes.testing.manager_strategies import FakeTime, dot_stores, make_manager

if TYPE_CHECKING:
    from tribes.manager.base import SessionManager
    from tribes.manager.session import Session

HOUR_S = 3600.0


def sent(manager: SessionManager) -> list[tuple[str, bytes]]:
    batch = manager.inbox.take()
    return [] if batch is None else [(commit.key, commit.delta) for commit in batch.commits]


class Group:
    """Managers that hear of each other's changes when told: any, in any order, also twice."""

    def __init__(self, size: int, *, actors: int = 0) -> None:
        self.time = FakeTime()
        self.managers = [self.make(actors + number + 1) for number in range(size)]
        self.deltas: list[tuple[str, bytes]] = []
        first = self.managers[0]
        session = first.create()
        self.id = session.id
        first.commit(session)
        self.spread()

    def make(self, actor: int) -> SessionManager:
        return make_manager(actor=actor, clocks=self.time, seed=actor, max_inactive_s=0)

    def open(self, node: int) -> Session:
        session = self.managers[node].find(self.id)
        assert session is not None
        return session

    def commit(self, node: int, session: Session) -> None:
        manager = self.managers[node]
        manager.commit(session)
        self.deltas += sent(manager)

    def change(self, node: int, change: Any) -> None:
        session = self.open(node)
        change(session)
        self.commit(node, session)

    def hear(self, node: int, key: str, delta: bytes) -> None:
        manager = self.managers[node]
        record = from_wire(delta, manager.now_ds())
        manager.clock.observe(int.from_bytes(delta[14:22], "big"))
        before, after, has_changed = manager.table.merge_in(key, record)
        if has_changed:
            manager.overwritten(before, after)

    def spread(self, chance: random.Random | None = None) -> None:
        for manager in self.managers:
            self.deltas += sent(manager)
        for node in range(len(self.managers)):
            heard = [*self.deltas, *self.deltas[:3]]
            if chance is not None:
                chance.shuffle(heard)
            for key, delta in heard:
                self.hear(node, key, delta)
        records = [manager.table.get(self.open(0).key) for manager in self.managers]
        first = records[0]
        assert first is not None
        for record in records:
            assert record is not None
            assert parse(first).entries == parse(record).entries
            assert digest("k", first) == digest("k", record)

    def values(self, name: str) -> list[Any]:
        return [self.open(node)[name] for node in range(len(self.managers))]


# What an application sees.


def test_additions_on_three_nodes_at_once_add_up() -> None:
    group = Group(3)
    group.change(0, lambda session: session.setdefault("n", MergedCounter()).add(5))
    group.spread()
    for node in range(3):
        group.change(node, lambda session, n=node + 1: session["n"].add(n))
    group.spread()
    assert group.values("n") == [11, 11, 11]


def test_two_nodes_that_make_a_counter_at_once_have_one_counter() -> None:
    group = Group(2)
    for node in range(2):
        group.change(node, lambda session: session.setdefault("n", MergedCounter()).add())
    group.spread()
    assert group.values("n") == [2, 2]


def test_an_operator_changes_a_counter_too() -> None:
    group = Group(1)

    def use(session: Session) -> None:
        session["n"] = MergedCounter(3)
        session["n"] += 4
        session["n"] -= 1

    group.change(0, use)
    (counter,) = group.values("n")
    assert isinstance(counter, MergedCounter)
    assert counter == 6 == int(counter) == counter.value
    assert (str(counter), repr(counter), bool(counter)) == ("6", "MergedCounter(6)", True)
    assert 5 < counter <= MergedCounter(6) < 7
    assert 6 >= counter > 5
    assert range(10)[counter] == 6


def test_members_put_in_at_once_are_all_in_and_removed_ones_stay_out() -> None:
    group = Group(3)
    group.change(0, lambda session: session.setdefault("s", MergedSet()).update({"a", "b"}))
    group.spread()
    group.change(0, lambda session: session["s"].discard("a"))
    group.change(1, lambda session: session["s"].add(("c", 1)))
    group.change(2, lambda session: session["s"].add("d"))
    group.spread()
    assert group.values("s") == [{"b", "d", ("c", 1)}] * 3


def test_a_member_put_in_anew_survives_a_removal_that_had_not_seen_that() -> None:
    group = Group(2)
    group.change(0, lambda session: session.setdefault("s", MergedSet()).add("a"))
    group.spread()
    group.change(1, lambda session: session["s"].discard("a"))
    group.change(1, lambda session: session["s"].add("a"))
    group.change(0, lambda session: session["s"].discard("a"))
    group.spread()
    assert group.values("s") == [{"a"}] * 2


def test_putting_in_what_is_there_changes_nothing() -> None:
    group = Group(1)
    group.change(0, lambda session: session.setdefault("s", MergedSet()).add("a"))
    group.deltas.clear()
    group.change(0, lambda session: session["s"].add("a"))
    assert not group.deltas


def test_reading_changes_nothing() -> None:
    group = Group(1)
    for name, value in (("n", MergedCounter(3)), ("s", MergedSet("ab")), ("l", MergedList([1]))):
        group.change(0, lambda session, n=name, v=value: session.__setitem__(n, v))
    group.deltas.clear()
    group.change(0, lambda session: [str(session[name]) for name in session])
    assert not group.deltas


def test_values_appended_at_once_all_appear_in_one_order() -> None:
    group = Group(3)
    group.change(0, lambda session: session.setdefault("l", MergedList()).append("first"))
    group.spread()
    for node in range(3):
        group.change(node, lambda session, n=node: session["l"].extend([f"{n}a", f"{n}b"]))
    group.spread(random.Random(1))
    one, *others = group.values("l")
    assert others == [one, one]
    assert one[0] == "first"
    assert sorted(one[1:]) == ["0a", "0b", "1a", "1b", "2a", "2b"]
    for node in range(3):
        assert one.index(f"{node}a") + 1 == one.index(f"{node}b")


def test_clearing_a_list_keeps_what_another_node_appends_meanwhile() -> None:
    group = Group(2)
    group.change(0, lambda session: session.setdefault("l", MergedList()).extend("ab"))
    group.spread()
    group.change(0, lambda session: session["l"].clear())
    group.change(1, lambda session: session["l"].append("c"))
    group.spread()
    assert group.values("l") == [["c"], ["c"]]


def test_parallel_requests_of_one_node_lose_nothing_either() -> None:
    group = Group(1)
    group.change(
        0,
        lambda s: s.update(n=MergedCounter(1), s=MergedSet({"a"}), l=MergedList(["a"])),
    )
    one, other = group.open(0), group.open(0)
    for session, tag in ((one, "b"), (other, "c")):
        session["n"] += 2
        session["s"].add(tag)
        session["l"].append(tag)
    group.commit(0, one)
    group.commit(0, other)
    session = group.open(0)
    assert (session["n"], session["s"], session["l"]) == (5, {"a", "b", "c"}, ["a", "b", "c"])
    assert other["n"] == 5, "the request sees the joined value afterwards"
    assert group.managers[0].statistics().commit_conflicts == 0


def test_a_request_may_commit_several_times() -> None:
    group = Group(1)
    session = group.open(0)
    session["n"] = MergedCounter()
    session["l"] = MergedList()
    for number in range(3):
        session["n"].add()
        session["l"].append(number)
        group.commit(0, session)
    assert (group.values("n"), group.values("l")) == ([3], [[0, 1, 2]])


def test_a_plain_value_or_a_removal_replaces_what_was_counted_before() -> None:
    group = Group(2)
    group.change(0, lambda session: session.__setitem__("n", MergedCounter(7)))
    group.spread()
    group.change(1, lambda session: session.__delitem__("n"))
    group.spread()
    assert "n" not in group.open(0)
    group.change(0, lambda session: session.__setitem__("n", MergedCounter(2)))
    group.spread()
    assert group.values("n") == [2, 2]
    group.change(0, lambda session: session.__setitem__("n", "text"))
    group.spread()
    assert group.values("n") == ["text", "text"]


def test_another_kind_in_its_place_begins_anew() -> None:
    group = Group(2)
    group.change(0, lambda session: session.__setitem__("x", MergedCounter(7)))
    group.spread()
    group.change(1, lambda session: session.__setitem__("x", MergedList(["a"])))
    group.spread()
    assert group.values("x") == [["a"], ["a"]]


def test_two_kinds_made_at_once_leave_one_of_them_the_same_everywhere() -> None:
    group = Group(2)
    group.change(0, lambda session: session.__setitem__("x", MergedCounter(7)))
    group.change(1, lambda session: session.__setitem__("x", MergedSet({"a"})))
    group.spread()
    assert group.values("x") == [{"a"}, {"a"}]


def test_inside_another_value_they_are_refused_with_a_reason() -> None:
    group = Group(1)
    session = group.open(0)
    session["d"] = {"n": MergedCounter()}
    outcome = group.managers[0].commit(session)
    text = str(outcome.failed["d"])
    assert "value['n']" in text
    assert "attribute of its own" in text


def test_an_element_that_no_codec_knows_costs_only_that_attribute() -> None:
    group = Group(1)
    session = group.open(0)
    session["l"], session["n"] = MergedList([object()]), MergedCounter(1)
    outcome = group.managers[0].commit(session)
    assert isinstance(outcome.failed["l"], AttributeNotEncodableError)
    assert group.values("n") == [1]
    assert "l" not in group.open(0)


def test_a_set_whose_member_cannot_be_read_here_raises_and_keeps_its_bytes() -> None:
    codec = ValueCodec()

    class Tag(tuple[str]):
        __slots__ = ()

    codec.register(Tag, name="tag", encode=list, decode=Tag)
    manager = make_manager(codec=codec)
    session = manager.create()
    session["s"] = MergedSet({Tag(("a",))})
    manager.commit(session)
    other = make_manager(actor=2)
    for key, delta in sent(manager):
        other.table.merge_in(key, from_wire(delta, other.now_ds()))
    found = other.find(session.id)
    assert found is not None
    with pytest.raises(AttributeUnreadableError, match=r"'s': no class is registered here"):
        found["s"]
    other.commit(found)
    assert not sent(other)


# Bounds.


def test_the_oldest_beyond_1024_fall_out_and_are_counted() -> None:
    group = Group(1)
    group.change(0, lambda session: session.__setitem__("l", MergedList(range(ELEMENTS_MAX))))
    group.change(0, lambda session: session["l"].extend("abc"))
    (values,) = group.values("l")
    assert len(values) == ELEMENTS_MAX
    assert values[0] == 3
    assert values[-3:] == ["a", "b", "c"]
    group.change(0, lambda session: session.__setitem__("s", MergedSet(range(ELEMENTS_MAX + 5))))
    assert len(group.values("s")[0]) == ELEMENTS_MAX
    assert group.managers[0].statistics().elements_dropped == 8


def test_a_merge_drops_nothing_and_the_next_write_does() -> None:
    group = Group(2)
    for node in range(2):
        values = [f"{node}.{i}" for i in range(ELEMENTS_MAX)]
        group.change(node, lambda session, v=values: session.__setitem__("l", MergedList(v)))
    group.spread()
    assert [len(values) for values in group.values("l")] == [2 * ELEMENTS_MAX] * 2
    group.change(0, lambda session: session["l"].append("last"))
    group.spread()
    assert [len(values) for values in group.values("l")] == [ELEMENTS_MAX] * 2


def test_processes_that_wrote_nothing_for_hours_are_forgotten_and_their_sums_are_not() -> None:
    """A rolling restart every few hours must neither grow the value nor lose a count."""
    group = Group(1)
    group.change(0, lambda session: session.__setitem__("n", MergedCounter()))
    group.change(0, lambda session: session.__setitem__("s", MergedSet({"kept"})))
    for number in range(3 * ACTORS_MAX):
        group.managers.append(group.make(1000 + number))
        group.spread()
        group.deltas.clear()
        group.managers.pop(0)
        session = group.open(0)
        session["n"].add(2)
        session["s"].add(number % 7)
        group.commit(0, session)
        group.time.sleep(HOUR_S)
        whole = group.managers[0].table.get(session.key)
        assert whole is not None
        group.deltas.append((session.key, to_wire(whole, 10_000)))
    session = group.open(0)
    assert session["n"] == 6 * ACTORS_MAX
    assert session["s"] == {"kept", *range(7)}
    for entry in parse(_record(group)).entries.values():
        dots = dots_of(entry)
        if dots is not None:
            assert len(dots.seen) <= ACTORS_MAX
            assert len(dots.elements) <= ACTORS_MAX + 1


def _record(group: Group) -> Any:
    return group.managers[0].table.get(group.open(0).key)


# The laws, and against a model.


@given(dot_stores(hlc=9, actor=2), dot_stores(hlc=9, actor=3), dot_stores(hlc=8, actor=3))
def test_the_join_commutes_associates_and_is_idempotent(a: bytes, b: bytes, c: bytes) -> None:
    one, two, three = (
        Entry(0, kind, b"n", value, hlc, actor)
        for kind, value, hlc, actor in ((1, a, 9, 2), (1, b, 9, 3), (1, c, 8, 3))
    )
    assert join_entries(one, two) == join_entries(two, one)
    assert join_entries(join_entries(one, two), three) == join_entries(
        one, join_entries(two, three)
    )
    joined = join_entries(one, two)
    assert join_entries(joined, one) is joined
    assert join_entries(one, one) is one


plain_or_dots = st.one_of(
    st.builds(
        lambda hlc, actor, kind, value: Entry(0, kind, b"n", value, hlc, actor),
        st.integers(5, 9),
        st.integers(1, 3),
        st.sampled_from([0, 15, 9, 1]),
        st.sampled_from([b"", b"x"]),
    ),
    st.tuples(st.integers(5, 9), st.integers(1, 3)).flatmap(
        lambda version: st.builds(
            lambda kind, value: Entry(0, kind, b"n", value, *version),
            st.sampled_from([1, 2, 6]),
            dot_stores(hlc=version[0], actor=version[1]),
        )
    ),
)


@given(plain_or_dots, plain_or_dots, plain_or_dots)
def test_the_laws_hold_among_plain_writes_removals_and_unknown_kinds_too(
    a: Entry, b: Entry, c: Entry
) -> None:
    assert join_entries(a, b) == join_entries(b, a)
    assert join_entries(join_entries(a, b), c) == join_entries(a, join_entries(b, c))
    assert join_entries(a, a) is a


@given(st.integers(1, 2**63), st.data())
def test_a_store_is_read_back_and_another_form_of_it_is_none(hlc: int, data: st.DataObject) -> None:
    value = data.draw(dot_stores(hlc=hlc, actor=2))
    dots = parse_dots(value)
    assert dots is not None
    assert encode_dots(dots) == value
    assert parse_dots(b"\x02" + value[1:]) is None
    assert parse_dots(value + b"\0") is None
    assert parse_dots(value[:-1]) is None


@given(st.binary(max_size=80))
def test_any_bytes_are_a_store_or_none(data: bytes) -> None:
    for value in (data, b"\x01" + data):
        dots = parse_dots(value)
        assert dots is None or encode_dots(dots) == value


def test_an_element_whose_write_nobody_saw_makes_a_store_unreadable() -> None:
    broken = encode_dots(Dots((0, 0), {1: 5}, {(6, 1, 0): b"x"}))
    assert parse_dots(broken) is None
    ahead = Entry(0, int(Kind.SET), b"n", encode_dots(Dots((0, 0), {1: 5})), 4, 1)
    assert dots_of(ahead) is None


steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "put", "take", "append", "hear", "hear"]),
        st.integers(0, 2),
        st.integers(-3, 3),
    ),
    max_size=25,
)


@given(steps, st.randoms(use_true_random=False))
def test_replicas_agree_with_what_was_done_whatever_they_heard_when(
    done: list[tuple[str, int, int]], chance: random.Random
) -> None:
    group = Group(3)
    total, appended, put, taken = 0, [], set(), set()
    for number, (what, node, argument) in enumerate(done):
        session = group.open(node)
        if what == "add":
            session.setdefault("n", MergedCounter()).add(argument)
            total += argument
        elif what == "put":
            session.setdefault("s", MergedSet()).add(argument)
            put.add(argument)
        elif what == "take":
            if "s" in session and argument in session["s"]:
                session["s"].discard(argument)
                taken.add(argument)
        elif what == "append":
            session.setdefault("l", MergedList()).append(number)
            appended.append(number)
        elif group.deltas:
            group.hear(node, *chance.choice(group.deltas))
        group.commit(node, session)
    group.spread(chance)
    session = group.open(0)
    assert session.get("n", 0) == total
    assert sorted(session.get("l", ())) == appended
    assert put - taken <= set(session.get("s", ())) <= put


# Conflicts.


def attribute(value: bytes, hlc: int, actor: int, base: int = 0, kind: int = 0) -> Entry:
    return Entry(int(Namespace.ATTRIBUTE), kind, b"n", value, hlc, actor, base)


def test_joined_elements_are_no_conflict_and_a_plain_value_over_them_is() -> None:
    group = Group(2)
    for node in range(2):
        group.change(node, lambda session: session.setdefault("n", MergedCounter()).add())
    group.spread()
    assert [manager.statistics().overwritten for manager in group.managers] == [0, 0]
    group.change(0, lambda session: session["n"].add())
    group.change(1, lambda session: session.__setitem__("n", 0))
    group.spread()
    assert group.values("n") == [0, 0]
    assert [manager.statistics().overwritten for manager in group.managers] == [1, 0]


def test_who_loses_a_write_counts_it_once_and_its_application_is_told() -> None:
    group = Group(3)
    told: list[tuple[str, str, Any, Any]] = []
    loser = group.managers[0]
    loser.on_conflict = lambda session, *rest: told.append((session.id, *rest))
    group.change(0, lambda session: session.__setitem__("a", "mine"))
    group.change(1, lambda session: session.__setitem__("a", "theirs"))
    before = loser.table.get(group.open(0).key)
    group.spread()
    assert [manager.statistics().overwritten for manager in group.managers] == [1, 0, 0]
    after = loser.table.get(group.open(0).key)
    assert before is not None
    assert after is not None
    for lost, won in lost_updates(before, after, loser.clock.actor):
        loser.notify_conflict(group.open(0).key, lost, won)
    assert told == [(group.id, "a", "mine", "theirs")]
    group.spread()
    assert loser.statistics().overwritten == 1


def test_a_write_that_had_seen_the_other_is_no_conflict() -> None:
    group = Group(2)
    group.change(0, lambda session: session.__setitem__("a", 1))
    group.spread()
    group.change(1, lambda session: session.__setitem__("a", 2))
    group.spread()
    assert [manager.statistics().overwritten for manager in group.managers] == [0, 0]


def test_a_parallel_request_that_loses_is_told_of_at_the_commit() -> None:
    group = Group(1)
    told: list[tuple[str, Any, Any]] = []
    manager = group.managers[0]
    manager.on_conflict = lambda session, *rest: told.append(rest)
    group.change(0, lambda session: session.__setitem__("a", 1))
    one, other = group.open(0), group.open(0)
    one["a"] = "one"
    del other["a"]
    group.commit(0, one)
    group.commit(0, other)
    assert told == [("a", "one", None)]
    assert manager.statistics().commit_conflicts == 1


def test_what_on_conflict_raises_is_counted_and_costs_nothing() -> None:
    group = Group(1)
    manager = group.managers[0]

    def fail(*_: Any) -> None:
        raise ValueError

    manager.on_conflict = fail
    one, other = group.open(0), group.open(0)
    one["a"], other["a"] = 1, 2
    group.commit(0, one)
    group.commit(0, other)
    assert group.values("a") == [2]
    assert manager.statistics().listener_failures == 1


def test_an_older_release_joins_kinds_that_it_does_not_know() -> None:
    """Kinds 4 to 7 are dot stores of a later release: nothing of them is lost here."""
    one = attribute(encode_dots(Dots((0, 0), {1: 5}, {(5, 1, 6 << 12): b"a"})), 5, 1, kind=6)
    two = attribute(encode_dots(Dots((0, 0), {2: 6}, {(6, 2, 6 << 12): b"b"})), 6, 2, kind=6)
    joined = join_entries(one, two)
    dots = dots_of(joined)
    assert dots is not None
    assert sorted(dots.elements.values()) == [b"a", b"b"]
    assert (joined.kind, joined.hlc, joined.actor) == (6, 6, 2)
