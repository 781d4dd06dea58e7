"""The pictures of ``tribes top``, without a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from tribes.cli.top_screen import picture


def status(**changes: Any) -> dict[str, Any]:
    link = {
        "name": "n2",
        "round_trip_s": None,
        "lag_s": 1.25,
        "is_behind": False,
        "needs_sync": False,
        "is_suspected": False,
        "raw_bytes": 0,
        "live_bytes": 2048,
        "unacked_bytes": 0,
        "dirty_keys": 7,
    }
    context = {
        "context": "shop",
        "kind": "delta",
        "sessions": 12,
        "bytes": 1234,
        "copies_on": ["n2"],
        "under_replicated": 0,
        "needs_sync": [],
        "transfer": {"is_joined": False, "known": 2000, "received": 500},
    }
    member = {"name": "n2", "address": "a:1", "alive_s": 1, "domain": "", "is_suspected": False}
    return {
        "node": "n1",
        "is_ready": False,
        "address": "127.0.0.1:4000",
        "version": "1",
        "view": 3,
        "uptime_s": 4000,
        "members": [member],
        "links": [link],
        "contexts": [context],
        "failures": [],
        "rates": {"series": {"commits": [0, 1, 2, 1234]}},
        **changes,
    }


def drawn(shown: dict[str, Any], width: int = 80, height: int = 0, wrong: str = "") -> list[str]:
    console = Console(width=width, highlight=False, force_terminal=False)
    with console.capture() as capture:
        console.print(picture(shown, width=width, height=height, wrong=wrong))
    return capture.get().rstrip("\n").split("\n")


def test_a_transfer_has_a_bar() -> None:
    """How much of what is known has come; none once it has joined."""
    assert "joining shop █████░░░░░░░░░░░░░░░ 500 of 2000" in drawn(status())
    joined = status()
    joined["contexts"][0]["transfer"]["is_joined"] = True
    assert not any("joining" in line for line in drawn(joined))


def test_what_is_not_measured_is_not_zero() -> None:
    """A link without an answer has no round trip; its lag is shown."""
    [line] = [line for line in drawn(status()) if line.startswith("n2") and "fine" in line]
    assert line.split()[1:4] == ["-", "1.2", "s"]


def test_no_line_is_wider_and_no_picture_higher_than_the_terminal() -> None:
    """What is left out is counted."""
    members = [
        {**status()["members"][0], "name": f"member-with-a-name-{number}"} for number in range(50)
    ]
    for width, height in ((80, 24), (40, 10), (20, 5), (8, 3)):
        lines = drawn(status(members=members), width, height, wrong="x" * 100)
        assert max(map(len, lines)) <= width, (width, height)
        assert len(lines) <= height, (width, height)
    assert any("lines more" in line for line in drawn(status(members=members), 80, 24))
    assert len(drawn(status(members=members))) > 50


def test_names_of_others_are_text() -> None:
    """Neither the terminal's commands nor the library's own marks."""
    evil = status()
    evil["members"][0]["name"] = "\x1b[2J[bold]x[/bold]"
    text = "\n".join(drawn(evil))
    assert "\x1b" not in text
    assert "[bold]x[/bold]" in text
