"""Which session an id means, before, during and after its grace."""

from __future__ import annotations

from tribes.ids import SessionKey
from tribes.manager.aliases import Aliases
from tribes.manager.container import Facts

KEY = SessionKey("A1")
KEYS = {"A1": b""}


def learned(*steps: tuple[dict[str, int | None], int]) -> Aliases:
    aliases = Aliases()
    before = None
    for ids, now_ds in steps:
        facts = Facts(ids, None)
        aliases.learn(KEY, before, facts, now_ds)
        before = facts
    return aliases


def test_the_key_is_an_id_without_an_entry() -> None:
    assert Aliases().resolve("A1", KEYS, 0) == "A1"
    assert Aliases().resolve("B2", KEYS, 0) is None


def test_a_retired_key_is_valid_for_its_grace() -> None:
    aliases = learned(({"A1": 30, "B2": None}, 100))
    assert aliases.resolve("B2", KEYS, 10**6) == "A1"
    assert aliases.resolve("A1", KEYS, 399) == "A1"
    assert aliases.resolve("A1", KEYS, 400) is None


def test_without_grace_the_old_id_is_invalid_at_once() -> None:
    aliases = learned(({"A1": 0, "B2": None}, 100))
    assert aliases.resolve("A1", KEYS, 100) is None


def test_a_second_rotation_retires_the_first() -> None:
    aliases = learned(({"A1": 0, "B2": None}, 100), ({"A1": 0, "B2": 30, "C3": None}, 200))
    assert aliases.resolve("C3", KEYS, 200) == "A1"
    assert aliases.resolve("B2", KEYS, 499) == "A1"
    assert aliases.resolve("B2", KEYS, 500) is None
    assert len(aliases) == 2
    aliases.sweep(499)
    assert len(aliases) == 2
    aliases.sweep(500)
    assert len(aliases) == 1
    assert aliases.resolve("A1", KEYS, 600) is None, "a key stays retired as long as its session"


def test_learning_again_gives_no_second_grace() -> None:
    aliases = learned(
        ({"A1": 30, "B2": None}, 100),
        ({"A1": 30, "B2": 30, "C3": None}, 200),
        ({"A1": 30, "B2": 30, "C3": 30, "D4": None}, 900),
    )
    assert aliases.resolve("A1", KEYS, 900) is None
    assert aliases.resolve("B2", KEYS, 900) is None
    assert aliases.resolve("C3", KEYS, 900) == "A1"


def test_an_ended_session_leaves_no_ids() -> None:
    ids: dict[str, int | None] = {"A1": 0, "B2": 30, "C3": None}
    aliases = learned((ids, 100))
    aliases.forget(KEY, Facts(ids, None))
    assert len(aliases) == 0
    assert aliases.resolve("A1", KEYS, 100) == "A1"


def test_another_sessions_id_is_not_dropped() -> None:
    aliases = learned(({"C3": None}, 100))
    aliases.learn(SessionKey("Z9"), None, Facts({"C3": None}, None), 100)
    aliases.forget(KEY, Facts({"C3": None}, None))
    assert aliases.resolve("C3", {"Z9": b""}, 0) == "Z9"
