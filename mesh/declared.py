"""Types that a user declares: enums and dataclasses by naming them in an annotation, others by a TypeCodec.

What is stored is a name and plain parts. On the way back the name is looked up among the types that the
entity declares; nothing is ever imported or called because of a name found in data. A name is the class's own
(`Address`), without its module, so that code may move; two of one name in one entity are refused.

Enums go by the member's name, flags by their number, dataclasses by their fields. A dataclass comes back
without a call of __init__ or __post_init__, as copy and pickle do it: what could be stored can be read, also
after the checks in there have changed.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from mesh.errors import SetupError

T = TypeVar("T")

PLAIN = (bool, int, float, str, bytes, list, tuple, dict, set, frozenset)
"""What a declared type may derive from but never be."""


@dataclasses.dataclass(frozen=True, slots=True)
class TypeCodec(Generic[T]):
    """How values of one more type are stored and sent; given to `@mesh.entity(codecs=[...])`.

    Args:
        type: exactly this class; subclasses need their own.
        name: what its values are stored under; the class's name by default. Changing it later loses sight
            of what is stored.
        encode: a value to something that can be stored: plain values, or declared types again.
        decode: the inverse. Enums and dataclasses need neither.

    Raises:
        SetupError: a plain type, or one that needs encode and decode and lacks them.
    """

    type: type[T]
    name: str = ""
    encode: Callable[[T], Any] | None = None
    decode: Callable[[Any], T] | None = None

    def __post_init__(self) -> None:
        cls: Any = self.type
        name: Any = self.name
        if not isinstance(cls, type) or cls in PLAIN:
            raise SetupError(f"a codec is for a class of its own, not {cls!r:.80}")
        if not isinstance(name, str):
            raise SetupError(f"the name of a codec is text, not {self.name!r:.80}")
        if (self.encode is None) != (self.decode is None):
            raise SetupError(f"codec for {self.type.__name__}: give both encode and decode")
        if self.encode is None and not is_declarable(self.type):
            raise SetupError(
                f"{self.type.__name__} is neither an enum nor a dataclass: "
                f"mesh.TypeCodec({self.type.__name__}, encode=..., decode=...) says how to store it"
            )


class Declared(NamedTuple):
    """A declared type, ready for use. `decode` raises ValueError."""

    type: type
    name: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def is_declarable(cls: type) -> bool:
    """An annotation that names it is enough."""
    return issubclass(cls, enum.Enum) or dataclasses.is_dataclass(cls)


def declare(codec: TypeCodec[Any] | type) -> Declared:
    """What a class or a TypeCodec stands for.

    Raises:
        SetupError: it is neither, or says too little.
    """
    if isinstance(codec, type):
        codec = TypeCodec(codec)
    elif not isinstance(codec, TypeCodec):
        raise SetupError(f"codecs= takes classes and mesh.TypeCodec, not {codec!r:.80}")
    cls = codec.type
    name = codec.name or cls.__name__
    if codec.encode is not None and codec.decode is not None:
        return _of_hooks(cls, name, codec.encode, codec.decode)
    if issubclass(cls, enum.Flag):
        return Declared(cls, name, lambda member: member.value, _flag_decoder(cls))
    if issubclass(cls, enum.Enum):
        return Declared(cls, name, lambda member: member.name, _enum_decoder(cls))
    return _of_dataclass(cls, name)


def _of_hooks(
    cls: type, name: str, encode: Callable[[Any], Any], decode: Callable[[Any], Any]
) -> Declared:
    def encode_value(value: Any) -> Any:
        try:
            return encode(value)
        except Exception as error:
            raise TypeError(f"encode of {name} failed: {error!r:.200}") from error

    def decode_value(parts: Any) -> Any:
        try:
            return decode(parts)
        except Exception as error:
            raise ValueError(f"decode of {name} failed: {error!r:.200}") from error

    return Declared(cls, name, encode_value, decode_value)


def _enum_decoder(cls: type[enum.Enum]) -> Callable[[Any], Any]:
    def decode(parts: Any) -> enum.Enum:
        member = cls.__members__.get(parts) if type(parts) is str else None
        if member is None:
            raise ValueError(f"{cls.__name__} has no member {parts!r:.80}")
        return member

    return decode


def _flag_decoder(cls: type[enum.Flag]) -> Callable[[Any], Any]:
    def decode(parts: Any) -> enum.Flag:
        if type(parts) is not int:
            raise ValueError(f"{cls.__name__} has no value {parts!r:.80}")
        member = cls(parts)
        if type(member) is not cls:  # a boundary of EJECT gives back a number
            raise ValueError(f"{cls.__name__} has no value {parts}")
        return member

    return decode


def _of_dataclass(cls: type, name: str) -> Declared:
    fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(cls)
    names = [field.name for field in fields]
    known = frozenset(names)

    def encode(value: Any) -> dict[str, Any]:
        held = getattr(value, "__dict__", None)
        if held is not None and not held.keys() <= known:
            raise TypeError(
                f"{name} has the fields {names}; {sorted(held.keys() - known)} would be lost"
            )
        try:
            return {field: getattr(value, field) for field in names}
        except AttributeError as error:
            raise TypeError(f"a field of {name} was deleted: {error}") from None

    def decode(parts: Any) -> Any:
        if type(parts) is not dict:
            raise ValueError(f"not the fields of {name}: {parts!r:.80}")
        if not parts.keys() <= known:
            raise ValueError(
                f"{name} has no field {min(map(str, parts.keys() - known))!r:.80}: another version of the "
                f"code stored it; a mesh.TypeCodec named {name!r} can take the dict of fields as it is"
            )
        value: Any = object.__new__(cls)
        for field in fields:
            # As a frozen dataclass does it itself.
            object.__setattr__(
                value,
                field.name,
                parts[field.name] if field.name in parts else _default(field, name),
            )
        return value

    return Declared(cls, name, encode, decode)


def _default(field: dataclasses.Field[Any], name: str) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    raise ValueError(f"field {field.name!r} of {name} is not stored and has no default")


# ------------------------------------------------------------------------------------------- annotations


def is_class_variable(annotation: Any) -> bool:
    """Also where the user's module postpones its annotations, and they are text."""
    return "ClassVar" in str(annotation).partition("[")[0]


class Found(NamedTuple):
    """Types that annotations name; not complete while one of them names what does not exist yet."""

    types: list[type]
    complete: bool


def find(
    sources: Iterable[tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]],
) -> Found:
    """The enums and dataclasses that annotations name, those in the fields of the dataclasses included.

    Args:
        sources: annotations, each with the globals and locals that it was written in.
    """
    found: dict[type, None] = {}
    complete = True
    todo = list(sources)
    while todo:
        annotations, global_names, local_names = todo.pop()
        for name, annotation in annotations.items():
            if is_class_variable(annotation):
                continue
            one = types.SimpleNamespace(__annotations__={name: annotation})
            try:
                hints = typing.get_type_hints(one, dict(global_names), dict(local_names))
            except (NameError, TypeError, AttributeError, SyntaxError):
                complete = False
                continue
            for cls in _named_in(hints[name]):
                if cls not in found:
                    found[cls] = None
                    todo += sources_of(cls)
    return Found(list(found), complete)


def sources_of(
    cls: type,
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]]:
    """The annotations of a class and its bases, with the names that they may use."""
    for base in reversed(cls.__mro__):
        module = sys.modules.get(base.__module__)
        names = {**vars(base), base.__name__: base}
        yield inspect.get_annotations(base), vars(module) if module else {}, names


def _named_in(hint: Any) -> Iterator[type]:
    for part in typing.get_args(hint):
        if isinstance(part, enum.Enum):  # Literal[Color.RED]
            yield type(part)
        elif isinstance(part, list):  # Callable[[Color], int]
            for inner in part:
                yield from _named_in(inner)
        else:
            yield from _named_in(part)
    supertype = getattr(hint, "__supertype__", None)  # NewType
    if supertype is not None:
        yield from _named_in(supertype)
    cls = typing.get_origin(hint) or hint
    # An entity is a class whose instances are never values.
    if isinstance(cls, type) and is_declarable(cls) and "__mesh_entity__" not in vars(cls):
        yield cls
