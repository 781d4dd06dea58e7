"""The guard: what is heard twice, late, from the dead or unsigned changes nothing."""

from __future__ import annotations

import random
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tribes.errors import RemoteProtocolError
from tribes.security.keys import GroupKey, KeyRing
from tribes.security.mark import Mark, Marker, Verdict, split, verify
from tribes.security.replay import UNSIGNED_DEATH_S, WINDOW, Heard, ReplayGuard
from tribes.wire.member import SHUTDOWN_COMMAND, Member, decode_member, encode_member, patch_alive

LOCAL = Member(b"\x0a\0\0\1", 4000, bytes(16))
RING = KeyRing([GroupKey(1, bytes(range(32)))])


def member(number: int = 2, *, life: int = 1, **changes: Any) -> Member:
    """Return a member; another life has another unique id and the same address."""
    unique_id = number.to_bytes(8, "big") + life.to_bytes(8, "big")
    return Member(b"\x0a\0" + number.to_bytes(2, "big"), 4000, unique_id, **changes)


class Ears:
    """A guard, and records as they would reach it."""

    def __init__(self, **options: int) -> None:
        self.guard = ReplayGuard(LOCAL, **options)
        self.now = 0.0

    def hear(
        self,
        record: Member,
        counter: int | None = 1,
        *,
        incarnation: int = 1,
        signed: bool = True,
    ) -> Heard:
        mark = None if counter is None else Mark(0, incarnation, counter, key_id=int(signed))
        return self.guard.heard(record, mark, signed=signed, now=self.now)

    def confirm(
        self, record: Member, *, incarnation: int = 1, signed: bool = True, counter: int = 0
    ) -> bool:
        return self.guard.confirmed(
            record, incarnation=incarnation, signed=signed, now=self.now, counter=counter
        )

    def meet(self, record: Member, counter: int | None = 1, **how: Any) -> None:
        assert self.hear(record, counter, **how) is Heard.UNKNOWN
        if counter is None:
            how["incarnation"] = 0
        assert self.confirm(record, **how)


def farewell(record: Member) -> Member:
    return record.replace(command=SHUTDOWN_COMMAND)


def state(guard: ReplayGuard) -> Any:
    """Return all that a guard knows and that decides anything."""

    def counted(table: Any) -> dict[Any, tuple[Any, ...]]:
        return {
            key: (entry.incarnation, entry.signed, entry.highest, entry.seen)
            for key, entry in table.items()
        }

    members, strangers = counted(guard._members), counted(guard._strangers)
    return members, strangers, dict(guard._owners), dict(guard._dead)


# Counters ---------------------------------------------------------------------------------------


def test_a_stranger_is_unknown_until_it_is_confirmed() -> None:
    """Its heartbeats are reasons to ask it, each once; afterwards its counters go on."""
    it = Ears()
    assert it.hear(member(), 1) is Heard.UNKNOWN
    assert it.hear(member(), 1) is Heard.REPLAYED
    assert it.hear(member(), 2) is Heard.UNKNOWN
    assert it.confirm(member())
    assert it.hear(member(), 2) is Heard.REPLAYED
    assert it.hear(member(), 3) is Heard.FRESH


def test_late_and_repeated_heartbeats_are_told_apart() -> None:
    """Both are refused; below the window nobody can tell."""
    it = Ears()
    it.meet(member(), 1)
    assert it.hear(member(), 100) is Heard.FRESH
    assert it.hear(member(), 100) is Heard.REPLAYED
    assert it.hear(member(), 99) is Heard.LATE
    assert it.hear(member(), 99) is Heard.REPLAYED
    assert it.hear(member(), 100 - WINDOW + 1) is Heard.LATE
    assert it.hear(member(), 100 - WINDOW) is Heard.REPLAYED
    assert it.hear(member(), 0) is Heard.REPLAYED
    assert it.guard.statistics[Heard.LATE] == 2
    assert it.guard.statistics[Heard.REPLAYED] == 4


def test_counters_at_the_ends_of_their_range() -> None:
    """A jump over all 64 bits costs no memory, and the way back finds nothing."""
    it = Ears()
    it.meet(member(), 1)
    last = 2**64 - 1
    assert it.hear(member(), last) is Heard.FRESH
    assert it.hear(member(), last) is Heard.REPLAYED
    assert it.hear(member(), 2) is Heard.REPLAYED
    assert it.hear(member(), last - 1) is Heard.LATE


def test_a_counter_of_0_is_never_new() -> None:
    """Counters begin at 1."""
    it = Ears()
    assert it.hear(member(), 0) is Heard.REPLAYED


@given(st.lists(st.integers(1, 200) | st.integers(1, 2**64 - 1), max_size=60))
def test_the_window_agrees_with_a_memory_of_everything(counters: list[int]) -> None:
    """Fresh: above all. Late: inside the window and new. Replayed: the rest."""
    it = Ears()
    it.meet(member(), 1)
    heard = {1}
    for counter in counters:
        highest = max(heard)
        expected = (
            Heard.FRESH
            if counter > highest
            else Heard.REPLAYED
            if counter in heard or counter <= highest - WINDOW
            else Heard.LATE
        )
        assert it.hear(member(), counter) is expected
        heard.add(counter)


def test_a_counter_stated_over_the_link_makes_earlier_heartbeats_worthless() -> None:
    """What somebody held back until then comes too late."""
    it = Ears()
    assert it.hear(member(), 5) is Heard.UNKNOWN
    assert it.confirm(member(), counter=1000)
    for counter in (6, 999, 1000):
        assert it.hear(member(), counter) in (Heard.LATE, Heard.REPLAYED)
    assert it.hear(member(), 1001) is Heard.FRESH
    assert it.confirm(member(), counter=10)  # an older statement takes nothing back
    assert it.hear(member(), 1001) is Heard.REPLAYED


# Deaths -----------------------------------------------------------------------------------------


def test_a_signed_farewell_is_for_good() -> None:
    """Nothing of that incarnation counts afterwards, however new; a new one is a stranger."""
    it = Ears()
    it.meet(member())
    assert it.hear(farewell(member()), 2) is Heard.FRESH
    it.now = 1e9
    for counter in (1, 2, 3, 1000):
        assert it.hear(member(), counter) is Heard.DEAD
        assert it.hear(farewell(member()), counter) is Heard.DEAD
    assert not it.confirm(member())
    assert it.hear(member(), 1, incarnation=2) is Heard.UNKNOWN


def test_a_repeated_farewell_makes_nobody_leave() -> None:
    """Neither that of the same life, which is over, nor that of an earlier one."""
    it = Ears()
    it.meet(member(life=1))
    assert it.hear(farewell(member(life=1)), 9) is Heard.FRESH
    it.meet(member(life=2), incarnation=2)
    before = state(it.guard)
    assert it.hear(farewell(member(life=1)), 9) is Heard.DEAD
    assert it.hear(farewell(member(life=1)), 10, signed=False) is Heard.TAKEN
    assert it.hear(farewell(member(life=2)), 2, incarnation=2, signed=False) is Heard.STRIPPED
    assert state(it.guard) == before


@pytest.mark.parametrize("counter", [1, 2, 3])
def test_a_farewell_with_an_old_counter_is_refused(counter: int) -> None:
    """It counts like a heartbeat."""
    it = Ears()
    it.meet(member(), 1)
    it.hear(member(), 3)
    assert it.hear(farewell(member()), counter) in (Heard.LATE, Heard.REPLAYED)
    assert it.hear(member(), 4) is Heard.FRESH


def test_a_signed_farewell_of_a_stranger_is_remembered() -> None:
    """Only it could have said so; heartbeats of before are no reason to ask it."""
    it = Ears()
    it.hear(member(), 1)
    assert it.hear(farewell(member()), 7) is Heard.DEAD
    assert it.hear(member(), 8) is Heard.DEAD
    assert it.hear(farewell(member(3)), 7) is Heard.DEAD
    assert it.hear(member(3), 6) is Heard.DEAD


def test_an_unsigned_farewell_of_a_stranger_is_not() -> None:
    """Or anybody could keep anybody out."""
    it = Ears()
    assert it.hear(farewell(member()), 7, signed=False) is Heard.DEAD
    assert it.hear(member(), 1, signed=False) is Heard.UNKNOWN


def test_an_incarnation_whose_address_was_taken_over_is_a_stranger() -> None:
    """Its heartbeats count for nothing, and are a reason to ask it once each."""
    it = Ears()
    it.meet(member(life=1), 50)
    it.meet(member(life=2), incarnation=2)
    it.now = 1e9
    assert it.hear(member(life=1), 51) is Heard.UNKNOWN
    assert it.hear(member(life=1), 51) is Heard.REPLAYED
    assert it.hear(member(life=2), 2, incarnation=2) is Heard.FRESH


def test_the_late_proof_of_a_dead_process_keeps_its_successor_out_for_a_moment() -> None:
    """It was under way for longer than the successor's: that one proves itself once more."""
    it = Ears()
    it.meet(member(life=1), 50)
    it.meet(member(life=2), incarnation=2)
    assert it.confirm(member(life=1), counter=50)
    assert it.hear(member(life=2), 2, incarnation=2) is Heard.UNKNOWN
    assert it.confirm(member(life=2), incarnation=2)
    assert it.hear(member(life=2), 3, incarnation=2) is Heard.FRESH


def test_a_newcomer_replaces_nobody_before_it_answered() -> None:
    """A recording of an old incarnation, heard by a guard that never knew it."""
    it = Ears()
    it.meet(member(life=2), incarnation=2)
    for counter in range(1, 100):
        assert it.hear(member(life=1), counter) is Heard.UNKNOWN
        assert it.hear(member(life=2), counter + 1, incarnation=2) is Heard.FRESH


def test_a_unique_id_that_stays_needs_a_new_incarnation() -> None:
    """Tomcat's static members keep theirs over a restart."""
    it = Ears()
    it.meet(member(), 500, incarnation=1)
    assert it.hear(member(), 1, incarnation=2) is Heard.UNKNOWN
    assert it.hear(member(), 501, incarnation=1) is Heard.FRESH
    assert it.confirm(member(), incarnation=2)
    assert it.hear(member(), 502, incarnation=1) is Heard.UNKNOWN
    assert it.hear(member(), 2, incarnation=2) is Heard.FRESH


def test_a_member_that_comes_back_is_a_stranger_with_its_old_counters() -> None:
    """It fell silent and was forgotten; its recorded heartbeats don't bring it back."""
    it = Ears()
    it.meet(member(), 7)
    it.guard.forget(member())
    assert it.hear(member(), 7) is Heard.REPLAYED
    assert it.hear(member(), 8) is Heard.UNKNOWN
    assert it.confirm(member())
    assert it.hear(member(), 9) is Heard.FRESH
    it.guard.forget(member(3))  # never heard of


# Signatures -------------------------------------------------------------------------------------


def test_who_signs_is_never_heard_without() -> None:
    """As a member and as a stranger; a plain answer at its address proves nothing either."""
    it = Ears()
    it.hear(member(3), 1)
    assert it.hear(member(3), 2, signed=False) is Heard.STRIPPED
    it.meet(member())
    before = state(it.guard)
    assert it.hear(member(), 2, signed=False) is Heard.STRIPPED
    assert it.hear(member(), None, signed=False) is Heard.STRIPPED
    assert it.hear(farewell(member()), None, signed=False) is Heard.STRIPPED
    assert not it.confirm(member(), incarnation=0, signed=False)
    assert state(it.guard) == before


def test_the_address_of_who_signs_is_not_taken_by_who_does_not() -> None:
    """Until the signing member is gone."""
    it = Ears()
    it.meet(member(life=1))
    before = state(it.guard)
    assert it.hear(member(life=2), None, signed=False) is Heard.TAKEN
    assert not it.confirm(member(life=2), incarnation=0, signed=False)
    assert state(it.guard) == before
    it.guard.forget(member(life=1))
    it.meet(member(life=2), None, signed=False)


def test_a_signature_wipes_out_what_was_said_without() -> None:
    """A made-up counter keeps nobody out."""
    it = Ears()
    it.hear(member(), 2**64 - 1, signed=False)
    assert it.hear(member(), 1) is Heard.UNKNOWN
    assert it.confirm(member())
    assert it.hear(member(), 2) is Heard.FRESH

    it.meet(member(3), 2**64 - 1, signed=False)
    assert it.hear(member(3), 1) is Heard.UNKNOWN
    assert it.confirm(member(3))
    assert it.hear(member(3), 2) is Heard.FRESH
    assert len(it.guard._dead) == 0


def test_a_signing_member_takes_the_address_of_a_plain_one() -> None:
    """It proved more."""
    it = Ears()
    it.meet(member(life=1), None, signed=False)
    it.meet(member(life=2))
    assert it.hear(member(life=1), None, signed=False) is Heard.TAKEN


forgeries = st.tuples(
    st.sampled_from(["hear", "leave", "confirm"]),
    st.integers(2, 4),
    st.integers(1, 3),
    st.none() | st.integers(0, 200) | st.integers(0, 2**64 - 1),
    st.integers(0, 3),
)


@given(st.lists(forgeries, max_size=80))
@settings(max_examples=300)
def test_no_unsigned_word_changes_anything_about_members_that_sign(
    words: list[tuple[str, int, int, int | None, int]],
) -> None:
    """Heartbeats, farewells and plain answers, with any id, counter and incarnation."""
    it = Ears()
    it.meet(member(2, life=1), 50)
    it.hear(member(3, life=1), 50)
    it.hear(farewell(member(4, life=1)), 50)
    for what, number, life, counter, incarnation in words:
        record = member(number, life=life)
        if what == "confirm":
            it.confirm(record, incarnation=incarnation, signed=False)
        else:
            record = farewell(record) if what == "leave" else record
            it.hear(record, counter, incarnation=incarnation, signed=False)
    assert it.hear(member(2, life=1), 50) is Heard.REPLAYED
    assert it.hear(member(2, life=1), 51) is Heard.FRESH
    assert it.hear(member(3, life=1), 51) is Heard.UNKNOWN
    assert it.confirm(member(3, life=1))
    assert it.hear(member(3, life=1), 52) is Heard.FRESH
    assert it.hear(member(4, life=1), 51) is Heard.DEAD


# Without keys -----------------------------------------------------------------------------------


def test_plain_members_have_no_counters() -> None:
    """All their heartbeats count."""
    it = Ears()
    it.meet(member(), None, signed=False)
    for _ in range(3):
        assert it.hear(member(), None, signed=False) is Heard.FRESH


def test_unsigned_marks_are_counted() -> None:
    """Repeated and late datagrams are refused as well."""
    it = Ears()
    it.meet(member(), 1, signed=False)
    heard = [it.hear(member(), counter, signed=False) for counter in (3, 3, 2, 4)]
    assert heard == [Heard.FRESH, Heard.REPLAYED, Heard.LATE, Heard.FRESH]


def test_an_unsigned_death_does_not_last() -> None:
    """Longer than any datagram of it is under way; nobody can be kept out by a made-up record."""
    it = Ears()
    it.meet(member(life=1), None, signed=False)
    it.now = 10.0
    it.meet(member(life=2), None, signed=False)
    it.now = 10.0 + UNSIGNED_DEATH_S - 0.1
    assert it.hear(member(life=1), None, signed=False) is Heard.DEAD
    it.now = 10.0 + UNSIGNED_DEATH_S
    assert it.hear(member(life=1), None, signed=False) is Heard.UNKNOWN


def test_an_unsigned_death_is_not_believed_of_who_signs() -> None:
    """Plain answers at an address, given before its owner was heard, don't keep the owner out."""
    it = Ears()
    it.meet(member(), 1, incarnation=1, signed=False)
    it.meet(member(), 1, incarnation=2, signed=False)
    assert it.hear(member(), 2, incarnation=1, signed=False) is Heard.DEAD
    it.meet(member(), 1, incarnation=1)
    assert it.hear(member(), 2, incarnation=1) is Heard.FRESH


def test_an_unsigned_farewell_makes_a_stranger() -> None:
    """It may be forged: then the member's next heartbeat brings it back after a question."""
    it = Ears()
    it.meet(member(), 1, signed=False)
    assert it.hear(farewell(member()), 2, signed=False) is Heard.FRESH
    assert it.hear(member(), 3, signed=False) is Heard.UNKNOWN


def test_our_own_address_is_ours() -> None:
    """Our heartbeats come back, and those of whoever had the address before us."""
    it = Ears()
    for record in (LOCAL, LOCAL.replace(unique_id=bytes([9]) * 16), farewell(LOCAL)):
        for signed in (True, False):
            assert it.hear(record, 1, signed=signed) is Heard.OWN
            assert not it.confirm(record, signed=signed)
    assert it.hear(LOCAL.replace(port=4001)) is Heard.UNKNOWN


# Bounds -----------------------------------------------------------------------------------------


def test_memory_is_bounded() -> None:
    """By three times the bound, and what was forgotten is counted."""
    it = Ears(remembered_max=50)
    for number in range(10, 300):
        it.hear(member(number))
    assert (len(it.guard._strangers), it.guard.forgotten) == (50, 240)
    for number in range(1000, 1300):
        it.meet(member(number))
    assert len(it.guard._members) == len(it.guard._owners) == 50
    assert len(it.guard._strangers) == 50
    for number in range(2000, 2300):
        it.hear(farewell(member(number)))
    assert len(it.guard._dead) == 50
    assert repr(it.guard) == "<ReplayGuard members=50 strangers=50 dead=50>"


def test_the_real_bound_is_a_few_mebibytes() -> None:
    """With the longest host that a record can name, and a payload that must not be kept."""
    guard = ReplayGuard(LOCAL)
    rest = {"payload": bytes(10_000), "domain": bytes(1000)}
    for number in range(3 * 4096):
        host = bytes(123) + number.to_bytes(4, "big")
        record = Member(host, 4000, number.to_bytes(16, "big"), **rest)  # type: ignore[arg-type]
        if number % 3 == 1:
            record = farewell(record)
        if number % 3:
            guard.heard(record, Mark(0, 2**63 + number, 2**63), signed=True, now=0.0)
        else:
            guard.confirmed(record, incarnation=2**63 + number, signed=True, now=0.0)
    assert repr(guard) == "<ReplayGuard members=4096 strangers=4096 dead=4096>"
    assert deep_size(guard) < 8 * 1024 * 1024


def deep_size(thing: object) -> int:
    """Add up everything that is reachable, each object once."""
    seen: set[int] = set()

    def size(value: Any) -> int:
        if id(value) in seen or isinstance(value, type):
            return 0
        seen.add(id(value))
        inner: list[Any] = []
        if isinstance(value, dict):
            inner = [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            inner = list(value)
        elif not isinstance(value, str | bytes | int | float):
            inner = [getattr(value, name, None) for name in getattr(value, "__slots__", ())]
            inner += list(getattr(value, "__dict__", {}).values())
        return sys.getsizeof(value) + sum(map(size, inner))

    return size(thing)


def test_a_flood_of_strangers_pushes_no_member_and_no_dead_out() -> None:
    """Each kind has its own room."""
    it = Ears(remembered_max=50)
    it.meet(member(2), 7)
    it.hear(farewell(member(3)), 7)
    for number in range(10, 2000):
        it.hear(member(number))
    assert it.hear(member(2), 7) is Heard.REPLAYED
    assert it.hear(member(2), 8) is Heard.FRESH
    assert it.hear(member(3), 8) is Heard.DEAD


def test_what_was_forgotten_is_unknown_and_never_fresh() -> None:
    """So a replay after the memory was flushed is only a reason to ask, and nobody answers."""
    it = Ears(remembered_max=50)
    it.meet(member(2, life=1), 7)
    it.meet(member(2, life=2), 1, incarnation=2)
    for number in range(10, 100):
        it.hear(farewell(member(number)))
    assert it.hear(member(2, life=1), 8) is Heard.UNKNOWN
    assert it.hear(member(2, life=2), 2, incarnation=2) is Heard.FRESH


def test_a_dead_one_that_is_heard_often_is_forgotten_last() -> None:
    """Who replays something keeps it in memory by that."""
    it = Ears(remembered_max=50)
    it.hear(farewell(member(2)), 7)
    for number in range(10, 500):
        it.hear(farewell(member(number)))
        assert it.hear(member(2), 8) is Heard.DEAD


def test_the_member_unheard_for_longest_becomes_a_stranger_when_there_is_no_room() -> None:
    """With its counters."""
    it = Ears(remembered_max=3)
    for number in (2, 3, 4):
        it.meet(member(number))
    assert it.hear(member(2), 2) is Heard.FRESH
    it.meet(member(5))
    assert it.hear(member(2), 3) is Heard.FRESH
    assert it.hear(member(3), 1) is Heard.REPLAYED
    assert it.hear(member(3), 2) is Heard.UNKNOWN


# All together -----------------------------------------------------------------------------------


class Story:
    """Two members that start, beat and leave, and what was recorded of them."""

    def __init__(self, remembered_max: int) -> None:
        self.it = Ears(remembered_max=remembered_max)
        self.lives = {2: 1, 3: 1}
        self.counters = {2: 0, 3: 0}
        self.recorded: list[tuple[Member, int, int]] = []

    def play(self, what: str, number: int) -> None:
        match what:
            case "beat":
                self.say(number, member(number, life=self.lives[number]))
            case "leave":
                self.say(number, farewell(member(number, life=self.lives[number])))
                self.start(number)
            case "crash":
                self.start(number)
            case _:
                self.it.guard.forget(member(number, life=self.lives[number]))

    def start(self, number: int) -> None:
        self.lives[number] += 1
        self.counters[number] = 0

    def say(self, number: int, record: Member) -> None:
        life = self.lives[number]
        self.counters[number] += 1
        said = (record, self.counters[number], life)
        self.recorded.append(said)
        heard = self.it.hear(record, said[1], incarnation=life)
        if record.is_shutdown:
            assert heard in (Heard.FRESH, Heard.DEAD)
        elif heard is Heard.UNKNOWN:
            self.ask(number)
        else:
            assert heard is Heard.FRESH

    def ask(self, number: int) -> None:
        """Let who is there now answer, with the counter it has reached."""
        life, counter = self.lives[number], self.counters[number]
        assert self.it.confirm(member(number, life=life), incarnation=life, counter=counter)

    def replay(self, at: int) -> Heard:
        record, counter, life = self.recorded[at % len(self.recorded)]
        return self.it.hear(record, counter, incarnation=life)


@given(
    st.sampled_from([1, 2, 50]),
    st.lists(
        st.tuples(st.sampled_from(["beat", "leave", "crash", "forget"]), st.integers(2, 3))
        | st.tuples(st.just("replay"), st.integers(0, 100)),
        max_size=100,
    ),
)
@settings(max_examples=500)
def test_a_replay_is_never_fresh(remembered_max: int, story: list[tuple[str, int]]) -> None:
    """Whatever happened before, also to a guard that forgets nearly everything; and what members
    say themselves is always heard.
    """
    it = Story(remembered_max)
    for what, number in story:
        if what != "replay":
            it.play(what, number)
        elif it.recorded:
            before = membership(it.it.guard)
            assert it.replay(number) is not Heard.FRESH
            assert membership(it.it.guard) == before


def membership(guard: ReplayGuard) -> Any:
    """Return who is a member with which highest counter, without the window below it."""
    members, _, owners, _ = state(guard)
    return {key: entry[:3] for key, entry in members.items()}, owners


@pytest.mark.timeout(120)
def test_a_hundred_thousand_forged_and_replayed_datagrams_change_nothing() -> None:
    """Members stay members with their counters, the dead stay dead, nobody new is fresh."""
    chance = random.Random(22)
    guard = ReplayGuard(LOCAL)
    markers = {number: Marker(number, keys=RING) for number in range(2, 12)}
    recorded: list[bytes] = []

    def said(number: int, record: Member, alive: int) -> bytes:
        datagram = markers[number].mark(patch_alive(encode_member(record), alive))
        recorded.append(datagram)
        return datagram

    def hear(datagram: bytes) -> Heard | Verdict | None:
        try:
            record, mark = split(datagram)
            verdict = verify(record, mark, RING)
            if verdict is not Verdict.VALID:
                return verdict
            return guard.heard(decode_member(record), mark, signed=True, now=0.0)
        except RemoteProtocolError:
            return None

    for number in markers:
        assert hear(said(number, member(number), 0)) is Heard.UNKNOWN
        assert guard.confirmed(member(number), incarnation=number, signed=True, now=0.0)
        for beat in range(100):
            assert hear(said(number, member(number), beat)) is Heard.FRESH
    for number in (2, 3):
        assert hear(said(number, farewell(member(number)), 1)) is Heard.FRESH

    before = state(guard)
    outcomes: set[Heard | Verdict | None] = set()
    for turn in range(100_000):
        datagram = chance.choice(recorded)
        if turn % 2:
            forged = bytearray(datagram)
            forged[chance.randrange(len(forged))] ^= 1 << chance.randrange(8)
            datagram = bytes(forged)
        outcomes.add(hear(datagram))
    assert outcomes == {
        Heard.REPLAYED,
        Heard.DEAD,
        Verdict.FORGED,
        Verdict.UNSIGNED,
        Verdict.UNKNOWN_KEY,
        None,
    }
    assert state(guard) == before
    for number in range(4, 12):
        assert hear(said(number, member(number), 101)) is Heard.FRESH
