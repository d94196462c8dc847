"""What a user writes: a class whose annotated fields are the replicated state of one key.

    @mesh.entity
    class Account:
        balance: int = 0

        @mesh.command
        def deposit(self, amount: int) -> int:
            self.balance += amount
            return self.balance

Accessed on the class, a method is a reference that names it (`Account.deposit` → "Account.deposit");
accessed on an instance it is the function itself, so methods call each other as usual.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import msgpack

from mesh.errors import BadRequest, SetupError

C = TypeVar("C", bound=type)

RESERVED_PARAMETERS = frozenset({"timeout", "idempotency_key", "priority", "metadata"})
_IMMUTABLE = (type(None), bool, int, float, str, bytes)


class Method:
    """A command or query, as a descriptor.

    Args:
        function: what the user wrote.
        query: True where it only reads.
    """

    def __init__(self, function: Callable[..., Any], *, query: bool) -> None:
        is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        if is_async or inspect.isgeneratorfunction(function):
            kind = "async" if is_async else "a generator"
            raise SetupError(
                f"{function.__qualname__} is {kind}; entity methods have to be plain functions"
            )
        self.function = function
        self.query = query
        self.name = function.__name__
        parameters = list(inspect.signature(function).parameters.values())[1:]
        for parameter in parameters:
            if parameter.name in RESERVED_PARAMETERS:
                raise SetupError(
                    f"{function.__qualname__}: parameter {parameter.name!r} is an option of call(); "
                    f"rename it"
                )
        positional = [
            p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        self._most = (
            None if any(p.kind == p.VAR_POSITIONAL for p in parameters) else len(positional)
        )
        self._least = sum(p.default is p.empty for p in positional)
        self._keywords = any(p.kind == p.KEYWORD_ONLY and p.default == p.empty for p in parameters)
        self._signature = inspect.Signature(parameters)

    @overload
    def __get__(self, instance: None, owner: type) -> MethodRef: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Callable[..., Any]: ...
    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:
            return MethodRef(owner, self)
        return self.function.__get__(instance, owner)

    def check(self, args: list[Any], kwargs: Mapping[str, Any]) -> None:
        """Refuse arguments that the signature does not take.

        Raises:
            BadRequest: naming what is missing or too much.
        """
        if not kwargs and not self._keywords:
            fits = len(args) >= self._least and (self._most is None or len(args) <= self._most)
            if fits:
                return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise BadRequest(f"{self.function.__qualname__}{self._signature}: {error}") from None


@dataclass(frozen=True, slots=True)
class MethodRef:
    """Names a method of an entity; what `Account.deposit` is."""

    owner: type
    method: Method

    @property
    def name(self) -> str:
        """As it goes over the wire: Entity.method."""
        return f"{spec_of(self.owner).name}.{self.method.name}"


def command(function: Callable[..., Any]) -> Method:
    """Mark a method that changes state; it is carried out exactly once per call."""
    return Method(function, query=False)


def query(function: Callable[..., Any]) -> Method:
    """Mark a method that reads state. One that writes is an error and changes nothing."""
    return Method(function, query=True)


class EntitySpec:
    """What the mesh knows of an entity class: name, fields with defaults, methods."""

    def __init__(self, cls: type, name: str) -> None:
        if not name or "\0" in name or "." in name:
            raise SetupError(f"entity name {name!r} must not be empty or hold a dot or NUL")
        self.cls = cls
        self.name = name
        self.methods: dict[str, Method] = {}
        self._defaults: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            for attribute, value in vars(base).items():
                if isinstance(value, Method):
                    self.methods[attribute] = value
            for field, annotation in inspect.get_annotations(base).items():
                # As a string where the user's module postpones its annotations.
                if "ClassVar" in str(annotation).partition("[")[0]:
                    continue
                if field not in vars(base) and field not in self._defaults:
                    raise SetupError(
                        f"{name}.{field} has no default: a key that was never written starts from the "
                        f"defaults, so each field needs one"
                    )
                self._defaults[field] = getattr(cls, field)
        self._mutable = {f for f, v in self._defaults.items() if not isinstance(v, _IMMUTABLE)}
        try:
            self.default_blob = self.encode(self.new(), {})
        except (TypeError, ValueError) as error:
            raise SetupError(f"the defaults of {name} cannot be stored: {error}") from None

    def __repr__(self) -> str:
        return f"EntitySpec({self.name})"

    def new(self) -> Any:
        """An instance in the state of a key that was never written."""
        instance: Any = object.__new__(self.cls)
        state = vars(instance)
        state.update(self._defaults)
        for field in self._mutable:
            state[field] = copy.deepcopy(self._defaults[field])
        return instance

    def encode(self, instance: Any, extra: Mapping[str, Any]) -> bytes:
        """The state's bytes; `extra` are stored fields that this version of the class does not know.

        Raises:
            TypeError: a value of a type that cannot be stored, or a field that is not annotated.
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
            blob: bytes = msgpack.packb({**extra, **state} if extra else state, strict_types=True)
        except OverflowError as error:
            raise TypeError(f"a field of {self.name} cannot be stored: {error}") from None
        return blob

    def decode(self, blob: bytes) -> tuple[Any, dict[str, Any]]:
        """An instance of that state, and the stored fields that the class does not know.

        Raises:
            ValueError: the bytes are no state of any version of this class.
        """
        try:
            stored = msgpack.unpackb(blob, strict_map_key=False)
        except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
            raise ValueError(f"not a state of {self.name}: {error!r:.200}") from None
        if not isinstance(stored, dict):
            raise ValueError(f"not a state of {self.name}: {stored!r:.80}")  # noqa: TRY004 - of bytes
        extra = {f: stored.pop(f) for f in list(stored) if f not in self._defaults}
        instance = self.new()
        vars(instance).update(stored)
        return instance, extra


def entity(cls: C | None = None, /, *, name: str | None = None) -> Any:
    """Make a class an entity. Its annotated fields, each with a default, are the state of one key.

    Args:
        name: as it is called on the wire and in the store; the class's name by default. Changing it
            later loses sight of the stored keys.

    Raises:
        SetupError: a field without a default, a method with a reserved parameter name.
    """

    def mark(target: C) -> C:
        target.__mesh_entity__ = EntitySpec(target, name or target.__name__)  # type: ignore[attr-defined]
        return target

    return mark if cls is None else mark(cls)


def spec_of(cls: type) -> EntitySpec:
    """The spec of an entity class.

    Raises:
        SetupError: the class is none.
    """
    spec = cls.__dict__.get("__mesh_entity__")
    if not isinstance(spec, EntitySpec):
        raise SetupError(f"{cls.__name__} is not an entity; decorate it with @mesh.entity")
    return spec


class Registry:
    """The entities that a mesh serves, by name. Two of one name are refused."""

    def __init__(self, classes: Iterable[type]) -> None:
        self._specs: dict[str, EntitySpec] = {}
        self._methods: dict[str, tuple[EntitySpec, Method]] = {}
        for cls in dict.fromkeys((KV, *classes)):
            spec = spec_of(cls)
            other = self._specs.get(spec.name)
            if other is not None:
                raise SetupError(
                    f"two entities are named {spec.name!r}: {_path(other.cls)} and {_path(cls)}"
                )
            self._specs[spec.name] = spec
            for method_name, method in spec.methods.items():
                self._methods[f"{spec.name}.{method_name}"] = (spec, method)

    def spec(self, name: str) -> EntitySpec | None:
        """The entity of that name, if the mesh serves it."""
        return self._specs.get(name)

    def find(self, name: str) -> tuple[EntitySpec, Method]:
        """The method of that name.

        Raises:
            BadRequest: there is none; the message lists what there is.
        """
        found = self._methods.get(name)
        if found is not None:
            return found
        entity_name, _, method = name.partition(".")
        spec = self._specs.get(entity_name)
        if spec is None:
            raise BadRequest(
                f"no entity is named {entity_name!r:.80}; this mesh has {sorted(self._specs)}"
            )
        raise BadRequest(
            f"{entity_name} has no method {method!r:.80}; it has {sorted(spec.methods)}"
        )


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


@entity
class KV:
    """The built-in entity: one value for a key."""

    value: Any = None

    @command
    def put(self, value: Any) -> None:
        """Set the value."""
        self.value = value

    @query
    def get(self) -> Any:
        """The value, None where there is none."""
        return self.value

    @command
    def delete(self) -> None:
        """Forget the value."""
        self.value = None

    @command
    def cas(self, expected: Any, new: Any) -> bool:
        """Set `new` if the value is `expected`; True if it was."""
        if self.value != expected:
            return False
        self.value = new
        return True

    @command
    def incr(self, by: int = 1) -> int:
        """Add to the number, which starts at 0; the new number."""
        current = 0 if self.value is None else self.value
        if not isinstance(current, int) or not isinstance(by, int):
            raise TypeError(f"incr needs whole numbers, this is {current!r:.40} + {by!r:.40}")
        self.value = current + by
        return int(self.value)

    @command
    def append(self, item: Any) -> int:
        """Add to the end of the list, which starts empty; its length after."""
        if self.value is None:
            self.value = []
        if not isinstance(self.value, list):
            raise TypeError(f"append needs a list, this key holds {self.value!r:.40}")
        self.value.append(item)
        return len(self.value)

    @query
    def items(self) -> list[Any]:
        """The list, empty where there is none."""
        if self.value is None:
            return []
        if not isinstance(self.value, list):
            raise TypeError(f"items needs a list, this key holds {self.value!r:.40}")
        return list(self.value)
