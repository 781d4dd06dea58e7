"""The tables of our configuration, made of attributes that were read: rules of several attributes.

Which attribute sets which key is data (see the tables). What depends on more than one, or on where
it stands, is here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, final

from tribes.config.model import ManagerConfig, MembershipConfig
from tribes.config.notices import Kind, Notice
from tribes.errors import ConfigError

if TYPE_CHECKING:
    from tribes.config.tomcat.tree import Element

__all__ = ["Making", "Place"]

_TICK_S: Final = 10
_ROOT: Final = "ROOT"
_PROVIDERS: Final = ("kubernetes", "dns")
_STATIC: Final = "channel.membership.static"


@final
@dataclass(frozen=True, slots=True)
class Place:
    """An element on its way from the root.

    Attributes:
        element: The element.
        path: The names from the root, with ``/`` between them.
        owner: The class whose table counts.
        parent: What it stands in.
    """

    element: Element
    path: str
    owner: str
    parent: Place | None = None

    def within(self, name: str) -> Place | None:
        """The nearest element of this name around it, or itself."""
        place: Place | None = self
        while place is not None and place.element.name != name:
            place = place.parent
        return place


@dataclass(slots=True)
class _Context:
    """An application, and what its own manager says."""

    place: Place
    name: str
    host: str
    settings: dict[str, Any] = field(default_factory=dict)


@final
class Making:
    """What a document says, as it is read.

    Attributes:
        tables: The settings, as in TOML.
        notices: What is not simply honoured.
        lines: Line of what set a key.
    """

    def __init__(self, source: str) -> None:
        self.tables: dict[str, Any] = {}
        self.notices: list[Notice] = []
        self.lines: dict[str, int] = {}
        self._source = source
        self._cluster: Place | None = None
        self._contexts: list[_Context] = []
        self._tick_s = _TICK_S

    def error(self, place: Place, message: str, name: str = "") -> ConfigError:
        """An error at an element, or at an attribute of it."""
        return ConfigError(
            message,
            key=f"{place.path} {name}".rstrip(),
            source=f"{self._source}: line {place.element.line}",
        )

    def note(self, place: Place, kind: Kind, name: str, found: str, what: str) -> None:
        """Remember something to tell."""
        self.notices.append(Notice(kind, place.path, name, found, what, place.element.line))

    def get(self, key: str) -> Any:
        """The value that was set; None: none was."""
        table: Any = self.tables
        for part in key.split("."):
            table = table.get(part) if isinstance(table, dict) else None
        return table

    def put(self, key: str, value: Any, place: Place) -> None:
        """Set a key."""
        *parts, last = key.split(".")
        table = self.tables
        for part in parts:
            table = table.setdefault(part, {})
        table[last] = value
        self.lines[key] = place.element.line

    # ---- elements --------------------------------------------------------------------------------

    def begin(self, place: Place) -> None:
        """An element begins, before its attributes."""
        if place.element.name == "Cluster":
            if self._cluster is not None:
                raise self.error(
                    place,
                    f"is a second cluster, the first is in line {self._cluster.element.line}; a "
                    "node is in one group: keep one here, and write a file for the other",
                )
            self._cluster = place
        elif place.element.name == "Context":
            host = place.within("Host")
            name = "" if host is None else host.element.attributes.get("name", "").strip()
            self._contexts.append(_Context(place, _context_name(place.element), name))

    def attributes(self, place: Place, values: dict[str, Any]) -> None:
        """The values of an element's attributes, by our keys."""
        match place.element.name:
            case "Interceptor":
                self._interceptor(place, values)
            case "Member" | "LocalMember":
                self._member(place, values)
            case "Membership":
                self._membership(place, values)
            case "Engine":
                self._tick_s = max(values.get("manager.expiry_interval", _TICK_S), 1)
            case "Host":
                pass
            case _:
                self._others(place, values)

    def _others(self, place: Place, values: dict[str, Any]) -> None:
        settings = {key: value for key, value in values.items() if key != "contexts"}
        ticks = settings.pop("manager.expiry_interval", None)
        if ticks is not None and ticks > 0:  # Tomcat ignores what is not.
            settings["manager.expiry_interval"] = ticks * self._tick_s * 1000
        for key, value in settings.items():
            if place.within("Context"):
                self._contexts[-1].settings[key] = value
                self.lines.setdefault(key, place.element.line)
            else:
                self.put(key, value, place)

    def _interceptor(self, place: Place, values: dict[str, Any]) -> None:
        chain = self.get("channel.interceptors") or []
        self.lines[f"channel.interceptors[{len(chain)}]"] = place.element.line
        self.put("channel.interceptors", [*chain, {"class": place.owner, **values}], place)

    def _member(self, place: Place, values: dict[str, Any]) -> None:
        for name in ("host", "port"):
            if name not in values and place.element.name == "Member":
                raise self.error(place, "is missing; a member needs host and port", name)
        if place.parent is not None and place.parent.element.name == "Interceptor":
            table = self.get("channel.interceptors")[-1]
            if place.element.name == "Member":
                table.setdefault("members", []).append(values)
            else:
                table["local_member"] = values
        elif place.element.name == "Member":
            members = self.get(_STATIC) or []
            self.lines[f"{_STATIC}[{len(members)}]"] = place.element.line
            self.put(_STATIC, [*members, values], place)
        else:
            what = "the member itself is known from <Receiver>; of this the domain is taken"
            self.note(place, Kind.MAPPED, "<LocalMember>", "", what)
            if domain := values.get("domain"):
                self.put("channel.membership.domain", domain, place)

    def _membership(self, place: Place, values: dict[str, Any]) -> None:
        if place.owner != "McastService":
            self.put("channel.membership.multicast", False, place)
        if place.owner == "CloudMembershipService":
            found = values.pop("channel.membership", "kubernetes")
            # Tomcat's classes are DNSMembershipProvider and KubernetesMembershipProvider.
            near = [
                each for each in _PROVIDERS if found.rpartition(".")[2].lower().startswith(each)
            ]
            if not near:
                allowed = f"found {found!r}, allowed are {' and '.join(_PROVIDERS)}"
                raise self.error(place, allowed, "membershipProviderClassName")
            self.put(f"channel.membership.{near[0]}", {}, place)
            if near[0] == "dns":
                values.clear()
        for key, value in values.items():
            self.put(key, value, place)

    # ---- what concerns the whole -----------------------------------------------------------------

    def finish(self) -> None:
        """Apply the rules that need everything."""
        self._name_contexts()
        self._one_manager()
        if self._cluster is not None:
            self._addresses(self._cluster)
            self._patience(self._cluster)

    def _name_contexts(self) -> None:
        hosts = {context.host for context in self._contexts}
        is_engine = self._cluster is not None and self._cluster.within("Host") is None
        names: dict[str, Place] = {}
        for context in self._contexts:
            if not context.name:
                what = "has neither path nor docBase; name it yourself, contexts = [...]"
                self.note(context.place, Kind.ELSEWHERE, "<Context>", "", what)
                continue
            # As Tomcat's manager names: host#context where one cluster serves several hosts.
            several = is_engine and len(hosts) > 1
            name = f"{context.host}#{context.name}" if several else context.name
            if name in names:
                first = names[name].element.line
                what = f"is the context {name!r}, as the one in line {first}; keep one of the two"
                raise self.error(context.place, what)
            names[name] = context.place
        if names:
            self.tables["contexts"] = list(names)

    def _one_manager(self) -> None:
        """A node has one set of settings for all contexts: that of the cluster, or the first."""
        for index, context in enumerate(self._contexts):
            for key, value in context.settings.items():
                if index == 0 and self.get(key) is None:
                    self.put(key, value, context.place)
                elif self.get(key) != value:
                    is_set = self.get(key)
                    here = _default(key) if is_set is None else is_set
                    what = f"all contexts of a node have one {key}, which is {here}"
                    self.note(context.place, Kind.NOT_SUPPORTED, key, str(value), what)

    def _addresses(self, cluster: Place) -> None:
        address = self.get("channel.receiver.address")
        if address is None:
            what = (
                "is not set; Tomcat would listen on the address of the machine (auto), here it is "
                "127.0.0.1 until one is set"
            )
            self.note(cluster, Kind.MAPPED, "Channel/Receiver address", "", what)
            return
        uses_multicast = self.get("channel.membership.multicast") is not False
        if uses_multicast and self.get("channel.membership.bind") is None:
            self.put("channel.membership.bind", address, cluster)
            what = f"is not set; heartbeats use the interface of the receiver, {address}"
            self.note(cluster, Kind.MAPPED, "Channel/Membership bind", "", what)

    def _patience(self, cluster: Place) -> None:
        """A document's times must not contradict ``suspect_after``, which Tomcat does not have."""
        default = MembershipConfig()
        frequency = self.get("channel.membership.frequency") or default.frequency
        drop_time = self.get("channel.membership.drop_time") or default.drop_time
        fits = 2 * frequency <= default.suspect_after <= drop_time
        if not fits and 0 < 2 * frequency <= drop_time:
            wanted = min(max(2 * frequency, default.suspect_after), drop_time)
            self.put("channel.membership.suspect_after", wanted, cluster)
            what = f"is {wanted} ms, to fit frequency and dropTime; Tomcat has no such time"
            self.note(cluster, Kind.MAPPED, "channel.membership.suspect_after", "", what)


def _context_name(element: Element) -> str:
    path = element.attributes.get("path")
    if path is not None:
        return path.strip().strip("/") or _ROOT
    base = element.attributes.get("docBase", "").strip().replace("\\", "/").rstrip("/")
    return base.rpartition("/")[2].removesuffix(".war")


def _default(key: str) -> Any:
    group, _, name = key.partition(".")
    return getattr(ManagerConfig(), name, None) if group == "manager" else None
