"""Lines on a terminal that does not take them at once."""

from __future__ import annotations

import os
import sys
import threading
from types import SimpleNamespace

import pytest

from tribes.cli.demo_screen import write_stdout


@pytest.mark.skipif(os.name != "posix", reason="not here: pipes that do not block")
def test_a_terminal_that_does_not_block_gets_every_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though another program left it so, and it takes no more for a while."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    stdout = SimpleNamespace(fileno=lambda: writing, encoding="utf-8")
    text, got = "line\n" * 100_000, bytearray()

    def read() -> None:
        while data := os.read(reading, 4096):
            got.extend(data)

    reader = threading.Thread(target=read)
    full = threading.Event()
    write = os.write

    def watched(descriptor: int, data: memoryview) -> int:
        try:
            return write(descriptor, data)
        except BlockingIOError:
            if not full.is_set():
                full.set()
                reader.start()
            raise

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(os, "write", watched)
        write_stdout(text)
    os.close(writing)
    assert full.is_set()
    reader.join(10)
    os.close(reading)
    assert got.decode() == text
