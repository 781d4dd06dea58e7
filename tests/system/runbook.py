"""The incidents of the runbook in docs/operations.md, made with real processes.

``python -m tests.system.runbook`` makes each of them and prints what the log and the status page
show, to be pasted there; ``test_runbook.py`` makes them too, and compares the guide.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.ports import free_udp_port
from tribes.security.keys import KEY_BYTES, GroupKey

__all__ = ["INCIDENTS", "Incident", "Place", "made"]

WITHIN_S = 25.0

WRITER = """
import signal, sys
signal.alarm(80)
import structlog, trio
from tribes import ChannelConfig, GroupChannel, ManagerConfig, MembershipConfig, NodeConfig
from tribes import ReceiverConfig
from tribes.cli.logs import set_up_logging
from tribes.config.model import SenderConfig

set_up_logging("text", "info")
channel = GroupChannel(NodeConfig(
    name="writer", contexts=("shop",), manager=ManagerConfig(channel_send_options=8),
    channel=ChannelConfig(
        membership=MembershipConfig(port=int(sys.argv[1])), receiver=ReceiverConfig(port=0),
        sender=SenderConfig(live_queue_max_bytes=65536, unacked_max_bytes=65536))))

async def main():
    async with channel:
        while not channel.members:
            await trio.sleep(0.05)
        print("writing", flush=True)
        for number in range(int(sys.argv[2])):
            session = channel.manager("shop").create()
            session["cart"] = "x" * 2000
            channel.manager("shop").commit(session)
            if number % 50 == 0:
                await trio.sleep(0.01)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)

trio.run(main)
"""
"""An application that writes sessions: the number that it is given, then no more."""


class Program:
    """A process, and the lines that it has printed."""

    def __init__(self, command: list[str], **settings: Any) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **settings,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    def until(self, text: str, count: int = 1) -> str:
        """The line with this text; the last of so many."""

        def found() -> list[str]:
            return [line for line in self.lines if text in line]

        with self._changed:
            is_there = self._changed.wait_for(lambda: len(found()) >= count, WITHIN_S)
            assert is_there, f"no {text!r} among {self.lines}"
            return found()[count - 1]

    def end(self) -> int:
        """Its status, once it has ended by itself."""
        status = self.process.wait(WITHIN_S)
        self._reader.join()
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


class Place:
    """Where an incident happens: a directory, a group, and its processes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.group = free_udp_port()
        self._programs: list[Program] = []

    def file(self, name: str, more: str = "", *, before: str = "", port: int = 0) -> Path:
        """A node's configuration."""
        path = self.directory / f"{name}.toml"
        path.write_text(
            f'{before}name = "{name}"\ncontexts = ["shop"]\n[channel.receiver]\nport = {port}\n'
            f"[channel.membership]\nport = {self.group}\n[http]\nport = 0\n{more}"
        )
        return path

    def node(self, name: str, more: str = "", **settings: Any) -> Program:
        """A node that is ready."""
        path = self.file(name, more, **settings)
        program = self.run("node", "--config", str(path))
        program.until("node ready")
        return program

    def run(self, *arguments: str) -> Program:
        """Any command."""
        program = Program([sys.executable, "-m", "tribes", *arguments])
        self._programs.append(program)
        return program

    def writer(self, sessions: int) -> Program:
        """An application with sessions."""
        program = Program([sys.executable, "-c", WRITER, str(self.group), str(sessions)])
        self._programs.append(program)
        return program

    def page(self, node: Program) -> dict[str, Any]:
        """What the status page shows."""
        url = node.until("operators").partition("url=")[2].split()[0]
        with urllib.request.urlopen(f"{url}status", timeout=10) as answer:
            shown: dict[str, Any] = json.load(answer)
            return shown

    def page_with(self, node: Program, test: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The page, once it shows that."""
        deadline = time.monotonic() + WITHIN_S
        while not test(shown := self.page(node)):
            assert time.monotonic() < deadline, shown
            time.sleep(0.1)
        return shown

    def close(self) -> None:
        for program in self._programs:
            with contextlib.suppress(ProcessLookupError):
                program.process.send_signal(signal.SIGCONT)
            program.close()


@contextlib.contextmanager
def made() -> Iterator[Place]:
    """A place that is cleaned up."""
    with tempfile.TemporaryDirectory() as directory:
        place = Place(Path(directory))
        try:
            yield place
        finally:
            place.close()


@dataclass(frozen=True)
class Incident:
    """What was seen.

    Attributes:
        log: Lines of the logs, or of the terminal.
        page: What the status page of the node that remains shows; empty: there is none.
    """

    log: list[str]
    page: dict[str, Any] = field(default_factory=dict)


def crash(place: Place) -> Incident:
    """A member's process is gone."""
    one, two = place.node("web-1"), place.node("web-2")
    one.until("member added")
    two.process.kill()
    line = one.until("member removed")
    return Incident([line], place.page_with(one, lambda p: not p["members"]))


def hang(place: Place) -> Incident:
    """A member is stopped, or its machine swaps; later it goes on."""
    one, two = place.node("web-1"), place.node("web-2")
    one.until("member added")
    two.process.send_signal(signal.SIGSTOP)
    suspected = one.until("member suspected")
    page = place.page_with(one, lambda p: any(m["is_suspected"] for m in p["members"]))
    removed = one.until("member removed")
    two.process.send_signal(signal.SIGCONT)
    return Incident([suspected, removed, one.until("member added", 2)], page)


def alone(place: Place) -> Incident:
    """Two nodes that do not find each other: the log says nothing, the doctor does."""
    one = place.node("web-1")
    one.until("joined")
    place.group = free_udp_port()
    two = place.node("web-2")
    two.until("joined")
    file = place.directory / "web-2.toml"
    doctor = place.run("doctor", "--config", str(file), "--seconds", "1")
    doctor.end()
    lines = [line for line in doctor.lines if "multicast" in line or "members" in line]
    return Incident([*one.lines[-1:], *lines], place.page(one))


def other_key(place: Place) -> Incident:
    """A member was left out when the key was changed."""
    for number, name in ((1, "old.key"), (2, "new.key")):
        path = place.directory / name
        path.write_text(GroupKey(number, bytes([number]) * KEY_BYTES).to_text() + "\n")
        path.chmod(0o600)

    def keyed(name: str) -> str:
        return f'[channel]\nkey_file = "{place.directory / name}"\n'

    one = place.node("web-1", keyed("new.key"))
    place.node("web-2", keyed("old.key"))
    line = one.until("heartbeat refused")
    return Incident([line], place.page_with(one, lambda p: bool(p["failures"])))


def port_taken(place: Place) -> Incident:
    """Something else listens on the only port."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        path = place.file("web-1", port=port)
        path.write_text(path.read_text().replace("[channel.mem", "auto_bind = 1\n[channel.mem"))
        node = place.run("node", "--config", str(path))
        assert node.end() == 1
        doctor = place.run("doctor", "--config", str(path), "--seconds", "0.3")
        doctor.end()
    return Incident([*node.lines, *(line for line in doctor.lines if " port " in line)])


def unprotected(place: Place) -> Incident:
    """An address that others reach, without a key."""
    path = place.file("web-1")
    path.write_text(path.read_text().replace("port = 0\n", 'address = "10.0.0.1"\n', 1))
    node = place.run("node", "--config", str(path))
    assert node.end() == 1
    return Incident(node.lines[:1])


def bad_reload(place: Place) -> Incident:
    """A typing error, and SIGHUP."""
    node = place.node("web-1", before='log_level = "info"\n')
    path = place.directory / "web-1.toml"
    path.write_text(path.read_text().replace("log_level", "log_levle"))
    node.process.send_signal(signal.SIGHUP)
    return Incident([node.until("configuration stays")], place.page(node))


def no_receipt(place: Place) -> Incident:
    """A node leaves while the only other member hangs."""
    two = place.node("web-2", before="drain_timeout_s = 1.0\n")
    writer = place.writer(3)
    two.until("member added")
    writer.until("writing")
    place.page_with(two, lambda p: any(c["sessions"] == 3 for c in p["contexts"]))
    writer.process.send_signal(signal.SIGSTOP)
    two.process.send_signal(signal.SIGTERM)
    status = two.end()
    assert status == 3, two.lines
    return Incident([two.until("left without receipt"), two.until("node left")])


def slow(place: Place) -> Incident:
    """A member takes changes more slowly than they come: here it takes none for a while."""
    two = place.node("web-2")
    writer = place.writer(2000)
    two.until("member added")
    writer.until("writing")
    two.process.send_signal(signal.SIGSTOP)
    behind = writer.until("member behind")
    two.process.send_signal(signal.SIGCONT)
    page = place.page_with(two, lambda p: any(c["sessions"] >= 2000 for c in p["contexts"]))
    return Incident([behind], page)


def last_one(place: Place) -> Incident:
    """All members are stopped, and nothing says where the sessions shall wait."""
    two = place.node("web-2")
    writer = place.writer(3)
    two.until("member added")
    place.page_with(two, lambda p: any(c["sessions"] == 3 for c in p["contexts"]))
    writer.process.kill()
    two.until("member removed")
    two.process.send_signal(signal.SIGTERM)
    two.end()
    return Incident([two.until("sessions end with the last member"), two.until("node left")])


INCIDENTS: dict[str, Callable[[Place], Incident]] = {
    "crash": crash,
    "hang": hang,
    "alone": alone,
    "other key": other_key,
    "port taken": port_taken,
    "unprotected": unprotected,
    "bad reload": bad_reload,
    "no receipt": no_receipt,
    "slow": slow,
    "last one": last_one,
}
"""By the name under which the guide has them."""


def main() -> None:
    """Make all, or those that are named."""
    for name in sys.argv[1:] or INCIDENTS:
        with made() as place:
            seen = INCIDENTS[name](place)
        print(f"== {name}")
        for line in seen.log:
            print(line)
        page = seen.page
        if page:
            members = {m["name"]: m["is_suspected"] for m in page["members"]}
            failures = [(f["event"], f["fields"]) for f in page["failures"]]
            print(f"-- ready {page['is_ready']}, members {members}, failures {failures}")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path.cwd()))
    main()
