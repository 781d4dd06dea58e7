"""How a vectors file writes bytes and members (tribes-wire, Appendix D)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from tribes.testing.vector_checks.registry import Mismatch, expect
from tribes.wire.member import Member

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tribes.testing.vector_checks.registry import Vector

__all__ = ["expect_bytes", "expect_member", "input_bytes", "member_of", "rule_bytes"]


def rule_bytes(n: int) -> bytes:
    """Return the first ``n`` bytes of the rule that large inputs are given by."""
    return bytes((i * 131 + (i >> 8) * 17 + 89) & 0xFF for i in range(n))


def input_bytes(inputs: Mapping[str, Any], name: str) -> bytes:
    """Return the input ``name``: given as ``name_hex``, or as an object with ``hex`` or ``n``."""
    if f"{name}_hex" in inputs:
        return bytes.fromhex(inputs[f"{name}_hex"])
    given = inputs[name]
    return bytes.fromhex(given["hex"]) if "hex" in given else rule_bytes(given["n"])


def expect_bytes(vector: Vector, got: bytes) -> None:
    """Compare bytes with the vector's: whole, or by length, digest, beginning and end."""
    if "length" in vector:
        expect("length", vector["length"], len(got))
    if "hex" in vector:
        expect("bytes", vector["hex"], got.hex())
    elif "sha256" in vector:
        head, tail = vector["head_hex"], vector["tail_hex"]
        expect("head", head, got[: len(head) // 2].hex())
        expect("tail", tail, got[max(0, len(got) - len(tail) // 2) :].hex())
        expect("sha256", vector["sha256"], hashlib.sha256(got).hexdigest())
    else:
        raise Mismatch("outputs of the vector", expected="hex or sha256", got=sorted(vector))


_MEMBER_NUMBERS = ("port", "secure_port", "udp_port", "alive")
_MEMBER_BYTES = ("host", "command", "domain", "unique_id", "payload")


def member_of(fields: Mapping[str, Any]) -> Member:
    """Return the member with these fields; what is not given is as in a minimal record."""
    given: dict[str, Any] = {"host": b"", "port": 0, "unique_id": bytes(16)}
    given |= {name: fields[name] for name in _MEMBER_NUMBERS if name in fields}
    given |= {
        name: bytes.fromhex(fields[f"{name}_hex"])
        for name in _MEMBER_BYTES
        if f"{name}_hex" in fields
    }
    return Member(**given)


def expect_member(what: str, fields: Mapping[str, Any], got: Member) -> None:
    """Compare every field, not the identity only, which is all that ``==`` does for members."""
    expected = member_of(fields)
    for name in (*_MEMBER_NUMBERS, *_MEMBER_BYTES):
        expect(f"{what}.{name}", getattr(expected, name), getattr(got, name))
