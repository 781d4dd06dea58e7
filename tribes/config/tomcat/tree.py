"""From a document's bytes to a tree of elements that know their place, or to an error that does.

No DOCTYPE, so no entities but XML's own five; size, depth and number of elements are bounded. Two
marks that web pages leave in what is copied from them are repaired, with a notice: no-break spaces,
which XML does not take for spaces, and typographic quotes around a value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, final
from xml.parsers import expat

from tribes.config.notices import Kind, Notice
from tribes.config.tomcat.complaints import complain
from tribes.errors import ConfigError

__all__ = ["Element", "parse_tree"]

DOCUMENT_MAX_BYTES: Final = 1024 * 1024
_DEPTH_MAX: Final = 32
_ELEMENTS_MAX: Final = 10_000
_ATTRIBUTES_MAX: Final = 100
_ENCODINGS: Final = frozenset(
    [
        "utf-8",
        "utf8",
        "us-ascii",
        "ascii",
        "iso-8859-1",
        "latin1",
        "iso-8859-15",
        "windows-1252",
        "gbk",
        "gb2312",
        "gb18030",
        "big5",
        "shift_jis",
        "euc-jp",
        "euc-kr",
        "koi8-r",
        "windows-1251",
    ]
)
_DECLARED: Final = re.compile(
    rb"\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']"
)

_SPACES: Final = dict.fromkeys(
    map(
        ord,
        "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
        "\u200b\u202f\u205f\u2060\u3000\ufeff",
    ),
    " ",
)
_OTHER_SPACE: Final = re.compile("[" + "".join(map(chr, _SPACES)) + "]")
_CURLY: Final = "\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u201b\u2033\u2032"
_QUOTED: Final = re.compile(rf"=(\s*)[{_CURLY}]([^{_CURLY}<>\"]*)[{_CURLY}]")


@final
@dataclass(slots=True)
class Element:
    """One element.

    Attributes:
        name: Its name.
        line: Line of its beginning, from 1.
        column: Column of its beginning, from 1.
        attributes: Its attributes.
        children: The elements in it.
        has_text: Whether there is text in it that is not blank.
    """

    name: str
    line: int
    column: int
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element] = field(default_factory=list)
    has_text: bool = False


def parse_tree(data: bytes, *, source: str) -> tuple[Element, list[Notice]]:
    """Read a document.

    Args:
        data: The file.
        source: Its name, for errors.

    Raises:
        ConfigError: With file, line and column.
    """
    if len(data) > DOCUMENT_MAX_BYTES:
        raise ConfigError(f"has more than {DOCUMENT_MAX_BYTES} bytes", source=source)
    text = _decoded(data, source)
    notices: list[Notice] = []
    if found := _OTHER_SPACE.search(text):
        count = len(_OTHER_SPACE.findall(text))
        notices.append(
            _repaired(
                text,
                found.start(),
                f"{count} no-break or other unusual spaces",
                "are read as spaces; they come from copying a web page, and Tomcat refuses them",
            )
        )
        text = text.translate(_SPACES)
    try:
        return _parse(text, source), notices
    except ConfigError:
        quoted = _QUOTED.sub(r'=\1"\2"', text)
        if quoted == text:
            raise
        try:
            root = _parse(quoted, source)
        except ConfigError:
            root = None
        if root is None:
            raise
    first = _QUOTED.search(text)
    notices.append(
        _repaired(
            text,
            first.start() if first else 0,
            "typographic quotes around values",
            'are read as "; they come from copying a web page, and Tomcat refuses them',
        )
    )
    return root, notices


def _repaired(text: str, position: int, found: str, what: str) -> Notice:
    return Notice(
        Kind.REPAIRED,
        path="",
        name=found,
        found="",
        what=what,
        line=text.count("\n", 0, position) + 1,
    )


def _decoded(data: bytes, source: str) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif declared := _DECLARED.match(data):
        encoding = declared[1].decode("ascii").lower()
        if encoding not in _ENCODINGS:
            raise ConfigError(
                f"line 1: the encoding {encoding!r} is not known; save the file as UTF-8",
                source=source,
            )
    else:
        encoding = "utf-8"
    try:
        return data.decode("utf-8-sig" if encoding in ("utf-8", "utf8") else encoding)
    except UnicodeError as why:
        line = data.count(b"\n", 0, getattr(why, "start", 0)) + 1
        raise ConfigError(
            f"line {line}: is no text in {encoding}; save the file as UTF-8",
            source=source,
        ) from None


def _parse(text: str, source: str) -> Element:
    building = _Building(source)
    try:
        building.parser.Parse(text.encode("utf-8", "surrogatepass"), True)
    except expat.ExpatError as why:
        raise complain(text, why, building.open, source) from None
    if building.root is None:
        raise ConfigError("line 1: there is no element", source=source)
    return building.root


@final
class _Building:
    """The tree as far as it has been read."""

    def __init__(self, source: str) -> None:
        self.root: Element | None = None
        self.open: list[Element] = []
        self._count = 0
        self._source = source
        self.parser = expat.ParserCreate("utf-8")
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters

    def _doctype(self, *_: object) -> None:
        raise self._error(
            "there is a DOCTYPE; it can name files and make a document of any size, so none is "
            "read: take it away"
        )

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > _ELEMENTS_MAX:
            raise self._error(f"there are more than {_ELEMENTS_MAX} elements")
        if len(attributes) > _ATTRIBUTES_MAX:
            raise self._error(f"<{name[:80]}> has more than {_ATTRIBUTES_MAX} attributes")
        if len(self.open) >= _DEPTH_MAX:
            raise self._error(f"<{name[:80]}> is nested deeper than {_DEPTH_MAX} elements")
        element = Element(
            name,
            self.parser.CurrentLineNumber,
            self.parser.CurrentColumnNumber + 1,
            dict(attributes),
        )
        if self.open:
            self.open[-1].children.append(element)
        else:
            self.root = element
        self.open.append(element)

    def _end(self, _: str) -> None:
        self.open.pop()

    def _characters(self, text: str) -> None:
        if self.open and text.strip():
            self.open[-1].has_text = True

    def _error(self, message: str) -> ConfigError:
        line, column = self.parser.CurrentLineNumber, self.parser.CurrentColumnNumber + 1
        return ConfigError(f"line {line}, column {column}: {message}", source=self._source)
