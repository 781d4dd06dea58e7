"""Checks of the sessions: who knew of a write must show it (DESIGN §5.4, 8).

One rule carries most of them. A node *knows* a write from the moment at which it committed it, or
at which the writer's waiter named it as having processed it (`CommitResult.acked`). A replica's
state only grows by merging, so from then on whatever that process shows of the attribute is that
write or a newer version; faults elsewhere excuse nothing. A node that did not know a write may
overwrite it: that is a conflict, and no silent lost update.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tribes.manager.record import Life
from tribes.testing.violation import Violation

if TYPE_CHECKING:
    from tribes.testing.history import History, Op, Version
    from tribes.testing.violation import WorldState

__all__ = ["check_reads", "check_state", "survivors"]

_EVERYWHERE: Final = "*"
_WRITES: Final = frozenset(
    (
        *("write", "append", "counter", "set_add", "remove"),
        *("merged_add", "merged_put", "merged_take", "merged_append"),
    )
)
_MERGED: Final = "merged "
"""What the names of values begin with that merge by element; `merge_checks` knows what is there."""
_SLACK_S: Final = 2.0
"""Idle times are counted in whole seconds here and deciseconds there."""
_EXPIRY_S: Final = 15.0
"""Search, question, answers, a lost one and the next search."""


class _Known:
    """What each incarnation knows of one run, as it goes on."""

    def __init__(self) -> None:
        self.writes: dict[tuple[str, str, str], Op] = {}
        self.used: dict[tuple[str, str], float] = {}
        self.ids: dict[tuple[str, str, int], Op] = {}
        self.ended: dict[tuple[str, str], Op] = {}

    def learn(self, where: str, op: Op) -> None:
        place = where, op.key
        self.used[place] = max(op.begin, self.used.get(place, 0.0))
        if op.version is None:
            return
        if op.kind in _WRITES:
            attribute = where, op.key, op.name
            known = self.writes.get(attribute)
            if known is None or known.version is None or known.version < op.version:
                self.writes[attribute] = op
        elif op.kind in ("create", "rotate"):
            self.ids.setdefault((where, op.key, _generation(op)), op)
        elif op.kind == "invalidate":
            self.ended.setdefault(place, op)


def _generation(op: Op) -> int:
    return op.value if op.kind == "rotate" and isinstance(op.value, int) else 0


def check_reads(history: History, *, is_placed: bool = False) -> list[Violation]:
    """Go through the operations in their order and compare what each saw with what its node knew.

    - ``invented value``: the value of a version is the one that was written with it.
    - ``stale read``: a node shows every write that it knows, or a newer version. If nothing was
      wrong from some seconds before a write that every member acknowledged, every node knows it.
    - ``removed attribute``: the same of a removal: no older value comes back.
    - ``lost tag``: in the same calm, a list or set has every tag whose write was acknowledged
      before, unless another write overlapped that one.
    - ``foreign tag``: a list or set has only tags that were written to it.
    - ``lost session``: a node that knows a session's creation, and the id, finds it until its idle
      limit. (Without the creation it may have later changes alone, until its transfer is done.)
    - ``logged out``: a node that knows of an invalidation never finds the session.

    Args:
        history: The run.
        is_placed: Sessions lie on some nodes only: who has had one need not have it any more, and
            only what is so in a calm time, on all nodes, is demanded.
    """
    known, written, tags = _Known(), _written(history), _Tags(history, is_placed=is_placed)
    removals = _removals(history)
    acks = sorted((o for o in history.ops if o.settled is not None), key=_settled)
    told = 0
    found = []
    for op in history.ops:
        while told < len(acks) and _settled(acks[told]) < op.begin:
            ack = acks[told]
            told += 1
            for where in ack.acked:
                known.learn(where, ack)
            if ack.acked and not ack.missing:
                known.learn(_EVERYWHERE, ack)
                tags.acknowledged(ack)
        if op.kind == "lost":
            found += _check_lost(history, known, op, _EVERYWHERE if is_placed else op.node)
        elif op.is_done:
            places = (_EVERYWHERE,) if is_placed else (op.node, _EVERYWHERE)
            found += _check_seen(history, known, written, removals, op, places)
            found += tags.check(op)
            known.learn(op.node, op)
    return found


def _settled(op: Op) -> float:
    return op.begin if op.settled is None else op.settled


def _written(history: History) -> dict[tuple[str, str, Version], Op]:
    return {
        (op.key, op.name, op.version): op
        for op in history.ops
        if op.kind in _WRITES and op.version is not None
    }


def _is_calm(history: History, fact: Op, op: Op) -> bool:
    """Whether everybody knew of one operation when another one began."""
    asked = op.begin if op.asked is None else op.asked
    return _settled(fact) < asked and history.is_calm(fact.begin, op.begin)


def _check_lost(history: History, known: _Known, op: Op, where: str) -> list[Violation]:
    place = where, op.key
    whole, present = known.ids.get((*place, 0)), known.ids.get((*place, op.generation))
    if whole is None or present is None or (*place, op.generation + 1) in known.ids:
        return []
    if place in known.ended:
        return []
    if (_EVERYWHERE, op.key) in known.ended:
        return []
    if op.limit and op.begin - known.used[place] > op.limit - _SLACK_S:
        return []
    if where == _EVERYWHERE and not all(_is_calm(history, each, op) for each in (whole, present)):
        return []
    text = f"{op.node} does not find a session whose id it knows"
    return [Violation("lost session", text, (f"op {present.number}", f"op {op.number}"), op.begin)]


def _check_seen(
    history: History,
    known: _Known,
    written: dict[tuple[str, str, Version], Op],
    removals: _Removals,
    op: Op,
    places: tuple[str, ...],
) -> list[Violation]:
    found = []
    fact = f"op {op.number}"
    end = known.ended.get((places[0], op.key))
    if end is not None and (places[0] != _EVERYWHERE or _is_calm(history, end, op)):
        text = f"{op.node} serves a session that it knows to be logged out"
        found.append(Violation("logged out", text, (f"op {end.number}", fact), op.begin))
    if not op.name:
        return found
    if op.seen_version is not None:
        source = written.get((op.key, op.name, op.seen_version))
        if source is None or (source.value != op.seen and not op.name.startswith(_MERGED)):
            text = f"{op.node} shows {op.seen!r} for {op.name}, which nobody wrote so"
            facts = (fact,) if source is None else (f"op {source.number}", fact)
            found.append(Violation("invented value", text, facts, op.begin))
    for where in places:
        write = known.writes.get((where, op.key, op.name))
        if write is None or write.version is None:
            continue
        if where == _EVERYWHERE and not _is_calm(history, write, op):
            continue
        if _is_older(op.seen_version, write, removals):
            name, text = "stale read", f"an older {op.name} than {write.value!r}, which it has had"
            if write.kind == "remove":
                name, text = "removed attribute", f"{op.name} again, which it knows to be removed"
            text = f"{op.node} shows {text}"
            found.append(Violation(name, text, (f"op {write.number}", fact), op.begin))
            break
    return found


_Removals = dict[tuple[str, str], "Version"]


def _removals(history: History) -> _Removals:
    """The latest removal of each attribute, whoever knows of it."""
    found: _Removals = {}
    for op in history.ops:
        if op.kind == "remove" and op.is_done and op.version is not None:
            place = op.key, op.name
            found[place] = max(op.version, found.get(place, op.version))
    return found


def _is_older(version: Version | None, write: Op, removals: _Removals) -> bool:
    if write.version is None:
        return False
    if version is None:
        # A removal may have come here unacknowledged, and is forgotten with the time, by a clock
        # that may be an hour ahead. Nothing else makes an attribute disappear.
        removal = removals.get((write.key, write.name))
        return removal is None or removal < write.version
    return version < write.version


class _Tags:
    """Which tags each list and set must have, and may have."""

    def __init__(self, history: History, *, is_placed: bool) -> None:
        self._history = history
        self._may: dict[tuple[str, str], set[Any]] = {}
        self._must: dict[tuple[str, str], dict[Any, Op]] = {}
        self._writes: dict[tuple[str, str], list[Op]] = {}
        for op in history.ops:
            if op.kind in ("append", "set_add") and op.is_done:
                self._writes.setdefault((op.key, op.name), []).append(op)
                if is_placed and op.value is not None:
                    # Asking others takes time: they are not in the order in which they began.
                    self._may.setdefault((op.key, op.name), set()).add(_tag(op))

    def acknowledged(self, op: Op) -> None:
        if op.kind in ("append", "set_add"):
            self._must.setdefault((op.key, op.name), {})[_tag(op)] = op

    def check(self, op: Op) -> list[Violation]:
        if not op.name.startswith(("list", "set")):
            return []
        place = op.key, op.name
        may, must = self._may.setdefault(place, set()), self._must.get(place, {})
        shown = set(op.seen or ())
        found = []
        for tag in sorted(shown - may):
            text = f"{op.node} shows {tag} in {op.name}, which nobody has put there"
            found.append(Violation("foreign tag", text, (f"op {op.number}",), op.begin))
        for tag in [tag for tag in must if tag not in shown]:
            write = must.pop(tag)
            if _is_calm(self._history, write, op) and not self._overlaps(write):
                text = f"{op.node} shows {op.name} without {tag}, which all had acknowledged"
                facts = (f"op {write.number}", f"op {op.number}")
                found.append(Violation("lost tag", text, facts, op.begin))
        if op.kind in ("append", "set_add"):
            may.add(_tag(op))
        return found

    def _overlaps(self, op: Op) -> bool:
        last = op.begin if op.end is None else op.end
        return any(
            other is not op
            and other.begin <= last
            and (other.end is None or other.end >= op.begin or other.outcome == "unknown")
            for other in self._writes[op.key, op.name]
        )


def _tag(op: Op) -> Any:
    """The one element that a list or set write added."""
    return next(iter(set(op.value) - set(op.seen or ())))


def check_state(
    history: History, state: WorldState, kept: set[int] | None = None
) -> list[Violation]:
    """Compare what the nodes hold when all is over, and equal, with what was done.

    A *surviving* operation is one that some process knew which runs to this day; or it knew it when
    all copies were equal (`History.equal_copies`), and one of those runs. Then no number of other
    crashes excuses its absence. Every live node must show the effect of each:

    - ``lost write``: the attribute has that version or a newer one.
    - ``removed attribute``: the attribute has no older version than its removal.
    - ``invented value``: as in `check_reads`.
    - ``logged out``: an invalidated session is not live.
    - ``lost session``: any other one is, until its idle limit after the last surviving use.
    - ``ended by nobody``: none is destroyed that nobody invalidated.
    - ``not expired``: none is live long after its idle limit, counted from its last use of any kind
      and the last fault.
    """
    kept_ops = survivors(history, state) if kept is None else kept
    written, removals = _written(history), _removals(history)
    wanted = _Known()
    ends: dict[str, Op] = {}
    created: dict[str, Op] = {}
    limits: dict[str, int] = {}
    used: dict[str, float] = {}
    for op in history.ops:
        if not op.is_done:
            continue
        used[op.key] = max(op.begin, used.get(op.key, 0.0))
        if op.kind == "invalidate":
            ends.setdefault(op.key, op)
        if op.kind == "create":
            created[op.key], limits[op.key] = op, op.limit
        if op.number in kept_ops:
            wanted.learn("", op)
    found = []
    for node, held in state.nodes.items():
        for (_, key, name), write in wanted.writes.items():
            session = held.get(key)
            if session is None or session.life != Life.LIVE:
                continue
            version, value = session.entries.get(name, (None, None))
            if write.kind == "remove" and value is None:
                # As of an older removal, perhaps: equal copies may differ in that.
                continue
            if _is_older(version, write, removals):
                which, text = "lost write", f"{node} lacks {name} = {write.value!r}"
                if write.kind == "remove":
                    which, text = "removed attribute", f"{node} has {name} again"
                found.append(Violation(which, text, (f"op {write.number}", node), state.time))
        for (_, key), last in wanted.used.items():
            session = held.get(key)
            is_live = session is not None and session.life == Life.LIVE
            end, limit = wanted.ended.get(("", key)), limits.get(key, 0)
            if end is not None and is_live:
                text = f"{node} has a session live that was logged out"
                found.append(Violation("logged out", text, (f"op {end.number}", node), state.time))
            may_idle = not limit or state.time - last < limit - _SLACK_S
            if key not in ends and not is_live and may_idle and key in created:
                text = f"{node} does not have a session live"
                found.append(
                    Violation("lost session", text, (f"op {created[key].number}", node), state.time)
                )
        for key, session in held.items():
            facts: tuple[str, ...] = (node,)
            if key in created:
                facts = f"op {created[key].number}", node
            if session.life == Life.DESTROYED and key not in ends:
                text = f"{node} has a session destroyed that nobody invalidated"
                found.append(Violation("ended by nobody", text, facts, state.time))
            if session.life != Life.LIVE or key not in used:
                continue
            # Its limit was written with its creation, and may have gone with that.
            is_kept = key in created and created[key].number in kept_ops
            limit = limits.get(key, 0) if is_kept else 0
            if limit and state.time > max(used[key], history.last_fault) + limit + _EXPIRY_S:
                text = f"{node} has a session live that was last used at {used[key]:.3f} s"
                found.append(Violation("not expired", text, facts, state.time))
            for name, (version, value) in session.entries.items():
                source = written.get((key, name, version))
                if source is None or (source.value != value and not name.startswith(_MERGED)):
                    text = f"{node} holds {value!r} for {name}, which nobody wrote so"
                    found.append(Violation("invented value", text, facts, state.time))
    return found


def survivors(history: History, state: WorldState) -> set[int]:
    """The operations whose effects no crash can have taken."""
    live = state.nodes.keys()
    # Whoever is in an equal copy with a survivor has handed all it had to one that runs to this
    # day; going backwards, the time up to which each incarnation's knowledge is safe.
    safe: dict[str, float] = dict.fromkeys(live, float("inf"))
    for copies in reversed(history.copies):
        best = max((safe.get(node, -1.0) for node in copies.nodes), default=-1.0)
        if best >= copies.time:
            for node in copies.nodes:
                safe[node] = max(safe.get(node, -1.0), copies.time)
    found = set()
    for op in history.ops:
        if not op.is_done:
            continue
        knew = [(op.node, op.begin)]
        if op.settled is not None:
            knew += [(node, op.settled) for node in op.acked]
        for node, since in knew:
            until = safe.get(node, -1.0)
            # Uses without a version are not in what `equal_copies` compares.
            if until >= since and (op.version is not None or until == float("inf")):
                found.add(op.number)
                break
    return found
