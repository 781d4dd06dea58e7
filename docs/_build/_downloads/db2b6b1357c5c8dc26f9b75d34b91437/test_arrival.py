"""Whatever order changes arrive in, and however often: the state is the same (rows 59, 60, 66)."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from tribes import MergedCounter, MergedList, MergedSet
from tribes.errors import AttributeNotEncodableError
from tribes.manager.merge import digest
from tribes.manager.record import Record, equal_state, from_wire
from tribes.testing.manager_strategies import FakeTime, make_manager

if TYPE_CHECKING:
    from tribes.manager.base import SessionManager

Stream = list[tuple[str, bytes]]


def sent(manager: SessionManager) -> Stream:
    batch = manager.inbox.take()
    return [] if batch is None else [(commit.key, commit.delta) for commit in batch.commits]


def hear(manager: SessionManager, stream: Stream) -> None:
    for key, delta in stream:
        record = from_wire(delta, manager.now_ds())
        manager.clock.observe(int.from_bytes(delta[14:22], "big"))
        manager.table.merge_in(key, record)


def copy(manager: SessionManager, key: str) -> Record:
    record = manager.table.get(key)
    assert record is not None
    return record


def recorded(seed: int) -> tuple[str, Stream]:
    """What two nodes sent that changed one session, now and then hearing of each other."""
    chance, clocks = Random(seed), FakeTime()
    nodes = [make_manager(actor=actor, clocks=clocks, seed=seed) for actor in (1, 2)]
    session = nodes[0].create()
    nodes[0].commit(session)
    stream = sent(nodes[0])
    hear(nodes[1], stream)
    for number in range(60):
        clocks.sleep(chance.choice((0, 0, 0.01)))
        here, there = chance.sample(nodes, 2)
        found = here.find(session.id)
        assert found is not None
        name = f"a{chance.randrange(4)}"
        match number % 6:
            case 0:
                found.pop(name, None)
            case 1:
                found.setdefault("count", MergedCounter()).add(number)
            case 2:
                found.setdefault("tags", MergedSet()).add(number % 11)
            case 3:
                found.setdefault("log", MergedList()).append(number)
            case 4 if found.get("tags"):
                found["tags"].discard(min(found["tags"]))
            case _:
                found[name] = number
        here.commit(found)
        new = sent(here)
        stream += new
        if chance.random() < 0.5:
            hear(there, new)
    return session.key, stream


@pytest.mark.parametrize("seed", range(5))
def test_t59_shuffled_and_repeated_messages_end_in_the_same_state(seed: int) -> None:
    key, stream = recorded(seed)
    first = make_manager(actor=9)
    hear(first, stream)
    expected = copy(first, key)
    chance = Random(seed)
    for _ in range(20):
        shuffled = [*stream, *chance.choices(stream, k=len(stream) // 2)]
        chance.shuffle(shuffled)
        other = make_manager(actor=9)
        hear(other, shuffled)
        assert equal_state(copy(other, key), expected)
        assert digest(key, copy(other, key)) == digest(key, expected)


def test_t60_an_update_before_the_creation_and_a_second_creation_lose_nothing() -> None:
    writer, reader = make_manager(actor=1), make_manager(actor=2)
    session = writer.create()
    session["a"] = 1
    writer.commit(session)
    creation = sent(writer)
    session["b"] = 2
    session["c"] = MergedCounter(3)
    writer.commit(session)
    update = sent(writer)
    hear(reader, update)
    assert reader.find(session.id) is None, "a fragment is not served as the session"
    hear(reader, creation)
    found = reader.find(session.id)
    assert found is not None
    assert dict(found) == {"a": 1, "b": 2, "c": 3}
    hear(reader, creation)
    found = reader.find(session.id)
    assert found is not None
    assert dict(found) == {"a": 1, "b": 2, "c": 3}


def test_t66_one_bad_attribute_costs_only_itself() -> None:
    writer, reader = make_manager(actor=1), make_manager(actor=2)
    session = writer.create()
    session["good"], session["bad"], session["fine"] = 1, object(), 3
    outcome = writer.commit(session)
    assert list(outcome.failed) == ["bad"]
    error = outcome.failed["bad"]
    assert isinstance(error, AttributeNotEncodableError)
    assert "manager.codec.register(object, encode=..., decode=...)" in str(error)
    assert writer.statistics().attribute_failures == 1
    hear(reader, sent(writer))
    found = reader.find(session.id)
    assert found is not None
    assert dict(found) == {"good": 1, "fine": 3}
