"""Input that is no setting at all: each is an error that names the key, and never a traceback."""

from __future__ import annotations

import pytest

from tribes.config import config_from, local_config_from, read_config_bytes
from tribes.config.model import check_values
from tribes.errors import ConfigError

DIGITS = "1" * 5000
FARM = '[farm]\ndeploy_dir = "/a"\ntemp_dir = "/b"\n'
FILE = '[manager]\nkind = "persistent"\n[manager.file]\ndirectory = "/x"\n'
SQL = '[manager]\nkind = "persistent"\n[manager.sql]\nurl = "sqlite:////x"\n'
STATIC = '[[channel.membership.static]]\nhost = "192.0.2.1"\n'
MEMCACHED = '[manager]\nkind = "memcached"\nmemcached_nodes = '


def refused(text: str, environ: dict[str, str] | None = None) -> ConfigError:
    """The error that a file and an environment give."""
    with pytest.raises(ConfigError) as caught:
        check_values(read_config_bytes(text.encode(), source="n.toml", environ=environ).config)
    return caught.value


@pytest.mark.parametrize(
    ("text", "key", "what"),
    [
        # Not a number, and more than 64 bits.
        ("drain_timeout_s = nan", "drain_timeout_s", "is nan"),
        ("[manager]\nstate_transfer_timeout_s = nan", "manager.state_transfer_timeout_s", "is nan"),
        (FARM + "max_valid_time_s = nan", "farm.max_valid_time_s", "is nan"),
        (
            f"[channel.membership]\ndrop_time = {'9' * 400}",
            "channel.membership.drop_time",
            "64 bits",
        ),
        # NUL: no path and no name of a host may have one.
        ('name = "a\\u0000b"', "name", "NUL"),
        ('[channel]\nkey_file = "/k\\u0000"', "channel.key_file", "NUL"),
        (FARM.replace("/a", "/a\\u0000"), "farm.deploy_dir", "NUL"),
        (STATIC.replace("192", "192\\u0000"), "channel.membership.static[0].host", "NUL"),
        ('contexts = ["a\\u0000"]', "contexts[0]", "NUL"),
        # What the kernel takes.
        ("[channel.membership]\nttl = 300", "channel.membership.ttl", "255, found 300"),
        ("[channel.membership]\nttl = -2", "channel.membership.ttl", "255, found -2"),
        (
            "[channel.receiver]\nudp_rx_buf_size = -1",
            "channel.receiver.udp_rx_buf_size",
            "found -1",
        ),
        (
            "[channel.sender]\ntx_buf_size = 2147483648",
            "channel.sender.tx_buf_size",
            "to 2147483647, found 2147483648",
        ),
        # With these nothing would ever be read.
        ("[channel.receiver]\npending_max = -1", "channel.receiver.pending_max", "found -1"),
        (
            "[channel.receiver]\npending_max_bytes = 0",
            "channel.receiver.pending_max_bytes",
            "found 0",
        ),
        (STATIC + "udp_port = 70000", "channel.membership.static[0].udp_port", "found 70000"),
        (STATIC + "secure_port = -2", "channel.membership.static[0].secure_port", "found -2"),
        ('payload = "' + "x" * 65_001 + '"', "payload", "heartbeat"),
        ('name = "' + "x" * 65_001 + '"', "name", "heartbeat"),
        # Contexts.
        ('contexts = [""]', "contexts", "1 to 256 characters"),
        (f'contexts = ["{"x" * 257}"]', "contexts", "1 to 256 characters"),
        ('contexts = ["a", "b", "a"]', "contexts", "'a' is there twice"),
        # Expressions whose compilation is no `re.error`.
        ('[replication]\nfilter = "a{99999999999}"', "replication.filter", "too large"),
        (
            f'[manager]\nsession_attribute_name_filter = "{"(" * 20_000}"',
            "manager.session_attribute_name_filter",
            "no regular expression",
        ),
        (
            SQL.replace("[manager.sql]", 'filter = "("\n[manager.sql]'),
            "manager.filter",
            "no regular",
        ),
        # Stores.
        (FILE.replace("/x", ""), "manager.file.directory", "is empty"),
        (FILE + "value_max_bytes = 0", "manager.file.value_max_bytes", "found 0"),
        (SQL + "pool_size = 0", "manager.sql.pool_size", "found 0"),
        (SQL + "timeout_s = -1", "manager.sql.timeout_s", "found -1"),
        (MEMCACHED + f'"h:{DIGITS}"', "manager.memcachedNodes", "no port"),
        (MEMCACHED + '"redis://h/²"', "manager.memcachedNodes", "database"),
        # It would stand in a header.
        ('[sso]\ncookie_name = "a; b"', "sso.cookie_name", "cookie cannot carry"),
        ('[sso]\ncookie_domain = "a\\r\\nX: y"', "sso.cookie_domain", "cookie cannot carry"),
    ],
)
def test_what_can_be_no_setting_is_refused_by_its_key(text: str, key: str, what: str) -> None:
    """By whatever reads the file, before anything is started."""
    error = refused(text)
    assert error.key == key
    assert what in error.message


def test_a_number_that_python_does_not_convert_is_an_error_of_the_file() -> None:
    """TOML's reader lets Python's own error through."""
    error = refused(f"drain_timeout_s = {DIGITS}")
    assert (error.source, "64 bits" in error.message) == ("n.toml", True)


@pytest.mark.parametrize(
    ("text", "environ", "key"),
    [
        ("contexts = 5", {"TRIBES_CONTEXT__SHOP__MANAGER__KIND": "backup"}, "contexts"),
        ("contexts = [1]", {"TRIBES_CONTEXT__SHOP__MANAGER__KIND": "backup"}, "contexts[0]"),
        ('context = "x"', {"TRIBES_CONTEXT__SHOP__MANAGER__KIND": "backup"}, "context"),
        ("channel = 5", {"TRIBES_CHANNEL__OWN_LINK": "true"}, "channel"),
    ],
)
def test_a_variable_over_what_is_no_table_hides_nothing(
    text: str, environ: dict[str, str], key: str
) -> None:
    """The file's mistake is told with its line, whatever the environment sets there."""
    error = refused(text, environ)
    assert (error.key, error.source) == (key, "n.toml: line 1")


@pytest.mark.parametrize(
    ("variable", "value", "what"),
    [
        ("TRIBES_CONTEXT", "[" * 100_000, "nested too deeply"),
        ("TRIBES_CHANNEL__INTERCEPTORS", '[{"a":' * 50_000, "nested too deeply"),
        (
            "TRIBES_CHANNEL__INTERCEPTORS",
            '[{"class":"x","a":' + "[" * 90 + "]" * 90 + "}]",
            "nested",
        ),
        ("TRIBES_PAYLOAD", "\udcff", "UTF-8"),
        ("TRIBES_NAME", "\udcff", "UTF-8"),
        ("TRIBES_DRAIN_TIMEOUT_S", "nan", "is nan"),
    ],
)
def test_odd_values_of_variables_are_errors(variable: str, value: str, what: str) -> None:
    """Bytes that are no text, and nesting that no parser follows."""
    assert what in refused("", {variable: value}).message


def test_two_contexts_cannot_have_the_same_rows() -> None:
    """Each would take the other's sessions for damaged, and set them aside."""
    error = refused('contexts = ["a", "b"]\n' + SQL + 'app = "shop"')
    assert error.key == "manager.sql.app"
    assert "'a' and 'b'" in error.message
    apart = read_config_bytes(('contexts = ["a", "b"]\n' + SQL).encode(), source="n.toml")
    check_values(apart.config)


@pytest.mark.parametrize("nodes", ["redis:/user:s3cret@h", "user:s3cret@h:11211", "u:s3cret@h"])
def test_a_mistyped_url_of_a_server_shows_no_password(nodes: str) -> None:
    """What is no URL, because something is missing, may still hold one's password."""
    error = refused(MEMCACHED + f'"{nodes}"')
    assert "s3cret" not in str(error)


def test_a_manager_of_its_own_is_looked_at_too() -> None:
    """One that is made without a node's configuration."""
    with pytest.raises(ConfigError, match="64 bits") as caught:
        local_config_from({"StandardManager": {"max_inactive_s": 10**40}})
    assert caught.value.key == "StandardManager.max_inactive_s"


def test_infinite_times_are_times() -> None:
    """Who wants to wait for ever may say so."""
    config = config_from({"drain_timeout_s": float("inf")})
    check_values(config)
    assert config.drain_timeout_s == float("inf")


def test_the_line_of_a_key_is_counted_by_line_feeds() -> None:
    """A text may hold characters that other programs take for the end of a line."""
    error = refused('name = "\u2028"\nhold_all = 1')
    assert (error.key, error.source) == ("hold_all", "n.toml: line 2")
