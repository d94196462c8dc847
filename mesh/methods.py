"""Commands and queries: functions of an entity class, and how a caller names them.

Accessed on the class, a method is a reference that names it (`Account.deposit` → "Account.deposit");
accessed on an instance it is the function itself, so methods call each other as usual. Both carry the
signature in their types, so that `client.call(Account.deposit, "alice", 5)` is checked before it runs.
"""

from __future__ import annotations

import enum
import inspect
import math
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from mesh.errors import BadRequest, SetupError

P = ParamSpec("P")
R = TypeVar("R")
B = TypeVar("B")
R_co = TypeVar("R_co", covariant=True)

RESERVED_PARAMETERS = frozenset({"timeout", "idempotency_key", "priority", "metadata"})


class BuiltIn(enum.Enum):
    """What every entity has beside its own methods, by the name that goes over the wire: no user's method can
    have one like it.
    """

    DELETE = "~delete"
    EXISTS = "~exists"
    KEYS = "~keys"


class Method:
    """A command or query, as the runtime sees it.

    Args:
        function: what the user wrote.
        query: True where it only reads.
        blocking: it blocks its thread, so it is to run on one of its own.
        limit_s: seconds that a run may take; None for the handler's own limit.
        deletes: a command that leaves no key behind, whatever it does to the state.
        built_in: what every entity has; the handler itself answers it, and the function says no more than
            what it takes.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        query: bool,
        blocking: bool = False,
        limit_s: float | None = None,
        deletes: bool = False,
        built_in: BuiltIn | None = None,
    ) -> None:
        if not inspect.isfunction(function):
            kind = "a query" if query else "a command"
            raise SetupError(f"{kind} has to be a function of the class, not {function!r:.80}")
        name = function.__qualname__
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise SetupError(f"{name} is a generator; a method has to return its whole result")
        self.is_async = inspect.iscoroutinefunction(function)
        if type(blocking) is not bool:
            raise SetupError(f"{name}: blocking is True or False, not {blocking!r:.80}")
        if blocking and self.is_async:
            raise SetupError(
                f"{name} is async and blocking: a thread of its own is for plain functions; "
                f"drop one of the two"
            )
        self.function = function
        self.query = query
        self.blocking = blocking
        self.runs_apart = blocking or self.is_async
        self.limit_s = _limit(limit_s, name)
        self.deletes = deletes
        self.built_in = built_in
        self.name = function.__name__ if built_in is None else built_in.value
        self.signature = self._bind_signature(function)
        parameters = self.signature.parameters.values()
        positional = [
            p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        # As two numbers, since every call is checked by the caller and by the handler.
        self._least = sum(p.default is p.empty for p in positional)
        self._most = len(positional)
        if any(p.kind == p.VAR_POSITIONAL for p in parameters):
            self._most = sys.maxsize
        if any(p.kind == p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
            self._most = -1

    def __repr__(self) -> str:
        return f"Method({self.function.__qualname__}{self.signature})"

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Refuse arguments that the signature does not take.

        Raises:
            BadRequest: naming what is missing or too much.
        """
        if not kwargs and self._least <= len(args) <= self._most:
            return
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise BadRequest(f"{self.function.__qualname__}{self.signature}: {error}") from None

    @staticmethod
    def _bind_signature(function: Callable[..., Any]) -> inspect.Signature:
        """Without self."""
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        name = function.__qualname__
        if not parameters or parameters[0].kind in (
            inspect.Parameter.KEYWORD_ONLY,
            inspect.Parameter.VAR_KEYWORD,
        ):
            raise SetupError(f"{name} has to take self")
        if parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
            parameters = parameters[1:]
        for parameter in parameters:
            if parameter.name in RESERVED_PARAMETERS:
                raise SetupError(
                    f"{name}: parameter {parameter.name!r} is an option of call(); rename it"
                )
        return signature.replace(parameters=parameters)


class TypedMethod(Method, Generic[P, R, B]):
    """A command or query, as a descriptor in the class that it is written in.

    In its type: the parameters, what a caller gets (R), and what the function returns (B), which is a
    coroutine where it is async.
    """

    @overload
    def __get__(self, instance: None, owner: type) -> MethodRef[P, R]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Callable[P, B]: ...
    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:
            return MethodRef(owner, self)
        return self.function.__get__(instance, owner)


@dataclass(frozen=True, slots=True)
class MethodRef(Generic[P, R]):
    """Names a method of an entity; what `Account.deposit` is."""

    owner: type
    method: Method

    @property
    def name(self) -> str:
        """As it goes over the wire: Entity.method."""
        return f"{spec_in(self.owner).name}.{self.method.name}"


def spec_in(cls: type) -> Any:
    """What @mesh.entity left in this very class; see mesh.specs.spec_of.

    Raises:
        SetupError: nothing; a subclass of an entity is none until it is marked itself.
    """
    spec = cls.__dict__.get("__mesh_entity__")
    if spec is None:
        raise SetupError(f"{cls.__name__} is not an entity; decorate it with @mesh.entity")
    return spec


class Marker(Protocol):
    """What `@mesh.command(...)` is: it takes the function."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /
    ) -> TypedMethod[P, R, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], R], /) -> TypedMethod[P, R, R]: ...


@overload
def command(
    function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /
) -> TypedMethod[P, R, Coroutine[Any, Any, R]]: ...
@overload
def command(function: Callable[Concatenate[Any, P], R], /) -> TypedMethod[P, R, R]: ...
@overload
def command(*, blocking: bool = False, limit_s: float | None = None) -> Marker: ...
def command(
    function: Callable[..., Any] | None = None,
    /,
    *,
    blocking: bool = False,
    limit_s: float | None = None,
) -> Any:
    """Mark a method that changes state; it is carried out exactly once per call.

    Args:
        function: the method, where the decorator stands without parentheses.
        blocking: it blocks its thread (a slow library, a long computation).
        limit_s: seconds that a run may take; None for the handler's own limit.

    Raises:
        SetupError: a generator, a reserved parameter name, or an option that makes no sense.
    """
    return _marked(function, query=False, blocking=blocking, limit_s=limit_s)


@overload
def query(
    function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /
) -> TypedMethod[P, R, Coroutine[Any, Any, R]]: ...
@overload
def query(function: Callable[Concatenate[Any, P], R], /) -> TypedMethod[P, R, R]: ...
@overload
def query(*, blocking: bool = False, limit_s: float | None = None) -> Marker: ...
def query(
    function: Callable[..., Any] | None = None,
    /,
    *,
    blocking: bool = False,
    limit_s: float | None = None,
) -> Any:
    """Mark a method that reads state. One that writes is an error and changes nothing.

    Args:
        function: the method, where the decorator stands without parentheses.
        blocking: it blocks its thread (a slow library, a long computation).
        limit_s: seconds that a run may take; None for the handler's own limit.

    Raises:
        SetupError: a generator, a reserved parameter name, or an option that makes no sense.
    """
    return _marked(function, query=True, blocking=blocking, limit_s=limit_s)


def deletion(function: Callable[Concatenate[Any, P], R], /) -> TypedMethod[P, R, R]:
    """Mark a command after which there is no key, as if it had never been written."""
    return TypedMethod(function, query=False, deletes=True)


def _marked(
    function: Callable[..., Any] | None, *, query: bool, blocking: bool, limit_s: float | None
) -> Any:
    def mark(target: Callable[..., Any]) -> Method:
        return TypedMethod(target, query=query, blocking=blocking, limit_s=limit_s)

    return mark if function is None else mark(function)


def _limit(limit_s: Any, name: str) -> float | None:
    if limit_s is None:
        return None
    if type(limit_s) not in (int, float) or not (limit_s > 0 and math.isfinite(limit_s)):
        raise SetupError(f"{name}: limit_s is seconds above 0, not {limit_s!r:.80}")
    return float(limit_s)
