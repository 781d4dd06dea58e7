"""Values longer than an item of a memcached: cut in pieces, whole or not there (row F59)."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from tests.session_server.site import Browser, Site
from tests.session_server.test_values import MODES, get, put
from tribes.errors import StoreConflictError, StoreLimitError
from tribes.stores.memcached import PIECES_OUTLIVE_S, MemcachedNode
from tribes.stores.pieces import FLAGS, Pieces

if TYPE_CHECKING:
    from tests.servers.caches import CacheServer

Nodes = dict[str, "CacheServer"]
MEBIBYTE = 1024 * 1024
LIMIT = 8 * MEBIBYTE


opened: list[MemcachedNode] = []
"""Also those of a test that fails, as it shall on a broken build."""


def node_of(server: CacheServer, limit: int = LIMIT) -> MemcachedNode:
    opened.append(MemcachedNode(("127.0.0.1", server.port), timeout_s=5, value_max_bytes=limit))
    return opened[-1]


def close_all() -> None:
    """Close what tests have left open; a second time does nothing."""
    while opened:
        opened.pop().close()


def pieces_of(server: CacheServer, key: str) -> list[str]:
    """Keys of the pieces of a value, by the list on the server."""
    found = Pieces.read(server.value(key))
    assert found is not None
    return found.keys(key)


def count(server: CacheServer, names: list[str]) -> int:
    """How many of these the server has."""
    return sum(server.has(name) for name in names)


@MODES
def test_f59_values_in_pieces_come_back(two: Site, sticky: bool) -> None:
    """Incompressible, around the limit of an item and up to 5 MB; from another process too."""
    one, other = (
        two.instance(sticky=sticky, value_max_bytes=LIMIT, session_backup_timeout=5000)
        for _ in range(2)
    )
    item = one.manager.ring.nodes[0].client._piece_bytes  # type: ignore[attr-defined]
    for size in (1000, item - 200, item, 2 * item, 5_000_000):
        noise = os.urandom(size)
        browser = Browser()
        put(one, browser, "v", noise)
        assert get(other, browser, "v") == noise
        put(other, browser, "w", size)
        assert get(one, browser, "w") == size
        assert get(one, browser, "v") == noise
    assert one.statistics().oversize == 0


def test_f59_no_more_pieces_than_the_setting_says(n: Nodes) -> None:
    node = node_of(n["n1"], 2 * MEBIBYTE)
    with pytest.raises(StoreLimitError, match="2097153 bytes is more than the 2097152"):
        node.save("k", b"x" * (2 * MEBIBYTE + 1), expected=0, ttl_s=60)
    assert not n["n1"].has("k")
    unset = node_of(n["n1"], 0)
    assert unset.value_max_bytes < MEBIBYTE
    node.close()
    unset.close()


def test_f59_old_pieces_are_removed(n: Nodes) -> None:
    """When a value is replaced, becomes short, is refused or deleted; by another process too."""
    server = n["n1"]
    node, other = node_of(server), node_of(server)
    version = node.save("k", b"a" * (3 * MEBIBYTE), expected=0, ttl_s=60)
    first = pieces_of(server, "k")
    assert (len(first), count(server, first)) == (4, 4)
    version = node.save("k", b"b" * (2 * MEBIBYTE), expected=version, ttl_s=60)
    second = pieces_of(server, "k")
    assert (count(server, first), count(server, second)) == (0, 3)
    server.mark()
    with pytest.raises(StoreConflictError):
        other.save("k", b"c" * (4 * MEBIBYTE), expected=version - 1, ttl_s=60)
    assert server.count("md") == 5
    assert count(server, second) == 3
    found = other.load("k")
    assert found is not None
    version = other.save("k", b"short", expected=found.version, ttl_s=60)
    assert count(server, second) == 0
    version = other.save("k", b"d" * (2 * MEBIBYTE), expected=version, ttl_s=60)
    third = pieces_of(server, "k")
    assert other.delete("k", expected=version)
    assert count(server, ["k", *third]) == 0
    node.close()
    other.close()


def test_f59_a_torn_value_is_no_value(n: Nodes) -> None:
    """One piece was evicted: the value is gone as a whole, and a new one can be saved."""
    server = n["n1"]
    node = node_of(server)
    node.save("k", os.urandom(3 * MEBIBYTE), expected=0, ttl_s=60)
    names = pieces_of(server, "k")
    server.ask(f"md {names[1]}\r\n".encode())
    assert node.load("k") is None
    assert count(server, ["k", *names]) == 0
    assert node.save("k", b"new", expected=0, ttl_s=60)
    node.close()


@MODES
def test_f59_a_torn_copy_is_made_good_from_the_other_one(n: Nodes, two: Site, sticky: bool) -> None:
    one, other = (two.instance(sticky=sticky, value_max_bytes=LIMIT) for _ in range(2))
    noise = os.urandom(2 * MEBIBYTE)
    browser = Browser()
    put(one, browser, "v", noise)
    home = n[browser.node]
    home.ask(f"md {pieces_of(home, browser.key)[0]}\r\n".encode())
    # A sticky session is in the memory of its process; one that roams is on the second node.
    reader = one if sticky else other
    assert get(reader, browser, "v") == noise
    put(reader, browser, "w", 1)
    assert get(two.instance(sticky=sticky, value_max_bytes=LIMIT), browser, "v") == noise


def test_f59_pieces_live_as_long_as_their_list(n: Nodes) -> None:
    """Longer even: reading, and asking for the version, prolong both."""
    server = n["n1"]
    node = node_of(server)
    version = node.save("k", b"x" * (2 * MEBIBYTE), expected=0, ttl_s=1000)

    def check_lives(ttl_s: int) -> None:
        # The servers' seconds go on while they are asked; pieces are asked first.
        pieces = [server.ttl(name) for name in pieces_of(server, "k")]
        own = server.ttl("k")
        assert len(pieces) == 3
        assert own is not None
        assert ttl_s - 30 < own <= ttl_s
        for piece in pieces:
            assert piece is not None
            assert own + PIECES_OUTLIVE_S <= piece <= ttl_s + PIECES_OUTLIVE_S

    check_lives(1000)
    assert node.peek("k", 2000) == version
    check_lives(2000)
    node.load("k", 0)
    assert {server.ttl(name) for name in ("k", *pieces_of(server, "k"))} == {-1}
    node.close()


def test_f59_readers_see_whole_values_only(n: Nodes) -> None:
    """While another process replaces the value by ones of other lengths, again and again."""
    server = n["n1"]
    node, other = node_of(server), node_of(server)
    version = node.save("k", bytes([0]) * (2 * MEBIBYTE), expected=0, ttl_s=60)
    is_over = threading.Event()

    def replace() -> None:
        nonlocal version
        for turn in range(1, 40):
            size = (turn % 3) * MEBIBYTE + 1000
            version = node.save("k", bytes([turn]) * size, expected=version, ttl_s=60)
        is_over.set()

    thread = threading.Thread(target=replace)
    thread.start()
    seen = set()
    while not is_over.is_set():
        found = other.load("k")
        assert found is not None
        turn = found.data[0]
        assert found.data == bytes([turn]) * len(found.data)
        assert turn == 0 or len(found.data) == (turn % 3) * MEBIBYTE + 1000
        seen.add(turn)
    thread.join(20)
    assert len(seen) > 1
    node.close()
    other.close()


def test_f59_bytes_that_are_no_list_are_an_ordinary_value(n: Nodes) -> None:
    """Whoever plants a list of his own gets no more than a value that does not open."""
    server = n["n1"]
    node = node_of(server)
    server.ask(f"ms k 4 F{FLAGS}\r\njunk\r\n".encode())
    found = node.load("k")
    assert found is not None
    assert found.data == b"junk"
    planted = Pieces(b"\0" * 6, 900, 10).pack()
    server.ask(f"ms p {len(planted)} F{FLAGS}\r\n".encode() + planted + b"\r\n")
    assert node.load("p") is None
    node.close()
