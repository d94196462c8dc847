"""A client whose calls are written down: as an AsyncClient or a Client, with a history beside it.

    history = History(time.monotonic)
    async with mesh.connect() as client:
        recorder = Recorder(client, history, "a")
        await recorder.call(Account.deposit, "alice", 5)
        assert check(history, Account).ok

Errors go on to the caller; what is not a call on one key (a listing) is left to the client itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesh.client.calls import AsyncCalls
from mesh.client.outcome import Outcome
from mesh.client.prepared import DEFAULT_TIMEOUT_S, Plain
from mesh.client.sync import Client
from mesh.entities import MethodRef, spec_of
from mesh.errors import EntityError
from mesh.methods import BuiltIn
from mesh.testing.history import ASKING, End, History, Operation

Method = MethodRef[..., Any] | str


class _Recording:
    """What both recorders write down.

    Args:
        history: where.
        name: of this client in it.
    """

    def __init__(self, history: History, name: str) -> None:
        self.history = history
        self.name = name

    def _begin(
        self,
        method: Method,
        key: str | bytes,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        timeout: float,
        idempotency_key: str | None,
    ) -> Operation:
        return self.history.begin(
            self.name,
            _name(method),
            key,
            args,
            kwargs,
            timeout=timeout,
            idempotency_key=idempotency_key,
        )

    def _begin_built_in(
        self,
        entity: type[Any] | str,
        which: BuiltIn,
        key: str | bytes,
        timeout: float,
        idempotency_key: str | None = None,
    ) -> Operation:
        name = f"{entity if isinstance(entity, str) else spec_of(entity).name}.{which.value}"
        return self._begin(name, key, (), {}, timeout, idempotency_key)

    def _begin_asking(
        self, method: Method, key: str | bytes, idempotency_key: str, timeout: float
    ) -> Operation:
        entity, _, called = _name(method).partition(".")
        args = (called, idempotency_key)
        return self._begin(f"{entity}.{ASKING}", key, args, {}, timeout, None)

    def _settle(self, asked: Operation, outcome: Outcome[Any]) -> None:
        """What the mesh says of a call under an idempotency key holds for all calls under it."""
        self.history.returned(asked, outcome.executed)
        method, idempotency_key = asked.args
        end, value = End.NOT_EXECUTED, None
        if outcome.executed:
            try:
                end, value = End.RETURNED, outcome.result()
            except EntityError as error:
                end, value = End.RAISED, (error.type, error.message)
        name = f"{asked.entity}.{method}"
        for operation in self.history.under(name, asked.key, idempotency_key):
            self.history.settle(operation, end, value)


class Recorder(_Recording):
    """An AsyncClient whose calls are written down.

    Args:
        client: that makes them.
        history: where they are written down.
        name: of this client in it.
    """

    def __init__(self, client: AsyncCalls, history: History, name: str) -> None:
        super().__init__(history, name)
        self.client = client

    def __repr__(self) -> str:
        return f"<Recorder {self.name} of {self.client!r}>"

    async def call(
        self,
        method: Method,
        key: str | bytes,
        /,
        *args: Any,
        timeout: float = DEFAULT_TIMEOUT_S,
        idempotency_key: str | None = None,
        priority: int | None = None,
        metadata: Mapping[str, Plain] | None = None,
        **kwargs: Any,
    ) -> Any:
        """See AsyncClient.call."""
        operation = self._begin(method, key, args, kwargs, timeout, idempotency_key)
        called: Any = method  # the overloads take one or the other
        with self.history.recording(operation):
            value: Any = await self.client.call(
                called,
                key,
                *args,
                timeout=timeout,
                idempotency_key=idempotency_key,
                priority=priority,
                metadata=metadata,
                **kwargs,
            )
            self.history.returned(operation, value)
        return value

    async def delete(
        self,
        entity: type[Any] | str,
        key: str | bytes,
        /,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
        idempotency_key: str | None = None,
    ) -> bool:
        """See AsyncClient.delete."""
        operation = self._begin_built_in(entity, BuiltIn.DELETE, key, timeout, idempotency_key)
        with self.history.recording(operation):
            there = await self.client.delete(
                entity, key, timeout=timeout, idempotency_key=idempotency_key
            )
            self.history.returned(operation, there)
        return there

    async def exists(
        self, entity: type[Any] | str, key: str | bytes, /, *, timeout: float = DEFAULT_TIMEOUT_S
    ) -> bool:
        """See AsyncClient.exists."""
        operation = self._begin_built_in(entity, BuiltIn.EXISTS, key, timeout)
        with self.history.recording(operation):
            there = await self.client.exists(entity, key, timeout=timeout)
            self.history.returned(operation, there)
        return there

    async def outcome(
        self,
        method: Method,
        key: str | bytes,
        /,
        idempotency_key: str,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> Outcome[Any]:
        """See AsyncClient.outcome; calls that were unknown are known from then on."""
        operation = self._begin_asking(method, key, idempotency_key, timeout)
        with self.history.recording(operation):
            outcome = await self.client.outcome(method, key, idempotency_key, timeout=timeout)
            self._settle(operation, outcome)
        return outcome


class BlockingRecorder(_Recording):
    """A blocking Client whose calls are written down; threads may share it.

    Args:
        client: that makes them.
        history: where they are written down.
        name: of this client in it.
    """

    def __init__(self, client: Client, history: History, name: str) -> None:
        super().__init__(history, name)
        self.client = client

    def __repr__(self) -> str:
        return f"<BlockingRecorder {self.name} of {self.client!r}>"

    def call(
        self,
        method: Method,
        key: str | bytes,
        /,
        *args: Any,
        timeout: float = DEFAULT_TIMEOUT_S,
        idempotency_key: str | None = None,
        priority: int | None = None,
        metadata: Mapping[str, Plain] | None = None,
        **kwargs: Any,
    ) -> Any:
        """See Client.call."""
        operation = self._begin(method, key, args, kwargs, timeout, idempotency_key)
        called: Any = method  # the overloads take one or the other
        with self.history.recording(operation):
            value: Any = self.client.call(
                called,
                key,
                *args,
                timeout=timeout,
                idempotency_key=idempotency_key,
                priority=priority,
                metadata=metadata,
                **kwargs,
            )
            self.history.returned(operation, value)
        return value

    def delete(
        self,
        entity: type[Any] | str,
        key: str | bytes,
        /,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
        idempotency_key: str | None = None,
    ) -> bool:
        """See Client.delete."""
        operation = self._begin_built_in(entity, BuiltIn.DELETE, key, timeout, idempotency_key)
        with self.history.recording(operation):
            there = self.client.delete(
                entity, key, timeout=timeout, idempotency_key=idempotency_key
            )
            self.history.returned(operation, there)
        return there

    def exists(
        self, entity: type[Any] | str, key: str | bytes, /, *, timeout: float = DEFAULT_TIMEOUT_S
    ) -> bool:
        """See Client.exists."""
        operation = self._begin_built_in(entity, BuiltIn.EXISTS, key, timeout)
        with self.history.recording(operation):
            there = self.client.exists(entity, key, timeout=timeout)
            self.history.returned(operation, there)
        return there

    def outcome(
        self,
        method: Method,
        key: str | bytes,
        /,
        idempotency_key: str,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> Outcome[Any]:
        """See Client.outcome; calls that were unknown are known from then on."""
        operation = self._begin_asking(method, key, idempotency_key, timeout)
        with self.history.recording(operation):
            outcome = self.client.outcome(method, key, idempotency_key, timeout=timeout)
            self._settle(operation, outcome)
        return outcome


def _name(method: Method) -> str:
    return method.name if isinstance(method, MethodRef) else method
