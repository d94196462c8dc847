"""What the mesh knows of an entity class, and `@mesh.entity`, which finds it out.

The annotated fields, each with a default, are the state of one key. A state is stored as a map of field
names to values, and from version 2 on as [version, map]: most entities never get there and pay no byte.
Large values have fields of their own in the store (mesh.core.parts); here a state is always whole.
"""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, dataclass_transform, get_args, overload

from mesh import migrations
from mesh.codec import Codec, refuse_lookalikes
from mesh.declared import Found, TypeCodec, find, is_class_variable, is_declarable, sources_of
from mesh.errors import SetupError
from mesh.hooks import hooks_of
from mesh.methods import Method, spec_in

C = TypeVar("C", bound=type)

Durability = Literal["replicated", "fsynced", "async"]
MAX_PRIORITY = 255
_IMMUTABLE = (type(None), bool, int, float, str, bytes)


class EntitySpec:
    """What the mesh knows of an entity class: name, fields with defaults, methods, options.

    Attributes:
        ttl_s: seconds after its last change that a key is deleted; None for never.
        durability: what "acknowledged" means for its states.
        priority: of its calls, 0 to 255; None for the caller's.
        codec: of its states, arguments and replies.
        hooks: what handlers call for it at their start and end, and its health checks.

    Raises:
        SetupError: a field without a default, a default that cannot be stored, an option out of range.
    """

    def __init__(
        self,
        cls: type,
        *,
        name: str | None = None,
        version: int = 1,
        ttl: float | dt.timedelta | None = None,
        durability: Durability = "replicated",
        priority: int | None = None,
        codecs: Iterable[TypeCodec[Any] | type] = (),
    ) -> None:
        self.cls = cls
        self.name = name = _valid_name(cls.__name__ if name is None else name)
        if type(version) is not int or version < 1:
            raise SetupError(f"{name}: version is a whole number from 1 on, not {version!r:.80}")
        self.version = version
        self.ttl_s = _valid_ttl(ttl, name)
        if durability not in get_args(Durability):
            raise SetupError(
                f"{name}: durability is one of {list(get_args(Durability))}, not {durability!r:.80}"
            )
        self.durability: Durability = durability
        if priority is not None and not (type(priority) is int and 0 <= priority <= MAX_PRIORITY):
            raise SetupError(
                f"{name}: priority is a whole number from 0 to {MAX_PRIORITY}, not {priority!r:.80}"
            )
        self.priority = priority
        self.methods: dict[str, Method] = {}
        for base in reversed(cls.__mro__):
            for attribute, value in vars(base).items():
                if isinstance(value, Method):
                    self.methods[attribute] = value
        self.hooks = hooks_of(cls, name)
        self._migrations = migrations.collect(cls, version)
        self._defaults, self._factories = _fields(cls, name)
        self._fields = list(self._defaults)
        self._codecs = tuple(codecs)
        self.codec = Codec(self._codecs, self._discover)
        # A default says its type where its annotation cannot be looked up (yet).
        for value in self._defaults.values():
            if is_declarable(type(value)) and self.codec.of_type(type(value)) is None:
                self.codec.add(type(value))
        self._pack = self.codec.pack
        self._prefix = b"" if version == 1 else b"\x92" + self._pack(version)
        try:
            refuse_lookalikes(self._defaults)
            self.default_blob = self.encode(self.new(), {})
        except (TypeError, ValueError) as error:
            raise SetupError(f"the defaults of {name} cannot be stored: {error}") from None

    def __repr__(self) -> str:
        return f"EntitySpec({self.name})"

    def options(self) -> dict[str, Any]:
        """What `entity` has to be told to make the same of a copy of the class in another process.

        The types that annotations name are among it: there, their names may stand for nothing.
        """
        told = {codec.type if isinstance(codec, TypeCodec) else codec for codec in self._codecs}
        return {
            "name": self.name,
            "version": self.version,
            "ttl": self.ttl_s,
            "durability": self.durability,
            "priority": self.priority,
            "codecs": (*self._codecs, *(cls for cls in self.codec.types if cls not in told)),
        }

    def new(self) -> Any:
        """An instance in the state of a key that was never written."""
        instance: Any = object.__new__(self.cls)
        state = vars(instance)
        state.update(self._defaults)
        for field, factory in self._factories.items():
            state[field] = factory()
        return instance

    def encode(self, instance: Any, extra: Mapping[str, Any]) -> bytes:
        """The state's bytes; `extra` are stored fields that this version of the class does not know.

        Raises:
            TypeError: a value of a type that cannot be stored, or a field that is not annotated.
            ValueError: a value beyond a limit.
        """
        state = vars(instance)
        if state.keys() != self._defaults.keys():
            surplus = sorted(state.keys() - self._defaults.keys())
            missing = sorted(self._defaults.keys() - state.keys())
            raise TypeError(
                f"{self.name} declares the fields {sorted(self._defaults)}; "
                + (f"{surplus} are not annotated" if surplus else f"{missing} were deleted")
            )
        try:
            blob = self._pack({**extra, **state} if extra else state)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{self._culprit(state)} cannot be stored: {error}") from error
        return self._prefix + blob if self._prefix else blob

    def decode(self, blob: bytes) -> tuple[Any, dict[str, Any]]:
        """An instance of that state, and the stored fields that the class does not know.

        Raises:
            ValueError: the bytes are no state of this version of the class or of one that can be migrated.
        """
        try:
            stored = self.codec.unpack(blob)
        except ValueError as error:
            raise ValueError(f"not a state of {self.name}: {error}") from error
        version = 1
        if type(stored) is list and len(stored) == 2:
            version, stored = stored
        if type(stored) is not dict or type(version) is not int or version < 1:
            raise ValueError(f"not a state of {self.name}: {stored!r:.80}")
        if version != self.version:
            stored = migrations.run(self.name, self._migrations, stored, version, self.version)
        instance: Any = object.__new__(self.cls)
        if list(stored) == self._fields:
            instance.__dict__ = stored  # as it is: a copy would take twice the memory
            return instance, {}
        extra = {f: stored.pop(f) for f in list(stored) if f not in self._defaults}
        state = vars(instance)
        for field, default in self._defaults.items():
            if field in stored:
                state[field] = stored[field]
            elif field in self._factories:
                state[field] = self._factories[field]()
            else:
                state[field] = default
        return instance, extra

    def _culprit(self, state: Mapping[str, Any]) -> str:
        for field, value in state.items():
            try:
                self._pack(value)
            except (TypeError, ValueError):
                return f"{self.name}.{field}"
        return f"a state of {self.name}"

    def _discover(self) -> Found:
        def sources() -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]]:
            yield from sources_of(self.cls)
            for method in self.methods.values():
                function = method.function
                names = {self.cls.__name__: self.cls}
                yield inspect.get_annotations(function), function.__globals__, names

        return find(sources())


@overload
def entity(cls: C, /) -> C: ...
@overload
def entity(
    *,
    name: str | None = None,
    version: int = 1,
    ttl: float | dt.timedelta | None = None,
    durability: Durability = "replicated",
    priority: int | None = None,
    codecs: Iterable[TypeCodec[Any] | type] = (),
) -> Callable[[C], C]: ...
@dataclass_transform(eq_default=False, field_specifiers=(dataclasses.field,))
def entity(
    cls: C | None = None,
    /,
    *,
    name: str | None = None,
    version: int = 1,
    ttl: float | dt.timedelta | None = None,
    durability: Durability = "replicated",
    priority: int | None = None,
    codecs: Iterable[TypeCodec[Any] | type] = (),
) -> Any:
    """Make a class an entity. Its annotated fields, each with a default, are the state of one key.

    Args:
        cls: the class, where the decorator stands without parentheses.
        name: as it is called on the wire and in the store; the class's name by default. Changing it
            later loses sight of the stored keys.
        version: of the fields' meaning; raised together with a `@mesh.migrate` from the one before.
        ttl: seconds, or a timedelta, after its last change that a key is deleted; None for never.
        durability: "replicated" acknowledges when every in-sync node has it, "fsynced" when it is on their
            disks, "async" at once, which may lose it.
        priority: of calls that name none, 0 to 255.
        codecs: types of values beyond the built-in ones: enums and dataclasses that no annotation
            names, and `mesh.TypeCodec` for types of any kind.

    Raises:
        SetupError: a field without a default, a method with a reserved parameter name, an option out of
            range.
    """

    def mark(target: C) -> C:
        if not isinstance(target, type):
            raise SetupError(f"@mesh.entity is for classes, not {target!r:.80}")
        spec = EntitySpec(
            target,
            name=name,
            version=version,
            ttl=ttl,
            durability=durability,
            priority=priority,
            codecs=codecs,
        )
        target.__mesh_entity__ = spec  # type: ignore[attr-defined]
        if target.__init__ is object.__init__:  # type: ignore[misc]
            target.__init__ = _init  # type: ignore[misc]
        return target

    return mark if cls is None else mark(cls)


def spec_of(cls: type) -> EntitySpec:
    """The spec of an entity class.

    Raises:
        SetupError: the class is none.
    """
    spec: EntitySpec = spec_in(cls)
    return spec


def _init(self: Any, *args: Any, **kwargs: Any) -> None:
    """So that a user's tests can say Account(balance=5); the mesh itself never calls it."""
    spec = next(s for c in type(self).__mro__ if (s := vars(c).get("__mesh_entity__")) is not None)
    state = vars(spec.new())
    if len(args) > len(state):
        raise TypeError(f"{spec.name} has {len(state)} fields, {len(args)} values were given")
    given = dict(zip(state, args, strict=False))
    for field, value in kwargs.items():
        if field not in state or field in given:
            why = "given twice" if field in given else "no field"
            raise TypeError(f"{spec.name}: {field!r} is {why}; the fields are {list(state)}")
        given[field] = value
    vars(self).update(state | given)


def _fields(cls: type, name: str) -> tuple[dict[str, Any], dict[str, Callable[[], Any]]]:
    """Fields with their defaults, those of the bases first; and how to make the mutable ones anew."""
    if not hasattr(object.__new__(cls), "__dict__"):
        raise SetupError(f"{name} has __slots__; an entity keeps its state in __dict__")
    # A dataclass takes a default_factory out of the class, and keeps it here.
    of_dataclass: dict[str, dataclasses.Field[Any]] = getattr(cls, "__dataclass_fields__", {})
    defaults: dict[str, Any] = {}
    factories: dict[str, Callable[[], Any]] = {}
    for base in reversed(cls.__mro__):
        for field, annotation in inspect.get_annotations(base).items():
            if not is_class_variable(annotation):
                defaults[field] = None
    for field in defaults:
        value = getattr(cls, field, of_dataclass.get(field, dataclasses.MISSING))
        if isinstance(value, dataclasses.Field):
            if value.default_factory is not dataclasses.MISSING:
                factories[field] = value.default_factory
                value = value.default_factory()
            else:
                value = value.default
        if value is dataclasses.MISSING:
            raise SetupError(
                f"{name}.{field} has no default: a key that was never written starts from the "
                f"defaults, so each field needs one"
            )
        defaults[field] = value
        if field not in factories and not isinstance(value, _IMMUTABLE):
            factories[field] = _copier(value)
    return defaults, factories


def _copier(value: Any) -> Callable[[], Any]:
    return lambda: copy.deepcopy(value)


def _valid_name(name: Any) -> str:
    if not isinstance(name, str) or not name or "\0" in name or "." in name:
        raise SetupError(f"entity name {name!r:.80} must not be empty or hold a dot or NUL")
    return sys.intern(name)


def _valid_ttl(ttl: Any, name: str) -> float | None:
    if ttl is None:
        return None
    seconds = ttl.total_seconds() if isinstance(ttl, dt.timedelta) else ttl
    if type(seconds) not in (int, float) or not (seconds > 0 and math.isfinite(seconds)):
        raise SetupError(f"{name}: ttl is seconds above 0 or a timedelta, not {ttl!r:.80}")
    return float(seconds)
