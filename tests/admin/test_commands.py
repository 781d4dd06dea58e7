"""``tribes status`` and its sisters, against a node that runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import trio
from click.testing import CliRunner

from tribes.admin.sessions import handle_of
from tribes.cli.app import main

if TYPE_CHECKING:
    from pathlib import Path


async def run(node: Any, *arguments: str, token_file: Path | None = None) -> Any:
    """The command's result; it runs in a thread, since it blocks."""
    url = f"http://127.0.0.1:{node.port}"
    more = ["--token-file", str(token_file)] if token_file else []
    invoke = CliRunner().invoke
    return await trio.to_thread.run_sync(invoke, main, [*arguments, "--url", url, *more])


@pytest.mark.usefixtures("no_kept_status")
async def test_status_and_members_are_shown(operate: Callable[..., Any]) -> None:
    """For people and as JSON; ready is 0, not ready 3."""
    async with operate(token=False) as node:
        shown = await run(node, "status")
        assert shown.exit_code == 0
        assert "n1 at 127.0.0.1" in shown.output
        assert "shop     delta  0" in shown.output
        as_json = await run(node, "status", "--json")
        assert json.loads(as_json.output)["node"] == "n1"
        shown = await run(node, "members")
        assert "n2" in shown.output
        assert "answers" in shown.output
        listed = json.loads((await run(node, "members", "--json")).output)
        assert [each["name"] for each in listed["members"]] == ["n2"]
        node.channel.retire()
        shown = await run(node, "status")
        assert shown.exit_code == 3
        assert "NOT READY" in shown.output


async def test_sessions_are_listed_shown_and_ended(
    operate: Callable[..., Any], token_file: Path
) -> None:
    """With a token; without one the message says what to give."""
    async with operate() as node:
        session = node.other.manager("shop").create()
        session["card"] = "secret"
        await node.other.acommit(session)
        handle = handle_of(session.key)
        refused = await run(node, "sessions", "list", "shop")
        assert refused.exit_code == 1
        assert "--token-file" in refused.output
        outputs = []
        for arguments in (
            ("list", "shop"),
            ("list", "shop", "--json"),
            ("show", "shop", handle),
            ("show", "shop", handle, "--json"),
            ("expire", "shop", handle, "--reason", "ticket"),
        ):
            done = await run(node, "sessions", *arguments, token_file=token_file)
            assert done.exit_code == 0, done.output
            assert handle in done.output
            outputs.append(done.output)
        assert "card" in outputs[2]
        assert "confirmed by n2" in outputs[4]
        assert not any("secret" in output or session.id in output for output in outputs)
        assert node.other.manager("shop").find(session.id) is None
        for arguments in (("show", "shop", handle), ("list", "none")):
            done = await run(node, "sessions", *arguments, token_file=token_file)
            assert done.exit_code == 4


async def test_resync_and_drain_are_passed_on(
    operate: Callable[..., Any], token_file: Path
) -> None:
    """And say what was done."""
    async with operate() as node:
        assert "asked 1" in (await run(node, "resync", "shop", token_file=token_file)).output
        assert (await run(node, "resync", "none", token_file=token_file)).exit_code == 4
        assert (await run(node, "drain", token_file=token_file)).exit_code == 0
        assert node.left == [True]


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("http://127.0.0.1:1", 1, "does not answer: nothing listens there. Start a node"),
        ("ftp://127.0.0.1", 2, "is no address"),
        ("http://127.0.0.1:99999", 2, "is no address"),
        ("nonsense", 2, "is no address"),
    ],
)
def test_where_no_node_answers(url: str, code: int, said: str) -> None:
    """The exit status tells a mistake from a silence."""
    command = [sys.executable, "-m", "tribes", "status", "--url", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


async def test_names_of_others_cannot_drive_the_terminal(
    operate: Callable[..., Any], token_file: Path
) -> None:
    """Escape sequences in an attribute's name are shown as what they are not."""
    async with operate() as node:
        session = node.other.manager("shop").create()
        session["a\x1b[2Jb"] = 1
        await node.other.acommit(session)
        handle = handle_of(session.key)
        done = await run(node, "sessions", "show", "shop", handle, token_file=token_file)
        assert "\x1b" not in done.output
        assert "a�[2Jb" in done.output
