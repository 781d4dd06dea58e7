"""Finding, showing and ending sessions: never a value, never an id, always a line in the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import structlog

from tribes.admin.sessions import handle_of, listing, show
from tribes.manager.merged import MergedCounter


async def commit(channel: Any, **values: Any) -> Any:
    session = channel.manager("shop").create()
    session.update(values)
    await channel.acommit(session)
    return session


async def test_a_session_is_shown_without_its_values_and_id(operate: Callable[..., Any]) -> None:
    """Names, types, sizes, times; under the same handle on every member."""
    async with operate() as node:
        session = await commit(node.other, card="4111-secret", items=["secret"], n=MergedCounter())
        answer = await node.post("/sessions/show", context="shop", session=handle_of(session.key))
        shown = answer.json()
        types = {each["name"]: each["type"] for each in shown["attributes"]}
        assert types == {"card": "str", "items": "list", "n": "MergedCounter"}
        card = next(each for each in shown["attributes"] if each["name"] == "card")
        assert card["bytes"] == len("4111-secret") + 1
        assert abs(card["written_ms"] - session.created_ms) < 60_000
        assert shown["copies_on"] == ["n2"]
        assert "secret" not in answer.text
        assert session.id not in answer.text


async def test_a_class_that_this_node_does_not_know_is_shown_as_unknown(
    operate: Callable[..., Any],
) -> None:
    """It is decoded by nobody."""

    class Money:
        pass

    async with operate() as node:
        node.other.manager("shop").codec.register(
            Money, name="money", encode=lambda value: "secret", decode=lambda value: Money()
        )
        session = await commit(node.other, price=Money())
        answer = await node.post("/sessions/show", context="shop", session=session.id)
        assert answer.json()["attributes"][0]["type"] == "unknown"
        assert "secret" not in answer.text


async def test_sessions_are_listed_in_parts(operate: Callable[..., Any]) -> None:
    """Each once, without ids; ended ones are not."""
    async with operate() as node:
        made = [await commit(node.channel, number=number) for number in range(7)]
        ended = made.pop()
        ended.invalidate()
        await node.channel.acommit(ended)
        seen: list[str] = []
        after = ""
        for _ in range(5):
            answer = await node.http.get(f"/sessions?context=shop&limit=2&after={after}")
            shown = answer.json()
            assert not any(session.id in answer.text for session in made)
            seen += [each["session"] for each in shown["sessions"]]
            assert all(each["attributes"] == 1 for each in shown["sessions"])
            if shown["next"] is None:
                break
            after = shown["next"]
        assert seen == sorted(handle_of(session.key) for session in made)


async def test_t117_sessions_are_listed_inspected_expired_and_resynced_without_side_effects(
    operate: Callable[..., Any],
) -> None:
    """On each node the same; who looks uses no session and changes no record; what is ended is gone
    on all, and nothing else is.
    """
    async with operate() as node:
        made = [await commit(node.other, number=number) for number in range(4)]
        tables = [channel.manager("shop").table for channel in (node.channel, node.other)]
        before = [{key: table.get(key) for key in table.keys()} for table in tables]  # noqa: SIM118
        counts = node.channel.manager("shop").statistics()
        lists = [await listing(each, "shop", 100, "") for each in (node.channel, node.other)]
        handles = [[each["session"] for each in shown["sessions"]] for shown in lists]
        assert handles[0] == handles[1] == sorted(handle_of(session.key) for session in made)
        for each in (node.channel, node.other):
            for handle in handles[0]:
                assert (await show(each, "shop", handle))["attributes"][0]["name"] == "number"
        await node.http.get("/status")
        await node.http.get("/metrics")
        for table, records in zip(tables, before, strict=True):
            assert all(table.get(key) is record for key, record in records.items())
        assert node.channel.manager("shop").statistics() == counts
        assert (await node.post("/resync", context="shop")).json() == {
            "context": "shop",
            "asked": 1,
        }
        await node.post("/sessions/expire", context="shop", session=handles[0][0])
        for each in (node.channel, node.other):
            left = await listing(each, "shop", 100, "")
            assert [one["session"] for one in left["sessions"]] == handles[0][1:]
        assert node.channel.manager("shop").statistics().destroyed == counts.destroyed + 1


async def test_an_expired_session_is_gone_on_every_member_and_the_log_says_who(
    operate: Callable[..., Any],
) -> None:
    """By its id, as a user's complaint has it; the log has the handle only."""
    async with operate() as node:
        session = await commit(node.other, user="secret")
        kept = await commit(node.other, user="other")
        with structlog.testing.capture_logs() as logs:
            answer = await node.post(
                "/sessions/expire", context="shop", session=session.id, reason="ticket 7"
            )
        assert answer.json() == {
            "context": "shop",
            "session": handle_of(session.key),
            "acked": ["n2"],
            "missing": {},
        }
        for channel in (node.channel, node.other):
            assert channel.manager("shop").find(session.id) is None
            assert channel.manager("shop").find(kept.id) is not None
        [line] = [each for each in logs if each["event"] == "session ended by operator"]
        assert line["log_level"] == "warning"
        assert (line["session"], line["reason"]) == (handle_of(session.key), "ticket 7")
        assert line["peer"].startswith("127.0.0.1:")
        assert session.id not in str(logs)
        again = await node.post("/sessions/expire", context="shop", session=session.id)
        assert again.status_code == 404


async def test_a_rotated_session_keeps_its_handle(operate: Callable[..., Any]) -> None:
    """And is found by its new id."""
    async with operate() as node:
        session = await commit(node.other, a=1)
        handle = handle_of(session.key)
        session.rotate_id(grace_s=0)
        await node.other.acommit(session)
        for named in (session.id, handle, handle.upper()):
            answer = await node.post("/sessions/show", context="shop", session=named)
            assert answer.json()["session"] == handle


@pytest.mark.parametrize("named", ["", "0" * 16, "x" * 3000, "../.."])
async def test_a_session_that_is_none(operate: Callable[..., Any], named: str) -> None:
    """Is not found, and the text is not echoed."""
    async with operate() as node:
        answer = await node.post("/sessions/expire", context="shop", session=named)
        assert answer.status_code == 404
        assert named == "" or named not in answer.text


async def test_listeners_hear_that_it_was_invalidated(operate: Callable[..., Any]) -> None:
    """As after a logout."""
    heard: list[str] = []

    class Listener:
        def session_destroyed(self, session: Any, reason: str) -> None:
            heard.append(reason)

    async with operate() as node:
        node.channel.manager("shop").add_listener(Listener())
        session = await commit(node.channel, a=1)
        await node.post("/sessions/expire", context="shop", session=session.id)
    assert heard == ["invalidated"]


async def test_resync_asks_the_members_and_drain_tells_the_node(
    operate: Callable[..., Any],
) -> None:
    """Both leave a line in the log."""
    async with operate() as node:
        with structlog.testing.capture_logs() as logs:
            assert (await node.post("/resync", context="shop")).json()["asked"] == 1
            assert (await node.post("/resync", context="none")).status_code == 404
            assert (await node.post("/drain")).status_code == 202
        assert node.left == [True]
        events = [each["event"] for each in logs]
        assert "resync by operator" in events
        assert "drain by operator" in events
