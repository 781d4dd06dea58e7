"""Addresses that need no key."""

from __future__ import annotations

import pytest

from tribes.security.plain_peers import PlainPeers


def test_nobody_is_a_plain_peer_unless_listed() -> None:
    """Neither by the socket nor by the record."""
    nobody = PlainPeers(())
    assert not nobody.admits_address("127.0.0.1")
    assert not nobody.admits(b"\x7f\0\0\x01")


def test_listed_addresses_are_however_they_are_written() -> None:
    """IPv4 also as a socket of both families shows it; IPv6 in any spelling."""
    some = PlainPeers(("10.0.0.7", "fe80:0::1"))
    assert some.admits_address("10.0.0.7")
    assert some.admits_address("::ffff:10.0.0.7")
    assert some.admits_address("fe80::1%eth0")
    assert some.admits(bytes((10, 0, 0, 7)))
    assert some.admits(bytes.fromhex("fe80" + 13 * "00" + "01"))
    for text in ("10.0.0.8", "::1", "", "host"):
        assert not some.admits_address(text)
    for host in (b"", bytes((10, 0, 0, 8)), b"10.0.0.7"):
        assert not some.admits(host)


def test_any_is_everybody() -> None:
    """Also who has no address that can be read."""
    everybody = PlainPeers(("any",))
    assert everybody.admits_address("")
    assert everybody.admits(b"")


def test_what_is_no_address_is_refused() -> None:
    """A name could mean another machine tomorrow."""
    with pytest.raises(ValueError, match="tomcat1"):
        PlainPeers(("tomcat1",))
