"""The text of an attribute as a value of the model. Each kind says what it allows."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any, Final

from tribes.config.options import parse_send_options
from tribes.config.patterns import compiled
from tribes.errors import ConfigError
from tribes.ids import parse_unique_id

__all__ = ["read_value"]

_INT: Final = re.compile(r"[+-]?[0-9]{1,10}", re.ASCII)
_I32_MAX: Final = 2**31 - 1
_TRUTHS: Final = {"true": True, "false": False}
_PROPERTY: Final = re.compile(r"\$\{([^}]*)\}")


def read_value(kind: str, text: str) -> Any:
    """Return the value.

    Args:
        kind: As the table of the attribute says.
        text: As it stands in the document, without blanks around it.

    Raises:
        ValueError: What was found and what is allowed.
    """
    if found := _PROPERTY.search(text):
        raise ValueError(
            f"refers to the property {found[0]}, which only a running Tomcat knows; write its "
            "value, or set the key by an environment variable TRIBES_..."
        )
    return _READERS[kind](text)


def _int(text: str) -> int:
    if not _INT.fullmatch(text) or not -_I32_MAX - 1 <= int(text) <= _I32_MAX:
        raise ValueError(f"must be a whole number, at most {_I32_MAX}")
    return int(text)


def _bool(text: str) -> bool:
    if text.lower() not in _TRUTHS:
        raise ValueError("must be true or false")
    return _TRUTHS[text.lower()]


def _options(text: str) -> int:
    try:
        return parse_send_options(text)
    except ConfigError as why:
        raise ValueError(why.message) from None


def _octets(text: str) -> str:
    """An address, where Tomcat's ``{127,0,0,1}`` is one too."""
    if not (text.startswith("{") and text.endswith("}")):
        return text
    try:
        octets = bytes(_int(part.strip()) % 256 for part in text[1:-1].split(","))
        return str(ipaddress.ip_address(octets))
    except ValueError:
        raise ValueError("must be an address or a name, or {…} with 4 or 16 bytes") from None


def _address(text: str) -> str:
    if text == "auto":
        return text
    try:
        return str(ipaddress.ip_address(_octets(text)))
    except ValueError:
        raise ValueError("must be an IP address like 192.0.2.1, or auto") from None


def _host(text: str) -> str:
    if not text or len(text) > 255:
        raise ValueError("must be an IP address or a name")
    return _octets(text)


def _unique_id(text: str) -> str:
    try:
        parse_unique_id(text)
    except ValueError:
        raise ValueError("must be 16 bytes, like {0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15}") from None
    return text


def _domain(text: str) -> str:
    if text.startswith("{"):
        try:
            numbers = [_int(part.strip()) for part in text[1:].removesuffix("}").split(",")]
        except ValueError:
            numbers = [-999]
        if not text.endswith("}") or not all(-128 <= each <= 255 for each in numbers):
            raise ValueError("must be text, or bytes like {1,2,3}")
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError("must be text in Latin-1, or bytes like {1,2,3}") from None
    return text


def _filter(text: str) -> str:
    try:
        compiled(text, "")
    except ConfigError as why:
        raise ValueError(f"Python's are meant: {why.message}") from None
    return text


def _url(text: str) -> str:
    if not text:
        raise ValueError("must be the URL of a database, like jdbc:postgresql://host/name")
    return text


def _transfer(text: str) -> float:
    seconds = _int(text)
    # Tomcat: -1 waits for ever, and any other negative time not at all.
    return float(-1 if seconds == -1 else max(seconds, 0))


_READERS: Final[dict[str, Callable[[str], Any]]] = {
    "text": str,
    "int": _int,
    "bool": _bool,
    "options": _options,
    "address": _address,
    "host": _host,
    "unique_id": _unique_id,
    "domain": _domain,
    "ports": lambda text: max(_int(text), 1),
    "udp_port": lambda text: _int(text) if _int(text) > 0 else -1,  # as Tomcat
    "ticks": _int,
    "delay": _int,
    "farm_ticks": lambda text: max(_int(text), 1),
    "milliseconds": lambda text: max(_int(text), 0) / 1000,
    "minutes": lambda text: _int(text) * 60,
    "transfer": _transfer,
    "provider": str,
    "context": str,
    "filter": _filter,
    "url": _url,
    "host_name": str,
}
