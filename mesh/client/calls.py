"""Calling, as users of an AsyncClient write it: one call with its options, in all the forms that it has.

What is here is types and words; the client that inherits it does the work in `_call`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping
from typing import Any, ParamSpec, TypeVar, overload

from mesh.client.outcome import Outcome
from mesh.client.prepared import DEFAULT_TIMEOUT_S, Plain, asking, meta_of
from mesh.client.proxy import AsyncEntity
from mesh.core.payload import Meta
from mesh.entities import MethodRef

E = TypeVar("E")
P = ParamSpec("P")
R = TypeVar("R")


class AsyncCalls(ABC):
    """What an AsyncClient is asked for."""

    # A type cannot say "the method's parameters, and these options": with an option the result is still
    # checked, the arguments are only checked when the call is made.
    @overload
    async def call(
        self, method: MethodRef[P, R], key: str | bytes, /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    async def call(
        self,
        method: MethodRef[..., R],
        key: str | bytes,
        /,
        *args: Any,
        timeout: float,
        idempotency_key: str | None = ...,
        priority: int | None = ...,
        metadata: Mapping[str, Plain] | None = ...,
        **kwargs: Any,
    ) -> R: ...
    @overload
    async def call(
        self,
        method: MethodRef[..., R],
        key: str | bytes,
        /,
        *args: Any,
        idempotency_key: str | None,
        priority: int | None = ...,
        metadata: Mapping[str, Plain] | None = ...,
        **kwargs: Any,
    ) -> R: ...
    @overload
    async def call(
        self,
        method: MethodRef[..., R],
        key: str | bytes,
        /,
        *args: Any,
        priority: int | None,
        metadata: Mapping[str, Plain] | None = ...,
        **kwargs: Any,
    ) -> R: ...
    @overload
    async def call(
        self,
        method: MethodRef[..., R],
        key: str | bytes,
        /,
        *args: Any,
        metadata: Mapping[str, Plain] | None,
        **kwargs: Any,
    ) -> R: ...
    @overload
    async def call(
        self,
        method: str,
        key: str | bytes,
        /,
        *args: Any,
        timeout: float = ...,
        idempotency_key: str | None = ...,
        priority: int | None = ...,
        metadata: Mapping[str, Plain] | None = ...,
        **kwargs: Any,
    ) -> Any: ...
    def call(
        self,
        method: MethodRef[..., Any] | str,
        key: str | bytes,
        /,
        *args: Any,
        timeout: Any = DEFAULT_TIMEOUT_S,
        idempotency_key: Any = None,
        priority: Any = None,
        metadata: Any = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, Any]:
        """Call an entity's method on a key; a command takes effect exactly once, or not at all.

        Cancelling it ends it here and now; what was sent may still be carried out.

        Args:
            method: `Account.deposit`, or its name "Account.deposit".
            key: str or bytes, 1 to 512 bytes.
            args: the method's positional arguments; kwargs its keyword arguments.
            timeout: seconds for all attempts together, up to a day.
            idempotency_key: the caller's own name for this call, 1 to 256 bytes: whoever calls again with
                it within the window (24 h by default) gets what the first one got. Queries leave no record.
            priority: 0 to 255, higher goes first; the entity's own where None, else 128.
            metadata: up to 16 plain values by name, 4 KiB together, for the method's mesh.context().

        Raises:
            EntityError: the method raised; the state is unchanged.
            BadRequest: unknown method, wrong arguments, or over a limit.
            IdempotencyConflict: the key was used before for another call, or this call was ruled out.
            Overloaded: not executed; for one with an idempotency key also: no room for its record.
            Unavailable: the client is closed, or was closed before the call was sent.
            DeadlineExceeded: not executed in time.
            OutcomeUnknown: sent, and no verdict in time, or before the client was closed.
            ProtocolError: executed, and its reply cannot be decoded.
        """
        meta = meta_of(idempotency_key, metadata)
        return self._call(method, key, args, kwargs, timeout, meta, priority)

    @overload
    async def outcome(
        self,
        method: MethodRef[..., R],
        key: str | bytes,
        /,
        idempotency_key: str,
        *,
        timeout: float = ...,
    ) -> Outcome[R]: ...
    @overload
    async def outcome(
        self, method: str, key: str | bytes, /, idempotency_key: str, *, timeout: float = ...
    ) -> Outcome[Any]: ...
    async def outcome(
        self,
        method: MethodRef[..., Any] | str,
        key: str | bytes,
        /,
        idempotency_key: str,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> Outcome[Any]:
        """How the call under this idempotency key ended; what never ran is ruled out, and never will.

        A call that is under way is waited for. Asking again, by whomever, gets the same.

        Args:
            method: of the call.
            key: of the entity.
            idempotency_key: that the call was given.
            timeout: seconds.

        Raises:
            BadRequest: the method is a query, of which nothing is recorded, or unknown.
            IdempotencyConflict: the key was used for another method.
            Overloaded: nothing is recorded of it, and there is no room for ruling it out.
            OutcomeUnknown, DeadlineExceeded, Unavailable: the mesh did not say in time; ask again.
        """
        meta = asking(idempotency_key)
        settled: Outcome[Any] = await self._call(method, key, (), {}, timeout, meta)
        return settled

    def entity(self, cls: type[E], key: str | bytes) -> AsyncEntity[E]:
        """One key of one entity: `await client.entity(Account, "alice").deposit(5)`."""
        return AsyncEntity(self, cls, key)

    @abstractmethod
    async def _call(
        self,
        method: MethodRef[..., Any] | str,
        key: str | bytes,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        timeout: float,
        meta: Meta,
        priority: int | None = None,
    ) -> Any:
        """A call from its beginning to its end, with what goes along with it."""
