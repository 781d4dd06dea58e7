"""A worker's connection to the node of its host, in a thread of its own.

Questions are sent by the thread that puts them, if the socket takes them; this thread reads, sends
the rest, connects again, and watches the time. What becomes of a question is decided in
:mod:`tribes.manager.attach_calls`.

**Fork.** A forked child has nothing of it: its copy of the connection is closed, and it makes one
of its own when it first needs one, if its parent had.

It is one file because all of it stands under one lock.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Final, final
from weakref import WeakSet

import structlog

from tribes.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from tribes.manager.attach_calls import Calls
from tribes.manager.attach_wire import (
    BYE,
    HELLO,
    REFUSED,
    UNLOCK,
    VERSION,
    WELCOME,
    FrameReader,
    Message,
    decode,
    encode,
)
from tribes.runtime.attach_socket import connect
from tribes.runtime.sockets import open_pair
from tribes.runtime.waiters import ThreadWaiter, refuse_in_event_loop

if TYPE_CHECKING:
    import socket

    from tribes.manager.attach_calls import Done
    from tribes.manager.attached import AttachedManager
    from tribes.manager.clock import Clock

__all__ = ["RETRY_MAX_S", "AttachClient"]

log = structlog.get_logger("tribes")

RETRY_MIN_S: Final = 0.05
RETRY_MAX_S: Final = 1.0
"""Between two attempts to connect: doubled from one to the other."""
WELCOME_S: Final = 5.0
"""The node answers HELLO within that, or it hangs."""
UNSENT_MAX_BYTES: Final = 64 * 1024 * 1024
"""What the node does not read; then the connection is given up."""
READ_BYTES: Final = 64 * 1024
"""`recv` makes an object of that size first: larger ones come from the system and go back to it."""
TICK_S: Final = 1.0
"""How late the thread may notice that a question's time is over; so nobody wakes it for that."""
BACKSTOP_S: Final = 0.5


@final
class AttachClient:
    """See the module. It is a `tribes.manager.attached.Remote`.

    Args:
        path: Of the node's socket.
        contexts: Those that this process serves.
        clock: Gets the actor that the node lends.

    Attributes:
        clock: The same; a forked process has another one.
        settled: Done when the first attempt to connect is: whether it succeeded.
        connections: How many there have been.
        node: The node's name.
    """

    def __init__(self, path: str, contexts: tuple[str, ...], clock: Clock) -> None:
        self.path = path
        self._contexts = contexts
        self.clock = clock
        self._was_started = False
        self._start_over()
        _clients.add(self)

    def _start_over(self) -> None:
        self._lock = threading.Lock()
        self._calls = Calls(f"the node at {self.path}")
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._sock: socket.socket | None = None
        self._out = bytearray()
        self._given_back: deque[int] = deque()
        self._is_welcome = False
        self._wake: tuple[socket.socket, socket.socket] | None = None
        self._logged: str | None = None
        self.settled: Future[bool] = Future()
        self.connections = 0
        self.node = ""

    # Life.

    def start(self) -> None:
        """Begin to connect; a second call does nothing."""
        with self._lock:
            if self._thread is not None or self._stopping:
                return
            self._was_started = True
            self._wake = open_pair()
            for each in self._wake:
                each.setblocking(False)
            self._thread = threading.Thread(target=self._main, name="tribes-attach", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the connection. What is open is told so."""
        with self._lock:
            thread, self._stopping = self._thread, True
        if thread is not None:
            self._wake_up()
            thread.join(WELCOME_S)

    @property
    def is_running(self) -> bool:
        """Whether its thread runs, in this process."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def is_up(self) -> bool:
        """Whether there is a connection, and the node has accepted this process."""
        return self._calls.is_up

    @property
    def resent(self) -> int:
        """Commits that were sent again on another connection."""
        return self._calls.resent

    @property
    def unknown(self) -> int:
        """Commits of which nobody learned whether the node has them."""
        return self._calls.unknown

    # Use, from any thread.

    def call(
        self,
        kind: int,
        fields: tuple[object, ...],
        done: Done,
        *,
        timeout_s: float,
        again: tuple[object, ...] | None = None,
        number: int | None = None,
    ) -> None:
        """See `Remote.call`."""
        if self._thread is None:
            self._revive()
        deadline = time.monotonic() + timeout_s
        with self._lock:
            frame = self._calls.begin(
                kind, fields, deadline=deadline, done=done, again=again, number=number
            )
            must_wake = self._put(frame)
        if must_wake:
            self._wake_up()

    def number(self) -> int:
        """A number for a call."""
        with self._lock:
            return self._calls.number()

    def post(self, kind: int, *fields: object) -> bool:
        """See `Remote.post`."""
        with self._lock:
            if not self._calls.is_up:
                return False
            must_wake = self._put(encode(kind, 0, *fields))
        if must_wake:
            self._wake_up()
        return True

    def give_back(self, number: int) -> None:
        """Tell the node that the lock of this number is over; without a connection it is.

        Never waits, and may be called in the middle of any other method here: a lock that nobody
        has any more is given back by the garbage collector, which runs where it likes.
        """
        self._given_back.append(number)
        must_wake = True
        if self._lock.acquire(blocking=False):
            try:
                must_wake = self._put_given_back()
            finally:
                self._lock.release()
        if must_wake:
            self._wake_up()

    def _put_given_back(self) -> bool:
        must_wake = False
        while self._given_back:
            frame = encode(UNLOCK, self._given_back.popleft())
            if self._calls.is_up:
                must_wake |= self._put(frame)
        return must_wake

    def bring(self, manager: AttachedManager, session_id: str) -> None:
        """See `Remote.bring`."""
        refuse_in_event_loop(
            "await tribes.web.freshness.abring(manager, [session_id], None), then find"
        )
        waiter = ThreadWaiter()
        manager.ask(session_id, None, waiter)
        waiter.wait(manager.ask_max_s + BACKSTOP_S)

    def _revive(self) -> None:
        if not self._was_started:
            raise LocalProtocolError("the attached node has not been started: call node.start()")
        self.start()

    def _put(self, frame: bytes) -> bool:
        """Send what the socket takes, in order; tell whether the thread must send the rest."""
        if not frame:
            return False  # there is no connection: the thread sends it on the next one
        sock = self._sock
        if self._out or sock is None:
            self._out += frame
            return False
        try:
            count = sock.send(frame)
        except BlockingIOError:
            count = 0
        except OSError:
            return False  # the thread finds out
        self._out += frame[count:]
        return count < len(frame)

    def _wake_up(self) -> None:
        wake = self._wake
        if wake is not None:
            try:
                wake[1].send(b"\0")
            except OSError:
                return  # it is full: the thread is awake

    # The thread.

    def _main(self) -> None:
        # The boundary of the thread.
        try:
            self._run()
        except BaseException as error:
            log.critical("connection to the node died", exc_info=error)
            self._perform(self._calls.close("this process's connection to its node died"))
        finally:
            self._close_all()

    def _run(self) -> None:
        pause = RETRY_MIN_S
        while not self._stopping:
            try:
                sock = connect(self.path)
            except OSError as error:
                self._lost(f"nobody serves it ({error.strerror or error})", is_gone=True)
                self._rest(pause)
                pause = min(2 * pause, RETRY_MAX_S)
                continue
            try:
                why = self._talk(sock)
            except (OSError, ProtocolError) as error:
                why = str(error)
            finally:
                with self._lock:
                    self._sock = None
                    self._is_welcome, was_welcome = False, self._is_welcome
                    self._out.clear()
                sock.close()
            if self._stopping:
                break
            # After one that was good the next is tried at once.
            self._lost(why, is_gone=not was_welcome)
            pause = RETRY_MIN_S if was_welcome else min(2 * pause, RETRY_MAX_S)
            self._rest(RETRY_MIN_S if was_welcome else pause)
        self._perform(self._calls.close("this process ends"))

    def _talk(self, sock: socket.socket) -> str:
        """Use one connection until it ends; returns why it did."""
        sock.setblocking(True)
        sock.settimeout(WELCOME_S)
        sock.sendall(encode(HELLO, 0, VERSION, VERSION, list(self._contexts)))
        reader = FrameReader()
        message = self._first(sock, reader)
        sock.setblocking(False)
        if message.kind == REFUSED:
            return str(message.fields[0])
        if message.kind != WELCOME:
            raise RemoteProtocolError("it is no node")
        self._welcomed(sock, message)
        return self._listen(sock, reader)

    def _first(self, sock: socket.socket, reader: FrameReader) -> Message:
        while True:
            body = reader.next()
            if body is not None:
                return decode(body)
            data = sock.recv(READ_BYTES)
            if not data:
                raise RemoteProtocolError("it closed the connection without a word")
            reader.feed(data)

    def _welcomed(self, sock: socket.socket, message: Message) -> None:
        _, actor, hlc, self.node = message.fields
        if actor >= 2**32:
            raise RemoteProtocolError(f"it lends {actor}, which is no actor")
        self.clock.observe(hlc)
        self.clock.actor = actor
        with self._lock:
            self._sock, self._is_welcome = sock, True
            self._out += b"".join(self._calls.connected())
        self.connections += 1
        if self._logged is not None or self.connections == 1:
            log.info("attached", socket=self.path, node=self.node, resent=self._calls.resent)
        self._logged = None
        self._settle(is_up=True)

    def _listen(self, sock: socket.socket, reader: FrameReader) -> str:
        assert self._wake is not None
        wake = self._wake[0]
        # Not select(), which knows the first 1,024 descriptors of a process only.
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        while not self._stopping:
            with self._lock:
                self._put_given_back()
                poll.register(sock, select.POLLIN | (select.POLLOUT if self._out else 0))
                deadline = self._calls.next_deadline
                if len(self._out) > UNSENT_MAX_BYTES:
                    return "it does not read what it is sent"
            left = min(TICK_S, max(0.0, deadline - time.monotonic()))
            found = dict(poll.poll(_ms(left)))
            if wake.fileno() in found:
                wake.recv(READ_BYTES)
            events = found.get(sock.fileno(), 0)
            if events & select.POLLOUT:
                self._send_rest(sock)
            if events & ~select.POLLOUT:
                try:
                    data = sock.recv(READ_BYTES)
                except BlockingIOError:
                    data = None
                if data == b"":
                    return "it ended, or closed the connection"
                if data:
                    reader.feed(data)
                    self._take(reader)
            self._tick()
        self._say_bye(sock)
        return "this process ends"

    def _send_rest(self, sock: socket.socket) -> None:
        with self._lock:
            try:
                count = sock.send(self._out)
            except BlockingIOError:
                return
            del self._out[:count]

    def _say_bye(self, sock: socket.socket) -> None:
        with self._lock:
            if not self._out and not len(self._calls):
                with suppress(OSError):
                    sock.send(encode(BYE, 0))

    def _take(self, reader: FrameReader) -> None:
        while (body := reader.next()) is not None:
            message = decode(body)
            with self._lock:
                ended = self._calls.received(message)
            self._perform(ended)

    def _tick(self) -> None:
        with self._lock:
            ended = self._calls.tick(time.monotonic())
        self._perform(ended)

    def _lost(self, why: str, *, is_gone: bool) -> None:
        with self._lock:
            ended = self._calls.disconnected(why, is_gone=is_gone)
        if is_gone:
            if self._logged != why:
                # Once for each outage, however many requests are refused meanwhile.
                self._logged = why
                log.error("node is gone: requests that need a session get 503", **self._where(why))
            self._settle(is_up=False)
        else:
            self._logged = ""
            log.warning("connection to the node lost", **self._where(why))
        self._perform(ended)

    def _where(self, why: str) -> dict[str, object]:
        return {"socket": self.path, "why": why}

    def _rest(self, seconds: float) -> None:
        """Wait before the next attempt, and see to what has no more time."""
        assert self._wake is not None
        end = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._wake[0], select.POLLIN)
        while not self._stopping and (left := end - time.monotonic()) > 0:
            with self._lock:
                deadline = self._calls.next_deadline
            left = min(left, max(0.0, deadline - time.monotonic()))
            if poll.poll(_ms(left)):
                self._wake[0].recv(READ_BYTES)
            self._tick()

    def _perform(self, calls: list[Callable[[], None]]) -> None:
        for call in calls:
            try:
                call()
            except ProtocolError:
                raise
            except Exception as error:
                log.error("an answer of the node could not be used", exc_info=error)

    def _settle(self, *, is_up: bool) -> None:
        if not self.settled.done():
            self.settled.set_result(is_up)

    def _close_all(self) -> None:
        for each in self._wake or ():
            each.close()


def _ms(seconds: float) -> int:
    """For `poll`, rounded up: what is due must not be looked at just before."""
    return int(seconds * 1000) + 1


_clients: WeakSet[AttachClient] = WeakSet()


def _after_fork_in_child() -> None:
    # The sockets are closed already, in `tribes.runtime.sockets`.
    for client in list(_clients):
        client._start_over()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
