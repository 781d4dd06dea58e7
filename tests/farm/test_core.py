"""The farm's decisions, in simulated groups: loss, crashes, restarts, splits, two who deploy."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from tests.farm.contents import noise
from tests.farm.simulated import Farm
from tribes.errors import FarmError
from tribes.farm.catalogue import APPS_MAX, Phase
from tribes.farm.messages import Chunk, Message, State
from tribes.farm.names import ArchiveName
from tribes.farm.outputs import Forget, Tell
from tribes.testing.sim import World

CHUNK = 10_240


@pytest.fixture
def farm() -> Farm:
    """Three members."""
    return Farm(World(7))


def test_t112_an_archive_is_deployed_changed_and_undeployed_on_all(farm: Farm) -> None:
    """Wherever it is given to the group, and on the members that only listen."""
    first, second = noise(50_000), noise(60_000, 1)
    farm.members[0].deploy(first)
    farm.until(lambda: farm.all_have(first))
    farm.members[1].deploy(second)
    farm.until(lambda: farm.all_have(second))
    farm.members[2].undeploy()
    farm.until(lambda: farm.all_have(None))
    assert [m.core.statistics.deployed for m in farm.members] == [2, 2, 2]
    assert [m.core.statistics.undeployed for m in farm.members] == [1, 1, 1]
    assert not any(m.core.statistics.superseded for m in farm.members)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
def test_t113_every_size_arrives(farm: Farm, size: int) -> None:
    """Also exact multiples of a piece's size, with which Tomcat hangs; no size leaves a part."""
    content = noise(size)
    farm.members[0].deploy(content)
    farm.until(lambda: farm.all_have(content))
    assert not any(member.parts() for member in farm.members)


def test_t113_pieces_may_come_shuffled_and_twice(farm: Farm) -> None:
    """The digest is right all the same, and what came twice is counted."""
    random = Random(3)
    held: list[Message] = []

    def shuffle(_: bytes, message: Message) -> list[Message]:
        if not isinstance(message, Chunk):
            return [message]
        held.append(message)
        if len(held) < 4:
            return []
        sent = [*held, held[0]]
        random.shuffle(sent)
        held.clear()
        return sent

    farm.members[0].on_send = shuffle
    content = noise(40 * CHUNK)
    farm.members[0].deploy(content)
    farm.until(lambda: farm.all_have(content), 120)
    assert sum(m.core.statistics.duplicates for m in farm.members) > 0


def test_t113_a_wrong_digest_is_never_deployed(farm: Farm) -> None:
    """The content is fetched anew, from another member if there is one; with nobody honest the
    whole deployment is refused.
    """

    def spoil(_: bytes, message: Message) -> list[Message]:
        if isinstance(message, Chunk) and message.index == 1:
            data = bytes(len(message.data))
            return [Chunk(message.key, message.chunk_bytes, message.index, data)]
        return [message]

    farm.members[0].on_send = spoil
    farm.members[0].deploy(noise(5 * CHUNK))
    farm.until(lambda: all(m.phase() is Phase.REFUSED for m in farm.members))
    assert farm.all_have(None)
    assert "digest" in str(farm.members[0].events("archive refused")[0]["why"])
    assert sum(m.core.statistics.corrupt for m in farm.members) >= 2
    assert not any(member.parts() for member in farm.members)


def test_a_spoilt_copy_is_replaced_by_an_honest_one(farm: Farm) -> None:
    """A late joiner whom one member sends rubbish gets the archive from another."""
    content = noise(5 * CHUNK)
    farm.members[0].deploy(content)
    farm.until(lambda: farm.all_have(content))

    def spoil(_: bytes, message: Message) -> list[Message]:
        if isinstance(message, Chunk):
            data = bytes(len(message.data))
            return [Chunk(message.key, message.chunk_bytes, message.index, data)]
        return [message]

    farm.members[0].on_send = farm.members[1].on_send = spoil
    late = farm.join("late")
    farm.until(lambda: late.content() == content, 60)
    assert late.core.statistics.corrupt <= 2


def test_t113_a_late_joiner_pulls(farm: Farm) -> None:
    """It gets what is deployed, from those who have it, though its proposer is gone."""
    content = noise(30 * CHUNK)
    farm.members[0].deploy(content)
    farm.until(lambda: farm.all_have(content))
    farm.members.pop(0).node.crash()
    farm.members.append(farm.join("late"))
    farm.until(lambda: farm.all_have(content))
    assert farm.members[-1].core.statistics.fetched_bytes == len(content)


def test_nobody_deploys_before_all_are_ready(farm: Farm) -> None:
    """While one member's disk is slow, the old version stays on all."""
    old, new = noise(3 * CHUNK), noise(30 * CHUNK, 1)
    farm.members[0].deploy(old)
    farm.until(lambda: farm.all_have(old))
    farm.members[2].disk_s = 0.2
    farm.members[0].deploy(new)
    farm.until(lambda: farm.members[1].core.has(farm.members[0].core.catalogue.entries[-1].key))
    assert farm.all_have(old)
    farm.until(lambda: farm.all_have(new))


def test_a_member_that_cannot_refuses_for_all(farm: Farm) -> None:
    """The old version stays everywhere, and everybody is told which member failed, and why."""
    old = noise(3 * CHUNK)
    farm.members[0].deploy(old)
    farm.until(lambda: farm.all_have(old))
    farm.members[2].refuses = "no space left on device"
    farm.members[0].deploy(noise(3 * CHUNK, 1))
    farm.until(lambda: all(m.phase() is Phase.REFUSED for m in farm.members))
    farm.world.run(30)
    assert farm.all_have(old)
    for member in farm.members:
        [refused] = member.events("archive refused")
        assert refused["why"] == "n2: no space left on device"
        kept = [name for name in member.node.disk if name.startswith("store/")]
        assert len(kept) == 1, "the refused archive is deleted"


def test_a_full_disk_refuses_for_all(farm: Farm) -> None:
    """While pieces are written."""
    farm.members[1].node.disk_full = True
    farm.members[0].deploy(noise(3 * CHUNK))
    farm.until(lambda: farm.members[0].phase() is Phase.REFUSED)
    assert "No space left" in str(farm.members[0].events("archive refused")[0]["why"])
    farm.members[1].node.disk_full = False
    farm.until(lambda: farm.members[1].phase() is Phase.REFUSED)
    assert farm.all_have(None)


def test_an_archive_larger_than_a_member_takes_is_refused() -> None:
    """Before a byte of it is fetched."""
    farm = Farm(World(1), archive_max_bytes=CHUNK)
    farm.members[0].deploy(noise(CHUNK + 1))
    farm.until(lambda: all(m.phase() is Phase.REFUSED for m in farm.members))
    assert "archive_max_bytes" in str(farm.members[0].events("archive refused")[0]["why"])
    assert sum(m.core.statistics.fetched_bytes for m in farm.members) == 0


def test_t112_an_abandoned_transfer_is_cleaned() -> None:
    """The sender stops in the middle; after ``maxValidTime`` without a piece the rest of the group
    deletes the parts, and refuses what nobody has whole.
    """
    farm = Farm(World(2), max_valid_time_s=20.0)
    sender, *others = farm.members
    sender.disk_s = 0.05
    sender.deploy(noise(100 * CHUNK))
    farm.until(lambda: all(member.parts() for member in others))
    sender.node.crash()
    farm.world.run(15)
    assert all(member.parts() for member in others)
    farm.until(lambda: not any(member.parts() for member in others), 15)
    farm.until(lambda: all(member.phase() is Phase.REFUSED for member in others))
    assert [member.core.statistics.abandoned for member in others] == [1, 1]
    assert all(member.content() is None for member in others)


def test_a_negative_time_never_abandons() -> None:
    """As Tomcat's ``maxValidTime``."""
    farm = Farm(World(2), max_valid_time_s=-1.0)
    sender, *others = farm.members
    sender.disk_s = 0.05
    sender.deploy(noise(100 * CHUNK))
    farm.until(lambda: all(member.parts() for member in others))
    sender.node.crash()
    farm.world.run(2000)
    assert all(member.parts() for member in others)


def test_a_transfer_goes_on_after_a_break(farm: Farm) -> None:
    """The sender dies and comes back: what was received is not sent again."""
    sender, *others = farm.members
    sender.disk_s = 0.02
    content = noise(100 * CHUNK)
    sender.deploy(content)
    farm.until(lambda: all(len(member.parts()) > 30 for member in others))
    sender.node.crash()
    farm.world.run(5)
    farm.restart(sender)
    farm.until(lambda: farm.all_have(content), 60)
    # But for what was under way.
    assert sum(m.core.statistics.fetched_bytes for m in others) <= 2 * len(content) + 20 * CHUNK


def test_a_receiver_that_dies_goes_on_where_it_stood(farm: Farm) -> None:
    """Its pieces are on its disk; nobody deploys until it, or the view without it, is ready."""
    sender, _, receiver = farm.members
    sender.disk_s = 0.02
    content = noise(100 * CHUNK)
    sender.deploy(content)
    farm.until(lambda: len(receiver.parts()) > 50)
    receiver.node.crash()
    farm.restart(receiver)
    farm.until(lambda: farm.all_have(content), 60)
    assert receiver.core.statistics.resumed == 1
    assert receiver.core.statistics.fetched_bytes < 0.6 * len(content)


def test_the_proposer_dies_when_all_are_ready(farm: Farm) -> None:
    """Another one decides; the proposer has it too when it is back."""
    content = noise(3 * CHUNK)
    proposer, *others = farm.members
    proposer.deploy(content)
    key = proposer.core.catalogue.entries[-1].key
    farm.until(lambda: all(member.core.has(key) for member in others))
    proposer.node.crash()
    farm.until(lambda: all(member.content() == content for member in others))
    farm.restart(proposer)
    farm.until(lambda: farm.all_have(content))


def test_a_member_that_dies_after_the_decision_deploys_when_it_is_back(farm: Farm) -> None:
    """Its promise to be ready survives it."""
    content = noise(3 * CHUNK)
    victim = farm.members[2]
    victim.disk_s = 0.3
    farm.members[0].deploy(content)
    farm.until(lambda: farm.members[0].content() == content, 60)
    assert victim.content() is None
    victim.node.crash()
    victim.disk_s = 0.001
    farm.restart(victim)
    farm.until(lambda: farm.all_have(content))
    assert victim.core.statistics.fetched_bytes == 0


def test_two_who_deploy_at_once_have_one_winner(farm: Farm) -> None:
    """The same on every member, and the other one is counted and told."""
    one, two = noise(4 * CHUNK, 1), noise(5 * CHUNK, 2)
    farm.world.at(0.0, lambda: farm.members[0].deploy(one))
    farm.world.at(0.0, lambda: farm.members[1].deploy(two))
    farm.world.run(20)
    contents = {member.content() for member in farm.members}
    assert len(contents) == 1
    assert contents <= {one, two}
    loser = farm.members[0 if contents == {two} else 1]
    assert loser.core.statistics.superseded == 1
    assert loser.events("archive superseded")


def test_both_sides_of_a_split_deploy(farm: Farm) -> None:
    """Each side has its own until it heals; then all have the newer one, and the loser is told."""
    farm.members.append(farm.join("n3"))
    farm.world.run(3)
    a, b, c, d = farm.members
    farm.world.partition([a.node, b.node], [c.node, d.node])
    farm.until(lambda: len(a.core.peers) == 1 and len(c.core.peers) == 1, 60)
    old, new = noise(4 * CHUNK, 1), noise(5 * CHUNK, 2)
    a.deploy(old)
    farm.until(lambda: b.content() == old)
    farm.world.run(1)
    c.deploy(new)
    farm.until(lambda: d.content() == new)
    assert a.content() == old
    farm.world.heal()
    farm.until(lambda: farm.all_have(new), 60)
    assert [member.core.statistics.superseded for member in (a, b)] == [1, 1]


def test_what_was_undeployed_meanwhile_goes(farm: Farm) -> None:
    """A member that was away does not bring it back."""
    content = noise(CHUNK)
    farm.members[0].deploy(content)
    farm.until(lambda: farm.all_have(content))
    farm.members[2].node.crash()
    farm.until(lambda: len(farm.members[0].core.peers) == 1, 60)
    farm.members[0].undeploy()
    farm.until(lambda: farm.members[1].content() is None)
    farm.restart(farm.members[2])
    farm.until(lambda: farm.all_have(None))
    farm.world.run(10)
    assert farm.all_have(None)


def test_a_hung_member_delays_until_it_is_removed(farm: Farm) -> None:
    """Then the others deploy, and it follows when it answers again."""
    content = noise(CHUNK)
    farm.members[2].node.pause()
    farm.members[0].deploy(content)
    farm.until(lambda: farm.members[1].core.has(farm.members[0].core.catalogue.entries[-1].key))
    farm.world.run(1)
    assert farm.all_have(None)
    assert len(farm.members[0].core.peers) == 2
    farm.until(lambda: farm.members[1].content() == content, 60)
    assert len(farm.members[0].core.peers) == 1
    farm.members[2].node.resume()
    farm.until(lambda: farm.all_have(content), 60)


def test_members_without_a_farm_do_not_count(farm: Farm) -> None:
    """A web process of the same group neither delays nor refuses."""
    farm.world.start("web")
    farm.world.run(3)
    content = noise(CHUNK)
    farm.members[0].deploy(content)
    assert farm.until(lambda: farm.all_have(content)) < 2


def test_the_same_archive_again_changes_nothing(farm: Farm) -> None:
    """It is the entry there is, and nothing is sent."""
    content = noise(CHUNK)
    entry = farm.members[0].deploy(content)
    farm.until(lambda: farm.all_have(content))
    again = farm.members[1].deploy(content)
    assert (again.order, again.phase) == (entry.order, Phase.DEPLOYED)
    with pytest.raises(FarmError, match="not deployed"):
        farm.members[0].undeploy("other.zip")


def test_names_that_differ_in_case_are_one_application(farm: Farm) -> None:
    """``Shop.war`` replaces ``shop.zip``, as it would on a disk that tells no case."""
    farm.members[0].deploy(noise(CHUNK))
    farm.until(lambda: farm.all_have(noise(CHUNK)))
    farm.members[1].deploy(noise(CHUNK, 1), "Shop.war")
    farm.until(lambda: farm.all_have(noise(CHUNK, 1)))
    assert [app for app, _ in farm.members[0].core.catalogue] == ["shop"]


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_all_end_alike(seed: int) -> None:
    """Deployments, losses, crashes, restarts and splits at random: afterwards all members have the
    same, nothing is in place that was not decided, and no part is left.
    """
    random = Random(seed)
    farm = Farm(World(seed), 4, max_valid_time_s=30.0)
    world = farm.world
    world.loss = 0.1
    for step in range(14):
        member = random.choice(farm.members)
        match random.randrange(6):
            case 0 | 1 if member.node.is_alive:
                member.deploy(noise(random.randrange(0, 12 * CHUNK), seed * 100 + step))
            case 2 if member.node.is_alive and member.content() is not None:
                member.undeploy()
            case 3:
                if member.node.is_alive:
                    member.node.crash()
                else:
                    farm.restart(member)
            case 4:
                names = [each.node.name for each in farm.members]
                random.shuffle(names)
                world.partition(names[:2], names[2:])
            case 5:
                world.heal()
            case _:
                pass
        world.run(random.random() * 6)
    world.calm()
    for member in farm.members:
        if not member.node.is_alive:
            farm.restart(member)
    farm.until(lambda: all(len(m.core.peers) == 3 for m in farm.members), 60)
    world.run(90)
    entries = {tuple(member.core.catalogue.entries) for member in farm.members}
    assert len(entries) == 1, farm.describe()
    assert len({member.content() for member in farm.members}) == 1, farm.describe()
    slot = farm.members[0].core.catalogue.get("shop")
    assert slot.open is None, "it is decided"
    wanted = None if slot.deployed is None else slot.deployed.digest
    for member in farm.members:
        assert member.core.installed.get("shop", b"")[:-1] == (wanted or b"")
        assert not member.parts()


def test_a_content_that_finds_no_place_is_forgotten(farm: Farm) -> None:
    """It was taken into the store before it was known that there are too many applications."""
    core = farm.members[0].core
    for number in range(APPS_MAX):
        core.propose(ArchiveName.parse(f"a{number}.zip"), bytes((number,)) * 32, 1, 0, 0.0)
    core.take_outputs()
    digest = bytes(range(32))
    with pytest.raises(FarmError, match="too many applications"):
        core.propose(ArchiveName.parse("more.zip"), digest, 1, 0, 0.0)
    assert core.take_outputs() == [Forget(digest + b"\0")]


def test_a_clock_that_is_ahead_is_told_of_once(farm: Farm) -> None:
    """Members tell each other all they know every few seconds."""
    member = farm.members[0]
    core, source = member.core, next(iter(member.core.peers))
    ahead = core.propose(ArchiveName.parse("b.zip"), b"y" * 32, 1, 0, 0.0)
    ahead = replace(ahead, counter=ahead.counter + 2 * 24 * 3600 * 1000)
    core.take_outputs()
    for _ in range(5):
        core.message(source, State(False, (ahead,), frozenset(), ()), 0.0)
    told = [each for each in core.take_outputs() if isinstance(each, Tell)]
    assert [each.event for each in told] == ["clock ahead"]
    assert core.statistics.rejected == 5
