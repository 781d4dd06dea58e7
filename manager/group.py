"""Who runs which context: the introduction that managers give each other.

On seeing a new member a node says hello with its contexts. A member that never says hello (a plain
Tomcat) gets no session and is asked for none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from tribes.channel.outputs import Notice
from tribes.errors import RemoteProtocolError
from tribes.membership.change import ChangeKind, MemberChange
from tribes.wire.options import SendOptions

from .drain import DrainReport
from .inbox import Commit, CommitResult, Question, Wakes, resolve_all
from .messages import CONTEXTS_MAX, Draining, Hello, decode_message, is_manager_message
from .placed_messages import split_context

if TYPE_CHECKING:
    from tribes.channel.core import ChannelCore
    from tribes.wire.data import ChannelData
    from tribes.wire.member import Member

    from .part import PartReplicator
    from .placed import PlacedCore
    from .replication import Replicator

__all__ = ["SessionGroup"]

_ACKED = int(SendOptions.USE_ACK | SendOptions.SYNCHRONIZED_ACK)
_HELLO_RETRY_S = 1.0

_STRANGER_S = 3.0
"""A member that has not said by then which contexts it has, since it was seen, has none."""


class SessionGroup:
    """All contexts of one node, in the core.

    Args:
        name: This node's name.
        channel: Where messages go.
        adopt: Makes the replicator of a context that only others run, so that this node holds
            copies of it; None: it does not.
        wakes: Gets the event loops whose tasks' commits have ended.

    Attributes:
        is_retired: The members are told that this node is about to leave.
    """

    def __init__(
        self,
        name: str,
        channel: ChannelCore,
        *,
        adopt: Callable[[str], Replicator] | None = None,
        wakes: Wakes,
    ) -> None:
        self.replicators: dict[str, Replicator] = {}
        self.strays: dict[str, Callable[[list[Commit]], None]] = {}
        """Who takes the commits of contexts that request threads may not know to be removed."""
        self.unknown_messages = 0
        """Messages of kinds that this release does not know."""
        self.placed: dict[str, PlacedCore] = {}
        """By context, who places its parts. The parts themselves are among the replicators."""
        self._name = name
        self._channel = channel
        self._adopt = adopt
        self._contexts: dict[Member, list[str]] = {}
        self._had_contexts = False
        self._strangers: dict[Member, float] = {}
        """Members that have not said yet which contexts they have, and until when they may."""
        self._draining: dict[Member, None] = {}
        self.is_retired = False
        self._is_running = False
        self._wakes = wakes

    def add(self, replicator: Replicator, now: float) -> None:
        """Run one more context; members that are here already are told."""
        self.change((replicator,), (), now)

    def change(self, added: Iterable[Replicator], removed: Sequence[str], now: float) -> None:
        """Run more contexts, and others no longer; members that are here are told once of all.

        They keep what they have of those that are removed.
        """
        for context in removed:
            gone = self.replicators.pop(context, None)
            if gone is not None:
                self._had_contexts = True
                for member in gone.targets:
                    gone.peer_down(member, now)
                gone.stop()
        new = list(added)
        for replicator in new:
            known = self.replicators.get(replicator.manager.context)
            if known is not None:
                # Adopted because others run it; now it is run in earnest.
                known.stop()
        for replicator in new:
            replicator.transfer.has_met_all = self._has_met_all
        self.replicators.update({each.manager.context: each for each in new})
        if not self._is_running or not (new or removed):
            return
        for replicator in new:
            replicator.start(now)
        for member in self._channel.view.members:
            # In this order: who is asked for what it has must have us as a target of what follows.
            self._hello(member, now, is_first=False)
            theirs = self._contexts.get(member, ())
            for replicator in new:
                if replicator.manager.context in theirs:
                    replicator.peer_up(member, now)

    def add_part(self, part: PartReplicator) -> None:
        """A part lies here from now on: messages about it go to its replicator."""
        self.replicators[part.manager.context] = part

    def remove_part(self, context: str) -> None:
        """A part does not lie here any more."""
        self.replicators.pop(context, None)

    def start(self, now: float) -> None:
        """Begin."""
        self._is_running = True
        for replicator in list(self.replicators.values()):
            replicator.start(now)

    def stop(self) -> None:
        """End all timers."""
        self._is_running = False
        for replicator in list(self.replicators.values()):
            replicator.stop()

    def retire(self, now: float) -> None:
        """Tell the members that this node is about to leave; a second call does nothing.

        It goes on answering requests: what it commits waits for the others, and none of them waits
        for it.
        """
        if self.is_retired:
            return
        self.is_retired = True
        for replicator in list(self.replicators.values()):
            replicator.retire()
        for member in self._contexts:
            if self._channel.has_member(member):
                self._tell_draining(member, now)

    def drain(self, now: float) -> None:
        """Ask for receipts of all that is here. Parts of something else see to themselves."""
        self.retire(now)
        for replicator in list(self.replicators.values()):
            if not replicator.manager.is_part:
                replicator.drain(now)

    @property
    def knows_all(self) -> bool:
        """True when every member has said which contexts it has, or had time to.

        One that has not may have ours, and is to have what is here.
        """
        return not (self._strangers and self.replicators)

    def _has_met_all(self) -> bool:
        return not self._strangers

    def _forget_silent(self, now: float) -> None:
        for member in [m for m, until in self._strangers.items() if until <= now]:
            self._is_no_stranger(member, now)

    def _is_no_stranger(self, member: Member, now: float) -> None:
        if self._strangers.pop(member, None) is not None and not self._strangers:
            for replicator in list(self.replicators.values()):
                replicator.transfer.met_all(now)

    @property
    def is_last(self) -> bool:
        """True when no member stays that could have what is here."""
        each_context = (r for r in self.replicators.values() if not r.manager.is_part)
        return not any(replicator.staying for replicator in each_context)

    def drain_report(self) -> DrainReport:
        """How the drain stands."""
        mine = [each for each in self.replicators.values() if not each.manager.is_part]
        return DrainReport(
            self.is_last,
            tuple(lacking for each in mine for lacking in each.receipts.lacking()),
            {each.manager.context: each.manager.table.live for each in mine},
        )

    def _tell_draining(self, member: Member, now: float) -> None:
        def settled(faulty: dict[Member, Exception], then: float) -> None:
            if faulty and self._is_running:
                self._channel.timers.at(then + _HELLO_RETRY_S, again)

        def again(then: float) -> None:
            if self._channel.has_member(member) and self._is_running:
                self._tell_draining(member, then)

        self._channel.post((member,), Draining().encode(), _ACKED, now, settled=settled)

    @property
    def is_joined(self) -> bool:
        """True when every context has what the other members had."""
        return all(
            each.manager.is_part or each.transfer.is_joined for each in self.replicators.values()
        )

    def on_members(self, change: MemberChange, now: float) -> None:
        """The view changed."""
        member = change.member
        if change.kind is ChangeKind.ADDED:
            self._hello(member, now, is_first=True)
            if member not in self._contexts:
                self._strangers[member] = now + _STRANGER_S
                self._channel.timers.at(now + _STRANGER_S, self._forget_silent)
            self._connect(member, now)
        elif change.kind is ChangeKind.REMOVED:
            self._contexts.pop(member, None)
            self._draining.pop(member, None)
            for replicator in list(self.replicators.values()):
                replicator.locks.gone(member, change.reason, now)
                replicator.peer_down(member, now)
                replicator.peer_lost(now)
            self._is_no_stranger(member, now)

    def suspicion(self, member: Member, is_suspected: bool, now: float) -> None:
        """A member stopped answering, or answers again."""
        for replicator in list(self.replicators.values()):
            replicator.suspicion(member, is_suspected, now)

    def room(self, member: Member, now: float) -> None:
        """There is room again in the live queue of a member."""
        for replicator in list(self.replicators.values()):
            replicator.room(member, now)

    def link_lost(self, member: Member, now: float) -> None:
        """A connection to a member broke: it may lack what was on it."""
        for replicator in list(self.replicators.values()):
            replicator.link_lost(member, now)

    def commits(self, batch: list[Commit], now: float) -> None:
        """Spread what request threads committed, context by context."""
        for replicator, commits in self._by_context(batch):
            replicator.commits(commits, now)

    def questions(self, questions: list[Question], now: float) -> None:
        """Bring requests the sessions that they need."""
        for question in questions:
            replicator = self.replicators.get(question.context)
            if replicator is not None:
                replicator.ask(question, now)
            else:
                self._wakes.tell(question.waiter, CommitResult(0, (), {}))

    def overflowed(self, commits: list[Commit], dirty: dict[str, list[str]], now: float) -> None:
        """The inbox had no room for some: members get the merged records later."""
        for context, keys in dirty.items():
            replicator = self.replicators.get(context)
            if replicator is not None:
                replicator.mark_dirty(keys, now)
        for replicator, group in self._by_context(commits):
            replicator.overflowed(group)

    def _by_context(self, commits: list[Commit]) -> list[tuple[Replicator, list[Commit]]]:
        groups: dict[str, list[Commit]] = {}
        for commit in commits:
            groups.setdefault(commit.context, []).append(commit)
        found = []
        for context, group in groups.items():
            replicator = self.replicators.get(context)
            if replicator is not None:
                found.append((replicator, group))
                continue
            stray = self.strays.get(context)
            if stray is not None:
                stray(group)
                continue
            # A manager outside the node's contexts has no copies anywhere; nobody waits for them.
            resolve_all(group, (), {}, self._wakes)
        return found

    def consume(self, data: ChannelData, now: float) -> bool:
        """Take a message if it is a manager's.

        Raises:
            RemoteProtocolError: It is one, and it is malformed or cannot be applied.
        """
        if not is_manager_message(data.message):
            return False
        message = decode_message(data.message)
        source = data.source
        if message is None:
            # A later release says more than this one understands.
            self.unknown_messages += 1
            return True
        if isinstance(message, Hello):
            self._on_hello(source, message, now)
            return True
        if isinstance(message, Draining):
            self._on_draining(source, now)
            return True
        replicator = self.replicators.get(message.context)
        if replicator is None:
            part = split_context(message.context)
            placed = None if part is None else self.placed.get(part[0])
            if part is not None and placed is not None:
                placed.not_here(part[1], source, message, now)
            raise RemoteProtocolError(f"no context {message.context!r} runs here")
        replicator.message(source, message, now)
        return True

    def _hello(self, member: Member, now: float, *, is_first: bool) -> None:
        if not self.replicators and self._adopt is None and not self._had_contexts:
            # A channel without sessions is to others what a plain member is.
            return
        # Who has which parts they tell themselves.
        contexts = [c for c, each in self.replicators.items() if not each.manager.is_part]
        hello = Hello(self._name, contexts, is_first)

        def settled(faulty: dict[Member, Exception], then: float) -> None:
            if faulty and self._channel.has_member(member) and self._is_running:
                self._channel.timers.at(then + _HELLO_RETRY_S, again)

        def again(then: float) -> None:
            if self._channel.has_member(member) and self._is_running:
                self._hello(member, then, is_first=is_first)

        self._channel.post((member,), hello.encode(), _ACKED, now, settled=settled)

    def _on_hello(self, source: Member, hello: Hello, now: float) -> None:
        # A hello may overtake the heartbeat that makes its sender a member here.
        self._contexts[source] = hello.contexts
        if len(self._contexts) > 2 * CONTEXTS_MAX:
            self._forget_strangers()
        if not self._channel.has_member(source):
            return
        if hello.is_first:
            # In this order: once it has the answer we are a target of its changes, and what it
            # changed before is in the records that we ask for then.
            self._hello(source, now, is_first=False)
            for context, replicator in list(self.replicators.items()):
                if context in hello.contexts and not replicator.manager.is_part:
                    replicator.peer_forgot(source, now)
        self._connect(source, now)
        # After that: who is asked for what it has is waited for.
        self._is_no_stranger(source, now)
        if self.is_retired:
            self._tell_draining(source, now)

    def _forget_strangers(self) -> None:
        view = self._channel.view
        self._contexts = {m: c for m, c in self._contexts.items() if m in view}
        self._draining = {m: None for m in self._draining if m in view}

    def _on_draining(self, source: Member, now: float) -> None:
        is_known = source in self._contexts or self._channel.has_member(source)
        if is_known and source not in self._draining:
            self._draining[source] = None
            self._channel.event(Notice("member draining", {"member": source.label}))
            self._lay_off(source, now)

    def _lay_off(self, member: Member, now: float) -> None:
        for replicator in list(self.replicators.values()):
            replicator.peer_draining(member, now)

    def _connect(self, member: Member, now: float) -> None:
        contexts = self._contexts.get(member)
        if contexts is None:
            return
        self._adopt_new(contexts, now)
        for context, replicator in list(self.replicators.items()):
            if replicator.manager.is_part:
                continue
            if context in contexts:
                replicator.peer_up(member, now)
            else:
                replicator.peer_down(member, now)
        if member in self._draining:
            self._lay_off(member, now)

    def _adopt_new(self, contexts: list[str], now: float) -> None:
        if self._adopt is None or self.is_retired:
            return
        for context in contexts:
            if context not in self.replicators and len(self.replicators) < CONTEXTS_MAX:
                self.add(self._adopt(context), now)
