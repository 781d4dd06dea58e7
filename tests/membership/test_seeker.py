"""The search for members at addresses: what is tried, when, and within which bounds."""

from __future__ import annotations

from collections.abc import Callable

from tribes.membership import seeker as module
from tribes.membership.seeker import NamedHost, Seeker
from tribes.timers import Timers
from tribes.wire.member import Member

OWN = ("127.0.0.1", 4000)
Answer = Callable[[Member | None, float], None]


def member(port: int, uid: int = 1) -> Member:
    return Member(b"\x7f\0\0\1", port, bytes([uid]) * 16)


class World:
    """A seeker, its time, and the meetings it asks for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers = Timers()
        self.asked: list[tuple[float, int]] = []
        self.open: dict[int, Answer] = {}
        self.announced: list[tuple[float, Member]] = []
        self.replies: dict[int, Member] = {}
        self.answers_at_once = True
        self.seeker = Seeker(
            OWN, bytes(16), timers=self.timers, meet=self._meet, announce=self._announce
        )

    def _meet(self, address: tuple[str, int], answer: Answer) -> None:
        port = address[1]
        self.asked.append((self.now, port))
        assert port not in self.open, "asked twice at once"
        self.open[port] = answer
        if self.answers_at_once:
            self.timers.at(self.now + 0.001, lambda _: self.answer(port, self.replies.get(port)))

    def _announce(self, record: Member, now: float) -> None:
        self.announced.append((now, record))

    def answer(self, port: int, record: Member | None) -> None:
        self.open.pop(port)(record, self.now)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while (when := self.timers.next_deadline) <= end:
            self.now = when
            self.timers.run_due(when)
        self.now = end

    def times(self, port: int) -> list[float]:
        return [round(when, 1) for when, asked in self.asked if asked == port]


def test_a_named_address_is_tried_for_ever_and_ever_more_rarely() -> None:
    """At once, then with pauses that double up to 30 s; the own address never."""
    world = World()
    world.seeker.named("static", [NamedHost("127.0.0.1", 4000), NamedHost("127.0.0.1", 4001)], 0)
    world.run(200)
    assert world.times(4001)[:8] == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 61.5]
    assert world.times(4000) == []
    world.run(10_000)
    assert len(world.times(4001)) > 300


def test_one_member_of_a_host_is_enough() -> None:
    """While one is in the view the others' ports are tried once a minute; when it is lost, soon."""
    world = World()
    world.seeker.named("static", [NamedHost("127.0.0.1", 4001, 3)], 0)
    world.replies[4002] = member(4002)
    world.run(0.1)
    assert sorted(world.asked) == [(0.0, 4001), (0.0, 4002), (0.0, 4003)]
    world.seeker.joined(("127.0.0.1", 4002))
    world.run(130)
    assert len(world.times(4003)) <= 5
    assert len(world.times(4002)) == 1, "it is a member already"
    world.asked.clear()
    world.seeker.lost(("127.0.0.1", 4002), world.now, has_left=True)
    world.run(0.6)
    assert sorted(port for _, port in world.asked) == [4001, 4002, 4003]


def test_no_more_than_the_bound_are_asked_at_once() -> None:
    """The others wait; when one of their host was met they are left alone."""
    world = World()
    world.answers_at_once = False
    world.seeker.named("static", [NamedHost("127.0.0.1", 5000, 100)], 0)
    world.run(1)
    assert len(world.open) == module.MEETINGS_MAX
    world.answer(5000, None)
    assert len(world.open) == module.MEETINGS_MAX
    world.seeker.joined(("127.0.0.1", 5001))
    for port in list(world.open):
        world.answer(port, None)
    assert world.open == {}


def test_hints_end_and_are_bounded() -> None:
    """A hint is tried for half a minute; of a flood the bound is kept, the rest counted."""
    world = World()
    world.seeker.hint(("127.0.0.1", 4001), 0)
    world.seeker.hint(OWN, 0)
    world.run(100)
    assert world.times(4001) == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert world.seeker.addresses == []
    for port in range(1, module.HINTS_MAX + 101):
        world.seeker.hint(("127.0.0.2", port), world.now)
    assert len(world.seeker.addresses) == module.HINTS_MAX
    assert world.seeker.statistics.dropped == 100
    world.run(200)
    assert world.seeker.addresses == []
    world.seeker.hint(("127.0.0.1", 4001), world.now)
    assert world.seeker.addresses == [("127.0.0.1", 4001)]


def test_an_address_that_nobody_names_any_more_is_not_tried_again() -> None:
    """Also one that was being asked when its name was taken back."""
    world = World()
    world.answers_at_once = False
    world.seeker.named("dns", [NamedHost("127.0.0.1", 4001)], 0)
    world.run(0)
    world.seeker.named("dns", [], world.now)
    world.answer(4001, None)
    world.run(100)
    assert world.asked == [(0.0, 4001)]


def test_a_hint_that_is_told_again_is_tried_for_longer() -> None:
    """Somebody has seen it there since."""
    world = World()
    for _ in range(2):
        world.seeker.hint(("127.0.0.1", 4001), world.now)
        world.run(20)
    assert world.seeker.addresses == [("127.0.0.1", 4001)]
    world.run(60)
    assert world.seeker.addresses == []


def test_names_are_bounded_too() -> None:
    """Whatever a service says."""
    world = World()
    world.answers_at_once = False
    hosts = [NamedHost(f"10.0.0.{i}", 1000, 1000) for i in range(1, 6)]
    world.seeker.named("dns", hosts, 0)
    assert len(world.seeker.addresses) == module.NAMED_MAX
    assert world.seeker.statistics.dropped == 5000 - module.NAMED_MAX
    world.seeker.named("dns", [], 0)
    assert world.seeker.addresses == []
    assert not world.seeker.has_names


def test_lost_members_are_looked_for_and_those_that_left_are_not() -> None:
    """For ten minutes; until one is back."""
    world = World()
    for port in (4001, 4002):
        world.seeker.joined(("127.0.0.1", port))
    world.seeker.lost(("127.0.0.1", 4001), 0, has_left=True)
    world.seeker.lost(("127.0.0.1", 4002), 0, has_left=False)
    world.run(599)
    assert world.times(4001) == []
    assert len(world.times(4002)) > 20
    world.seeker.joined(("127.0.0.1", 4002))
    world.asked.clear()
    world.run(1000)
    assert world.asked == []
    assert world.seeker.addresses == []


def test_members_are_never_asked_and_hints_of_them_are_not_taken() -> None:
    """They are there."""
    world = World()
    world.seeker.joined(("127.0.0.1", 4001))
    world.seeker.hint(("127.0.0.1", 4001), 0)
    assert world.seeker.addresses == []


def test_who_says_it_is_elsewhere_is_asked_there() -> None:
    """Another address of its host, or a lie: what counts is what an address says of itself."""
    world = World()
    world.replies = {4001: member(4002), 4002: member(4002)}
    world.seeker.named("dns", [NamedHost("127.0.0.1", 4001)], 0)
    world.run(1)
    assert world.times(4001) == [0.0]
    assert world.times(4002) == [0.0]
    assert world.seeker.statistics.met == 1


def test_a_name_that_leads_back_here_is_not_tried_again_soon() -> None:
    """One's own address under another name."""
    world = World()
    world.replies = {4001: Member(b"\x7f\0\0\1", 4000, bytes(16))}
    world.seeker.named("dns", [NamedHost("127.0.0.1", 4001)], 0)
    world.run(59)
    assert world.times(4001) == [0.0]


def test_services_do_not_undo_each_other() -> None:
    """An address is tried while any of them names it."""
    world = World()
    host = NamedHost("127.0.0.1", 4001)
    world.seeker.named("static", [host], 0)
    world.seeker.named("dns", [host], 0)
    world.seeker.named("dns", [], 0)
    assert world.seeker.addresses == [("127.0.0.1", 4001)]
    world.seeker.named("static", [], 0)
    assert world.seeker.addresses == []


def test_a_hint_becomes_a_name_and_is_counted_once() -> None:
    """The bounds of both stay right."""
    world = World()
    world.seeker.hint(("127.0.0.1", 4001), 0)
    world.seeker.named("static", [NamedHost("127.0.0.1", 4001)], 0)
    world.run(100)
    assert world.seeker.addresses == [("127.0.0.1", 4001)]
    world.seeker.named("static", [], world.now)
    for port in range(1, module.HINTS_MAX + 2):
        world.seeker.hint(("127.0.0.2", port), world.now)
    assert len(world.seeker.addresses) == module.HINTS_MAX


def test_a_plain_member_is_announced_with_back_off() -> None:
    """Its record is configured; whether it is there others find out."""
    world = World()
    record = member(4001, uid=7)
    world.seeker.named("static", [NamedHost("127.0.0.1", 4001, 1, record)], 0)
    world.run(5)
    assert [round(when, 1) for when, _ in world.announced] == [0.0, 0.5, 1.5, 3.5]
    assert {each for _, each in world.announced} == {record}
    world.seeker.joined(("127.0.0.1", 4001))
    world.announced.clear()
    world.run(1000)
    assert world.announced == []
    assert world.asked == []


def test_nothing_is_tried_after_the_stop() -> None:
    """Nor is an answer that comes late of any effect."""
    world = World()
    world.answers_at_once = False
    world.seeker.named("static", [NamedHost("127.0.0.1", 4001)], 0)
    world.run(0)
    world.seeker.stop()
    world.answer(4001, None)
    world.seeker.hint(("127.0.0.1", 4002), 1)
    assert world.seeker.addresses == []
    world.run(100)
    assert world.asked == [(0.0, 4001)]
