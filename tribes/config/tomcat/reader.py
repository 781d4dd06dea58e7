"""Tomcat's XML as the tables of our configuration, with notices of all that is not the same.

A whole ``server.xml``, or any element in it that has to do with sessions. What each attribute does
is data: see the tables. An attribute is honoured, mapped, or named in a notice; none is dropped in
silence. What Tomcat would only log a warning about is a notice, too.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Final, final

from tribes.config.notices import Kind, Notice
from tribes.config.tomcat.attributes import Attribute, Use
from tribes.config.tomcat.elements import (
    CHILDREN,
    CLASS_NOTES,
    CLASSES,
    DEFAULT_CLASSES,
    NEIGHBOURS,
    ROOTS,
    SINGLE,
    TABLES,
)
from tribes.config.tomcat.making import Making, Place
from tribes.config.tomcat.tree import Element, parse_tree
from tribes.config.tomcat.values import read_value
from tribes.errors import ConfigError

__all__ = ["read_tomcat"]

_KINDS: Final = {
    Use.MAPPED: Kind.MAPPED,
    Use.NO_EFFECT: Kind.NO_EFFECT,
    Use.ELSEWHERE: Kind.ELSEWHERE,
    Use.NOT_SUPPORTED: Kind.NOT_SUPPORTED,
}
_FOUND_MAX: Final = 80
_SHELLS: Final = frozenset({"Server", "Service"})
_LISTENERS: Final = frozenset({"MembershipListener", "ChannelListener"})
_WEB: Final = frozenset({"Host", "Engine", "Context"})
_SPECIAL: Final = frozenset({"context", "host_name", "provider"})
"""Kinds whose value is told of, or not, by the rules in `Making`."""


def read_tomcat(data: bytes, *, source: str) -> Making:
    """Read a document.

    Args:
        data: The file.
        source: Its name, for errors.

    Raises:
        ConfigError: It is no XML, or a value cannot be used: with file, line, path, what was found
            and what is allowed.
    """
    root, notices = parse_tree(data, source=source)
    if root.name not in ROOTS:
        near = difflib.get_close_matches(root.name, ROOTS, 1)
        raise ConfigError(
            f"is <{root.name[:_FOUND_MAX]}>; "
            + (f"is <{near[0]}> meant? " if near else "")
            + "A document is a whole <Server>, or a <Cluster>, <Manager> or another part of it",
            source=f"{source}: line {root.line}",
        )
    making = Making(source)
    making.notices += notices
    reader = _Reader(making)
    reader.element(root, None)
    making.finish()
    reader.tell_neighbours()
    return making


@final
class _Reader:
    """Walks through the elements."""

    def __init__(self, making: Making) -> None:
        self._making = making
        self._neighbours: list[Element] = []

    def element(self, element: Element, parent: Place | None) -> None:
        """Read an element and what is in it."""
        path = f"{parent.path}/{element.name}" if parent else element.name
        bare = Place(element, path, "", parent)
        owner = self._owner(bare)
        if owner is None:
            return
        place = Place(element, path, owner, parent)
        self._making.begin(place)
        if element.name not in _SHELLS:
            self._making.attributes(place, self._values(place))
        if element.has_text:
            self._making.note(place, Kind.NO_EFFECT, "text", "", "text in an element says nothing")
        self._children(place)

    def _children(self, place: Place) -> None:
        allowed = CHILDREN.get(place.element.name, ())
        seen: dict[str, int] = {}
        for child in place.element.children:
            here = Place(child, f"{place.path}/{child.name}", "", place)
            if child.name in SINGLE and child.name in seen:
                what = f"is there twice, first in line {seen[child.name]}; keep one of the two"
                raise self._making.error(here, what)
            seen[child.name] = child.line
            if child.name in allowed:
                self.element(child, place)
            elif child.name in CHILDREN and place.within(child.name):
                what = f"cannot stand within another <{child.name}>; was the text pasted twice?"
                raise self._making.error(here, what)
            elif child.name in NEIGHBOURS:
                self._neighbours.append(child)
            else:
                self._unknown_element(here, allowed)

    def _unknown_element(self, place: Place, allowed: Iterable[str]) -> None:
        name = place.element.name
        where = [parent for parent, names in CHILDREN.items() if name in names]
        near = difflib.get_close_matches(name, list(allowed), 1)
        if where:
            what = f"stands in <{'> or <'.join(where)}>, not here; it is left out"
        elif near:
            what = f"is left out; is <{near[0]}> meant?"
        else:
            what = "is left out with all that is in it"
        self._making.note(place, Kind.UNKNOWN, f"<{name}>", "", what)

    # ---- classes ---------------------------------------------------------------------------------

    def _owner(self, place: Place) -> str | None:
        """The class whose table counts; None: the element is left out."""
        name = place.element.name
        found = place.element.attributes.get("className", "").strip()
        if name in _SHELLS:
            return name
        if name in _LISTENERS:
            self._making.note(place, CLASS_NOTES[name][0], "className", found, CLASS_NOTES[name][1])
            return None
        owner = self._class(place, found)
        if owner is not None and (note := CLASS_NOTES.get(owner)):
            self._making.note(place, note[0], "className", found or owner, note[1])
        return owner

    def _class(self, place: Place, found: str) -> str | None:
        name = place.element.name
        classes = CLASSES[name]
        if found:
            return classes.get(found) or self._other_class(place, found, classes)
        if name == "Manager" and place.within("Cluster"):
            return "DeltaManager"
        if name not in DEFAULT_CLASSES:
            allowed = ", ".join(sorted(classes))
            raise self._making.error(place, f"is missing; allowed are {allowed}", "className")
        return DEFAULT_CLASSES[name]

    def _other_class(self, place: Place, found: str, classes: Mapping[str, str]) -> str | None:
        short = {full.rpartition(".")[2]: full for full in classes}
        last = found.rpartition(".")[2]
        if last in short:
            what = f"is taken for {short[last]}"
            self._making.note(place, Kind.REPAIRED, "className", found, what)
            return classes[short[last]]
        is_valve = place.element.name == "Valve"
        is_listener = place.element.name == "Listener"
        if is_listener or (is_valve and found.startswith("org.apache.catalina.valves.")):
            self._neighbours.append(place.element)
            return None
        near = difflib.get_close_matches(last, list(short), 1, cutoff=0.5)
        guess = f"is {short[near[0]]} meant?" if near else f"known: {', '.join(sorted(classes))}"
        what = f"the <{place.element.name}> is left out; {guess}"
        self._making.note(place, Kind.UNKNOWN, "className", found[:_FOUND_MAX], what)
        return None

    # ---- attributes ------------------------------------------------------------------------------

    def _values(self, place: Place) -> dict[str, Any]:
        """The values that were read, by our keys."""
        table = {each.name: each for each in TABLES[place.owner]}
        names: dict[str, str] = {}
        values: dict[str, Any] = {}
        for name, text in place.element.attributes.items():
            if name == "className":
                continue
            attribute = table.get(name)
            if attribute is None:
                self._unknown_attribute(place, name, table)
                continue
            if attribute.key:
                self._once(place, attribute, names)
                values[attribute.key] = self._value(place, attribute, text)
            self._tell(place, attribute, text.strip())
        return values

    def _once(self, place: Place, attribute: Attribute, names: dict[str, str]) -> None:
        if attribute.key in names and attribute.kind not in _SPECIAL:
            what = f"says the same as {names[attribute.key]}; keep one of the two"
            raise self._making.error(place, what, attribute.name)
        names[attribute.key] = attribute.name

    def _value(self, place: Place, attribute: Attribute, text: str) -> Any:
        try:
            return read_value(attribute.kind, text.strip())
        except ValueError as why:
            shown = "a hidden text" if attribute.is_secret else repr(text[:_FOUND_MAX])
            raise self._making.error(place, f"found {shown}; {why}", attribute.name) from None

    def _tell(self, place: Place, attribute: Attribute, text: str) -> None:
        kind = _KINDS.get(attribute.use)
        if kind is None or text in attribute.same or attribute.kind in _SPECIAL:
            return
        shown = "<hidden>" if attribute.is_secret else text[:_FOUND_MAX]
        key = f"sets {attribute.key}; " if attribute.key else ""
        self._making.note(place, kind, attribute.name, shown, key + attribute.reason)

    def _unknown_attribute(self, place: Place, name: str, table: Mapping[str, Attribute]) -> None:
        near = difflib.get_close_matches(name, list(table), 1)
        if place.element.name in _WEB and not near:
            what = "is not about sessions, and left to the web server"
            self._making.note(place, Kind.ELSEWHERE, name, "", what)
            return
        # The value is not shown: nobody knows whether it is secret.
        guess = f"is {near[0]} meant?" if near else "Tomcat does not know it either"
        self._making.note(place, Kind.UNKNOWN, name, "", f"is left out; {guess}")

    def tell_neighbours(self) -> None:
        """One notice for all elements that have nothing to do with sessions."""
        if not self._neighbours:
            return
        names = dict.fromkeys(f"<{each.name}>" for each in self._neighbours)
        self._making.notices.append(
            Notice(
                Kind.ELSEWHERE,
                path="",
                name=", ".join(names),
                found="",
                what="is not about sessions, and left to the web server",
                line=self._neighbours[0].line,
            )
        )
