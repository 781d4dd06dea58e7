"""Types of settings: what a configuration that was made in Python may have got wrong.

Records do not look at the types of what they are made of; files are converted to them, and so
looked at on the way. Without this a port that is a text comes to light as an error of a socket.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from tribes.errors import ConfigError

__all__ = ["check_types", "mismatch_of"]

_SAID: Final = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")
_TYPES: Final = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}


def mismatch_of(error: msgspec.ValidationError) -> tuple[str, str]:
    """What a conversion did not like, without the names of Python and JSON, and where it was.

    Returns:
        A text such as ``must be a whole number, found a text``, and a path such as ``.port``.
    """
    text, _, place = str(error).partition(" - at `$")
    return _SAID.sub(_in_words, text), place.removesuffix("`")


def _in_words(said: re.Match[str]) -> str:
    wanted, found = (
        " or ".join(_TYPES.get(name, name) for name in names.split(" | "))
        for names in said.groups()
    )
    return f"must be {wanted}, found {found}"


def check_types(record: msgspec.Struct, key: str = "") -> None:
    """Refuse values of other types than their settings have.

    Args:
        record: Of any kind; records in it are looked at too.
        key: Where it stands; empty: it is the whole configuration.

    Raises:
        ConfigError: Names the key, and what it must be.
    """
    for field in msgspec.structs.fields(type(record)):
        value = getattr(record, field.name)
        where = f"{key}.{field.name}" if key else field.name
        try:
            made = msgspec.convert(value, field.type)
        except msgspec.ValidationError as why:
            text, place = mismatch_of(why)
            if isinstance(value, str) and text.startswith("Invalid enum value"):
                # The checks of that setting say which texts there are.
                continue
            raise ConfigError(text, key=where + place) from None
        _check_records(value, made, where)


def _check_records(value: Any, made: Any, key: str) -> None:
    """Refuse tables where the setting is a record: a file's are made into one, Python's are not."""
    if isinstance(made, msgspec.Struct):
        if value is not made:
            kind = type(made).__name__
            raise ConfigError(f"must be made by {kind}(…), found a {type(value).__name__}", key=key)
        check_types(made, key)
    elif isinstance(made, Mapping):
        for name, each in made.items():
            _check_records(value[name], each, f"{key}.{name}")
    elif isinstance(made, list | tuple) and isinstance(value, Iterable):
        for number, (given, each) in enumerate(zip(value, made, strict=True)):
            _check_records(given, each, f"{key}[{number}]")
