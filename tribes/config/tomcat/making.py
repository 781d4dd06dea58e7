"""The tables of our configuration, made of attributes that were read: rules of several attributes.

Which attribute sets which key is data (see the tables). What depends on more than one, or on where
it stands, is here: in one file, because the rules at the end look at what every element has left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, final

import msgspec

from tribes.config.managers import DEFAULT_KIND, MANAGER_KINDS
from tribes.config.model import MembershipConfig
from tribes.config.notices import Kind, Notice
from tribes.config.valves import DEFAULT_VALVES, MORE_VALVES
from tribes.errors import ConfigError

if TYPE_CHECKING:
    from tribes.config.tomcat.tree import Element

__all__ = ["Making", "Place"]

_TICK_S: Final = 10
_ROOT: Final = "ROOT"
_PROVIDERS: Final = ("kubernetes", "dns")
_STATIC: Final = "channel.membership.static"
_KINDS: Final = {
    "DeltaManager": "delta",
    "BackupManager": "backup",
    "StandardManager": "standard",
    "PersistentManager": "persistent",
    "MemcachedBackupSessionManager": "memcached",
}
_NAMES: Final = frozenset({"contexts", "context"})
"""What names contexts, and is read with all of them."""

_COOKIE: Final = "context.<name>.cookie."

_OF_CLUSTER: Final = frozenset({"kind", "channel_send_options"})
"""Settings in a manager's table that in Tomcat are the cluster's."""


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

    def within_place(self, place: Place) -> bool:
        """Whether it stands in this very element, or is it."""
        here: Place | None = self
        while here is not None and here.element is not place.element:
            here = here.parent
        return here is not None


@dataclass(slots=True)
class _Context:
    """An application, and what its own manager says.

    Attributes:
        place: Its element.
        name: From path or docBase.
        host: The host around it.
        manager: Settings of its manager; None: it has none of its own.
        over: What the application says for whatever manager it has.
        others: Its other settings.
        lines: Line of what set a key of the manager.
        title: Name in the group; empty: it has none.
    """

    place: Place
    name: str
    host: str
    manager: dict[str, Any] | None = None
    over: dict[str, Any] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    title: str = ""


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
        self._hosts: list[Place] = []
        self._tick_s = _TICK_S
        self._per_request: list[tuple[Place, dict[str, Any]]] = []
        self._beside: list[Place] = []

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
        elif place.element.name == "Host":
            self._hosts.append(place)
        elif place.element.name == "Context":
            host = place.within("Host")
            name = "" if host is None else host.element.attributes.get("name", "").strip()
            context = _Context(place, _context_name(place.element), name)
            self._contexts.append(context)
            attributes = place.element.attributes
            if attributes.get("className", "").endswith("ReplicatedContext"):
                context.others["attributes"] = {}
            if attributes.get("distributable", "").strip().lower() == "false":
                context.others["distributable"] = False
        elif place.element.name == "Manager" and (kind := _KINDS.get(place.owner)):
            if place.within("Cluster") and not MANAGER_KINDS[kind].in_group:
                what = "is no manager of a cluster; write DeltaManager or BackupManager"
                raise self.error(place, what, "className")
            self._set_manager(place, "kind", kind)
        elif place.element.name == "Valve":
            self._valve(place)
        elif place.element.name == "Deployer":
            has_tick = self._tick_s != _TICK_S
            self.put("farm", {"tick_s": float(self._tick_s)} if has_tick else {}, place)

    def _valve(self, place: Place) -> None:
        if place.owner in DEFAULT_VALVES:
            self.put("valves", [*(self.get("valves") or ()), place.owner], place)
        elif place.owner in MORE_VALVES:
            self._beside.append(place)
        elif place.owner == "ClusterSingleSignOn":
            self.put("sso", self.get("sso") or {}, place)

    def _set_manager(self, place: Place, name: str, value: Any) -> None:
        """Set a key of the manager that an element is about."""
        context = self._context_of(place)
        if context is None:
            self.put(f"manager.{name}", value, place)
            return
        if context.manager is None:
            context.manager = {}
        table = context.manager
        *parts, last = name.split(".")
        for part in parts:
            table = table.setdefault(part, {})
        table[last] = value
        context.lines[name] = place.element.line

    def _context_of(self, place: Place) -> _Context | None:
        around = place.within("Context")
        return next((each for each in self._contexts if each.place is around), None)

    def attributes(self, place: Place, values: dict[str, Any]) -> None:
        """The values of an element's attributes, by our keys."""
        if place.owner == "PersistentValve":
            self._per_request.append((place, values))
            return
        if (
            place.owner == "MemcachedBackupSessionManager"
            and "manager.memcached_nodes" not in values
        ):
            raise self.error(place, "is missing; write n1:host:port", "memcachedNodes")
        if place.element.name == "Store" and place.owner != "FileStore":
            self._check_url(place, values)
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

    def _check_url(self, place: Place, values: dict[str, Any]) -> None:
        if "manager.sql.url" not in values:
            what = "is missing; there is no JNDI here, so the database is named by its URL"
            raise self.error(place, what, "connectionURL")

    def _others(self, place: Place, values: dict[str, Any]) -> None:
        settings = {key: value for key, value in values.items() if key not in _NAMES}
        ticks = settings.pop("manager.expiry_interval", None)
        if ticks is not None and ticks > 0:  # Tomcat ignores what is not.
            settings["manager.expiry_interval"] = ticks * self._tick_s * 1000
        context = self._context_of(place)
        for key, value in settings.items():
            if context is None:
                self.put(key, value, place)
                continue
            group, _, name = key.partition(".")
            if group != "manager":
                self._of_context(context, key, value, place)
            elif place.element.name != "Context":
                self._set_manager(place, name, value)
            else:
                # The application's idle time goes over any manager's.
                context.over[name] = value

    def _of_context(self, context: _Context, key: str, value: Any, place: Place) -> None:
        if key.startswith(_COOKIE):
            if value != "":  # As good as absent, in Tomcat.
                context.others.setdefault("cookie", {})[key.removeprefix(_COOKIE)] = value
        elif key.startswith("context."):
            if "attributes" in context.others:
                context.others["attributes"]["map_send_options"] = value
                return
            what = "has no effect in a context that is no ReplicatedContext"
            self.note(place, Kind.NO_EFFECT, "mapSendOptions", str(value), what)
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
        self._context_managers()
        for place in self._beside:
            # They are not the cluster's: a cluster that names no valve has its default ones still.
            valves = self.get("valves") or DEFAULT_VALVES
            self.put("valves", list(dict.fromkeys((*valves, place.owner))), place)
        if self._cluster is not None:
            self._addresses(self._cluster)
            self._patience(self._cluster)

    def _name_contexts(self) -> None:
        is_engine = self._cluster is not None and self._cluster.within("Host") is None
        names: dict[str, Place] = {}
        for context in self._contexts:
            if not context.name:
                what = "has neither path nor docBase; name it yourself, contexts = [...]"
                self.note(context.place, Kind.ELSEWHERE, "<Context>", "", what)
                continue
            # As Tomcat's manager names: host#context where the cluster is the engine's. Not only
            # where there are several hosts: the other members' files may have more.
            name = f"{context.host}#{context.name}" if is_engine and context.host else context.name
            if name in names:
                first = names[name].element.line
                what = f"is the context {name!r}, as the one in line {first}; keep one of the two"
                raise self.error(context.place, what)
            names[name] = context.place
            context.title = name
        if names:
            self.tables["contexts"] = list(names)
        for place in self._hosts if self._cluster is not None else ():
            self._tell_of_applications(place, is_engine=is_engine)

    def _tell_of_applications(self, host: Place, *, is_engine: bool) -> None:
        """Tomcat deploys what lies in a directory; the file does not say what that is."""
        if any(context.place.within_place(host) for context in self._contexts):
            return
        attributes = host.element.attributes
        base = attributes.get("appBase", "webapps").strip()
        name = attributes.get("name", "").strip()
        shown = f"{name}#NAME" if is_engine and name else "NAME"
        what = (
            f"has no <Context>: applications that Tomcat finds in {base!r} are not in this file; "
            f'name each in contexts = ["{shown}"]'
        )
        self.note(host, Kind.ELSEWHERE, "<Host>", "", what)

    def _context_managers(self) -> None:
        """A context's own manager replaces the cluster's template, as in Tomcat."""
        for place, values in self._per_request:
            self._store_each_request(place, values)
        template = self.tables.get("manager", {})
        for context in self._contexts:
            own = self._own_manager(context, template)
            if not context.title:
                # It has no name here: what it says is the node's.
                for name, value in own.items():
                    self.put(f"manager.{name}", value, context.place)
                continue
            table = {**context.others, **({"manager": own} if own else {})}
            if table:
                path = f"context.{context.title}"
                self.tables.setdefault("context", {})[context.title] = table
                self.lines[path] = context.place.element.line
                for name, line in context.lines.items():
                    self.lines[f"{path}.manager.{name}"] = line
        self._tell_of_no_cluster()

    def _own_manager(self, context: _Context, template: dict[str, Any]) -> dict[str, Any]:
        if context.manager is None:
            is_other = any(template.get(name) != value for name, value in context.over.items())
            return dict(context.over) if is_other else {}
        kind = MANAGER_KINDS[context.manager.get("kind", DEFAULT_KIND)]
        # What the template says and the context does not is the default there, but for what is
        # the cluster's.
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        plain = {
            name: fields[name].default
            for name in template
            if name in fields and name not in _OF_CLUSTER and not isinstance(template[name], dict)
        }
        kept = {"kind": context.manager.get("kind", DEFAULT_KIND)}
        return {**plain, **kept, **context.manager, **context.over}

    def _store_each_request(self, valve: Place, values: dict[str, Any]) -> None:
        """The valve works on the persistent managers of what it stands in."""
        tables = [self.tables.get("manager", {})] if not self._contexts else []
        tables += [
            context.manager
            for context in self._contexts
            if context.manager is not None
            and (valve.parent is None or context.place.within_place(valve.parent))
        ]
        found = [table for table in tables if table.get("kind") == "persistent"]
        for table in found:
            table["per_request"] = True
            table["lock"] = "local"
            for name in ("filter", "block_on_acquire"):
                if f"manager.{name}" in values:
                    table[name] = values[f"manager.{name}"]
        if not found:
            what = "there is no PersistentManager that it could work with"
            self.note(valve, Kind.NO_EFFECT, "PersistentValve", "", what)

    def _tell_of_no_cluster(self) -> None:
        alone = [each for each in self._contexts if each.title and each.manager is None]
        if alone and self._cluster is None:
            what = (
                "without a <Cluster> Tomcat keeps its sessions to one process; here the members of "
                "the node's group share them. distributable = false keeps them"
            )
            self.note(alone[0].place, Kind.MAPPED, "<Context>", "", what)

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
