"""What a history is compared with: an entity class, run one call at a time.

A method is called on an instance that is made of the state's bytes, and leaves the next state's bytes; two
states are the same if their bytes are. So any entity is its own model, the built-in KV included, and a few
small ones are here for histories of things that are no entities.

It has to be predictable: a method that throws dice, reads a clock, calls other entities or really waits for
something cannot be run again outside of its mesh, and is refused or found to contradict its own history. That
keys expire is not modelled: a history has to be shorter than its entity's ttl.
"""

from __future__ import annotations

from typing import Any

from mesh.errors import SetupError
from mesh.kv import KV
from mesh.methods import BuiltIn, Method, command, query
from mesh.specs import EntitySpec, entity, spec_of
from mesh.testing.history import End, Operation

State = bytes | None
"""None: there is no such key."""
_SCALARS = frozenset({type(None), bool, int, str, bytes})
_NO_LOOP = "no running event loop"
_MAX_TEXT = 4096
"""Of an error's message, as handlers cut it."""


@entity
class Register:
    """One value that is read, written, and compared and set."""

    value: Any = None

    @query
    def read(self) -> Any:
        """The value."""
        return self.value

    @command
    def write(self, value: Any) -> None:
        """Set it."""
        self.value = value

    @command
    def cas(self, expected: Any, new: Any) -> bool:
        """Set it if it is as expected; whether it was."""
        if self.value != expected:
            return False
        self.value = new
        return True


@entity
class Counter:
    """A number that grows."""

    value: int = 0

    @command
    def incr(self, by: int = 1) -> int:
        """Add to it; the new number."""
        self.value += by
        return self.value

    @query
    def read(self) -> int:
        """The number."""
        return self.value


@entity
class AppendList:
    """A list that grows at its end."""

    items: list[Any] = []  # noqa: RUF012 - an entity copies its defaults

    @command
    def append(self, item: Any) -> int:
        """Add to its end; its length after."""
        self.items.append(item)
        return len(self.items)

    @query
    def read(self) -> list[Any]:
        """All of it."""
        return list(self.items)


BUILT_IN = (KV, Register, Counter, AppendList)
"""Models that are known without being named."""


class Model:
    """One entity class, as that which its histories are compared with.

    Raises:
        SetupError: the class is no entity.
    """

    def __init__(self, cls: type) -> None:
        self.spec: EntitySpec = spec_of(cls)

    def __repr__(self) -> str:
        return f"Model({self.spec.name})"

    def is_query(self, operation: Operation) -> bool:
        """It changes no state, whenever it runs."""
        return operation.method == BuiltIn.EXISTS.value or (
            operation.method != BuiltIn.DELETE.value and self._method(operation).query
        )

    def run(self, state: State, operation: Operation) -> tuple[State, Any, tuple[str, str] | None]:
        """Run it on that state: the next state, the reply, or class name and message of its error.

        Raises:
            SetupError: the entity has no such method, or it waits for something.
        """
        if operation.method == BuiltIn.DELETE.value:
            return None, state is not None, None
        if operation.method == BuiltIn.EXISTS.value:
            return state, state is not None, None
        method, spec = self._method(operation), self.spec
        before = spec.default_blob if state is None else state
        instance, extra = spec.decode(before)
        try:
            result = method.function(instance, *operation.args, **operation.kwargs)
            if method.is_async:
                result = _at_once(result, operation)
            after = spec.encode(instance, extra)
        except SetupError:
            raise
        except Exception as error:
            if method.is_async and isinstance(error, RuntimeError) and _NO_LOOP in str(error):
                raise _waits(operation) from error
            message = str(error)[:_MAX_TEXT].encode(errors="replace").decode()
            return state, None, (type(error).__name__, message)
        if method.deletes:
            return None, result, None
        return (state if after == before else after), result, None

    def fits(self, operation: Operation, result: Any, error: tuple[str, str] | None) -> bool:
        """Whether its caller can have been told what came of that run."""
        if operation.end is End.RETURNED:
            return error is None and self._same(result, operation.value)
        if operation.end is End.RAISED:
            return error == operation.error
        return True

    def agree(self, one: Operation, other: Operation) -> bool:
        """Whether two callers were told the same."""
        if one.end is not other.end or one.error != other.error:
            return False
        return self._same(one.value, other.value)

    def show(self, state: State) -> str:
        """A state, for people."""
        if state is None:
            return "no such key"
        fields = vars(self.spec.decode(state)[0])
        return ", ".join(f"{field}={value!r:.120}" for field, value in fields.items())

    def _same(self, one: Any, other: Any) -> bool:
        if type(one) is not type(other):
            return False
        if type(one) in _SCALARS:
            return bool(one == other)
        pack = self.spec.codec.pack
        return pack(one) == pack(other)

    def _method(self, operation: Operation) -> Method:
        method = self.spec.methods.get(operation.method)
        if method is None:
            raise SetupError(
                f"{operation} is in the history, and {self.spec.name} has no such method; it has "
                f"{sorted(self.spec.methods)}"
            )
        return method


def _at_once(coroutine: Any, operation: Operation) -> Any:
    """What an async method returns that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise _waits(operation)


def _waits(operation: Operation) -> SetupError:
    return SetupError(
        f"{operation.name} waits for something, so it cannot be run on its own; check its histories "
        f"with a model of it, an entity of the same name whose methods do not wait"
    )
