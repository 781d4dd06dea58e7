"""TLS between members, on real sockets, with certificates of an authority made for the test."""

from __future__ import annotations

import datetime
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
import trustme

from tests.runtime.test_group_channel import heartbeats
from tests.runtime.test_keys import with_channel
from tests.standstill import Stopwatch
from tests.waiting import until, wait_until
from tribes.channel.outputs import LinkRejected
from tribes.config.model import NodeConfig, StaticMemberConfig, TlsConfig
from tribes.errors import ConfigError, GroupSendError, LocalProtocolError
from tribes.runtime import tls as tls_module
from tribes.runtime.background import BackgroundNode
from tribes.runtime.group_channel import GroupChannel
from tribes.runtime.tls import Tls, TlsStream, load_tls, names_match
from tribes.security.keys import GroupKey
from tribes.wire.frame import FRAME_START

if TYPE_CHECKING:
    from pathlib import Path

    from tribes.channel.outputs import Event

MakeConfig = Callable[..., NodeConfig]
MakeTls = Callable[..., TlsConfig]
posix = pytest.mark.skipif(os.name != "posix", reason="not here: modes of POSIX")


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


class Files:
    """Certificates in files, as an operator has them."""

    def __init__(self, folder: Path, ca: trustme.CA) -> None:
        self.folder = folder
        self.ca = ca
        self._count = 0

    def __call__(
        self,
        *names: str,
        ca: trustme.CA | None = None,
        authorities: trustme.CA | None = None,
        not_after: datetime.datetime | None = None,
        **settings: Any,
    ) -> TlsConfig:
        self._count += 1
        base = self.folder / f"{self._count}"
        issued = (ca or self.ca).issue_cert(*(names or ("127.0.0.1",)), not_after=not_after)
        certificate, private_key = f"{base}.pem", f"{base}.key"
        with open(certificate, "wb") as file:
            file.write(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        with open(os.open(private_key, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(issued.private_key_pem.bytes())
        (authorities or self.ca).cert_pem.write_to_path(f"{base}.ca")
        return TlsConfig(
            certificate=certificate,
            private_key=private_key,
            authorities=f"{base}.ca",
            **settings,
        )


@pytest.fixture
def make_tls(tmp_path: Path, ca: trustme.CA) -> Files:
    return Files(tmp_path, ca)


def labels(channel: GroupChannel) -> list[str]:
    return [member.label for member in channel.members]


# ---- it works ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_members_with_certificates_talk(
    make_config: MakeConfig, make_tls: Files, version: str
) -> None:
    """Both ways, with long messages too; and nobody sees a plain member, nor it them."""
    got: list[bytes] = []

    def config(name: str) -> NodeConfig:
        return with_channel(make_config(name), tls=make_tls(minimum_version=version))

    async with (
        GroupChannel(config("a")) as a,
        GroupChannel(config("b")) as b,
        GroupChannel(make_config("x")) as x,
    ):
        b.add_message_listener(lambda message: got.append(message.message), inline=True)
        a.add_message_listener(lambda message: got.append(message.message), inline=True)
        await until(lambda: bool(a.members and b.members))
        long = os.urandom(5_000_000)
        await a.send(b"hello", options=6)
        await b.send(b"back", options=6)
        await a.send(long, options=6)
        await a.send(b"no answer", options=0)
        await until(lambda: len(got) == 4)
        await heartbeats(6, a, b, x)
        assert got == [b"hello", b"back", long, b"no answer"]
        assert [labels(each) for each in (a, b, x)] == [["b"], ["a"], []]
        for channel in (a, b):
            assert {link.tls is not None for link in channel.shell.links.open.values()} == {True}
            assert channel.shell.core.channel.health.statistics.suspected == 0


@pytest.mark.parametrize("has_key", [False, True])
async def test_members_find_each_other_by_name(
    make_config: MakeConfig, make_tls: Files, has_key: bool
) -> None:
    """Without multicast too, and with a key or without; who has no certificate finds nobody."""
    keys = GroupKey(1, bytes([1]) * 32).to_text() if has_key else ""

    def config(name: str, port: int, tls: TlsConfig | None) -> NodeConfig:
        named = (StaticMemberConfig(host="127.0.0.1", port=port),)
        made = make_config(name)
        membership = msgspec.structs.replace(made.channel.membership, multicast=False, static=named)
        return with_channel(made, membership=membership, tls=tls, keys=keys)

    async with GroupChannel(config("a", 1, make_tls())) as a:
        port = a.local.port
        async with (
            GroupChannel(config("b", port, make_tls())) as b,
            GroupChannel(config("c", port, make_tls())) as c,
            GroupChannel(config("x", port, None)) as x,
        ):
            await until(lambda: [len(each.members) for each in (a, b, c)] == [2, 2, 2])
            await b.send(b"hello", options=6)
            assert labels(x) == []
        await until(lambda: not a.members)


async def test_nothing_readable_is_on_the_wire(
    make_config: MakeConfig, make_tls: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel gets and gives begins with a handshake, and holds no word of the message."""
    wire: list[bytes] = []
    real = tls_module.TlsStream.feed

    def feed(self: TlsStream, data: bytes) -> bytes:
        wire.append(data)
        return real(self, data)

    monkeypatch.setattr(tls_module.TlsStream, "feed", feed)
    async with (
        GroupChannel(with_channel(make_config("a"), tls=make_tls())) as a,
        GroupChannel(with_channel(make_config("b"), tls=make_tls())) as b,
    ):
        await until(lambda: bool(a.members and b.members))
        await a.send(b"a secret word", options=6)
    heard = b"".join(wire)
    assert len(heard) > 2000
    assert b"secret word" not in heard
    assert FRAME_START not in heard


async def test_a_key_and_certificates_go_together(make_config: MakeConfig, make_tls: Files) -> None:
    """Then it takes both."""
    key = GroupKey(1, bytes(32)).to_text()
    async with (
        GroupChannel(with_channel(make_config("a"), tls=make_tls(), keys=key)) as a,
        GroupChannel(with_channel(make_config("b"), tls=make_tls(), keys=key)) as b,
        GroupChannel(with_channel(make_config("c"), tls=make_tls())) as c,
        GroupChannel(with_channel(make_config("d"), keys=key)) as d,
    ):
        await until(lambda: bool(a.members and b.members))
        await a.send(b"x", options=6)
        await heartbeats(10, a, b, c, d)
        assert [labels(each) for each in (a, b, c, d)] == [["b"], ["a"], [], []]


def test_sessions_are_replicated_end_to_end(make_config: MakeConfig, make_tls: Files) -> None:
    """What one node writes is on the other, before and after it joins; a crash is a crash."""
    config = {
        name: with_channel(make_config(name, contexts=("shop",), send_options=6), tls=make_tls())
        for name in "abc"
    }
    a, b, c = (BackgroundNode(config[name]) for name in "abc")
    a.start()
    b.start()
    try:
        wait_until(lambda: len(a.member_names) == 2 and len(b.member_names) == 2)
        assert a.wait_joined(10)
        assert b.wait_joined(10)
        # A member that has not said yet that it has the application gets no commit.
        wait_until(lambda: len(a.manager("shop").copies_on) == 1)
        session = a.manager("shop").create()
        session["cart"] = ["book"] * 1000
        assert a.commit(session).missing == {}
        c.start()
        try:
            assert c.wait_joined(10)
            for node in (b, c):
                found = node.manager("shop").find(session.id)
                assert found is not None
                assert found["cart"] == ["book"] * 1000
            copy = c.manager("shop").find(session.id)
            assert copy is not None
            copy["cart"] = []
            assert c.commit(copy).missing == {}
        finally:
            c.stop()
        wait_until(lambda: len(a.member_names) == 2)
        found = a.manager("shop").find(session.id)
        assert found is not None
        assert found["cart"] == []
    finally:
        a.stop()
        b.stop()


async def test_who_leaves_is_told_from_who_crashes(
    make_config: MakeConfig, make_tls: Files
) -> None:
    """A farewell is not signed: it is believed because the connection is refused then."""
    events: list[Event] = []
    async with GroupChannel(
        with_channel(make_config("a"), tls=make_tls()), watch=events.append
    ) as a:
        async with GroupChannel(with_channel(make_config("b"), tls=make_tls())) as b:
            await until(lambda: bool(a.members and b.members))
        await until(lambda: not a.members)
    removed = [event.fields() for event in events if event.name == "member removed"]
    assert [fields["reason"] for fields in removed] == ["left"]


# ---- who is refused ----------------------------------------------------------------------------


def one_day(days: int) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)


@pytest.mark.parametrize(
    "what", ["other authority", "other authority trusted", "expired", "other address", "other name"]
)
async def test_who_has_not_the_right_certificate_is_no_member(
    make_config: MakeConfig, make_tls: Files, what: str
) -> None:
    """To either side; what it connects with is told, and messages reach nobody."""
    other = trustme.CA()
    good: dict[str, Any] = {}
    if what == "other name":
        good["peer_names"] = ("member.shop.example",)
    wrong = {
        "other authority": lambda: make_tls(ca=other),
        "other authority trusted": lambda: make_tls(ca=other, authorities=other),
        "expired": lambda: make_tls(not_after=one_day(-1)),
        "other address": lambda: make_tls("127.0.0.2"),
        "other name": lambda: make_tls("member.bank.example", "127.0.0.1", peer_names=("any",)),
    }[what]()
    names = ("127.0.0.1", "MEMBER.shop.example") if good else ("127.0.0.1",)
    events: list[Event] = []
    async with (
        GroupChannel(
            with_channel(make_config("a"), tls=make_tls(*names, **good)), watch=events.append
        ) as a,
        GroupChannel(with_channel(make_config("b"), tls=make_tls(*names, **good))) as b,
        GroupChannel(with_channel(make_config("x"), tls=wrong)) as x,
    ):
        await until(lambda: bool(a.members and b.members))
        await until(lambda: any(isinstance(event, LinkRejected) for event in events))
        await heartbeats(10, a, b, x)
        assert labels(a) == ["b"]
        assert labels(b) == ["a"]
        assert labels(x) == []
        assert a.shell.links.tls_failures > 0
        why = next(event.why for event in events if isinstance(event, LinkRejected))
    assert why.startswith("TLS: ")


@contextmanager
def dialled(channel: GroupChannel) -> Iterator[socket.socket]:
    host, port = channel.local.address
    with socket.create_connection((host, port), timeout=5) as sock:
        yield sock


def handshake(channel: GroupChannel, context: ssl.SSLContext) -> bytes:
    """Connect and say something; returns the answer, raises what TLS says."""
    with dialled(channel) as sock, context.wrap_socket(sock) as wrapped:
        wrapped.sendall(b"FLT2002")
        return wrapped.recv(100)


def context_of(authorities: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(authorities)
    return context


async def test_a_client_without_a_certificate_is_refused(
    make_config: MakeConfig, make_tls: Files
) -> None:
    """Unless ``verify_peer`` is off; then it may speak."""
    config = make_tls()
    async with GroupChannel(with_channel(make_config("a"), tls=config)) as a:
        with pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"):
            await trio.to_thread.run_sync(handshake, a, context_of(config.authorities))
        assert a.shell.links.tls_failures == 1
        assert not a.shell.core.channel.accepted.receivers
    off = msgspec.structs.replace(config, verify_peer=False, handshake_timeout=300)
    async with GroupChannel(with_channel(make_config("b"), tls=off)) as b:
        with dialled(b) as sock:
            wrap = context_of(config.authorities).wrap_socket
            with await trio.to_thread.run_sync(wrap, sock) as wrapped:
                assert wrapped.version() == "TLSv1.3"
                await until(lambda: b.shell.core.channel.accepted.door.too_late == 1)
        await until(lambda: len(b.shell.core.channel.accepted.door) == 0)
        assert b.shell.links.tls_failures == 0


async def test_old_versions_are_refused(make_config: MakeConfig, make_tls: Files) -> None:
    """1.2 as well, unless it is allowed."""
    config = make_tls()
    context = context_of(config.authorities)
    context.load_cert_chain(config.certificate, config.private_key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with GroupChannel(with_channel(make_config("a"), tls=config)) as a:
        with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
            await trio.to_thread.run_sync(handshake, a, context)


async def test_a_plain_client_is_refused_and_bounded(
    make_config: MakeConfig, make_tls: Files
) -> None:
    """Its first bytes are no handshake; who says nothing, or goes on slowly, has its time."""
    tls = make_tls(handshake_timeout=400)
    async with GroupChannel(with_channel(make_config("a"), tls=tls)) as a:
        core = a.shell.core.channel
        with dialled(a) as sock:
            sock.sendall(FRAME_START + bytes(100))
            await until(lambda: a.shell.links.tls_failures == 1)
            assert FRAME_START not in await trio.to_thread.run_sync(sock.recv, 100)
        assert core.statistics.frames_received == 0
        with dialled(a) as silent, dialled(a) as slow:
            await until(lambda: len(core.accepted.door) == 2)
            begin, watch = trio.current_time(), Stopwatch()
            hello = client_hello(tls)
            closed = False
            for at in range(len(hello)):
                try:
                    slow.sendall(hello[at : at + 1])
                except OSError:
                    closed = True
                    break
                await trio.sleep(0.02)
            assert closed
            assert trio.current_time() - begin > 0.3
            assert watch.seconds < 2.0
            assert await trio.to_thread.run_sync(silent.recv, 1) == b""
        assert core.accepted.door.too_late == 2
        assert len(core.accepted.door) == 0


def client_hello(config: TlsConfig) -> bytes:
    stream = TlsStream(load_tls(config), "127.0.0.1", is_server=False)
    stream.feed(b"")
    return stream.take()


async def test_hung_handshakes_do_not_stall_others(
    make_config: MakeConfig, make_tls: Files
) -> None:
    """Hundreds that stop in the middle: messages pass, a newcomer joins, and they are bounded."""
    from tribes.channel.door import SILENT_MAX

    tls = make_tls(handshake_timeout=5000)
    hello = client_hello(tls)
    async with (
        GroupChannel(with_channel(make_config("a"), tls=tls)) as a,
        GroupChannel(with_channel(make_config("b"), tls=make_tls())) as b,
    ):
        await until(lambda: bool(a.members and b.members))
        socks = []
        try:
            for number in range(SILENT_MAX + 20):
                sock = socket.create_connection(a.local.address)
                socks.append(sock)
                sock.sendall(hello[: 1 + number % len(hello)])
                if number % 20 == 0:
                    await trio.sleep(0.01)
            door = a.shell.core.channel.accepted.door
            await until(lambda: door.made_room >= 20)
            assert len(door) <= SILENT_MAX
            with trio.fail_after(2):
                await b.send(b"x", options=6)
            async with GroupChannel(with_channel(make_config("c"), tls=make_tls())) as c:
                await until(lambda: len(c.members) == 2 and len(a.members) == 2)
                await c.send(b"y", options=6)
        finally:
            for sock in socks:
                sock.close()


async def test_a_server_that_does_not_finish_its_handshake_costs_the_timeout(
    make_config: MakeConfig, make_tls: Files
) -> None:
    """Who connects waits no longer than for a connection, and sends others in the meantime."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        config = with_channel(make_config("a", timeout=400), tls=make_tls())
        async with (
            GroupChannel(config) as a,
            GroupChannel(with_channel(make_config("b"), tls=make_tls())) as b,
        ):
            await until(lambda: bool(a.members and b.members))
            ghost = b.local.replace(port=mute.getsockname()[1], unique_id=bytes(range(16)))
            with pytest.raises(GroupSendError) as caught:
                await a.send(b"x", [ghost], options=6)
            assert re.search("within 400 ms|no connection", str(caught.value.faulty[ghost]))
            await a.send(b"y", b.local, options=6)


# ---- certificates that change ------------------------------------------------------------------


async def test_certificates_are_read_again_and_links_stay(
    make_config: MakeConfig, make_tls: Files, tmp_path: Path
) -> None:
    """A new authority in three steps, as with keys: trust both, change, trust the new one only."""
    new = trustme.CA()
    events: list[str] = []
    configs = {name: make_tls() for name in "ab"}
    one_ca = make_tls.ca.cert_pem.bytes()
    both = one_ca + new.cert_pem.bytes()
    async with (
        GroupChannel(
            with_channel(make_config("a"), tls=configs["a"]),
            watch=lambda event: events.append(event.name),
        ) as a,
        GroupChannel(with_channel(make_config("b"), tls=configs["b"])) as b,
    ):
        await until(lambda: bool(a.members and b.members))
        await a.send(b"0", options=6)
        links = set(a.shell.links.open)

        def write(path: str, data: bytes) -> None:
            with open(path, "wb") as file:
                file.write(data)

        for step in (both, None, new.cert_pem.bytes()):
            for config, channel in zip(configs.values(), (a, b), strict=True):
                if step is not None:
                    write(config.authorities, step)
                else:
                    issued = new.issue_cert("127.0.0.1")
                    write(config.certificate, issued.cert_chain_pems[0].bytes())
                    write(config.private_key, issued.private_key_pem.bytes())
                channel.reload_certificates()
                await a.send(b"1", options=6)
        assert links <= set(a.shell.links.open)
        assert "member removed" not in events
        # Whoever comes now needs the new one.
        async with (
            GroupChannel(with_channel(make_config("c"), tls=make_tls(ca=new, authorities=new))),
            GroupChannel(with_channel(make_config("d"), tls=make_tls())) as d,
        ):
            await until(lambda: len(a.members) == 2)
            await heartbeats(6, d)
            assert sorted(labels(a)) == ["b", "c"]
        write(configs["a"].certificate, b"nonsense")
        with pytest.raises(ConfigError, match=r"1\.pem: channel\.tls\.certificate"):
            a.reload_certificates()
        await a.send(b"2", b.local, options=6)


def test_a_background_node_reads_certificates_again(
    make_config: MakeConfig, make_tls: Files
) -> None:
    """From any thread; without TLS there is nothing to read."""
    a, b = (
        BackgroundNode(with_channel(make_config("a"), tls=make_tls())),
        BackgroundNode(make_config("b")),
    )
    a.start()
    b.start()
    try:
        before = a.channel.shell.links.tls
        a.reload_certificates()
        assert a.channel.shell.links.tls is not before
        with pytest.raises(LocalProtocolError, match=r"channel\.tls"):
            b.reload_certificates()
    finally:
        a.stop()
        b.stop()


# ---- files -------------------------------------------------------------------------------------


@posix
def test_files_that_cannot_be_used_are_named_with_the_remedy(
    make_config: MakeConfig, make_tls: Files, tmp_path: Path
) -> None:
    """Missing, open to others, not PEM, of another certificate, encrypted, a folder, a pipe."""
    good, other = make_tls(), make_tls()

    def problem(**changes: str) -> str:
        config = msgspec.structs.replace(good, **changes)
        with pytest.raises(ConfigError) as caught:
            load_tls(config)
        with pytest.raises(ConfigError):
            BackgroundNode(with_channel(make_config("a"), tls=config)).start()
        assert caught.value.key.startswith("channel.tls.")
        assert caught.value.source
        return str(caught.value)

    none = str(tmp_path / "none")
    for name in ("certificate", "authorities", "private_key"):
        assert f"{none}: channel.tls.{name}: this file can't be read" in problem(**{name: none})
        assert "regular file" in problem(**{name: str(tmp_path)})
    assert "not the key of the certificate" in problem(private_key=other.private_key)
    assert "channel.tls.certificate" in problem(certificate=good.private_key)
    assert "channel.tls.authorities" in problem(authorities=good.private_key)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    assert "not a regular file" in problem(authorities=str(pipe))
    os.chmod(other.private_key, 0o640)
    assert f"chmod 600 {other.private_key}" in problem(private_key=other.private_key)
    encrypted = tmp_path / "encrypted"
    encrypted.touch(0o600)
    encrypted.write_bytes(encrypt(good.private_key))
    assert "this key is encrypted" in problem(private_key=str(encrypted))
    together = tmp_path / "together"
    together.touch(0o600)
    with open(good.certificate, "rb") as one, open(good.private_key, "rb") as two:
        together.write_bytes(one.read() + two.read())
    load_tls(msgspec.structs.replace(good, certificate=str(together), private_key=""))


def encrypt(path: str) -> bytes:
    from cryptography.hazmat.primitives import serialization

    with open(path, "rb") as file:
        key = serialization.load_pem_private_key(file.read(), None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"x"),
    )


# ---- parts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "host", "wanted", "matches"),
    [
        (["10.0.0.1"], "10.0.0.1", (), True),
        (["10.0.0.1"], "::ffff:10.0.0.1", (), True),
        (["10.0.0.2"], "10.0.0.1", (), False),
        (["fe80:0::1"], "fe80::1%eth0", (), True),
        (["a.example"], "10.0.0.1", (), False),
        (["A.example"], "10.0.0.1", ("a.example",), True),
        (["*.example"], "10.0.0.1", ("a.example",), False),
        (["10.0.0.1"], "10.0.0.1", ("a.example",), False),
        ([], "10.0.0.1", (), False),
    ],
)
def test_names_of_certificates(
    names: list[str], host: str, wanted: tuple[str, ...], matches: bool
) -> None:
    """Whole names only, and the address when no name is asked for."""
    kinds = [("IP Address" if n[0].isdigit() or ":" in n else "DNS", n) for n in names]
    assert names_match({"subjectAltName": tuple(kinds)}, host, wanted) is matches


def pair(tls: Tls) -> tuple[TlsStream, TlsStream]:
    client = TlsStream(tls, "127.0.0.1", is_server=False)
    server = TlsStream(tls, "127.0.0.1", is_server=True)
    client.feed(b"")
    for _ in range(5):
        server.feed(client.take())
        client.feed(server.take())
    assert client.is_open
    assert server.is_open
    return client, server


REFUSED: dict[str, dict[str, dict[str, Any]]] = {
    "another authority's": {"wrong": {"ca": "other"}},
    "expired": {"wrong": {"not_after": -1}},
    "of another address": {"wrong": {"names": ("10.0.0.1",)}},
    "of another name": {
        "wrong": {"names": ("bank.example", "127.0.0.1")},
        "right": {"names": ("shop.example",), "peer_names": ("shop.example",)},
    },
}


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("what", REFUSED)
def test_each_side_checks_the_certificate_of_the_other(
    make_tls: Files, side: str, what: str
) -> None:
    """Whoever has the wrong one, nothing that it says after the handshake is passed on."""

    def make(who: str) -> Tls:
        settings = dict(REFUSED[what].get(who, {}))
        names = settings.pop("names", ())
        if settings.pop("ca", None):
            settings["ca"] = trustme.CA()
        if "not_after" in settings:
            settings["not_after"] = one_day(settings["not_after"])
        if who == "wrong":
            settings["peer_names"] = ("any",)
        return load_tls(make_tls(*names, **settings))

    wrong, right = make("wrong"), make("right")
    client = TlsStream(right if side == "server" else wrong, "127.0.0.1", is_server=False)
    server = TlsStream(wrong if side == "server" else right, "127.0.0.1", is_server=True)
    judge, judged = (client, server) if side == "server" else (server, client)

    def shake() -> None:
        client.feed(b"")
        for _ in range(3):
            server.feed(client.take())
            client.feed(server.take())
        judged.write(b"believe me")
        judge.feed(judged.take())

    with pytest.raises(ConnectionAbortedError, match=r"TLS: .*certificate"):
        shake()
    assert not judge.is_open


def test_a_server_demands_a_certificate_and_a_version(make_tls: Files) -> None:
    """A client that has none, or that speaks TLS 1.2 only."""
    config = make_tls()
    tls = load_tls(config)
    bare = context_of(config.authorities)
    old = context_of(config.authorities)
    old.load_cert_chain(config.certificate, config.private_key)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    for context, why in ((bare, "certificate"), (old, "protocol")):
        server = TlsStream(tls, "127.0.0.1", is_server=True)
        client = TlsStream(
            Tls(tls.server, context, frozenset(), is_any=True), "127.0.0.1", is_server=False
        )
        client.feed(b"")
        with pytest.raises(ConnectionAbortedError, match=why):
            server.feed(client.take()) or client.feed(server.take()) or server.feed(client.take())


def test_no_tickets_and_no_resumption(make_tls: Files) -> None:
    """A server that has finished its handshake has nothing more to say."""
    client, server = pair(load_tls(make_tls()))
    assert not server.has_output
    assert not client.has_output
    assert client._object.session is None or not client._object.session.has_ticket
    client.write(b"x" * 100_000)
    assert server.feed(client.take()) == b"x" * 100_000


def test_a_damaged_handshake_ends_in_one_kind_of_error(make_tls: Files) -> None:
    """Whatever is flipped, cut or put in, on either side: the shell knows what to expect."""
    tls, random = load_tls(make_tls()), Random(4)
    refused = 0
    for number in range(400):
        client = TlsStream(tls, "127.0.0.1", is_server=False)
        server = TlsStream(tls, "127.0.0.1", is_server=True)
        try:
            client.feed(b"")
            for turn in range(3):
                for source, target in ((client, server), (server, client)):
                    data = bytearray(source.take())
                    if data and turn == number % 2 and (source is client) == (number % 4 < 2):
                        at = random.randrange(len(data))
                        change = random.choice((b"", random.randbytes(1), random.randbytes(40)))
                        data[at : at + random.choice((0, 1, 9))] = change
                    target.feed(bytes(data))
        except ConnectionAbortedError:
            refused += 1
    assert refused > 200


def test_changed_bytes_end_the_connection(make_tls: Files) -> None:
    """A record that was changed, repeated or left out: nothing of it is passed on."""
    tls = load_tls(make_tls())
    for change in ("flip", "repeat", "leave out"):
        client, server = pair(tls)
        client.write(b"one")
        one = client.take()
        client.write(b"two")
        two = client.take()
        if change == "flip":
            one = one[:-1] + bytes((one[-1] ^ 1,))
        data = {"flip": one, "repeat": one + one, "leave out": two}[change]
        with pytest.raises(ConnectionAbortedError, match="TLS: "):
            server.feed(data)
