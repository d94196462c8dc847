"""Calling, as users of an AsyncClient write it: one call with its options, in all the forms that it has.

What is here is types and words; the client that inherits it does the work in `_call`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any, ParamSpec, TypeVar, overload

from mesh.builtin import MAX_PAGE_KEYS
from mesh.client.keys import TIME_SHARE, KeyPage, Paging, built_in
from mesh.client.outcome import Outcome
from mesh.client.prepared import DEFAULT_TIMEOUT_S, Plain, asking, meta_of
from mesh.client.proxy import AsyncEntity
from mesh.core.payload import NO_META, Meta
from mesh.entities import MethodRef
from mesh.methods import BuiltIn

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
            Overloaded: not executed: no room for it, or for the record of its idempotency key; or the store
                refuses to write, and why.
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

    async def delete(
        self,
        entity: type[Any] | str,
        key: str | bytes,
        /,
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
        idempotency_key: str | None = None,
        priority: int | None = None,
        metadata: Mapping[str, Plain] | None = None,
    ) -> bool:
        """Delete a key, exactly once, like any command; it reads as never written from then on.

        Args:
            entity: its class, or its name.
            key: str or bytes, 1 to 512 bytes.
            timeout: seconds; see `call`, as for the other options.

        Returns:
            Whether there was one. A key is there once a command has changed it.

        Raises:
            BadRequest, IdempotencyConflict, Overloaded, Unavailable, DeadlineExceeded, OutcomeUnknown: see
                `call`.
        """
        method, meta = built_in(entity, BuiltIn.DELETE), meta_of(idempotency_key, metadata)
        there: bool = await self._call(method, key, (), {}, timeout, meta, priority)
        return there

    async def exists(
        self, entity: type[Any] | str, key: str | bytes, /, *, timeout: float = DEFAULT_TIMEOUT_S
    ) -> bool:
        """Whether a command has changed this key, and nobody deleted it since.

        Args:
            entity: its class, or its name.
            key: str or bytes, 1 to 512 bytes.
            timeout: seconds.

        Raises:
            BadRequest, Overloaded, Unavailable, DeadlineExceeded, OutcomeUnknown: see `call`.
        """
        method = built_in(entity, BuiltIn.EXISTS)
        there: bool = await self._call(method, key, (), {}, timeout, NO_META)
        return there

    async def keys(
        self,
        entity: type[Any] | str,
        /,
        *,
        prefix: str | bytes = "",
        cursor: str = "",
        limit: int = MAX_PAGE_KEYS,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> KeyPage:
        """A page of an entity's keys, in no particular order.

        Going on until the cursor is empty returns every key that is there from the first page to the last, at
        least once; one that comes or goes meanwhile may be among them. A page may be short, or empty,
        though more follow.

        Args:
            entity: its class, or its name.
            prefix: only keys that begin with it.
            cursor: of the page before, as it is; empty for the first page.
            limit: keys of this page, 1 to 1,000.
            timeout: seconds; after half of it a page ends with what it has.

        Raises:
            BadRequest: no such entity, or a cursor of another listing.
            Overloaded, Unavailable, DeadlineExceeded, OutcomeUnknown: see `call`; ask for this page again.
        """
        paging = self._paging(entity, prefix, cursor, limit)
        began, left = self._time(), timeout
        while not paging.is_over:
            await self._list(paging, left)
            left = timeout - (self._time() - began)
            if left < timeout * TIME_SHARE:
                break
        return paging.page()

    async def iterate_keys(
        self,
        entity: type[Any] | str,
        /,
        *,
        prefix: str | bytes = "",
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> AsyncIterator[str | bytes]:
        """All keys of an entity, each at least once; see `keys`. `timeout`: seconds for each page."""
        cursor, more = "", True
        while more:
            page = await self.keys(entity, prefix=prefix, cursor=cursor, timeout=timeout)
            for key in page.keys:
                yield key
            cursor, more = page.cursor, bool(page.cursor)

    @abstractmethod
    def _paging(
        self, entity: type[Any] | str, prefix: str | bytes, cursor: str, limit: int
    ) -> Paging:
        """Begin a page."""

    @abstractmethod
    async def _list(self, paging: Paging, timeout: float) -> None:
        """Ask for what it needs next."""

    @abstractmethod
    def _time(self) -> float:
        """Seconds of the clock that deadlines are told by."""

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
