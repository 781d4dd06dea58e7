"""Tomcat's XML: published files as they are, a whole server.xml, and errors that name the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tribes.config import (
    Kind,
    Loaded,
    NodeConfig,
    as_toml,
    check_config,
    read_config,
    read_config_bytes,
)
from tribes.config.managers import BackupConfig
from tribes.config.model import StaticMemberConfig
from tribes.config.paths import with_value
from tribes.errors import ConfigError
from tribes.ids import make_unique_id
from tribes.interceptors.registry import build_interceptors
from tribes.interceptors.rules import check_stack
from tribes.wire.member import Member

DATA = Path(__file__).parent.parent / "data"
SEEDS = sorted((DATA / "seeds-xml").glob("*.xml"))
BROKEN = [seed for seed in SEEDS if "pasted-twice" in seed.name]
TRIBES = "org.apache.catalina.tribes."
LOCAL = Member(host=bytes(4), port=1, unique_id=make_unique_id(bytes(16)))
MCAST = f'<Membership className="{TRIBES}membership.McastService" {{}}/>'
RECEIVER = f'<Receiver className="{TRIBES}transport.nio.NioReceiver" {{}}/>'


def channel(inside: str) -> Loaded:
    return read_config_bytes(
        f"<Cluster>\n<Channel>\n{inside}\n</Channel>\n</Cluster>".encode(), source="c.xml"
    )


def told(loaded: Loaded, name: str) -> str:
    [text] = [str(each) for each in loaded.notices if each.name == name]
    return text


@pytest.mark.parametrize("seed", [s for s in SEEDS if s not in BROKEN], ids=lambda path: path.name)
def test_t120_published_files_load_and_would_start(seed: Path) -> None:
    """As they are; with a key, or trust in the network, a node can be made of each."""
    loaded = read_config(seed)
    check_config(with_value(loaded.config, "insecure", True))
    chain = build_interceptors(loaded.config.channel.interceptors or ())
    check_stack(chain.interceptors, local=LOCAL)
    assert chain.ignored == []


def test_there_are_seeds() -> None:
    """The tests above and below have something to read."""
    assert (len(SEEDS), len(BROKEN)) == (18, 2)


@pytest.mark.parametrize("seed", BROKEN, ids=lambda path: path.name)
def test_a_text_that_was_pasted_twice_is_refused(seed: Path) -> None:
    """With line and column, what stands there, and what seems to have happened."""
    with pytest.raises(ConfigError) as caught:
        read_config(seed)
    assert caught.value.source == str(seed)
    assert "line 17, column 58: '#监听的多播地址" in str(caught.value)
    assert "no comments with #" in caught.value.message
    assert "<Channel> begins in line 15 while the <Channel> of line 8 is still open" in str(
        caught.value
    )
    assert "pasted twice" in caught.value.message


@pytest.mark.parametrize(
    "seed", [s for s in SEEDS if s.stem.endswith("plain")], ids=lambda path: path.name
)
def test_no_break_spaces_of_a_web_page_are_spaces(seed: Path) -> None:
    """The file with them means what the one without them means, and says that it has them."""
    other = seed.with_name(seed.name.replace("-plain", ""))
    assert "\u00a0" in other.read_text()
    if seed in BROKEN:
        return
    loaded, plain = read_config(other), read_config(seed)
    assert loaded.config == plain.config
    [repaired, *rest] = loaded.notices
    assert repaired.kind is Kind.REPAIRED
    assert "no-break" in str(repaired)
    assert [(n.path, n.name) for n in rest] == [(n.path, n.name) for n in plain.notices]


@pytest.mark.parametrize("value", ["true", "false"])
def test_t48_state_timestamp_drop_is_accepted_and_told_to_have_no_effect(value: str) -> None:
    """Whichever it is: changes have versions, so none that is queued is too old. The time-out that
    stands beside it is honoured.
    """
    loaded = read_config_bytes(
        f'<Cluster><Manager className="org.apache.catalina.ha.session.DeltaManager"'
        f' stateTimestampDrop="{value}" stateTransferTimeout="7"/></Cluster>'.encode(),
        source="c.xml",
    )
    assert loaded.config.manager.state_transfer_timeout_s == 7
    assert "versions" in told(loaded, "stateTimestampDrop")
    plain = read_config_bytes(
        b'<Cluster><Manager className="org.apache.catalina.ha.session.DeltaManager"'
        b' stateTransferTimeout="7"/></Cluster>',
        source="c.xml",
    )
    assert loaded.config == plain.config


def test_the_cluster_of_the_guides() -> None:
    """Its attributes are where they belong, and what has no place is named."""
    loaded = read_config(DATA / "seeds-xml" / "001-cluster-plain.xml")
    membership, receiver = loaded.config.channel.membership, loaded.config.channel.receiver
    assert (membership.address, membership.port) == ("228.0.12.8", 45564)
    assert (membership.frequency, membership.drop_time) == (500, 3000)
    assert (receiver.address, receiver.port, receiver.auto_bind) == ("172.16.12.101", 4000, 100)
    assert receiver.max_threads == 6
    assert membership.bind == "172.16.12.101"
    assert loaded.config.manager.channel_send_options == 8
    assert "no effect" in told(loaded, "selectorTimeout")
    names = " ".join(map(str, loaded.notices))
    for name in ("JvmRouteSessionIDBinderListener", "FarmWarDeployer", "JvmRouteBinderValve"):
        assert name in names
    with pytest.raises(ConfigError, match="nothing protects the group"):
        check_config(loaded.config)


def test_a_whole_server() -> None:
    """Every part of it that has to do with sessions is found, wherever it stands."""
    loaded = read_config(DATA / "server.xml")
    config = loaded.config
    check_config(config)
    assert config.contexts == (
        "localhost#shop",
        "localhost#blog",
        "other.test#ROOT",
        "other.test#shop",
    )
    assert config.manager.channel_send_options == 6
    assert config.manager.session_id_length == 20
    assert config.manager.max_active_sessions == 5000
    assert config.manager.expiry_interval == 2 * 5 * 1000
    assert config.manager.state_transfer_timeout_s == -1
    assert config.channel.heartbeat_sleeptime == 2500
    assert config.channel.option_check
    membership = config.channel.membership
    assert (membership.drop_time, membership.ttl, membership.domain) == (6000, 1, "{1,2,3}")
    assert membership.suspect_after == 2000
    assert config.channel.receiver.rx_buf_size == 70000
    assert not config.channel.receiver.tcp_no_delay
    assert config.channel.sender.pool_size == 5
    assert config.channel.sender.queue_timeout == 1500
    kinds = [each["class"] for each in config.channel.interceptors or ()]
    assert kinds == [
        "TcpFailureDetector",
        "GzipInterceptor",
        "StaticMembershipInterceptor",
        "MessageDispatchInterceptor",
    ]
    build_interceptors(config.channel.interceptors or ())
    assert 'channelStartOptions="3": not supported' in told(loaded, "channelStartOptions")
    blog = config.manager_of("localhost#blog")
    assert blog == BackupConfig(
        channel_send_options=6, map_send_options=2, max_active_sessions=7
    ), "a context's own manager has nothing of the template"
    assert "<Listener>" in str(loaded.notices[-1])
    assert "<Connector>" in str(loaded.notices[-1])
    assert not config.crawlers.host_aware
    assert config.valves is not None
    assert config.valves[-1] == "CrawlerSessionManagerValve"
    shop = config.context["localhost#shop"].cookie
    assert shop is not None
    assert shop.name == "SID"
    texts = "\n".join(map(str, loaded.notices))
    assert 'HeartbeatListener": not supported' in texts


def test_defaults_of_a_bare_cluster() -> None:
    """Tomcat's, but on the loopback interface: which is told."""
    loaded = read_config_bytes(
        b"<Cluster className='org.apache.catalina.ha.tcp.SimpleTcpCluster'/>"
    )
    assert loaded.config == NodeConfig()
    assert "127.0.0.1" in told(loaded, "Channel/Receiver address")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<", "line 1, column 1: the document ends too early"),
        ("<Cluster", "line 1, column 1: the document ends too early"),
        ("<Cluster>", "column 10: the document ends too early (no element found): <Cluster>"),
        ("<Cluster></Clust>", "ends another element than the one that is open, <Cluster> of line"),
        ("<Cluster/>\n<Cluster/>", "line 2, column 1: '<Cluster/>' stands behind the end"),
        ("<Cluster a='1' a='2'/>", "there twice"),
        ("<Cluster x='&name;'/>", "only &lt;"),
        ("<Cluster className=5/>", "line 1, column 20"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]>\n<Cluster x='&a;'/>", "line 1, column"),
        ("<!DOCTYPE x SYSTEM 'file:///etc/passwd'><Cluster/>", "DOCTYPE"),
        ("<?xml version='1.0' encoding='rot13'?><Cluster/>", "'rot13' is not known"),
        ("<web-app/>", "is <web-app>; A document is a whole <Server>"),
        ("<Clustr/>", "is <Cluster> meant?"),
        ("<Cluster>" * 40, "<Cluster> is nested deeper than 32 elements"),
        ("<Cluster><Channel/><Channel/></Cluster>", "is there twice, first in line 1"),
        ("<Engine><Cluster/><Host><Cluster/></Host></Engine>", "is a second cluster"),
        ("<Channel><Receiver/></Channel>", "className: is missing; allowed are org.apache"),
        ("<Cluster channelSendOptions='fast'/>", "'fast' is no send option"),
        ("<Cluster><Manager maxActiveSessions='many'/></Cluster>", "found 'many'; must be a whole"),
        ("<Cluster><Channel heartbeatSleeptime='99999999999'/></Cluster>", "at most 2147483647"),
        ("<Cluster><Channel optionCheck='yes'/></Cluster>", "must be true or false"),
        ("<Cluster><Channel heartbeatSleeptime='${x}'/></Cluster>", "property ${x}"),
        ("<Host><Context path='/a'/><Context path='a'/></Host>", "keep one of the two"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, said: str) -> None:
    """With the place and what is wrong with it."""
    with pytest.raises(ConfigError) as caught:
        read_config_bytes(text.encode(), source="t.xml")
    assert str(caught.value).startswith("t.xml")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        (
            RECEIVER.format("address='here'"),
            "Receiver address: found 'here'; must be an",
        ),
        (RECEIVER.format("port='4000x'"), "c.xml: line 3: Cluster/Channel/Receiver port: found"),
        (RECEIVER.format("address='1.2.3.4' host='1.2.3.5'"), "says the same as address"),
        (MCAST.format("dropTime='1' mcastDropTime='2'"), "says the same as dropTime"),
        (MCAST.format("domain='{1,x}'"), "bytes like {1,2,3}"),
        (MCAST.format("domain='{1,300}'"), "bytes like {1,2,3}"),
    ],
)
def test_values_that_cannot_be_used_name_their_attribute(inside: str, said: str) -> None:
    """File, line, path, what was found and what is allowed."""
    with pytest.raises(ConfigError) as caught:
        channel(inside)
    assert said in str(caught.value)


def test_errors_found_later_name_the_line_too() -> None:
    """As the port, which can only be judged by the model."""
    loaded = channel(RECEIVER.format("port='70000'"))
    with pytest.raises(ConfigError) as caught:
        check_config(loaded.config)
    assert str(loaded.located(caught.value)).startswith("c.xml: line 3: channel.receiver.port")


def test_unknown_names_are_told_with_the_nearest() -> None:
    """Tomcat logs a warning about an attribute, and about an element."""
    loaded = channel(
        MCAST.format("droptime='9' zzz='secret'")
        + f'<Interceptor className="{TRIBES}group.interceptors.OrderIntercepter"/>'
        + '<Interceptor className="my.Own"/><Recever/><Transport/>'
    )
    assert loaded.config.channel.membership.drop_time == 3000
    assert loaded.config.channel.interceptors is None
    assert "is dropTime meant?" in told(loaded, "droptime")
    assert "secret" not in told(loaded, "zzz")
    texts = "\n".join(map(str, loaded.notices))
    assert "OrderInterceptor meant?" in texts
    assert "known: org.apache" in texts
    assert "is <Receiver> meant?" in told(loaded, "<Recever>")
    assert "stands in <Sender>, not here" in told(loaded, "<Transport>")


def test_a_class_of_another_package_is_taken_for_tomcats() -> None:
    """Packages were renamed in the course of time."""
    loaded = channel('<Membership className="old.McastService" port="4"/>')
    assert loaded.config.channel.membership.port == 4
    assert "is taken for org.apache" in told(loaded, "className")


def test_typographic_quotes_are_quotes_where_nothing_else_helps() -> None:
    """And stay in a value that is quoted properly."""
    loaded = channel(MCAST.format("port=\u201c45000\u201d ttl=\u20183\u2019"))
    membership = loaded.config.channel.membership
    assert (membership.port, membership.ttl) == (45000, 3)
    assert any("typographic" in each.name for each in loaded.notices)
    proper = read_config_bytes('<Context path="it=\u201cs\u201d"/>'.encode())
    assert proper.config.contexts == ("it=\u201cs\u201d",)
    assert not any(each.kind is Kind.REPAIRED for each in proper.notices)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1", "gbk"])
def test_encodings(encoding: str) -> None:
    """The declared one, or that of the mark at the beginning."""
    name = encoding.removesuffix("-sig")
    text = f'<?xml version="1.0" encoding="{name}"?><Context path="/shop"/>'
    assert read_config_bytes(text.encode(encoding)).config.contexts == ("shop",)


def test_static_members() -> None:
    """Of the service that knows members by their addresses."""
    loaded = channel(
        f'<Membership className="{TRIBES}membership.StaticMembershipService" rpcTimeout="9">'
        f'<LocalMember className="{TRIBES}membership.StaticMember" domain="d"/>'
        '<Member host="{10,0,0,-1}" port="4001"/><Member host="tomcat" port="4002"/></Membership>'
    )
    membership = loaded.config.channel.membership
    assert not membership.multicast
    assert membership.domain == "d"
    assert membership.static == (
        StaticMemberConfig(host="10.0.0.255", port=4001),
        StaticMemberConfig(host="tomcat", port=4002),
    )
    with pytest.raises(ConfigError, match="needs host and port"):
        channel(
            f'<Membership className="{TRIBES}membership.StaticMembershipService">'
            '<Member host="a"/></Membership>'
        )


@pytest.mark.parametrize(
    ("name", "service"),
    [
        ("", "kubernetes"),
        ("kubernetes", "kubernetes"),
        ("dns", "dns"),
        (f"{TRIBES}membership.cloud.DNSMembershipProvider", "dns"),
    ],
)
def test_members_by_a_cloud(name: str, service: str) -> None:
    """By Kubernetes unless DNS is named."""
    attribute = f'membershipProviderClassName="{name}"' if name else ""
    loaded = channel(
        f'<Membership className="{TRIBES}membership.cloud.CloudMembershipService" '
        f'connectTimeout="77" {attribute}/>'
    )
    membership = loaded.config.channel.membership
    assert not membership.multicast
    assert [membership.dns is not None, membership.kubernetes is not None] == [
        service == "dns",
        service == "kubernetes",
    ]
    if membership.kubernetes:
        assert membership.kubernetes.connect_timeout == 77


def test_an_unknown_provider_is_refused() -> None:
    """With what there is."""
    with pytest.raises(ConfigError, match="allowed are kubernetes and dns"):
        channel(
            f'<Membership className="{TRIBES}membership.cloud.CloudMembershipService" '
            'membershipProviderClassName="consul"/>'
        )


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ('<Context path="/shop"/>', ("shop",)),
        ('<Context path=""/>', ("ROOT",)),
        ('<Context docBase="C:\\apps\\blog.war"/>', ("blog",)),
        ('<Host name="h"><Context path="/a"/><Context docBase="b"/></Host>', ("a", "b")),
        ("<Context/>", ()),
    ],
)
def test_contexts(document: str, names: tuple[str, ...]) -> None:
    """By path, or else by the name of the file or directory."""
    assert read_config_bytes(document.encode()).config.contexts == names


def test_secrets_are_not_told() -> None:
    """Passwords of databases and servers, and keys."""
    store = '<Store className="org.apache.catalina.session.JDBCStore" connectionPassword="geheim"'
    manager = '<Manager className="org.apache.catalina.session.PersistentManager">'
    loaded = read_config_bytes(
        f"{manager}{store} connectionURL='x;password=geheim'/></Manager>".encode()
    )
    loaded2 = channel(
        f'<Interceptor className="{TRIBES}group.interceptors.EncryptInterceptor" '
        'encryptionKey="cafebabe"/>'
    )
    assert "geheim" not in " ".join(map(str, loaded.notices))
    assert "cafebabe" not in repr(loaded2)
    assert "cafebabe" not in as_toml(loaded2.config, hide=True)
    assert "cafebabe" in as_toml(loaded2.config)


def test_a_long_file_is_not_read() -> None:
    """Nothing is unbounded."""
    with pytest.raises(ConfigError, match="more than 1048576 bytes"):
        read_config_bytes(b"<Cluster>" + b" " * 2**20)
    with pytest.raises(ConfigError, match="more than 10000 elements"):
        read_config_bytes(b"<Cluster>" + b"<x/>" * 10_001 + b"</Cluster>")
    many = " ".join(f"a{number}=''" for number in range(101))
    with pytest.raises(ConfigError, match="more than 100 attributes"):
        read_config_bytes(f"<Cluster {many}/>".encode())


def test_a_whole_server_names_its_applications_or_tells_why_not() -> None:
    """By host and path; a host whose applications lie in a directory only is reported by name."""
    loaded = read_config_bytes(
        b"""<Server port="8005" shutdown="SHUTDOWN"><Service name="Catalina">
        <Connector port="8080"/><Engine name="Catalina" defaultHost="localhost"><Cluster/>
        <Host name="localhost" appBase="webapps"><Context path="/shop" docBase="shop.war"/>
        <Context path=""/><Context path="/blog" distributable="false"/></Host>
        <Host name="intra" appBase="intra-apps" autoDeploy="true"/></Engine></Service></Server>""",
        source="server.xml",
    )
    names = ("localhost#shop", "localhost#ROOT", "localhost#blog")
    assert loaded.config.contexts == names
    assert loaded.config.context["localhost#blog"].distributable is False
    [told] = [str(each) for each in loaded.notices if each.name == "<Host>"]
    assert "intra-apps" in told
    assert '"intra#NAME"' in told
    assert told.startswith("line 5: ")
