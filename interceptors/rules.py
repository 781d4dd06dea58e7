"""Which interceptors may stand above which: one table, checked before anything starts.

"Above" is nearer to the application, so earlier in a configuration. Some orders lose or damage
messages; they are refused. Some only harm a group in which Tomcat's own members have the same
order, or leave something unnoticed; of those an event tells. docs/channel.md shows both lists, and
a test sees that it shows all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tribes.errors import ConfigError
from tribes.interceptors.compress import GzipInterceptor
from tribes.interceptors.coordinator import Coordinator, SimpleCoordinator
from tribes.interceptors.dispatch import MessageDispatchInterceptor
from tribes.interceptors.domain import DomainFilterInterceptor
from tribes.interceptors.election import NonBlockingCoordinator
from tribes.interceptors.encrypt import EncryptInterceptor
from tribes.interceptors.failure import TcpFailureDetector
from tribes.interceptors.fragment import FragmentationInterceptor
from tribes.interceptors.order import OrderInterceptor
from tribes.interceptors.ping import TcpPingInterceptor
from tribes.interceptors.static import StaticMembershipInterceptor
from tribes.interceptors.two_phase import TwoPhaseCommitInterceptor

if TYPE_CHECKING:
    from tribes.channel.chain import Interceptor
    from tribes.wire.member import Member

__all__ = ["ADVICE", "CHANNEL_FLAGS", "RULES", "Rule", "advice", "check_stack"]

CHANNEL_FLAGS: Final = 7
"""The options that the channel itself acts on (tribes-wire §8.1, ``optionCheck``)."""


@dataclass(frozen=True, slots=True)
class Rule:
    """``above`` must not stand above ``below``.

    Args:
        above: The one that stands above.
        below: The one that stands below.
        why: What happens then; a sentence without its end.
    """

    above: type[Interceptor]
    below: type[Interceptor]
    why: str


RULES: Final = (
    Rule(
        TcpFailureDetector,
        EncryptInterceptor,
        "its test messages are not encrypted, so members whose lowest interceptor decrypts would "
        "refuse them; Tomcat does not start so either",
    ),
    Rule(
        EncryptInterceptor,
        GzipInterceptor,
        "encrypted bytes don't get shorter, so every message would cost time and grow",
    ),
    Rule(
        FragmentationInterceptor,
        TwoPhaseCommitInterceptor,
        "all pieces of a message have one id, by which they would be held, so that only the last "
        "one would be left",
    ),
    Rule(
        TcpFailureDetector,
        OrderInterceptor,
        "a member whose heartbeats were lost, and that the detector then finds alive, would be "
        "counted anew here and not there, so that its messages would wait or change places",
    ),
    Rule(
        StaticMembershipInterceptor,
        TcpFailureDetector,
        "the configured members would be taken for alive without being asked",
    ),
    Rule(
        StaticMembershipInterceptor,
        TcpPingInterceptor,
        "the ping would not know the configured members",
    ),
)
"""Orders that are refused."""

ADVICE: Final = (
    Rule(
        OrderInterceptor,
        FragmentationInterceptor,
        "Tomcat's members damage messages to several destinations in this order",
    ),
    Rule(
        OrderInterceptor,
        GzipInterceptor,
        "Tomcat's members damage messages to several destinations in this order",
    ),
    Rule(
        OrderInterceptor,
        EncryptInterceptor,
        "Tomcat's members damage messages to several destinations in this order",
    ),
    Rule(
        TcpFailureDetector,
        NonBlockingCoordinator,
        "elections would count members that were never asked",
    ),
    Rule(
        TcpFailureDetector,
        SimpleCoordinator,
        "the view would count members that were never asked",
    ),
)
"""Orders that an event tells of."""

_ONCE: Final = (
    (MessageDispatchInterceptor, "messages would be counted against two queues"),
    (OrderInterceptor, "every message would be numbered twice"),
    (FragmentationInterceptor, "pieces of pieces have one id, and would be mixed up"),
    (GzipInterceptor, "one flag would mark both, and what one left as it is the other would not"),
    (EncryptInterceptor, "every message would be encrypted twice"),
    (DomainFilterInterceptor, "no member is of two domains"),
    (TwoPhaseCommitInterceptor, "confirmations would wait to be confirmed"),
    (Coordinator, "they would send each other's messages"),
    (StaticMembershipInterceptor, "one would take the messages of the other"),
    (TcpPingInterceptor, "every member would be asked twice"),
    (TcpFailureDetector, "every member would be asked twice"),
)
"""What may stand in a chain once; `ThroughputInterceptor` may measure in several places."""


def check_stack(
    interceptors: Sequence[Interceptor], *, local: Member, option_check: bool = False
) -> None:
    """Refuse interceptors that cannot work together, or not with this member.

    Args:
        interceptors: From the first to the last.
        local: The own record.
        option_check: Also refuse option flags that cover each other (``optionCheck``).

    Raises:
        ConfigError: Names the two and what to do.
    """
    for kind, why in _ONCE:
        found = [_name(each) for each in interceptors if isinstance(each, kind)]
        if len(found) > 1:
            raise _refusal(f"{found[0]} and {found[1]} are both there: {why}; take one away")
    for upper, lower, rule in _broken(interceptors, RULES):
        raise _refusal(f"{upper} stands above {lower}: {rule.why}; write {lower} before {upper}")
    for index, each in enumerate(interceptors):
        if isinstance(each, DomainFilterInterceptor):
            try:
                each.check_local(local)
            except ConfigError as error:
                key = f"channel.interceptors[{index}].{error.key}"
                raise ConfigError(error.message, key=key) from None
    if option_check:
        _check_flags(interceptors)


def advice(interceptors: Sequence[Interceptor]) -> list[str]:
    """What an operator should know of this order, though it works."""
    found = [
        f"{upper} stands above {lower}: {rule.why}"
        for upper, lower, rule in _broken(interceptors, ADVICE)
    ]
    kinds = {type(each) for each in interceptors}
    if StaticMembershipInterceptor in kinds and TcpFailureDetector not in kinds:
        found.append(
            "StaticMembershipInterceptor stands without a TcpFailureDetector above it: the "
            "configured members are taken for alive without being asked"
        )
    found += [
        f"{each.encryption_algorithm} does not notice changed messages; AES/GCM/NoPadding does"
        for each in interceptors
        if isinstance(each, EncryptInterceptor) and not each.is_authenticated
    ]
    return found


def _broken(
    interceptors: Sequence[Interceptor], rules: Sequence[Rule]
) -> Iterator[tuple[str, str, Rule]]:
    for rule in rules:
        for index, upper in enumerate(interceptors):
            if not isinstance(upper, rule.above):
                continue
            for lower in interceptors[index + 1 :]:
                if isinstance(lower, rule.below):
                    yield _name(upper), _name(lower), rule


def _check_flags(interceptors: Sequence[Interceptor]) -> None:
    flags = [(_name(each), each.option_flag) for each in interceptors if each.option_flag]
    flags.append(("the channel itself", CHANNEL_FLAGS))
    for index, (one, flag) in enumerate(flags):
        for other, second in flags[index + 1 :]:
            if flag & second in (flag, second):
                raise ConfigError(
                    f"option flags conflict: {one} has {flag}, {other} has {second}, and a message "
                    "for one would be for the other too; write flags of different bits",
                    key="channel.option_check",
                )


def _name(interceptor: Interceptor) -> str:
    return type(interceptor).__name__


def _refusal(text: str) -> ConfigError:
    return ConfigError(text, key="channel.interceptors")
