"""The settings of the port for operators."""

from __future__ import annotations

import msgspec

from tribes.config.bounds import check_ip
from tribes.errors import ConfigError

__all__ = ["HttpConfig", "check_http", "check_http_protection"]


class HttpConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a node tells operators how it is, see ``docs/operations.md``.

    Attributes:
        address: Address to listen on. Any but loopback needs ``token_file``.
        port: TCP port; 0: any free one, which the log names.
        token_file: File with one line, the secret that clients must show, of 16 characters or more.
            Readable by its owner only. Empty: everybody on this machine may look, and nobody may
            change anything.
    """

    address: str = "127.0.0.1"
    port: int = 9480
    token_file: str = ""


def check_http(config: HttpConfig) -> None:
    """Refuse values that cannot work.

    Raises:
        ConfigError: Names the key, what was found and what to write instead.
    """
    if not 0 <= config.port <= 65535:
        raise ConfigError(f"must be from 0 to 65535, found {config.port}", key="http.port")
    check_ip("http.address", config.address)


def check_http_protection(config: HttpConfig) -> None:
    """Refuse a port that others can reach, and that nothing protects.

    Raises:
        ConfigError: Says what to write.
    """
    if not check_ip("http.address", config.address).is_loopback and not config.token_file:
        raise ConfigError(
            f"{config.address} is not a loopback address, and whoever reaches the port could ask; "
            "write a secret into a file (python3 -c 'import secrets; print(secrets.token_hex(16))' "
            "> http.token; chmod 600 http.token) and name it here",
            key="http.token_file",
        )
