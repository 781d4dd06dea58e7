"""Whatever a file holds: a configuration, or a ConfigError that names the file."""

from __future__ import annotations

from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tribes.config import Loaded, as_toml, read_config_bytes
from tribes.config.tomcat.elements import CHILDREN, CLASSES, TABLES
from tribes.errors import ConfigError

DATA = Path(__file__).parent.parent / "data"
FILES = [path.read_bytes() for path in sorted((DATA / "seeds-xml").glob("*.xml"))]
FILES.append((DATA / "server.xml").read_bytes())
ELEMENTS = sorted({*CHILDREN, *(name for names in CHILDREN.values() for name in names)})
NAMES = sorted({each.name for table in TABLES.values() for each in table} | {"className", "x"})
VALUES = [
    *sorted({full for classes in CLASSES.values() for full in classes}),
    "1", "-1", "0", "true", "auto", "{1,2,3}", "8", "async", "", "x", "127.0.0.1", "${a}", "9" * 30,
    "kubernetes", "dns", "\u00a0", "{", "{}", "{1,,2}", "\u0661",
]  # fmt: skip


def try_to_load(data: bytes) -> None:
    found: Loaded | ConfigError
    try:
        found = read_config_bytes(data, source="f.xml")
    except ConfigError as error:
        found = error
    if isinstance(found, ConfigError):
        assert found.source.startswith("f.xml")
        assert found.message
    else:
        assert all(len(str(notice)) < 2000 for notice in found.notices)
        assert read_config_bytes(as_toml(found.config).encode()).config == found.config


@given(st.binary(max_size=200).map(lambda tail: b"<" + tail))
@example(b"<?xml version='1.0' encoding='utf-16'?><Cluster/>")
@example(b"<\xff\xfe")
@example(b"\xff\xfe<")
@example(b"\xfe\xff\x00<\xd8\x00")
@example(b"<Cluster a='\xed\xa0\x80'/>")
@example(b"<Cluster a='&#0;'/>")
def test_any_bytes(data: bytes) -> None:
    """Also those that are no text."""
    try_to_load(data)


@given(st.data())
@settings(max_examples=150)
def test_files_with_a_part_replaced(data: st.DataObject) -> None:
    """Cut, doubled, or written over anywhere."""
    file = data.draw(st.sampled_from(FILES))
    start = data.draw(st.integers(0, len(file)))
    end = data.draw(st.integers(start, min(start + 60, len(file))))
    piece = data.draw(st.binary(max_size=8) | st.sampled_from([b"", b"<", b">", b'"', b"</", b"&"]))
    try_to_load(file[:start] + piece + file[end:])


@st.composite
def elements(draw: st.DrawFn, depth: int = 3) -> str:
    """Any known elements in any order, with any known attributes of any class."""
    name = draw(st.sampled_from(ELEMENTS))
    if draw(st.booleans()) and name in CLASSES:
        attributes = {"className": draw(st.sampled_from(sorted(CLASSES[name])))}
    else:
        attributes = {}
    extra = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES), max_size=3)
    attributes = draw(extra) | attributes
    written = " ".join(f'{key}="{value}"' for key, value in attributes.items())
    inside = draw(st.lists(elements(depth - 1), max_size=3)) if depth else []
    return f"<{name} {written}>{''.join(inside)}</{name}>"


@given(elements())
@settings(max_examples=200)
def test_any_elements(document: str) -> None:
    """Well formed, and still nonsense."""
    try_to_load(document.encode())
