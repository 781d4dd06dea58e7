"""How attribute values become bytes and come back, exactly and without code (DESIGN §2.6).

msgpack carries None, bool, int, float, str, bytes, list and dict; everything else is an extension
type: the values of `scalars`, the containers tuple, set and frozenset, and enums, dataclasses and
other classes that the application registered by name.  There is no pickle: decoding calls nothing
but the types below and what was registered.

**Exact.** A value comes back with its type, at every depth; what would come back as something else
(a subclass of ``dict``, a ``bytearray``) is refused.  **Deterministic.** One value gives one byte
string: dicts keep their order, sets are sorted.  Sessions rely on it to see changes in place.
**Bounded.** Decoding costs memory in proportion to the bytes, never to what they claim.

Nesting is limited to `EXTENSIONS_DEPTH_MAX` extension types within each other, and to msgpack's
own limit (512 or more) for lists and dicts.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from inspect import Parameter, signature
from typing import Any, Final, NamedTuple, TypeVar, final

import msgpack

from tribes.errors import AttributeNotEncodableError, AttributeUnreadableError, LocalProtocolError

from .listeners import tells_value
from .scalars import SCALARS, Scalar

__all__ = ["EXTENSIONS_DEPTH_MAX", "ValueCodec", "is_immutable"]

EXTENSIONS_DEPTH_MAX: Final = 32

_TUPLE: Final = 16
_SET: Final = 17
_FROZENSET: Final = 18
_ENUM: Final = 19
_DATACLASS: Final = 20
_CUSTOM: Final = 21

_PACKER_BYTES: Final = 4096
_PACKERS_MAX: Final = 64
_PATH_MAX_CHARS: Final = 500
_KEPT_MAX_BYTES: Final = 64 * 1024

_NATIVE: Final = frozenset({type(None), bool, int, float, str, bytes})
_ATOMS: Final = _NATIVE | frozenset(SCALARS)
_ARRAY_16: Final = b"\xdc"
_ARRAY_32: Final = b"\xdd"

_LOOKALIKES: Final = frozenset({bytearray, memoryview, msgpack.ExtType, msgpack.Timestamp})
"""What msgpack would write although it comes back as something else."""
_BUILTINS: Final = (int, float, complex, str, bytes, bytearray, list, dict, tuple, set, frozenset)

C = TypeVar("C", bound=type)


def is_immutable(value: object) -> bool:
    """Tell, quickly, whether a value can only change by being replaced. In doubt: False."""
    kind = type(value)
    if kind in _ATOMS or isinstance(value, enum.Enum):
        return True
    if kind is tuple or kind is frozenset:
        return all(map(is_immutable, value))  # type: ignore[call-overload]
    return False


class _Shape(NamedTuple):
    """The fields of a registered dataclass, and those that its constructor takes."""

    fields: tuple[str, ...]
    init: frozenset[str]


class _Custom(NamedTuple):
    """How values of a registered class become others that can be stored, and come back."""

    encode: Callable[[Any], object]
    decode: Callable[[Any], object]


@final
class ValueCodec:
    """Encodes and decodes values; one for all threads of the process.

    Register the application's classes before the first session is used, and under the same names
    on all nodes.
    """

    def __init__(self) -> None:
        self.tells_values = False
        """True when values of a registered class are told that they are bound or unbound."""
        self._names: dict[type, str] = {}
        self._classes: dict[str, type] = {}
        self._shapes: dict[type, _Shape] = {}
        self._customs: dict[type, _Custom] = {}
        self._scalars: dict[int, Scalar] = {scalar.code: scalar for scalar in SCALARS.values()}
        # A packer serves one thread at a time and one depth of nesting: taken from here, put back.
        self._packers: list[list[Any]] = [[] for _ in range(EXTENSIONS_DEPTH_MAX + 1)]
        self._unpackers: list[Callable[[bytes], Any]] = [
            partial(
                msgpack.unpackb,
                ext_hook=partial(self._from_extension, depth),
                strict_map_key=False,
                timestamp=3,  # ours are of another code; a foreign one becomes a datetime
            )
            for depth in range(EXTENSIONS_DEPTH_MAX + 1)
        ]

    @property
    def is_canonical(self) -> bool:
        """True while every value has one encoding: no dataclass, which may grow, is registered."""
        return not self._shapes

    def register(
        self,
        cls: C,
        *,
        name: str | None = None,
        encode: Callable[[Any], object] | None = None,
        decode: Callable[[Any], object] | None = None,
    ) -> C:
        """Make values of a class storable, under a name that never changes.

        Also works as a decorator.  An enum or a dataclass needs nothing else; for any other class
        say how its values become storable ones and come back::

            codec.register(Money, encode=lambda money: [money.amount, money.currency],
                           decode=lambda parts: Money(*parts))

        A dataclass is rebuilt by calling it with its fields, so its
        ``__post_init__`` runs; fields that a stored value lacks get their defaults, and a stored
        field that the class does not have makes the value unreadable here, but never loses it.

        Args:
            cls: The class; values of its subclasses need registrations of their own.
            name: Stands for the class in stored values; by default the qualified name.
            encode: Turns a value into one of other types; equal values into equal ones.
            decode: Turns that back into the value.

        Raises:
            LocalProtocolError: Another class has the name, or the class is of no such kind.
        """
        if name is None:
            name = f"{cls.__module__}.{cls.__qualname__}"
        if self._classes.get(name, cls) is not cls:
            raise LocalProtocolError(f"{name!r} stands for {self._classes[name]!r} already")
        if encode is not None and decode is not None:
            if cls in _ATOMS or cls in _BUILTINS:
                raise LocalProtocolError(f"how {cls!r} is stored cannot be changed")
            self._customs[cls] = _Custom(encode, decode)
        elif encode is not None or decode is not None:
            raise LocalProtocolError(f"{cls!r} needs both encode and decode")
        elif is_dataclass(cls):
            self._shapes[cls] = _shape_of(cls)
        elif not issubclass(cls, enum.Enum):
            raise LocalProtocolError(
                f"{cls!r} is neither an enum nor a dataclass; give encode and decode"
            )
        self._classes[name] = cls
        self._names[cls] = name
        self.tells_values = self.tells_values or tells_value(cls)
        return cls

    def encode(self, value: object) -> bytes:
        """Return the bytes of a value.

        Raises:
            AttributeNotEncodableError: Some part has a type that no codec knows; says where.
        """
        try:
            if type(value) not in _ATOMS:
                _refuse_lookalikes(value)
            return self._pack(value, 0)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            where = self._find_culprit(value, "value", set())
            if where is None:
                where = f"value contains itself or nests too deeply: {error}"
            raise AttributeNotEncodableError(where) from error

    def decode(self, data: bytes) -> Any:
        """Return the value of the bytes.

        Raises:
            AttributeUnreadableError: The bytes are malformed, nest too deeply, or need a class that
                is not registered here.
        """
        try:
            return self._unpack(data, 0)
        except AttributeUnreadableError:
            raise
        except MemoryError:
            raise
        except Exception as error:
            # Whatever a registered class raises must cost this value only.
            why = f"{type(error).__name__}: {error}"
            raise AttributeUnreadableError(f"cannot decode {len(data)} bytes: {why}") from error

    def _pack(self, value: object, depth: int) -> bytes:
        if depth > EXTENSIONS_DEPTH_MAX:
            raise ValueError(f"more than {EXTENSIONS_DEPTH_MAX} extension types in each other")
        pool = self._packers[depth]
        try:
            packer = pool.pop()
        except IndexError:
            packer = msgpack.Packer(
                default=partial(self._to_extension, depth),
                strict_types=True,
                buf_size=_PACKER_BYTES,
            )
        data: bytes = packer.pack(value)
        if len(data) <= _KEPT_MAX_BYTES and len(pool) < _PACKERS_MAX:
            pool.append(packer)
        return data

    def _to_extension(self, depth: int, value: Any) -> msgpack.ExtType:
        kind = type(value)
        scalar = SCALARS.get(kind)
        if scalar is not None:
            return msgpack.ExtType(scalar.code, scalar.encode(value))
        if kind is tuple:
            parts = list(value)
            _refuse_lookalikes(parts)
            return msgpack.ExtType(_TUPLE, self._pack(parts, depth + 1))
        if kind is set or kind is frozenset:
            _refuse_lookalikes(list(value))
            packed = sorted(self._pack(part, depth + 1) for part in value)
            code = _SET if kind is set else _FROZENSET
            return msgpack.ExtType(code, _array_header(len(packed)) + b"".join(packed))
        name = self._names.get(kind)
        if name is None:
            raise TypeError(f"no codec for {kind!r}")
        custom = self._customs.get(kind)
        if custom is not None:
            parts = [name, _stored(custom, value)]
            _refuse_lookalikes(parts)
            return msgpack.ExtType(_CUSTOM, self._pack(parts, depth + 1))
        if isinstance(value, enum.Enum):
            member = value.value if isinstance(value, enum.Flag) else value.name
            return msgpack.ExtType(_ENUM, self._pack([name, member], depth + 1))
        content = {field: getattr(value, field) for field in self._shapes[kind].fields}
        _refuse_lookalikes(content)
        return msgpack.ExtType(_DATACLASS, self._pack([name, content], depth + 1))

    def _unpack(self, data: bytes, depth: int) -> Any:
        if depth > EXTENSIONS_DEPTH_MAX:
            raise ValueError(f"more than {EXTENSIONS_DEPTH_MAX} extension types in each other")
        if _ARRAY_32 in data or _ARRAY_16 in data:
            # msgpack reserves the list that an array claims to be before it looks for the elements.
            # A walk that builds nothing proves first that they are all there.
            walker = msgpack.Unpacker(max_buffer_size=len(data))
            walker.feed(data)
            walker.skip()
        return self._unpackers[depth](data)

    def _unpack_list(self, data: bytes, depth: int) -> list[Any]:
        parts = self._unpack(data, depth)
        if type(parts) is not list:
            raise TypeError("the content of an extension type is a list")
        return parts

    def _from_extension(self, depth: int, code: int, data: bytes) -> Any:
        scalar = self._scalars.get(code)
        if scalar is not None:
            return scalar.decode(data)
        if code == _TUPLE:
            return tuple(self._unpack_list(data, depth + 1))
        if code == _SET:
            return set(self._unpack_list(data, depth + 1))
        if code == _FROZENSET:
            return frozenset(self._unpack_list(data, depth + 1))
        if code not in (_ENUM, _DATACLASS, _CUSTOM):
            raise ValueError(f"unknown extension type {code}")
        name, content = self._unpack_list(data, depth + 1)
        cls = self._classes.get(name)
        if cls is None:
            raise AttributeUnreadableError(f"no class is registered here as {name!r}")
        if code == _CUSTOM:
            return self._customs[cls].decode(content)
        if code == _ENUM and issubclass(cls, enum.Enum):
            return cls(content) if issubclass(cls, enum.Flag) else cls[content]
        return self._rebuild(cls, content)

    def _rebuild(self, cls: type, content: dict[str, Any]) -> object:
        shape = self._shapes[cls]
        strange = content.keys() - set(shape.fields)
        if strange:
            raise AttributeUnreadableError(f"{cls!r} has no field {min(strange)!r} here")
        value = cls(**{field: part for field, part in content.items() if field in shape.init})
        for field, part in content.items():
            # Also what the constructor computed: the value is the stored one. Works if frozen.
            object.__setattr__(value, field, part)
        return value

    def _find_culprit(self, value: Any, path: str, seen: set[int]) -> str | None:
        """Name the first part that no codec knows, and where it is."""
        kind = type(value)
        if kind in _ATOMS:
            try:
                self._pack(value, 0)
            except (TypeError, ValueError) as error:
                return f"{path}: {error}"
            return None
        if id(value) in seen:
            return None
        seen.add(id(value))
        if kind is dict:
            parts = [(f"key {key!r} of {path}", key) for key in value]
            parts += [(f"{path}[{key!r}]", part) for key, part in value.items()]
        elif kind in (list, tuple):
            parts = [(f"{path}[{index}]", part) for index, part in enumerate(value)]
        elif kind in (set, frozenset):
            parts = [(f"an element of {path}", part) for part in value]
        elif kind in self._customs:
            try:
                parts = [(f"what encode makes of {path}", _stored(self._customs[kind], value))]
            except TypeError as error:
                return f"{path}: {error}"
        elif kind in self._shapes:
            parts = [
                (f"{path}.{field}", getattr(value, field)) for field in self._shapes[kind].fields
            ]
        elif kind in self._names:
            return None
        elif kind.__module__.endswith("manager.merged"):
            return f"{path} is a {kind.__name__}, which can only be an attribute of its own"
        else:
            return (
                f"{path} has the type {kind.__module__}.{kind.__qualname__}, which has no codec; "
                f"register it once, before sessions are used: {_registration(kind)}"
            )
        for where, part in parts:
            if len(where) < _PATH_MAX_CHARS and (culprit := self._find_culprit(part, where, seen)):
                return culprit
        return None


def _stored(custom: _Custom, value: object) -> object:
    try:
        return custom.encode(value)
    except Exception as error:
        # Whatever it raises must cost this value only.
        raise TypeError(f"its encode raised {type(error).__name__}: {error}") from error


def _registration(kind: type) -> str:
    """Return the line that makes values of a type storable."""
    plain = is_dataclass(kind) or issubclass(kind, enum.Enum)
    how = "" if plain else ", encode=..., decode=..."
    return f"manager.codec.register({kind.__name__}{how})"


def _array_header(length: int) -> bytes:
    return bytes((0x90 | length,)) if length < 16 else _ARRAY_32 + length.to_bytes(4)


def _refuse_lookalikes(value: object) -> None:
    kind = type(value)
    parts: Any
    if kind is list:
        parts = value
    elif kind is dict:
        parts = value.values()  # type: ignore[attr-defined]
    else:
        if kind in _LOOKALIKES:
            raise TypeError(f"no codec for {kind!r}")
        return
    kinds = set(map(type, parts))
    if kinds <= _ATOMS:
        return
    for part in parts:
        if type(part) not in _ATOMS:
            _refuse_lookalikes(part)


def _shape_of(cls: Any) -> _Shape:
    """Return the fields of a dataclass, if an instance can be rebuilt from exactly these."""
    if issubclass(cls, _BUILTINS):
        raise LocalProtocolError(f"{cls!r} has content besides its fields")
    stored = fields(cls)
    init = {field.name for field in stored if field.init}
    parameters = signature(cls).parameters.values()
    takes = {parameter.name for parameter in parameters}
    takes_any = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters)
    needs = {
        parameter.name
        for parameter in parameters
        if parameter.default is Parameter.empty
        and parameter.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    }
    if not needs <= init or not (takes_any or init <= takes):
        raise LocalProtocolError(f"{cls!r} cannot be called with exactly its fields")
    return _Shape(tuple(field.name for field in stored), frozenset(init))
