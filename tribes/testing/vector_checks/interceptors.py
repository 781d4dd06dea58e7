"""Checks of what interceptors make of messages, and of what they decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tribes.errors import ConfigError, RemoteProtocolError
from tribes.interceptors import (
    DomainFilterInterceptor,
    EncryptInterceptor,
    FragmentationInterceptor,
    GzipInterceptor,
    OrderInterceptor,
    TwoPhaseCommitInterceptor,
)
from tribes.interceptors.compress import compress, decompress
from tribes.interceptors.coordination import Coordination, CoordinationKind
from tribes.interceptors.registry import build_interceptors
from tribes.interceptors.two_phase import CONFIRMATION_END, CONFIRMATION_START
from tribes.testing.stage import Stage, stage_member
from tribes.testing.vector_checks.notation import (
    expect_bytes,
    expect_member,
    input_bytes,
    member_of,
)
from tribes.testing.vector_checks.registry import Mismatch, check, expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from tribes.testing.vector_checks.registry import Vector

_GZIP_HEAD_BYTES: Final = 10
_GZIP_TAIL_BYTES: Final = 8
_INFLATED_MAX: Final = 1 << 24
_NOW_MS: Final = 1_800_000_000_000


# ---- order -------------------------------------------------------------------------------------


@check("order_send")
def check_order_send(vector: Vector) -> None:
    """Each destination gets its own numbers, in a message of its own."""
    inputs = vector["inputs"]
    members = {"m1": stage_member(1), "m2": stage_member(2)}
    names = {member: name for name, member in members.items()}
    stage = Stage(OrderInterceptor(option_flag=inputs["option_flag"]))
    for each in inputs["sends"]:
        to = [members[name] for name in each["destinations"]]
        stage.send(bytes.fromhex(each["message_hex"]), *to, options=inputs["options"])
    wire = [
        {"destinations": [names[m] for m in each.destinations], "hex": each.data.message.hex()}
        for each in stage.sent
    ]
    expect("messages on the wire", vector["wire"], wire)


@check("order_behaviour")
def check_order_behaviour(vector: Vector) -> None:
    """Numbers arrive, and messages are handed on, held or given up as the reference does.

    It has no timer, so none runs here; ours would give up what is overdue before the next arrival.
    """
    inputs = vector["inputs"]
    settings = {name: inputs[name] for name in ("expire", "forward_expired", "max_queue")}
    stage = Stage(OrderInterceptor(**settings))
    for arrival, after in zip(inputs["arrivals"], vector["after_each_arrival"], strict=False):
        what = f"handed on after number {arrival['number']}"
        raised, got = _received(stage, bytes.fromhex(arrival["hex"]))
        expect(what, after["delivered_hex"], [each.hex() for each in got])
        expect(f"error {what}", "java_exception" in after, raised)
        stage.now += inputs["pause_between"] / 1000
    for after in vector["after_each_arrival"][len(inputs["arrivals"]) :]:
        before = len(stage.got)
        stage.remove(stage_member(1))
        rest = [each.hex() for each in stage.messages[before:]]
        expect("handed on at the end", after["on_member_disappeared_delivered_hex"], rest)


def _received(stage: Stage, message: bytes, options: int = 1) -> tuple[bool, list[bytes]]:
    """Whether it was refused, and what the application got."""
    before = len(stage.got)
    try:
        stage.arrive(message, options=options)
    except RemoteProtocolError:
        return True, stage.messages[before:]
    return False, stage.messages[before:]


# ---- fragmentation -----------------------------------------------------------------------------


@check("fragment")
def check_fragment(vector: Vector) -> None:
    """A message becomes the pieces that the reference makes, and they become the message."""
    inputs = vector["inputs"]
    message = input_bytes(inputs, "message")
    settings = {"max_size": inputs["max_size"], "option_flag": inputs["option_flag"]}
    stage = Stage(FragmentationInterceptor(**settings))
    stage.send(message, options=inputs["options"])
    expect("pieces", len(vector["wire_messages"]), len(stage.sent))
    for expected, sent in zip(vector["wire_messages"], stage.sent, strict=True):
        expect_bytes(expected, sent.data.message)
    ids = {(each.data.unique_id, each.data.timestamp, each.data.options) for each in stage.sent}
    expect("ids, times and options of the pieces", 1, len(ids))
    got = stage.carry_to(Stage(FragmentationInterceptor(**settings)))
    expect("put together", [message], got)


@check("fragment_behaviour")
def check_fragment_behaviour(vector: Vector) -> None:
    """Pieces in this order give the message when the reference has it."""
    inputs = vector["inputs"]
    stage = Stage(FragmentationInterceptor())
    unique_id = bytes.fromhex(inputs["unique_id_hex"])
    arrivals = zip(inputs["arrivals_hex"], vector["delivered_after_each_hex"], strict=True)
    for number, (arrival, delivered) in enumerate(arrivals):
        got = stage.arrive(bytes.fromhex(arrival), unique_id=unique_id)
        expect(f"after piece {number}", delivered, [each.hex() for each in got])


# ---- compression -------------------------------------------------------------------------------


@check("gzip")
def check_gzip(vector: Vector) -> None:
    """The header and the trailer are those of the reference, and either stream gives the message.

    The bytes between depend on the compressor.
    """
    message = input_bytes(vector["inputs"], "message")
    made, given = compress(message), vector.get("hex") or ""
    head = bytes.fromhex(given or vector["head_hex"])[:_GZIP_HEAD_BYTES]
    tail = bytes.fromhex(given or vector["tail_hex"])[-_GZIP_TAIL_BYTES:]
    expect("header", head.hex(), made[:_GZIP_HEAD_BYTES].hex())
    expect("trailer", tail.hex(), made[-_GZIP_TAIL_BYTES:].hex())
    for stream in (made, bytes.fromhex(given)) if given else (made,):
        expect("inflated", message, decompress(stream, max_bytes=_INFLATED_MAX))


@check("gunzip")
def check_gunzip(vector: Vector) -> None:
    """Streams of all kinds are read. What cannot be is refused, where the reference drops it."""
    inputs = vector["inputs"]
    stage = Stage(GzipInterceptor())
    refused, got = _received(stage, bytes.fromhex(inputs["hex"]), inputs["options"])
    expect("handed on", vector["delivered"], bool(got))
    expect("refused", not vector["delivered"], refused)
    if vector["delivered"]:
        expect("message", vector["hex"], got[0].hex())


@check("gzip_message")
def check_gzip_message(vector: Vector) -> None:
    """Longer messages are compressed and marked, others left alone."""
    inputs = vector["inputs"]
    message = input_bytes(inputs, "message")
    stage = Stage(GzipInterceptor(compression_min_size=inputs["compression_min_size"]))
    stage.send(message, options=inputs["options"])
    sent = stage.sent[0].data
    expect("options on the wire", vector["options_on_wire"], sent.options)
    given = bytes.fromhex(vector["hex"])
    if sent.options == inputs["options"]:
        expect("message", given, sent.message)
    else:
        expect("inflated", message, decompress(given, max_bytes=_INFLATED_MAX))
    expect("read again", [message], stage.carry_to(Stage(GzipInterceptor())))


# ---- stacks ------------------------------------------------------------------------------------


@check("stack")
def check_stack_of(vector: Vector) -> None:
    """Several interceptors give the reference's messages, and read them."""
    inputs = vector["inputs"]
    texts = inputs["interceptors_in_configuration_order"]
    tables = [_table(text) for text in texts]
    message = input_bytes(inputs, "message")
    stage = Stage(*build_interceptors(tables).interceptors)
    stage.send(message, options=inputs["options"])
    if "Gzip" not in texts:
        wire = [{"options": s.data.options, "hex": s.data.message.hex()} for s in stage.sent]
        given = [{"options": s["options"], "hex": s["hex"]} for s in vector["wire_messages"]]
        expect("messages on the wire", given, wire)
    reader = Stage(*build_interceptors(tables).interceptors)
    for each in vector["wire_messages"]:
        if "hex" not in each:
            raise Mismatch("a message on the wire", expected="hex", got=sorted(each))
        reader.arrive(bytes.fromhex(each["hex"]), options=each["options"], unique_id=bytes(16))
    expect("what the reference sent, read", [message], reader.messages)
    again = Stage(*build_interceptors(tables).interceptors)
    expect("what was sent, read", [message], stage.carry_to(again))


def _table(text: str) -> dict[str, str]:
    """``Fragmentation maxSize=20`` as a configuration has it."""
    name, *settings = text.split()
    return {"class": f"{name}Interceptor", **dict(each.split("=") for each in settings)}


# ---- encryption --------------------------------------------------------------------------------


class _Given(Stage):
    """A stage whose random bytes are given."""

    iv = b""

    def entropy(self, size: int) -> bytes:
        return self.iv if size == len(self.iv) else super().entropy(size)


@check("encrypt")
def check_encrypt(vector: Vector) -> None:
    """Key, vector, time and message give the bytes, and the bytes give the message."""
    inputs = vector["inputs"]
    message = input_bytes(inputs, "message")

    def make() -> _Given:
        settings = {
            "encryption_key": inputs["key_hex"],
            "encryption_algorithm": inputs["algorithm"],
        }
        return _Given(EncryptInterceptor(**settings), wall_ms=inputs["timestamp"])

    stage = make()
    stage.start()
    stage.iv = bytes.fromhex(inputs["iv_hex"])
    stage.send(message, timestamp=inputs["timestamp"], unique_id=bytes(16))
    expect_bytes(vector, stage.wire[0])
    expect("decrypted", [message], stage.carry_to(make()))


@check("encrypt_behaviour")
def check_encrypt_behaviour(vector: Vector) -> None:
    """Copies, and messages out of the window, are not handed on."""
    inputs = vector["inputs"]
    settings = {
        name: inputs[name] for name in ("replay_window_time", "replay_window_message_count")
    }
    stage = Stage(EncryptInterceptor(encryption_key="ab" * 16, **settings), wall_ms=_NOW_MS)
    stage.start()
    for offset in inputs["message_timestamp_offsets_from_now"]:
        stage.send(b"message", timestamp=_NOW_MS + offset)
    accepted = []
    for index in inputs["delivery_order"]:
        _, got = _received(stage, stage.wire[index])
        accepted.append(bool(got))
    expect("accepted", vector["accepted"], accepted)


@check("encrypt_reject")
def check_encrypt_reject(vector: Vector) -> None:
    """What cannot be decrypted is not handed on; it is refused, where the reference drops some."""
    inputs = vector["inputs"]
    interceptor = EncryptInterceptor(
        encryption_key=inputs["receiver_key_hex"], encryption_algorithm=inputs["algorithm"]
    )
    stage = Stage(interceptor, wall_ms=inputs["sent_at"])
    stage.start()
    refused, got = _received(stage, bytes.fromhex(inputs["hex"]))
    expect("handed on", vector["delivered"], bool(got))
    expect("refused", not vector["delivered"], refused)


@check("encrypt_config")
def check_encrypt_config(vector: Vector) -> None:
    """An algorithm is refused where the reference refuses it."""
    try:
        EncryptInterceptor(
            encryption_key="ab" * 16, encryption_algorithm=vector["inputs"]["algorithm"]
        )
        result = "ok"
    except ConfigError:
        result = "IllegalArgumentException"
    expect("algorithm", vector["result"], result)


# ---- two phases, domains, coordinators ---------------------------------------------------------


@check("two_phase_behaviour")
def check_two_phase_behaviour(vector: Vector) -> None:
    """An original is handed on when it is confirmed, once."""
    stage = Stage(TwoPhaseCommitInterceptor())
    unique_id = bytes.fromhex("11111111111141118111111111111111")
    arrivals: dict[str, Callable[[], list[bytes]]] = {
        "two-phase-original": lambda: stage.arrive(b"commit me", options=7, unique_id=unique_id),
        "two-phase-confirm": lambda: stage.arrive(
            CONFIRMATION_START + unique_id + CONFIRMATION_END, options=7
        ),
    }
    for number, step in enumerate(vector["steps"]):
        got = [each.hex() for each in arrivals[step["arrives"]]()]
        expect(f"step {number}", step["delivered_hex"], got)


@check("domain_behaviour")
def check_domain_behaviour(vector: Vector) -> None:
    """Members and messages of exactly the same domain pass."""
    inputs = vector["inputs"]
    domain = bytes.fromhex(inputs["filter_domain_hex"])
    member = stage_member(1, domain=bytes.fromhex(inputs["member_domain_hex"]))
    stage = Stage(DomainFilterInterceptor(domain=domain))
    stage.add(member)
    expect("member added", vector["member_added"], member in stage.view)
    expect("message handed on", vector["message_delivered"], bool(stage.arrive(b"m", member)))


@check("coordinator")
def check_coordinator(vector: Vector) -> None:
    """The message of an election has the reference's bytes, and is read from them."""
    inputs = vector["inputs"]
    message = Coordination(
        CoordinationKind(bytes.fromhex(inputs["type_hex"])),
        member_of(inputs["leader"]),
        member_of(inputs["source"]),
        tuple(member_of(fields) for fields in inputs["view"]),
        bytes.fromhex(inputs["id_hex"]),
    )
    expect_bytes(vector, message.encode())
    read = Coordination.decode(bytes.fromhex(vector["hex"]))
    expect("kind, id", (message.kind, message.view_id), (read.kind, read.view_id))
    expect_member("leader", inputs["leader"], read.leader)
    expect_member("source", inputs["source"], read.source)
    expect("members", len(inputs["view"]), len(read.members))
    for number, (fields, member) in enumerate(zip(inputs["view"], read.members, strict=True)):
        expect_member(f"member {number}", fields, member)
