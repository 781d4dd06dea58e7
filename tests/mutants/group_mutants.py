"""Broken groups: membership, introductions, transfers, repairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tests.mutants import plans
from tests.mutants.registry import (
    BUSY,
    CLOG,
    CRASH,
    LINKS,
    LOSS,
    SHORT_IDLE,
    SPLIT,
    STALL,
    add,
    every,
    nothing,
)
from tribes.interceptors.failure import TcpFailureDetector
from tribes.manager import donor, transfer
from tribes.manager.donor import Donor
from tribes.manager.group import SessionGroup
from tribes.manager.messages import Records
from tribes.manager.record import Life, from_wire, header
from tribes.manager.repair import Repair
from tribes.manager.replication import Replicator
from tribes.manager.session_ids import PARTITIONS
from tribes.manager.transfer import Transfer
from tribes.membership.change import ChangeKind, MemberChange
from tribes.membership.multicast import MulticastMembership
from tribes.membership.table import MembershipTable
from tribes.membership.view import ViewBuilder

if TYPE_CHECKING:
    from tribes.wire.member import Member

# ---- membership --------------------------------------------------------------------------------


add(
    "never removed",
    "A member that is dead stays in the view.",
    (ViewBuilder, "remove", lambda self, member: False),
    faults=CRASH,
)
add(
    "detector removes nobody",
    "The failure detector never reports a removal.",
    (TcpFailureDetector, "_remove", nothing),
    faults=CRASH,
)
add(
    "newcomers not added",
    "A member that was there before is not added again.",
    every(ViewBuilder, "add", 6, lambda self, member, now: False),
    faults=LOSS,
)
add(
    "replacement forgotten",
    "A new process on a port does not end the one that announced it before.",
    (TcpFailureDetector, "_replace", nothing),
    faults=("crash", "restart", "pause", "no_tcp") * 4,
)


def _untested(self: Any, change: MemberChange, now: float, next: Any) -> None:  # noqa: A002
    self._up = next
    if change.kind is ChangeKind.ADDED:
        self._verified[change.member] = change.member
    elif change.kind is ChangeKind.REMOVED:
        self._verified.pop(change.member, None)
    next(change, now)


add(
    "no probe",
    "What heartbeats say is believed without asking the member.",
    (TcpFailureDetector, "on_members", _untested),
    faults=("no_multicast", "forge", "drop", "replay") * 3,
)


def _heartbeat_once(self: Any, now: float) -> None:
    if self.statistics.heartbeats_sent < 5:
        _heartbeat(self, now)


_heartbeat = MulticastMembership._heartbeat
add(
    "heartbeats end",
    "A member falls silent after five heartbeats.",
    (MulticastMembership, "_heartbeat", _heartbeat_once),
    faults=LOSS,
)


def _heard_again(self: Any, record: Member, fixed: bytes, now: float) -> Member | None:
    del fixed
    entry = self._entries.get(record.key)
    if entry is None:
        return None
    entry.heard = now
    first: Member = entry.first
    return first


add(
    "every heartbeat is the usual one",
    "What is new in a known member's heartbeat is not looked at, a farewell included.",
    (MembershipTable, "heard_again", _heard_again),
    faults=("leave", "restart", "drain") * 3,
)
add(
    "farewell ignored",
    "A member that says farewell is not removed for it.",
    (MembershipTable, "_left", lambda self, record: []),
    faults=("leave", "restart", "drain") * 3,
)
add(
    "forget does not forget",
    "Whom the detector gave up stays known below, so its heartbeats make nobody new.",
    (MembershipTable, "forget", nothing),
    faults=("pause", "partition", "no_tcp") * 3,
)


# ---- who runs what -----------------------------------------------------------------------------


def _hello_once(self: Any, member: Member, now: float, *, is_first: bool) -> None:
    if not is_first:
        _hello(self, member, now, is_first=False)
    elif member not in self.__dict__.setdefault("mutant_greeted", set()):
        self.mutant_greeted.add(member)
        _hello(self, member, now, is_first=True)


_hello = SessionGroup._hello
add(
    "hello once only",
    "A member that was gone and is back gets no hello.",
    (SessionGroup, "_hello", _hello_once),
    faults=("pause", "partition") * 4,
    changes=BUSY,
)
add(
    "hello not answered",
    "A first hello gets no answer.",
    (
        SessionGroup,
        "_hello",
        lambda self, member, now, *, is_first: (
            _hello(self, member, now, is_first=True) if is_first else None
        ),
    ),
    faults=("pause", "partition", "crash") * 4,
    changes=BUSY,
)


def _pull_first(self: Any, source: Member, hello: Any, now: float) -> None:
    if hello.is_first and source in self._channel.view:
        for context, replicator in self.replicators.items():
            if context in hello.contexts:
                replicator.peer_forgot(source, now)
        self._hello(source, now, is_first=False)
        self._contexts[source] = hello.contexts
        self._connect(source, now)
    else:
        _on_hello(self, source, hello, now)


_on_hello = SessionGroup._on_hello
add(
    "asks before it answers",
    "A node asks for records before the other knows to send it changes.",
    (SessionGroup, "_on_hello", _pull_first),
    plan=plans.forgotten_while_slow,
)
add(
    "forgotten member does not ask",
    "A node that the others took for gone does not ask for what it missed.",
    (Replicator, "peer_forgot", nothing),
    faults=("pause", "no_multicast", "cut") * 4,
    changes={**BUSY, "members": 3},
)
add(
    "no comparison after a loss",
    "The death of a member does not make the others compare.",
    (Replicator, "peer_lost", nothing),
    plan=plans.lost_to_one,
)
add(
    "dead member stays a target",
    "Changes still go to members that are gone.",
    (Replicator, "peer_down", nothing),
    faults=CRASH,
)
add(
    "newcomer no target",
    "A member that comes later gets no changes.",
    every(Replicator, "peer_up", 2, nothing),
    faults=CRASH,
    changes=BUSY,
)


# ---- transfer ----------------------------------------------------------------------------------

add(
    "nothing asked on joining",
    "A node that joins does not ask for sessions.",
    (Transfer, "peer_up", lambda self, member, now: self._peers.update({member: None})),
    faults=CRASH,
)


def _target_late(self: Any, member: Member, now: float) -> None:
    if member not in self._targets:
        self.transfer.peer_up(member, now)
        self._channel.timers.at(now + 1.0, lambda then: self.__dict__.update(_with(self, member)))
        self.repair.peer_up(member)
        self.expiry.peer_up(member)


def _with(self: Any, member: Member) -> dict[str, Any]:
    here = member in self.transfer._peers and member not in self._targets
    return {"_targets": (*self._targets, member)} if here else {}


add(
    "target after the snapshot",
    "A joining node gets changes only some time after the records.",
    (Replicator, "peer_up", _target_late),
    faults=CRASH,
    changes=BUSY,
)


def _lose_last(self: Any, source: Member, message: Records, now: float) -> None:
    if message.done:
        message = Records(message.context, message.sync, message.pairs[:-1], True)
    _on_records(self, source, message, now)


_on_records = Transfer.on_records
add(
    "last record lost",
    "The last record of a transfer is not taken in.",
    (Transfer, "on_records", _lose_last),
    faults=CRASH,
)
_differing = Transfer._differing
add(
    "partition skipped",
    "The first partition that differs is left out.",
    (Transfer, "_differing", lambda self, *each, **more: _differing(self, *each, **more)[1:]),
    faults=CRASH,
)
add(
    "upper half skipped",
    "Partitions of the upper half are never compared.",
    (
        Transfer,
        "_differing",
        lambda self, *each, **more: [
            p for p in _differing(self, *each, **more) if p < PARTITIONS // 2
        ],
    ),
    faults=CRASH,
)
add(
    "nothing differs",
    "Digests are taken for equal.",
    (Transfer, "_differing", lambda self, *each, **more: []),
    faults=CRASH,
)


def _first_chunk(self: Any, serving: Any, why: Any, now: float) -> None:
    serving.records = iter(())
    _settle(self, serving, why, now)


_settle = Donor._settle
_SMALL_CHUNKS: Final = ((donor, "RECORDS_MAX_BYTES", 400), (donor, "OUTSTANDING_MAX_BYTES", 800))
add(
    "only the first chunk",
    "Of a transfer in several messages only the first is sent.",
    (Donor, "_settle", _first_chunk),
    faults=CRASH,
    changes=BUSY,
    stress=_SMALL_CHUNKS,
)


def _done_early(self: Any, source: Member, message: Records, now: float) -> None:
    if message.sync in self._wants and not message.done:
        message = Records(message.context, message.sync, [], True)
    _on_records(self, source, message, now)


add(
    "first chunk lost",
    "What arrives in several messages is taken for complete, without the first.",
    (Transfer, "on_records", _done_early),
    faults=CRASH,
    changes=BUSY,
    stress=_SMALL_CHUNKS,
)
add(
    "failed transfer not repeated",
    "A transfer that was given up is not asked for again.",
    (Transfer, "_again", nothing),
    (Transfer, "_compare", nothing),
    plan=plans.failed_pull,
)
_encoded = Donor._encoded
add(
    "dead sessions not transferred",
    "Records of sessions that were logged out are left out of transfers.",
    (
        Donor,
        "_encoded",
        lambda self, record, now: (
            _encoded(self, record, now) if header(record).life == Life.LIVE else None
        ),
    ),
    faults=SPLIT,
    changes=BUSY,
)
add(
    "age wrong on the way",
    "A record that arrives looks a thousand seconds older than it is.",
    (transfer, "from_wire", lambda data, now_ds: from_wire(data, now_ds - 10_000)),
    changes=SHORT_IDLE,
)
add(
    "no anti-entropy",
    "Nodes do not compare what they have in the background.",
    (Transfer, "_compare", nothing),
    faults=STALL,
    options=(0, 8),
    changes=BUSY,
)


# ---- repair ------------------------------------------------------------------------------------

add(
    "dirty keys forgotten",
    "What a member did not take is not noted.",
    (Repair, "mark", nothing),
    plan=plans.many_dirty,
)


def _pay_nothing(self: Any, debt: Any, now_ds: int) -> Any:
    keys, _ = _batch(self, debt, now_ds)
    return keys, []


_batch = Repair._batch
add(
    "repair sends nothing",
    "Keys that a member misses are crossed out, and no record is sent.",
    (Repair, "_batch", _pay_nothing),
    plan=plans.many_dirty,
)
add(
    "first key repaired only",
    "Of the keys that a member misses only the first is sent.",
    (
        Repair,
        "_batch",
        lambda self, debt, now_ds: (lambda found: (found[0], found[1][:1]))(
            _batch(self, debt, now_ds)
        ),
    ),
    plan=plans.many_dirty,
)
_paid = Repair._paid


def _failed_is_done(self: Any, member: Member, debt: Any, now: float, why: Any) -> None:
    if why is not None:
        debt.dirty.clear()
        debt.needs_sync = False
    _paid(self, member, debt, now, None)


add(
    "failed repair not repeated",
    "A repair that fails counts as done.",
    (Repair, "_paid", _failed_is_done),
    plan=plans.failed_repair,
)
add(
    "debt never paid off",
    "After a repair its member still counts as behind.",
    (Repair, "_paid", nothing),
    faults=CLOG,
    options=(6, 2),
    changes=BUSY,
)
add(
    "broken link not compared",
    "Without acknowledgements a broken connection makes nobody compare.",
    (Repair, "compare", nothing),
    (Transfer, "_compare", nothing),
    faults=LINKS,
    options=(0, 8),
    changes=BUSY,
)
