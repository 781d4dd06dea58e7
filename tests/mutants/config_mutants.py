"""Broken readers of configuration: what they make of a file must not pass in silence."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from tests.config import test_bounds as odd
from tests.config import test_environment as environment
from tests.config import test_tomcat_xml as xml
from tests.mutants import registry
from tests.mutants.registry import Patch, nothing
from tribes.config import bounds, memcached
from tribes.config import environment as env
from tribes.config import load as loading
from tribes.config import toml_text as toml
from tribes.config.tomcat import making, reader, tree, values

Test = Callable[[], object]


def add(name: str, text: str, *patches: Patch, test: Test) -> None:
    """Register a mutant that a test must notice."""
    registry.add(f"config: {name}", text, *patches, test=test)


add(
    "unknown attributes dropped in silence",
    "A name that nobody knows is not told.",
    (reader._Reader, "_unknown_attribute", nothing),
    test=xml.test_unknown_names_are_told_with_the_nearest,
)
add(
    "what is not honoured dropped in silence",
    "Attributes without effect or support are not told.",
    (reader._Reader, "_tell", nothing),
    test=xml.test_a_whole_server,
)
add(
    "DOCTYPE read",
    "A document may have a DOCTYPE, and so entities.",
    (tree._Building, "_doctype", nothing),
    test=partial(
        xml.test_what_cannot_be_read_is_refused,
        "<!DOCTYPE x SYSTEM 'file:///etc/passwd'><Cluster/>",
        "DOCTYPE",
    ),
)
add(
    "no-break spaces left",
    "A file from a web page is refused.",
    (tree, "_SPACES", {}),
    test=partial(
        xml.test_no_break_spaces_of_a_web_page_are_spaces,
        xml.DATA / "seeds-xml" / "001-cluster-plain.xml",
    ),
)
add(
    "one group of two",
    "A second cluster is read over the first.",
    (making.Making, "begin", lambda self, place: setattr(self, "_cluster", place)),
    test=partial(
        xml.test_what_cannot_be_read_is_refused,
        "<Engine><Cluster/><Host><Cluster/></Host></Engine>",
        "is a second cluster",
    ),
)
add(
    "contexts of several hosts mixed",
    "The same path on two hosts is one context.",
    (making, "_context_name", lambda element: element.attributes.get("path", "x")),
    test=xml.test_a_whole_server,
)
add(
    "heartbeats left on loopback",
    "A receiver's address says nothing of the heartbeats'.",
    (making.Making, "_addresses", nothing),
    test=xml.test_the_cluster_of_the_guides,
)
add(
    "patience against frequency",
    "Times that Tomcat allows make a node that does not start.",
    (making.Making, "_patience", nothing),
    test=xml.test_a_whole_server,
)
add(
    "properties read as text",
    "A property of Tomcat is taken for a name.",
    (values, "_PROPERTY", re.compile("(?!)")),
    test=partial(
        xml.test_what_cannot_be_read_is_refused,
        "<Cluster><Channel heartbeatSleeptime='${x}'/></Cluster>",
        "property ${x}",
    ),
)
add(
    "environment under the file",
    "What the file says stands.",
    (loading, "apply_overrides", lambda tables, found: []),
    test=environment.test_they_go_over_the_file,
)
add(
    "unknown variables passed over",
    "A typing error in a variable's name passes in silence.",
    (env, "_near", lambda name, kind: []),
    test=partial(
        environment.test_what_cannot_be_is_refused,
        "TRIBES_NAM",
        "x",
        "is TRIBES_NAME meant?",
    ),
)
add(
    "keys shown",
    "What hides keys writes them.",
    (toml, "_HIDDEN", "cafebabe"),
    test=xml.test_secrets_are_not_told,
)
add(
    "nan is a number",
    "What is no number passes every check of a range.",
    (bounds, "isnan", lambda value: False),
    test=partial(
        odd.test_what_can_be_no_setting_is_refused_by_its_key,
        "drain_timeout_s = nan",
        "drain_timeout_s",
        "is nan",
    ),
)
add(
    "a mistyped URL is shown",
    "The error for a list of servers has a password in it.",
    (memcached, "_shown", repr),
    test=partial(odd.test_a_mistyped_url_of_a_server_shows_no_password, "user:s3cret@h:11211"),
)
