"""What callers did and what they were told: a history, to be judged afterwards.

An operation begins, and ends once or never. How it ended is what the caller *knows*: a reply, the entity's
own error, "not executed", or that it is unknown. Judges (mesh.testing.linearizability and others) ask whether
any run of the mesh could have told all callers what they were told.

Begins and ends are numbered in the order in which they were recorded. In one process that order is real, and
finer than any clock: a call that begins in the very microsecond in which another one ended comes after it.

mesh.testing.recorder has what a test calls through, mesh.testing.history_text histories as text.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mesh.errors import EntityError, MeshError


class End(enum.Enum):
    """What the caller of an operation knows."""

    RUNNING = "running"
    """It has not ended; its caller may have been killed."""
    RETURNED = "->"
    RAISED = "raised"
    """The entity's own error, an outcome like any other."""
    EXECUTED = "executed"
    """It ran, and its reply cannot be read."""
    NOT_EXECUTED = "not executed"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"
    """The caller stopped waiting. For a judge the same as unknown."""


ASKING = "~outcome"
"""In place of a method's name."""
_MAYBE = (End.RUNNING, End.UNKNOWN, End.CANCELLED)


class Operation:
    """One call of one client.

    Attributes:
        number: in its history, from 1 on.
        client: name of whoever called.
        entity: name of the entity.
        method: its method's. "~delete" and "~exists" are what every entity has; "~outcome" asks after an
            earlier call, by the method and idempotency key in `args`, and is no operation on the key.
        begun, ended: seconds of the history's clock; `ended` is infinite while it runs.
        first, last: where its begin and its end stand in the order of all of the history.
        timeout: seconds that the mesh was given; infinite where that is not known.
        end: what its caller knows.
        value: the reply, where it returned.
        error: class name and message of what was raised.
        idempotency_key: the caller's own, where there is one.
        told: how it ended for its caller; `end` is what is known since, if the mesh said more about it.
        released: where the end stood that left it unknown, if the mesh said more about it.
        settled: when it did.
    """

    __slots__ = (
        "args",
        "begun",
        "client",
        "end",
        "ended",
        "entity",
        "error",
        "first",
        "idempotency_key",
        "key",
        "kwargs",
        "last",
        "method",
        "number",
        "released",
        "settled",
        "timeout",
        "told",
        "value",
    )

    def __init__(
        self,
        number: int,
        client: str,
        entity: str,
        method: str,
        key: bytes,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        begun: float,
        first: int,
        timeout: float,
        idempotency_key: str | None,
    ) -> None:
        self.number = number
        self.client = client
        self.entity = entity
        self.method = method
        self.key = key
        self.args = args
        self.kwargs = kwargs
        self.begun = begun
        self.first = first
        self.timeout = timeout
        self.idempotency_key = idempotency_key
        self.ended = math.inf
        self.last: float = math.inf
        self.end = End.RUNNING
        self.value: Any = None
        self.error: tuple[str, str] | None = None
        self.told = End.RUNNING
        self.released: float | None = None
        self.settled: float | None = None

    def __repr__(self) -> str:
        return f"<{self}>"

    def __str__(self) -> str:
        return f"#{self.number} {self.client}: {self.call} {self.outcome}"

    @property
    def deadline(self) -> float:
        """When the mesh was to have ended it."""
        return self.begun + self.timeout

    @property
    def executed(self) -> bool | None:
        """True: it ran. False: it never did, and never will. None: unknown, it may run yet."""
        return None if self.end in _MAYBE else self.end is not End.NOT_EXECUTED

    @property
    def name(self) -> str:
        """Entity.method"""
        return f"{self.entity}.{self.method}"

    @property
    def call(self) -> str:
        """As one would write it."""
        return self.write(repr)

    @property
    def outcome(self) -> str:
        """What its caller was told, in a few words."""
        return self.write_outcome(repr)

    def write(self, show: Callable[[Any], str]) -> str:
        """The call, with its values shown that way."""
        parts = [repr(readable(self.key)), *map(show, self.args)]
        name = self.name
        if self.method.startswith("~"):
            parts.insert(0, self.entity)
            name = self.method[1:]
        elif not name.replace(".", "").isidentifier():
            parts.insert(0, repr(name))
            name = "call"
        parts += [f"{word}={show(value)}" for word, value in self.kwargs.items()]
        if self.idempotency_key is not None:
            parts.append(f"idempotency_key={self.idempotency_key!r}")
        return f"{name}({', '.join(parts)})"

    def write_outcome(self, show: Callable[[Any], str]) -> str:
        """What its caller was told, with values shown that way."""
        if self.end is End.RETURNED:
            return f"-> {show(self.value)}"
        if self.error is not None:
            return f"{self.end.value} {self.error[0]}({self.error[1]!r})"
        return str(self.end.value)


class History:
    """The operations of all clients. They may be of several threads of one process.

    Args:
        now: seconds, as reports are to show them.

    Attributes:
        operations: in the order in which they began.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.operations: list[Operation] = []
        self._now = now
        self._order = itertools.count()
        self._numbers = itertools.count(1)

    def __repr__(self) -> str:
        return f"<History, {len(self.operations)} operations>"

    def __len__(self) -> int:
        return len(self.operations)

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations)

    def begin(
        self,
        client: str,
        name: str,
        key: str | bytes,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        timeout: float = math.inf,
        idempotency_key: str | None = None,
    ) -> Operation:
        """A client calls.

        Args:
            client: who.
            name: "Entity.method"; "Entity.~delete" and "Entity.~exists" for what every entity has.
            key: of the entity.
            args: of the method, as kwargs are.
            timeout: seconds.
            idempotency_key: of the caller, if it gives one.
        """
        entity, _, method = name.partition(".")
        operation = Operation(
            next(self._numbers),
            client,
            entity,
            method,
            key.encode() if isinstance(key, str) else key,
            tuple(args),
            kwargs or {},
            begun=self._now(),
            first=next(self._order),
            timeout=timeout,
            idempotency_key=idempotency_key,
        )
        self.operations.append(operation)
        return operation

    def returned(self, operation: Operation, value: Any) -> None:
        """It returned."""
        operation.value = value
        self.finish(operation, End.RETURNED)

    def failed(self, operation: Operation, error: MeshError) -> None:
        """It raised what a client raises."""
        if isinstance(error, EntityError):
            self.finish(operation, End.RAISED, (error.type, error.message))
            return
        end = End.UNKNOWN
        if error.executed is not None:
            end = End.EXECUTED if error.executed else End.NOT_EXECUTED
        self.finish(operation, end, (type(error).__name__, error.message))

    def finish(self, operation: Operation, end: End, error: tuple[str, str] | None = None) -> None:
        """It ended for its caller.

        What somebody else was told of it meanwhile is what is known, unless its own caller knows it, too.

        Args:
            operation: one that runs.
            end: what its caller was told.
            error: class name and message of what was raised.

        Raises:
            ValueError: it had ended before.
        """
        if operation.told is not End.RUNNING:
            raise ValueError(f"{operation} ends a second time: {end.value}")
        operation.told = end
        operation.ended = self._now()
        if operation.settled is not None and end in _MAYBE:
            operation.released = next(self._order)
            return
        operation.end, operation.error = end, error
        operation.settled = None
        operation.last = next(self._order)

    @contextmanager
    def recording(self, operation: Operation) -> Iterator[None]:
        """Notes how it ended, unless the block has said so itself, and lets the error through."""
        try:
            yield
        except MeshError as error:
            self.failed(operation, error)
            raise
        except (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit):
            self.finish(operation, End.CANCELLED)
            raise
        except BaseException as error:
            # None of ours: what it says of the call is not known.
            self.finish(operation, End.UNKNOWN, (type(error).__name__, str(error)))
            raise

    def settle(self, operation: Operation, end: End, value: Any = None) -> None:
        """It was unknown, and the mesh has said later what became of it (`client.outcome`).

        When its caller was released stays as it was; what is known of it, is known from now on.

        Args:
            operation: one whose outcome is unknown; one that is known stays as it is.
            end: what the mesh said.
            value: the reply, or class name and message of the entity's error.
        """
        if operation.executed is not None:
            return
        operation.end, operation.error = end, None
        if end is End.RAISED:
            operation.error = value
        else:
            operation.value = value
        operation.settled = self._now()
        if operation.told is not End.RUNNING:
            operation.released = operation.last
        operation.last = next(self._order)

    def under(self, name: str, key: bytes, idempotency_key: str) -> list[Operation]:
        """The operations of that method on that key that were given that idempotency key."""
        return [
            o
            for o in self.operations
            if o.idempotency_key == idempotency_key and o.key == key and o.name == name
        ]


def readable(key: bytes) -> str | bytes:
    """As text where it is text."""
    try:
        return key.decode()
    except UnicodeDecodeError:
        return key
