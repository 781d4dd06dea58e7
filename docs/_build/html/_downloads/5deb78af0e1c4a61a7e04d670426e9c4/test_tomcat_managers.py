"""Tomcat's managers, stores and valves in XML, context by context."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tribes.config import as_toml, config_from, read_config, read_config_bytes
from tribes.config.managers import (
    AttributesConfig,
    BackupConfig,
    ManagerConfig,
    MemcachedConfig,
    PersistentConfig,
    StandardConfig,
)
from tribes.config.model import check_values
from tribes.config.notices import Kind
from tribes.config.stores import FileStoreConfig, SQLStoreConfig
from tribes.config.valves import ReplicationConfig, SingleSignOnConfig
from tribes.errors import ConfigError

if TYPE_CHECKING:
    from tribes.config.load import Loaded

DATA = Path(__file__).parents[1] / "data"
SESSION = "org.apache.catalina.session."
HA = "org.apache.catalina.ha."


def load(text: str) -> Loaded:
    loaded = read_config_bytes(text.encode(), source="server.xml")
    check_values(loaded.config)
    assert config_from(tomllib.loads(as_toml(loaded.config))) == loaded.config
    return loaded


def texts(loaded: Loaded) -> str:
    return "\n".join(map(str, loaded.notices))


def test_t01_a_distributable_application_has_the_clusters_manager_and_another_a_local_one() -> None:
    loaded = load(
        f"""<Host name="h"><Cluster><Manager className="{HA}session.BackupManager"/></Cluster>
        <Context path="/shop"/><Context path="/blog" distributable="false"/></Host>"""
    )
    assert loaded.config.manager_of("shop") == BackupConfig()
    assert loaded.config.manager_of("blog") == StandardConfig()
    assert loaded.config.replicated == ("shop",)


def test_t02_a_contexts_own_manager_replaces_the_template() -> None:
    """With Tomcat's defaults where it says nothing; the send options are the cluster's."""
    loaded = load(
        f"""<Host name="h"><Cluster channelSendOptions="6">
        <Manager className="{HA}session.DeltaManager" maxActiveSessions="9"/></Cluster>
        <Context path="/shop"/>
        <Context path="/wiki"><Manager className="{HA}session.BackupManager" rpcTimeout="99"/>
        </Context>
        <Context path="/blog"><Manager pathname="blog.ser"/></Context></Host>"""
    )
    config = loaded.config
    assert config.manager_of("shop") == ManagerConfig(channel_send_options=6, max_active_sessions=9)
    assert config.manager_of("wiki") == BackupConfig(channel_send_options=6, rpc_timeout=99)
    assert config.manager_of("blog") == StandardConfig(channel_send_options=6, pathname="blog.ser")


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ('<Engine><Cluster/><Host name="a"><Context path="/x"/></Host></Engine>', ("a#x",)),
        (
            '<Engine><Cluster/><Host name="a"><Context path="/x"/></Host>'
            '<Host name="b"><Context path="/x"/></Host></Engine>',
            ("a#x", "b#x"),
        ),
        ('<Host name="a"><Cluster/><Context path="/x"/></Host>', ("x",)),
        ('<Host name="a"><Cluster/><Context path="/a#x"/></Host>', ("a#x",)),
    ],
)
def test_t04_managers_are_named_by_host_where_the_cluster_is_the_engines(
    document: str, names: tuple[str, ...]
) -> None:
    """Once, so that equal paths on two hosts are two contexts."""
    assert load(document).config.contexts == names


def test_stores_of_persistent_managers() -> None:
    """FileStore, and both stores of databases by their URL."""
    columns = 'sessionTable="s" sessionIdCol="i" sessionAppCol="a" sessionDataCol="d"'
    more = 'sessionValidCol="v" sessionMaxInactiveCol="m" sessionLastAccessedCol="l"'
    made = {}
    for store in (
        f'<Store className="{SESSION}FileStore" directory="/s" checkInterval="7"/>',
        f'<Store className="{SESSION}JDBCStore" driverName="org.postgresql.Driver" {columns} {more}'
        ' connectionURL="jdbc:postgresql://db/x" connectionName="u" connectionPassword="geheim"/>',
        f'<Store className="{SESSION}DataSourceStore" connectionURL="jdbc:mysql://db/x"'
        ' dataSourceName="jdbc/x"/>',
    ):
        loaded = load(
            f"""<Context path="/a"><Manager className="{SESSION}PersistentManager"
            saveOnRestart="false" maxIdleBackup="1" minIdleSwap="2" maxIdleSwap="3"
            maxActiveSessions="4">{store}</Manager></Context>"""
        )
        assert "geheim" not in texts(loaded)
        made[store[46:60]] = loaded.config.manager_of("a")
    settings: Any = {
        "save_on_restart": False,
        "max_idle_backup_s": 1,
        "min_idle_swap_s": 2,
        "max_idle_swap_s": 3,
        "max_active_sessions": 4,
    }
    file, jdbc, source = made.values()
    assert file == PersistentConfig(
        **settings, check_interval_s=7, file=FileStoreConfig(directory="/s")
    )
    assert jdbc == PersistentConfig(
        **settings,
        sql=SQLStoreConfig(
            url="jdbc:postgresql://db/x",
            driver_name="org.postgresql.Driver",
            user="u",
            password="geheim",
            table="s",
            id_col="i",
            app_col="a",
            data_col="d",
            valid_col="v",
            max_inactive_col="m",
            last_accessed_col="l",
        ),
    )
    assert source == PersistentConfig(**settings, sql=SQLStoreConfig(url="jdbc:mysql://db/x"))


def test_memcached_session_manager_is_one_of_the_kinds() -> None:
    """As its guides show it."""
    manager = read_config(DATA / "seeds-xml" / "002-msm-0-plain.xml").config.manager
    assert manager == MemcachedConfig(
        memcached_nodes="n1:192.168.1.121:11211,n2:192.168.1.122:11211",
        sticky=False,
        session_backup_async=False,
        locking_mode="uriPattern:/path1|/path2",
        request_uri_ignore_pattern=r".*\.(ico|png|gif|jpg|css|js)$",
    )


def test_a_persistent_valve_makes_its_contexts_work_per_request() -> None:
    store = f'<Store className="{SESSION}FileStore" directory="'
    manager = f'<Manager className="{SESSION}PersistentManager">{store}'
    valve = """<Valve className="org.apache.catalina.valves.PersistentValve" filter=".*[.]gif"
        semaphoreBlockOnAcquire="false"/>"""
    loaded = load(
        f"""<Host name="h"><Context path="/a">{manager}/a"/></Manager>{valve}</Context>
        <Context path="/b">{manager}/b"/></Manager></Context></Host>"""
    )
    a, b = loaded.config.manager_of("a"), loaded.config.manager_of("b")
    assert isinstance(a, PersistentConfig)
    assert isinstance(b, PersistentConfig)
    assert (a.per_request, a.filter) == (True, ".*[.]gif")
    assert (a.lock, a.block_on_acquire) == ("local", False)
    assert (b.per_request, b.lock, b.block_on_acquire) == (False, "none", True)
    alone = load(f'<Context path="/c">{valve}</Context>')
    assert "there is no PersistentManager" in texts(alone)


def test_t07_valves_are_the_default_ones_unless_any_is_named() -> None:
    assert load("<Cluster/>").config.valves is None
    loaded = load(
        f"""<Cluster><Valve className="{HA}tcp.ReplicationValve" filter=".*[.]gif"
        primaryIndicator="true" primaryIndicatorName="first"/></Cluster>"""
    )
    assert loaded.config.valves == ("ReplicationValve",)
    assert loaded.config.replication == ReplicationConfig(
        filter=".*[.]gif", primary_indicator=True, primary_indicator_name="first"
    )


def test_single_sign_on_and_attributes_of_the_application() -> None:
    loaded = load(
        f"""<Host name="h"><Cluster notifyLifecycleListenerOnFailure="true"/>
        <Valve className="{HA}authenticator.ClusterSingleSignOn" cookieName="SSO"
        mapSendOptions="2" requireReauthentication="true" rpcTimeout="1"/>
        <Context path="/a" className="{HA}context.ReplicatedContext" mapSendOptions="6"/>
        <Context path="/b" className="{HA}context.ReplicatedContext"/><Context path="/c"/></Host>"""
    )
    config = loaded.config
    assert config.sso == SingleSignOnConfig(cookie_name="SSO", map_send_options=2)
    assert config.notify_on_failure
    assert config.context["a"].attributes == AttributesConfig(map_send_options=6)
    assert config.context["b"].attributes == AttributesConfig()
    assert config.contexts == ("a", "b", "c")
    assert "no member keeps" in texts(loaded)


def test_t104_the_old_listener_of_session_ids_is_accepted_with_a_notice() -> None:
    """In the guide's own file, which loads unchanged."""
    loaded = read_config(DATA / "seeds-xml" / "001-cluster-plain.xml")
    [notice] = [n for n in loaded.notices if "JvmRouteSessionIDBinderListener" in n.found]
    assert notice.kind is Kind.NO_EFFECT


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (
            f'<Cluster><Manager className="{SESSION}StandardManager"/></Cluster>',
            "line 1: .* is no manager of a cluster; write DeltaManager or BackupManager",
        ),
        (
            f'<Manager className="{SESSION}PersistentManager">\n'
            f'<Store className="{SESSION}DataSourceStore" dataSourceName="x"/></Manager>',
            "line 2: Manager/Store connectionURL: is missing; there is no JNDI",
        ),
        (
            f'<Manager className="{SESSION}PersistentManager"/>',
            "manager: needs exactly one store",
        ),
        (
            '<Manager className="de.javakaffee.web.msm.MemcachedBackupSessionManager"/>',
            "memcachedNodes: is missing",
        ),
        (
            f'<Cluster><Valve className="{HA}tcp.ReplicationValve" filter="("/></Cluster>',
            "no regular expression",
        ),
    ],
)
def test_what_cannot_be_is_refused(document: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(document)


def test_applications_without_a_cluster_are_told_that_they_are_shared() -> None:
    assert "one process" in texts(load('<Context path="/shop"/>'))
