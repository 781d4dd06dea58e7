"""Interceptors by Tomcat's names: from the tables of a configuration to objects.

A table names its ``class``, with Tomcat's package or without, and attributes as Tomcat writes them
(``maxQueue``) or as Python does (``max_queue``). Numbers and booleans may be text, as they are in
XML. What is unknown is refused with the nearest name; what has no effect here is reported.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tribes.channel.chain import Interceptor
from tribes.errors import ConfigError
from tribes.interceptors.compress import GzipInterceptor
from tribes.interceptors.coordinator import SimpleCoordinator
from tribes.interceptors.dispatch import MessageDispatchInterceptor
from tribes.interceptors.domain import DomainFilterInterceptor
from tribes.interceptors.election import NonBlockingCoordinator
from tribes.interceptors.encrypt import EncryptInterceptor
from tribes.interceptors.failure import TcpFailureDetector
from tribes.interceptors.fragment import FragmentationInterceptor
from tribes.interceptors.order import OrderInterceptor
from tribes.interceptors.ping import TcpPingInterceptor
from tribes.interceptors.static import StaticMembershipInterceptor, parse_static_member
from tribes.interceptors.throughput import ThroughputInterceptor
from tribes.interceptors.two_phase import TwoPhaseCommitInterceptor
from tribes.wire.member import host_octets

__all__ = ["INTERCEPTORS", "Built", "attributes_of", "build_interceptors"]

TOMCAT_PACKAGE: Final = "org.apache.catalina.tribes.group.interceptors."

INTERCEPTORS: Final[dict[str, type[Interceptor]]] = {
    "MessageDispatchInterceptor": MessageDispatchInterceptor,
    "MessageDispatch15Interceptor": MessageDispatchInterceptor,
    "TcpFailureDetector": TcpFailureDetector,
    "TcpPingInterceptor": TcpPingInterceptor,
    "DomainFilterInterceptor": DomainFilterInterceptor,
    "FragmentationInterceptor": FragmentationInterceptor,
    "GzipInterceptor": GzipInterceptor,
    "OrderInterceptor": OrderInterceptor,
    "EncryptInterceptor": EncryptInterceptor,
    "TwoPhaseCommitInterceptor": TwoPhaseCommitInterceptor,
    "ThroughputInterceptor": ThroughputInterceptor,
    "StaticMembershipInterceptor": StaticMembershipInterceptor,
    "NonBlockingCoordinator": NonBlockingCoordinator,
    "SimpleCoordinator": SimpleCoordinator,
}
"""By the name of Tomcat's class."""

_ALIASES: Final[dict[str, dict[str, str]]] = {
    "EncryptInterceptor": {"encryption_key_string": "encryption_key"},
    "StaticMembershipInterceptor": {"member": "members"},
}
"""Other names of Tomcat's for the same attribute, in Python's spelling."""

_NO_THREADS: Final = "there are no threads here whose number it could set"
_NO_EFFECT: Final[dict[str, dict[str, str]]] = {
    "MessageDispatchInterceptor": {
        "option_flag": "Tomcat ignores it too",
        "always_send": "a full queue makes senders wait for queue_timeout instead",
        "max_threads": _NO_THREADS,
        "max_spare_threads": _NO_THREADS,
        "keep_alive_time": _NO_THREADS,
        "use_deep_clone": "messages are never changed here, so none needs a copy",
    },
    "EncryptInterceptor": {"provider_name": "there are no providers here; it is OpenSSL's AES"},
    "TwoPhaseCommitInterceptor": {"deepclone": "messages are never changed here"},
}
"""What is accepted for Tomcat's sake, and why it does nothing."""

_WORD: Final = re.compile(r"(?<=[a-z0-9])([A-Z])")
_TRUTHS: Final = {"true": True, "false": False}


@dataclass(slots=True)
class Built:
    """What became of a configuration.

    Attributes:
        interceptors: From the first to the last.
        ignored: A sentence for each attribute that has no effect.
    """

    interceptors: list[Interceptor] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def attributes_of(kind: type[Interceptor]) -> dict[str, inspect.Parameter]:
    """The attributes of an interceptor by their names in Python."""
    return dict(inspect.signature(kind).parameters)


def build_interceptors(
    tables: Sequence[object],
    *,
    key: str = "channel.interceptors",
    resolve: Callable[[str], bytes] = host_octets,
) -> Built:
    """Make the interceptors that a configuration asks for.

    Args:
        tables: One for each, or a function without arguments that makes one.
        key: Path of the setting, for errors.
        resolve: Gives the octets of a static member's host.

    Raises:
        ConfigError: Names the setting, what was found and what to write instead.
    """
    built = Built()
    for index, table in enumerate(tables):
        here = f"{key}[{index}]"
        if isinstance(table, Mapping):
            built.interceptors.append(_build(table, here, resolve, built.ignored))
            continue
        made: object = table() if callable(table) else None
        if not isinstance(made, Interceptor):
            raise ConfigError(
                f"is a {type(table).__name__}; write a table with 'class', or a function that "
                "makes an interceptor. One that is made already can be used once only: give it to "
                "GroupChannel(interceptors=...)",
                key=here,
            )
        built.interceptors.append(made)
    return built


def _build(
    table: Mapping[str, Any], key: str, resolve: Callable[[str], bytes], ignored: list[str]
) -> Interceptor:
    given = dict(table)
    name = given.pop("class", None) or given.pop("className", None)
    if not isinstance(name, str):
        raise ConfigError(
            'has no class; write class = "OrderInterceptor" or another', key=f"{key}.class"
        )
    short = name.removeprefix(TOMCAT_PACKAGE)
    kind = INTERCEPTORS.get(short)
    if kind is None:
        raise ConfigError(
            f"{name!r} is unknown; {_nearest(short, INTERCEPTORS)}", key=f"{key}.class"
        )
    values = _attributes(kind, given, key, resolve, ignored)
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(error.message, key=f"{key}.{error.key}" if error.key else key) from None


def _attributes(
    kind: type[Interceptor],
    given: Mapping[str, Any],
    key: str,
    resolve: Callable[[str], bytes],
    ignored: list[str],
) -> dict[str, Any]:
    known = attributes_of(kind)
    aliases = _ALIASES.get(kind.__name__, {})
    useless = _NO_EFFECT.get(kind.__name__, {})
    values: dict[str, Any] = {}
    for written, value in given.items():
        name = _WORD.sub(r"_\1", written).lower()
        name = aliases.get(name, name)
        if name in useless:
            ignored.append(f"{key}.{written} has no effect: {useless[name]}")
            continue
        if name not in known:
            choice = _nearest(name, [*known, *useless])
            raise ConfigError(f"is unknown; {choice}", key=f"{key}.{written}")
        if name in values:
            raise ConfigError("is there twice; keep one of them", key=f"{key}.{written}")
        values[name] = _value(known[name], value, f"{key}.{written}", resolve)
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in values:
            raise ConfigError("is missing, and has no default", key=f"{key}.{name}")
    return values


def _value(
    parameter: inspect.Parameter, value: Any, key: str, resolve: Callable[[str], bytes]
) -> Any:
    if parameter.name in ("members", "local_member"):
        return _members(parameter.name, value, key, resolve)
    default = parameter.default
    wanted: str
    found: Any
    if isinstance(default, bool):
        wanted, found = "true or false", _truth(value)
    elif isinstance(default, int):
        wanted, found = "a whole number", _number(value)
    elif isinstance(default, tuple):
        wanted, found = "a list of texts", _texts(value)
    else:
        wanted, found = "text", value if isinstance(value, str | bytes) else None
    if found is None:
        raise ConfigError(f"must be {wanted}, found {value!r}", key=key)
    return found


def _truth(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    return _TRUTHS.get(value.strip().lower()) if isinstance(value, str) else None


def _number(value: Any) -> int | None:
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            return None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _texts(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return tuple(value)
    return None


def _members(name: str, value: Any, key: str, resolve: Callable[[str], bytes]) -> Any:
    is_list = name == "members"
    tables = value if is_list and isinstance(value, list | tuple) else [value]
    members = []
    for index, table in enumerate(tables):
        here = f"{key}[{index}]" if is_list else key
        if not isinstance(table, Mapping):
            raise ConfigError("must be a table with host, port and unique_id", key=here)
        try:
            members.append(parse_static_member(table, resolve=resolve))
        except ConfigError as error:
            raise ConfigError(error.message, key=f"{here}.{error.key}") from None
    return members if is_list else members[0]


def _nearest(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
