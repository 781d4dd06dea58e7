"""The one seam: what can be done to a core, and what comes out of it.

`INPUTS` are the calls that the shell makes. `digest_of` makes one number of outputs, which is
compared when the inputs are run again.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Final

from tribes.channel.outputs import Deliver, Event, TicketDone
from tribes.manager.inbox import Batch, Commit, Question
from tribes.wire.outputs import Write

__all__ = ["INPUTS", "STRUCTURAL", "batch_of", "digest_of", "event_fields", "noted", "timed"]

INPUTS: Final = (
    *("start", "stop", "retire", "drain", "timer", "commits", "resync", "announce", "discovered"),
    *("datagram", "udp_datagram", "link_opened", "link_bytes", "link_closed", "connect_failed"),
    *("writable", "probe_result", "send", "delivered", "rpc_call", "rpc_answer"),
    *("acquire_lock", "release_lock"),
)
STRUCTURAL: Final = (
    *("set_keys", "hold", "open_map", "close_map", "open_lazy_map", "close_lazy_map"),
)
"""These bring objects of their own: the state is noted again after them."""

_Commit = tuple[str, str, int, bytes, bool, bytes]


def noted(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of an input so that they stay as they are: a batch is emptied by the core."""
    if args and type(args[0]) is Batch:
        batch = args[0]
        return (
            [_commit(each) for each in batch.commits],
            [_commit(each) for each in batch.overflowed],
            batch.dirty,
            [(q.context, q.session_id, q.hlc, q.actor) for q in batch.questions],
            *args[1:],
        )
    return args


def _commit(commit: Commit) -> _Commit:
    waits = commit.waiter is not None
    return commit.context, commit.key, commit.version, commit.delta, waits, commit.trace


def batch_of(args: tuple[Any, ...], waiter: Any) -> tuple[Any, ...]:
    """The arguments of ``commits`` from what `noted` made of them.

    Args:
        args: As noted.
        waiter: Stands for everybody who waited.
    """
    commits, overflowed, dirty, questions, *rest = args
    batch = Batch(
        [_commit_again(each, waiter) for each in commits],
        [_commit_again(each, waiter) for each in overflowed],
        dirty,
        [Question(c, i, hlc, actor, waiter) for c, i, hlc, actor in questions],
    )
    return (batch, *rest)


def _commit_again(noted_commit: _Commit, waiter: Any) -> Commit:
    context, key, version, delta, waits, trace = noted_commit
    return Commit(context, key, version, delta, waiter if waits else None, trace)


def timed(args: tuple[Any, ...]) -> int:
    """Bytes that an input is counted for."""
    size = 200
    for each in args:
        if type(each) is bytes:
            size += len(each)
        elif type(each) is list:
            size += sum(100 + len(c[3]) for c in each if len(c) == 6)
    return size


def digest_of(outputs: Iterable[Any]) -> bytes:
    """Eight bytes that tell other outputs, or another order of them, from these."""
    digest = blake2b(digest_size=8)
    for output in outputs:
        if type(output) is Write:
            digest.update(b"W%d %d " % (output.link, sum(map(len, output.chunks))))
            for chunk in output.chunks:
                digest.update(chunk)
        elif isinstance(output, Event):
            digest.update(f"E{output.name} {event_fields(output)}".encode())
        elif type(output) is TicketDone:
            faulty = [(m.unique_id, type(why).__name__) for m, why in output.faulty.items()]
            digest.update(f"T{output.ticket} {faulty}".encode())
        elif type(output) is Deliver:
            message = output.message
            digest.update(f"D{output.token} {output.source.unique_id!r} ".encode())
            digest.update(message.message)
        else:
            values = [getattr(output, name) for name in type(output).__slots__]
            digest.update(f"{type(output).__name__} {values!r}".encode())
    return digest.digest()


def event_fields(event: Event) -> dict[str, Any]:
    """An event's fields as plain values and text, alike in every process."""
    found: dict[str, Any] = {}
    for name, value in event.fields().items():
        if isinstance(value, bool | int | float | str) or value is None:
            found[name] = value
        elif isinstance(value, BaseException):
            found[name] = f"{type(value).__name__}: {value}"
        else:
            found[name] = str(value)
    return found
