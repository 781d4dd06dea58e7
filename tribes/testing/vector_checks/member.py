"""Checks of the member record: encoding, decoding, refusals, orders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tribes.errors import RemoteProtocolError
from tribes.testing.vector_checks.notation import expect_bytes, expect_member, member_of
from tribes.testing.vector_checks.registry import Mismatch, check, expect
from tribes.wire.member import decode_member, encode_member, host_octets, listing_order

if TYPE_CHECKING:
    from tribes.testing.vector_checks.registry import Vector


@check("member")
def check_member(vector: Vector) -> None:
    """Fields give the record; the record gives the fields and the name."""
    inputs = vector["inputs"]
    record = encode_member(member_of(inputs))
    expect_bytes(vector, record)
    decoded = decode_member(bytes.fromhex(vector["hex"]) if "hex" in vector else record)
    expect_member("decoded", inputs, decoded)
    if "decoded_name" in vector:
        expect("decoded_name", vector["decoded_name"], decoded.name)
    host_text = inputs.get("host_text")
    if host_text is not None and _is_ip_literal(host_text):
        expect("host octets", inputs["host_hex"], host_octets(host_text).hex())


@check("member_decode", "member_reject")
def check_member_decode(vector: Vector) -> None:
    """A record that Tomcat tolerates gives its fields; one that it refuses is refused."""
    data = bytes.fromhex(vector["inputs"]["hex"])
    if vector["accepted"]:
        expect_member("decoded", vector["member"], decode_member(data))
        return
    try:
        member = decode_member(data)
    except RemoteProtocolError:
        return
    raise Mismatch("record", expected="refused", got=member)


@check("member_order")
def check_member_order(vector: Vector) -> None:
    """Members sort into absolute order, or into the order of a listing."""
    inputs = vector["inputs"]
    if "sorted_indexes" in vector:
        given = [member_of(fields) for fields in inputs["members"]]
        found = sorted(given, key=lambda member: member.sort_key)
        expected = vector["sorted_indexes"]
    else:
        given = [member_of(fields) for fields in inputs["added_in_order"]]
        found = listing_order(given)
        expected = vector["listing_indexes"]
    # By object: two entries may well be equal members.
    index_of = {id(member): index for index, member in enumerate(given)}
    expect("order", expected, [index_of[id(member)] for member in found])


def _is_ip_literal(text: str) -> bool:
    """Whether a host is written as an address; names are resolved elsewhere."""
    return ":" in text or text.replace(".", "").isdigit()
