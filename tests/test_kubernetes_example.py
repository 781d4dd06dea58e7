"""examples/kubernetes: the manifest's numbers fit, its configuration loads, and its command serves.

No cluster is started: the Deployment's own command and variables run as processes on loopback, with
a DNS server that answers for the headless Service.
"""

from __future__ import annotations

import ast
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.ports import free_tcp_port
from tests.runtime.test_discovery import DnsServer
from tests.snippets import code_lines
from tests.waiting import wait_until
from tribes.config import check_config, load_config

FOLDER = Path(__file__).parent.parent / "examples" / "kubernetes"
DOCUMENTS = list(yaml.safe_load_all((FOLDER / "shop.yaml").read_text()))
POD = next(each for each in DOCUMENTS if each["kind"] == "Deployment")["spec"]["template"]
[CONTAINER] = POD["spec"]["containers"]


def named(kind: str, name: str = "shop") -> Any:
    [found] = [
        each for each in DOCUMENTS if each["kind"] == kind and each["metadata"]["name"] == name
    ]
    return found


def variables(folder: Path, **fields: str) -> dict[str, str]:
    """The container's environment, as Kubernetes would fill it in."""
    config = folder / "tribes.toml"
    config.write_text(named("ConfigMap")["data"]["tribes.toml"])
    environment = {}
    for each in CONTAINER["env"]:
        source = each.get("valueFrom", {})
        if "fieldRef" in source:
            environment[each["name"]] = fields[source["fieldRef"]["fieldPath"]]
        elif "secretKeyRef" in source:
            environment[each["name"]] = fields[source["secretKeyRef"]["key"]]
        else:
            environment[each["name"]] = each["value"]
    [mount] = CONTAINER["volumeMounts"]
    path = environment["SHOP_CONFIG"]
    environment["SHOP_CONFIG"] = path.replace(mount["mountPath"], str(folder))
    return environment


@pytest.fixture(scope="module")
def key() -> str:
    """What ``tribes keygen --output`` writes into the file of the Secret."""
    command = [sys.executable, "-m", "tribes", "keygen"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_configuration_loads_and_names_the_headless_service(tmp_path: Path, key: str) -> None:
    fields = {"metadata.name": "shop-1", "status.podIP": "10.1.2.3", "group.key": key}
    environment = variables(tmp_path, **fields)
    config = load_config(environment["SHOP_CONFIG"], environ=environment)
    check_config(config)
    assert config.name == "shop-1"
    assert config.channel.receiver.address == "10.1.2.3"
    assert config.channel.keys
    assert not config.insecure
    membership = config.channel.membership
    assert not membership.multicast
    assert membership.dns is not None
    assert membership.dns.name.split(".")[0] == "shop-members"
    service = named("Service", "shop-members")["spec"]
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"] is True, "a pod is ready after it has joined"
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert ports["tribes"] == membership.dns.port == config.channel.receiver.port
    assert service["ports"] == [{"name": "tribes", "port": ports["tribes"]}]


def test_time_to_leave_is_enough(tmp_path: Path, key: str) -> None:
    """preStop, the requests that run, and the receipts, one after another."""
    fields = {"metadata.name": "a", "status.podIP": "10.1.2.3", "group.key": key}
    environment = variables(tmp_path, **fields)
    config = load_config(environment["SHOP_CONFIG"], environ=environment)
    given: dict[str, Any] = {
        node.arg or "": node.value.value
        for node in ast.walk(ast.parse((FOLDER / "shop.py").read_text()))
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant)
    }
    before_signal = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert before_signal > CONTAINER["readinessProbe"]["periodSeconds"]
    needed = given["notice_s"] + given["timeout_graceful_shutdown"] + config.drain_timeout_s
    assert POD["spec"]["terminationGracePeriodSeconds"] > before_signal + needed


def test_selectors_and_ports_fit() -> None:
    labels = POD["metadata"]["labels"].items()
    deployment = named("Deployment")["spec"]
    for selector in (
        deployment["selector"]["matchLabels"],
        named("Service")["spec"]["selector"],
        named("Service", "shop-members")["spec"]["selector"],
        named("NetworkPolicy", "shop-members")["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels
    names = {port["name"] for port in CONTAINER["ports"]}
    assert named("Service")["spec"]["ports"][0]["targetPort"] in names
    volumes = {volume["name"] for volume in POD["spec"]["volumes"]}
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} <= volumes


@pytest.fixture
def dns_port() -> Iterator[int]:
    """A DNS server that knows the headless Service, at 127.0.0.1."""
    server = DnsServer()
    name = "shop-members.default.svc.cluster.local."
    server.names, server.records = {name}, {(name, "A"): ["127.0.0.1"]}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))

        def run() -> None:
            while True:
                data, address = sock.recvfrom(4096)
                if not data:
                    return
                sock.sendto(server._answer(data), address)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield sock.getsockname()[1]
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
                end.sendto(b"", sock.getsockname())
            thread.join(10)


class Pod:
    """The container's command, as a process."""

    def __init__(self, folder: Path, name: str, key: str, link_port: int, dns_port: int) -> None:
        self.port = free_tcp_port()
        folder.mkdir()
        fields = {"metadata.name": name, "status.podIP": "127.0.0.1", "group.key": key}
        program, *arguments = CONTAINER["command"]
        assert program == "python"
        self.log = folder / "log"
        # What differs where all pods are on one host, and DNS is not the cluster's.
        prefix = "TRIBES_CHANNEL__MEMBERSHIP__DNS__"
        here = {
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "TRIBES_CHANNEL__RECEIVER__PORT": str(link_port),
            "TRIBES_CHANNEL__RECEIVER__AUTO_BIND": "4",
            f"{prefix}PORT": str(link_port),
            f"{prefix}AUTO_BIND": "4",
            f"{prefix}NAMESERVERS": "127.0.0.1",
            f"{prefix}NAMESERVER_PORT": str(dns_port),
            "PYTHONPATH": str(FOLDER.parents[1]),
        }
        outer = {name: os.environ[name] for name in os.environ if not name.startswith("TRIBES_")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=FOLDER,
                env={**outer, **variables(folder, **fields), **here},
                stdout=log,
                stderr=log,
            )

    def get(self, path: str, cookie: str = "") -> httpx.Response | None:
        headers = {"cookie": cookie} if cookie else {}
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(
                f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=30, trust_env=False
            )
        assert self.process.poll() is None, self.log.read_text()
        return None

    def is_ready(self) -> bool:
        probes = CONTAINER["readinessProbe"], CONTAINER["startupProbe"]
        answers = [self.get(probe["httpGet"]["path"]) for probe in probes]
        return all(answer is not None and answer.status_code == 200 for answer in answers)


@pytest.mark.slow
def test_pods_find_each_other_and_a_session_outlives_the_rollout(
    tmp_path: Path, key: str, dns_port: int
) -> None:
    """A pod is stopped as Kubernetes does: it leaves in time with status 0; the other goes on."""
    link_port = free_tcp_port()
    pods = [Pod(tmp_path / name, name, key, link_port, dns_port) for name in ("one", "two")]
    try:
        wait_until(lambda: all(pod.is_ready() for pod in pods), 30)
        one, two = pods
        first = one.get("/")
        assert first is not None
        cookie = first.headers["set-cookie"].partition(";")[0]
        assert first.text == "visit 1"
        wait_until(lambda: "member added" in two.log.read_text(), 20)

        visits = 1

        def is_shared() -> bool:
            nonlocal visits
            answers = [pod.get("/", cookie) for pod in pods]
            visits += 2
            return answers[1] is not None and answers[1].text == f"visit {visits}"

        wait_until(is_shared)
        begin = time.monotonic()
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(40) == 0, one.log.read_text()
        assert time.monotonic() - begin < POD["spec"]["terminationGracePeriodSeconds"]
        last = two.get("/", cookie)
        assert last is not None
        assert last.text == f"visit {visits + 1}"
    finally:
        for pod in pods:
            pod.process.kill()
            pod.process.wait()


def test_what_the_page_shows_beside_the_manifest_is_right(tmp_path: Path) -> None:
    """The other membership loads in place of DNS, and its rights are those that it needs."""
    page = (FOLDER.parents[1] / "docs" / "embedding" / "kubernetes.md").read_text()
    table = page.partition("```toml\n")[2].partition("```")[0]
    config = tmp_path / "tribes.toml"
    before = named("ConfigMap")["data"]["tribes.toml"].partition("[channel.membership.dns]")[0]
    config.write_text(before + table)
    membership = load_config(config).channel.membership
    assert membership.dns is None
    assert membership.kubernetes is not None
    assert membership.kubernetes.labels == "app=shop"
    role, binding = yaml.safe_load_all(page.partition("```yaml\n")[2].partition("```")[0])
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]


def test_the_application_is_short() -> None:
    """Under thirty lines of code, without its docstring and imports."""
    assert 0 < len(code_lines(FOLDER / "shop.py")) < 30
