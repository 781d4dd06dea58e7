"""Hosts by the running pods of a Kubernetes namespace (tribes-wire §6.3).

What the configuration leaves empty comes from the environment variables that Tomcat's provider
reads, each as ``OPENSHIFT_KUBE_PING_…`` or ``KUBERNETES_…``, and from the files that Kubernetes
mounts into every pod. The service account needs the right to list pods.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import msgspec
import trio

from tribes.errors import ConfigError, DiscoveryError
from tribes.membership.seeker import NamedHost

if TYPE_CHECKING:
    from tribes.config.model import KubernetesConfig

try:
    import httpx
except ImportError as why:
    raise ConfigError(
        "needs the package httpx; install it with: pip install 'tribes[kubernetes]'",
        key="channel.membership.kubernetes",
    ) from why

__all__ = ["PAGES_MAX", "RESPONSE_MAX_BYTES", "KubernetesPods"]

_KEY: Final = "channel.membership.kubernetes"
_PREFIXES: Final = ("OPENSHIFT_KUBE_PING_", "KUBERNETES_")
_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")

RESPONSE_MAX_BYTES: Final = 16 * 1024 * 1024
"""Longest answer that is read: 500 pods at 32 KiB."""

_PODS_PER_PAGE: Final = 500
PAGES_MAX: Final = 4
"""Answers that are read for one list."""

_TOKEN_MAX_BYTES: Final = 64 * 1024
_READS: Final = 10
"""How many times ``read_timeout`` one list may take in all."""


class _Status(msgspec.Struct):
    phase: str = ""
    podIP: str = ""  # noqa: N815 - Kubernetes' name


class _PodMetadata(msgspec.Struct):
    deletionTimestamp: str | None = None  # noqa: N815 - Kubernetes' name


class _Pod(msgspec.Struct):
    metadata: _PodMetadata = msgspec.field(default_factory=_PodMetadata)
    status: _Status = msgspec.field(default_factory=_Status)


class _ListMetadata(msgspec.Struct):
    next: str = msgspec.field(default="", name="continue")


class _PodList(msgspec.Struct):
    items: list[_Pod]
    metadata: _ListMetadata = msgspec.field(default_factory=_ListMetadata)


@final
class KubernetesPods:
    """The pods of one namespace. A `DiscoveryService`.

    Args:
        config: What differs from the environment.
        environment: Environment variables.

    Raises:
        ConfigError: There is no server, or a certificate cannot be read.
    """

    def __init__(
        self, config: KubernetesConfig, environment: Mapping[str, str] = os.environ
    ) -> None:
        self.name = "kubernetes"
        self.refresh = config.refresh / 1000
        self._config = config
        self._environment = environment
        namespace = config.namespace or self._variable("NAMESPACE") or "tomcat"
        version = config.api_version or self._variable("API_VERSION") or "v1"
        self._url = f"{self._server()}/api/{version}/namespaces/{namespace}/pods"
        self._labels = config.labels or self._variable("LABELS")
        self._client_cert = config.client_cert_file or self._variable("CLIENT_CERT_FILE")
        self._token_file = (
            config.token_file or self._variable("SA_TOKEN_FILE") or str(_ACCOUNT / "token")
        )
        self._tls = self._tls_context() if self._url.startswith("https:") else None

    def _variable(self, name: str) -> str:
        for prefix in _PREFIXES:
            if value := self._environment.get(prefix + name):
                return value
        return ""

    def _server(self) -> str:
        if self._config.url:
            return self._config.url.rstrip("/")
        protocol = self._variable("MASTER_PROTOCOL") or "https"
        host = self._variable("MASTER_HOST") or self._variable("SERVICE_HOST")
        port = self._variable("MASTER_PORT") or self._variable("SERVICE_PORT")
        if not host:
            raise ConfigError(
                "is empty, and KUBERNETES_SERVICE_HOST is not set, so this does not seem to be a "
                "pod; write the API server's URL like https://10.0.0.1:443",
                key=f"{_KEY}.url",
            )
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        return f"{protocol}://{host}" + (f":{port}" if port else "")

    def _tls_context(self) -> ssl.SSLContext:
        ca_file = self._config.ca_file or self._variable("CA_CERT_FILE")
        if not ca_file and (_ACCOUNT / "ca.crt").exists():
            ca_file = str(_ACCOUNT / "ca.crt")
        try:
            context = ssl.create_default_context(cafile=ca_file or None)
        except OSError as why:
            raise ConfigError(
                f"{ca_file} cannot be used: {why}; name a file of PEM certificates",
                key=f"{_KEY}.ca_file",
            ) from None
        if self._client_cert:
            key_file = self._config.client_key_file or self._variable("CLIENT_KEY_FILE")
            password = self._variable("CLIENT_KEY_PASSWORD") or None
            try:
                context.load_cert_chain(self._client_cert, key_file or None, password)
            except OSError as why:
                raise ConfigError(
                    f"{self._client_cert} and its key cannot be used: {why}",
                    key=f"{_KEY}.client_cert_file",
                ) from None
        return context

    async def look_up(self) -> list[NamedHost]:
        """See `DiscoveryService`: the addresses of all pods that run and are not being deleted."""
        config = self._config
        timeout = httpx.Timeout(config.read_timeout / 1000, connect=config.connect_timeout / 1000)
        with trio.move_on_after((config.connect_timeout + _READS * config.read_timeout) / 1000):
            try:
                # The server is named outright: what proxies the environment names is not for it.
                async with httpx.AsyncClient(
                    verify=self._tls or False, timeout=timeout, trust_env=False
                ) as client:
                    return await self._all_pods(client)
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as why:
                raise DiscoveryError(f"{self._url}: {_reason(why)}") from why
        raise DiscoveryError(f"{self._url}: the list takes too long")

    async def _all_pods(self, client: httpx.AsyncClient) -> list[NamedHost]:
        hosts: dict[NamedHost, None] = {}
        query = {"limit": str(_PODS_PER_PAGE)}
        if self._labels:
            query["labelSelector"] = self._labels
        headers = self._headers()
        for _ in range(PAGES_MAX):
            page = await self._page(client, query, headers)
            for pod in page.items:
                if pod.status.phase != "Running" or pod.metadata.deletionTimestamp:
                    continue
                if address := _ip(pod.status.podIP):
                    hosts[NamedHost(address, self._config.port, self._config.auto_bind)] = None
            if not page.metadata.next:
                break
            query["continue"] = page.metadata.next
        return list(hosts)

    async def _page(
        self, client: httpx.AsyncClient, query: dict[str, str], headers: dict[str, str]
    ) -> _PodList:
        data = bytearray()
        async with client.stream("GET", self._url, params=query, headers=headers) as response:
            if response.status_code != httpx.codes.OK:
                raise DiscoveryError(f"{self._url}: the server answers {response.status_code}")
            # Cancelled, not broken off: httpx reads by generators within generators, and only what
            # is raised in the innermost one ends all of them.
            with trio.CancelScope() as scope:
                async for piece in response.aiter_bytes():
                    if len(data) + len(piece) <= RESPONSE_MAX_BYTES:
                        data += piece
                    else:
                        scope.cancel()
            if scope.cancel_called:
                raise DiscoveryError(
                    f"{self._url}: the answer has more than {RESPONSE_MAX_BYTES} bytes"
                )
        try:
            return msgspec.json.decode(data, type=_PodList)
        except (msgspec.DecodeError, UnicodeDecodeError) as why:
            raise DiscoveryError(f"{self._url}: no list of pods: {why}") from why

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self._client_cert:
            return headers
        try:
            with open(self._token_file, "rb") as file:
                token = file.read(_TOKEN_MAX_BYTES).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as why:
            raise DiscoveryError(f"the token in {self._token_file} cannot be read: {why}") from why
        headers["Authorization"] = f"Bearer {token}"
        return headers


def _reason(why: Exception) -> str:
    # httpx says nothing itself of what went wrong with the certificate.
    deepest: BaseException = why
    while not str(deepest) and (inner := deepest.__cause__ or deepest.__context__) is not None:
        deepest = inner
    return f"{type(why).__name__}: {deepest}"


def _ip(text: Any) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
