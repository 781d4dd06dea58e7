"""Hosts by name, DNS and Kubernetes: against real servers of the test's own, on loopback."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import dns.message
import dns.rcode
import dns.rrset
import msgspec
import pytest
import trio
import trustme

from tests.waiting import until
from tribes.config.model import (
    DnsConfig,
    KubernetesConfig,
    MembershipConfig,
    NodeConfig,
    StaticMemberConfig,
)
from tribes.errors import ConfigError, DiscoveryError
from tribes.membership.seeker import NamedHost
from tribes.runtime import kubernetes
from tribes.runtime.discovery import HostNames, discovery_services, run_service
from tribes.runtime.dns_hosts import DnsHosts
from tribes.runtime.group_channel import GroupChannel
from tribes.runtime.kubernetes import KubernetesPods

if TYPE_CHECKING:
    from pathlib import Path

    from tribes.channel.outputs import Event

# ---- DNS -----------------------------------------------------------------------------------------


class DnsServer:
    """Answers A and AAAA questions from a table, over UDP."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], list[str]] = {}
        self.names = {"members.test."}
        self.answers = True
        self.port = 0

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        sock = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
        with sock:
            await sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
            task_status.started()
            while True:
                data, address = await sock.recvfrom(4096)
                if self.answers:
                    await sock.sendto(self._answer(data), address)

    def _answer(self, data: bytes) -> bytes:
        query = dns.message.from_wire(data)
        reply = dns.message.make_response(query)
        (question,) = query.question
        kind = question.rdtype.name
        if str(question.name) not in self.names:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        elif addresses := self.records.get((str(question.name), kind)):
            reply.answer.append(dns.rrset.from_text(question.name, 1, "IN", kind, *addresses))
        return reply.to_wire()


@asynccontextmanager
async def dns_server() -> AsyncIterator[DnsServer]:
    server = DnsServer()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        yield server
        nursery.cancel_scope.cancel()


def dns_config(server: DnsServer, **settings: Any) -> DnsConfig:
    return DnsConfig(
        name="members.test.",
        nameservers=("127.0.0.1",),
        nameserver_port=server.port,
        timeout=1000,
        **settings,
    )


async def test_a_name_gives_all_its_addresses_of_both_kinds() -> None:
    """With the configured ports; and nothing when it has none."""
    async with dns_server() as server:
        service = DnsHosts(dns_config(server, port=4100, auto_bind=4))
        server.records["members.test.", "A"] = ["127.0.0.2", "127.0.0.3"]
        server.records["members.test.", "AAAA"] = ["::1"]
        hosts = await service.look_up()
        assert set(hosts) == {
            NamedHost(each, 4100, 4) for each in ("127.0.0.2", "127.0.0.3", "::1")
        }
        server.records.clear()
        assert await service.look_up() == []


async def test_a_name_that_does_not_exist_or_is_not_answered_is_an_error() -> None:
    """So that the last known hosts are kept."""
    async with dns_server() as server:
        service = DnsHosts(dns_config(server))
        server.names.clear()
        with pytest.raises(DiscoveryError, match=r"members\.test"):
            await service.look_up()
        server.answers = False
        with trio.fail_after(10), pytest.raises(DiscoveryError):
            await service.look_up()


async def test_the_name_comes_from_the_environment_as_tomcats() -> None:
    """Where the configuration gives none; without either, that is said."""
    environment = {"DNS_MEMBERSHIP_SERVICE_NAME": "members.test."}
    async with dns_server() as server:
        config = msgspec.structs.replace(dns_config(server, port=4100), name="")
        server.records["members.test.", "A"] = ["127.0.0.2"]
        assert await DnsHosts(config, environment).look_up() == [NamedHost("127.0.0.2", 4100)]
    with pytest.raises(ConfigError, match="DNS_MEMBERSHIP_SERVICE_NAME"):
        DnsHosts(DnsConfig(), {})


async def test_members_meet_by_a_dns_name_without_multicast(
    make_config: Callable[..., NodeConfig],
) -> None:
    """One record is enough for three members, and a server that stops answering parts nobody."""
    async with dns_server() as server, trio.open_nursery() as nursery:
        events: list[Event] = []

        async def channel(name: str, port: int) -> GroupChannel:
            service = dns_config(server, port=port, refresh=50)
            config = _named(make_config(name), dns=service)
            channel = GroupChannel(config, watch=events.append)
            await nursery.start(_run, channel)
            return channel

        server.records["members.test.", "A"] = ["127.0.0.1"]
        first = await channel("a", 1)
        port = first.local.port
        second, third = await channel("b", port), await channel("c", port)
        await until(lambda: [len(c.members) for c in (first, second, third)] == [2, 2, 2])
        server.answers = False
        await until(lambda: any(event.name == "discovery failed" for event in events), 20)
        assert [len(c.members) for c in (first, second, third)] == [2, 2, 2]
        nursery.cancel_scope.cancel()


# ---- names of the system -------------------------------------------------------------------------


async def test_a_host_name_is_looked_up_and_kept_when_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last addresses of a name stay; a failure of all is an error."""
    service = HostNames([StaticMemberConfig(host="localhost", port=4001)], 5.0)
    hosts = await service.look_up()
    assert NamedHost("127.0.0.1", 4001) in hosts

    async def fails(*_: object, **__: object) -> None:
        raise OSError("no such name")

    monkeypatch.setattr(trio.socket, "getaddrinfo", fails)
    assert await service.look_up() == hosts
    with pytest.raises(DiscoveryError, match="no such name"):
        await HostNames([StaticMemberConfig(host="other.test")], 5.0).look_up()


def test_only_what_is_configured_is_looked_up() -> None:
    """Addresses need no service."""
    addresses = tuple(StaticMemberConfig(host=host) for host in ("127.0.0.1", "::1"))
    assert discovery_services(MembershipConfig(static=addresses)) == []
    both = (*addresses, StaticMemberConfig(host="localhost"))
    (service,) = discovery_services(MembershipConfig(static=both))
    assert service.name == "static names"


class Flaky:
    """A service some of whose look-ups fail."""

    name = "flaky"
    refresh = 5.0

    def __init__(self, failing: range, error: Exception) -> None:
        self.calls = 0
        self._failing = failing
        self._error = error

    async def look_up(self) -> list[NamedHost]:
        self.calls += 1
        if self.calls in self._failing:
            raise self._error
        return [NamedHost("127.0.0.1", self.calls)]


async def test_a_failing_service_is_told_once_and_keeps_its_hosts(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """One event when it fails and one when it works again, however often it is asked between."""
    found: list[tuple[str, int]] = []
    events: list[Event] = []
    with trio.move_on_after(34):
        await run_service(
            Flaky(range(2, 6), DiscoveryError("asleep")),
            lambda name, hosts: found.append((name, hosts[0].port)),
            events.append,
        )
    assert found == [("flaky", 1), ("flaky", 6), ("flaky", 7)]
    assert [event.name for event in events] == ["discovery failed", "discovery works again"]
    assert events[0].fields() == {"service": "flaky", "why": "asleep"}


async def test_what_no_service_should_raise_costs_a_look_up_and_not_the_node(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Libraries of others stand behind the services."""
    found: list[int] = []
    events: list[Event] = []
    with trio.move_on_after(8):
        service = Flaky(range(1, 2), ValueError("an odd answer"))
        await run_service(service, lambda _, hosts: found.append(hosts[0].port), events.append)
    assert found == [2]
    assert [event.name for event in events] == ["discovery failed", "discovery works again"]
    assert events[0].fields() == {"service": "flaky", "why": "ValueError: an odd answer"}


# ---- Kubernetes ----------------------------------------------------------------------------------


class FakeApi:
    """The part of Kubernetes' API server that lists pods, over TLS."""

    def __init__(self, certificate: trustme.LeafCert) -> None:
        self.pods: list[dict[str, Any]] = []
        self.status = 200
        self.body: bytes | None = None
        self.requests: list[tuple[str, dict[str, list[str]], str | None]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                split = urlsplit(self.path)
                query = parse_qs(split.query)
                api.requests.append((split.path, query, self.headers.get("Authorization")))
                body = api.answer(query) if api.body is None else api.body
                self.send_response(api.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    self.wfile.write(body)
                except OSError:
                    return  # the client has read enough

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, query: dict[str, list[str]]) -> bytes:
        start = int(query.get("continue", ["0"])[0])
        end = start + int(query["limit"][0])
        metadata = {"continue": str(end)} if end < len(self.pods) else {}
        return json.dumps({"metadata": metadata, "items": self.pods[start:end]}).encode()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Signs the fake server's certificate."""
    return trustme.CA()


@pytest.fixture
def api(authority: trustme.CA) -> Iterator[FakeApi]:
    """A fake API server."""
    made = FakeApi(authority.issue_cert("127.0.0.1"))
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def config(api: FakeApi, authority: trustme.CA, tmp_path: Path) -> KubernetesConfig:
    """What a pod would be told of that server."""
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    (tmp_path / "token").write_text("secret-1\n")
    return KubernetesConfig(
        namespace="shop",
        url=api.url,
        ca_file=str(tmp_path / "ca.crt"),
        token_file=str(tmp_path / "token"),
        read_timeout=5000,
    )


def pod(ip: str, phase: str = "Running", **metadata: str) -> dict[str, Any]:
    return {
        "metadata": {"name": ip, "uid": ip, **metadata},
        "status": {"phase": phase, "podIP": ip, "conditions": []},
    }


async def test_running_pods_are_hosts(api: FakeApi, config: KubernetesConfig) -> None:
    """Not those that wait, end, or have no address; the token is read again for each list."""
    api.pods = [
        pod("10.130.140.153"),
        pod("10.129.132.10"),
        pod("fd00::7"),
        pod("10.0.0.1", "Pending"),
        pod("10.0.0.2", "Succeeded"),
        pod("10.0.0.3", deletionTimestamp="2026-01-01T00:00:00Z"),
        pod(""),
        pod("not an address"),
        {"metadata": {}, "status": {}},
    ]
    service = KubernetesPods(
        msgspec.structs.replace(config, labels="app=shop,tier!=db", port=4100, auto_bind=2), {}
    )
    expected = [NamedHost(ip, 4100, 2) for ip in ("10.130.140.153", "10.129.132.10", "fd00::7")]
    assert await service.look_up() == expected
    await trio.Path(config.token_file).write_text("secret-2")
    await service.look_up()
    assert api.requests == [
        (
            "/api/v1/namespaces/shop/pods",
            {"limit": ["500"], "labelSelector": ["app=shop,tier!=db"]},
            f"Bearer secret-{i}",
        )
        for i in (1, 2)
    ]


async def test_long_lists_come_in_pages_and_are_bounded(
    api: FakeApi, config: KubernetesConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four pages are read, and of one page no more than its bound."""
    api.pods = [pod(f"10.0.{i // 250}.{i % 250 + 1}") for i in range(2600)]
    hosts = await KubernetesPods(config, {}).look_up()
    assert len(hosts) == kubernetes.PAGES_MAX * 500
    assert len(api.requests) == kubernetes.PAGES_MAX
    monkeypatch.setattr(kubernetes, "RESPONSE_MAX_BYTES", 1000)
    with pytest.raises(DiscoveryError, match="more than 1000 bytes"):
        await KubernetesPods(config, {}).look_up()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (403, b"{}", "answers 403"),
        (500, b"", "answers 500"),
        (302, b"", "answers 302"),
        (200, b"no json", "no list of pods"),
        (200, b'{"items": 3}', "no list of pods"),
        (200, b'{"items": [{"status": {"podIP": 7}}]}', "no list of pods"),
        (200, b"{}", "no list of pods"),
        (200, b'{"items": [{"status": {"phase": "\xff"}}]}', "no list of pods"),
    ],
)
async def test_other_answers_are_errors(
    api: FakeApi, config: KubernetesConfig, status: int, body: bytes, said: str
) -> None:
    """Each says what is wrong, and leaves the last list as it was."""
    api.status, api.body = status, body
    with pytest.raises(DiscoveryError, match=said):
        await KubernetesPods(config, {}).look_up()


async def test_servers_that_cannot_be_trusted_or_reached_are_errors(
    config: KubernetesConfig, tmp_path: Path
) -> None:
    """Another authority, another port, no token."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.crt")
    other = msgspec.structs.replace(config, ca_file=str(tmp_path / "other.crt"))
    with pytest.raises(DiscoveryError, match=r"(?i)certificate"):
        await KubernetesPods(other, {}).look_up()
    nobody = msgspec.structs.replace(config, url="https://127.0.0.1:1")
    with pytest.raises(DiscoveryError, match="ConnectError"):
        await KubernetesPods(nobody, {}).look_up()
    await trio.Path(config.token_file).unlink()
    with pytest.raises(DiscoveryError, match="token"):
        await KubernetesPods(config, {}).look_up()


@pytest.mark.parametrize("prefix", ["KUBERNETES_", "OPENSHIFT_KUBE_PING_"])
async def test_the_environment_of_a_pod_is_enough(
    api: FakeApi, config: KubernetesConfig, prefix: str
) -> None:
    """The variables that Tomcat's provider reads, under both of its prefixes."""
    host, port = api.url.removeprefix("https://").split(":")
    environment = {
        "KUBERNETES_SERVICE_HOST" if prefix == "KUBERNETES_" else prefix + "MASTER_HOST": host,
        "KUBERNETES_SERVICE_PORT" if prefix == "KUBERNETES_" else prefix + "MASTER_PORT": port,
        prefix + "NAMESPACE": "from-environment",
        prefix + "LABELS": "a=b",
        prefix + "SA_TOKEN_FILE": config.token_file,
        prefix + "CA_CERT_FILE": config.ca_file,
    }
    api.pods = [pod("10.0.0.9")]
    assert await KubernetesPods(KubernetesConfig(), environment).look_up() == [
        NamedHost("10.0.0.9", 4000)
    ]
    (request,) = api.requests
    assert request[0] == "/api/v1/namespaces/from-environment/pods"
    assert request[1]["labelSelector"] == ["a=b"]


async def test_a_client_certificate_stands_for_the_token(
    api: FakeApi, config: KubernetesConfig, authority: trustme.CA, tmp_path: Path
) -> None:
    """Then no token is read or sent."""
    client = authority.issue_cert("pod@example.test")
    client.private_key_pem.write_to_path(tmp_path / "key.pem")
    client.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    changed = msgspec.structs.replace(
        config,
        token_file="/nowhere",
        client_cert_file=str(tmp_path / "cert.pem"),
        client_key_file=str(tmp_path / "key.pem"),
    )
    assert await KubernetesPods(changed, {}).look_up() == []
    assert api.requests[0][2] is None


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    """No server, no certificates."""
    with pytest.raises(ConfigError, match="KUBERNETES_SERVICE_HOST") as caught:
        KubernetesPods(KubernetesConfig(), {})
    assert caught.value.key == "channel.membership.kubernetes.url"
    missing = KubernetesConfig(url="https://127.0.0.1", ca_file=str(tmp_path / "none"))
    with pytest.raises(ConfigError) as caught:
        KubernetesPods(missing, {})
    assert caught.value.key == "channel.membership.kubernetes.ca_file"


async def test_members_meet_by_kubernetes_without_multicast(
    api: FakeApi, config: KubernetesConfig, make_config: Callable[..., NodeConfig]
) -> None:
    """Two members that know nothing but the API server."""
    async with trio.open_nursery() as nursery:
        first = await nursery.start(_run, GroupChannel(_named(make_config("a"))))
        api.pods = [pod("127.0.0.1")]
        service = msgspec.structs.replace(config, port=first.local.port, refresh=100)
        second = await nursery.start(
            _run, GroupChannel(_named(make_config("b"), kubernetes=service))
        )
        await until(lambda: [m.label for m in first.members + second.members] == ["b", "a"])
        nursery.cancel_scope.cancel()


# ---- tools ---------------------------------------------------------------------------------------


def _named(config: NodeConfig, **services: Any) -> NodeConfig:
    replace = msgspec.structs.replace
    membership = replace(config.channel.membership, multicast=False, **services)
    return replace(config, channel=replace(config.channel, membership=membership))


async def _run(
    channel: GroupChannel, *, task_status: trio.TaskStatus[GroupChannel] = trio.TASK_STATUS_IGNORED
) -> None:
    async with channel:
        task_status.started(channel)
        await trio.sleep_forever()
