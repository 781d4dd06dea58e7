"""Broken protection: keys, marks, proofs, seals and certificates that protect nothing.

Plans of faults have no attacker who knows what to do, so each of these names the test of the suite
that notices it.
"""

from __future__ import annotations

import ssl
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trustme

from tests.channel import test_keys_attacks as attacks
from tests.channel import test_keys_group as keyed
from tests.channel import test_tls_membership as introduced
from tests.config import test_model
from tests.links import test_own_sender
from tests.mutants import registry
from tests.mutants.registry import Patch, nothing
from tests.runtime import test_tls
from tests.security import test_keys, test_seal
from tests.sim import test_forgeries
from tribes.channel import accepted
from tribes.channel.accepted import AcceptedLinks
from tribes.channel.door import Door
from tribes.channel.receiving import Receiving
from tribes.config.model import ChannelConfig
from tribes.errors import RemoteProtocolError
from tribes.links.link_keys import LinkKeyring
from tribes.links.own_opening import Opening
from tribes.links.own_receiver import OwnReceiver
from tribes.links.own_sender import OwnSender
from tribes.links.own_wire import RefuseCode
from tribes.membership import admission, introductions
from tribes.membership.admission import Admission
from tribes.membership.introductions import Introduced, Introductions
from tribes.membership.multicast import MulticastMembership
from tribes.runtime import tls
from tribes.security import keys as key_module
from tribes.security.keys import GroupKey, KeyRing
from tribes.security.mark import Verdict, verify
from tribes.security.plain_peers import PlainPeers
from tribes.security.replay import Heard, ReplayGuard, _Counted
from tribes.security.seal import LinkKeys, Opener, _Direction
from tribes.wire.data import decode_body
from tribes.wire.member import SHUTDOWN_COMMAND, encode_member

Test = Callable[[], object]


def add(name: str, text: str, *patches: Patch, test: Test) -> None:
    """Register a mutant that a test must notice."""
    registry.add(f"security: {name}", text, *patches, test=test)


def forgeries() -> None:
    """Some of all kinds, where the suite makes many."""
    test_forgeries.strike(2000)


# ---- marks -------------------------------------------------------------------------------------


def _signed_by_anybody(record: bytes, mark: Any, keys: KeyRing, **place: Any) -> Verdict:
    return Verdict.UNSIGNED if mark is None or not mark.key_id else Verdict.VALID


add(
    "signature not checked",
    "A heartbeat counts as signed when it names a key.",
    (admission, "verify", _signed_by_anybody),
    test=forgeries,
)


def _record_not_covered(record: bytes, mark: Any, keys: KeyRing, **place: Any) -> Verdict:
    verdict = verify(record, mark, keys, **place)
    key = None if mark is None else keys.get(mark.key_id)
    if verdict is Verdict.FORGED and key is not None:
        return Verdict.VALID if mark.tag == _seen.get(mark.tag) else verdict
    if mark is not None:
        _seen[mark.tag] = mark.tag
    return verdict


_seen: dict[bytes, bytes] = {}
add(
    "tag good for any record",
    "A tag that was valid once is believed with every record.",
    (admission, "verify", _record_not_covered),
    test=forgeries,
)


def _sends_key_0(record: bytes, mark: Any, keys: KeyRing, **place: Any) -> Verdict:
    verdict = verify(record, mark, keys, **place)
    return Verdict.VALID if verdict is Verdict.UNSIGNED and mark is not None else verdict


add(
    "key id 0 is a key",
    "A mark that names no key passes for a signed one.",
    (admission, "verify", _sends_key_0),
    test=forgeries,
)
add(
    "another group's key id",
    "Heartbeats with a key that is not known here are believed.",
    (
        admission,
        "verify",
        lambda record, mark, ring, **place: (
            Verdict.VALID
            if (found := verify(record, mark, ring, **place)) is Verdict.UNKNOWN_KEY
            else found
        ),
    ),
    test=forgeries,
)


def _farewell_unsigned(self: Any, record: bytes, mark: Any, host: str, now: float) -> bool | None:
    return (
        True
        if SHUTDOWN_COMMAND in record and mark is not None
        else _verified(self, record, mark, host, now)
    )


_verified = Admission.verified
add(
    "farewell not signed",
    "A farewell is believed whatever its tag.",
    (Admission, "verified", _farewell_unsigned),
    test=forgeries,
)

# ---- replays -----------------------------------------------------------------------------------


def _always_fresh(self: Any, counter: int) -> Heard:
    self.highest = max(self.highest, counter)
    return Heard.FRESH


add(
    "counter not checked",
    "What was heard before counts again.",
    (_Counted, "take", _always_fresh),
    test=forgeries,
)
add(
    "late counts",
    "A heartbeat that was overtaken counts.",
    (
        _Counted,
        "take",
        lambda self, counter, real=_Counted.take: (
            Heard.FRESH if (found := real(self, counter)) is Heard.LATE else found
        ),
    ),
    test=attacks.test_heartbeats_from_before_the_proof_are_worthless,
)
add(
    "the dead forgotten",
    "An incarnation that has ended may come back.",
    (ReplayGuard, "_is_dead", lambda self, life, signed, now: False),
    (attacks, "FORGERIES", 2000),
    test=attacks.test_forged_replayed_and_damaged_datagrams_change_nothing,
)


def _admit_at_once(self: Any, record: Any, incarnation: int) -> None:
    self.guard.confirmed(record, incarnation=incarnation, signed=True, now=0.0)
    self._admit(record, 0.0)


add(
    "challenge skipped",
    "A stranger that signs is a member without having answered.",
    (Admission, "_question", _admit_at_once),
    test=attacks.test_heartbeats_of_a_dead_incarnation_bring_nobody_back,
)


def _any_life(self: Any, record: Any, incarnation: int) -> None:
    real = self._ask

    def ask(member: Any, answer: Any) -> None:
        real(
            member,
            lambda proved, counter, now: answer(
                None if proved is None else incarnation, counter, now
            ),
        )

    self._ask = ask
    try:
        _question(self, record, incarnation)
    finally:
        self._ask = real


_question = Admission._question
add(
    "proof of another life",
    "Whoever proves the key at an address is taken for every life that was heard of it.",
    (Admission, "_question", _any_life),
    test=attacks.test_a_proof_of_another_life_is_none,
)


def _confirmed_from_zero(self: Any, record: Any, **settings: Any) -> bool:
    return _confirmed(self, record, **{**settings, "counter": 0})


_confirmed = ReplayGuard.confirmed
add(
    "counter of the proof ignored",
    "Heartbeats from before the proof count after it.",
    (ReplayGuard, "confirmed", _confirmed_from_zero),
    test=attacks.test_heartbeats_from_before_the_proof_are_worthless,
)

# ---- links -------------------------------------------------------------------------------------

add(
    "proofs not checked",
    "Any proof of the key is a good one.",
    (LinkKeys, "check", lambda self, transcript, tag: True),
    test=forgeries,
)


class _Believing:
    """A key that takes every proof."""

    def __init__(self, key: Any) -> None:
        self._key = key

    def check(self, transcript: bytes, tag: bytes) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._key, name)


def _believing(owner: type, name: str) -> Patch:
    """A method during which every proof is taken."""
    real = vars(owner)[name]

    def method(self: Any, *args: Any) -> Any:
        key = self._key
        if key is None:
            return real(self, *args)
        self._key = _Believing(key)
        try:
            return real(self, *args)
        finally:
            self._key = key

    return owner, name, method


add(
    "proof in WELCOME not checked",
    "Whoever answers at an address is the member.",
    _believing(Opening, "feed"),
    test=forgeries,
)
add(
    "proof in START not checked",
    "Whoever says HELLO may send.",
    _believing(OwnReceiver, "_on_start"),
    test=forgeries,
)


def _no_refusal_of_keys(self: Any, hello: Any, version: int | None) -> Any:
    refusal = _refusal(self, hello, version)
    return None if refusal is not None and refusal.code is RefuseCode.KEY else refusal


_refusal = OwnReceiver._refusal
add(
    "key id of HELLO ignored",
    "A link that names no key, or an unknown one, is opened without.",
    (OwnReceiver, "_refusal", _no_refusal_of_keys),
    test=forgeries,
)


def _plain_after_all(self: Any, *args: Any, **settings: Any) -> None:
    _sender(self, *args, **{**settings, "never_plain": False})


_sender = OwnSender.__init__
add(
    "falls back to plain",
    "Who answers a HELLO with something else is sent plain frames.",
    (OwnSender, "__init__", _plain_after_all),
    test=lambda: test_own_sender.test_with_a_key_no_answer_makes_a_member_plain_or_incompatible(
        b"HTTP/1.1 400 Bad Request"
    ),
)
add(
    "everybody may come plainly",
    "A connection without a key is taken from every address.",
    (PlainPeers, "admits_address", lambda self, text: True),
    test=keyed.test_plain_peers_of_other_addresses_do_not,
)
add(
    "any record from a plain peer",
    "A plain peer that is listed may speak for addresses that are not.",
    (PlainPeers, "admits", lambda self, host: True),
    test=keyed.test_plain_peers_of_other_addresses_do_not,
)
add(
    "name of a member that signs taken",
    "A plain peer may speak in the name of a member with the key.",
    (ReplayGuard, "is_taken", lambda self, record: False),
    (ReplayGuard, "_is_taken", lambda self, identity, signed: False),
    test=keyed.test_plain_peers_cannot_take_the_name_of_a_member_that_signs,
)


def _own_frame_unbound(self: Any, receiver: Any, position: int, body: bytes, now: float) -> None:
    source = receiver.source
    receiver.source = decode_body(body).source
    try:
        _own_frame(self, receiver, position, body, now)
    finally:
        receiver.source = source


_own_frame = Receiving._own_frame
add(
    "source not bound",
    "A member may send in the name of another one.",
    (Receiving, "_own_frame", _own_frame_unbound),
    test=attacks.test_a_member_cannot_send_in_the_name_of_another,
)

# ---- seals -------------------------------------------------------------------------------------


def _same_nonce(self: Any) -> tuple[Any, bytes]:
    cipher, _ = _next(self)
    return cipher, bytes(12)


_next = _Direction.next
add(
    "nonce reused",
    "Every record of a link is sealed with the same nonce.",
    (_Direction, "next", _same_nonce),
    test=test_seal.test_layout_of_records,
)


def _unchecked(self: Any, length: memoryview, sealed: memoryview) -> bytes:
    try:
        return _open(self, length, sealed)
    except RemoteProtocolError:
        return bytes(sealed[:-16])


_open = Opener._open
add(
    "tag of the seal ignored",
    "A record that was changed is passed on.",
    (Opener, "_open", _unchecked),
    test=test_seal.test_every_bit_counts,
)


def _one_key(self: Any, client: bytes, server: bytes, *, from_client: bool) -> bytes:
    return _link_key(self, client, server, from_client=True)


_link_key = GroupKey.link_key
add(
    "one key for both directions",
    "What a member has sealed can be sent back to it.",
    (GroupKey, "link_key", _one_key),
    test=test_seal.test_a_record_sent_back_is_refused,
)


def _old_nonce(self: Any, client: bytes, server: bytes, *, from_client: bool) -> bytes:
    return _link_key(self, client, bytes(16), from_client=from_client)


add(
    "only one side's nonce",
    "A link's key comes of the connecting side's number alone, so that it can be played again.",
    (GroupKey, "link_key", _old_nonce),
    test=lambda: test_seal.test_another_key_or_nonce_opens_nothing(
        test_seal.GROUP, test_seal.CLIENT, bytes(16)
    ),
)

# ---- keys --------------------------------------------------------------------------------------


def _only_current(self: Any, ring: KeyRing) -> None:
    _set(self, ring)
    current = self.current[0]
    for number in [number for number in self._accepted if number != current]:
        del self._accepted[number]


_set = LinkKeyring.set
add(
    "old key forgotten too early",
    "Links are opened with the first key only, so a rotation tears the group apart.",
    (LinkKeyring, "set", _only_current),
    test=keyed.test_rotation_loses_no_message,
)
add(
    "old key never forgotten",
    "Links of a key that was taken away go on.",
    (AcceptedLinks, "rekey", nothing),
    (OwnSender, "rekey", nothing),
    test=keyed.test_links_of_a_key_that_was_taken_away_are_closed,
)
add(
    "heartbeats of the second key refused",
    "Only the key that signs is accepted in heartbeats.",
    (
        KeyRing,
        "get",
        lambda self, key_id: self.current if self.current.id == key_id else None,
    ),
    test=keyed.test_the_middle_of_a_rotation_may_last,
)
add(
    "key file open to everybody",
    "Nobody looks who may read the file with the key.",
    (key_module, "check_file_mode", lambda mode, path: None),
    (test_keys, "check_file_mode", lambda mode, path: None),
    test=lambda: test_keys.test_a_file_that_others_may_open_is_refused(0o644 | stat.S_IRUSR),
)
add(
    "protected mode off",
    "An address that others can reach needs neither key nor certificate.",
    (ChannelConfig, "is_protected", property(lambda self: True)),
    test=test_model.test_an_address_that_others_can_reach_needs_a_key_or_a_word,
)
add(
    "TLS on one side is enough",
    "Protected mode takes TLS for protection although nobody who connects shows a certificate.",
    (
        ChannelConfig,
        "is_protected",
        property(lambda self: self.has_key or self.tls is not None),
    ),
    test=test_model.test_mutual_tls_protects_an_address_and_tls_on_one_side_does_not,
)

# ---- TLS ---------------------------------------------------------------------------------------


def _with_files(test: Callable[[test_tls.Files], object]) -> Test:
    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            test(test_tls.Files(Path(folder), trustme.CA()))

    return run


def _load(change: Callable[[tls.Tls], object]) -> Patch:
    def load(config: Any) -> tls.Tls:
        made = _load_tls(config)
        change(made)
        return made

    return test_tls, "load_tls", load


_load_tls = tls.load_tls


def _trusting(made: tls.Tls) -> None:
    made.client.verify_mode = ssl.CERT_NONE


def _undemanding(made: tls.Tls) -> None:
    made.server.verify_mode = ssl.CERT_OPTIONAL


def _old(made: tls.Tls) -> None:
    for context in (made.server, made.client):
        context.minimum_version = ssl.TLSVersion.TLSv1_2


add(
    "TLS: server not verified",
    "Who connects takes every certificate.",
    _load(_trusting),
    (tls, "names_match", lambda certificate, host, names: True),
    test=_with_files(
        lambda files: test_tls.test_each_side_checks_the_certificate_of_the_other(
            files, "server", "another authority's"
        )
    ),
)
add(
    "TLS: client not verified",
    "Who connects may have no certificate.",
    _load(_undemanding),
    test=_with_files(test_tls.test_a_server_demands_a_certificate_and_a_version),
)
add(
    "TLS: old versions",
    "TLS 1.2 is spoken although 1.3 is demanded.",
    _load(_old),
    test=_with_files(test_tls.test_a_server_demands_a_certificate_and_a_version),
)
add(
    "TLS: name not checked",
    "Any certificate of the authority will do, whomever it was made for.",
    (tls, "names_match", lambda certificate, host, names: True),
    test=_with_files(
        lambda files: test_tls.test_each_side_checks_the_certificate_of_the_other(
            files, "client", "of another address"
        )
    ),
)


def _takes_farewell(self: Any, known: Any, now: float) -> None:
    self._left(known.record.replace(command=SHUTDOWN_COMMAND), now)


add(
    "TLS: farewell believed",
    "A farewell that anybody can send removes a member.",
    (Introductions, "_is_leaving", _takes_farewell),
    test=introduced.test_forged_farewells_remove_nobody,
)


def _takes_heartbeat(self: Any, record: Any, incarnation: int, now: float) -> None:
    self._answered(record, Introduced(incarnation, encode_member(record)), now)


add(
    "TLS: heartbeat believed",
    "A heartbeat that anybody can send makes a member.",
    (Introductions, "_question", _takes_heartbeat),
    test=lambda: introduced.test_made_up_members_do_not_appear("nobody"),
)
add(
    "TLS: heartbeat's words kept",
    "Of a member that answers, what the heartbeat said of it counts.",
    (introductions, "_own_words", lambda asked, data: asked),
    test=introduced.test_a_member_describes_itself,
)


def _takes_over(self: Any, record: Any, mark: Any, *, is_signed: bool, now: float) -> bool:
    known = self._members.get(introductions._Address(record.host, record.port))
    if known is not None and known.record == record and not record.is_shutdown:
        self._touch(record, now)
        return False
    return _hears(self, record, mark, is_signed=is_signed, now=now)


_hears = Introductions.hears
add(
    "TLS: later heartbeats believed",
    "Fields of a member are taken from heartbeats that anybody can send.",
    (Introductions, "hears", _takes_over),
    test=introduced.test_a_member_describes_itself,
)
add(
    "TLS: questions not bounded",
    "Every heartbeat makes a connection.",
    (Introductions, "_may_ask", lambda self, life, now: True),
    test=introduced.test_forged_farewells_remove_nobody,
)
add(
    "TLS: heartbeat is a sign of life",
    "A heartbeat that anybody can send keeps a member from being asked.",
    (
        MulticastMembership,
        "touch",
        lambda self, record, now: self._take(record, now, is_marked=True),
    ),
    test=introduced.test_heartbeats_are_no_answer,
)
add(
    "TLS: plain frames taken",
    "Who has a certificate may speak without an own link.",
    (Introductions, "may_come_plainly", lambda self, host: True),
    (Introductions, "may_speak_plainly", lambda self, source: True),
    test=introduced.test_only_own_links_are_taken,
)


class _OpenDoor(Door):  # type: ignore[misc]
    """Handshakes are not counted as silence."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "handshake_s": None})


add(
    "TLS: handshakes not bounded",
    "As many handshakes as there are connections may be under way.",
    (accepted, "Door", _OpenDoor),
    test=introduced.test_connections_that_do_not_shake_hands_are_silent_and_bounded,
)
