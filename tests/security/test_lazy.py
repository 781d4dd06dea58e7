"""Who sets no key pays nothing for cryptography."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys

def loaded():
    return sorted(name for name in sys.modules if name.partition(".")[0] == "cryptography")

import tribes, tribes.security, tribes.cli.keygen
import tribes.runtime.group_channel, tribes.membership.multicast
assert not loaded(), loaded()

from tribes.security import GroupKey, KeyRing, LinkKeys, Marker, Verdict
from tribes.security.mark import split, verify
from tribes.wire.member import Member, encode_member

keys = KeyRing([GroupKey(1, bytes(32))])
record = encode_member(Member(b"\\x7f\\0\\0\\1", 4000, bytes(16)))
assert verify(*split(Marker(1, keys=keys).mark(record)), keys) is Verdict.VALID
links = LinkKeys(keys.current)
assert links.check(b"x", links.hello_tag(b"x"))
assert not loaded(), loaded()

links.sealers(bytes(16), bytes([1]) * 16, is_client=True)
assert loaded()
"""


def test_cryptography_is_imported_when_a_link_is_sealed() -> None:
    """Not by ``import tribes``, not by a channel, not by signed heartbeats."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
