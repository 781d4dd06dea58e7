"""Byte arrays in a configuration: the text ``{1,2,3}`` of domains, hosts and unique ids.

Tomcat reads signed decimal bytes without blanks, and so refuses its own documentation's example
``{216,123,12,3}`` (tribes-wire §9.4). What it accepts, we read the same; we accept more.
"""

from __future__ import annotations

import re
from typing import Final

from tribes.errors import ConfigError

__all__ = ["parse_byte_array"]

_SEPARATOR: Final = re.compile(r"[{},]")
_NUMBER: Final = re.compile(r"([+-]?)0*([0-9]{1,3})")
_BLANKS: Final = " \t\r\n"


def parse_byte_array(text: str, *, strict: bool = False) -> bytes:
    """Return the bytes that ``{1,2,3}`` lists.

    Args:
        text: Starts with ``{``. Braces and commas only separate: ``{1,,2`` has two elements, as
            Tomcat has it.
        strict: Read exactly as Tomcat does: elements are -128..127 and have no blanks around
            them. Otherwise -128..255, and blanks may be anywhere around them.

    Raises:
        ConfigError: The text does not start with ``{``, or an element is not a byte.
    """
    largest = 127 if strict else 255
    if not strict:
        text = text.strip(_BLANKS)
    if not text.startswith("{"):
        raise ConfigError(f"{text!r} is no byte array; write its bytes like {{1,2,3}}")
    found = bytearray()
    for part in _SEPARATOR.split(text):
        element = part if strict else part.strip(_BLANKS)
        if not element:
            continue
        number = _NUMBER.fullmatch(element)
        value = int(number[1] + number[2]) if number else None
        if value is None or not -128 <= value <= largest:
            raise ConfigError(
                f"{element!r} is no byte; write decimal numbers from -128 to {largest}"
                f"{', without blanks' if strict else ''}, like {{1,2,3}}"
            )
        found.append(value & 0xFF)
    return bytes(found)
