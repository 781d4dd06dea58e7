"""What the README shows works as shown."""

from __future__ import annotations

import httpx
import pytest
import trio

from tests.snippets import DOCS, blocks, missing_targets, run

README = DOCS.parent / "README.md"
SNIPPET = blocks("../README.md")[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_embedding_snippet_counts_visits() -> None:
    """The Starlette application of the README keeps a session."""
    names = run(SNIPPET)
    transport = httpx.ASGITransport(names["app"])
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            assert [(await client.get("/")).text for _ in range(3)] == [
                "visit 1",
                "visit 2",
                "visit 3",
            ]
    finally:
        await trio.to_thread.run_sync(names["node"].stop)


def test_embedding_takes_ten_lines() -> None:
    """No more than the README's reader was promised."""
    lines = [line for line in SNIPPET.splitlines() if line.strip()]
    assert len(lines) <= 10


def test_pictures_and_links_are_there() -> None:
    """Every relative link of the README names a file."""
    assert "](docs/" in README.read_text()
    assert missing_targets(README) == []
