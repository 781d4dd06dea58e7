"""Checks of configuration texts: send options and byte arrays."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tribes.errors import ConfigError
from tribes.testing.vector_checks.registry import Mismatch, check, expect
from tribes.wire.byte_array import parse_byte_array
from tribes.wire.options import format_send_options, parse_send_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from tribes.testing.vector_checks.registry import Vector


@check("config")
def check_config(vector: Vector) -> None:
    """A text means what it means to Tomcat, and options have Tomcat's names."""
    inputs = vector["inputs"]
    if "names" in vector:
        expect("names", vector["names"], format_send_options(inputs["options"]))
    elif "value" in vector:
        expect("value", vector["value"], parse_send_options(inputs["text"]))
    elif "hex" in vector:
        expect("bytes", vector["hex"], parse_byte_array(inputs["text"], strict=True).hex())
    else:
        _expect_refusal(vector)


def _expect_refusal(vector: Vector) -> None:
    """Check that the text is refused; only the vector's name says what the text should be."""
    parse: Callable[[str], object] = parse_send_options
    if vector["name"].startswith("byte-array"):
        parse = partial(parse_byte_array, strict=True)
    try:
        value = parse(vector["inputs"]["text"])
    except ConfigError:
        return
    raise Mismatch("text", expected=f"refused ({vector['java_exception']})", got=value)
