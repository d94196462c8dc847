"""One key of one entity as an object, for either client: its methods return what `client.call` returns.

    alice = client.entity(Account, "alice")
    await alice.call(Account.deposit, 5)     # checked by a type checker, as client.call is
    await alice.deposit(5)                   # shorter, and checked when it is made

No type can say "the methods of E without self, and awaitable", so the short form is of type Any.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeVar

from mesh.client.outcome import Outcome
from mesh.client.prepared import Plain
from mesh.entities import MethodRef, spec_of
from mesh.errors import BadRequest

E = TypeVar("E")
P = ParamSpec("P")
R = TypeVar("R")


class Caller(Protocol):
    """The client that it belongs to."""

    @property
    def call(self) -> Callable[..., Any]:
        """As of either client."""
        ...

    @property
    def outcome(self) -> Callable[..., Any]:
        """As of either client."""
        ...


class _Key(Generic[E]):
    def __init__(
        self,
        client: Caller,
        cls: type[E],
        key: str | bytes,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._client = client
        self._spec = spec_of(cls)
        self._cls = cls
        self._key = key
        self._options = dict(options or {})

    def __repr__(self) -> str:
        return f"<{self._spec.name} {self._key!r}>"

    def with_options(
        self,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        priority: int | None = None,
        metadata: Mapping[str, Plain] | None = None,
    ) -> Self:
        """The same key, with these options for its calls beside those that it has.

        Args:
            timeout: seconds for all attempts of a call together.
            idempotency_key: for one call: a second one with it gets what the first one got.
            priority: 0 to 255.
            metadata: plain values by name, for the method's mesh.context().
        """
        options = {
            "timeout": timeout,
            "idempotency_key": idempotency_key,
            "priority": priority,
            "metadata": metadata,
        }
        given = {name: value for name, value in options.items() if value is not None}
        return type(self)(self._client, self._cls, self._key, {**self._options, **given})

    def _own(self, method: Any) -> MethodRef[..., Any]:
        if isinstance(method, MethodRef) and spec_of(method.owner) is self._spec:
            return method
        raise BadRequest(f"{method!r:.80} is no method of {self._spec.name}")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # what copies and inspects asks for what nobody has
        method = self._spec.methods.get(name)
        if method is None:
            raise AttributeError(
                f"{self._spec.name} has no method {name!r}; it has {sorted(self._spec.methods)}"
            )
        ref: MethodRef[..., Any] = MethodRef(self._spec.cls, method)
        return partial(self._client.call, ref, self._key, **self._options)


class AsyncEntity(_Key[E]):
    """One key of one entity, of a mesh.AsyncClient."""

    def call(
        self, method: MethodRef[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R]:
        """Call a method of this entity; see AsyncClient.call. Options come from `with_options`."""
        options: Any = self._options
        called: Coroutine[Any, Any, R] = self._client.call(
            self._own(method), self._key, *args, **kwargs, **options
        )
        return called

    def outcome(
        self, method: MethodRef[..., R], /, idempotency_key: str
    ) -> Coroutine[Any, Any, Outcome[R]]:
        """How the call under this key ended; see AsyncClient.outcome."""
        asked: Coroutine[Any, Any, Outcome[R]] = self._client.outcome(
            self._own(method), self._key, idempotency_key, **_timeout(self._options)
        )
        return asked


class Entity(_Key[E]):
    """One key of one entity, of a mesh.Client."""

    def call(self, method: MethodRef[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a method of this entity; see Client.call. Options come from `with_options`."""
        options: Any = self._options
        reply: R = self._client.call(self._own(method), self._key, *args, **kwargs, **options)
        return reply

    def outcome(self, method: MethodRef[..., R], /, idempotency_key: str) -> Outcome[R]:
        """How the call under this key ended; see Client.outcome."""
        settled: Outcome[R] = self._client.outcome(
            self._own(method), self._key, idempotency_key, **_timeout(self._options)
        )
        return settled


def _timeout(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"timeout": options["timeout"]} if "timeout" in options else {}
