"""Limits and filters of managers: what is refused, and Tomcat's names for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tribes.config import load_config
from tribes.config.model import ManagerConfig, NodeConfig, check_config
from tribes.errors import ConfigError
from tribes.manager.rules import Rules

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("on_full", "drop", "'reject' or 'evict'"),
        ("on_oversize", "cut", "'refuse' or 'warn'"),
        ("max_lifetime_s", -1, "or more, found -1"),
        ("attribute_max_bytes", -5, "found -5"),
        ("session_max_bytes", -5, "found -5"),
        ("session_id_length", 1, "2 to 64"),
        ("session_id_length", 65, "2 to 64"),
        ("session_attribute_name_filter", "(", "no regular expression"),
        ("session_attribute_value_class_name_filter", "*", "no regular expression"),
    ],
)
def test_what_cannot_work_is_refused_by_its_key(name: str, value: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        check_config(NodeConfig(manager=ManagerConfig(**{name: value})))
    assert caught.value.key == f"manager.{name}"


def test_evicting_from_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="no session to keep"):
        check_config(NodeConfig(manager=ManagerConfig(on_full="evict", max_active_sessions=0)))


def test_rules_refuse_a_bad_filter_by_its_key_too() -> None:
    """Managers can be made without a node."""
    with pytest.raises(ConfigError) as caught:
        Rules.of(ManagerConfig(session_attribute_name_filter="["))
    assert caught.value.key == "manager.session_attribute_name_filter"


ATTRIBUTES = {
    "maxActiveSessions": ("7", "max_active_sessions", 7),
    "sessionIdLength": ("20", "session_id_length", 20),
    "sessionAttributeNameFilter": ("user.*", "session_attribute_name_filter", "user.*"),
    "sessionAttributeValueClassNameFilter": (
        r"java\.lang\.String",
        "session_attribute_value_class_name_filter",
        r"java\.lang\.String",
    ),
    "warnOnSessionAttributeFilterFailure": (
        "true",
        "warn_on_session_attribute_filter_failure",
        True,
    ),
    "notifyAttributeListenerOnUnchangedValue": (
        "false",
        "notify_attribute_listener_on_unchanged_value",
        False,
    ),
    "notifyBindingListenerOnUnchangedValue": (
        "true",
        "notify_binding_listener_on_unchanged_value",
        True,
    ),
    "sessionActivityCheck": ("true", "session_activity_check", True),
    "sessionLastAccessAtStart": ("true", "session_last_access_at_start", True),
    "expireSessionsOnShutdown": ("true", "expire_sessions_on_shutdown", True),
    "notifyListenersOnReplication": ("true", "notify_listeners_on_replication", True),
    "notifySessionListenersOnReplication": (
        "true",
        "notify_session_listeners_on_replication",
        True,
    ),
    "notifyContainerListenersOnReplication": (
        "true",
        "notify_container_listeners_on_replication",
        True,
    ),
    "enableStatistics": ("false", "enable_statistics", False),
}


def test_tomcats_attributes_of_a_manager_set_the_keys(tmp_path: Path) -> None:
    """As XML, and under the same names in TOML."""
    xml, toml = tmp_path / "server.xml", tmp_path / "node.toml"
    given = " ".join(f'{name}="{text}"' for name, (text, _, _) in ATTRIBUTES.items())
    xml.write_text(
        '<Cluster className="SimpleTcpCluster">'
        f'<Manager className="DeltaManager" {given}/></Cluster>'
    )
    lines = [f"{name} = {_literal(text)}" for name, (text, _, _) in ATTRIBUTES.items()]
    toml.write_text("\n".join(["[manager]", *lines]))
    for path in (xml, toml):
        manager = load_config(path).manager
        for name, (_, key, value) in ATTRIBUTES.items():
            assert getattr(manager, key) == value, (path.suffix, name)
    rules = Rules.of(load_config(xml).manager)
    assert not rules.stays_here("user_1", "text")
    assert rules.stays_here("user_1", 1)
    assert rules.stays_here("other", "text")


def _literal(text: str) -> str:
    return text if text in ("true", "false") or text.isdigit() else f"'{text}'"
