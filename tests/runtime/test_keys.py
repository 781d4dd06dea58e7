"""Group keys on real sockets: read from files, replaced while running, demanded of everybody."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import pytest

from tests.runtime.test_group_channel import heartbeats
from tests.waiting import until, wait_until
from tribes.config.model import NodeConfig
from tribes.errors import ChannelClosedError, ConfigError, LocalProtocolError
from tribes.runtime.background import BackgroundNode
from tribes.runtime.group_channel import GroupChannel
from tribes.runtime.key_files import KEY_FILE_MAX_BYTES, read_keys
from tribes.security.keys import GroupKey, KeyRing

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO = (GroupKey(number, bytes([number]) * 32) for number in (1, 2))

MakeConfig = Callable[..., NodeConfig]

posix = pytest.mark.skipif(os.name != "posix", reason="not here: modes of POSIX")


def with_channel(config: NodeConfig, **channel: object) -> NodeConfig:
    return msgspec.structs.replace(
        config, channel=msgspec.structs.replace(config.channel, **channel)
    )


def write(path: Path, *keys: GroupKey) -> str:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write("# ours\n" + "".join(key.to_text() + "\n" for key in keys))
    return str(path)


async def test_members_with_the_same_file_talk_and_others_do_not(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    """Messages both ways; who has no key, or another one, is alone."""
    path = write(tmp_path / "key", ONE)
    got: list[bytes] = []
    async with (
        GroupChannel(with_channel(make_config("a"), key_file=path)) as a,
        GroupChannel(with_channel(make_config("b"), keys=ONE.to_text())) as b,
        GroupChannel(make_config("x")) as x,
        GroupChannel(with_channel(make_config("y"), keys=TWO.to_text())) as y,
    ):
        b.add_message_listener(lambda message: got.append(message.message), inline=True)
        await until(lambda: bool(a.members and b.members))
        await a.send(b"hello", options=6)
        await b.send(b"back", options=6)
        await heartbeats(6, a, b, x, y)
        assert got == [b"hello"]
        assert [[m.label for m in each.members] for each in (a, b, x, y)] == [["b"], ["a"], [], []]


async def test_keys_are_read_again_while_messages_flow(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    """Three steps; every message arrives once, and nobody is removed."""
    path = write(tmp_path / "key", ONE)
    events: list[str] = []
    got: list[bytes] = []
    async with (
        GroupChannel(
            with_channel(make_config("a"), key_file=path), watch=lambda e: events.append(e.name)
        ) as a,
        GroupChannel(with_channel(make_config("b"), key_file=path)) as b,
    ):
        b.add_message_listener(lambda message: got.append(message.message), inline=True)
        await until(lambda: bool(a.members and b.members))
        sent = 0
        for keys in ((ONE, TWO), (TWO, ONE), (TWO,)):
            write(tmp_path / "key", *keys)
            for channel in (b, a):
                assert channel.reload_keys() == tuple(key.id for key in keys)
                for _ in range(50):
                    await a.send(b"%d" % sent, options=6)
                    sent += 1
            await heartbeats(2, a, b)
        assert got == [b"%d" % number for number in range(sent)]
        (tmp_path / "key").write_text("nonsense")
        with pytest.raises(ConfigError, match="line 1"):
            a.reload_keys()
        await a.send(b"still there", options=6)
        assert "member removed" not in events


def test_a_background_node_takes_keys_from_any_thread(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    """It returns when they count."""
    path = write(tmp_path / "key", ONE)
    a = BackgroundNode(with_channel(make_config("a"), key_file=path))
    b = BackgroundNode(with_channel(make_config("b"), keys=ONE.to_text()))
    with pytest.raises(ChannelClosedError):
        a.reload_keys()
    a.start()
    b.start()
    try:
        assert a.wait_joined(10)
        assert b.wait_joined(10)
        wait_until(lambda: len(a.member_names) == 2 and len(b.member_names) == 2)
        write(tmp_path / "key", TWO, ONE)
        b.set_keys(KeyRing([ONE, TWO]))
        assert a.reload_keys() == (2, 1)
        a.send(b"x", options=6)
        with pytest.raises(LocalProtocolError, match="names no key file"):
            b.reload_keys()
    finally:
        a.stop()
        b.stop()
    with pytest.raises(ChannelClosedError):
        a.set_keys(KeyRing([ONE]))


async def test_without_a_key_none_can_be_set(make_config: MakeConfig) -> None:
    """It is said what to do instead."""
    async with GroupChannel(make_config("a")) as a:
        with pytest.raises(LocalProtocolError, match="start it again"):
            a.set_keys(KeyRing([ONE]))


@posix
def test_a_key_file_that_cannot_be_used_is_named_with_the_remedy(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    """Missing, open to others, damaged, too long, a folder, a pipe: the start says so at once."""
    path = tmp_path / "group.key"

    def problem() -> str:
        config = with_channel(make_config("a"), key_file=str(path))
        with pytest.raises(ConfigError) as caught:
            read_keys(config.channel)
        text = str(caught.value)
        assert text.startswith(str(path))
        assert ONE.to_text().split(":")[3] not in text
        with pytest.raises(ConfigError, match=r"group\.key"):
            BackgroundNode(config).start()
        return text

    assert "can't be read: No such file" in problem()
    assert f"tribes keygen --output {path}" in problem()
    write(path, ONE)
    path.chmod(0o640)
    assert f"chmod 600 {path}" in problem()
    path.chmod(0o600)
    path.write_text("# comment\n\n" + ONE.to_text()[:-1] + "!\n")
    assert ", line 3" in problem()
    path.write_bytes(bytes(KEY_FILE_MAX_BYTES + 1))
    assert "more than" in problem()
    path.unlink()
    os.mkfifo(path, 0o600)
    assert "not a regular file" in problem()
    path.unlink()
    path.mkdir(0o700)
    assert "regular file" in problem()


def test_the_text_of_a_damaged_key_is_no_local_of_the_traceback(tmp_path: Path) -> None:
    """Some loggers print the locals of every frame."""
    broken = ONE.to_text()[:-1] + "!"
    path = tmp_path / "key"
    path.write_text(broken)
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        read_keys(NodeConfig().channel.__class__(key_file=str(path)))
    secret = broken.split(":")[3]
    traceback = caught.tb
    frames = []
    at = traceback.tb_next
    while at is not None:
        frames.append({name: repr(value) for name, value in at.tb_frame.f_locals.items()})
        at = at.tb_next
    assert frames
    assert secret not in repr(frames)


SCRIPT = """
import sys, tribes, tribes.node, tribes.runtime.parts, tribes.cli.app, tribes.cli.node
from tribes.config.model import ChannelConfig, NodeConfig
from tribes.testing.sim import World
def loaded():
    return [name for name in sys.modules if name.partition(".")[0] == "cryptography"]
world = World(1)
a, b = world.start("a", NodeConfig()), world.start("b", NodeConfig())
world.run(2)
assert a.names() == ["a", "b"] and not loaded(), loaded()
"""


def test_a_group_without_a_key_does_not_load_cryptography() -> None:
    """It costs 14 ms and memory."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
