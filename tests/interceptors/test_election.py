"""Members agree on one view and one coordinator, whatever becomes of the messages."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribes.errors import ConfigError, RemoteProtocolError
from tribes.interceptors import CoordinatorElected, NonBlockingCoordinator, SimpleCoordinator
from tribes.interceptors import election as module
from tribes.interceptors.coordination import ALIVE, HEADER, Coordination, CoordinationKind
from tribes.membership.change import RemovalReason
from tribes.testing.stage import Stage, stage_member

if TYPE_CHECKING:
    from tribes.wire.member import Member

A, B, C = (stage_member(number) for number in (1, 2, 3))
ID = bytes(range(16))


class Group:
    """Members whose messages are carried in order, and which see each other when told."""

    def __init__(self, size: int) -> None:
        self.stages: dict[Member, Stage] = {}
        self.order: list[Member] = []
        self.waiting: deque[tuple[Member, Any]] = deque()
        self.dead: set[Member] = set()
        self.now = 0.0
        for number in range(size):
            member = stage_member(number)
            stage = Stage(NonBlockingCoordinator(), local=member, seed=number)
            stage.holds = True
            self.stages[member] = stage
            self.order.append(member)
            stage.start()

    def coordinator(self, member: Member) -> NonBlockingCoordinator:
        found = self.stages[member].chain.interceptors[0]
        assert isinstance(found, NonBlockingCoordinator)
        return found

    def see(self, seer: int, seen: int) -> None:
        self.stages[self.order[seer]].add(self.order[seen])
        self.carry()

    def lose(self, member: Member) -> None:
        self.dead.add(member)
        for each in self.alive:
            self.stages[each].remove(member, RemovalReason.CRASHED)
        self.carry()

    @property
    def alive(self) -> list[Member]:
        return [member for member in self.order if member not in self.dead]

    def carry(self) -> None:
        """Carry messages until nobody has any."""
        for _ in range(10_000):
            busy = False
            for member in self.order:
                stage = self.stages[member]
                sent, stage.sent = stage.sent, []
                for message in sent:
                    busy = True
                    for to in message.destinations:
                        if member in self.dead or to in self.dead:
                            message.ticket.settle(to, ConnectionRefusedError(), self.now)
                            continue
                        message.ticket.settle(to, None, self.now)
                        self.stages[to].receive(message.data)
                probes, stage.probes = stage.probes, []
                for asked, answer in probes:
                    busy = True
                    answer(ConnectionRefusedError() if asked in self.dead else None, self.now)
            if not busy:
                return
        raise AssertionError("messages go round for ever")

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for member in self.alive:
            self.stages[member].pass_time(seconds)
        self.carry()

    def heartbeat(self) -> None:
        for member in self.alive:
            self.stages[member].heartbeat()
        self.carry()

    def views(self) -> set[tuple[Member, ...]]:
        return {self.coordinator(member).view for member in self.alive}


def introduced(size: int, seed: int) -> Group:
    """Everybody sees everybody, in an order of chance."""
    group = Group(size)
    pairs = [(a, b) for a in range(size) for b in range(size) if a != b]
    Random(seed).shuffle(pairs)
    for seer, seen in pairs:
        group.see(seer, seen)
    group.heartbeat()
    group.heartbeat()
    return group


@pytest.mark.parametrize("seed", range(5))
def test_ten_members_agree_and_agree_again_without_the_coordinator(seed: int) -> None:
    """Upstream TestNonBlockingCoordinator: within 30 s ten channels name one coordinator and the
    same members; when it stops, within 30 s the others agree again. The first in absolute order is
    the coordinator.
    """
    group = introduced(10, seed)
    assert group.views() == {tuple(group.order)}
    ids = {group.coordinator(member).view_id for member in group.alive}
    assert len(ids) == 1
    group.lose(group.order[0])
    for _ in range(6):
        group.pass_time(5)
        group.heartbeat()
    assert group.views() == {tuple(group.order[1:])}
    assert all(group.coordinator(m).coordinator == group.order[1] for m in group.alive)
    assert [group.coordinator(m).is_coordinator for m in group.alive] == [True] + [False] * 8


@given(st.integers(2, 5), st.integers(0, 10**6), st.integers(0, 2))
def test_survivors_always_agree(size: int, seed: int, deaths: int) -> None:
    """Whatever the order of introductions, and whoever dies, all see one view in the end."""
    group = introduced(size, seed)
    chance = Random(seed)
    for _ in range(min(deaths, size - 1)):
        group.lose(chance.choice(group.alive))
    for _ in range(8):
        group.pass_time(5)
        group.heartbeat()
    assert group.views() == {tuple(group.alive)}


def test_alone_is_its_own_coordinator() -> None:
    """Without others there is nobody to ask."""
    stage = Stage(interceptor := NonBlockingCoordinator())
    assert interceptor.coordinator is None
    stage.start()
    assert interceptor.view == (stage.local,)
    assert interceptor.is_coordinator
    assert isinstance(stage.events[-1], CoordinatorElected)
    assert stage.events[-1].fields()["members"] == 1


def test_request_and_confirmation_have_tribes_options() -> None:
    """Ordinary frames with USE_ACK and no byte mark (tribes-wire §7.11)."""
    stage = Stage(NonBlockingCoordinator())
    stage.start()
    stage.add(A)
    [sent] = stage.sent
    assert (sent.data.options, sent.destinations) == (2, (A,))
    request = Coordination.decode(sent.data.message)
    assert request.kind is CoordinationKind.REQUEST
    assert (request.leader, request.source) == (stage.local, stage.local)
    assert request.members == (stage.local, A)


def test_who_is_not_first_waits_and_then_begins() -> None:
    """15 s without a message of the first one; a message ends the waiting."""
    stage = Stage(interceptor := NonBlockingCoordinator(), local=B)
    stage.start()
    stage.add(A)
    stage.pass_time(14.9)
    assert stage.sent == []
    stage.pass_time(0.2)
    assert len(stage.sent) == 1
    assert interceptor.is_electing
    quiet = Stage(NonBlockingCoordinator(), local=B)
    quiet.start()
    quiet.add(A)
    confirmation = Coordination(CoordinationKind.CONFIRMATION, A, A, (A, B), ID)
    quiet.arrive(confirmation.encode(), A, options=2)
    quiet.pass_time(60)
    assert quiet.sent == []


def test_unreachable_members_of_the_ring_are_skipped() -> None:
    """The request goes to the first that takes it."""
    stage = Stage(NonBlockingCoordinator())
    stage.refuse[A] = ConnectionRefusedError()
    stage.start()
    stage.chain.interceptors[0]._others = {A: A}  # type: ignore[attr-defined]
    stage.add(B)
    assert [sent.destinations for sent in stage.sent] == [(A,), (B,)]


def test_election_that_ends_nowhere_is_given_up() -> None:
    """In the reference a lost request blocks elections for ever."""
    stage = Stage(interceptor := NonBlockingCoordinator(wait=1000))
    stage.start()
    stage.add(A)
    first = Coordination.decode(stage.wire[-1]).view_id
    stage.pass_time(1.0)
    assert len(stage.told("election given up")) == 1
    second = Coordination.decode(stage.wire[-1]).view_id
    assert first != second
    stage.arrive(
        Coordination(
            CoordinationKind.REQUEST, stage.local, stage.local, (stage.local, A), first
        ).encode(),
        A,
    )
    assert interceptor.dropped["given up"] == 1
    assert interceptor.view == (stage.local,)


def request(source: Member, *members: Member, view_id: bytes = ID) -> bytes:
    ordered = tuple(sorted(members, key=lambda member: member.sort_key))
    kind = CoordinationKind.REQUEST
    return Coordination(kind, ordered[0], source, ordered, view_id).encode()


def third(**settings: Any) -> tuple[Stage, NonBlockingCoordinator]:
    """The last of three, which sees the two others."""
    stage = Stage(interceptor := NonBlockingCoordinator(**settings), local=C)
    stage.start()
    stage.add(A, B)
    stage.sent.clear()
    return stage, interceptor


def test_request_of_another_gathers_and_goes_on() -> None:
    """To the next in the ring, with the members that this one knows besides."""
    stage, _ = third()
    stage.arrive(request(A, A, C), B, options=2)
    [sent] = stage.sent
    assert sent.destinations == (A,)
    assert Coordination.decode(sent.data.message).members == (A, B, C)


def test_member_that_only_a_request_names_is_asked() -> None:
    """It counts when it answers, and is no member of the channel by that."""
    stage, _ = third()
    newcomer = stage_member(7)
    stage.arrive(request(A, A, B, C, newcomer), B)
    assert stage.sent == []
    [(asked, answer)] = stage.probes
    assert asked == newcomer
    answer(None, 0.0)
    assert newcomer in Coordination.decode(stage.wire[-1]).members
    assert newcomer not in stage.view
    stage.arrive(request(A, A, B, C, newcomer), B)
    stage.probes[-1][1](ConnectionRefusedError(), 0.0)
    assert newcomer not in Coordination.decode(stage.wire[-1]).members


def test_request_does_not_go_round_for_ever() -> None:
    """Too often, or of a source that is gone: dropped and counted."""
    stage, interceptor = third()
    for _ in range(module.PASSES_MAX + 3):
        stage.arrive(request(A, A, B, C), B)
    assert len(stage.sent) == module.PASSES_MAX
    assert interceptor.dropped["too often"] == 3
    gone = stage_member(9)
    stage.arrive(request(gone, A, B, C, view_id=bytes(16)), B)
    assert interceptor.dropped["source gone"] == 1
    for number in range(200):
        stage.arrive(request(A, A, B, C, view_id=number.to_bytes(16, "big")), B)
    assert len(interceptor._passes) <= module._REMEMBERED_MAX


def test_ten_passes_are_too_many() -> None:
    """Members are not added that often while one request goes round."""
    stage, _ = third()
    for _ in range(10):
        stage.arrive(request(A, A, B, C), B)
    assert len(stage.sent) < 10


def test_who_sorts_first_begins_its_own_election() -> None:
    """A request of somebody else is not passed on by the leader."""
    stage = Stage(interceptor := NonBlockingCoordinator())
    stage.start()
    stage.chain.interceptors[0]._others = {A: A}  # type: ignore[attr-defined]
    stage.arrive(request(A, A, stage.local), A)
    assert interceptor.dropped["not first"] == 1
    assert Coordination.decode(stage.wire[-1]).source == stage.local


def test_member_with_an_older_view_is_told_the_newer_one() -> None:
    """A confirmation may overtake a newer one. Whoever then sees others than its view asks after
    15 s, and the first member, whose view is right, answers with it.
    """
    group = introduced(3, 0)
    last = group.coordinator(group.order[2])
    last.view, last.view_id = tuple(group.order[1:]), ID
    for _ in range(5):
        group.pass_time(5)
        group.heartbeat()
    assert group.views() == {tuple(group.order)}


def test_view_without_the_own_member_is_not_taken() -> None:
    """It cannot be this member's view."""
    stage, interceptor = third()
    before = interceptor.view
    foreign = Coordination(CoordinationKind.CONFIRMATION, A, A, (A, B), ID)
    stage.arrive(foreign.encode(), A)
    assert interceptor.view == before


@pytest.mark.parametrize(
    "message",
    [
        HEADER,
        HEADER + bytes(200),
        request(A, A, B)[:-1],
        request(A, A, B) + b"x",
        request(A, A, B)[:-16] + bytes(16),
        HEADER + b"\xff\xff\xff\xff",
        HEADER + b"\x7f\xff\xff\xff",
        request(A, *(stage_member(1).replace(port=number) for number in range(1, 100))),
    ],
    ids=range(8),
)
def test_malformed_messages_are_refused(message: bytes) -> None:
    """Cut, too long, of an unknown kind, with wild lengths, with a hundred strangers."""
    stage, _ = third()
    with pytest.raises(RemoteProtocolError):
        stage.arrive(message, B)
    assert stage.sent == []
    assert stage.probes == []


@given(st.binary(max_size=60), st.integers(0, 400))
def test_any_bytes_after_the_header_are_a_message_or_refused(data: bytes, cut: int) -> None:
    """Nothing but RemoteProtocolError comes of them."""
    whole = request(A, A, B, C)
    for bad in (HEADER + data, whole[:cut] + data):
        stage, _ = third()
        try:
            stage.arrive(bad, B)
        except RemoteProtocolError:
            continue


def test_other_messages_pass_and_signs_of_life_do_not() -> None:
    """The 64 bytes that nobody sends any more are ignored, as in the reference."""
    stage, _ = third()
    assert stage.arrive(b"m") == [b"m"]
    assert stage.arrive(ALIVE + b"more") == []


def test_nothing_is_begun_after_the_stop() -> None:
    """A member that leaves does not call elections."""
    stage, _ = third(wait=100)
    stage.stop()
    stage.remove(A)
    stage.pass_time(1)
    assert stage.sent == []


def test_simple_coordinator_waits_for_quiet() -> None:
    """2.5 s without a change; then members and the own record in absolute order."""
    stage = Stage(interceptor := SimpleCoordinator(), local=B)
    stage.start()
    stage.pass_time(2)
    stage.add(A)
    stage.pass_time(2)
    assert interceptor.coordinator is None
    stage.pass_time(0.5)
    assert interceptor.view == (A, B)
    assert not interceptor.is_coordinator
    stage.remove(A)
    stage.pass_time(3)
    assert interceptor.is_coordinator
    assert len(stage.told("coordinator elected")) == 2


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (NonBlockingCoordinator, {"wait": 0}),
        (NonBlockingCoordinator, {"connect_timeout": 0}),
        (SimpleCoordinator, {"quiet": -1}),
    ],
)
def test_settings_that_cannot_work_are_refused(kind: Any, settings: dict[str, int]) -> None:
    """The error names the setting."""
    with pytest.raises(ConfigError) as error:
        kind(**settings)
    assert error.value.key in settings
