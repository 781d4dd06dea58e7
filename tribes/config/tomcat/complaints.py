"""What is wrong with a document that is no XML, in words that help to mend it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol
from xml.parsers import expat

from tribes.errors import ConfigError

__all__ = ["complain"]

_SHOWN_MAX: Final = 40


class _Open(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def line(self) -> int: ...


def complain(text: str, why: expat.ExpatError, opened: Sequence[_Open], source: str) -> ConfigError:
    """The error for a document that cannot be read.

    Args:
        text: The document.
        why: The parser's error.
        opened: The elements that were open, from the outermost.
        source: Name of the document.
    """
    lines = text.split("\n")
    line = lines[why.lineno - 1] if why.lineno <= len(lines) else ""
    rest = line[why.offset :].strip()
    parts = [_what(why.code, rest, opened), *_twice(opened)]
    return ConfigError(
        f"line {why.lineno}, column {why.offset + 1}: {'; '.join(parts)}", source=source
    )


def _what(code: int, rest: str, opened: Sequence[_Open]) -> str:
    reason = expat.ErrorString(code)
    shown = repr(rest[:_SHOWN_MAX])
    inside = f"<{opened[-1].name}> of line {opened[-1].line}" if opened else ""
    if reason == expat.errors.XML_ERROR_INVALID_TOKEN and rest.startswith("#"):
        return (
            f"{shown} cannot stand there: XML has no comments with #; take it away, or write "
            "<!-- ... --> between elements"
        )
    if reason == expat.errors.XML_ERROR_TAG_MISMATCH and inside:
        return f"{shown} ends another element than the one that is open, {inside}"
    if reason == expat.errors.XML_ERROR_JUNK_AFTER_DOC_ELEMENT:
        return (
            f"{shown} stands behind the end of the document: there can be one outermost element; "
            "was it pasted twice?"
        )
    if reason == expat.errors.XML_ERROR_UNDEFINED_ENTITY:
        return f"{shown}: only &lt; &gt; &amp; &quot; &apos; are known; write & as &amp;"
    if reason in (expat.errors.XML_ERROR_NO_ELEMENTS, expat.errors.XML_ERROR_UNCLOSED_TOKEN):
        return f"the document ends too early ({reason})" + (f": {inside} is open" if inside else "")
    if reason == expat.errors.XML_ERROR_DUPLICATE_ATTRIBUTE:
        return f"an attribute is there twice in the element at {shown}"
    return f"is no XML: {reason}" + (f", at {shown}" if rest else "")


def _twice(opened: Sequence[_Open]) -> list[str]:
    """A part that was pasted into itself leaves an element open within another of its name."""
    first: dict[str, int] = {}
    for element in opened:
        if element.name in first:
            return [
                f"<{element.name}> begins in line {element.line} while the <{element.name}> of "
                f"line {first[element.name]} is still open: was the text pasted twice?"
            ]
        first[element.name] = element.line
    return []
