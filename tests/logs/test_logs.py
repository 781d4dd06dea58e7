"""The log's promises: names that are listed, lines for machines, repeats counted, no content."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from tests.logs.events import GUIDE, events, table
from tests.runtime.conftest import make_config
from tests.snippets import blocks, run
from tests.waiting import until
from tribes.cli.logs import REPEATS_MAX, Repeats, set_up_logging
from tribes.runtime.group_channel import GroupChannel

if TYPE_CHECKING:
    from tribes.config.model import NodeConfig

__all__ = ["make_config"]


@pytest.fixture
def plain_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test configures does not last: neither for later tests, nor in a module's logger."""
    before, configure = structlog.get_config(), structlog.configure

    def configure_uncached(**settings: Any) -> None:
        configure(**{**settings, "cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", configure_uncached)
    yield
    configure(**before)


def test_every_event_is_listed() -> None:
    """``python -m tests.logs.events`` writes the list when one is new."""
    found = events()
    assert len(found) > 60
    assert {"member added", "node ready", "session expired", "recording written"} <= found.keys()
    assert table() in GUIDE.read_text()


async def test_lines_are_json_and_hold_nothing_of_a_session(
    make_config: Callable[..., NodeConfig], monkeypatch: pytest.MonkeyPatch, plain_logging: None
) -> None:
    """Over sessions, changes and an end by the other member: every event is one that is listed, and
    neither value nor id is in any line.
    """
    lines = io.StringIO()
    monkeypatch.setattr("sys.stdout", lines)
    set_up_logging("json", "debug")
    secret = "nobody-but-the-user"
    ids = []
    async with (
        GroupChannel(make_config("a", contexts=("shop",), send_options=6)) as a,
        GroupChannel(make_config("b", contexts=("shop",), send_options=6)) as b,
    ):
        await until(lambda: bool(a.members and b.members and a.is_ready and b.is_ready))
        for _ in range(5):
            session = a.manager("shop").create()
            session["card"] = secret
            await a.acommit(session)
            ids.append(session.id)
            other = b.manager("shop").find(session.id)
            assert other is not None
            other["card"] = secret * 2
            other["more"] = secret
            await b.acommit(other)
            other.invalidate()
            await b.acommit(other)
    said = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert {"member added", "joined", "member removed"} <= {each["event"] for each in said}
    assert {each["event"] for each in said} <= events().keys()
    assert all({"event", "level", "timestamp"} <= each.keys() for each in said)
    for hidden in (secret, *ids):
        assert hidden not in lines.getvalue()


def test_repeats_are_counted_not_printed() -> None:
    """The same texts are the same line; others are their own; later the number is told."""
    now = 100.0
    limit = Repeats(lambda: now)

    def told(event: str, **fields: object) -> object:
        try:
            return limit(None, "info", {"event": event, **fields})
        except structlog.DropEvent:
            return None

    for number in range(REPEATS_MAX):
        assert told("link rejected", peer="a", seconds=number)
    assert told("link rejected", peer="a", seconds=99) is None
    assert told("link rejected", peer="a", seconds=99) is None
    assert told("link rejected", peer="b", seconds=99) is not None
    assert told("joined") == {"event": "joined"}
    now += 10.1
    assert told("link rejected", peer="a") == {"event": "link rejected", "peer": "a", "repeats": 2}
    assert told("link rejected", peer="a") == {"event": "link rejected", "peer": "a"}


def test_what_is_remembered_of_repeats_is_bounded() -> None:
    """Somebody who makes up names costs no memory."""
    limit = Repeats(lambda: 1.0)
    for number in range(5000):
        limit(None, "info", {"event": "link rejected", "peer": str(number)})
    assert len(limit) <= 1024


def test_text_lines_name_level_and_event(
    capsys: pytest.CaptureFixture[str], plain_logging: None
) -> None:
    """And what is below the level is not printed."""
    set_up_logging("text", "warning")
    log = structlog.get_logger("test-of-text")
    log.info("node ready")
    log.warning("member suspected", member="b")
    [line] = capsys.readouterr().out.splitlines()
    assert "[warning" in line
    assert line.endswith("member suspected member=b")


def test_settings_of_the_page_show_no_variables_of_a_failing_listener(
    plain_logging: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """rich, which structlog takes where nobody has configured it, prints them."""
    [code] = blocks("logs.md")
    number = "".join(["4711", "0815"])

    def shown(secret: str) -> str:
        try:
            raise RuntimeError(f"mine, of {len(secret)} characters")
        except RuntimeError:
            structlog.get_logger("tribes").exception("listener failed")
        return capsys.readouterr().out

    structlog.reset_defaults()
    assert number in shown(number)
    run(code)
    said = shown(number)
    assert "RuntimeError: mine, of 8 characters" in said
    assert number not in said
